"""How fast the decompositions are, and how good: ratios from one run, medians of `--repeat` runs.

    python benchmarks/linalg.py [--sizes 256,512,1024] [--repeat 5]

What the eigenbasis route saves against the paper's own, in one cell and where cells share their
bases; which solver to take for NSVD's second stage, and which interpolative decomposition; what
float32 would cost in accuracy, in the eigenproblem and in a basis that is held.
"""

from __future__ import annotations

import nsvd_exp  # isort: skip # noqa: F401 - before torch: it says how OpenMP's threads wait

import argparse
import statistics
import time
from collections.abc import Callable, Iterable

import scipy.linalg
import scipy.linalg.interpolative
import torch
from rich.console import Console
from rich.table import Table
from table1 import METHODS, RATIOS, TWINS, rank, shared_bases

from nsvd_exp.experiment.bases import BasisMemory
from nsvd_exp.methods import NID, Method
from nsvd_exp.methods.base import Factors
from nsvd_exp.methods.factorise import factorise
from nsvd_exp.methods.linalg import interpolative, leading_eigenvectors, relative_loss
from nsvd_exp.methods.statistics import Statistics
from nsvd_exp.methods.truncation import OutputBasis, directions

WITHOUT_TWINS = {name: method for name, method in METHODS.items() if name not in TWINS}
SINGLE = {**WITHOUT_TWINS, "nid_i": NID()}


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
    for heading in ("m x n", *SINGLE):
        table.add_column(heading, justify="right")
    for n in sizes:
        for m in (n, int(2.7 * n)):
            W, known = problem(m, n)
            k = rank(m, n, 0.3)
            row = [f"{m} x {n}"]
            for method in SINGLE.values():
                ours, theirs = (
                    median_seconds(lambda: factorise(method, W, k, known, solver), repeat)  # noqa: B023
                    for solver in ("basis", "paper")
                )
                row.append(f"{ours:.3f} s, {theirs / ours:.1f}x")
            table.add_row(*row)
    return table


def compare_sharing(sizes: list[int], repeat: int) -> Table:
    """The methods and ratios of Table 1 on one weight: cell by cell the paper's way, and shared."""
    table = Table(title="Table 1's 5 ratios x 6 methods on one weight: paper / shared")
    for heading in ("m x n", "shared", "paper / shared", "asvd_ii, nsvd_ii left out of both"):
        table.add_column(heading, justify="right")
    for n in sizes:
        for m in (n, int(2.7 * n)):
            W, known = problem(m, n)
            row = [f"{m} x {n}"]
            for methods in (METHODS.values(), WITHOUT_TWINS.values()):
                ours = median_seconds(lambda: share(W, known, methods), repeat)  # noqa: B023
                theirs = median_seconds(lambda: by_paper(W, known, methods), min(repeat, 3))  # noqa: B023
                row += [f"{ours:.3f} s", f"{theirs / ours:.1f}x"]
            table.add_row(*(row[i] for i in (0, 1, 2, 4)))
    return table


def share(W: torch.Tensor, known: Statistics, methods: Iterable[Method]) -> None:
    """The factors of all cells, whose bases are made once."""
    memory = BasisMemory()
    for method in methods:
        for ratio in RATIOS:
            from_held(method, W, rank(*W.shape, ratio), known, memory)


def from_held(
    method: Method, W: torch.Tensor, k: int, known: Statistics, memory: BasisMemory
) -> Factors:
    """The factors in float32 from a basis that is held, as a cell has them."""
    bases = shared_bases(method, memory)
    basis = bases.get("layer", W, lambda: directions(W, method, known))
    return basis.truncate(method, k, lambda: known, W.device)


def by_paper(W: torch.Tensor, known: Statistics, methods: Iterable[Method]) -> None:
    """Every cell from nothing: factor, SVD, inverse, and the losses by their definitions."""
    for method in methods:
        for ratio in RATIOS:
            factorise(method, W, rank(*W.shape, ratio), known, "paper")


def compare_second_stage(sizes: list[int], repeat: int) -> Table:
    """Solvers of NSVD's second stage on the trailing block, against a full `eigh` of it."""
    table = Table(
        title="k2 leading eigenvectors of the block: time / torch.linalg.eigh's, and the excess of "
        "what is left, / what is left"
    )
    headings = ("n", "ratio", "block, k2", "eigh", "syevr", "evx", "lobpcg", "subspace, 8", "32")
    for heading in headings:
        table.add_column(heading, justify="right")
    for n in sizes:
        W, known = problem(n, n)
        basis = OutputBasis.of(W, METHODS["asvd_i"], known)
        for ratio in (0.1, 0.5):
            k1, k2 = METHODS["nsvd_i"].ranks(rank(n, n, ratio))
            B = (basis.coordinates @ basis.coordinates.T)[k1:, k1:].contiguous()
            spectrum = torch.linalg.eigvalsh(B).flip(0)
            row = [f"{n}", f"{ratio}", f"{len(B)}, {k2}"]
            full = median_seconds(lambda: torch.linalg.eigh(B), repeat)  # noqa: B023
            row.append(f"{full:.4f} s")
            for solve in SECOND_STAGE:
                seconds = median_seconds(lambda: solve(B, k2), repeat)  # noqa: B023
                V = solve(B, k2)
                excess = float(spectrum[:k2].sum() - ((B @ V) * V).sum()) / float(
                    spectrum[k2:].sum()
                )
                row.append(f"{seconds / full:.2f}, {max(excess, 0):.0e}")
            table.add_row(*row)
    return table


