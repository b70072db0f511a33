"""The protocols `Kernel` and `State`, the generalised least-squares `Solution`, and the sizes that choose a factorisation (`Tuning`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.linalg import lapack

from bayeslmm._arrays import Array, Mask

ENTRYWISE_COLUMNS, ENTRYWISE_MATRICES = 4, 64
"""Matrices up to this size, and from this many on, are factorised entry by entry over all of them."""


SUBSTITUTED_COLUMNS = 24
"""Columns of X from which a substitution at each theta is faster than the inverse of its factor."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The profile in alpha at some thetas.

    logdet : (t,) log |V0|; Xy : (t, r, r) [X y]' V0^-1 [X y]
    root : (t, p, p) lower Cholesky factor of X' V0^-1 X; logdet_X : (t,) its log determinant
    alpha : (t, p); r2 : (t,) generalised residual sum of squares
    """

    logdet: Array
    Xy: Array
    root: Array
    logdet_X: Array
    alpha: Array
    r2: Array
    root_inverse: Array | None = None

    @cached_property
    def information_inverse(self) -> Array:
        """(X' V0^-1 X)^-1, (t, p, p)."""
        inverse = np.linalg.inv(self.root) if self.root_inverse is None else self.root_inverse
        return inverse.swapaxes(-1, -2) @ inverse


def stack_solutions(parts: Sequence[Solution]) -> Solution:
    """Solutions at several thetas as one."""
    return Solution(
        np.concatenate([s.logdet for s in parts]),
        np.concatenate([s.Xy for s in parts]),
        np.concatenate([s.root for s in parts]),
        np.concatenate([s.logdet_X for s in parts]),
        np.concatenate([s.alpha for s in parts]),
        np.concatenate([s.r2 for s in parts]),
    )


def merge_solutions(chosen: Mask, of_chosen: Solution, of_others: Solution) -> Solution:
    """Solutions at the thetas chosen and at the others as one, in the order of the thetas."""
    order = np.argsort(np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)]))
    both = stack_solutions([of_chosen, of_others])
    return Solution(*(part[order] for part in (both.logdet, both.Xy, both.root, both.logdet_X, both.alpha, both.r2)))


def solve_Xy(logdet: Array, Xy: Array) -> Solution:
    """alpha, r2 and log |X'V0^-1 X| from the bordered matrix; r2 is NaN where X'V0^-1 X is not positive definite."""
    p = Xy.shape[-1] - 1
    if p == 0:
        return Solution(logdet, Xy, Xy[:, :0, :0], np.zeros(len(logdet)), np.zeros((len(logdet), 0)), Xy[:, 0, 0])
    root, inverse, half, alpha = _solve_wide(Xy, p) if p >= SUBSTITUTED_COLUMNS else _solve_narrow(Xy, p)
    r2 = Xy[:, p, p] - (half**2).sum(-1)
    logdet_X = 2.0 * np.log(root.diagonal(axis1=-2, axis2=-1)).sum(-1)
    return Solution(logdet, Xy, root, logdet_X, alpha, r2, inverse)


def solve_rows(logdet: float, rows: Array) -> Solution:
    """The same by rows (m, r) whose products are those of the bordered matrix: what is small among them keeps its digits."""
    p = rows.shape[1] - 1
    R = np.linalg.qr(rows, mode="r")
    R = R * np.where(np.diagonal(R) < 0.0, -1.0, 1.0)[:, None]
    root, half = R[:p, :p].T, R[:p, p]
    if not np.diagonal(root).all():
        raise np.linalg.LinAlgError("not positive definite")
    inverse = np.linalg.inv(root)
    logdet_X = 2.0 * float(np.log(np.diagonal(root)).sum())
    r2 = R[p, p] ** 2  # inf where it is beyond the largest number, for which Python would raise
    return Solution(
        np.array([logdet]), (R.T @ R)[None], root[None], np.array([logdet_X]), (inverse.T @ half)[None], np.array([r2]), inverse[None]
    )


