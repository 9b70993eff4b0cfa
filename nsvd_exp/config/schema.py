"""The typed, range-checked configuration: what `conf/` composes to. Imports no torch.

Hydra checks names and types while it composes; ranges and what goes with what are checked by
`__post_init__`, which OmegaConf runs in `typed_config`.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import (
    MISSING,
    DictConfig,
    MissingMandatoryValue,
    OmegaConf,
    ValidationError,
    open_dict,
    read_write,
)

from nsvd_exp.config.classes import TARGET, as_typed
from nsvd_exp.errors import NsvdError, unknown_name

DTYPES = ("float32", "bfloat16", "float16")
SOLVERS = ("basis", "paper")
SAMPLERS = ("svdllm", "tokens")
BOS = ("first", "window")
LABELS = ("model", "text")
TRACKING_MODES = ("disabled", "offline", "online")
KEEPS = ("none", "statistics", "bases")
MEASURES = ("perplexity", "similarity", "zeroshot")
MEMORY = ("auto", "resident", "streamed")
EXPORT_FORMATS = ("factors", "dense")
LONGEST_TITLE = 100  # characters
SIMILARITY_STATISTICS = ("mean", "abs_mean", "gram")


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise NsvdError(f"{name}={value}: expected {expected}")


def _require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown_name(name, value, known)


def shown(text: str, longest: int = LONGEST_TITLE) -> str:
    """A text as it can be shown anywhere: in one line, without control characters or halves of
    characters, and of a length that, for a title, fits a table."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def _require_batch(name: str, value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    _require(value == "auto" or (whole and value > 0), name, value, "auto, or a whole number > 0")


def _weights(mix: dict[str, Any]) -> dict[str, float]:
    """The weights of `calibration.mix`."""
    weights = {}
    for name, weight in mix.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        valid = is_number and 0 < weight < 1
        _require(valid, f"calibration.mix.{name}", weight, "a weight, 0 < weight < 1")
        weights[name] = as_typed(float(weight))
    valid = math.fsum(weights.values()) < 1
    _require(valid, "calibration.mix", weights, "weights that sum to less than 1")
    return weights


@dataclass
class ModelConfig:
    """A causal language model: a Hugging Face hub name or a folder.

    Attributes:
        name: hub id or folder; `package:NAME` is the folder of an installed Python package.
        gguf_file: name of a GGUF file in it, whose weights are dequantised; null: safetensors.
        title: the short name in tables.
        revision: branch, tag or commit; resolved to a commit before anything is keyed by it.
        max_length: positions the model takes, in tokens; null: as its config.json says.
        skip: patterns (fnmatch) of Linear names that stay dense, e.g. `model.layers.0.*`.
        strict: refuse a model with matrices outside of any Linear, such as fused experts, which
            stay dense otherwise.
        tokenizer: options for its tokenizer where the files that come with it are wrong, as
            `AutoTokenizer.from_pretrained` takes them; part of the key.
        safetensors_only: refuse pickled weights (`pytorch_model.bin`).
        trust_remote_code: run the Python code that comes with the model.
    """

    name: str = MISSING
    title: str = MISSING
    revision: str = "main"
    gguf_file: str | None = None
    max_length: int | None = None
    skip: list[str] = field(default_factory=list)
    strict: bool = False
    tokenizer: dict[str, Any] = field(default_factory=dict)
    safetensors_only: bool = True
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        self.title = shown(self.title)
        if self.max_length is not None:
            _require(self.max_length > 1, "model.max_length", self.max_length, "more than 1 token")


@dataclass
class DatasetConfig:
    """One evaluation set: where its rows are, and how they become one text.

    Attributes:
        name: name of the local folder and of the result.
        title: name in tables.
        hub: dataset id on the Hugging Face hub; null: it exists in `data_dir` alone.
        config: the hub dataset's configuration (subset), if it has several.
        revision: branch, tag or commit of the hub dataset.
        files: data files inside the hub repository, by split; empty: the dataset's own splits.
        splits: the hub's name of each split (`test`, `train`).
        document: `str.format` template that makes a document from a row's fields.
        join: what stands between two documents.
        rows: the first so many rows only; null: all.
        split_special_tokens: read special tokens that stand in the text, such as `<unk>`, as
            ordinary characters.
    """

    name: str = MISSING
    title: str = MISSING
    hub: str | None = None
    config: str | None = None
    revision: str = "main"
    files: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    document: str = "{text}"
    join: str = "\n\n"
    rows: int | None = None
    split_special_tokens: bool = False

    def __post_init__(self) -> None:
        self.title = shown(self.title)
        if self.rows is not None:
            _require(self.rows > 0, f"dataset.{self.name}.rows", self.rows, "a number > 0, or null")


