"""Case deletion at held covariance parameters: down-dating by rows or levels, and cross-products less some rows.

With `P = V0^-1 - V0^-1 X C X' V0^-1`, C the inverse of X' V0^-1 X, and S the covariance of the predictors of the rows I, as `prediction`
finds it, `P_II = W (W^-1 - S) W`. So with R = (W^-1 - S)^-1 of the deleted rows alone, D = W^-1 V0^-1 X of them and e their residuals,

    alpha_(I) = alpha - C D' R e,    C_(I) = C + C D' R D C,    r2_(I) = r2 - e' R e.

No matrix here is larger than the deleted rows by the columns that they touch.

Structured errors: V0 is block diagonal, so what rows I take with them is a sum over blocks b of (p + 1, p + 1) matrices,

    G_(I) = G - sum_b U_b' B_b^-1 U_b,   G = [X y]' V0^-1 [X y],   U_b = (V0^-1 [X y])_I,   B_b = (V0^-1)_II of the block.

The criterion does not depend on how columns are standardized, so nothing else is looked at again. A level that loses all of its rows stays
behind with zeros: it changes no estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import lapack

from bayeslmm._arrays import Array, Codes
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.kernel import factor_and_inverse, solve_Xy
from bayeslmm.likelihood.prediction import PredictorRows, ProjectedRows, rows_at_once
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.blocked import BlockedCholesky
from bayeslmm.likelihood.random_effects.cross_products import Accumulator, add_rows, summands
from bayeslmm.likelihood.random_effects.iterative import IterativeSchur
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.random_effects.schur import SchurComplement
from bayeslmm.likelihood.structured.kernel import BlockDiagonalState, StructuredBlockFactor

DIRECT_ROWS = 1024
"""Rows up to which R is made; for more, taking their cross-products off costs less."""

LOOKED_UP_COLUMNS = 256
"""Columns up to which their own part of Q is looked up; more are multiplied by all of it."""

SMALLEST_PIVOT = 1e-6
"""Smallest squared pivot of I - W^1/2 S W^1/2 that is trusted: below it what is left is a difference of nearly equal numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class DeletedProfile:
    """The profile without some rows, on standardized columns: alpha (p,), the inverse of X' V0^-1 X (p, p), r2."""

    alpha: Array
    inverse: Array
    r2: float


def delete_levels(problem: Problem, point: CriterionPoint, codes: Codes, size: int) -> Iterator[DeletedProfile | None]:
    """Without each of the levels 0 .. size - 1 of codes (n,), one by one; None where this way would be slow or lose digits."""
    state = point.state
    assert isinstance(state, RandomEffectsState)
    design, p = problem.design, problem.criterion.p
    everything = slice(0, design.nobs)
    Xy, weights = problem.standardization.Xy(design, everything), problem.standardization.weights(design, everything)
    inverse = None if state.levels.rest is None else _Inverse(state.levels.rest)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(size + 1))
    for levels in _pieces(np.diff(bounds), rows_at_once(state.levels)):
        if levels.stop == levels.start + 1 and bounds[levels.stop] - bounds[levels.start] > DIRECT_ROWS:
            yield None
            continue
        begin = bounds[levels.start]
        rows = order[begin : bounds[levels.stop]]
        Zs, groups = [term.Z[rows] for term in design.terms], [term.group.codes[rows] for term in design.terms]
        seen = PredictorRows(problem, state, Xy[rows], Zs, groups).project()
        alpha = state.solution.alpha[0]
        left = np.column_stack([seen.Xy[:, :p], seen.Xy[:, p] - seen.Xy[:, :p] @ alpha])
        root = None if weights is None else np.sqrt(weights[rows])
        for level in range(levels.start, levels.stop):
            own = slice(bounds[level] - begin, bounds[level + 1] - begin)
            products = _products(state.levels, inverse, seen, own, left[own], root)
            yield None if products is None else _profile(state, products)


def _pieces(counts: Codes, step: int) -> Iterator[slice]:
    """Whole levels of about `step` rows at a time; a level of very many rows by itself."""
    begin = 0
    while begin < len(counts):
        stop, rows, alone = begin + 1, int(counts[begin]), counts[begin] > DIRECT_ROWS
        while not alone and stop < len(counts) and counts[stop] <= DIRECT_ROWS and rows + counts[stop] <= step:
            rows += int(counts[stop])
            stop += 1
        yield slice(begin, stop)
        begin = stop


