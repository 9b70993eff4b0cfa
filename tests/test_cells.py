"""What makes two jobs one cell, and what makes two measurements one number."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from helpers.configuration import METHODS, configured
from omegaconf import OmegaConf

from nsvd_exp.bundled import MODEL_DIR
from nsvd_exp.config.files import model_named
from nsvd_exp.config.schema import Config, typed_config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import Plan, dense_of, plan_cell, public_config
from nsvd_exp.storage.keys import canonical_json, decimal_text, digest, token_digest
from nsvd_exp.storage.results import RESULT_VERSION

TABLE_1 = ("dense", "svd", "asvd_0", "asvd_i", "asvd_ii", "nsvd_i", "nsvd_ii")

# The files of the model and the data of these tests: keys are made of their bytes.
FILES = {
    "model/config.json": '{"max_position_embeddings": 512}',
    "model/model.safetensors": "weights",
    "data/wikitext2/train.txt": "some text",
    "data/wikitext2/test.txt": "other text",
    "data/ptb/test.jsonl": '{"sentence": "a <unk>"}\n',
}
SETTINGS = ("device=cpu", "calibration.samples=4", "calibration.length=128")

Job = tuple[str, ...]


def write_files(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cells")
    write_files(root, FILES)
    return root


def configuration(root: Path, method: str, *changes: str) -> Config:
    """A job on the model and the data below `root`."""
    config = configured("model=hf", "model.name=set-below", "dataset=[wikitext2,ptb]")
    config = dataclasses.replace(config, method=configured(f"method={method}").method)
    places = (f"model.name={root}/model", f"data_dir={root}/data", f"results_dir={root}/results")
    changed = OmegaConf.from_dotlist([*places, *SETTINGS, *changes])
    return typed_config(OmegaConf.merge(OmegaConf.structured(config), changed))


def planned(root: Path, method: str = "nsvd_i", *changes: str) -> Plan:
    return plan_cell(configuration(root, method, *changes))


def key_of(root: Path, method: str = "nsvd_i", *changes: str) -> str:
    return planned(root, method, *changes).cell.key


def number_keys(plan: Plan) -> dict[str, str]:
    return {number.dataset.name: number.key for number in plan.numbers}


# What changes no number of a cell, by name.
UNKEYED = [
    *("device=auto", "results_dir=/elsewhere", "cache_dir=/elsewhere", "model.title=other"),
    *("evaluation.batch=3", "calibration.batch=3", "model.revision=v2", "model.max_length=512"),
    *("dataset.ptb.title=other", "calibration.dataset.title=other"),
    *("calibration.tokenizer_revision=v2", "dtype=float32", "ratio=0.30", "k1=9.5e-1"),
]
# What changes only the numbers inside the cell.
KEYED_BY_NUMBER = [
    *("evaluation.length=64", "evaluation.max_windows=1", "evaluation.dtype=bfloat16"),
    *("dataset.ptb.rows=1", "dataset.ptb.join=' '", "dataset.ptb.document='{sentence}.'"),
    "dataset.ptb.split_special_tokens=false",
]
KEYED_BY_CALIBRATION = [
    *("calibration.samples=5", "calibration.length=64", "calibration.seed=4"),
    *("calibration.sampler=tokens", "calibration.split=test", "calibration.dataset.rows=1"),
    *("calibration.dataset.join=' '", "calibration.dataset.split_special_tokens=true"),
]
KEYED_BY_COMPRESSION = ["ratio=0.31", "solver=paper", "model.skip=[a]"]
KEYED_ALWAYS = ["dtype=float16", "method.version=2", "model.tokenizer={add_bos_token: true}"]


@pytest.mark.parametrize("change", UNKEYED)
def test_what_changes_no_number_changes_no_key(root: Path, change: str) -> None:
    plain, changed = planned(root), planned(root, "nsvd_i", change)
    assert changed.cell.key == plain.cell.key
    assert number_keys(changed) == number_keys(plain)


@pytest.mark.parametrize("change", KEYED_BY_NUMBER)
def test_a_protocol_keys_the_number_not_the_cell(root: Path, change: str) -> None:
    plain, changed = planned(root), planned(root, "nsvd_i", change)
    assert changed.cell.key == plain.cell.key
    assert number_keys(changed)["ptb"] != number_keys(plain)["ptb"]


def test_a_dataset_protocol_keys_its_own_number_alone(root: Path) -> None:
    changed = number_keys(planned(root, "nsvd_i", "dataset.ptb.rows=1"))
    assert changed["wikitext2"] == number_keys(planned(root))["wikitext2"]


def test_the_evaluation_dtype_is_keyed_by_what_it_comes_to(root: Path) -> None:
    plain, same = planned(root), planned(root, "nsvd_i", "evaluation.dtype=float32")
    assert number_keys(same) == number_keys(plain)
    half = planned(root, "nsvd_i", "dtype=float16", "evaluation.dtype=float32")
    assert (half.dtype, half.evaluation_dtype) == ("float16", "float32")


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_keyed_by_what_it_has(root: Path, method: str) -> None:
    compresses, calibrated, nested = METHODS[method]
    keyed = dict.fromkeys(KEYED_ALWAYS, True)
    keyed |= dict.fromkeys(KEYED_BY_COMPRESSION, compresses)
    keyed |= dict.fromkeys(KEYED_BY_CALIBRATION, calibrated)
    keyed |= {"k1=0.9": nested}
    plain = key_of(root, method)
    assert {change: key_of(root, method, change) != plain for change in keyed} == keyed


def test_the_same_job_has_the_same_key_wherever_its_files_are(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "model", tmp_path / "model")
    shutil.copytree(root / "data", tmp_path / "data")
    here, there = planned(root), planned(tmp_path)
    assert there.cell.key == here.cell.key
    assert number_keys(there) == number_keys(here)


@pytest.mark.parametrize(
    ("changed_file", "cell_changes", "changed_numbers"),
    [
        ("model/model.safetensors", True, set()),
        ("data/wikitext2/train.txt", True, set()),
        ("data/ptb/test.jsonl", False, {"ptb"}),
    ],
)
def test_other_bytes_make_another_key(
    root: Path, tmp_path: Path, changed_file: str, cell_changes: bool, changed_numbers: set[str]
) -> None:
    write_files(tmp_path, FILES | {changed_file: FILES[changed_file] + " "})
    here, there = planned(root), planned(tmp_path)
    assert (there.cell.key != here.cell.key) == cell_changes
    before = number_keys(here)
    assert {n for n, key in number_keys(there).items() if key != before[n]} == changed_numbers


def test_another_tokenizer_for_the_calibration_is_another_cell(root: Path, tmp_path: Path) -> None:
    write_files(tmp_path, {"other/config.json": "{}", "copy/config.json": "{}"})
    keys = [
        key_of(root),
        *(key_of(root, "nsvd_i", f"calibration.tokenizer={tmp_path / n}") for n in
          ("other", "copy")),
    ]  # fmt: skip
    assert keys[1] == keys[2] != keys[0]


def test_the_readings_of_asvd_iii_are_two_methods(root: Path) -> None:
    spectral = ("method.reading=spectral", "method.whitening=spectral")
    assert key_of(root, "asvd_iii", *spectral) != key_of(root, "asvd_iii")


def test_the_order_of_skipped_layers_is_no_difference(root: Path) -> None:
    one, other = (key_of(root, "svd", f"model.skip=[{skip}]") for skip in ("a,b", "b,a"))
    assert one == other


def test_the_35_jobs_of_table_1_are_31_cells(root: Path) -> None:
    ratios = (0.1, 0.2, 0.3, 0.4, 0.5)
    plans = [planned(root, method, f"ratio={ratio}") for method in TABLE_1 for ratio in ratios]
    assert len(plans) == 35
    assert len({plan.cell.key for plan in plans}) == 31
    assert len({plan.cell.folder for plan in plans}) == 31


def test_the_dense_model_beside_a_job_is_the_dense_cell(root: Path) -> None:
    beside = dense_of(configuration(root, "nsvd_i", "ratio=0.5", "solver=paper", "k1=0.5"))
    assert plan_cell(beside).cell == planned(root, "dense").cell


GOLDEN_CELL = "5320717b21d9776df7daa2c3f0b1abab91f6759d1ef6f3458817445ae63050af"
GOLDEN_NUMBER = "bd552e6d0bb2bff28fd9b20c1aea899492213e100eb50b67f136b5dce0fc4c87"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def golden_identity() -> dict[str, Any]:
    """Of the default NSVD-I job on FILES, written out."""
    model = {name: sha256(FILES[f"model/{name}"]) for name in ("config.json", "model.safetensors")}
    source = {
        "document": "{text}",
        "join": "\n\n",
        "rows": None,
        "split_special_tokens": False,
        "format": ".txt",
        "sha256": sha256("some text"),
    }
    calibration = {"samples": 4, "length": 128, "seed": 3, "sampler": "svdllm", "version": 1}
    return {
        "model": {"sha256": sha256(json.dumps(model, sort_keys=True, separators=(",", ":")))},
        "dtype": "float32",
        "method": {"name": "nsvd_i", "whitening": "cholesky", "second": "svd", "version": 1},
        "ratio": "0.3",
        "k1": "0.95",
        "solver": "basis",
        "skip": [],
        "version": 1,
        "calibration": calibration | {"source": source, "tokenizer": None},
    }


def test_golden_identity_and_keys(root: Path) -> None:
    """Whoever changes one of these makes every stored result missing: raise a version instead."""
    plan = planned(root)
    assert plan.cell.identity == golden_identity()
    assert plan.cell.key == GOLDEN_CELL
    assert plan.cell.folder == root / f"results/cells/nsvd_i-0.3-0.95-{GOLDEN_CELL[:16]}"
    assert number_keys(plan)["wikitext2"] == GOLDEN_NUMBER


def test_golden_digest() -> None:
    value = {"b": [1, None, True], "a": {"语": "\n"}}
    assert canonical_json(value) == r'{"a":{"\u8bed":"\n"},"b":[1,null,true]}'
    assert digest(value) == "e4c584f48f080edf84a446b0b88ef476a5269a5efa91f7fd3b2871cfe2cdeb62"
    ids = [1, 258, 2**31 - 1]
    assert token_digest(ids) == hashlib.sha256(struct.pack("<3i", *ids)).hexdigest()


@pytest.mark.parametrize(
    "value",
    [0.3, float("nan"), {1, 2}, (1, 2), {None: 1}, {1: 1}, b"a", Path("a"), Decimal(1)],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_one_form_has_no_key(value: object) -> None:
    with pytest.raises(TypeError, match="no canonical form"):
        canonical_json({"outer": [value]})


@pytest.mark.parametrize(
    ("typed", "text"),
    [(0.3, "0.3"), (1.0, "1"), (1, "1"), (1e-7, "0.0000001")],
)
def test_a_number_has_one_text(typed: float, text: str) -> None:
    assert decimal_text(typed) == text


def texts_in(value: object) -> list[str]:
    """Every key and text anywhere in a nested value."""
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts_in(part)]
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("method", ["dense", "nsvd_i"])
def test_nothing_that_is_kept_holds_a_path_or_something_unresolved(root: Path, method: str) -> None:
    plan = planned(root, method, f"calibration.tokenizer={root}/model", "dtype=auto", "device=auto")
    identities = [plan.cell.identity, *(number.identity for number in plan.numbers)]
    assert not {"auto", "main"} & set(texts_in(identities))
    kept = texts_in([identities, public_config(plan)])
    assert not [text for text in kept if str(root) in text]
    assert public_config(plan)["model"]["name"] == "model"
    assert ("calibration" in public_config(plan)) == (method == "nsvd_i")
    assert public_config(plan)["evaluation"]["length"] == 512


def result_of(plan: Plan, status: str) -> dict[str, Any]:
    numbers = {n.dataset.name: {"dataset": n.dataset.name, "key": n.key} for n in plan.numbers}
    return {"version": RESULT_VERSION, "status": status, "datasets": numbers, "earlier": []}


def test_a_cell_is_done_when_it_ended_and_lacks_no_number(root: Path) -> None:
    plan = planned(root)
    assert plan.missing(None) == plan.numbers
    assert not plan.is_done(None)
    assert plan.is_done(result_of(plan, "done"))
    assert not plan.is_done(result_of(plan, "partial"))
    # It failed at a dataset that another run asked for: this one's numbers are there.
    assert plan.is_done(result_of(plan, "failed"))
    capped = planned(root, "nsvd_i", "evaluation.max_windows=1")
    assert capped.missing(result_of(plan, "done")) == capped.numbers
    assert not capped.is_done(result_of(plan, "done"))


def test_a_wider_run_lacks_only_what_is_new(root: Path) -> None:
    plan = planned(root)
    result = result_of(plan, "done")
    del result["datasets"]["wikitext2"]
    assert [number.dataset.name for number in plan.missing(result)] == ["wikitext2"]
    assert not plan.is_done(result)


def test_methods_that_look_at_no_activations_need_no_calibration_text(
    root: Path, tmp_path: Path
) -> None:
    write_files(tmp_path, {k: v for k, v in FILES.items() if "train" not in k})
    for method in ("dense", "svd"):
        assert planned(tmp_path, method, "calibration.length=9999").calibration is None
    with pytest.raises(NsvdError, match=r"wikitext2/train\.jsonl .* is not there"):
        planned(tmp_path, "asvd_i", "calibration.dataset.revision=main")


def test_a_sample_is_2048_or_what_the_model_takes(root: Path) -> None:
    plan = planned(root, "nsvd_i", "calibration.length=null")
    assert plan.config.calibration.sample_length == 512
    assert plan.calibration is not None
    assert plan.calibration.identity["tokens"]["length"] == 512
    assert plan.cell.key == planned(root, "nsvd_i", "calibration.length=512").cell.key


def test_code_that_comes_with_a_model_is_part_of_what_it_is(root: Path) -> None:
    plain, trusted = planned(root), planned(root, "nsvd_i", "model.trust_remote_code=true")
    assert plain.cell.key != trusted.cell.key


def test_the_same_bytes_read_as_another_format_are_another_number(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    before = [n.key for n in planned(tmp_path).numbers]
    path = tmp_path / "data/ptb/test.jsonl"
    path.rename(path.with_suffix(".txt"))
    after = [n.key for n in planned(tmp_path).numbers]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_a_tokenizer_named_in_conf_brings_its_options(root: Path) -> None:
    plan = planned(root, "nsvd_i", "calibration.tokenizer=tiny")
    assert plan.calibration is not None
    assert plan.calibration.tokenizer is not None
    assert Path(plan.calibration.tokenizer.source.name) == MODEL_DIR
    llama = model_named("llama_7b", "main")
    assert llama.name == "jeffwan/llama-7b-hf"
    assert llama.tokenizer["add_bos_token"] is True
    assert llama.revision != "main"
    assert model_named("some/model", "v2").revision == "v2"


@pytest.mark.parametrize("setting", ["calibration.length", "evaluation.length"])
def test_a_length_the_model_does_not_take_is_an_error(root: Path, setting: str) -> None:
    assert planned(root, "nsvd_i", f"{setting}=512")
    with pytest.raises(NsvdError, match=rf"{setting}=513 is more than the 512 positions"):
        planned(root, "nsvd_i", f"{setting}=513")


PLAN_IT = """
import pickle, sys
import nsvd_exp.cli.main
from nsvd_exp.experiment.plan import plan_cell
plan = plan_cell(pickle.load(sys.stdin.buffer))
assert not plan.is_done(plan.cell.read())
print(plan.cell.key, *{"torch", "transformers", "datasets", "pyarrow"} & set(sys.modules))
"""


def test_planning_imports_no_heavy_library(root: Path) -> None:
    job = pickle.dumps(configuration(root, "nsvd_i", "device=auto"))
    done = subprocess.run([sys.executable, "-c", PLAN_IT], input=job, capture_output=True)
    assert done.stdout.decode().split() == [key_of(root)], done.stderr.decode()


def test_planning_writes_nothing(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    planned(root, "nsvd_i", f"results_dir={results}", f"cache_dir={results}/cache")
    assert not results.exists()