def _solve_narrow(Xy: Array, p: int) -> tuple[Array, Array | None, Array, Array]:
    """The Cholesky factor L of X'V0^-1X, its inverse, L^-1 X'V0^-1y and alpha."""
    root, inverse = factor_and_inverse(Xy[:, :p, :p])
    half = inverse @ Xy[:, :p, p:]
    return root, inverse, half[..., 0], (inverse.swapaxes(-1, -2) @ half)[..., 0]


def _solve_wide(Xy: Array, p: int) -> tuple[Array, Array | None, Array, Array]:
    """The same by substitution: an inverse costs several times the factor, and only draws and derivatives need one."""
    root = np.linalg.cholesky(Xy[:, :p, :p])
    half, alpha = np.empty((len(Xy), p)), np.empty((len(Xy), p))
    for i, L in enumerate(root):
        half[i] = lapack.dtrtrs(L.T, Xy[i, :p, p], trans=1)[0]
        alpha[i] = lapack.dtrtrs(L.T, half[i])[0]
    return root, None, half, alpha


def factor_and_inverse(M: Array) -> tuple[Array, Array]:
    """The lower Cholesky factor of (t, p, p) and its inverse; entry by entry over t where there are many small ones."""
    t, p, _ = M.shape
    if p > ENTRYWISE_COLUMNS or t < ENTRYWISE_MATRICES:
        root = np.linalg.cholesky(M)
        return root, np.linalg.inv(root)
    L, K = np.zeros((p, p, t)), np.zeros((p, p, t))
    for a in range(p):
        for b in range(a + 1):
            v = M[:, a, b] - np.einsum("ct,ct->t", L[a, :b], L[b, :b])
            if a == b and not v.min() > 0:
                raise np.linalg.LinAlgError("not positive definite")
            L[a, b] = np.sqrt(v) if a == b else v * K[b, b]
            K[a, b] = 1.0 / L[a, a] if a == b else 0.0
        for b in range(a):
            K[a, b] = -K[a, a] * np.einsum("ct,ct->t", L[a, b:a], K[b:a, b])
    return L.transpose(2, 0, 1), K.transpose(2, 0, 1)


class Slopes(Protocol):
    """An evaluation of a kernel at some parameters x (t, size): the profile and its derivatives."""

    @property
    def solution(self) -> Solution: ...

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        """d(log determinants)/dx and d r2/dx, (t, size) each."""
        ...


class State(Slopes, Protocol):
    """One evaluation of a kernel, with all that is asked of one x."""

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        """Average or expected information of x with sigma profiled out, plus the curvature of the parameters; one x only."""
        ...

    def sigma_gradients(self, restricted: bool, sigma2: float) -> list[Array]:
        """G = d criterion / d Sigma of every random term, in the order of the formula; exact where Sigma is singular too."""
        ...