@dataclass
class CalibrationConfig:
    """Which tokens the statistics come from; see `conf/calibration/default.yaml`.

    Attributes:
        length: tokens a sample; null: the smaller of 2048 and what the model takes.
        sampler: `svdllm` (character offsets) or `tokens` (token offsets).
        tokenizer: what draws the ids: a name in `conf/model`, a hub id or a folder; null: the
            model's own tokenizer.
        mix: further sources by their weights, each 0 < weight < 1: names of datasets, and `random`
            for random token ids. The dataset itself has what is left of 1.
        gradient_samples: the first so many samples are also taken backwards, where a method or an
            allocation reads gradients.
        labels: next tokens of their loss: `model`, drawn from its predictions, or `text`.
    """

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    split: str = "train"
    samples: int = 256
    length: int | None = None
    seed: int = 3
    sampler: str = "svdllm"
    tokenizer: str | None = None
    tokenizer_revision: str = "main"
    batch: Any = "auto"
    mix: dict[str, Any] = field(default_factory=dict)
    gradient_samples: int = 16
    labels: str = "model"

    def __post_init__(self) -> None:
        self.mix = _weights(self.mix)
        count = self.gradient_samples
        _require(count > 0, "calibration.gradient_samples", count, "a number > 0")
        _require_one_of("calibration.labels", self.labels, LABELS)
        _require(self.samples > 0, "calibration.samples", self.samples, "a number > 0")
        if self.length is not None:
            _require(self.length > 1, "calibration.length", self.length, "more than 1 token")
        _require_one_of("calibration.sampler", self.sampler, SAMPLERS)
        _require_batch("calibration.batch", self.batch)

    @property
    def sample_length(self) -> int:
        """Tokens a sample, once `nsvd_exp.experiment.plan` has resolved it.

        Raises:
            ValueError: it is not resolved.
        """
        if self.length is None:
            raise ValueError("calibration.length is not resolved")
        return self.length


@dataclass
class EvaluationConfig:
    """How perplexity is measured.

    Attributes:
        length: tokens a window; null: the smaller of 2048 and what the model takes.
        batch: windows a forward pass, or `auto`.
        max_windows: at most this many windows of each dataset; null: all.
        bos: where the tokenizer's BOS stands: `first`, where the tokenizer puts it, in the first
            window of a text; or `window`, at the start of each window, before length - 1 tokens.
        dtype: arithmetic of the evaluation; null: the model's dtype.
    """

    length: int | None = None
    batch: Any = "auto"
    max_windows: int | None = None
    bos: str = "first"
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.length is not None:
            _require(self.length > 1, "evaluation.length", self.length, "more than 1 token")
        if self.max_windows is not None:
            _require(self.max_windows > 0, "evaluation.max_windows", self.max_windows, "> 0")
        _require_one_of("evaluation.bos", self.bos, BOS)
        if self.dtype is not None:
            _require_one_of("evaluation.dtype", self.dtype, DTYPES)
        _require_batch("evaluation.batch", self.batch)


@dataclass
class SimilarityConfig:
    """How activations are compared with the calibration set's (`measure=similarity`).

    Attributes:
        statistic: of a layer's inputs, which the terminal shows: `mean` and `abs_mean`, the mean
            (absolute) value of each channel, or `gram`, their Gram matrix.
        gram_limit_gb: GB (1e9 bytes) that all Gram matrices of one pass may take together for
            their similarity to be computed unasked; above it `statistic=gram` asks for it.
    """

    statistic: str = "mean"
    gram_limit_gb: float = 2.0

    def __post_init__(self) -> None:
        _require_one_of("similarity.statistic", self.statistic, SIMILARITY_STATISTICS)
        limit = self.gram_limit_gb
        _require(0 <= limit < math.inf, "similarity.gram_limit_gb", limit, "a number >= 0, in GB")


