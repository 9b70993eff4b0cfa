"""A cell's calibration: read from `cache_dir`, or made by one pass of the dense model and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from nsvd_exp.data.sources import DatasetSource
from nsvd_exp.data.text import special_tokens_in, special_tokens_note, text_of
from nsvd_exp.data.tokens import Tokens, calibration_samples, random_samples
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.calibration_plan import PlannedCalibration, calibration_title
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.models.layers import Layer, shape_of
from nsvd_exp.models.loading import check_vocabulary, load_tokenizer, vocabulary_of
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
            return self._in(StatisticsFolder(self.streamed.scratch / key, key))
        title = calibration_title(self.planned.config)
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
        samples = self.samples()
        return Calibration(*self._pass(samples), self._record(samples))

    def _in(self, folder: StatisticsFolder) -> Calibration:
        """The statistics of a streamed model, written block by block: they never sum up."""
        samples = self.samples()
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

    def samples(self) -> Tokens:
        """The calibration samples, drawn anew."""
        calibration = self.planned.config
        log.info("calibrating on %s", calibration_title(calibration))
        if self.planned.source is None:
            samples = random_samples(
                self.tokenizer,
                calibration.samples,
                calibration.sample_length,
                calibration.seed,
                below=vocabulary_of(self.model),
            )
        else:
            samples = self._samples_of(self.planned.source)
        self._warn_of_few(samples)
        check_vocabulary(self.model, samples.ids)
        return samples

    def _samples_of(self, source: DatasetSource) -> Tokens:
        """Samples of a dataset's text."""
        calibration = self.planned.config
        tokenizer, other = self.tokenizer, self.planned.tokenizer
        if other is not None:
            tokenizer = load_tokenizer(other.source, other.config)
        dataset, length = calibration.dataset, calibration.sample_length
        text = text_of(dataset, calibration.split, source)
        special = special_tokens_in(tokenizer, text)
        if special and not dataset.split_special_tokens:
            log.warning(special_tokens_note(dataset.name, "calibration.dataset", special))
        return calibration_samples(
            tokenizer,
            text,
            count=calibration.samples,
            length=length,
            seed=calibration.seed,
            sampler=calibration.sampler,
            split_special_tokens=dataset.split_special_tokens,
            name=f"the calibration text ({dataset.name})",
        )

    def _warn_of_few(self, samples: Tokens) -> None:
        """Say that there are fewer samples than asked for, or fewer tokens than channels."""
        calibration = self.planned.config
        if len(samples.ids) < calibration.samples:
            log.warning(
                "calibration: %d of %d samples had %d tokens; the others are left out",
                len(samples.ids),
                calibration.samples,
                calibration.sample_length,
            )
        widest = max((shape_of(layer)[1] for layer in self.layers.values()), default=0)
        if samples.ids.numel() < widest:
            log.warning(
                "calibration: %d tokens are fewer than the %d channels of the widest layer input, "
                "most directions of which are not seen: take more calibration.samples",
                samples.ids.numel(),
                widest,
            )

    def _pass(
        self, samples: Tokens, add: Callable[[str, Statistics], object] | None = None
    ) -> tuple[dict[str, Statistics], dict[str, str]]:
        batch, progress = self.planned.config.batch, self.observer.progress("calibrate")
        model = self.streamed or self.model
        return calibrate(model, self.layers, samples.ids, batch, progress, add)

    def _record(self, samples: Tokens) -> dict[str, Any]:
        return {
            "title": calibration_title(self.planned.config),
            "samples": len(samples.ids),
            "samples_asked": self.planned.config.samples,
            "tokens": samples.ids.numel(),
            "token_sha256": samples.sha256,
            "bos": samples.bos,
        }


def mixed_record(planned: PlannedCalibration, parts: list[Calibration]) -> dict[str, Any]:
    """What a result says of the tokens of a mix: the first source, and the others by name."""
    others = zip(planned.parts[1:], parts[1:], strict=True)
    mix = {
        part.config.dataset.name: {**made.record, "weight": weight}
        for (weight, part), made in others
    }
    return {**parts[0].record, "title": calibration_title(planned.config), "mix": mix}