class Kernel(Protocol):
    """Cross-products in, log |V0| and [X y]' V0^-1 [X y] out."""

    @property
    def size(self) -> int: ...

    def solve(self, x: Array) -> Solution:
        """The profile in alpha at many x (t, size)."""
        ...

    def evaluate_many(self, x: Array) -> Slopes:
        """The profile and its derivatives at many x (t, size)."""
        ...

    def evaluate(self, x: Array, derivatives: bool) -> State:
        """The profile at x (1, size), with all that derivatives need."""
        ...


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes that choose how a likelihood is evaluated; none of them changes its value beyond rounding.

    Measured on one core with OpenBLAS. Columns are those of Z (levels times columns of a term), elements and products are float64 numbers.

    dense_one_factor : columns of a single grouping factor up to which they are one dense matrix; more are eliminated level by level
    dense_all_factors : columns of all crossed factors up to which they are one dense block; finding structure among so few costs more
    batched_columns : columns of a component up to which components of one shape are factorised together, larger ones one by one by LAPACK
    packed_columns : columns of a single component from which it is kept as packed triangles: half the memory of a square
    table_pairs : pairs of levels up to which their cross-products are a whole table; sparse bookkeeping would cost more
    dense_off_diagonal : elements that a dense block between the first factor and the rest may hold (2 GB)
    sparse_products : pairwise products up to which that block is a sparse map (12 bytes each for every entry of a level's matrix)
    paired_speed : multiplications of a dense block in the time of one pairwise product of a sparse map, which has to be made first
    component_columns : columns of a component of crossed levels beyond which it is solved iteratively, by sparse products, not factorised
    probes : probes from which the determinant of such a component is first estimated
    most_probes : probes at most; what is left of the Monte Carlo error then is said
    dense_speed : multiplications of a dense factor in the time of one that a sparse product makes
    remaining_elements : elements of the block of all levels but the first factor's, beyond which a model is refused (8 GB)
    unrolled_columns : columns of a level up to which its Cholesky factor is written out over vectors of levels; LAPACK above
    batched_levels : levels (times parameter points) up to which batches of small matrices beat vectors of levels: calls take the time
    pooled_elements : elements that cross-products pooled over equal levels may hold
    pooled_sums : products summed by pattern of visits that are always kept, however few the rows
    structured_rows : rows of one block of structured errors beyond which a model is refused: V would not fit
    low_rank_work, low_rank_elements : rows x columns^2 (minutes) and rows x columns (2 GB) of random effects beside errors of unequal
        variance, beyond which these are worked on in dense blocks of rows
    one_thread_columns : columns of a dense block below which one BLAS thread is faster than several
    """

    dense_one_factor: int = 64
    dense_all_factors: int = 96
    batched_columns: int = 48
    packed_columns: int = 256
    table_pairs: int = 1 << 15
    dense_off_diagonal: int = 1 << 28
    sparse_products: int = 60_000_000
    paired_speed: float = 80.0
    component_columns: int = 4000
    probes: int = 8
    most_probes: int = 512
    dense_speed: float = 20.0
    remaining_elements: int = 1 << 30
    unrolled_columns: int = 6
    batched_levels: int = 256
    pooled_elements: int = 8_000_000
    pooled_sums: int = 100_000
    structured_rows: int = 8000
    low_rank_work: float = 1e10
    low_rank_elements: float = 3e7
    one_thread_columns: int = 1500

    def eliminates_first(self, factors: int, columns: int, related: bool, one_point: bool) -> bool:
        """Whether the first factor is eliminated level by level. related : it has a relationship matrix, which ties its levels.

        For one point at a time a few crossed levels are one small dense block: eliminating a factor first would save nothing.
        """
        return not related and (factors == 1 or columns > self.dense_all_factors or not one_point)

    def is_dense(self, columns: int, eliminated: bool) -> bool:
        """Whether all columns of Z are one dense matrix. eliminated : they are those of one factor, which could go level by level."""
        return columns <= (self.dense_one_factor if eliminated else self.dense_all_factors)

    def is_one_component(self, columns: int, elements: int) -> bool:
        """Whether the remaining columns are one dense block unlooked at. elements : of what ties them to the first factor."""
        return columns <= self.batched_columns and elements <= self.table_pairs

    def is_crowded(self, products: int, multiplications: int) -> bool:
        """Whether a dense block beats a sparse map of so many pairwise products of the columns that a level meets."""
        return products > self.sparse_products or multiplications < self.paired_speed * products

    def prefers_dense(self, columns: int, multiplications: float) -> bool:
        """Whether a dense factor of so many columns fits, and costs less than an iterative evaluation of so many multiplications."""
        return columns**2 <= self.remaining_elements and float(columns) ** 3 < self.dense_speed * multiplications

    def pools_patterns(self, blocks: int, patterns: int, k: int, r: int) -> bool:
        """Whether sums by pattern cost less than the blocks, of k rows and r columns of [X y] each."""
        return patterns <= blocks // 3 and patterns * (k * r) ** 2 <= max(self.pooled_sums, 20 * blocks * k * (k + r))


TUNING = Tuning()