@dataclass
class ZeroshotConfig:
    """How tasks are done (`measure=zeroshot`).

    Attributes:
        limit: the first so many documents of each task; null: all.
        fewshot: examples in front of each document.
        batch: requests a forward pass, or `auto`.
    """

    limit: int | None = None
    fewshot: int = 0
    batch: Any = "auto"

    def __post_init__(self) -> None:
        if self.limit is not None:
            _require(self.limit > 0, "zeroshot.limit", self.limit, "a number > 0, or null")
        _require(self.fewshot >= 0, "zeroshot.fewshot", self.fewshot, "a number >= 0")
        _require_batch("zeroshot.batch", self.batch)


@dataclass
class CacheConfig:
    """What is kept between cells; it changes no number.

    Attributes:
        keep: on disk, in `cache_dir`: `none`; `statistics`, those of calibrations; or `bases`, the
            output bases of the methods too.
        limit_gb: GB (1e9 bytes) that all of `cache_dir` may take: what was not used for longest is
            removed, and what is in use stays; null: any.
        memory_gb: GB of the bases that a process holds in memory; null: a quarter of the memory it
            may use.
    """

    keep: str = "statistics"
    limit_gb: float | None = 100.0
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        _require_one_of("cache.keep", self.keep, KEEPS)
        for name in ("limit_gb", "memory_gb"):
            limit = getattr(self, name)
            valid = limit is None or 0 <= limit < math.inf
            _require(valid, f"cache.{name}", limit, "a number >= 0, in GB, or null")


@dataclass
class TrackingConfig:
    """Whether and where Weights & Biases follows the work; it changes no number.

    Attributes:
        mode: `disabled`; `offline`, files for `wandb sync`; or `online`.
        project: W&B project.
        entity: W&B user or team; null: the account's default.
        group: what the runs stand under; null: the preset's name, or else the model's.
        dir: the run files are in `wandb/` under this folder.
        progress: whether a run has curves of how far each stage is.
    """

    mode: str = "disabled"
    project: str = "nsvd_exp"
    entity: str | None = None
    group: str | None = None
    dir: str = "results"
    progress: bool = False

    def __post_init__(self) -> None:
        _require_one_of("tracking.mode", self.mode, TRACKING_MODES)
        for name in ("project", "entity", "group"):
            value = getattr(self, name)
            legible = value is None or re.fullmatch(r"[^/\\#?%:]+", value) is not None
            _require(legible, f"tracking.{name}", value, "a name without any of / \\ # ? % :")


