"""Shared output bases: the same numbers wherever they come from, made once, and every failure."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.cells import run
from helpers.command_line import REPOSITORY, Log, Settings
from helpers.configuration import compose
from helpers.matrices import calibration_of, random_weight
from helpers.methods import METHODS, SHAPES, compressed, every_method, with_k1
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import nsvd_exp as nx
from nsvd_exp.bundled import MODEL_DIR, TEXT_DIR
from nsvd_exp.experiment.bases import BasisMemory, SharedBases
from nsvd_exp.experiment.bases_plan import BasesOf, bases_of
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.methods import NSVD, SVD, CholeskyASVD, EigenASVD, Method, ScaledEigenASVD
from nsvd_exp.methods.linalg import Eigenbasis
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.methods.truncation import OutputBasis, has_gram_metric
from nsvd_exp.models.layers import find_linears, replaced
from nsvd_exp.models.storage import Factors
from nsvd_exp.pipeline.compress import Compressor, ranks_of
from nsvd_exp.pipeline.evaluate import window_nll
from nsvd_exp.storage.cache import BASES, Cache
from nsvd_exp.storage.tensors import FORMAT

Outcome = tuple[list[Tensor], list[dict[str, Any]]]

CALIBRATION = calibration_of(SHAPES)
LOSSES = ("weight_loss", "activation_loss", "discarded_energy")
# Methods whose bases are those of the Gram matrix.
OF_GRAM = [method for method in METHODS.values() if has_gram_metric(method)]


def of(
    method: Method = OF_GRAM[0], key: str = "k", model: str = "m", calibration: str | None = "c"
) -> BasesOf:
    about = {"model": "a model", "metric": "gram"}
    return BasesOf(model, calibration, key, has_gram_metric(method), about)


class Process:
    """What one process shares between its cells; counts the eigenproblems of first stages."""

    def __init__(self, cache: Cache | None = None, limit: int | None = None) -> None:
        self.memory, self.cache, self.limit, self.made = BasisMemory(), cache, limit, 0

    def bases(self, which: BasesOf) -> Any:
        shared = SharedBases(which, self.memory, self.cache, self.limit)

        def get(layer: str, W: Tensor, make: Callable[[], Eigenbasis]) -> OutputBasis:
            def counted() -> Eigenbasis:
                self.made += 1
                return make()

            return shared.get(layer, W, counted)

        return SimpleNamespace(get=get)

    def cell(
        self, method: Method, calibration: Calibration | None = CALIBRATION, **options: Any
    ) -> Outcome:
        """Factors and table of a method."""
        return compressed(method, calibration, bases=self.bases(of(method)), **options)

    def held(self, which: BasesOf | None = None) -> list[OutputBasis]:
        """The bases in memory."""
        found = [self.memory.get(which or of(), name) for name in SHAPES]
        return [basis for basis in found if basis is not None]


def same(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes are the same, bit by bit."""
    return one[1] == other[1] and all(map(torch.equal, one[0], other[0]))


@every_method
def test_held_in_float32_a_basis_is_as_good(method: Method) -> None:
    exact, shared = compressed(method, CALIBRATION), Process().cell(method)
    for one, other in zip(exact[1], shared[1], strict=True):
        assert [other[x] for x in LOSSES] == pytest.approx([one[x] for x in LOSSES], rel=1e-6)
    products = [
        [left @ right for right, left in zip(factors[::2], factors[1::2], strict=True)]
        for factors in (shared[0], exact[0])
    ]
    torch.testing.assert_close(*products, rtol=1e-5, atol=1e-5)


def test_held_in_float32_the_bundled_model_loses_what_it_loses_in_float64() -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32).eval()
    tokenizer, data = AutoTokenizer.from_pretrained(MODEL_DIR), {"data_dir": TEXT_DIR}
    calibration = nx.calibrate(model, nx.samples("wikitext2", tokenizer, 8, 256, **data))
    windows = nx.windows("wikitext2", tokenizer, 256, 8, **data).ids
    layers = find_linears(model, [])
    ranks = ranks_of(layers, 0.3, nx.methods.Uniform(), Factors())
    for method in (SVD(), CholeskyASVD(), nx.methods.NSVD(), nx.methods.NID()):
        tables, losses = [], []
        exact = Compressor(method, ranks, calibration, Factors(), torch.float32)
        shared = dataclasses.replace(exact, bases=SharedBases(of(method), BasisMemory()))
        for compressor in (shared, exact):
            made, table = compressor.compress(layers)
            with replaced(model, made):
                losses.append(sum(window_nll(model, windows)) / (8 * 255))
            tables.append([row[loss] for row in table for loss in LOSSES])
        assert tables[0] == pytest.approx(tables[1], rel=1e-8), method
        assert losses[0] == pytest.approx(losses[1], rel=1e-7), method


