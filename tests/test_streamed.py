"""A model of which one block at a time is in memory gives the numbers of one that is all there."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import streamed
import torch
from helpers.cells import OUT_OF_MEMORY, Watch, put_text, run, setting, similarities
from helpers.command_line import Log, Settings
from helpers.configuration import compose
from helpers.models import CONFIGS, UP, edit_weights, make_model
from helpers.texts import token_ids, words
from torch import nn

from nsvd_exp.config.sections import ModelConfig
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import CellPlan, plan_cell
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.methods import CholeskyASVD
from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.models import hidden_states
from nsvd_exp.models.layers import find_linears
from nsvd_exp.models.loading import load_streamed
from nsvd_exp.models.sources import locate_model
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.evaluate import window_nll, window_nll_streamed
from nsvd_exp.pipeline.inputs import GramAccumulator, watch
from nsvd_exp.progress import Observer
from nsvd_exp.storage.files import ScratchFolder
from nsvd_exp.storage.results import Result
from nsvd_exp.storage.tensors import StatisticsFolder

Save = Callable[..., Path]

BATCHES = ["calibration.batch=5", "evaluation.batch=4"]
STAGES = {
    "resident": ("load resident", "calibrate", "decompose", "wikitext2"),
    "streamed": ("load streamed", "calibrate", "decompose", "evaluate"),
}


def elsewhere(arguments: list[str]) -> str:
    """Another results folder, with a cache of its own."""
    return f"results_dir={setting(arguments, 'results_dir')}-elsewhere"


def both(arguments: list[str]) -> tuple[Result, Result]:
    """The cell resident and streamed, nothing shared."""
    resident = run(*arguments, "memory=resident")
    return resident, run(*arguments, "memory=streamed", elsewhere(arguments))


def losses(result: Result) -> dict[str, list[float]]:
    return {name: measured["window_nll"] for name, measured in result["datasets"].items()}


def streamed_model(
    folder: Path, host_bytes: int = hidden_states.HOST_BYTES, **options: Any
) -> StreamedModel:
    config = ModelConfig(name=str(folder), title="test", **options)
    model, weights = load_streamed(locate_model(str(folder)), config, "float32", folder)
    return StreamedModel(model, weights, torch.device("cpu"), folder, host_bytes=host_bytes)


def calibrated(large: StreamedModel, ids: torch.Tensor, batch: int | str = "auto") -> Calibration:
    return Calibration(*calibrate(large, find_linears(large.model, []), ids, batch))


def nll(large: StreamedModel, batch: Any = "auto", dtype: Any = torch.float32) -> list[float]:
    return window_nll_streamed(large, token_ids(), dtype, nullcontext, batch)


HALF = "dtype=bfloat16 evaluation.dtype=float32 model.skip=['*.0.*']"


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("options", ["method=dense", "method=nsvd_i", HALF])
def test_a_streamed_cell_is_the_resident_one(
    settings: Settings, architecture: str, options: str
) -> None:
    """To the last bit, on a CPU and in batches of the same size."""
    resident, other = both([*settings(architecture), *options.split(), *BATCHES])
    for name in ("key", "layers", "achieved_ratio", "calibration", "config"):
        assert other[name] == resident[name]
    assert other["seconds"].keys() == resident["seconds"].keys()
    for name, measured in resident["datasets"].items():
        own = measured.keys() - {"seconds", "measured"}
        assert {key: other["datasets"][name][key] for key in own} == {k: measured[k] for k in own}


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
    resident = similarities(*arguments, "memory=resident")
    streamed = similarities(*arguments, "memory=streamed", elsewhere(arguments))
    for record, other in zip(resident, streamed, strict=True):
        assert (record["status"], other["status"]) == ("done", "done")
        assert other["statistics"] == record["statistics"]
        for a, b in zip(record["layers"], other["layers"], strict=True):
            assert b == pytest.approx(a, abs=1e-9)


def test_no_more_than_one_block_has_its_weights(model_folder: Save) -> None:
    large, held = streamed_model(model_folder()), []

    def watched(_: int) -> nullcontext[None]:
        held.append([name for name, p in large.model.named_parameters() if not p.is_meta])
        return nullcontext()

    window_nll_streamed(large, token_ids(), torch.float32, watched, batch=2)
    names = [name for name, _ in large.model.named_parameters()]
    assert held == [[n for n in names if n.startswith(f"model.layers.{i}.")] for i in range(2)]
    assert all(p.is_meta for p in large.model.parameters())


def test_no_more_than_one_block_has_statistics(model_folder: Save) -> None:
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

    large = streamed_model(model_folder())
    watch(large, find_linears(large.model, []), token_ids(), Counted, lambda *_: None)
    assert (most, alive) == (4, 0)


def test_hidden_states_in_a_file_are_the_same_and_leave_none(model_folder: Save) -> None:
    folder = model_folder("opt")
    expected = nll(streamed_model(folder), 3)
    for dtype in (torch.float32, torch.bfloat16):
        before = set(folder.iterdir())
        found = nll(streamed_model(folder, host_bytes=0), 3, dtype)
        assert set(folder.iterdir()) == before
        assert found == (expected if dtype == torch.float32 else pytest.approx(expected, rel=2e-2))


def test_no_room_for_hidden_states_is_one_message(
    model_folder: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is a folder that is not there."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    folder = model_folder()
    large = streamed_model(folder, host_bytes=0)
    with pytest.raises(NsvdError, match=r"no room for 0\.0 GB .*No space left.*cache_dir"):
        nll(large)
    assert not list(folder.glob(".hidden*"))
    with pytest.raises(NsvdError, match=r"cache_dir=\S+gone cannot be written to"):
        hidden_states.HiddenStates(2, torch.zeros(1, 3, 4), folder / "gone", host_bytes=0)


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
    folder.save(Calibration(inputs, {name: name for name in inputs}, {}))
    before = resident_pages()
    statistics = list(folder.load().inputs.values())
    assert all(float(s.mean.sum()) == 1500 for s in statistics)
    assert resident_pages() - before < 1500 * 1500 * 8 / 4
    assert all(float(s.gram.sum()) == 1500**2 for s in statistics)
    assert resident_pages() - before > 4 * 1500 * 1500 * 8 * 0.9


def test_a_batch_that_does_not_fit_is_halved(model_folder: Save) -> None:
    """A pass that broke off counts nothing twice, and has moved no hidden state."""
    folder, ids = model_folder(), token_ids()
    expected = nll(streamed_model(folder), 1)
    large = streamed_model(folder)
    whole = calibrated(large, ids, 1).inputs
    refuse_more_than(2, large.model.model.layers[1].mlp.down_proj)
    found = nll(large)
    assert found == pytest.approx(expected, rel=1e-5)
    for name, s in calibrated(large, ids).inputs.items():
        assert s.tokens == ids.numel()
        torch.testing.assert_close(s.gram, whole[name].gram)


def refuse_more_than(rows: int, layer: nn.Module, error: Exception = OUT_OF_MEMORY) -> None:
    """The layer runs out of memory for more of them."""

    def refuse(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > rows:
            raise error

    layer.register_forward_pre_hook(refuse)


@dataclass(frozen=True)
class Hungry(CholeskyASVD):
    """A method for which there is never enough memory."""

    def basis(self, W: torch.Tensor, statistics: Statistics) -> Any:
        raise OUT_OF_MEMORY


HUNGRY = f"method._target_={__name__}.Hungry"


@pytest.mark.parametrize("stage", STAGES["resident"])
def test_auto_goes_on_streamed_where_memory_runs_out(
    settings: Settings, stage: str, caplog: Log
) -> None:
    arguments, watch = [*settings(), "method=asvd_i", *BATCHES], Watch(stage)
    expected = run(*arguments, elsewhere(arguments))
    session = Session(watch.load)
    result = run(*arguments, session=session, watch=watch)
    assert losses(result) == losses(expected)
    assert result["layers"] == expected["layers"]
    assert "going on with memory=streamed" in caplog.text
    # And what follows in this process does not try again, while another one does.
    run(*arguments, "ratio=0.5", session=session, watch=watch)
    other = Watch()
    run(*arguments, "ratio=0.7", watch=other)
    assert watch.begun["load resident"] == other.begun["load resident"] == 1


@pytest.mark.parametrize("method", ["dense", "asvd_i"])
@pytest.mark.parametrize("error", [OUT_OF_MEMORY, MemoryError()], ids=["device", "host"])
def test_a_model_whose_pass_never_fits_is_streamed(
    settings: Settings, method: str, error: Exception
) -> None:
    plan, session = plan_cell(compose(*settings(), f"method={method}")), Session()
    refuse_more_than(0, session.load(plan).model.model.layers[1].mlp.down_proj, error)
    result = run_cell(plan, session)
    assert result["status"] == "done", result["error"]
    assert session.load(plan).streamed is not None


WAY_OUT = {"resident": "memory=streamed", "streamed": "one block at a time is still too much"}


@pytest.mark.parametrize(
    ("memory", "stage"), [(memory, stage) for memory in STAGES for stage in STAGES[memory]]
)
def test_where_memory_is_too_small_that_cell_alone_fails_with_the_way_out(
    settings: Settings, memory: str, stage: str
) -> None:
    arguments = [*settings(), "method=asvd_i", "dataset=[wikitext2]", f"memory={memory}"]
    watch = Watch(stage)
    session = Session(watch.load)
    result = run(*arguments, session=session, watch=watch, status="failed")
    assert "out of memory" in result["error"]["message"]
    assert WAY_OUT[memory] in result["error"]["message"]
    assert result["datasets"] == {}
    run(*arguments, session=session)


@pytest.mark.parametrize(("memory", "what"), [("resident", "the weights"), ("streamed", "a block")])
def test_a_decomposition_without_memory_says_what_it_was_at(
    settings: Settings, memory: str, what: str
) -> None:
    result = run(*settings(), "method=asvd_i", HUNGRY, f"memory={memory}", status="failed")
    assert f"cpu has too little memory to decompose {what}" in result["error"]["message"]


def test_after_a_failed_cell_the_next_one_has_its_calibration(settings: Settings) -> None:
    """With `cache.keep=none` the statistics stand in a file that goes with the model."""
    arguments = [*settings(), "method=asvd_i", "memory=streamed", "cache.keep=none"]
    session, broken = Session(), Watch("evaluate", ZeroDivisionError())
    run(*arguments, session=session, watch=broken, status="failed")
    run(*arguments, "ratio=0.4", session=session)


def lose(plan: CellPlan, session: Session, index: int) -> None:
    """The loss of one window of the plan's first dataset is no number."""
    first, loaded = plan.measurements[0], session.load(plan)
    window = session.windows(plan, first, session.texts(plan, [first])).ids[index]

    def spoil(_: nn.Module, args: tuple[torch.Tensor], embedded: torch.Tensor) -> None:
        if args[0].shape[1] == len(window):
            embedded[(args[0] == window).all(1)] = torch.nan

    loaded.model.get_input_embeddings().register_forward_hook(spoil)


