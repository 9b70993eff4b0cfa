"""LLaMA-7B's shape with random weights on one GPU: how near each stage is to the card's limit.

    python benchmarks/gpu.py                   # at most 8 minutes
    python benchmarks/gpu.py --deadline 200    # says what did not fit
    python benchmarks/gpu.py --quick           # a small model, on the CPU: that it runs

The limit is a plain matrix product, measured in the same run: in the model's own precision for
calibration and evaluation, in float64 for the decomposition. Counted is the work that the stage
cannot do without, a multiplication and an addition being two operations (`Work`).
"""

from __future__ import annotations

import nsvd_exp  # isort: skip # noqa: F401 - before torch: it says how OpenMP's threads wait

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from made import LLAMA_7B, Size, on_device
from measure import RESULTS, TARGET_HEADINGS, Figure, Machine, Sheet, keep, seconds_of, show
from table1 import FACTORS, METHODS, RATIOS, rank, ranks_for, shared_bases
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.bases import BasisMemory
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.models.layers import decoder_blocks, find_linears, replaced
from nsvd_exp.models.lowrank import LowRankLinear
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.compress import Compressor
from nsvd_exp.pipeline.evaluate import window_nll

# Of the seconds left, what calibration and each evaluation may take; decomposition has the rest.
CALIBRATION_TIME, EVALUATION_TIME = 0.4, 0.2


@dataclass(frozen=True)
class Setting:
    """What is measured, and on what.

    Attributes:
        samples, windows: rows of `length` tokens, for calibration and evaluation.
        product: rows and columns of the plain matrix products.
    """

    size: Size
    vocabulary: int
    samples: int
    windows: int
    length: int
    product: int
    dtype: torch.dtype
    device: str


LLAMA = Setting(LLAMA_7B, 32000, 256, 64, 2048, 8192, torch.bfloat16, "cuda")
QUICK = Setting(Size(64, 2), 512, 8, 8, 64, 512, torch.float32, "cpu")


@dataclass(frozen=True)
class Work:
    """Operations that a stage cannot do without.

    Attributes:
        shapes: (m, n) of every weight of every layer.
    """

    setting: Setting
    shapes: list[tuple[int, int]]

    def blocks(self, tokens: int, weights: int) -> float:
        """A forward pass through the decoder blocks; causal attention needs half of its square."""
        size = self.setting.size
        attention = 2 * self.setting.length * size.hidden * size.layers
        return tokens * (2 * weights + attention)

    def calibration(self, rows: int) -> float:
        """The blocks, and four Gram matrices for each layer; no logits.

        A Gram matrix counts as the plain product that it is, 2 n² per token, although one of its
        triangles is enough.
        """
        size, tokens = self.setting.size, rows * self.setting.length
        inner = size.config().intermediate_size
        grams = size.layers * (3 * size.hidden**2 + inner**2)
        return self.blocks(tokens, self.weights()) + 2 * grams * tokens

    def evaluation(self, ratio: float | None, tokens: int) -> float:
        """The blocks, dense or in two factors, and the logits."""
        setting = self.setting
        weights = self.weights() if ratio is None else self.factors(ratio)
        return self.blocks(tokens, weights) + 2 * tokens * setting.vocabulary * setting.size.hidden

    def decomposition(self) -> float:
        """Of all of Table 1: 9 r³ for an eigenproblem of size r (Golub and Van Loan, section 8.3).

        One of min(m, n) for each weight and each of three metrics (none, diagonal, Gram), and one
        of the complement for each ratio of NSVD.
        """
        total = 0.0
        for m, n in self.shapes:
            r = min(m, n)
            firsts = [METHODS["nsvd_i"].ranks(rank(m, n, ratio))[0] for ratio in RATIOS]
            total += 9.0 * (3 * r**3 + sum((r - k1) ** 3 for k1 in firsts))
        return total

    def weights(self) -> int:
        """Numbers in the dense weights."""
        return sum(m * n for m, n in self.shapes)

    def factors(self, ratio: float) -> int:
        """Numbers in their factors."""
        return sum(rank(m, n, ratio) * (m + n) for m, n in self.shapes)


def _cut(asked: int, rows: int) -> str:
    return "" if rows == asked else f" ({asked} rows would not have fitted)"