def _products(
    levels: BlockedCholesky, inverse: _Inverse | None, seen: ProjectedRows, own: slice, left: Array, root: Array | None
) -> Array | None:
    """[D e]' R [D e] of the rows `own` (p + 1, p + 1)."""
    D = left[:, :-1]
    S = D @ levels.solution.information_inverse[0] @ D.T
    if seen.first is not None and seen.codes is not None:
        half, code = seen.first[:, own], seen.codes[own]
        S += (code[:, None] == code) * (half.T @ half)
    if inverse is not None:
        S += inverse.form(seen, own)
    if root is not None:
        S *= root[own]
        S *= root[own][:, None]
        left = left * root[own][:, None]
    M = np.negative(S, out=S)
    M.reshape(-1)[:: len(M) + 1] += 1.0
    factor, failed = lapack.dpotrf(M.T, lower=1)
    if failed or (len(factor) and float(factor.diagonal().min()) ** 2 < SMALLEST_PIVOT):
        return None
    half = lapack.dtrtrs(factor, left, lower=1)[0]
    return np.asarray(half.T @ half)


def _profile(state: RandomEffectsState, products: Array) -> DeletedProfile:
    solution = state.solution
    C = solution.information_inverse[0]
    alpha = solution.alpha[0] - C @ products[:-1, -1]
    return DeletedProfile(alpha, C + C @ products[:-1, :-1] @ C, float(solution.r2[0] - products[-1, -1]))


class _Inverse:
    """Q of the remaining columns, looked up where it is needed."""

    def __init__(self, rest: SchurComplement | IterativeSchur) -> None:
        self.rest = rest
        self.flat = rest.flat_Q()[0]
        self.component = np.empty(rest.layout.m, np.int64)
        begin = 0
        for batch in rest.layout.batches:
            self.component[batch.index] = begin + np.arange(len(batch.index))[:, None]
            begin += len(batch.index)

    def form(self, seen: ProjectedRows, own: slice) -> Array:
        """d Q d' of some rows, (rows, rows)."""
        assert seen.rest is not None
        starts = seen.rest.indptr[own.start : own.stop + 1]
        entries = slice(starts[0], starts[-1])
        columns, place = np.unique(seen.rest.indices[entries], return_inverse=True)
        dense = np.zeros((len(starts) - 1, len(columns)))
        dense[np.repeat(np.arange(len(dense)), np.diff(starts)), place] = seen.rest.data[entries]
        if len(columns) <= LOOKED_UP_COLUMNS:
            return np.asarray(dense @ self._between(columns.astype(np.int64)) @ dense.T)
        wide = np.zeros((1, self.rest.layout.m, len(dense)))
        wide[0, columns] = dense.T
        return np.asarray(dense @ self.rest.apply_Q(wide)[0, columns])

    def _between(self, columns: Codes) -> Array:
        """Q between some columns; 0 between columns of different components."""
        where = self.rest.layout
        i, j = columns[:, None], columns
        lower = np.where(where.stride[i] >= where.stride[j], where.target[i] + where.stride[j], where.target[j] + where.stride[i])
        if not self.component.any():
            return np.asarray(self.flat[lower])
        same = self.component[i] == self.component[j]
        return np.where(same, self.flat[np.where(same, lower, 0)], 0.0)


# -- structured errors -------------------------------------------------------------------------------------------------------------------

ELEMENTS_AT_ONCE = 4_000_000
"""Elements of the matrices of levels that are worked on together."""


