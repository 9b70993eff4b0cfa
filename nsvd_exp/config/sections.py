"""The sections of the configuration, each a dataclass with its types and its ranges.

Hydra checks names and types while it composes; ranges are checked by `__post_init__`, which
OmegaConf runs in `nsvd_exp.config.schema.typed_config`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from nsvd_exp.config.checks import require, require_batch, require_one_of, shown
from nsvd_exp.config.classes import as_typed

DTYPES = ("float32", "bfloat16", "float16")
SAMPLERS = ("svdllm", "tokens")
BOS = ("first", "window")
LABELS = ("model", "text")
TRACKING_MODES = ("disabled", "offline", "online")
KEEPS = ("none", "statistics", "bases")
SIMILARITY_STATISTICS = ("mean", "abs_mean", "gram")


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
            require(self.max_length > 1, "model.max_length", self.max_length, "more than 1 token")


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
            require(self.rows > 0, f"dataset.{self.name}.rows", self.rows, "a number > 0, or null")


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
        require(count > 0, "calibration.gradient_samples", count, "a number > 0")
        require_one_of("calibration.labels", self.labels, LABELS)
        require(self.samples > 0, "calibration.samples", self.samples, "a number > 0")
        if self.length is not None:
            require(self.length > 1, "calibration.length", self.length, "more than 1 token")
        require_one_of("calibration.sampler", self.sampler, SAMPLERS)
        require_batch("calibration.batch", self.batch)

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
            require(self.length > 1, "evaluation.length", self.length, "more than 1 token")
        if self.max_windows is not None:
            require(self.max_windows > 0, "evaluation.max_windows", self.max_windows, "> 0")
        require_one_of("evaluation.bos", self.bos, BOS)
        if self.dtype is not None:
            require_one_of("evaluation.dtype", self.dtype, DTYPES)
        require_batch("evaluation.batch", self.batch)


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
        require_one_of("similarity.statistic", self.statistic, SIMILARITY_STATISTICS)
        limit = self.gram_limit_gb
        require(0 <= limit < math.inf, "similarity.gram_limit_gb", limit, "a number >= 0, in GB")


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
            require(self.limit > 0, "zeroshot.limit", self.limit, "a number > 0, or null")
        require(self.fewshot >= 0, "zeroshot.fewshot", self.fewshot, "a number >= 0")
        require_batch("zeroshot.batch", self.batch)


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
        require_one_of("cache.keep", self.keep, KEEPS)
        for name in ("limit_gb", "memory_gb"):
            limit = getattr(self, name)
            valid = limit is None or 0 <= limit < math.inf
            require(valid, f"cache.{name}", limit, "a number >= 0, in GB, or null")


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
        require_one_of("tracking.mode", self.mode, TRACKING_MODES)
        for name in ("project", "entity", "group"):
            value = getattr(self, name)
            legible = value is None or re.fullmatch(r"[^/\\#?%:]+", value) is not None
            require(legible, f"tracking.{name}", value, "a name without any of / \\ # ? % :")


def _weights(mix: dict[str, Any]) -> dict[str, float]:
    """The weights of `calibration.mix`."""
    weights = {}
    for name, weight in mix.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        valid = is_number and 0 < weight < 1
        require(valid, f"calibration.mix.{name}", weight, "a weight, 0 < weight < 1")
        weights[name] = as_typed(float(weight))
    valid = math.fsum(weights.values()) < 1
    require(valid, "calibration.mix", weights, "weights that sum to less than 1")
    return weights
