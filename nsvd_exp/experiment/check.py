"""What can be known of a job before any job starts: its files, its model's layers, its ranks.

A job that is done already is checked without torch. For the others the model is made on the meta
device, once for all jobs that share it, and no weight is read.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nsvd_exp.config.schema import Config
from nsvd_exp.config.sections import DatasetConfig, ModelConfig
from nsvd_exp.data.sources import DatasetSource
from nsvd_exp.data.tasks import require_harness
from nsvd_exp.errors import LayersError, NsvdError
from nsvd_exp.experiment.plan import CellPlan, SimilarityPlan, plan_cell, plan_similarity
from nsvd_exp.experiment.resolve import PlannedMeasurement, Resolved
from nsvd_exp.experiment.zeroshot import ZeroshotPlan, plan_zeroshot
from nsvd_exp.models.sources import ModelSource
from nsvd_exp.storage.keys import digest

if TYPE_CHECKING:
    from nsvd_exp.models.layers import Survey

UNSEEN = "the model reads its weight without calling it, so that no calibration sees its input"


@dataclass(frozen=True)
class Outline:
    """What is known of a model without its weights.

    Attributes:
        found: what its blocks hold.
        unseen: layers whose inputs no calibration would see.
        note: on what stays dense; None if nothing does.
    """

    found: Survey
    unseen: list[str]
    note: str | None


class Checks:
    """Checks jobs, and keeps what it has learnt of a model for the jobs that share it.

    Args:
        say: told once of each model what stays dense in it.
        is_elsewhere: whether the jobs run on other machines, which may have other devices.
    """

    def __init__(self, say: Callable[[str], None], is_elsewhere: bool = False) -> None:
        self._say, self._is_elsewhere = say, is_elsewhere
        self._outlines: dict[str, Outline] = {}
        self._tokenizers: set[str] = set()
        self._texts: set[str] = set()

    def check(self, config: Config) -> None:
        """Raise what would end this job before it has a number.

        Raises:
            NsvdError: a file that is not there or does not belong, a length beyond the model, a
                folder that cannot be written, layers that cannot be compressed.
        """
        if self._is_elsewhere:
            config = dataclasses.replace(config, device="cpu")
        if config.measure == "zeroshot":
            self._check_zeroshot(plan_zeroshot(config))
            return
        plan = plan_similarity(config) if config.measure == "similarity" else plan_cell(config)
        missing = _missing(plan)
        if not missing:
            return
        for measurement in missing:
            self._check_text(measurement.dataset, "test", measurement.source)
        self._check_model(plan)

    def _check_zeroshot(self, plan: ZeroshotPlan) -> None:
        if plan.is_done(plan.file.read()):
            return
        require_harness()
        if plan.config.memory == "streamed":
            raise NsvdError(
                "measure=zeroshot needs the whole model in memory: memory=resident, in place of "
                "memory=streamed"
            )
        self._check_model(plan)

    def _check_model(self, plan: Resolved) -> None:
        """Check what is needed to make the model of a plan."""
        config = plan.config
        _check_cache_dir(plan)
        if plan.calibration is not None:
            for part in plan.calibration.sources:
                if part.source is not None:
                    self._check_text(part.config.dataset, part.config.split, part.source)
        self._check_tokenizer(plan.model, config.model)
        if plan.calibration is not None and plan.calibration.tokenizer is not None:
            other = plan.calibration.tokenizer
            self._check_tokenizer(other.source, other.config)
        self._check_layers(plan)

    def _check_text(self, dataset: DatasetConfig, split: str, source: DatasetSource) -> None:
        key = digest(source.identity)
        if key not in self._texts:
            from nsvd_exp.data.text import text_of

            text_of(dataset, split, source)
            self._texts.add(key)

    def _check_tokenizer(self, source: ModelSource, config: ModelConfig) -> None:
        key = digest(source.identity)
        if key not in self._tokenizers:
            from nsvd_exp.models.loading import load_tokenizer

            load_tokenizer(source, config)
            self._tokenizers.add(key)

    def _check_layers(self, plan: Resolved) -> None:
        """Check what is to be compressed, and whether there is a rank for each layer."""
        from nsvd_exp.models.loading import check_device

        check_device(plan.device)
        method = plan.choices.method
        if method is None and not isinstance(plan, SimilarityPlan):
            return
        from nsvd_exp.pipeline.compress import check_ranks

        outline, config = self._outline(plan), plan.config
        reasons = dict(outline.found.refused)
        if not isinstance(plan, SimilarityPlan):
            try:
                choices = plan.choices
                layers = outline.found.layers
                check_ranks(layers, config.ratio, choices.allocation, choices.storage)
            except LayersError as error:
                reasons |= error.reasons
        if plan.calibration is not None:
            reasons |= dict.fromkeys(outline.unseen, UNSEEN)
        if reasons:
            raise LayersError(reasons, outline.found.layers, config.model.skip)

    def _outline(self, plan: Resolved) -> Outline:
        config = plan.config.model
        key = digest([plan.model.identity, sorted(config.skip), config.strict])
        if key not in self._outlines:
            from nsvd_exp.models.layers import dense_note, not_called, survey
            from nsvd_exp.models.loading import load_empty

            model = load_empty(plan.model, config)
            found = survey(model, config.skip, config.strict)
            note = dense_note(model, found)
            self._outlines[key] = Outline(found, not_called(model, found.layers), note)
            if note is not None:
                self._say(f"{config.title}: {note}")
        return self._outlines[key]


def _missing(plan: CellPlan | SimilarityPlan) -> list[PlannedMeasurement]:
    """What is still to be measured."""
    if isinstance(plan, CellPlan):
        result = plan.file.read()
        return [] if plan.is_done(result) else plan.missing(result)
    pairs = zip(plan.measurements, plan.files, strict=True)
    return [measurement for measurement, file in pairs if not plan.is_done(file.read())]


def _check_cache_dir(plan: Resolved) -> None:
    """Make sure of the folder, if this job is to write to it."""
    config = plan.config
    keeps = config.cache.keep != "none" and plan.calibration is not None
    if keeps or config.cache.keep == "bases" or config.memory == "streamed":
        make_folder("cache_dir", config.cache_dir, plan.cache_dir)


def make_folder(setting: str, given: str, path: Path) -> None:
    """Make a folder that a setting names.

    Raises:
        NsvdError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        reason = error.strerror or error
        raise NsvdError(
            f"{setting}={given}: {path} cannot be written to ({reason}); give another folder"
        ) from None