def delete_block_levels(point: CriterionPoint, codes: Codes, size: int) -> Iterator[DeletedProfile | None]:
    """The same where errors are structured: V0 is held as it stands, and every level takes its share of the sums off."""
    state = point.state
    assert isinstance(state, BlockDiagonalState)
    solution = state.solution
    r = solution.Xy.shape[-1]
    pairs = [_level_parts(factor, codes) for factor in state.row_states]
    step = max(1, ELEMENTS_AT_ONCE // (r * r))
    for begin in range(0, size, step):
        stop = min(begin + step, size)
        taken = np.zeros((stop - begin, r, r))
        for factor, parts in zip(state.row_states, pairs, strict=True):
            for level, block, rows in parts:
                own = slice(*np.searchsorted(level, (begin, stop)))
                _add_shares(taken, factor, level[own] - begin, block[own], rows[own])
        yield from _without(solution.Xy[0] - taken, solution.root[0])


def _level_parts(factor: StructuredBlockFactor, codes: Codes) -> list[tuple[Codes, Codes, Codes]]:
    """The rows of each level in each block, by their number c: level (m,) in order, block (m,), rows (m, c) within the block."""
    own = codes[factor.batch.rows]
    B, k = own.shape
    if k == 0 or B == 0:
        return []
    block, row = np.repeat(np.arange(B), k), np.tile(np.arange(k), B)
    order = np.lexsort((row, block, own.ravel()))
    level, block, row = own.ravel()[order], block[order], row[order]
    first = np.flatnonzero(np.concatenate([[True], (level[1:] != level[:-1]) | (block[1:] != block[:-1])]))
    counts = np.diff(np.append(first, len(level)))
    found = []
    for c in np.unique(counts):
        starts = first[counts == c]
        found.append((level[starts], block[starts], row[starts[:, None] + np.arange(c)]))
    return found


def _add_shares(taken: Array, factor: StructuredBlockFactor, level: Codes, block: Codes, rows: Codes) -> None:
    """U' B^-1 U of some rows of blocks, added to their levels."""
    k, c, r = factor.U.shape[1], rows.shape[1], factor.U.shape[2]
    step = max(1, ELEMENTS_AT_ONCE // max(1, k * (k + r)))
    for begin in range(0, len(level), step):
        part = slice(begin, begin + step)
        at, inside = block[part], rows[part]
        half = factor.inverse[at] @ factor.U[at]
        if c == k:
            share = factor.U[at].swapaxes(-1, -2) @ half
        else:
            half = np.take_along_axis(half, inside[..., None], axis=1)
            B = factor.inverse[at[:, None, None], inside[:, :, None], inside[:, None, :]]
            left = factor_and_inverse(B)[1] @ half
            share = left.swapaxes(-1, -2) @ left
        np.add.at(taken, level[part], share)


def _without(Xy: Array, root: Array) -> Iterator[DeletedProfile | None]:
    """The profiles of what is left of the sums (K, r, r); None where columns lean on what was taken. root : of X' V0^-1 X of all rows"""
    p = len(root)
    keeps = np.ones(len(Xy), bool)
    if p:
        inverse = np.linalg.inv(root)
        shares = np.linalg.eigvalsh(inverse @ Xy[:, :p, :p] @ inverse.T)
        keeps = shares[:, 0] > SMALLEST_PIVOT
    keeps &= Xy[:, p, p] > 0
    solved = solve_Xy(np.zeros(int(keeps.sum())), Xy[keeps])
    found = iter(zip(solved.alpha, solved.information_inverse, solved.r2, strict=True))
    for kept in keeps:
        if not kept:
            yield None
            continue
        alpha, C, r2 = next(found)
        yield DeletedProfile(alpha, C, float(r2)) if r2 > 0 else None


COLLINEAR_EIGENVALUE = 1e-10
"""Smallest eigenvalue of X'WX, relative to their mean, of columns that are still told apart."""


@dataclass(frozen=True, slots=True, eq=False)
class DowndatedSums:
    """The sums over all rows of a problem of random effects, and what every row adds to them.

    counts : rows of every level of every factor
    """

    problem: Problem
    kernel: RandomEffectsKernel
    total: Accumulator
    codes: list[Codes]
    columns: list[list[Array]]
    Xy: Array
    weights: Array | None
    counts: list[Codes]

    @classmethod
    def of(cls, problem: Problem) -> DowndatedSums:
        """Read the rows once more."""
        kernel, design, standardization = problem.criterion.kernel, problem.design, problem.standardization
        assert isinstance(kernel, RandomEffectsKernel)
        factors = kernel.cross.factors
        total = Accumulator.empty(factors, problem.criterion.p + 1, standardization.maps)
        add_rows(total, design, standardization)
        codes, columns, Xy, weights = summands(factors, design, standardization, slice(0, design.nobs))
        counts = [np.bincount(code, minlength=factor.K) for code, factor in zip(codes, factors, strict=True)]
        return cls(problem, kernel, total, codes, columns, Xy, weights, counts)

    def without(self, rows: Codes) -> Problem | None:
        """The problem less these rows; None where the rest does not identify the coefficients."""
        criterion = self.problem.criterion
        n = criterion.n - len(rows)
        if n <= criterion.p or not self.has_full_rank(rows):
            return None
        left = self.total.copy()
        left.add([code[rows] for code in self.codes], [[z[rows] for z in own] for own in self.columns], *self._signed_rows(rows))
        left.n = n
        self._clear_emptied(left, rows)
        return replace(self.problem, criterion=replace(criterion, n=n, kernel=replace(self.kernel, cross=left.finish())))

    def has_full_rank(self, rows: Codes) -> bool:
        """Whether columns of X that were orthonormal with all rows are independent without these."""
        Xy, weights = self._signed_rows(rows)
        X = Xy[:-1]
        left = self.total.Xy[:-1, :-1] + (X * weights) @ X.T
        return len(left) == 0 or float(np.linalg.eigvalsh(left)[0]) >= COLLINEAR_EIGENVALUE * float(np.trace(left)) / len(left)

    def _signed_rows(self, rows: Codes) -> tuple[Array, Array]:
        """[X y] of some rows, column by column, and weights that take them off."""
        return self.Xy[:, rows], np.full(len(rows), -1.0) if self.weights is None else -self.weights[rows]

    def _clear_emptied(self, left: Accumulator, rows: Codes) -> None:
        """Levels that have lost all of their rows are exactly 0, not what rounding leaves."""
        for code, count, diagonal, with_Xy in zip(self.codes, self.counts, left.diagonal, left.with_Xy, strict=True):
            levels, lost = np.unique(code[rows], return_counts=True)
            gone = levels[lost == count[levels]]
            diagonal[..., gone] = 0.0
            with_Xy[..., gone] = 0.0
