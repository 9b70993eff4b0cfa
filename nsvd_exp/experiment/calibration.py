"""A cell's calibration: read from `cache_dir`, or made by one pass of the dense model and kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import nn

from nsvd_exp.data.text import text_of
from nsvd_exp.data.tokens import Tokens, calibration_samples
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.resolve import PlannedCalibration, Resolved, calibration_title
from nsvd_exp.methods.base import Calibration
from nsvd_exp.models.loading import check_vocabulary, load_tokenizer
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.pipeline.calibrate import calibrate, calibrate_streamed
from nsvd_exp.progress import Observer, Progress
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
    layers: dict[str, nn.Linear]
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
        """All statistics at once."""
        samples = self._samples()
        inputs, reads = calibrate(self.model, self.layers, samples.ids, *self._options())
        return Calibration(inputs, reads, self._record(samples))

    def _in(self, folder: StatisticsFolder) -> Calibration:
        """The statistics of a streamed model, written block by block: they never sum up.

        Raises:
            NsvdError: they cannot be written.
        """
        assert self.streamed is not None
        samples = self._samples()
        try:
            with folder.being_written():
                reads = calibrate_streamed(
                    self.streamed, self.layers, samples.ids, folder.add, *self._options()
                )
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
        samples = calibration_samples(
            tokenizer,
            text_of(dataset, calibration.split, self.planned.source),
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
        check_vocabulary(self.model, samples.ids)
        return samples

    def _options(self) -> tuple[int | str, Progress | None]:
        return self.plan.config.calibration.batch, self.observer.progress("calibrate")

    def _record(self, samples: Tokens) -> dict[str, Any]:
        """What a result says of the tokens."""
        return {
            "title": calibration_title(self.plan.config.calibration),
            "samples": len(samples.ids),
            "samples_asked": self.plan.config.calibration.samples,
            "tokens": samples.ids.numel(),
            "token_sha256": samples.sha256,
            "bos": samples.bos,
        }
