"""A cell's model: the dense one, calibrated, with its layers replaced by low-rank ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.loaded import LoadedModel
from nsvd_exp.experiment.record import Stopwatch
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.experiment.session import Session
from nsvd_exp.models.batches import memory_to
from nsvd_exp.models.layers import Layer, find_linears, parameter_count, replaced
from nsvd_exp.models.loading import check_device, to_dtype
from nsvd_exp.pipeline.compress import Compressor, achieved_ratio, check_ranks, ranks_of, spectra_of
from nsvd_exp.progress import Observer, Progress

Table = list[dict[str, Any]]
"""One row for each compressed layer, as in a stored result."""


@dataclass(frozen=True)
class CompressedModel:
    """A cell's model, all of it in memory, as it is evaluated; or the dense one, of `dense`.

    Attributes:
        model: in eval mode, on the device of the plan, in its evaluation dtype.
        tokenizer: that of the dense model.
        layers: one row for each compressed layer; none for `dense`.
        achieved_ratio: the fraction of parameters removed, of the compressed `layers` and of the
            whole `model`; None for `dense`.
        calibration: the record of what the method was calibrated on; None where it was not.
    """

    model: nn.Module
    tokenizer: Any
    layers: Table
    achieved_ratio: dict[str, float] | None
    calibration: Mapping[str, Any] | None


@contextmanager
def compressed(
    plan: Resolved,
    session: Session,
    observer: Observer | None = None,
    stopwatch: Stopwatch | None = None,
) -> Iterator[CompressedModel]:
    """The model of a cell, in memory inside; the session's dense model is back afterwards.

    Raises:
        NsvdError: the device cannot be used, the model cannot be loaded, calibrated or compressed,
            or is streamed, one block at a time.
        OutOfMemoryError: it does not fit.
    """
    check_device(plan.device)
    title = plan.config.model.title
    if session.is_streamed(plan):
        raise NsvdError(
            f"{title} is streamed, one block at a time, but has to be in memory as a whole here: "
            "give memory=resident, and a device with room for it"
        )
    stopwatch = stopwatch or Stopwatch(plan.device)
    with ExitStack() as stack:
        stack.enter_context(memory_to(f"work with {title} as a whole", plan.device))
        work = prepared(plan, session, observer or Observer(), stopwatch)
        yield stack.enter_context(work.resident())


def prepared(
    plan: Resolved, session: Session, observer: Observer, stopwatch: Stopwatch
) -> Compression:
    """The dense model of a cell, loaded and, where its method asks for that, calibrated.

    Raises:
        NsvdError: it cannot be loaded or calibrated, or a layer cannot be compressed.
    """
    with stopwatch("load"):
        loaded = session.load(plan)
    config, choices, method = plan.config, plan.choices, plan.choices.method
    work = Compression(plan, session, observer, stopwatch, loaded)
    if method is None:
        return work
    layers = find_linears(loaded.model, config.model.skip, config.model.strict)
    check_ranks(layers, config.ratio, choices.allocation, choices.storage)
    calibration = None
    if plan.calibration is not None:
        with stopwatch("calibrate"):
            calibration = session.calibration(plan, plan.calibration, layers, observer)
    compressor = Compressor(
        method,
        {},
        calibration,
        choices.storage,
        getattr(torch, plan.evaluation_dtype),
        config.solver,
        None if config.solver == "paper" else session.bases(plan, method),
    )
    spectra = None
    if choices.allocation.reads_spectra:
        progress = observer.progress("allocate")
        with stopwatch("decompose"), memory_to("decompose the weights", plan.device):
            spectra = spectra_of(compressor, layers, loaded.streamed, progress)
    ranks = ranks_of(layers, config.ratio, choices.allocation, choices.storage, spectra)
    return replace(work, layers=layers, compressor=replace(compressor, ranks=ranks))


@dataclass(frozen=True)
class Compression:
    """The dense model of a cell, whose layers can be replaced: all at once, or block by block.

    Attributes:
        layers: what is to be compressed, by name; nothing for `dense`.
        compressor: makes low-rank layers of them; None for `dense`.
    """

    plan: Resolved
    session: Session
    observer: Observer
    stopwatch: Stopwatch
    loaded: LoadedModel
    layers: Mapping[str, Layer] = field(default_factory=dict)
    compressor: Compressor | None = None

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """The record of what the method was calibrated on; None where it was not."""
        calibration = None if self.compressor is None else self.compressor.calibration
        return None if calibration is None else calibration.record

    def low_rank(
        self, layers: Mapping[str, Layer], what: str, progress: Progress | None = None
    ) -> tuple[dict[str, nn.Module], Table]:
        """Low-rank layers for some of `layers`, and their rows; of `dense` none.

        Args:
            what: is decomposed, for messages.
        """
        if self.compressor is None:
            return {}, []
        with self.stopwatch("decompose"), memory_to(f"decompose {what}", self.plan.device):
            return self.compressor.compress(layers, progress)

    def achieved_ratio(self, table: Table) -> dict[str, float] | None:
        """The fractions of parameters removed, by the rows of all layers; None for `dense`.

        To be asked while the model's layers are dense.
        """
        if self.compressor is None:
            return None
        return achieved_ratio(table, self.plan.choices.storage, parameter_count(self.loaded.model))

    @contextmanager
    def resident(self) -> Iterator[CompressedModel]:
        """The model, which is in memory as a whole, as it is evaluated; dense again afterwards."""
        model = self.loaded.model
        progress = self.observer.progress("decompose") if self.compressor else None
        replacements, table = self.low_rank(self.layers, "the weights", progress)
        achieved = self.achieved_ratio(table)
        with ExitStack() as stack:
            stack.enter_context(replaced(model, replacements))
            if self.plan.evaluation_dtype != self.plan.dtype:
                self._cast(stack)
            yield CompressedModel(model, self.loaded.tokenizer, table, achieved, self.calibration)

    def _cast(self, stack: ExitStack) -> None:
        """Cast the model in place for its evaluation; undone where that loses nothing."""
        own = getattr(torch, self.plan.dtype)
        evaluated = getattr(torch, self.plan.evaluation_dtype)
        if torch.finfo(evaluated).bits > torch.finfo(own).bits:
            stack.callback(to_dtype, self.loaded.model, own)
        else:
            stack.callback(self.session.release_model)
        to_dtype(self.loaded.model, evaluated)
