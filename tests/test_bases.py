"""Shared output bases: the same numbers wherever they come from, made once, and every failure."""

from __future__ import annotations

import dataclasses
import json
import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cells import new_process
from helpers.configuration import compose
from helpers.matrices import random_inputs, random_weight, statistics_of
from helpers.methods import METHODS
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from nsvd_exp.bundled import MODEL_DIR, TEXT_DIR
from nsvd_exp.config.schema import MethodConfig
from nsvd_exp.experiment import bases
from nsvd_exp.experiment.bases import Bases, load, memory, save
from nsvd_exp.experiment.order import METRICS, BasisGroup, basis_group, metric_identity
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.methods import base as methods
from nsvd_exp.methods.base import WHITENINGS, Calibration, Method, Statistics, whitening_named
from nsvd_exp.methods.linalg import leading_eigenvectors, relative_loss
from nsvd_exp.methods.nested import Basis
from nsvd_exp.models.layers import find_linears, replaced
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.compress import compress, ranks_for
from nsvd_exp.pipeline.evaluate import window_nll
from nsvd_exp.storage.cache import BASES, Cache
from nsvd_exp.storage.files import DamagedError
from nsvd_exp.storage.tensors import FORMAT

Settings = Callable[..., list[str]]
SHAPES = [(20, 30), (30, 20), (24, 24)]
NAMES = ("a", "b", "c")
RANKS = dict.fromkeys(NAMES, 9)

every_method = pytest.mark.parametrize("name", METHODS)
every_shape = pytest.mark.parametrize(("m", "n"), SHAPES)


def method_named(name: str, solver: str = "basis") -> Method:
    whitening, second = METHODS[name]
    return Method(whitening_named(whitening), second, solver)


def group(key: str = "k", model: str = "m", calibration: str | None = "c") -> BasisGroup:
    return BasisGroup(model, calibration, key, {"model": "a model", "metric": "gram"})


def layers_of(m: int = 24, n: int = 20) -> dict[str, nn.Linear]:
    """Three layers in float32."""
    layers = {name: nn.Linear(n, m) for name in NAMES}
    for seed, layer in enumerate(layers.values()):
        layer.weight.data = random_weight(m, n, seed).float()
    return layers


STATISTICS = dict.fromkeys(NAMES, statistics_of(random_inputs(20, 300)))


def factors_of(
    method: str, bases: Bases | None, statistics: dict[str, Statistics] | None = STATISTICS
) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """All factors in float32, and the table, of `layers_of()`."""
    layers = layers_of()
    made, table = compress(
        layers, RANKS, method_named(method), 0.7, statistics, torch.float32, None, bases
    )
    return [t for one in made.values() for t in (one.left.weight, one.right.weight)], table