@pytest.mark.parametrize("memory", ["resident", "streamed"])
def test_a_loss_that_is_not_finite_names_dataset_and_window(
    settings: Settings, memory: str
) -> None:
    """And costs no other dataset, of those that are measured in the same pass."""
    arguments = [*settings(), "method=asvd_i", f"memory={memory}", *BATCHES]
    expected = losses(run(*arguments, elsewhere(arguments)))
    first, *others = expected
    plan, session = plan_cell(compose(*arguments)), Session()
    lose(plan, session, 2)
    result = run_cell(plan, session)
    assert result["status"] == "failed"
    assert result["error"]["message"] == f"dataset {first}: the loss of window 2 of 6 is nan"
    measured = others if memory == "streamed" else []
    assert losses(result) == {name: expected[name] for name in measured}
    assert losses(run(*arguments, session=session)) == expected


@pytest.mark.slow
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


def test_similarity_goes_on_streamed_where_memory_runs_out(settings: Settings, caplog: Log) -> None:
    records = similarities(*settings(), watch=Watch("wikitext2"))
    assert [record["status"] for record in records] == ["done"] * 3
    assert caplog.text.count("going on with memory=streamed") == 1


def test_statistics_are_kept_once_for_both(settings: Settings) -> None:
    arguments, watch = [*settings(), *BATCHES], Watch()
    first = run(*arguments, "method=asvd_i", "memory=streamed")
    again = run(*arguments, "method=nsvd_i", "k1=1", "memory=resident", watch=watch)
    assert losses(again) == losses(first)
    assert watch.begun["calibrate"] == 0


