"""A cell's calibration: read from `cache_dir`, or made by one pass of the dense model and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from nsvd_exp.data.text import special_tokens_in, special_tokens_note, text_of
from nsvd_exp.data.tokens import Tokens, calibration_samples
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.resolve import PlannedCalibration, Resolved, calibration_title
from nsvd_exp.methods.base import Calibration, Statistics
from nsvd_exp.models.layers import Layer, shape_of
from nsvd_exp.models.loading import check_vocabulary, load_tokenizer
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.progress import Observer
from nsvd_exp.storage.cache import CANNOT_WRITE, STATISTICS, Cache
from nsvd_exp.storage.files import DamagedError, hold
from nsvd_exp.storage.tensors import StatisticsFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrationPass:
    """A pass of the dense model over the calibration samples, which has not begun.

    Attributes:
        streamed: what brings the model's weights, where they are not in memory.
        layers: the Linears whose inputs are looked at.
    """

    plan: Resolved
    planned: PlannedCalibration
    model: nn.Module
    tokenizer: Any
    streamed: StreamedModel | None
    layers: dict[str, Layer]
    observer: Observer

    def kept(self, cache: Cache, key: str) -> Calibration:
        """The calibration that `cache` keeps under `key`; made and kept if it is not there.

        Raises:
            NsvdError: the pass fails, or a streamed model's statistics cannot be written.
        """
        if not cache.keeps(STATISTICS):
            if self.streamed is None:
                return self._in_memory()
            return self._in(StatisticsFolder(self.streamed.scratch, key))
        title = calibration_title(self.plan.config.calibration)
        model = self.plan.config.model.title
        cache.use(STATISTICS, key, {"model": model, "dtype": self.plan.dtype, "calibration": title})
        path = cache.folder / STATISTICS / key
        with hold(path.with_suffix(".lock"), f"the calibration of {model}", log.warning):
            folder = StatisticsFolder(path, key)
            if folder.is_complete:
                try:
                    widths = {name: layer.in_features for name, layer in self.layers.items()}
                    return folder.load(widths=widths)
                except DamagedError as error:
                    cache.say(
                        "calibration statistics are damaged, of another version or of something "
                        f"else ({error}): made again"
                    )
            if self.streamed is not None:
                return self._in(folder)
            made = self._in_memory()
            kept = cache.write(STATISTICS, made.nbytes, lambda: folder.save(made))
        # Read back: the memory of the sums themselves is free for the evaluation then.
        return folder.load(check=False) if kept else made

    def _in_memory(self) -> Calibration:
        samples = self._samples()
        return Calibration(*self._pass(samples), self._record(samples))

    def _in(self, folder: StatisticsFolder) -> Calibration:
        """The statistics of a streamed model, written block by block: they never sum up."""
        samples = self._samples()
        try:
            with folder.being_written():
                _, reads = self._pass(samples, folder.add)
                folder.finish(reads, self._record(samples))
        except CANNOT_WRITE as error:
            raise NsvdError(
                f"calibration statistics cannot be kept in {folder.path.parent} ({error}), and "
                "with memory=streamed there is no other place for them: give another cache_dir"
            ) from None
        return folder.load(check=False)

    def _samples(self) -> Tokens:
        calibration = self.plan.config.calibration
        log.info("calibrating on %s", calibration_title(calibration))
        tokenizer, other = self.tokenizer, self.planned.tokenizer
        if other is not None:
            tokenizer = load_tokenizer(other.source, other.config)
        dataset, length = calibration.dataset, calibration.sample_length
        text = text_of(dataset, calibration.split, self.planned.source)
        special = special_tokens_in(tokenizer, text)
        if special and not dataset.split_special_tokens:
            log.warning(special_tokens_note(dataset.name, "calibration.dataset", special))
        samples = calibration_samples(
            tokenizer,
            text,
            count=calibration.samples,
            length=length,
            seed=calibration.seed,
            sampler=calibration.sampler,
            split_special_tokens=dataset.split_special_tokens,
            name=f"the calibration text ({dataset.name})",
        )
        if len(samples.ids) < calibration.samples:
            log.warning(
                "calibration: %d of %d samples had %d tokens; the others are left out",
                len(samples.ids),
                calibration.samples,
                length,
            )
        widest = max((shape_of(layer)[1] for layer in self.layers.values()), default=0)
        if samples.ids.numel() < widest:
            log.warning(
                "calibration: %d tokens are fewer than the %d channels of the widest layer input, "
                "most directions of which are not seen: take more calibration.samples",
                samples.ids.numel(),
                widest,
            )
        check_vocabulary(self.model, samples.ids)
        return samples

    def _pass(
        self, samples: Tokens, add: Callable[[str, Statistics], object] | None = None
    ) -> tuple[dict[str, Statistics], dict[str, str]]:
        batch, progress = self.plan.config.calibration.batch, self.observer.progress("calibrate")
        model = self.streamed or self.model
        return calibrate(model, self.layers, samples.ids, batch, progress, add)

    def _record(self, samples: Tokens) -> dict[str, Any]:
        return {
            "title": calibration_title(self.plan.config.calibration),
            "samples": len(samples.ids),
            "samples_asked": self.plan.config.calibration.samples,
            "tokens": samples.ids.numel(),
            "token_sha256": samples.sha256,
            "bos": samples.bos,
        }
