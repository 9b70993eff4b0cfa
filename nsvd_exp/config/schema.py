"""The typed, range-checked configuration: what `conf/` composes to. Imports no torch.

Hydra checks names and types while it composes; ranges and what goes with what are checked by
`__post_init__`, which OmegaConf runs in `typed_config`.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import (
    DictConfig,
    MissingMandatoryValue,
    OmegaConf,
    ValidationError,
    open_dict,
    read_write,
)

from nsvd_exp.config.checks import require, require_one_of, shown
from nsvd_exp.config.classes import TARGET, as_typed
from nsvd_exp.config.sections import (
    DTYPES,
    CacheConfig,
    CalibrationConfig,
    DatasetConfig,
    EvaluationConfig,
    ModelConfig,
    SimilarityConfig,
    TrackingConfig,
    ZeroshotConfig,
)
from nsvd_exp.errors import NsvdError, unknown_name

SOLVERS = ("basis", "paper")
MEASURES = ("perplexity", "similarity", "zeroshot")
MEMORY = ("auto", "resident", "streamed")
EXPORT_FORMATS = ("factors", "dense")


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
        require(0 < self.ratio < 1, "ratio", self.ratio, "0 < ratio < 1, the fraction REMOVED")
        require(0 < self.k1 <= 1, "k1", self.k1, "0 < k1 <= 1, a fraction of the rank")
        require_one_of("measure", self.measure, MEASURES)
        require_one_of("solver", self.solver, SOLVERS)
        require_one_of("dtype", self.dtype, ("auto", *DTYPES))
        require_one_of("memory", self.memory, MEMORY)
        require_one_of("export_format", self.export_format, EXPORT_FORMATS)
        valid = self.export is None or bool(self.export.strip())
        require(valid, "export", self.export, "a folder, or null")
        pushes = self.push_to_hub is not None and self.export is None
        require(not pushes, "push_to_hub", self.push_to_hub, "export=FOLDER beside it")
        for name in ("export", "generate"):
            value = getattr(self, name)
            is_idle = bool(value) and self.measure != "perplexity"
            require(not is_idle, name, value, "measure=perplexity beside it")
        known_device = re.fullmatch(r"auto|cpu|cuda(:\d+|:all)?", self.device) is not None
        require(known_device, "device", self.device, "auto, cpu, cuda, cuda:N or cuda:all")
        for place, folders in (("data_dir", self.data_dir), ("tasks_dir", self.tasks_dir)):
            given = folders if isinstance(folders, list) else [folders]
            are_folders = bool(given) and all(isinstance(f, str) and f for f in given)
            valid = folders is None or are_folders
            require(valid, place, folders, "a folder, or a list of folders")
        named = bool(self.tasks) and all(self.tasks)
        require(self.measure != "zeroshot" or named, "tasks", self.tasks, "at least one task")
        require(bool(self.dataset), "dataset", "[]", "at least one dataset")
        name = str(self.method.get("name") or "")
        legible = re.fullmatch(r"[\w.+-]+", name) is not None  # folders are called by it
        require(legible, "method.name", name, "letters, digits, _ . + -")
        self.method["title"] = shown(str(self.method.get("title") or name))
        for place, folder in (("results_dir", self.results_dir), ("cache_dir", self.cache_dir)):
            require(bool(folder.strip()), place, folder, "a folder")

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