def test_a_full_disk_says_what_the_statistics_need(settings: Settings, tmp_path: Path) -> None:
    full = Watch("calibrate", OSError(errno.ENOSPC, "No space left on device"))
    result = run(*settings(), "memory=streamed", watch=full, status="failed")
    assert "No space left" in result["error"]["message"]
    assert "another cache_dir" in result["error"]["message"]
    assert not list((tmp_path / "results/cache/calibration").glob("**/*.tmp"))


def test_a_dataset_without_a_window_costs_no_other(settings: Settings) -> None:
    """As resident: those before it are stored, and the cell fails."""
    arguments = [*settings(), "memory=streamed", *BATCHES]
    put_text(arguments, "ptb/test", words(20))
    result = run(*arguments, status="failed")
    assert "ptb has 20 tokens" in result["error"]["message"]
    assert list(result["datasets"]) == ["wikitext2"]


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
        nll(streamed_model(folder))


def test_a_checkpoint_in_parts_and_a_pickled_one_are_streamed_too(tmp_path: Path) -> None:
    model = make_model("llama")
    expected = window_nll(model, token_ids(), 3)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    found = streamed_model(tmp_path / "parts")
    assert nll(found, 3) == expected
    model.save_pretrained(tmp_path / "pickled")
    (tmp_path / "pickled/model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickled/pytorch_model.bin")
    found = streamed_model(tmp_path / "pickled", safetensors_only=False)
    assert nll(found, 3) == expected


