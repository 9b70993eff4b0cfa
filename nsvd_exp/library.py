"""The library: calibrate, compress and evaluate a model that is in memory.

The command line does its cells with the same functions of `nsvd_exp.pipeline`. Nothing here prints;
progress bars appear on stderr where that is a terminal.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nsvd_exp.config.files import dataset_named
from nsvd_exp.data.sources import locate_dataset
from nsvd_exp.data.text import text_of
from nsvd_exp.data.tokens import Tokens, calibration_samples
from nsvd_exp.data.tokens import windows as windows_of
from nsvd_exp.errors import NsvdError
from nsvd_exp.methods import Allocation, Method, Uniform
from nsvd_exp.methods.statistics import TENSORS, Calibration, OutputGradients
from nsvd_exp.methods.truncation import has_gram_metric
from nsvd_exp.models.layers import find_linears, parameter_count, replace
from nsvd_exp.models.storage import Factors, Storage
from nsvd_exp.pipeline import calibrate as calibration
from nsvd_exp.pipeline import evaluate
from nsvd_exp.pipeline.compress import (
    BasisProvider,
    Compressor,
    achieved_ratio,
    check_ranks,
    ranks_of,
)
from nsvd_exp.pipeline.gradients import output_gradients
from nsvd_exp.progress import Progress, ProgressBars

UNIFORM, FACTORS = Uniform(), Factors()

Source = str | Sequence[str]
"""The name of a dataset (a file of `conf/dataset/`), or your own texts: a list of strings."""


def samples(
    source: Source,
    tokenizer: Any,
    count: int = 256,
    length: int = 2048,
    seed: int = 3,
    sampler: str = "svdllm",
    split: str = "train",
    data_dir: str | Path | None = None,
) -> Tokens:
    """Calibration samples: token ids drawn at random from a text.

    Args:
        source: a dataset's name, or a list of your own texts.
        tokenizer: of Hugging Face.
        count: samples.
        length: tokens of each sample.
        sampler: `svdllm`, the sampler of the SVD-LLM code, which draws offsets in characters; or
            `tokens`, which draws offsets in tokens.
        split: of the dataset.
        data_dir: folder that holds `<dataset>/<split>.jsonl`; None, or a dataset that is not in it:
            the hub.

    Raises:
        NsvdError: there is no such dataset, or too little text.
    """
    whole, split_special_tokens, name = _text(source, split, data_dir)
    return calibration_samples(
        tokenizer, whole, count, length, seed, sampler, split_special_tokens, name
    )


def windows(
    source: Source,
    tokenizer: Any,
    length: int = 2048,
    max_windows: int | None = None,
    split: str = "test",
    data_dir: str | Path | None = None,
    bos: str = "first",
) -> Tokens:
    """A text cut into windows of tokens, to evaluate on; the tail is dropped.

    Args:
        source, split, data_dir: as in `samples`.
        length: tokens of each window; no more than the model takes.
        max_windows: the first so many; None: all.
        bos: `first`, for the BOS that the tokenizer puts in front of the text, if it does; or
            `window`, for one at the start of each window.

    Raises:
        NsvdError: there is no such dataset, less text than one window, or no BOS.
    """
    whole, split_special_tokens, name = _text(source, split, data_dir)
    return windows_of(tokenizer, whole, length, max_windows, split_special_tokens, name, bos)


def _text(source: Source, split: str, data_dir: str | Path | None) -> tuple[str, bool, str]:
    """The whole text, whether special tokens in it are ordinary characters, and its name."""
    if not isinstance(source, str):
        return "\n\n".join(source), False, "the text"
    dataset = dataset_named(source)
    place = locate_dataset(dataset, split, None if data_dir is None else str(data_dir))
    return text_of(dataset, split, place), dataset.split_special_tokens, f"dataset {source}"


def calibrate(
    model: nn.Module,
    samples: Tokens,
    skip: Sequence[str] = (),
    batch: int | str = "auto",
    gradient_samples: int = 0,
    labels: str = "model",
    seed: int = 3,
    gradients_for: Sequence[Method] | None = None,
) -> Calibration:
    """The statistics of every layer input of a dense model, over calibration samples.

    Args:
        model: a causal language model of transformers, in eval mode.
        samples: from `samples`.
        skip: patterns (fnmatch) of Linear names that are to stay dense.
        batch: samples in one forward pass; `auto` halves it when memory runs out.
        gradient_samples: the first so many samples are also taken backwards, for methods and
            allocations that read gradients (`KFAC`, `WeightedKFAC`, `FWSVD`, `Fisher`).
        labels: next tokens of their loss: `model`, drawn from its predictions, or `text`.
        seed: of what is drawn.
        gradients_for: the methods that are to read the gradients, so that no tensor is made that
            none of them reads; `[]` where an allocation alone does. None: any method.

    Raises:
        NsvdError: the model has no layers to compress, or a layer's input or gradient is not
            finite.
    """
    layers = find_linears(model, list(skip))
    with _bar("calibrate") as progress:
        inputs, reads = calibration.calibrate(model, layers, samples.ids, batch, progress)
    record = {
        "samples": len(samples.ids),
        "tokens": samples.ids.numel(),
        "token_sha256": samples.sha256,
        "bos": samples.bos,
    }
    gradients: dict[str, OutputGradients] = {}
    if gradient_samples:
        ids, tensors = samples.ids[:gradient_samples], TENSORS
        if gradients_for is not None:
            tensors = frozenset().union(*(method.reads_of_gradients for method in gradients_for))
        with _bar("gradients") as progress:
            output_gradients(
                model, layers, ids, gradients.__setitem__, labels, seed, tensors, batch, progress
            )
    return Calibration(inputs, reads, record, gradients)


@dataclass(frozen=True)
class Compression:
    """What `compress` has done to a model.

    Attributes:
        model: the model, whose layers are low-rank now.
        layers: one row for each compressed layer: `name`, `m`, `n`, ranks `k` and `k1`, and its
            relative losses (`docs/stored-files.md` describes them).
        achieved_ratio: the fraction of parameters that is removed: of the compressed `layers`, and
            of the whole `model`.
        dense: the layers that were replaced, by name.
    """

    model: nn.Module
    layers: list[dict[str, Any]]
    achieved_ratio: dict[str, float]
    dense: Mapping[str, nn.Module]

    def restore(self) -> None:
        """Put the dense layers back into the model."""
        replace(self.model, self.dense)


def compress(
    model: nn.Module,
    method: Method,
    ratio: float,
    calibration: Calibration | None = None,
    skip: Sequence[str] = (),
    allocation: Allocation = UNIFORM,
    storage: Storage = FACTORS,
    solver: str = "basis",
) -> Compression:
    """Compress a model in place: its Linears become low-rank layers in their own dtype.

    Args:
        method: one of `nsvd_exp.methods`, or your own.
        ratio: fraction of the compressed weights' parameters to remove, 0 < ratio < 1.
        calibration: from `calibrate` with the same `skip`; methods that read no activations need
            none.
        skip: patterns (fnmatch) of Linear names that stay dense.
        allocation: how the ratio becomes the rank of each layer.
        storage: the form in which a product is stored.
        solver: `basis` or `paper`.

    Raises:
        NsvdError: the ratio is out of range or leaves a layer no rank, the method needs a
            calibration, or a layer cannot be factorised; the model is as it was then.
    """
    if not 0 < ratio < 1:
        raise NsvdError(f"ratio={ratio}: expected 0 < ratio < 1, the fraction REMOVED")
    layers = find_linears(model, list(skip))
    dense_parameters = parameter_count(model)
    dtype = next(iter(layers.values())).weight.dtype
    compressor, spectra = Compressor(method, {}, calibration, storage, dtype, solver), None
    if allocation.reads_spectra:
        check_ranks(layers, ratio, allocation, storage)
        if solver != "paper":
            compressor = dataclasses.replace(compressor, bases=_in_memory(method))
        with _bar("allocate") as progress:
            spectra = compressor.spectra(layers, progress)
    ranks = ranks_of(layers, ratio, allocation, storage, spectra)
    compressor = dataclasses.replace(compressor, ranks=ranks)
    with _bar("decompose") as progress:
        compressed, table = compressor.compress(layers, progress)
    replace(model, compressed)
    return Compression(model, table, achieved_ratio(table, storage, dense_parameters), layers)


def _in_memory(method: Method) -> BasisProvider:
    """Bases for the second time that they are asked for, as far as there is memory for them."""
    from nsvd_exp.experiment.bases import BasisMemory, SharedBases
    from nsvd_exp.experiment.bases_plan import BasesOf

    return SharedBases(BasesOf("", None, "", has_gram_metric(method), {}), BasisMemory())


def perplexity(model: nn.Module, windows: Tokens, batch: int | str = "auto") -> float:
    """exp of the mean negative log-likelihood of a token, over windows that are scored one by one.

    Args:
        model: a causal language model of transformers, in eval mode.
        windows: from `windows`. The first token of each is given, and not scored.
        batch: windows in one forward pass; `auto` halves it when memory runs out.

    Raises:
        NsvdError: a loss is NaN or Inf.
    """
    with _bar("evaluate") as progress:
        nll = evaluate.window_nll(model, windows.ids, batch, progress)
    count, length = windows.ids.shape
    return evaluate.perplexity(math.fsum(nll), count * (length - 1))


@contextmanager
def _bar(stage: str) -> Iterator[Progress]:
    with ProgressBars.showing("nsvd_exp") as bars:
        yield bars.progress(stage)
