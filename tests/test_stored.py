"""From the store back to a plan, and to the model: the one that was measured, or a refusal."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.cells import Watch, put_text, run, setting
from helpers.command_line import Settings
from helpers.configuration import compose
from helpers.models import UP, edit_weights

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.compressed import compressed
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.experiment.stored import Place, stored_cell
from nsvd_exp.pipeline.evaluate import window_nll

METHODS = ["dense", "svd", "asvd_i", "nsvd_i", "nid_i"]


def place(arguments: list[str], **changes: object) -> Place:
    """Where the things of these arguments are."""
    given = {
        "results_dir": setting(arguments, "results_dir"),
        "model": setting(arguments, "model.name"),
        "data_dir": [setting(arguments, "data_dir")],
        "device": "cpu",
    }
    return Place(**given | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_a_stored_cell_is_planned_as_it_was(settings: Settings, method: str) -> None:
    arguments = [*settings(), f"method={method}", "dataset=[ptb]", "k1=0.8", "evaluation.length=16"]
    result = run(*arguments)
    found = stored_cell(result["key"][:12], place(arguments))
    assert found.result == result
    assert found.plan.file == plan_cell(compose(*arguments)).file
    assert found.plan.is_done(result)
    assert list(found.plan.found(result)) == ["ptb"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_in_memory_is_the_one_that_was_measured(
    settings: Settings, method: str, dtype: str
) -> None:
    arguments = [*settings(), f"method={method}", "dataset=[ptb]", f"evaluation.dtype={dtype}"]
    result, session = run(*arguments), Session()
    plan = stored_cell(result["key"], place(arguments)).plan
    with compressed(plan, session) as made:
        (measurement,) = plan.measurements
        ids = session.windows(plan, measurement, session.texts(plan, [measurement])).ids
        assert window_nll(made.model, ids) == result["datasets"]["ptb"]["window_nll"]
        assert {p.dtype for p in made.model.parameters()} == {getattr(torch, dtype)}
        assert made.layers == result["layers"]
        assert made.achieved_ratio == result["achieved_ratio"]
        assert made.calibration == result["calibration"]
    dense = run(*arguments, "method=dense", "evaluation.dtype=null", session=session)
    elsewhere = f"results_dir={setting(arguments, 'results_dir')}2"
    fresh = run(*arguments, "method=dense", "evaluation.dtype=null", elsewhere)
    assert dense["datasets"]["ptb"]["nll"] == fresh["datasets"]["ptb"]["nll"]


def test_a_cell_is_named_by_key_folder_or_path(settings: Settings) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    result = run(*arguments)
    folder = plan_cell(compose(*arguments)).file.folder
    elsewhere = place(arguments, results_dir="/nowhere")
    for name in (result["key"], result["key"][:4], folder.name):
        assert stored_cell(name, place(arguments)).result == result
        with pytest.raises(NsvdError, match=f"no cell '{name}' among the 0"):
            stored_cell(name, elsewhere)
    for path in (folder, folder / "result.json"):  # which says which store
        assert stored_cell(str(path), elsewhere).result == result
    with pytest.raises(NsvdError, match="no cell 'zebra' among the 1"):
        stored_cell("zebra", place(arguments))
    with pytest.raises(NsvdError, match="no cell"):
        stored_cell(result["key"][:20] + "x", place(arguments))
    with pytest.raises(NsvdError, match="no cell"):
        stored_cell(result["key"][:20] + "f" * 44, place(arguments))


def test_of_several_none_is_chosen(settings: Settings) -> None:
    arguments, session = [*settings(), "dataset=[ptb]", "method=svd"], Session()
    keys: list[str] = []
    for tenths in range(1, 10):
        keys.append(run(*arguments, f"ratio=0.{tenths}", session=session)["key"])
    first = [key[0] for key in keys]
    shared = next((digit for digit in first if first.count(digit) > 1), None)
    if shared is None:
        pytest.skip("nine keys that all begin differently")
    with pytest.raises(NsvdError, match=f"'{shared}' may be any of {first.count(shared)} cells"):
        stored_cell(shared, place(arguments))


def test_what_is_not_done_is_refused(settings: Settings) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    failed = run(*arguments, watch=Watch("ptb", RuntimeError("a cosmic ray")), status="failed")
    with pytest.raises(NsvdError, match=r"cell nsvd_i-0.3-0.95-\w+ failed \(a cosmic ray\)"):
        stored_cell(failed["key"], place(arguments))
    plan = plan_cell(compose(*arguments))
    plan.file.write({**failed, "status": "partial", "error": None})
    with pytest.raises(NsvdError, match="is not finished: run it again"):
        stored_cell(failed["key"], place(arguments))


def test_what_has_changed_is_refused_by_name(
    settings: Settings, model_folder: Callable[..., Path]
) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    key = run(*arguments)["key"]
    with pytest.raises(NsvdError, match=r"its model is a folder, 'llama-0', .* --model FOLDER"):
        stored_cell(key, place(arguments, model=None))
    put_text(arguments, "ptb/test", "w5 " * 999)  # the evaluation is no part of the model
    found = stored_cell(key, place(arguments))
    assert not found.plan.found(found.result)
    put_text(arguments, "wikitext2/train", "w7 " * 999)
    with pytest.raises(NsvdError, match=r"no longer what it was: the calibration \(text"):
        stored_cell(key, place(arguments))
    edit_weights(Path(setting(arguments, "model.name")), lambda tensors: tensors[UP].mul_(2))
    with pytest.raises(NsvdError, match="no longer what it was: the model, the calibration"):
        stored_cell(key, place(arguments))


def test_without_measurements_no_evaluation_text_is_asked_for(settings: Settings) -> None:
    arguments = [*settings(), "dataset=[ptb,c4]"]
    key = run(*arguments)["key"]
    for name in ("ptb", "c4"):
        shutil.rmtree(Path(setting(arguments, "data_dir")) / name)
    with pytest.raises(NsvdError, match="ptb"):
        stored_cell(key, place(arguments))
    plan = stored_cell(key, place(arguments), is_measured=False).plan
    assert (plan.file.key, plan.measurements) == (key, [])


def test_calibration_on_the_ids_of_another_tokenizer_wants_its_folder(
    settings: Settings, model_folder: Callable[..., Path]
) -> None:
    arguments, other = [*settings(), "dataset=[ptb]"], model_folder("opt", 3)
    key = run(*arguments, f"calibration.tokenizer={other}")["key"]
    with pytest.raises(NsvdError, match=r"'opt-3', .* --calibration-tokenizer FOLDER"):
        stored_cell(key, place(arguments))
    assert stored_cell(key, place(arguments, calibration_tokenizer=str(other))).plan.file.key == key


def test_a_streamed_model_cannot_be_had_as_a_whole(settings: Settings) -> None:
    plan = plan_cell(compose(*settings(), "memory=streamed"))
    with (
        pytest.raises(NsvdError, match=r"streamed, .* as a whole.*memory=resident"),
        compressed(plan, Session()),
    ):
        pass


def test_a_failure_inside_leaves_the_dense_model(settings: Settings) -> None:
    arguments, session = [*settings(), "dataset=[ptb]"], Session()
    plan = plan_cell(compose(*arguments))
    with pytest.raises(ZeroDivisionError), compressed(plan, session):
        math.inf / 0
    after = run(*arguments, "method=dense", session=session)
    fresh = run(*arguments, "method=dense", f"results_dir={setting(arguments, 'results_dir')}2")
    assert after["datasets"]["ptb"]["nll"] == fresh["datasets"]["ptb"]["nll"]