def same(one: Any, other: Any) -> bool:
    """Whether two results of `factors_of` are the same, bit by bit."""
    return one[1] == other[1] and all(map(torch.equal, one[0], other[0]))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each eigenproblem of a first stage."""
    real, calls = methods.eigenbasis, []

    def eigenbasis(*args: Any) -> Any:
        calls.append(0)
        return real(*args)

    monkeypatch.setattr(methods, "eigenbasis", eigenbasis)
    return calls


INPUTS = {
    "many tokens": lambda n: random_inputs(n, 300),
    "fewer tokens than channels": lambda n: random_inputs(n, 9),
    "dead channels": lambda n: random_inputs(n, 300) * (torch.arange(n) % 7 > 0)[:, None],
}


@every_method
@every_shape
@pytest.mark.parametrize("inputs", INPUTS)
def test_losses_from_energies_are_the_losses_by_definition(
    name: str, m: int, n: int, inputs: str
) -> None:
    """To 1e-10 of ||W S||²: to 1e-6 of a loss of 1%, to more of a larger one."""
    W, statistics = random_weight(m, n), statistics_of(INPUTS[inputs](n))
    method = method_named(name)
    for k, k1 in ((8, 0.75), (3, 0.5), (12, 0.95), (20, 0.1), (7, 1.0)):
        factors = method.factorise(W, k, k1, statistics)
        approximation = factors.left @ factors.right
        losses = factors.losses
        assert losses is not None
        for ours, M in (
            (losses.weight, None),
            (losses.activation, statistics.gram),
            (losses.own, method.metric(statistics)),
        ):
            assert ours is not None
            assert ours**2 == pytest.approx(relative_loss(W, approximation, M) ** 2, abs=1e-10)


@every_method
def test_held_in_float32_a_basis_is_as_good(name: str) -> None:
    exact, shared = factors_of(name, None), factors_of(name, Bases(group()))
    for one, other in zip(exact[1], shared[1], strict=True):
        for loss in ("weight_loss", "activation_loss", "discarded_energy"):
            assert other[loss] == pytest.approx(one[loss], rel=1e-6)
    for one, other in zip(
        zip(exact[0][::2], exact[0][1::2], strict=True),
        zip(shared[0][::2], shared[0][1::2], strict=True),
        strict=True,
    ):
        torch.testing.assert_close(other[0] @ other[1], one[0] @ one[1], rtol=1e-5, atol=1e-5)


def bundled_rows(split: str) -> Tensor:
    """Token ids (8, 256) of the bundled text."""
    lines = (TEXT_DIR / "wikitext2" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    text = "\n\n".join(json.loads(line)["text"] for line in lines[:200])
    ids = AutoTokenizer.from_pretrained(MODEL_DIR)(text).input_ids
    return torch.tensor(ids[: 8 * 256]).view(8, 256)


@pytest.mark.parametrize("name", ["svd", "asvd_i", "nsvd_i", "nid_i"])
def test_held_in_float32_the_bundled_model_loses_what_it_loses_in_float64(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32).eval()
    samples, windows = (bundled_rows(split) for split in ("train", "test"))
    layers = find_linears(model, [])
    calibration = Calibration(*calibrate(model, layers, samples))
    statistics = {name: calibration.of(name) for name in layers}
    tables, losses = [], []
    for held in (torch.float32, torch.float64):
        monkeypatch.setattr(bases, "STORED", held)
        new_process()
        method, ranks = method_named(name), ranks_for(layers, 0.3)
        made, table = compress(
            layers, ranks, method, 0.95, statistics, torch.float32, None, Bases(group())
        )
        with replaced(model, made):
            losses.append(sum(window_nll(model, windows)) / (8 * 255))
        tables.append(table)
    for ours, exact in zip(*tables, strict=True):
        for loss in ("weight_loss", "activation_loss", "discarded_energy"):
            assert ours[loss] == pytest.approx(exact[loss], rel=1e-8)
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)


def test_second_stages_stay_within_the_memory_that_bases_may_take() -> None:
    def cell(k1: float, limit: int | None = None) -> int:
        layers = layers_of()
        method = method_named("nsvd_i")
        made = Bases(group(), None, limit)
        before = sum(held.basis.nbytes for held in memory._held.values())
        compress(layers, RANKS, method, k1, STATISTICS, torch.float32, None, made)
        return before

    new_process()
    cell(0.2)
    empty = sum(h.basis.nbytes - h.basis._second_bytes() for h in memory._held.values())
    grown = [cell(k1) for k1 in (0.3, 0.4, 0.5, 0.6)]
    assert grown == sorted(grown)
    assert len(set(grown)) == len(grown)
    assert cell(0.7, limit=empty) == empty
    assert len(memory._held) == len(NAMES)  # the bases themselves stay


@every_method
def test_new_in_memory_or_from_disk_a_cell_has_the_same_numbers(name: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    new = factors_of(name, Bases(group()))
    assert same(factors_of(name, Bases(group())), new)
    new_process()
    assert same(factors_of(name, Bases(group(), cache)), new)
    new_process()
    assert len(list(tmp_path.glob("bases/k/*.safetensors"))) == len(NAMES)
    assert same(factors_of(name, Bases(group(), cache)), new)
    assert same(factors_of(name, Bases(group(), limit=0)), new)


def test_one_eigenproblem_a_weight_serves_every_rank_and_method(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = counted(monkeypatch)
    for round_of in range(2):
        for name in ("asvd_i", "asvd_ii", "nsvd_i", "nsvd_ii", "nid_i", "nid_ii"):
            for k in (3, 9, 14):
                for k1 in (0.5, 0.95):
                    method, ranks = method_named(name), dict.fromkeys(NAMES, k)
                    bases = Bases(group(), Cache(tmp_path))
                    compress(layers_of(), ranks, method, k1, STATISTICS, torch.float32, None, bases)
        assert len(calls) == len(NAMES), round_of
        new_process()  # from disk now


def test_what_is_at_hand_needs_no_statistics() -> None:
    new = factors_of("asvd_i", Bases(group()))

    class Unread(dict[str, Statistics]):
        def __getitem__(self, name: str) -> Statistics:
            pytest.fail(f"the statistics of {name} were read")

    assert same(factors_of("asvd_ii", Bases(group()), Unread(STATISTICS)), new)


def test_the_paper_route_shares_nothing() -> None:
    paper = method_named("nsvd_i", "paper")
    compress(layers_of(), RANKS, paper, 0.7, STATISTICS, torch.float32, None, Bases(group()))
    assert memory.get(group(), "a") is None


def test_whitenings_of_one_metric_share_it_and_no_others() -> None:
    assert METRICS.keys() == WHITENINGS.keys()
    statistics = STATISTICS["a"]
    for a in WHITENINGS:
        for b in WHITENINGS:
            M, N = (WHITENINGS[name]().metric(statistics) for name in (a, b))
            alike = M is N is None or (M is not None and N is not None and torch.equal(M, N))
            assert (METRICS[a] == METRICS[b]) == alike


class OwnGram(methods.Cholesky):
    """A whitening of a user's own: another metric under an inherited class."""

    def metric(self, statistics: Statistics) -> Tensor:
        return statistics.gram + torch.eye(len(statistics.gram), dtype=torch.float64)