class Pair(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), x


class Odd(nn.Module):
    """A model that may do something with its blocks that no chain of them does."""

    def __init__(self, through: Callable[..., Any]) -> None:
        super().__init__()
        block = Pair if through is in_pairs else nn.Linear
        self.blocks = nn.ModuleList(block(8, 8) for _ in range(3))
        self.head, self.through = nn.Linear(8, 99), through

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        hidden = self.through(self.blocks, nn.functional.one_hot(input_ids % 8, 8).float())
        return SimpleNamespace(logits=self.head(hidden))

    def get_input_embeddings(self) -> nn.Embedding:
        return nn.Embedding(99, 8)


def doubling(blocks: nn.ModuleList, hidden: Any) -> Any:
    for block in blocks:
        hidden = block(hidden) * 2
    return hidden


def collecting(blocks: nn.ModuleList, hidden: Any) -> Any:
    total = hidden
    for block in blocks:
        hidden = block(hidden)
        total = total + hidden
    return total


def in_pairs(blocks: nn.ModuleList, hidden: Any) -> Any:
    for block in blocks:
        hidden, bias = block(hidden)
    return hidden + bias


def backwards(blocks: nn.ModuleList, hidden: Any) -> Any:
    for block in reversed(blocks):
        hidden = block(hidden)
    return hidden


@pytest.mark.parametrize(
    ("through", "problem"),
    [
        (doubling, "are not all there is between its first and its last"),
        (collecting, "are not all there is behind its logits"),
        (in_pairs, "pass more than hidden states"),
        (backwards, "are not all there is between"),
    ],
)
def test_what_is_no_chain_of_blocks_is_refused(
    through: Callable[..., Any], problem: str, tmp_path: Path
) -> None:
    model = Odd(through)
    weights = {name: p.data.clone() for name, p in model.named_parameters()}
    large = StreamedModel(model.to("meta"), weights, torch.device("cpu"), tmp_path)
    with pytest.raises(NsvdError, match=rf"Odd {problem}.*memory=resident"):
        nll(large)


def test_a_finished_streamed_cell_tells_how_far_it_is(settings: Settings, caplog: Log) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    class Telling(Observer):
        def progress(self, stage: str) -> Any:
            return lambda done, total: told.setdefault(stage, []).append((done, total))

    with caplog.at_level(logging.WARNING):
        run_cell(plan_cell(compose(*settings(), "memory=streamed")), Session(), Telling())
    assert told == {
        "calibrate": [(1, 2), (2, 2)],
        "decompose": [(7, 14), (14, 14)],
        "evaluate": [(1, 3), (2, 3), (3, 3)],
    }
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_is_of_one_block_not_of_all() -> None:
    """By the benchmark's own measurement, in a fresh process."""
    shape = streamed.Shape(hidden=512, blocks=9, vocabulary=512)
    all_blocks = shape.blocks * (shape.block_bytes + shape.statistics_bytes) / shape.unit
    assert all_blocks > 6
    assert streamed.measure(shape)["streamed"] < 2
