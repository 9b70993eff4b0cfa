"""A model of which one block at a time is in memory gives the numbers of one that is all there."""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cells import new_process
from helpers.configuration import compose
from helpers.models import CONFIGS, UP, edit_weights, make_model
from helpers.texts import token_ids, words
from torch import nn

from nsvd_exp.config.schema import ModelConfig
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment import run as runner
from nsvd_exp.experiment import session as stages
from nsvd_exp.experiment import similarity_run
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.session import release_model
from nsvd_exp.methods.base import Calibration, Statistics
from nsvd_exp.models import hidden_states, streamed
from nsvd_exp.models.hub import locate_model
from nsvd_exp.models.layers import find_linears
from nsvd_exp.models.loading import load_streamed
from nsvd_exp.models.streamed import Flow, StreamedModel, calibrate_streamed, window_nll_streamed
from nsvd_exp.pipeline.calibrate import GramAccumulator, calibrate
from nsvd_exp.pipeline.evaluate import window_nll
from nsvd_exp.storage.files import ScratchFolder
from nsvd_exp.storage.results import Result
from nsvd_exp.storage.tensors import StatisticsFolder

Settings = Callable[..., list[str]]
Save = Callable[..., Path]

BATCHES = ["calibration.batch=5", "evaluation.batch=4"]


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No model is left over from another test, and none is known to be too large."""
    monkeypatch.setattr(stages, "_too_large", set())
    release_model()
    yield
    release_model()


def run(*overrides: str) -> Result:
    """A cell by a process that has nothing yet."""
    new_process()
    return run_cell(plan_cell(compose(*overrides)))


def elsewhere(arguments: list[str]) -> str:
    """Another results folder, with a cache of its own."""
    return next(a for a in arguments if a.startswith("results_dir=")) + "-elsewhere"


def both(arguments: list[str]) -> tuple[Result, Result]:
    """The cell resident and streamed, nothing shared."""
    resident = run(*arguments, "memory=resident")
    other = run(*arguments, "memory=streamed", elsewhere(arguments))
    for result in (resident, other):
        assert result["status"] == "done", result["error"]
    return resident, other


def losses(result: Result) -> dict[str, list[float]]:
    return {name: number["window_nll"] for name, number in result["datasets"].items()}


def streamed_model(
    folder: Path,
    dtype: str = "float32",
    host_bytes: int = hidden_states.HOST_BYTES,
    **options: Any,
) -> StreamedModel:
    config = ModelConfig(name=str(folder), title="test", **options)
    model, weights = load_streamed(locate_model(str(folder)), config, dtype, folder)
    return StreamedModel(model, weights, torch.device("cpu"), folder, host_bytes=host_bytes)


def calibrated(large: StreamedModel, ids: torch.Tensor, batch: int | str = "auto") -> Calibration:
    inputs: dict[str, Statistics] = {}
    layers = find_linears(large.model, [])
    reads = calibrate_streamed(large, layers, ids, inputs.__setitem__, batch)
    return Calibration(inputs, reads)


def dense(_: int) -> Any:
    return torch.no_grad()  # a context that leaves the block as it is


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("method", ["dense", "nsvd_i"])
def test_a_streamed_cell_is_the_resident_one(
    settings: Settings, architecture: str, method: str
) -> None:
    """To the last bit, on a CPU and in batches of the same size."""
    resident, other = both([*settings(architecture), f"method={method}", *BATCHES])
    assert losses(other) == losses(resident)
    assert other["key"] == resident["key"]
    for name in ("layers", "achieved_ratio", "calibration", "config"):
        assert other[name] == resident[name]
    assert other["seconds"].keys() == resident["seconds"].keys()
    for name, number in resident["datasets"].items():
        own = {key for key in number if key not in ("seconds", "measured")}
        assert {key: other["datasets"][name][key] for key in own} == {k: number[k] for k in own}


def test_batches_of_another_size_show_only_as_rounding(settings: Settings) -> None:
    resident, other = both([*settings(), "method=asvd_i"])
    for name, nll in losses(resident).items():
        assert losses(other)[name] == pytest.approx(nll, rel=1e-5)


def test_half_precision_that_is_evaluated_in_single(settings: Settings) -> None:
    arguments = [*settings("gemma"), "dtype=bfloat16", "evaluation.dtype=float32", *BATCHES]
    resident, other = both([*arguments, "model.skip=[model.layers.0.mlp]"])
    assert losses(other) == losses(resident)
    assert other["layers"] == resident["layers"]


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("batch", [3, "auto"])
def test_streamed_statistics_are_those_of_one_pass(
    architecture: str, batch: int | str, model_folder: Save
) -> None:
    model, ids = make_model(architecture), token_ids()
    inputs, reads = calibrate(model, find_linears(model, []), ids, batch)
    found = calibrated(streamed_model(model_folder(architecture)), ids, batch)
    assert list(found.reads.items()) == list(reads.items())
    assert list(found.inputs) == list(inputs)
    for name, s in found.inputs.items():
        assert s.tokens == inputs[name].tokens
        for field in ("gram", "abs_mean", "mean"):
            torch.testing.assert_close(getattr(s, field), getattr(inputs[name], field))


@pytest.mark.parametrize("limit", [0, 2])
def test_similarity_records_are_the_resident_ones(settings: Settings, limit: int) -> None:
    arguments = [*settings("llama_gqa"), f"similarity.gram_limit_gb={limit}", *BATCHES]
    resident = run_similarities(plan_similarity(compose(*arguments, "memory=resident")))
    plan = plan_similarity(compose(*arguments, "memory=streamed", elsewhere(arguments)))
    for record, other in zip(resident, run_similarities(plan), strict=True):
        assert (record["status"], other["status"]) == ("done", "done")
        assert other["statistics"] == record["statistics"]
        for a, b in zip(record["layers"], other["layers"], strict=True):
            assert b == pytest.approx(a, abs=1e-9)


def test_no_more_than_one_block_has_its_weights(
    model_folder: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, held = streamed_model(model_folder()), []
    real = Flow.push

    def watched(flow: Flow, index: int) -> None:
        held.append([name for name, p in large.model.named_parameters() if not p.is_meta])
        real(flow, index)

    monkeypatch.setattr(Flow, "push", watched)
    window_nll_streamed(large, token_ids(), torch.float32, dense, batch=2)
    names = [name for name, _ in large.model.named_parameters()]
    assert held == [[n for n in names if n.startswith(f"model.layers.{i}.")] for i in range(2)]
    assert all(p.is_meta for p in large.model.parameters())


def test_no_more_than_one_block_has_statistics(
    model_folder: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most = 0, 0

    class Counted(GramAccumulator):
        def __init__(self, x: torch.Tensor) -> None:
            nonlocal alive, most
            super().__init__(x)
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(streamed, "GramAccumulator", Counted)
    large = streamed_model(model_folder())
    calibrate_streamed(large, find_linears(large.model, []), token_ids(), lambda *_: None)
    assert (most, alive) == (4, 0)


def test_hidden_states_in_a_file_are_the_same_and_leave_none(model_folder: Save) -> None:
    folder = model_folder("opt")
    expected = window_nll_streamed(streamed_model(folder), token_ids(), torch.float32, dense, 3)
    for dtype in (torch.float32, torch.bfloat16):
        before = set(folder.iterdir())
        large = streamed_model(folder, host_bytes=0)
        found = window_nll_streamed(large, token_ids(), dtype, dense, 3)
        assert set(folder.iterdir()) == before
        assert found == (expected if dtype == torch.float32 else pytest.approx(expected, rel=2e-2))


def test_no_room_for_hidden_states_is_one_message(
    model_folder: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    folder = model_folder()
    large = streamed_model(folder, host_bytes=0)
    with pytest.raises(NsvdError, match=r"no room for 0\.0 GB .*No space left.*cache_dir"):
        window_nll_streamed(large, token_ids(), torch.float32, dense)
    assert not list(folder.glob(".hidden*"))


def test_a_folder_that_hidden_states_cannot_be_written_to_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(NsvdError, match=r"cache_dir=\S+gone cannot be written to"):
        hidden_states.HiddenStates(2, torch.zeros(1, 3, 4), tmp_path / "gone", host_bytes=0)


def resident_pages() -> int:
    """Bytes of files that this process has in memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(s.split()[1]) for s in status if s.startswith("RssFile"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_means_are_read_without_gram_matrices(tmp_path: Path) -> None:
    folder, x = StatisticsFolder(tmp_path / "s"), torch.ones(1, 1500, dtype=torch.float64)
    accumulator = GramAccumulator(x)
    accumulator.add(x)
    inputs = {str(i): accumulator.statistics() for i in range(4)}
    folder.save(Calibration(inputs, {name: name for name in inputs}))
    before = resident_pages()
    statistics = list(folder.load().inputs.values())
    assert all(float(s.mean.sum()) == 1500 for s in statistics)
    assert resident_pages() - before < 1500 * 1500 * 8 / 4
    assert all(float(s.gram.sum()) == 1500**2 for s in statistics)
    assert resident_pages() - before > 4 * 1500 * 1500 * 8 * 0.9


def test_a_batch_that_does_not_fit_is_halved(
    model_folder: Save,
) -> None:
    """A pass that broke off counts nothing twice, and has moved no hidden state."""
    folder, ids = model_folder(), token_ids()
    expected = window_nll_streamed(streamed_model(folder), ids, torch.float32, dense, 1)
    large = streamed_model(folder)
    whole = calibrated(large, ids, 1).inputs
    refuse_more_than(2, large.model.model.layers[1].mlp.down_proj)
    found = window_nll_streamed(large, ids, torch.float32, dense)
    assert found == pytest.approx(expected, rel=1e-5)
    for name, s in calibrated(large, ids).inputs.items():
        assert s.tokens == ids.numel()
        torch.testing.assert_close(s.gram, whole[name].gram)


def refuse_more_than(rows: int, layer: nn.Module) -> None:
    """The layer runs out of memory for more of them."""

    def refuse(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > rows:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    layer.register_forward_pre_hook(refuse)


# Where a resident cell may run out of memory, and the module and name of what does it there.
STAGES = {
    "load": (stages, "load_model"),
    "calibrate": (stages, "calibrate"),
    "decompose": (runner, "compress"),
    "evaluate": (runner, "window_nll"),
}


def out_of_memory(*_: Any) -> Any:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 86.00 MiB")


def once(real: Callable[..., Any]) -> Callable[..., Any]:
    """Runs out of memory the first time."""
    calls = iter(range(100))
    return lambda *args: real(*args) if next(calls) else out_of_memory()


@pytest.mark.parametrize("stage", STAGES)
def test_auto_goes_on_streamed_where_memory_runs_out(
    settings: Settings,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = [*settings(), "method=asvd_i", *BATCHES]
    expected = run(*arguments, elsewhere(arguments))
    release_model()
    module, name = STAGES[stage]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, once(getattr(module, name)))
        result = run(*arguments)
    assert result["status"] == "done", result["error"]
    assert losses(result) == losses(expected)
    assert result["layers"] == expected["layers"]
    assert "going on with memory=streamed" in caplog.text
    # And what follows in this process does not try again.
    monkeypatch.setattr(stages, "load_model", lambda *_: pytest.fail("resident again"))
    assert run(*arguments, "ratio=0.5")["status"] == "done"


@pytest.mark.parametrize("stage", STAGES)
def test_resident_that_was_asked_for_fails_with_the_way_out(
    settings: Settings, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*settings(), "method=asvd_i", "memory=resident"]
    with monkeypatch.context() as patch:
        patch.setattr(*STAGES[stage], out_of_memory)
        result = run(*arguments)
    assert result["status"] == "failed"
    assert "out of memory" in result["error"]["message"]
    assert "memory=streamed" in result["error"]["message"]
    assert run(*arguments)["status"] == "done"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (stages, "load_streamed"),
        (stages, "calibrate_streamed"),
        (runner, "compress"),
        (runner, "window_nll_streamed"),
    ],
)
def test_too_little_even_for_a_block_fails_that_cell_alone(
    settings: Settings, module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*settings(), "method=asvd_i", "memory=streamed"]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, out_of_memory)
        result = run(*arguments)
    assert result["status"] == "failed"
    assert "one block at a time is still too much" in result["error"]["message"]
    assert result["datasets"] == {}
    assert run(*arguments)["status"] == "done"


