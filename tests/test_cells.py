"""What makes two jobs one cell, and what makes two measurements one perplexity."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import run_main
from helpers.configuration import METHODS, compose

from nsvd_exp.bundled import MODEL_DIR
from nsvd_exp.config.files import model_named
from nsvd_exp.config.schema import Config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import CellPlan, dense_of, plan_cell, plan_similarity
from nsvd_exp.experiment.resolve import public_config
from nsvd_exp.storage.keys import canonical_json, decimal_text, digest, token_digest
from nsvd_exp.storage.results import RESULT_VERSION

# The files of the model and the data of these tests: keys are made of their bytes.
FILES = {
    "model/config.json": '{"max_position_embeddings": 512}',
    "model/model.safetensors": "weights",
    "data/wikitext2/train.txt": "some text",
    "data/wikitext2/test.txt": "other text",
    "data/ptb/test.jsonl": '{"sentence": "a <unk>"}\n',
}
SETTINGS = ("device=cpu", "calibration.samples=4", "calibration.length=128")

# A module of the user's own.
MINE = """
from dataclasses import dataclass
from nsvd_exp.methods import CholeskyASVD, TruncatedSVD, Uniform
from nsvd_exp.models.storage import Factors

@dataclass(frozen=True)
class Ridge(CholeskyASVD):
    ridge: float = 0.1

@dataclass(frozen=True)
class Second(TruncatedSVD): ...

@dataclass(frozen=True)
class Flat(Uniform): ...

@dataclass(frozen=True)
class Sparse(Factors): ...
"""


def write_files(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cells")
    write_files(root, FILES)
    return root


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `mine` can be imported."""
    write_files(tmp_path, {"mine.py": MINE})
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


def configuration(root: Path, method: str, *changes: str) -> Config:
    """A job on the model and the data below `root`."""
    places = (f"model.name={root}/model", f"data_dir={root}/data", f"results_dir={root}/results")
    files = ("model=hf", "dataset=[wikitext2,ptb]", f"method={method}")
    return compose(*files, *places, *SETTINGS, *changes)


def planned(root: Path, method: str = "nsvd_i", *changes: str) -> CellPlan:
    return plan_cell(configuration(root, method, *changes))


def key_of(root: Path, method: str = "nsvd_i", *changes: str) -> str:
    return planned(root, method, *changes).file.key


def measurement_keys(plan: CellPlan) -> dict[str, str]:
    return {measurement.dataset.name: measurement.key for measurement in plan.measurements}


def keys_of(root: Path, *changes: str) -> tuple[str, dict[str, str]]:
    """The key of an NSVD-I cell, and those of its measurements."""
    plan = planned(root, "nsvd_i", *changes)
    return plan.file.key, measurement_keys(plan)


# What changes no perplexity, by name.
UNKEYED = [
    *("device=auto", "results_dir=/elsewhere", "cache_dir=/elsewhere", "model.title=other"),
    *("evaluation.batch=3", "calibration.batch=3", "model.revision=v2", "model.max_length=512"),
    *("dataset.ptb.title=other", "calibration.dataset.title=other"),
    *("calibration.tokenizer_revision=v2", "dtype=float32", "ratio=0.30", "k1=9.5e-1"),
    *("memory=streamed", "memory=resident", "method.name=other", "method.title=Other"),
    *("export=/elsewhere", "export_format=dense", "generate=true"),
    *("method.order=7", "method.plot.color=red", "+method.version=1", "+storage.name=other"),
    *("method.k1=0.95", "method.first=nsvd_exp.methods.asvd.CholeskyASVD"),
]
# What changes only the measurements inside the cell.
KEYED_BY_MEASUREMENT = [
    *("evaluation.length=64", "evaluation.max_windows=1", "evaluation.dtype=bfloat16"),
    "evaluation.bos=window",
    *("dataset.ptb.rows=1", "dataset.ptb.join=' '", "dataset.ptb.document='{sentence}.'"),
    "dataset.ptb.split_special_tokens=false",
]
KEYED_BY_CALIBRATION = [
    *("calibration.samples=5", "calibration.length=64", "calibration.seed=4"),
    *("calibration.sampler=tokens", "calibration.split=test", "calibration.dataset.rows=1"),
    *("calibration.dataset.join=' '", "calibration.dataset.split_special_tokens=true"),
]
KEYED_BY_COMPRESSION = [
    *("ratio=0.31", "solver=paper", "model.skip=[a]"),
    *("allocation._target_=mine.Flat", "storage._target_=mine.Sparse"),
    *("+allocation.version=2", "+storage.version=2"),
]
KEYED_ALWAYS = [
    *("dtype=float16", "+model.tokenizer.add_bos_token=true", "model.trust_remote_code=true"),
]