def test_a_whitening_of_ones_own_is_known_by_its_path_and_version() -> None:
    path = f"{__name__}.OwnGram"
    own = MethodConfig("own", path)
    nested = MethodConfig("own_nested", path, "svd")
    assert metric_identity(own) == metric_identity(nested) == {"whitening": path, "version": 1}
    raised = MethodConfig("own", path, version=2)
    assert metric_identity(raised) != metric_identity(own)
    assert metric_identity(own) != metric_identity(MethodConfig("asvd_i", "cholesky"))


def test_the_group_is_what_the_basis_follows_from(settings: Settings) -> None:
    def key(*overrides: str) -> str:
        return basis_group(plan_cell(compose(*settings(), *overrides))).key

    gram = key("method=asvd_i")
    for alike in ("method=nsvd_ii", "method=nid_i", "ratio=0.5", "k1=0.5", "dataset=[ptb]"):
        assert key("method=asvd_i", alike) == gram, alike
    others = ["method=asvd_0", "calibration.seed=4", "dtype=bfloat16", "model.skip=['*.q_proj']"]
    assert len({gram, *(key("method=asvd_i", other) for other in others)}) == 5
    plain = key("method=svd")
    assert key("method=asvd_iii", "calibration.seed=4") == plain
    assert key("method=svd", "dtype=bfloat16") != plain


def test_a_shared_basis_has_the_activation_loss_of_each_calibration() -> None:
    """Plain SVD looks at no activations, asvd_iii has the same basis and a calibration."""
    other = dict.fromkeys(NAMES, statistics_of(random_inputs(20, 300, seed=5)))
    assert factors_of("svd", Bases(group(calibration=None)), None)[1][0]["activation_loss"] is None
    losses = []
    for calibration, statistics in (("c", STATISTICS), ("d", other), ("c", STATISTICS)):
        bases = Bases(group(calibration=calibration))
        row = factors_of("asvd_iii scalar", bases, statistics)[1][0]
        exact = factors_of("asvd_iii scalar", None, statistics)[1][0]
        assert row["activation_loss"] == pytest.approx(exact["activation_loss"], rel=1e-6)
        losses.append(row["activation_loss"])
    assert losses[0] == losses[2] != losses[1]


def basis_of(size: int = 16) -> Basis:
    W = random_weight(size, size).float()
    return Basis.of(W, methods.eigenbasis(W, None), False)


def test_memory_drops_other_groups_first_and_the_oldest_of_them() -> None:
    one = basis_of().nbytes

    def held() -> list[tuple[str, str]]:
        return list(memory._held)

    for key in ("first", "second"):
        memory.put(group(key), "a", basis_of(), 3 * one)
    assert memory.get(group("first"), "a") is not None  # the second is the oldest by that
    memory.put(group("third"), "a", basis_of(), 3 * one)
    memory.put(group("third"), "b", basis_of(), 3 * one)
    assert held() == [("first", "a"), ("third", "a"), ("third", "b")]
    for layer in "cd":
        memory.put(group("third"), layer, basis_of(), 3 * one)
    # Full of its own group, it drops none of it: each would be dropped just before it is wanted.
    assert held() == [("third", layer) for layer in "abc"]


