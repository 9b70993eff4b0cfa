"""Every file of `conf/` composes, and no value out of range gets past the schema."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from helpers.command_line import run_main
from helpers.configuration import EIGHT, METHODS, compose, composed
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode

from nsvd_exp import methods
from nsvd_exp.config.files import expand_path, group_choices, method_files
from nsvd_exp.config.schema import typed_config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import plan_cell, plan_similarity
from nsvd_exp.experiment.resolve import choices_of
from nsvd_exp.models.storage import Factors

CLASSES = {
    "dense": None,
    "svd": methods.SVD(),
    "fwsvd": methods.FWSVD(),
    "asvd_0": methods.ASVD(alpha=1.0),
    "asvd_i": methods.CholeskyASVD(),
    "asvd_ii": methods.EigenASVD(),
    "asvd_iii": methods.ScaledEigenASVD(reading="scalar"),
    "asvd_ridge": methods.RidgeASVD(ridge=0.1, target="diagonal"),
    "kfac": methods.KFAC(damping=0.1, ridge=0.0, target="diagonal"),
    "weighted_kfac": methods.WeightedKFAC(damping=0.1, ridge=0.0, target="diagonal"),
    "nsvd_i": methods.NSVD(0.95, methods.CholeskyASVD(), methods.TruncatedSVD()),
    "nsvd_ii": methods.NSVD(0.95, methods.EigenASVD(), methods.TruncatedSVD()),
    "nid_i": methods.NID(0.95, methods.CholeskyASVD(), methods.ColumnID()),
    "nid_ii": methods.NID(0.95, methods.EigenASVD(), methods.ColumnID()),
}
"""What each file of conf/method describes, in the order of tables."""


def test_the_groups_hold_what_a_user_can_type() -> None:
    assert list(method_files()) == list(CLASSES)
    assert set(group_choices("dataset")) == set(EIGHT)
    assert set(group_choices("model")) >= {
        "tiny", "llama_7b", "llama_13b", "llama_30b", "opt_6_7b", "vicuna_7b", "mistral_7b", "hf",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(group_choices("model")) - {"hf"}))
def test_every_model_composes(name: str) -> None:
    model = compose(f"model={name}").model
    assert model.name
    assert model.title == name.replace("_", "-").replace("opt-6-7b", "opt-6.7b")


def test_a_model_is_called_by_the_end_of_its_name_which_must_be_given() -> None:
    assert compose("model=llama_7b").model.name == "jeffwan/llama-7b-hf"
    snapshot = "/cache/models--org--some-model/snapshots/0123abc"
    titles = {"org/some-model": "some-model", "/data/mine/": "mine", snapshot: "some-model"}
    for name, title in titles.items():
        assert compose("model=hf", f"model.name={name}").model.title == title
    with pytest.raises(NsvdError, match=r"model\.name must be given: model\.name=\.\.\."):
        compose("model=hf")


@pytest.mark.parametrize("name", CLASSES)
def test_every_method_file_describes_the_class_that_it_says(name: str) -> None:
    config = typed_config(composed(f"method={name}"))
    method = choices_of(config).method
    assert (method, type(method)) == (CLASSES[name], type(CLASSES[name]))
    found = (False, False, False)
    if method is not None:
        found = (True, method.is_calibrated, method.second_stage() is not None)
    assert found == METHODS[name]
    assert config.method["name"] == name
    assert config.method["title"] == name.upper().replace("_", "-").replace("DENSE", "Original")


ALLOCATIONS = {
    "uniform": methods.Uniform(),
    "energy": methods.Energy(floor=0.0, ceiling=1.0, multiple=8),
    "fisher": methods.Fisher(floor=0.0, ceiling=1.0, multiple=8),
    "svdllm_v2": methods.SVDLLMv2(),
    "effective_rank": methods.EffectiveRank(),
}


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_every_allocation_file_describes_the_class_that_it_says(name: str) -> None:
    found = choices_of(compose(f"allocation={name}")).allocation
    assert (found, type(found)) == (ALLOCATIONS[name], type(ALLOCATIONS[name]))


def test_ranks_and_storage_are_the_papers_by_default() -> None:
    assert group_choices("allocation") == sorted(ALLOCATIONS)
    assert group_choices("storage") == ["factors", "pivoted"]
    choices = choices_of(compose("allocation=uniform", "storage=factors"))
    assert choices == choices_of(compose())
    assert (choices.allocation, choices.storage) == (methods.Uniform(), Factors())


@pytest.mark.parametrize("name", group_choices("hydra/launcher"))
def test_every_launcher_composes(name: str) -> None:
    assert composed(f"hydra/launcher={name}", with_hydra=True).hydra.launcher._target_


@pytest.mark.parametrize("name", EIGHT)
def test_a_dataset_file_stands_under_its_own_name(name: str) -> None:
    calibrated_on = "ptb" if name == "c4" else "c4"
    calibration = f"calibration.dataset={calibrated_on}"
    config = compose(f"dataset=[{name}]", f"dataset.{name}.rows=7", calibration)
    assert list(config.dataset) == [name]
    assert config.calibration.dataset.name == calibrated_on
    dataset = config.dataset[name]
    assert (dataset.name, dataset.rows) == (name, 7)
    assert dataset.hub.count("/") == 1
    assert "test" in dataset.splits
    assert set(dataset.files) <= set(dataset.splits)


def test_all_eight_datasets_are_the_default_and_ptb_alone_reads_unk_as_characters() -> None:
    datasets = compose().dataset
    assert list(datasets) == EIGHT
    assert [name for name, d in datasets.items() if d.split_special_tokens] == ["ptb"]


def test_calibration_is_the_papers_but_for_the_tiny_model() -> None:
    assert group_choices("calibration") == ["default"]
    paper = compose("model=llama_7b", "calibration=default")
    c = paper.calibration
    assert c.dataset.name == "wikitext2"
    assert (c.samples, c.length, c.seed, c.sampler, c.split) == (256, None, 3, "svdllm", "train")
    assert paper.data_dir is None
    tiny = compose("calibration.samples=5")
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
    "beyond": (57, 57, 55),
}


@functools.cache
def grids_of(preset: str) -> list[dict[str, str]]:
    """The grids of a preset: the axes of each, with those that all share."""
    configuration = composed(f"experiment={preset}", with_hydra=True).hydra
    assert configuration.mode == RunMode.MULTIRUN
    shared, grids = configuration.sweeper.params or {}, configuration.sweeper.grids or [{}]
    return [{name: str(v) for name, v in {**shared, **grid}.items()} for grid in grids]


def jobs_of(preset: str, *typed: str) -> list[list[str]]:
    """The overrides of each job, as Hydra splits a preset's grids and what is typed behind them."""
    jobs = []
    for grid in grids_of(preset):
        given = [*(f"{name}={values}" for name, values in grid.items()), *typed]
        parsed = OverridesParser.create().parse_overrides(given)
        jobs += [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    return [list(job) for job in jobs]


def stored_by(preset: str, *typed: str) -> set[Path]:
    """The folders of what a preset's jobs store on the bundled model."""
    folders: set[Path] = set()
    for job in jobs_of(preset, *typed):
        config = compose(f"experiment={preset}", *job, "model=tiny")
        if config.measure == "similarity":
            folders |= {file.folder for file in plan_similarity(config).files}
        else:
            folders.add(plan_cell(config).file.folder)
    return folders


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_grid_that_composes_on_the_papers_models(name: str) -> None:
    assert set(group_choices("experiment")) == set(PRESETS)
    assert len(jobs_of(name)) == PRESETS[name][0]
    for job in jobs_of(name):
        config = compose(f"experiment={name}", *job)
        assert config.calibration.samples == (64 if config.model.title == "tiny" else 256)
        is_plain = name in ("smoke", "figure1", "table2")
        assert config.evaluation.dtype == (None if is_plain else "float32")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_on_the_bundled_model_has_so_many_jobs_and_cells(name: str) -> None:
    _, jobs, stored = PRESETS[name]
    assert len(jobs_of(name, "model=tiny")) == jobs
    assert len(stored_by(name, "model=tiny")) == stored


def test_tables_share_their_cells() -> None:
    first, *others = (stored_by(f"table{n}", "model=tiny") for n in (1, 3, 4, 5, 6))
    assert [len(cells - first) for cells in others] == [4, 3, 0, 0]
    assert stored_by("table2") == stored_by("figure1")
    shared = stored_by("beyond", "model=tiny") & first
    assert {folder.name.rpartition("-")[0] for folder in shared} == {
        "dense",
        *(f"asvd_i-{ratio}" for ratio in (0.1, 0.2, 0.3)),
        *(f"nsvd_i-{ratio}-0.95" for ratio in (0.1, 0.2, 0.3)),
    }


def test_a_preset_can_be_narrowed_and_widened() -> None:
    assert len(jobs_of("table1", "ratio=0.3")) == 7
    assert len(stored_by("table1", "model=tiny", "ratio=0.3")) == 7
    assert len(jobs_of("table1", "ratio=0.3", "method=nsvd_i")) == 1
    assert len(stored_by("table3", "model=tiny", "k1=0.5,0.8")) == 3
    assert len(stored_by("figure1", "dataset=[ptb,c4]")) == 2


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "smoke"])
def test_any_model_can_take_a_presets_place(name: str) -> None:
    tiny, plain = compose(f"experiment={name}", "model=tiny"), compose("model=tiny")
    assert (tiny.model.title, tiny.data_dir) == ("tiny", plain.data_dir)
    assert tiny.calibration == plain.calibration
    other = compose(f"experiment={name}", "model=hf", "model.name=/models/mine", "data_dir=/texts")
    assert (other.model.title, other.data_dir) == ("mine", "/texts")
    assert other.calibration.samples == 256