@dataclass
class Config:
    """One cell of the grid, as the user asked for it.

    Attributes:
        measure: `perplexity` of a compressed cell; its accuracy at tasks, `zeroshot`; or
            `similarity`, records of the dense model's activations, for which method, ratio, k1 and
            solver do not matter.
        ratio: fraction of the compressed weights' parameters that is removed, 0 < ratio < 1.
        k1: fraction of the rank given to the first stage, 0 < k1 <= 1; nested methods only.
        method, allocation, storage: a class and its fields, as `nsvd_exp.config.classes` builds it:
            a `nsvd_exp.methods.Method` (`dense` names none), a `nsvd_exp.methods.Allocation` and a
            `nsvd_exp.models.storage.Storage`. `method` has a `name` and a `title` beside them.
        solver: `basis` or `paper`.
        memory: `resident`, the whole model on its device; `streamed`, one decoder block at a time;
            `auto`, resident until memory runs out, then streamed.
        data_dir: a folder of local text, or a list of them, which are looked through in this order
            and, with the bundled model, before its own text.
        dataset: the evaluation sets, by name.
        tasks: names of the lm-evaluation-harness's tasks, for `measure=zeroshot`.
        tasks_dir: a folder of more tasks, or a list of them, which are looked through in this order
            and before those that come with the suite and with the harness.
        report: whether a grid ends with the report (`results_dir/report`).
        export: a folder for the compressed model itself; a grid puts a folder for each cell into
            it. null: none.
        export_format: `factors`, or `dense` for ordinary weights.
        push_to_hub: USER/NAME of a private repository on the hub that what was exported is put
            into; the cells of a grid have one each, USER/NAME-CELL. null: none.
        generate: whether a cell also continues three fixed prompts, which the store keeps.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    method: dict[str, Any] = field(default_factory=dict)
    allocation: dict[str, Any] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    dataset: dict[str, DatasetConfig] = field(default_factory=dict)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    similarity: SimilarityConfig = field(default_factory=SimilarityConfig)
    zeroshot: ZeroshotConfig = field(default_factory=ZeroshotConfig)
    tasks: list[str] = field(default_factory=list)
    tasks_dir: Any = None
    measure: str = "perplexity"
    ratio: float = 0.3
    k1: float = 0.95
    solver: str = "basis"
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    data_dir: Any = None
    results_dir: str = "results"
    cache_dir: str = "results/cache"
    cache: CacheConfig = field(default_factory=CacheConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    report: bool = True
    export: str | None = None
    export_format: str = "factors"
    push_to_hub: str | None = None
    generate: bool = False

    def __post_init__(self) -> None:
        self.ratio, self.k1 = as_typed(self.ratio), as_typed(self.k1)
        self.method = {name: as_typed(value) for name, value in self.method.items()}
        _require(0 < self.ratio < 1, "ratio", self.ratio, "0 < ratio < 1, the fraction REMOVED")
        _require(0 < self.k1 <= 1, "k1", self.k1, "0 < k1 <= 1, a fraction of the rank")
        _require_one_of("measure", self.measure, MEASURES)
        _require_one_of("solver", self.solver, SOLVERS)
        _require_one_of("dtype", self.dtype, ("auto", *DTYPES))
        _require_one_of("memory", self.memory, MEMORY)
        _require_one_of("export_format", self.export_format, EXPORT_FORMATS)
        valid = self.export is None or bool(self.export.strip())
        _require(valid, "export", self.export, "a folder, or null")
        pushes = self.push_to_hub is not None and self.export is None
        _require(not pushes, "push_to_hub", self.push_to_hub, "export=FOLDER beside it")
        for name in ("export", "generate"):
            value = getattr(self, name)
            is_idle = bool(value) and self.measure != "perplexity"
            _require(not is_idle, name, value, "measure=perplexity beside it")
        known_device = re.fullmatch(r"auto|cpu|cuda(:\d+|:all)?", self.device) is not None
        _require(known_device, "device", self.device, "auto, cpu, cuda, cuda:N or cuda:all")
        for place, folders in (("data_dir", self.data_dir), ("tasks_dir", self.tasks_dir)):
            given = folders if isinstance(folders, list) else [folders]
            are_folders = bool(given) and all(isinstance(f, str) and f for f in given)
            valid = folders is None or are_folders
            _require(valid, place, folders, "a folder, or a list of folders")
        named = bool(self.tasks) and all(self.tasks)
        _require(self.measure != "zeroshot" or named, "tasks", self.tasks, "at least one task")
        _require(bool(self.dataset), "dataset", "[]", "at least one dataset")
        name = str(self.method.get("name") or "")
        legible = re.fullmatch(r"[\w.+-]+", name) is not None  # folders are called by it
        _require(legible, "method.name", name, "letters, digits, _ . + -")
        self.method["title"] = shown(str(self.method.get("title") or name))
        for place, folder in (("results_dir", self.results_dir), ("cache_dir", self.cache_dir)):
            _require(bool(folder.strip()), place, folder, "a folder")

    @property
    def compresses(self) -> bool:
        """Whether the method changes the model: False for `dense`, which names no class."""
        return self.method.get(TARGET) is not None


def typed_config(composed: DictConfig) -> Config:
    """The composed configuration as typed, range-checked values.

    Raises:
        NsvdError: a value out of range, one that must be given and is not, or an unknown setting.
    """
    _refuse_unknown(composed, "")
    try:
        config = OmegaConf.to_object(composed)
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        way_out = " (a hub name or a folder)" if key == "model.name" else ""
        raise NsvdError(f"{key} must be given: {key}=...{way_out}") from None
    except ValidationError as error:
        raise NsvdError(str(error)) from None
    assert isinstance(config, Config)
    return config


def job_config(composed: DictConfig) -> Config:
    """The typed configuration of a job as Hydra composes it, without Hydra's own part.

    Raises:
        NsvdError: as `typed_config`.
    """
    own = copy.deepcopy(composed)
    with read_write(own), open_dict(own):
        del own["hydra"]
    return typed_config(own)


def _refuse_unknown(node: DictConfig, prefix: str) -> None:
    """Refuse a setting that the schema does not know, which `+NAME=VALUE` adds all the same."""
    schema = OmegaConf.get_type(node)
    known: list[str] | None = None  # any name: options of a tokenizer, fields of a class
    if schema is not None and dataclasses.is_dataclass(schema):
        known = [f"{prefix}{field.name}" for field in dataclasses.fields(schema)]
    for key in map(str, node):
        if known is not None and f"{prefix}{key}" not in known:
            raise unknown_name("setting", f"{prefix}{key}", known)
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _refuse_unknown(child, f"{prefix}{key}.")