@dataclass
class Bench:
    """The model on the device, the clock, and what was measured so far.

    Attributes:
        ends: when to stop (`time.monotonic`).
        details: by stage, what it was and what it took.
    """

    setting: Setting
    ends: float
    details: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def left(self) -> float:
        """The seconds that are left."""
        return self.ends - time.monotonic()

    def prepare(self) -> None:
        """Measure the plain products, then make the model."""
        setting = self.setting
        self.rate = product_rate(setting.product, setting.dtype, setting.device)
        self.double_rate = product_rate(setting.product // 2, torch.float64, setting.device)
        self.details["matrix product"] = {
            "size": setting.product,
            "dtype": str(setting.dtype).removeprefix("torch."),
            "operations_a_second": self.rate,
            "float64_operations_a_second": self.double_rate,
        }
        config = setting.size.config(setting.vocabulary, setting.length)
        self.model = on_device(config, setting.dtype, setting.device)
        self.layers = find_linears(self.model, [])
        shapes = [(linear.out_features, linear.in_features) for linear in self.layers.values()]
        self.work = Work(setting, shapes)
        self.calibrated: Calibration | None = None

    def ids(self, rows: int) -> Tensor:
        """Random tokens (rows, length)."""
        generator = torch.Generator().manual_seed(0)
        shape = (rows, self.setting.length)
        return torch.randint(self.setting.vocabulary, shape, generator=generator)

    def stage(self, name: str, limit: float, measure: Callable[[], Figure], **kind: Any) -> None:
        """Measure one stage; a figure without a value says why there is none."""
        why = "did not fit: no time was left"
        if self.left() > 0:
            try:
                self.figures.append(measure())
                return
            except (NsvdError, torch.OutOfMemoryError) as error:
                why = f"failed: {str(error).splitlines()[0]}"
        self.figures.append(Figure(name, None, limit, kind.get("at_most", False), why))

    def fitting(self, rows: Tensor, share: float, work: Callable[[Tensor], object]) -> Tensor:
        """As many of the rows as take that share of the time left, going by a sixteenth of them.

        What the first pass of all finds and compiles counts for nothing.
        """
        short = rows[: max(len(rows) // 16, 1)]
        work(short[:1])
        a_row = seconds_of(lambda: work(short)) / len(short)
        return rows[: max(int(share * self.left() / a_row), 1)]

    def calibration(self) -> Figure:
        """Calibrate on `samples` x `length` tokens: the share of the card's rate."""
        setting = self.setting

        def work(rows: Tensor) -> None:
            self.calibrated = Calibration(*calibrate(self.model, self.layers, rows))

        samples = self.fitting(self.ids(setting.samples), CALIBRATION_TIME, work)
        self._reset_peak()
        seconds = seconds_of(lambda: work(samples))
        rows, tokens = samples.shape[0], samples.numel()
        share = self.work.calibration(rows) / seconds / self.rate
        self._detail("calibration", seconds, share, tokens)
        note = f"{rows} x {setting.length} tokens{_cut(setting.samples, rows)} in {seconds:.3g} s"
        return Figure(CALIBRATION, share, 0.4, False, note)

    def evaluation(self, ratio: float | None) -> Figure:
        """Evaluate `windows` x `length` tokens: the share of the card's rate."""
        setting = self.setting

        def work(rows: Tensor) -> None:
            window_nll(self.model, rows)

        with replaced(self.model, {} if ratio is None else self._random_factors(ratio)):
            windows = self.fitting(self.ids(setting.windows), EVALUATION_TIME, work)
            self._reset_peak()
            seconds = seconds_of(lambda: work(windows))
        name, tokens = evaluation_name(ratio), windows.numel()
        share = self.work.evaluation(ratio, tokens) / seconds / self.rate
        self._detail(name, seconds, share, tokens)
        cut = _cut(setting.windows, len(windows))
        note = f"{tokens} tokens{cut} in {seconds:.3g} s, {tokens / seconds:.4g} a second"
        return Figure(name, share, 0.5, False, note)

    def decomposition(self) -> Figure:
        """Of all weights for all of Table 1, 30 cells: seconds.

        Block by block with the bases that cells share, every method at every ratio, until the time
        is up; the time of all blocks follows from those that were done, which have the same shapes.

        Raises:
            NsvdError: not one block fitted, or there are no statistics.
        """
        if self.calibrated is None:
            raise NsvdError("there are no statistics without a calibration")
        name, blocks = decoder_blocks(self.model)
        seconds: list[float] = []
        self._reset_peak()
        for number in range(len(blocks)):
            if seconds and self.left() < 1.2 * max(seconds):
                break
            prefix = f"{name}.{number}."
            layers = {n: layer for n, layer in self.layers.items() if n.startswith(prefix)}
            seconds.append(seconds_of(lambda: self._table1(layers, not seconds)))  # noqa: B023
        whole = sum(seconds) * len(blocks) / len(seconds)
        share = self.work.decomposition() / whole / self.double_rate
        self._detail("decomposition", whole, share, None, blocks_measured=len(seconds))
        note = (
            f"{len(seconds)} of {len(blocks)} blocks measured, {len(self.layers)} weights, "
            f"{share:.2g} of the float64 product rate"
        )
        return Figure(DECOMPOSITION, whole, 240, True, note, unit="s")

    def _table1(self, layers: dict[str, nn.Linear], may_stop: bool) -> None:
        memory, dtype = BasisMemory(), self.setting.dtype
        cells = [(method, ratio) for method in METHODS.values() for ratio in RATIOS]
        for number, (method, ratio) in enumerate(cells):
            if may_stop and self.left() < 0:
                raise NsvdError(f"time was up after {number} of {len(cells)} cells of one block")
            ranks, bases = ranks_for(layers, ratio), shared_bases(method, memory)
            compressor = Compressor(method, ranks, self.calibrated, FACTORS, dtype, bases=bases)
            compressor.compress(layers)

    def _random_factors(self, ratio: float) -> dict[str, nn.Module]:
        options: dict[str, Any] = {"dtype": self.setting.dtype, "device": self.setting.device}
        found: dict[str, nn.Module] = {}
        for name, k in ranks_for(self.layers, ratio).items():
            m, n = self.layers[name].weight.shape
            left, right = torch.randn(m, k, **options), torch.randn(k, n, **options)
            found[name] = LowRankLinear(left / k**0.5, right * 0.02, None)
        return found

    def _reset_peak(self) -> None:
        if self.setting.device != "cpu":
            torch.cuda.reset_peak_memory_stats()

    def _detail(
        self, name: str, seconds: float, share: float, tokens: int | None, **more: Any
    ) -> None:
        on_gpu = self.setting.device != "cpu"
        self.details[name] = {
            "seconds": seconds,
            "share_of_the_product": share,
            "tokens": tokens,
            "tokens_a_second": tokens / seconds if tokens else None,
            "device_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
            **more,
        }


CALIBRATION = "calibration: share of the measured matrix rate"
DECOMPOSITION = "decomposition of all weights for all of Table 1"


def evaluation_name(ratio: float | None) -> str:
    """The name of the figure of an evaluation; None is the dense model."""
    which = "dense" if ratio is None else f"ratio {ratio}"
    return f"evaluation, {which}: share of the measured matrix rate"


def product_rate(n: int, dtype: torch.dtype, device: str) -> float:
    """Operations per second of an n x n product: the median of 20, after 5 that do not count."""
    A, B = (torch.randn(n, n, dtype=dtype, device=device) for _ in range(2))
    taken = [seconds_of(lambda: A @ B) for _ in range(25)]
    return 2 * n**3 / statistics.median(taken[5:])


def measure(setting: Setting, deadline: float) -> Bench:
    """All stages, in the order of their worth; the last takes what time is left."""
    bench = Bench(setting, time.monotonic() + deadline)
    bench.prepare()
    bench.stage(CALIBRATION, 0.4, bench.calibration)
    for ratio in (None, 0.3):
        bench.stage(evaluation_name(ratio), 0.5, lambda: bench.evaluation(ratio))  # noqa: B023
    bench.stage(DECOMPOSITION, 240, bench.decomposition, at_most=True)
    return bench


def detail_sheet(details: dict[str, Any]) -> Sheet:
    """What each stage took."""
    product = details["matrix product"]
    rows = []
    for name, stage in details.items():
        if name == "matrix product":
            continue
        memory = stage["device_bytes"]
        rate = stage["tokens_a_second"]
        rows.append(
            [
                name.partition(":")[0],
                f"{stage['seconds']:.4g} s",
                f"{stage['share_of_the_product']:.1%}",
                "–" if rate is None else f"{rate:.4g}",
                "–" if memory is None else f"{memory / 1e9:.1f} GB",
            ]
        )
    title = (
        f"Stages; a plain product does {product['operations_a_second'] / 1e12:.4g} TFLOP/s in "
        f"{product['dtype']}, {product['float64_operations_a_second'] / 1e12:.4g} in float64"
    )
    headings = ("stage", "time", "share of the product", "tokens a second", "device memory")
    return Sheet(title, headings, rows)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write.

    Args:
        given: the arguments; None: those of the command.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deadline", type=float, default=430, help="in seconds; 430")
    parser.add_argument("--quick", action="store_true", help="small, on the CPU; keeps no file")
    parser.add_argument("--out", type=Path, help="folder for JSON and Markdown; results/benchmarks")
    arguments = parser.parse_args(given)
    setting = QUICK if arguments.quick else LLAMA
    if setting.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use; --quick runs a small model on the CPU")
    machine = Machine(setting.device)
    start = time.monotonic()
    bench = measure(setting, arguments.deadline)
    record: dict[str, Any] = {
        "command": "benchmarks/gpu.py" + (" --quick" if arguments.quick else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.record(),
        "wall": time.monotonic() - start,
        "details": bench.details,
        "figures": [figure.record() for figure in bench.figures],
    }
    sheets = [
        detail_sheet(bench.details),
        Sheet("Targets", TARGET_HEADINGS, [figure.row() for figure in bench.figures]),
    ]
    show(sheets, record["machine"])
    out = arguments.out or (None if arguments.quick else RESULTS)
    if out is not None:
        print(f"written: {keep(out, 'gpu', record, sheets)}")


if __name__ == "__main__":
    main()