def test_another_model_lets_go_of_the_bases_of_the_last() -> None:
    memory.put(group("k", "m"), "a", basis_of(), 10**6)
    Bases(group("other metric", "m"))
    assert memory.get(group("k", "m"), "a") is not None
    Bases(group("k2", "another model"))
    assert memory.get(group("k", "m"), "a") is None


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    W = random_weight(20, 30)
    basis = Basis.of(W, methods.eigenbasis(W, None), True)
    basis.U = basis.U.float()
    save(basis, tmp_path / "file")
    again = load(tmp_path / "file", W)
    assert torch.equal(again.U, basis.U)
    assert torch.equal(again.energy, basis.energy)
    assert (again.seen, again.is_gram) == (20, True)
    with pytest.raises(DamagedError, match="for a weight"):
        load(tmp_path / "file", W.T)


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
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = factors_of("nsvd_i", Bases(group(), Cache(tmp_path)))
    files = sorted(tmp_path.glob("bases/k/*.safetensors"))
    for file in files:
        content = DAMAGE[damage](file.read_bytes())
        assert content != file.read_bytes()
        file.write_bytes(content)
    new_process()
    calls = counted(monkeypatch)
    assert same(factors_of("nsvd_i", Bases(group(), Cache(tmp_path))), new)
    assert len(calls) == len(files)
    assert caplog.text.count("made again") == 1
    new_process()
    assert same(factors_of("nsvd_i", Bases(group(), Cache(tmp_path))), new)
    assert len(calls) == len(files)


def test_on_a_full_disk_a_cell_goes_on_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit of the file size stands for the disk: the write breaks off in the same place."""
    new = factors_of("nsvd_i", Bases(group()))
    new_process()
    bases = Bases(group(), Cache(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        assert same(factors_of("nsvd_i", bases), new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert caplog.text.count("bases cannot be kept") == 1
    assert list(tmp_path.glob("bases/k/*.safetensors")) == []
    assert list(tmp_path.glob("bases/k/.*.tmp")) == []


WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from nsvd_exp.experiment import bases
from nsvd_exp.methods import base as methods
from nsvd_exp.storage.cache import Cache
from test_bases import factors_of, group
real = methods.eigenbasis
def slow(*args):
    print("making", flush=True)
    time.sleep(float(sys.argv[3]))
    return real(*args)
methods.eigenbasis = slow
tensors, _ = factors_of("asvd_i", bases.Bases(group(), Cache(Path(sys.argv[2]))))
print("sum", float(sum(t.double().sum() for t in tensors)), flush=True)
"""


def worker(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that makes the bases of `layers_of` in that folder, each in so many seconds."""
    tests = str(Path(__file__).parent)
    command = [sys.executable, "-c", WORKER, tests, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_make_each_basis_once(tmp_path: Path) -> None:
    workers = [worker(tmp_path, 0.3) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in workers]
    assert [process.returncode for process in workers] == [0, 0], outputs
    lines = [line for out, _ in outputs for line in out.splitlines()]
    assert lines.count("making") == len(NAMES)
    assert len({line for line in lines if line.startswith("sum")}) == 1


def test_a_killed_process_leaves_its_basis_to_the_next(tmp_path: Path) -> None:
    with worker(tmp_path, 60) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "making\n"
        killed.kill()
    out, err = worker(tmp_path, 0).communicate(timeout=120)
    assert out.count("making") == len(NAMES), err
    assert len(Cache(tmp_path).entries()) == 1


@pytest.mark.parametrize(("size", "k"), [(60, 3), (60, 40), (5, 1), (5, 5)])
def test_leading_eigenvectors_are_those_of_the_whole(size: int, k: int) -> None:
    A = random_weight(size, size)
    B = A @ A.T
    ours = leading_eigenvectors(B, k)
    every = torch.linalg.eigh(B).eigenvectors.flip(1)[:, :k]
    torch.testing.assert_close(ours @ ours.T, every @ every.T)
    captured = [(B @ V * V).sum(0) for V in (ours, every)]
    torch.testing.assert_close(*captured)


def test_a_cell_keeps_bases_where_it_is_told_to(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from helpers.cells import run

    caplog.set_level(logging.WARNING)
    arguments = [*settings(), "dataset=[ptb]", "method=nsvd_i"]
    kept = run(*arguments, "cache.keep=bases")
    assert kept["status"] == "done", kept["error"]
    assert len(list(tmp_path.glob(f"results/cache/{BASES}/*/*.safetensors"))) == len(kept["layers"])
    new_process()
    other = run(*arguments, "cache.keep=bases", f"results_dir={tmp_path / 'o'}", "ratio=0.4")
    assert other["status"] == "done", other["error"]
    fresh = run(*arguments, "cache.keep=none", f"results_dir={tmp_path / 'fresh'}")
    assert fresh["datasets"]["ptb"]["nll"] == kept["datasets"]["ptb"]["nll"]
    assert fresh["layers"] == kept["layers"]
    assert not (tmp_path / "fresh" / "cache").exists()
    assert dataclasses.asdict(compose().cache)["keep"] == "statistics"
