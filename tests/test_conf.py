"""Every file of `conf/` composes, and no value out of range gets past the schema."""

from __future__ import annotations

import functools
from pathlib import Path

import hydra
import pytest
from conftest import compose
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods import whitening_named
from nsvd_exp.schema import Config, conf_dir, expand_path, register, typed_config

EIGHT = ["wikitext2", "ptb", "c4", "snips", "alpaca_eval", "mctest", "cmrc_cn", "alpaca_eval_jp"]

# Whether a method compresses, looks at activations, has a second stage.
METHODS = {
    "dense": (False, False, False),
    "svd": (True, False, False),
    **dict.fromkeys(("asvd_0", "asvd_i", "asvd_ii", "asvd_iii"), (True, True, False)),
    **dict.fromkeys(("nsvd_i", "nsvd_ii", "nid_i", "nid_ii"), (True, True, True)),
}


def names_in(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def composed(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """What the command line `overrides` composes to."""
    register()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose("config", list(overrides), return_hydra_config=with_hydra)


configured = functools.cache(compose)  # of conftest: the same as typed, range-checked values


@functools.cache
def default() -> DictConfig:
    return composed()


def with_value(override: str) -> Config:
    """The default with one value changed, without the time that composing takes."""
    return typed_config(OmegaConf.merge(default(), OmegaConf.from_dotlist([override])))


def test_the_groups_hold_what_a_user_can_type() -> None:
    assert set(names_in("method")) == set(METHODS)
    assert set(names_in("dataset")) == set(EIGHT)
    assert set(names_in("model")) >= {
        "tiny", "llama_7b", "llama_13b", "llama_30b", "opt_6_7b", "vicuna_7b", "mistral_7b", "hf",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(names_in("model")) - {"hf"}))
def test_every_model_composes(name: str) -> None:
    model = configured(f"model={name}").model
    assert model.name
    assert model.title == name.replace("_", "-").replace("opt-6-7b", "opt-6.7b")


def test_llama_7b_is_the_conversion_of_the_papers_numbers() -> None:
    assert configured("model=llama_7b").model.name == "jeffwan/llama-7b-hf"


@pytest.mark.parametrize(
    ("name", "title"), [("org/some-model", "some-model"), ("/data/models/mine/", "mine")]
)
def test_any_model_is_called_by_the_end_of_its_name(name: str, title: str) -> None:
    assert configured("model=hf", f"model.name={name}").model.title == title


def test_a_model_without_a_name_says_how_to_give_one() -> None:
    with pytest.raises(NsvdError, match=r"model\.name must be given: model\.name=\.\.\."):
        configured("model=hf")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_composes_to_a_whitening_that_exists(name: str) -> None:
    method = configured(f"method={name}").method
    assert method.name == name
    assert (method.compresses, method.calibrated, method.nested) == METHODS[name]
    if method.whitening is not None:
        assert whitening_named(method.whitening).calibrated == method.calibrated


def test_both_readings_of_asvd_iii_can_be_asked_for() -> None:
    spectral = configured("method=asvd_iii", "method.reading=spectral").method
    assert (spectral.whitening, spectral.reading) == ("spectral", "spectral")
    assert configured("method=asvd_iii").method.whitening == "scalar"


@pytest.mark.parametrize("name", EIGHT)
def test_a_dataset_file_stands_under_its_own_name(name: str) -> None:
    calibrated_on = "ptb" if name == "c4" else "c4"
    config = configured(
        f"dataset=[{name}]",
        f"dataset.{name}.rows=7",
        f"dataset@calibration.dataset={calibrated_on}",
    )
    assert list(config.dataset) == [name]
    assert config.calibration.dataset.name == calibrated_on
    dataset = config.dataset[name]
    assert (dataset.name, dataset.rows) == (name, 7)
    assert dataset.hub.count("/") == 1
    assert "test" in dataset.splits
    assert set(dataset.files) <= set(dataset.splits)


def test_all_eight_datasets_are_the_default() -> None:
    assert list(configured().dataset) == EIGHT


def test_ptb_alone_reads_unk_as_characters() -> None:
    datasets = configured().dataset.values()
    assert [d.name for d in datasets if d.split_special_tokens] == ["ptb"]


@pytest.mark.parametrize("name", names_in("calibration"))
def test_every_calibration_composes(name: str) -> None:
    assert configured(f"calibration={name}").calibration.dataset.name == "wikitext2"


def test_calibration_is_the_papers_but_for_the_tiny_model() -> None:
    paper = configured("model=llama_7b")
    c = paper.calibration
    assert (c.samples, c.length, c.seed, c.sampler, c.split) == (256, None, 3, "svdllm", "train")
    assert paper.data_dir is None
    tiny = configured("calibration.samples=5")
    assert tiny.calibration.samples == 5
    assert tiny.calibration.sample_length < 2048
    assert tiny.data_dir is not None


@pytest.mark.parametrize("name", names_in("experiment"))
def test_every_preset_is_a_grid_of_jobs_that_compose(name: str) -> None:
    preset = composed(f"experiment={name}", with_hydra=True)
    assert preset.hydra.mode == RunMode.MULTIRUN
    assert preset.hydra.sweeper.params
    for setting, values in preset.hydra.sweeper.params.items():
        for value in str(values).split(","):
            configured(f"experiment={name}", f"{setting}={value.strip()}")


def test_what_is_typed_beats_the_preset() -> None:
    name = names_in("experiment")[0]
    config = configured(f"experiment={name}", "evaluation.max_windows=99", "dataset=[snips]")
    assert config.evaluation.max_windows == 99
    assert list(config.dataset) == ["snips"]


@pytest.mark.parametrize(
    "override",
    [
        *(f"ratio={value}" for value in ("0", "1", "-0.1", "1.5", "nan", "inf")),
        *(f"k1={value}" for value in ("0", "1.1", "-0.5", "nan")),
        *(f"{stage}.batch={value}" for stage in ("calibration", "evaluation")
          for value in ("0", "-1", "foo", "1.5", "true", "null")),
        *(f"{stage}.length={value}" for stage in ("calibration", "evaluation")
          for value in ("1", "0", "-5")),
        *("calibration.samples=0", "calibration.samples=-1", "calibration.sampler=svdlm"),
        *("evaluation.max_windows=0", "evaluation.dtype=auto", "evaluation.dtype=float8"),
        *("solver=eig", "dtype=float64", "device=gpu", "device=cuda:x", "device=CPU"),
        *("model.max_length=1", "method.second=qr", "method.reading=third"),
        "dataset.ptb.rows=0",
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_an_error_that_names_the_setting(override: str) -> None:
    name = override.partition("=")[0]
    with pytest.raises(NsvdError, match=rf"^({name}=.*: expected|unknown {name} '.*Known: )"):
        with_value(override)


def test_no_dataset_at_all_is_an_error() -> None:
    with pytest.raises(NsvdError, match=r"dataset=\[\]: expected at least one dataset"):
        typed_config(composed("dataset=[]"))


@pytest.mark.parametrize(
    "override",
    [
        *("ratio=0.001", "ratio=0.999", "k1=1", "k1=0.01", "evaluation.batch=1"),
        *("evaluation.length=2", "evaluation.max_windows=1", "evaluation.dtype=float32"),
        *("device=cuda:1", "device=cpu", "dtype=bfloat16", "solver=paper"),
        *("calibration.sampler=tokens", "calibration.batch=3", "calibration.samples=1"),
    ],
)
def test_a_value_at_the_edge_of_its_range_is_taken(override: str) -> None:
    name, value = override.split("=")
    config: object = with_value(override)
    for part in name.split("."):
        config = getattr(config, part)
    assert str(config) == str(type(config)(value))


def test_a_misspelt_choice_is_answered_with_the_nearest() -> None:
    with pytest.raises(NsvdError, match="Did you mean paper"):
        with_value("solver=papre")


def test_only_asvd_iii_has_readings_and_it_has_two() -> None:
    with pytest.raises(NsvdError, match=r"unknown method\.reading 'third'.*scalar, spectral"):
        configured("method=asvd_iii", "method.reading=third")
    with pytest.raises(NsvdError, match=r"method\.reading=scalar: expected nothing here"):
        with_value("method.reading=scalar")


@pytest.mark.parametrize(
    "override",
    ["ratio=much", "calibration.samples=2.5", "evaluation.length=long", "model.skip=3",
     "evaluation.windows=3"],
)  # fmt: skip
def test_a_wrong_type_or_name_does_not_compose(override: str) -> None:
    with pytest.raises(ConfigCompositionException):
        composed(override)


def test_paths_know_home_variables_and_where_the_command_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.chdir(tmp_path)
    assert expand_path("~/results") == "/home/someone/results"
    assert expand_path("$SCRATCH/results") == "/scratch/results"
    assert expand_path("results") == str(tmp_path / "results")