@every_method
def test_new_in_memory_or_from_disk_a_cell_has_the_same_numbers(
    method: Method, tmp_path: Path
) -> None:
    process, keeping = Process(), Process(Cache(tmp_path))
    new = process.cell(method)
    for at_work in (process, keeping, keeping, Process(Cache(tmp_path)), Process(limit=0)):
        assert same(at_work.cell(method), new)
    assert len(list(tmp_path.glob("bases/k/*.safetensors"))) == len(SHAPES)


def test_one_eigenproblem_for_each_weight_serves_every_rank_and_method(tmp_path: Path) -> None:
    """And what one cell has made changes no number of another."""
    processes = [Process(Cache(tmp_path)) for _ in range(2)]
    for method, k1, rank in itertools.product(OF_GRAM, (0.5, 0.95), (3, 9, 14)):
        fresh = Process().cell(with_k1(method, k1), rank=rank)
        assert all(same(p.cell(with_k1(method, k1), rank=rank), fresh) for p in processes)
    assert len(OF_GRAM) == 6
    assert [process.made for process in processes] == [len(SHAPES), 0]


def test_what_is_at_hand_needs_no_statistics_and_the_paper_route_shares_nothing() -> None:
    process = Process()
    process.cell(NSVD(), solver="paper")
    assert (process.made, process.held()) == (0, [])
    new = process.cell(CholeskyASVD())
    unread = Calibration({}, CALIBRATION.reads)
    assert same(process.cell(EigenASVD(), unread), new)


def test_a_shared_basis_has_the_activation_loss_of_each_calibration() -> None:
    """Plain SVD looks at no activations; its losses under each calibration are told apart."""
    process = Process()
    calibrations = {"c": CALIBRATION, "d": calibration_of(SHAPES, seed=5), None: None}
    found = []
    for name in ("c", "d", None, "c"):
        method = SVD() if name is None else ScaledEigenASVD()
        bases = process.bases(of(method, calibration=name))
        rows, exact = (
            [row["activation_loss"] for row in compressed(method, calibrations[name], **options)[1]]
            for options in ({"bases": bases}, {})
        )
        assert name is None or rows == pytest.approx(exact, rel=1e-6)
        found.append(rows)
    assert found[0] == found[3] != found[1]
    assert found[2] == [None] * len(SHAPES)


def test_bases_are_those_of_a_model_a_metric_and_what_the_metric_looks_at(
    settings: Settings,
) -> None:
    arguments = settings()

    def key(*overrides: str) -> str:
        plan = plan_cell(compose(*arguments, *overrides))
        return bases_of(plan, plan.choices.method).key

    gram = key("method=asvd_i")
    for alike in ("method=nsvd_ii", "method=nid_i", "ratio=0.5", "k1=0.5", "dataset=[ptb]"):
        assert key("method=asvd_i", alike) == gram, alike
    others = [
        ["method=asvd_0"],
        ["method=asvd_0", "method.alpha=0.5"],
        ["method=asvd_i", "method._target_=helpers.methods.Ridge"],
        ["method=nsvd_i", "method.first={_target_: helpers.methods.Ridge, version: 2}"],
        ["method=asvd_i", "calibration.seed=4"],
        ["method=asvd_i", "dtype=bfloat16"],
        ["method=asvd_i", "model.skip=['*.q_proj']"],
    ]
    assert len({gram, *(key(*other) for other in others)}) == 1 + len(others)
    plain = key("method=svd")
    assert key("method=asvd_iii", "calibration.seed=4") == plain
    assert key("method=svd", "dtype=bfloat16") != plain


def test_second_stages_stay_within_the_memory_that_bases_may_take() -> None:
    process = Process()

    def nbytes() -> int:
        return sum(basis.nbytes for basis in process.held())

    process.cell(CholeskyASVD())
    without = nbytes()
    grown = [nbytes() for k1 in (0.3, 0.4, 0.5, 0.6) if process.cell(NSVD(k1=k1))]
    assert [without, *grown] == sorted({without, *grown})
    process.bases(of())
    assert nbytes() == grown[-1]
    process.limit = without
    process.bases(of())
    assert nbytes() == without  # the bases themselves stay
    assert len(process.held()) == len(SHAPES)


def test_memory_drops_other_groups_first_and_the_oldest_of_them() -> None:
    memory, basis = BasisMemory(), OutputBasis.of(random_weight(16, 16), SVD(), None)
    places = [(key, layer) for key in ("first", "second", "third") for layer in "abcd"]

    def put(*into: str) -> None:
        for place in into:
            key, layer = place.split()
            memory.put(of(key=key), layer, basis, 3 * basis.nbytes)

    def held() -> list[str]:
        return [" ".join(p) for p in places if memory.get(of(key=p[0]), p[1]) is not None]

    put("first a", "second a")
    assert memory.get(of(key="first"), "a") is not None  # the second is the oldest by that
    put("third a", "third b")
    assert held() == ["first a", "third a", "third b"]
    put("third c", "third d")
    # Full of its own group, it drops none of it: each would be dropped just before it is wanted.
    assert held() == ["third a", "third b", "third c"]