def test_what_is_typed_beats_the_preset() -> None:
    config = compose("experiment=smoke", "evaluation.max_windows=99", "dataset=[snips]")
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
        *("evaluation.bos=last", "data_dir=", "data_dir=[]", "data_dir=[a,'']", "data_dir=3"),
        *("solver=eig", "dtype=float64", "device=gpu", "device=cuda:x", "device=CPU"),
        *("model.max_length=1", "method.name=", "method.name=a/b"),
        *("measure=perplexities", "similarity.statistic=median"),
        *(f"similarity.gram_limit_gb={value}" for value in ("-1", "nan", "inf")),
        *("dataset.ptb.rows=0", "tasks_dir=[]", "tasks_dir=3"),
        *("zeroshot.limit=0", "zeroshot.fewshot=-1", "zeroshot.batch=none", "zeroshot.batch=0"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_an_error_that_names_the_setting(override: str) -> None:
    name = override.partition("=")[0]
    with pytest.raises(NsvdError, match=rf"^({name}=.*: expected|unknown {name} '.*Known: )"):
        compose(override)


@pytest.mark.parametrize(
    "override",
    [
        *("ratio=0.001", "ratio=0.999", "k1=1", "k1=0.01", "evaluation.batch=1"),
        *("evaluation.length=2", "evaluation.max_windows=1", "evaluation.dtype=float32"),
        *("device=cuda:1", "device=cpu", "dtype=bfloat16", "solver=paper"),
        *("calibration.sampler=tokens", "calibration.batch=3", "calibration.samples=1"),
        *("measure=similarity", "similarity.statistic=gram", "similarity.gram_limit_gb=0"),
        *("measure=zeroshot", "zeroshot.limit=1", "zeroshot.fewshot=0", "zeroshot.batch=1"),
    ],
)
def test_a_value_at_the_edge_of_its_range_is_taken(override: str) -> None:
    name, value = override.split("=")
    config: object = compose(override)
    for part in name.split("."):
        config = getattr(config, part)
    assert str(config) == str(type(config)(value))


def test_any_option_of_a_tokenizer_is_taken_and_a_computed_number_is_the_typed_one() -> None:
    assert compose("+model.tokenizer.x=true").model.tokenizer == {"x": True}
    config = compose(f"ratio={0.1 + 0.2}", f"k1={0.1 + 0.2}")
    assert (config.ratio, config.k1, config.method["k1"]) == (0.3, 0.3, 0.3)


def test_a_misspelt_choice_and_no_choice_at_all_are_one_message() -> None:
    with pytest.raises(NsvdError, match="Did you mean paper"):
        compose("solver=papre")
    with pytest.raises(NsvdError, match=r"dataset=\[\]: expected at least one dataset"):
        typed_config(composed("dataset=[]"))


# A setting that does not exist, and what the message says of it.
UNKNOWN = {
    "rato=0.5": "'rato'. Did you mean ratio",
    "+rato=0.5": "'rato'. Did you mean ratio",
    "+dataset.ptb.joi=x": "'dataset.ptb.joi'. Did you mean dataset.ptb.join",
    "+cache.foo=1": "'cache.foo'. Did you mean cache.keep",
    "+calibration.sample=1": "'calibration.sample'. Did you mean calibration.samples",
    "+calibration.dataset.foo=2": "'calibration.dataset.foo'. Did you mean calibration.dataset.",
    "+evaluation.windows=2": "'evaluation.windows'. Did you mean evaluation.max_windows",
    "+similarity.x=1": "'similarity.x'. Did you mean similarity.statistic",
    "+tracking.mod=1": "'tracking.mod'. Did you mean tracking.mode",
    "+model.skipped=[a]": "'model.skipped'. Did you mean model.skip",
    "+method.alpha=0.1": "of method (NSVD) 'method.alpha'. Did you mean method.",
    "+method.titel=x": "'method.titel'. Did you mean method.title",
    "+method.plot.colr=red": "'method.plot.colr'. Did you mean method.plot.color",
    "method.alhpa=0.1": "'method.alhpa'. Did you mean method.alpha",
    "method=dense +method.k2=1": "of method (dense) 'method.k2'. Did you mean method.",
    "method.first={_target_: nsvd_exp.methods.ASVD, alpa: 2}": "method.first.alpha",
    "+allocation.spread=1": "of allocation (Uniform) 'allocation.spread'. Did you mean allocation.",
    "+storage.bits=4": "of storage (Factors) 'storage.bits'. Did you mean storage.",
}


@pytest.mark.parametrize(("typed", "message"), UNKNOWN.items())
def test_an_unknown_setting_is_one_message_wherever_it_stands(
    typed: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [typed] if "{" in typed else typed.split()
    code, out, err = run_main(capsys, f"results_dir={tmp_path}/results", *given)
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown setting")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method._target_=nsvd_exp.methods.NSV", "NSV cannot be imported: module 'nsvd_exp.meth"),
        ("method._target_=no.such.Class", "no.such.Class cannot be imported: No module named 'no'"),
        ("method._target_=NSVD", "method=NSVD: expected a class by its dotted path"),
        ("method._target_=nsvd_exp.methods.Uniform", "Uniform is not a frozen dataclass that"),
        (f"method._target_={__name__}.Plain", "Plain is not a frozen dataclass that is"),
        ("allocation._target_=null", "allocation names no class: give allocation._target_="),
        ("method.second=nsvd_exp.methods.SVD", "method.second: nsvd_exp.methods.SVD is not a froz"),
        ("method.first=nsvd_exp.methods.NSVD", "method: first=NSVD is nested itself"),
        ("method.k1=many", "method.k1: Value 'many' of type 'str' could not be converted"),
        ("method.k1=1.5", "method: k1=1.5: expected 0 < k1 <= 1"),
        ("method=asvd_0 method.alpha=-1", "method: alpha=-1.0: expected a number >= 0"),
        ("method=asvd_ridge method.ridge=-0.1", "method: ridge=-0.1: expected a number >= 0"),
        ("method=asvd_ridge method.target=mean", "unknown target 'mean'. Known: diagonal, ident"),
        ("method=asvd_iii method.reading=third", "unknown reading 'third'. Known: scalar, spectr"),
    ],
)
def test_a_class_or_a_field_that_does_not_fit_is_one_message(override: str, message: str) -> None:
    with pytest.raises(NsvdError) as caught:
        choices_of(compose(*override.split()))
    assert message in str(caught.value)


class Plain(methods.CholeskyASVD):
    """No dataclass: fields of its own would be in no key."""


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