def by_evx(B: torch.Tensor, k: int) -> torch.Tensor:
    """LAPACK's syevx."""
    subset = (len(B) - k, len(B) - 1)
    return torch.from_numpy(
        scipy.linalg.eigh(B.numpy(), subset_by_index=subset, driver="evx", check_finite=False)[1]
    )


def by_lobpcg(B: torch.Tensor, k: int) -> torch.Tensor:
    """20 iterations from a random start."""
    start = torch.randn(len(B), k, generator=torch.Generator().manual_seed(0), dtype=B.dtype)
    return torch.lobpcg(B, k, X=start, niter=20)[1]


def by_subspace(B: torch.Tensor, k: int, iterations: int = 8) -> torch.Tensor:
    """Blocked subspace iteration from a random start of twice the width."""
    width = min(len(B), 2 * k + 8)
    generator = torch.Generator().manual_seed(0)
    Y = B @ torch.randn(len(B), width, generator=generator, dtype=B.dtype)
    for _ in range(iterations):
        Y = B @ torch.linalg.qr(Y).Q
    Q = torch.linalg.qr(Y).Q
    return Q @ torch.linalg.eigh(Q.T @ B @ Q).eigenvectors.flip(1)[:, :k]


SECOND_STAGE = (
    leading_eigenvectors,
    by_evx,
    by_lobpcg,
    by_subspace,
    lambda B, k: by_subspace(B, k, 32),
)


def compare_interpolative(sizes: list[int], repeat: int) -> Table:
    """Ours, which stops after k pivots, against SciPy's pivoted QR and interpolative module."""
    table = Table(title="Interpolative decomposition of n x n: time / ours, error / optimum")
    for heading in ("n", "k", "ours", "qr pivoting", "interp_decomp"):
        table.add_column(heading, justify="right")
    for n in sizes:
        W, _ = problem(n, n)
        A = W * torch.logspace(0, -2, n, dtype=torch.float64)
        array = A.numpy()
        for k in (n // 50, n // 8, n // 2):

            def by_qr(array=array, k=k):  # type: ignore[no-untyped-def]
                R, order = scipy.linalg.qr(array, mode="r", pivoting=True, check_finite=False)
                return order[:k], scipy.linalg.solve_triangular(R[:k, :k], R[:k, k:])

            def by_scipy(array=array, k=k):  # type: ignore[no-untyped-def]
                return scipy.linalg.interpolative.interp_decomp(array, k, rand=False)

            ours = median_seconds(lambda: interpolative(A, k), repeat)  # noqa: B023
            columns, T = interpolative(A, k)
            optimum = torch.linalg.vector_norm(torch.linalg.svdvals(A)[k:])
            row = [f"{n}", f"{k}"]
            row.append(
                f"{ours:.4f} s, {torch.linalg.matrix_norm(A - A[:, columns] @ T) / optimum:.3f}"
            )
            for other in (by_qr, by_scipy):
                seconds, chosen = median_seconds(other, repeat), A[:, other()[0][:k]]
                fitted = chosen @ torch.linalg.lstsq(chosen, A).solution
                error = torch.linalg.matrix_norm(A - fitted) / optimum
                row.append(f"{seconds / ours:.1f}x, {error:.3f}")
            table.add_row(*row)
    return table


def compare_storage(sizes: list[int]) -> Table:
    """Excess of the loss of factors from a basis held in float32 over those from float64."""
    table = Table(title="Loss of float32 factors / loss of float64 ones - 1, by Gram condition")
    for heading in ("n", "method", "1e2", "1e4", "1e6", "1e8"):
        table.add_column(heading, justify="right")
    for n in sizes:
        for name in ("asvd_i", "nsvd_i", "nid_i"):
            method, k = SINGLE[name], rank(n, n, 0.3)
            row = [f"{n}", name]
            for decades in (1, 2, 3, 4):
                W, known = problem(n, n, decades)
                exact = factorise(method, W, k, known)
                held = from_held(method, W, k, known, BasisMemory())
                left, right = held.left.double(), held.right.double()
                losses = [
                    relative_loss(W, A @ B, known.gram)
                    for A, B in ((left, right), (exact.left, exact.right))
                ]
                row.append(f"{losses[0] / losses[1] - 1:.0e}")
            table.add_row(*row)
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
            k = rank(n, n, 0.3)
            factors = factorise(METHODS["asvd_i"], W, k, known)
            optimum = relative_loss(W, factors.left @ factors.right, known.gram)
            C = W.float() @ known.gram.float() @ W.float().T
            U = torch.linalg.eigh(C).eigenvectors.flip(1)[:, :k].double()
            row.append(f"{relative_loss(W, U @ (U.T @ W), known.gram) / optimum - 1:.1e}")
        table.add_row(*row)
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="256,512,1024")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    console = Console(width=120)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    console.print(compare_solvers(sizes, arguments.repeat))
    console.print(compare_sharing(sizes, arguments.repeat))
    console.print(compare_second_stage(sizes, arguments.repeat))
    console.print(compare_interpolative(sizes, arguments.repeat))
    console.print(compare_precision(sizes))
    console.print(compare_storage(sizes))


if __name__ == "__main__":
    main()
