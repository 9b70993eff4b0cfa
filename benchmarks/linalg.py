"""How fast the decompositions are, and how good: ratios from one run, medians of `--repeat` runs.

    python benchmarks/linalg.py [--sizes 256,512,1024] [--repeat 5]

Three questions: what the eigenbasis route saves against the paper's own; which column-pivoted
interpolative decomposition to take; what float32 would cost in accuracy.
"""

from __future__ import annotations

import nsvd_exp  # isort: skip # noqa: F401 - before torch: it says how OpenMP's threads wait

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import scipy.linalg.interpolative
import torch
from rich.console import Console
from rich.table import Table

from nsvd_exp.linalg import interpolative, rank_for_ratio, relative_loss
from nsvd_exp.methods import Method, Statistics, whitening_named

METHODS = {
    "svd": ("identity", None),
    "asvd_0": ("abs_mean", None),
    "asvd_i": ("cholesky", None),
    "nsvd_i": ("cholesky", "svd"),
    "nid_i": ("cholesky", "id"),
}


def problem(m: int, n: int, decades: float = 3.0) -> tuple[torch.Tensor, Statistics]:
    """A weight (m, n) and inputs whose Gram matrix has a condition of 10^(2 decades)."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(m, n, generator=generator, dtype=torch.float64) / n**0.5
    X = torch.randn(n, 4 * n, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    X = turn @ (torch.logspace(0, -decades, n, dtype=torch.float64)[:, None] * X)
    return W, Statistics(gram=X @ X.T, abs_mean=X.abs().mean(1), mean=X.mean(1), tokens=X.shape[1])


def median_seconds(work: Callable[[], object], repeat: int) -> float:
    """Median over `repeat` runs, after one that does not count."""
    work()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def compare_solvers(sizes: list[int], repeat: int) -> Table:
    """Seconds of one weight by the paper's route, over seconds by the eigenbasis route."""
    table = Table(title="One weight at ratio 0.3, k1 0.95: seconds by basis, and paper / basis")
    for heading in ("m x n", *METHODS):
        table.add_column(heading, justify="right")
    for n in sizes:
        for m in (n, int(2.7 * n)):
            W, known = problem(m, n)
            k = rank_for_ratio(m, n, 0.3)
            row = [f"{m} x {n}"]
            for whitening, second in METHODS.values():
                method = Method(whitening_named(whitening), second, "basis")
                paper = replace(method, solver="paper")
                ours = median_seconds(lambda: method.factorise(W, k, 0.95, known), repeat)  # noqa: B023
                theirs = median_seconds(lambda: paper.factorise(W, k, 0.95, known), repeat)  # noqa: B023
                row.append(f"{ours:.3f} s, {theirs / ours:.1f}x")
            table.add_row(*row)
    return table


def compare_interpolative(sizes: list[int], repeat: int) -> Table:
    """SciPy's pivoted QR (LAPACK), which is used, against SciPy's interpolative module."""
    table = Table(title="Interpolative decomposition, n x n, k = n / 8")
    for heading in ("n", "qr pivoting", "interp_decomp", "error / optimum", "error / optimum"):
        table.add_column(heading, justify="right")
    for n in sizes:
        W, _ = problem(n, n)
        A = W * torch.logspace(0, -2, n, dtype=torch.float64)
        k = n // 8
        array = A.numpy()

        def by_scipy(array=array, k=k):  # type: ignore[no-untyped-def]
            return scipy.linalg.interpolative.interp_decomp(array, k, rand=False)

        ours = median_seconds(lambda: interpolative(A, k), repeat)  # noqa: B023
        theirs = median_seconds(by_scipy, repeat)
        columns, T = interpolative(A, k)
        index, projection = by_scipy()
        optimum = torch.linalg.vector_norm(torch.linalg.svdvals(A)[k:])
        other = torch.from_numpy(
            scipy.linalg.interpolative.reconstruct_matrix_from_id(
                array[:, index[:k]], index, projection
            )
        )
        errors = (torch.linalg.matrix_norm(A - B) / optimum for B in (A[:, columns] @ T, other))
        table.add_row(f"{n}", f"{ours:.3f} s", f"{theirs:.3f} s", *(f"{e:.3f}" for e in errors))
    return table


def compare_precision(sizes: list[int]) -> Table:
    """Excess of the activation loss over the optimum when W M Wᵀ is formed in float32."""
    table = Table(title="asvd_i at ratio 0.3: loss / optimal loss - 1, by Gram condition")
    for heading in ("n", "1e2", "1e4", "1e6", "1e8"):
        table.add_column(heading, justify="right")
    for n in sizes:
        row = [f"{n}"]
        for decades in (1, 2, 3, 4):
            W, known = problem(n, n, decades)
            k = rank_for_ratio(n, n, 0.3)
            factors = Method(whitening_named("cholesky")).factorise(W, k, 1.0, known)
            optimum = relative_loss(W, factors.left @ factors.right, known.gram)
            C = W.float() @ known.gram.float() @ W.float().T
            U = torch.linalg.eigh(C).eigenvectors.flip(1)[:, :k].double()
            row.append(f"{relative_loss(W, U @ (U.T @ W), known.gram) / optimum - 1:.1e}")
        table.add_row(*row)
    return table


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="256,512,1024")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    console = Console(width=110)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    console.print(compare_solvers(sizes, arguments.repeat))
    console.print(compare_interpolative(sizes, arguments.repeat))
    console.print(compare_precision(sizes))


if __name__ == "__main__":
    main()