@pytest.mark.parametrize("change", UNKEYED)
def test_what_changes_no_perplexity_changes_no_key(root: Path, change: str) -> None:
    assert keys_of(root, change) == keys_of(root)


@pytest.mark.parametrize("change", KEYED_BY_MEASUREMENT)
def test_a_protocol_keys_the_measurement_not_the_cell(root: Path, change: str) -> None:
    (key, measured), (plain_key, plain) = keys_of(root, change), keys_of(root)
    assert key == plain_key
    assert measured["ptb"] != plain["ptb"]
    assert (measured["wikitext2"] == plain["wikitext2"]) == change.startswith("dataset.ptb")


def test_the_evaluation_dtype_is_keyed_by_what_it_comes_to(root: Path) -> None:
    assert keys_of(root, "evaluation.dtype=float32") == keys_of(root)
    half = planned(root, "nsvd_i", "dtype=float16", "evaluation.dtype=float32")
    assert (half.dtype, half.evaluation_dtype) == ("float16", "float32")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("mine")
def test_each_method_is_keyed_by_what_it_has(root: Path, method: str) -> None:
    compresses, calibrated, nested = METHODS[method]
    keyed = dict.fromkeys(KEYED_ALWAYS, True)
    keyed |= dict.fromkeys(KEYED_BY_COMPRESSION, compresses)
    keyed |= dict.fromkeys(KEYED_BY_CALIBRATION, calibrated)
    keyed |= {"k1=0.9": nested}
    if compresses:
        keyed["+method.version=2"] = True
    plain = key_of(root, method)
    assert {change: key_of(root, method, change) != plain for change in keyed} == keyed