def test_another_model_lets_go_of_the_bases_of_the_last() -> None:
    process = Process()
    process.cell(CholeskyASVD())
    process.bases(of(key="another metric"))
    assert len(process.held()) == len(SHAPES)
    process.bases(of(key="k2", model="another model"))
    assert process.held() == []


def flipped(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


THIS_FORMAT = f'"format":"{FORMAT}"'.encode()
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-8],
    "cut in its header": lambda content: content[:20],
    "empty": lambda content: b"",
    "a bit flipped": flipped,
    "another version": lambda content: content.replace(THIS_FORMAT, b'"format":"0"'),
    "no safetensors": lambda content: b"PK" + content,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_made_again_and_said_once(
    damage: str, tmp_path: Path, caplog: Log
) -> None:
    new = Process(Cache(tmp_path)).cell(NSVD())
    for file in tmp_path.glob("bases/k/*.safetensors"):
        content = DAMAGE[damage](file.read_bytes())
        assert content != file.read_bytes()
        file.write_bytes(content)
    repairing, after = Process(Cache(tmp_path)), Process(Cache(tmp_path))
    assert same(repairing.cell(NSVD()), new)
    assert same(after.cell(NSVD()), new)
    assert (repairing.made, after.made) == (len(SHAPES), 0)
    assert caplog.text.count("made again") == 1


def test_the_basis_of_another_shape_is_made_again(tmp_path: Path, caplog: Log) -> None:
    Process(Cache(tmp_path)).cell(SVD())
    turned, process = {name: (n, m) for name, (m, n) in SHAPES.items()}, Process(Cache(tmp_path))
    expected = Process().cell(SVD(), calibration_of(turned), shapes=turned)
    assert same(process.cell(SVD(), calibration_of(turned), shapes=turned), expected)
    assert process.made == 2  # not of the square one
    assert caplog.text.count("made again") == 1


def test_on_a_full_disk_a_cell_goes_on_and_says_so_once(tmp_path: Path, caplog: Log) -> None:
    """A limit of the file size stands for the disk: the write breaks off in the same place."""
    new, process = Process().cell(NSVD()), Process(Cache(tmp_path))
    bases = process.bases(of())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        assert same(compressed(NSVD(), CALIBRATION, bases=bases), new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert caplog.text.count("bases cannot be kept") == 1
    assert [*tmp_path.glob("bases/k/*.safetensors"), *tmp_path.glob("bases/k/.*.tmp")] == []


WORKER = """
import sys, time
from pathlib import Path
import torch
from helpers.matrices import linears
from helpers.methods import SHAPES
from nsvd_exp.experiment.bases import BasisMemory, SharedBases
from nsvd_exp.experiment.bases_plan import BasesOf
from nsvd_exp.methods.linalg import eigenbasis
from nsvd_exp.storage.cache import Cache

which = BasesOf("m", None, "k", False, {"model": "a model", "metric": "identity"})
bases = SharedBases(which, BasisMemory(), Cache(Path(sys.argv[1])))
total = 0.0
for name, linear in linears(SHAPES, torch.float64).items():
    def slow():
        print("making", flush=True)
        time.sleep(float(sys.argv[2]))
        return eigenbasis(linear.weight.data, None)
    total += float(bases.get(name, linear.weight.data, slow).U.double().sum())
print("sum", total, flush=True)
"""


def worker(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that makes the bases of three layers in that folder, each in so many seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), str(seconds)],
        env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_make_each_basis_once(tmp_path: Path) -> None:
    workers = [worker(tmp_path, 0.3) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in workers]
    assert [process.returncode for process in workers] == [0, 0], outputs
    lines = [line for out, _ in outputs for line in out.splitlines()]
    assert lines.count("making") == len(SHAPES)
    assert len({line for line in lines if line.startswith("sum")}) == 1


def test_a_killed_process_leaves_its_basis_to_the_next(tmp_path: Path) -> None:
    with worker(tmp_path, 60) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "making\n"
        killed.kill()
    process = Process(Cache(tmp_path))
    process.cell(SVD())
    assert process.made == len(SHAPES)
    (entry,) = Cache(tmp_path).entries()
    assert len(entry.users) == 1  # this process


def test_a_cell_keeps_bases_where_it_is_told_to(
    settings: Settings, tmp_path: Path, caplog: Log
) -> None:
    caplog.set_level(logging.WARNING)
    arguments = [*settings(), "dataset=[ptb]", "method=nsvd_i"]
    kept = run(*arguments, "cache.keep=bases")
    assert len(list(tmp_path.glob(f"results/cache/{BASES}/*/*.safetensors"))) == len(kept["layers"])
    run(*arguments, "cache.keep=bases", f"results_dir={tmp_path / 'other'}", "ratio=0.4")
    fresh = run(*arguments, "cache.keep=none", f"results_dir={tmp_path / 'fresh'}")
    assert fresh["datasets"]["ptb"]["nll"] == kept["datasets"]["ptb"]["nll"]
    assert fresh["layers"] == kept["layers"]
    assert not (tmp_path / "fresh" / "cache").exists()
    assert compose().cache.keep == "statistics"
