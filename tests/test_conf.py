"""Every file of `conf/` composes, and no value out of range gets past the schema."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
from helpers.configuration import EIGHT, METHODS, composed, names_in
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from nsvd_exp.experiment.similarity_plan import plan_similarity
from omegaconf import DictConfig, OmegaConf

from nsvd_exp.cli.arguments import normalise
from nsvd_exp.config.files import expand_path
from nsvd_exp.config.schema import Config, typed_config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.methods.base import whitening_named


@functools.cache
def configured(*overrides: str) -> Config:
    """The typed configuration of a command line, all of it composed by Hydra."""
    return typed_config(composed(*map(normalise, overrides)))


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


# Jobs of the grid; jobs and what they store (cells, or similarity records) on one model.
PRESETS = {
    "table1": (35, 35, 31),
    "table2": (1, 1, 8),
    "table3": (10, 10, 6),
    "table4": (6, 6, 4),
    "table5": (9, 3, 3),
    "table6": (9, 3, 3),
    "figure1": (1, 1, 8),
    "smoke": (10, 10, 10),
}


@functools.cache
def grid_of(preset: str) -> dict[str, str]:
    """The axes of a preset, which is a grid."""
    configuration = composed(f"experiment={preset}", with_hydra=True).hydra
    assert configuration.mode == RunMode.MULTIRUN
    return {name: str(values) for name, values in (configuration.sweeper.params or {}).items()}


def jobs_of(preset: str, *typed: str) -> list[list[str]]:
    """The overrides of each job, as Hydra splits a preset's grid and what is typed behind it."""
    given = [*(f"{name}={values}" for name, values in grid_of(preset).items()), *typed]
    batches = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(given), None)
    return [list(job) for batch in batches for job in batch]


def stored_by(preset: str, *typed: str) -> set[Path]:
    """The folders of what a preset's jobs store on the bundled model."""
    folders: set[Path] = set()
    for job in jobs_of(preset, *typed):
        groups = [o for o in job if o.startswith(("model=", "method=", "dataset="))]
        config = configured(f"experiment={preset}", "model=tiny", *groups)
        numbers = {name: float(v) for o in job for name, _, v in [o.partition("=")]
                   if name in ("ratio", "k1")}  # fmt: skip
        config = dataclasses.replace(config, **numbers)
        if config.measure == "similarity":
            folders |= {record.folder for record in plan_similarity(config).records}
        else:
            folders.add(plan_cell(config).cell.folder)
    return folders


def test_every_preset_is_counted() -> None:
    assert set(names_in("experiment")) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_grid_that_composes_on_the_papers_models(name: str) -> None:
    assert len(jobs_of(name)) == PRESETS[name][0]
    for setting, values in grid_of(name).items():
        for value in values.split(","):
            config = configured(f"experiment={name}", f"{setting}={value.strip()}")
            assert config.calibration.samples == (64 if config.model.title == "tiny" else 256)
            assert config.evaluation.dtype == (None if name == "smoke" else "float32")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_on_the_bundled_model_has_so_many_jobs_and_cells(name: str) -> None:
    _, jobs, stored = PRESETS[name]
    assert len(jobs_of(name, "model=tiny")) == jobs
    assert len(stored_by(name, "model=tiny")) == stored


def test_tables_share_their_cells() -> None:
    first, *others = (stored_by(f"table{n}", "model=tiny") for n in (1, 3, 4, 5, 6))
    assert [len(cells - first) for cells in others] == [4, 3, 0, 0]
    assert stored_by("table2") == stored_by("figure1")


def test_a_preset_can_be_narrowed_and_widened() -> None:
    assert len(jobs_of("table1", "ratio=0.3")) == 7
    assert len(stored_by("table1", "model=tiny", "ratio=0.3")) == 7
    assert len(jobs_of("table1", "ratio=0.3", "method=nsvd_i")) == 1
    assert len(stored_by("table3", "model=tiny", "k1=0.5,0.8")) == 3
    assert len(stored_by("figure1", "dataset=[ptb,c4]")) == 2


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "smoke"])
def test_any_model_can_take_a_presets_place(name: str) -> None:
    tiny = configured(f"experiment={name}", "model=tiny")
    assert (tiny.model.title, tiny.data_dir) == ("tiny", configured("model=tiny").data_dir)
    assert tiny.calibration == configured("model=tiny").calibration
    other = configured(
        f"experiment={name}", "model=hf", "model.name=/models/mine", "data_dir=/texts"
    )
    assert (other.model.title, other.data_dir) == ("mine", "/texts")
    assert other.calibration.samples == 256


def test_what_is_typed_beats_the_preset() -> None:
    config = configured("experiment=smoke", "evaluation.max_windows=99", "dataset=[snips]")
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
        *("measure=perplexities", "similarity.statistic=median"),
        *(f"similarity.gram_limit_gb={value}" for value in ("-1", "nan", "inf")),
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
        *("measure=similarity", "similarity.statistic=gram", "similarity.gram_limit_gb=0"),
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