def test_the_same_job_has_the_same_key_wherever_its_files_are(root: Path, tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    assert keys_of(tmp_path) == keys_of(root)


@pytest.mark.parametrize(
    ("file", "cell_changes", "measured_change"),
    [
        ("model/model.safetensors", True, set()),
        ("data/wikitext2/train.txt", True, set()),
        ("data/ptb/test.jsonl", False, {"ptb"}),
    ],
)
def test_other_bytes_make_another_key(
    root: Path, tmp_path: Path, file: str, cell_changes: bool, measured_change: set[str]
) -> None:
    write_files(tmp_path, FILES | {file: FILES[file] + " "})
    (key, measured), (plain_key, plain) = keys_of(tmp_path), keys_of(root)
    assert (key != plain_key) == cell_changes
    assert {name for name in plain if measured[name] != plain[name]} == measured_change


def test_another_tokenizer_for_the_calibration_is_another_cell(root: Path, tmp_path: Path) -> None:
    write_files(tmp_path, {"other/config.json": "{}", "copy/config.json": "{}"})
    tokenizers = (f"calibration.tokenizer={tmp_path}/{name}" for name in ("other", "copy"))
    other, copy = (key_of(root, "nsvd_i", tokenizer) for tokenizer in tokenizers)
    assert other == copy != key_of(root)


def test_a_field_of_the_method_is_keyed_by_its_value(root: Path) -> None:
    keys = [key_of(root, "asvd_0", f"method.alpha={a}") for a in ("0.5", "0.25", "1", "1.0", "1e0")]
    assert len(set(keys)) == 3
    assert keys[2] == keys[3] == keys[4] == key_of(root, "asvd_0")
    assert key_of(root, "asvd_iii", "method.reading=spectral") != key_of(root, "asvd_iii")


@pytest.mark.usefixtures("mine")
def test_a_class_of_ones_own_is_keyed_by_its_path_and_fields(root: Path) -> None:
    ridge = planned(root, "asvd_i", "method._target_=mine.Ridge")
    assert ridge.file.identity["method"] == {"class": "mine.Ridge", "version": 1, "ridge": "0.1"}
    assert ridge.calibration is not None
    stronger = planned(root, "asvd_i", "method._target_=mine.Ridge", "+method.ridge=0.5")
    assert stronger.file.identity["method"]["ridge"] == "0.5"
    nested = planned(root, "nsvd_i", "method.second=mine.Second").file.identity["method"]
    second = {"class": "mine.Second", "version": 1}
    assert nested == golden_identity()["method"] | {"second": second}
    block = "method.first={_target_: mine.Ridge, ridge: 2}"
    nested = planned(root, "nsvd_i", block).file.identity["method"]
    assert nested["first"] == {"class": "mine.Ridge", "version": 1, "ridge": "2"}


@pytest.mark.usefixtures("mine")
def test_a_method_file_of_ones_own_is_run_like_any_other(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A frozen dataclass on sys.path, and a yaml under `--config-dir`."""
    text = "_target_: mine.Ridge\nname: ridge\ntitle: My ridge\nridge: 0.3\n"
    write_files(tmp_path, {"conf/method/ridge.yaml": text})
    small = ["dataset=[ptb]", "calibration.samples=2", "evaluation.max_windows=1", "report=false"]
    small += [f"results_dir={tmp_path}/results", "method=ridge,asvd_i"]
    code, out, err = run_main(capsys, "-m", "--config-dir", f"{tmp_path}/conf", *small)
    assert code == 0, err
    assert "2 done" in out
    own, plain = (
        json.loads(path.read_text())
        for name in ("ridge", "asvd_i")
        for path in (tmp_path / "results/cells").glob(f"{name}-0.3-*/result.json")
    )
    assert own["identity"]["method"] == {"class": "mine.Ridge", "version": 1, "ridge": "0.3"}
    assert (own["method"], own["config"]["method"]["title"]) == ("ridge", "My ridge")
    assert own["datasets"]["ptb"]["nll"] == plain["datasets"]["ptb"]["nll"]  # the same metric


def test_the_order_of_skipped_layers_is_no_difference(root: Path) -> None:
    one, other = (key_of(root, "svd", f"model.skip=[{skip}]") for skip in ("a,b", "b,a"))
    assert one == other


def test_the_dense_model_beside_a_job_is_the_dense_cell(root: Path) -> None:
    beside = dense_of(configuration(root, "nsvd_i", "ratio=0.5", "solver=paper", "k1=0.5"))
    assert plan_cell(beside).file == planned(root, "dense").file


GOLDEN_CELL = "84f6d549d966cf28de7d8bb1f2a6636a00e93c30f1d3ba4c08896d38fb62ffcf"
GOLDEN_MEASUREMENT = "bd552e6d0bb2bff28fd9b20c1aea899492213e100eb50b67f136b5dce0fc4c87"
GOLDEN_RECORD = "875c769333966451903aaab932cfd9431681c3afd625d9491bb3fbe2e5256440"


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
        "method": {
            "class": "NSVD",
            "version": 1,
            "k1": "0.95",
            "first": {"class": "CholeskyASVD", "version": 1},
            "second": {"class": "TruncatedSVD", "version": 1},
        },
        "allocation": {"class": "Uniform", "version": 1},
        "storage": {"class": "Factors", "version": 1},
        "ratio": "0.3",
        "solver": "basis",
        "skip": [],
        "version": 1,
        "calibration": calibration | {"source": source, "tokenizer": None},
    }


def test_golden_identity_and_keys(root: Path) -> None:
    """Whoever changes one of these makes every stored result missing: raise a version instead."""
    plan, expected = planned(root), golden_identity()
    assert plan.file.identity == expected
    assert plan.file.key == GOLDEN_CELL
    for name in ("nsvd_i", "other"):
        folder = planned(root, "nsvd_i", f"method.name={name}").file.folder
        assert folder == root / f"results/cells/{name}-0.3-0.95-{GOLDEN_CELL[:16]}"
    assert measurement_keys(plan)["wikitext2"] == GOLDEN_MEASUREMENT
    record = plan_similarity(configuration(root, "nsvd_i")).files[0]
    source = expected["calibration"]["source"] | {"sha256": sha256("other text")}
    assert record.identity == {
        **{name: expected[name] for name in ("model", "dtype", "skip", "calibration")},
        "dataset": {"source": source, "length": 512, "max_windows": None},
        "version": 1,
    }
    assert record.key == GOLDEN_RECORD
    assert record.folder == root / f"results/similarities/wikitext2-{GOLDEN_RECORD[:16]}"


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


def test_a_number_has_one_text() -> None:
    numbers = (0.3, 1.0, 1, 1e-7)
    assert [decimal_text(number) for number in numbers] == ["0.3", "1", "1", "0.0000001"]


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
    identities = [plan.file.identity, *(m.identity for m in plan.measurements)]
    assert not {"auto", "main"} & set(texts_in(identities))
    kept = texts_in([identities, public_config(plan)])
    assert not [text for text in kept if str(root) in text]
    assert public_config(plan)["model"]["name"] == "model"
    assert ("calibration" in public_config(plan)) == (method == "nsvd_i")
    assert public_config(plan)["evaluation"]["length"] == 512


def result_of(plan: CellPlan, status: str) -> dict[str, Any]:
    keys = measurement_keys(plan).items()
    measured = {name: {"dataset": name, "key": key} for name, key in keys}
    return {"version": RESULT_VERSION, "status": status, "datasets": measured, "earlier": []}


def test_a_cell_is_done_when_it_ended_and_lacks_no_measurement(root: Path) -> None:
    plan = planned(root)
    assert plan.missing(None) == plan.measurements
    assert not plan.is_done(None)
    assert plan.is_done(result_of(plan, "done"))
    assert not plan.is_done(result_of(plan, "partial"))
    # It failed at a dataset that another run asked for: this one's numbers are there.
    assert plan.is_done(result_of(plan, "failed"))
    capped = planned(root, "nsvd_i", "evaluation.max_windows=1")
    assert capped.missing(result_of(plan, "done")) == capped.measurements
    assert not capped.is_done(result_of(plan, "done"))
    # A wider run lacks only what is new.
    narrow = result_of(plan, "done")
    del narrow["datasets"]["wikitext2"]
    assert [m.dataset.name for m in plan.missing(narrow)] == ["wikitext2"]
    assert not plan.is_done(narrow)


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
    assert plan.file.key == planned(root, "nsvd_i", "calibration.length=512").file.key


def test_the_same_bytes_read_as_another_format_are_another_measurement(
    root: Path, tmp_path: Path
) -> None:
    names = {name: name.replace("ptb/test.jsonl", "ptb/test.txt") for name in FILES}
    write_files(tmp_path, {names[name]: text for name, text in FILES.items()})
    (key, measured), (plain_key, plain) = keys_of(tmp_path), keys_of(root)
    assert key == plain_key
    assert {name for name in plain if measured[name] != plain[name]} == {"ptb"}


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
    outside = model_named("../method/svd", "main")  # no file of conf/model, whatever is there
    assert (outside.name, outside.title) == ("../method/svd", "svd")


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
assert not plan.is_done(plan.file.read())
print(plan.file.key, *{"torch", "transformers", "datasets", "pyarrow"} & set(sys.modules))
"""


def test_planning_imports_no_heavy_library_and_writes_nothing(root: Path) -> None:
    job = pickle.dumps(configuration(root, "nsvd_i", "device=auto"))
    done = subprocess.run([sys.executable, "-c", PLAN_IT], input=job, capture_output=True)
    assert done.stdout.decode().split() == [key_of(root)], done.stderr.decode()
    assert {path.name for path in root.iterdir()} == {"model", "data"}  # and writes nothing