def test_after_a_failed_cell_the_next_one_has_its_calibration(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `cache.keep=none` the statistics stand in a file that goes with the model."""
    arguments = [*settings(), "method=asvd_i", "memory=streamed", "cache.keep=none"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "window_nll_streamed", lambda *_: 1 / 0)
        assert run(*arguments)["status"] == "failed"
    result = run_cell(plan_cell(compose(*arguments, "ratio=0.4")))
    assert result["status"] == "done", result["error"]


def test_a_loss_that_is_not_finite_costs_its_own_dataset(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*settings(), "method=asvd_i", "memory=streamed", *BATCHES]
    expected = losses(run(*arguments, elsewhere(arguments)))
    first, *others = expected

    def broken(*given: Any) -> list[float]:
        return [math.nan, *window_nll_streamed(*given)[1:]]

    with monkeypatch.context() as patch:
        patch.setattr(runner, "window_nll_streamed", broken)
        result = run(*arguments)
    assert result["status"] == "failed"
    assert result["error"]["message"].startswith(f"dataset {first}: ")
    assert losses(result) == {name: expected[name] for name in others}
    assert losses(run(*arguments))[first] == expected[first]


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path;"
        "from nsvd_exp.storage.files import ScratchFolder;"
        "own = ScratchFolder(Path(sys.argv[1]), '.streamed.');"
        "(own.path / 'weights').write_text('w'); print(own.path, flush=True);"
        "sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    theirs = Path(process.stdout.readline().strip())
    living = ScratchFolder(tmp_path, ".streamed.")
    assert (theirs / "weights").exists()
    process.stdin.close()
    assert process.wait(60) == -signal.SIGKILL
    after = ScratchFolder(tmp_path, ".streamed.")
    assert sorted(tmp_path.iterdir()) == sorted([living.path, after.path])


def test_similarity_goes_on_streamed_where_memory_runs_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = settings()
    monkeypatch.setattr(similarity_run, "watch", out_of_memory)
    records = run_similarities(plan_similarity(compose(*arguments)))
    assert [record["status"] for record in records] == ["done"] * 3
    assert caplog.text.count("going on with memory=streamed") == 1


def test_statistics_are_kept_once_for_both(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*settings(), *BATCHES]
    first = run(*arguments, "method=asvd_i", "memory=streamed")
    monkeypatch.setattr(stages, "calibrate", lambda *_: pytest.fail("made again"))
    again = run(*arguments, "method=nsvd_i", "k1=1", "memory=resident")
    assert losses(again) == losses(first)


def test_a_full_disk_says_what_the_statistics_need(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stages, "calibrate_streamed", full)
    result = run(*settings(), "memory=streamed")
    assert result["status"] == "failed"
    assert "No space left" in result["error"]["message"]
    assert "another cache_dir" in result["error"]["message"]
    assert not list((tmp_path / "results/cache/calibration").glob("*.tmp"))


def test_a_dataset_without_a_window_costs_no_other(settings: Settings) -> None:
    """As resident: those before it are stored, and the cell fails."""
    arguments = [*settings(), "memory=streamed", *BATCHES]
    data = Path(next(a for a in arguments if a.startswith("data_dir=")).partition("=")[2])
    (data / "ptb/test.jsonl").write_text(json.dumps({"text": words(20)}) + "\n")
    result = run(*arguments)
    assert result["status"] == "failed"
    assert "ptb has 20 tokens" in result["error"]["message"]
    assert list(result["datasets"]) == ["wikitext2"]


def test_a_loss_that_is_not_finite_names_dataset_and_window(
    settings: Settings, model_folder: Save
) -> None:
    arguments = [*settings(), "method=dense", "dataset=[c4]"]
    folder = model_folder()
    edit_weights(folder, lambda t: t["model.norm.weight"].fill_(3e38))
    messages = [
        run(*arguments, f"memory={memory}")["error"]["message"]
        for memory in ("resident", "streamed")
    ]
    assert messages[0] == messages[1]
    assert messages[0].startswith("dataset c4: the loss of window 0 of 6 is ")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(UP), f"the checkpoint lacks {UP} "),
        (lambda t: t.update({f"{UP}.more": torch.zeros(2)}), f"has, beyond .* knows, {UP}.more "),
        (
            lambda t: t.update({UP: torch.zeros(3, 4)}),
            rf"{UP} .* \(3, 4\), where \(48, 32\) belongs",
        ),
        (lambda t: t[UP].view(-1)[7].fill_(torch.nan), f"the weight {UP} holds NaN or Inf"),
        (lambda t: t["lm_head.weight"][0].fill_(torch.inf), "weight lm_head.weight holds NaN or"),
    ],
    ids=["missing", "unexpected", "shape", "nan", "inf"],
)
def test_a_checkpoint_that_does_not_fit_names_the_weight(
    model_folder: Save, edit: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    folder = model_folder()
    edit_weights(folder, edit)
    with pytest.raises(NsvdError, match=message):
        window_nll_streamed(streamed_model(folder), token_ids(), torch.float32, dense)


def test_a_checkpoint_in_parts_and_a_pickled_one_are_streamed_too(tmp_path: Path) -> None:
    model = make_model("llama")
    expected = window_nll(model, token_ids(), 3)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    found = streamed_model(tmp_path / "parts")
    assert window_nll_streamed(found, token_ids(), torch.float32, dense, 3) == expected
    model.save_pretrained(tmp_path / "pickled")
    (tmp_path / "pickled/model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickled/pytorch_model.bin")
    found = streamed_model(tmp_path / "pickled", safetensors_only=False)
    assert window_nll_streamed(found, token_ids(), torch.float32, dense, 3) == expected


class Between(nn.Module):
    """Does something to the hidden states between its blocks."""

    def __init__(self, blocks: nn.ModuleList, head: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = blocks, head

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        hidden = nn.functional.one_hot(input_ids % 8, 8).float()
        for block in self.blocks:
            hidden = block(hidden) * 2
        return self.head(hidden)


class Collecting(Between):
    """Its logits need the output of every block."""

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        hidden = total = nn.functional.one_hot(input_ids % 8, 8).float()
        for block in self.blocks:
            hidden = block(hidden)
            total = total + hidden
        return type("Output", (), {"logits": self.head(total)})

    def get_input_embeddings(self) -> nn.Embedding:
        return nn.Embedding(99, 8)


class Pairs(Between):
    """Its blocks give more than hidden states on."""

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        hidden = nn.functional.one_hot(input_ids % 8, 8).float()
        for block in self.blocks:
            hidden, bias = block(hidden)
        return self.head(hidden + bias)


class Pair(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), x


class Backwards(Between):
    """Runs its blocks in another order than they stand."""

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        hidden = nn.functional.one_hot(input_ids % 8, 8).float()
        for block in reversed(self.blocks):
            hidden = block(hidden)
        return self.head(hidden)


@pytest.mark.parametrize(
    ("kind", "block", "problem"),
    [
        (Between, nn.Linear, "are not all there is between its first and its last"),
        (Collecting, nn.Linear, "are not all there is behind its logits"),
        (Pairs, Pair, "pass more than hidden states"),
        (Backwards, nn.Linear, "are not all there is between"),
    ],
)
def test_what_is_no_chain_of_blocks_is_refused(
    kind: type[Between], block: type[nn.Linear], problem: str, tmp_path: Path
) -> None:
    model = kind(nn.ModuleList(block(8, 8) for _ in range(3)), nn.Linear(8, 99))
    weights = {name: p.data.clone() for name, p in model.named_parameters()}
    large = StreamedModel(model.to("meta"), weights, torch.device("cpu"), tmp_path)
    with pytest.raises(NsvdError, match=rf"{kind.__name__} {problem}.*memory=resident"):
        window_nll_streamed(large, token_ids(), torch.float32, dense)


def test_the_way_memory_is_used_is_in_no_key(settings: Settings) -> None:
    keys = {
        plan_cell(compose(*settings(), f"memory={memory}")).cell.key
        for memory in ("auto", "resident", "streamed")
    }
    assert len(keys) == 1


def test_a_finished_streamed_cell_tells_how_far_it_is(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    class Telling(runner.Observer):
        def progress(self, stage: str) -> Any:
            return lambda done, total: told.setdefault(stage, []).append((done, total))

    with caplog.at_level(logging.WARNING):
        run_cell(plan_cell(compose(*settings(), "memory=streamed")), Telling())
    assert told == {
        "calibrate": [(1, 2), (2, 2)],
        "decompose": [(7, 14), (14, 14)],
        "evaluate": [(1, 3), (2, 3), (3, 3)],
    }
    assert not caplog.records


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_is_of_one_block_not_of_all() -> None:
    """By the benchmark's own measurement, in a fresh process."""
    place = Path(__file__).resolve().parent.parent / "benchmarks" / "streamed.py"
    specification = importlib.util.spec_from_file_location("benchmarks_streamed", place)
    assert specification is not None
    assert specification.loader is not None
    benchmark = importlib.util.module_from_spec(specification)
    sys.modules["benchmarks_streamed"] = benchmark
    specification.loader.exec_module(benchmark)
    shape = benchmark.Shape(hidden=512, blocks=9, vocabulary=512)
    all_blocks = shape.blocks * (shape.block_bytes + shape.statistics_bytes) / shape.unit
    assert all_blocks > 6
    assert benchmark.measure(shape)["streamed"] < 2
