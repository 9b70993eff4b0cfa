"""A cell's gradients: read from `cache_dir`, or made by one pass backwards and kept there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.calibration import CalibrationPass
from nsvd_exp.experiment.calibration_plan import PlannedGradients
from nsvd_exp.methods.statistics import COVARIANCE, WEIGHTED_GRAM, OutputGradients
from nsvd_exp.models.layers import shape_of
from nsvd_exp.pipeline.gradients import Add, output_gradients
from nsvd_exp.storage.cache import CANNOT_WRITE, STATISTICS, Cache
from nsvd_exp.storage.files import DamagedError, hold
from nsvd_exp.storage.gradients import GradientsFolder

log = logging.getLogger(__name__)

Gradients = Mapping[str, OutputGradients]
"""By layer."""


@dataclass(frozen=True)
class GradientsPass:
    """A pass backwards over the first calibration samples, which has not begun.

    Attributes:
        calibration: the pass that draws the samples.
    """

    planned: PlannedGradients
    calibration: CalibrationPass

    def kept(self, cache: Cache, key: str) -> Gradients:
        """The gradients that `cache` keeps under `key`; made and kept if they are not there.

        Kept without a tensor that is needed, they are made again with it.

        Raises:
            NsvdError: the pass fails, or a streamed model's gradients cannot be written.
        """
        streamed = self.calibration.streamed
        if not cache.keeps(STATISTICS):
            if streamed is None:
                return self._in_memory()
            return self._in(GradientsFolder(streamed.scratch / key, key))
        about = self._about()
        cache.use(STATISTICS, key, about)
        path = cache.folder / STATISTICS / key
        with hold(path.with_suffix(".lock"), f"the gradients of {about['model']}", log.warning):
            folder = GradientsFolder(path, key)
            try:
                if folder.open(self._shapes()):
                    return folder
            except DamagedError as error:
                cache.say(f"gradients are damaged, or of something else ({error}): made again")
            if streamed is not None:
                return self._in(folder)
            made = self._in_memory()
            size = sum(g.nbytes for g in made.values())
            cache.write(STATISTICS, size, lambda: self._save(made, folder))
        return made

    def _about(self) -> dict[str, str]:
        plan, about = self.calibration.plan, self.planned.about
        config = self.planned.samples.config
        title = f"gradients of {about['samples']} x {config.sample_length} tokens"
        return {"model": plan.config.model.title, "dtype": plan.dtype, "calibration": title}

    def _shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Those of the tensors that are needed, by layer and name."""
        found, wanted = {}, {"mean_square", *self.planned.tensors}
        for layer, linear in self.calibration.layers.items():
            m, n = shape_of(linear)
            shapes = {"mean_square": (m,), COVARIANCE: (m, m), WEIGHTED_GRAM: (n, n)}
            found[layer] = {name: shape for name, shape in shapes.items() if name in wanted}
        return found

    def _in_memory(self) -> dict[str, OutputGradients]:
        found: dict[str, OutputGradients] = {}
        self._pass(found.__setitem__)
        return found

    def _in(self, folder: GradientsFolder) -> Gradients:
        """Those of a streamed model, written block by block: they never sum up."""
        try:
            with folder.being_written():
                self._pass(folder.add)
        except CANNOT_WRITE as error:
            raise NsvdError(
                f"gradients cannot be kept in {folder.path.parent} ({error}), and with "
                "memory=streamed there is no other place for them: give another cache_dir"
            ) from None
        return folder

    def _save(self, made: Gradients, folder: GradientsFolder) -> None:
        with folder.being_written():
            for name, gradients in made.items():
                folder.add(name, gradients)

    def _pass(self, add: Add) -> None:
        work, about = self.calibration, self.planned.about
        samples = work.samples().ids[: about["samples"]]
        log.info("gradients on %d x %d of these tokens", *samples.shape)
        config = self.planned.samples.config
        output_gradients(
            work.streamed or work.model,
            work.layers,
            samples,
            add,
            labels=about["labels"],
            seed=config.seed,
            tensors=self.planned.tensors,
            batch=config.batch,
            progress=work.observer.progress("gradients"),
        )
