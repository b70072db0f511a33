"""Structured errors at many x at once: one Cholesky factor for each kind of block.

With random effects too, blocks that are alike (the same visits, Z, weights and covariates of a variance function) have one and the same V0:
it is factorised once for all of them, and what they observed is added up. Values and draws only. A variance function, whose rows would
scale differently at every x, multiplies R instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bayeslmm._arrays import Array, Codes, equal_rows
from bayeslmm.data.design import Design
from bayeslmm.likelihood.kernel import TUNING, Solution, solve_Xy
from bayeslmm.likelihood.structured.blocks import RowBatch, block_of, order_rows, require_dense, sum_by_pattern
from bayeslmm.likelihood.structured.kernel import LARGE_BLOCK, BlockDiagonalKernel, level_mask
from bayeslmm.likelihood.structured.low_rank import LowRankKernel
from bayeslmm.likelihood.structured.residual_structure import BlockRows, GroupedStructure, ResidualStructure, SpatialStructure

LOW_RANK_CELLS = 50_000
"""Elements of dense blocks at one x in whose time several calls for it alone are made."""

SAME_BITS = 40
"""Leading bits, of each value's own, to which two blocks must agree to be alike."""


def many_matrices(structure: ResidualStructure, phi: Array, block: BlockRows) -> Array:
    """R0 (t, B, k, k) at phi (t, size)."""
    B, k = block.shape
    if not isinstance(structure, GroupedStructure):
        return np.broadcast_to(np.eye(k), (len(phi), B, k, k))
    sets = np.concatenate([np.ones((len(phi), 1)), phi], axis=1).reshape(len(phi), structure.groups, structure.covariance.size)
    if isinstance(structure, SpatialStructure):
        assert block.distances is not None
        R = structure.located.matrix_at(sets[:, 0], block.distances)
        for g in range(1, structure.groups):
            R = np.where(block.group[:, :, None] == g, structure.located.matrix_at(sets[:, g], block.distances), R)
    else:
        assert block.place is not None
        m = structure.covariance.q
        index = (block.group[:, :, None] * m + block.place[:, :, None]) * m + block.place[:, None, :]
        R = structure.covariance.matrix(sets).reshape(len(phi), -1)[:, index]
    return R if block.same is None else R * block.same


@dataclass(frozen=True, slots=True, eq=False)
class IdenticalSubjects:
    """A batch of blocks (B, k) by kind: one block of each of the C kinds stands for all.

    rows : (C, k); block : theirs; kind : (B,) of every block; count : (C,) blocks of each
    G : (C, k k, r r) their summed products of rows of [X y] / scale; None where they are not added up
    """

    rows: Codes
    block: BlockRows
    kind: Codes
    count: Array
    G: Array | None


GATHERED_ELEMENTS = 1_000_000
"""Elements of matrices that are repeated for the blocks that share them, at once."""


CALL_ELEMENTS = 5_000
"""Elements of matrices that are repeated in the time of one product for a kind by itself."""


def multiply_by_kind(matrices: Array, vectors: Array, kind: Codes) -> Array:
    """M b of every block, (t, B, i, m); matrices : (t or 1, C, i, k) of each kind, vectors : (t or 1, B, k, m), kind : (B,)."""
    t, (_, _, i, k), (_, B, _, m) = max(len(matrices), len(vectors)), matrices.shape, vectors.shape
    out = np.empty((t, B, i, m))
    order, counts = np.argsort(kind, kind="stable"), np.bincount(kind)
    met = np.flatnonzero(counts)
    if 4 * len(met) < B and CALL_ELEMENTS * len(met) < B * t * i * k:
        for c, own in zip(met, np.split(order, np.cumsum(counts[met])[:-1]), strict=True):
            # the blocks of a kind side by side
            columns = vectors[:, own].transpose(0, 2, 1, 3).reshape(len(vectors), k, -1)
            out[:, own] = (matrices[:, c] @ columns).reshape(t, i, len(own), m).transpose(0, 2, 1, 3)
        return out
    step = max(1, GATHERED_ELEMENTS // (t * i * k))
    for begin in range(0, B, step):
        part = slice(begin, begin + step)
        out[:, part] = matrices[:, kind[part]] @ vectors[:, part]
    return out


@dataclass(frozen=True, slots=True, eq=False)
class InvertedBlocks:
    """A batch of independent blocks at t points, in scaled rows.

    rows : (B, k); U : (B, k, r) [X y]; inverse : (t, C, k, k) V0^-1 of every kind; kind : (B,) of every block
    lower : (t, C, k, k) with lower lower' = V0, where what a block leaves of a variance is asked for to the last digits
    """

    rows: Codes
    U: Array
    inverse: Array
    kind: Codes
    lower: Array | None = None

    def meet(self, c: Array, at: Codes) -> tuple[Array, Array]:
        """[X y]' V0^-1 c (t, m, r) and c' V0^-1 c (t, m) of covariances c (t, m, k) with the blocks `at`."""
        if self.lower is None:
            w = multiply_by_kind(self.inverse, c[..., None], self.kind[at])
            return multiply_by_kind(self.U.swapaxes(-1, -2)[None], w, at)[..., 0], np.asarray((w[..., 0] * c).sum(-1))
        # by substitution: what V0^-1 loses where V0 is near singular would be taken for variance that is left
        (B, k, r), root = self.U.shape, substitute(self.lower, c, self.kind[at])
        U = substitute(self.lower, self.U.swapaxes(-1, -2).reshape(1, -1, k), np.repeat(self.kind, r))
        return multiply_by_kind(U.reshape(-1, B, r, k), root[..., None], at)[..., 0], np.asarray((root**2).sum(-1))


def substitute(lower: Array, vectors: Array, kind: Codes) -> Array:
    """L^-1 v (t, m, k); lower : (t, C, k, k), vectors : (t, m, k), kind : (m,)."""
    found = np.empty(np.broadcast_shapes(vectors.shape, (len(lower), 1, 1)))
    for i in range(vectors.shape[-1]):
        row = lower[:, kind, i]
        found[..., i] = (vectors[..., i] - (row[..., :i] * found[..., :i]).sum(-1)) / row[..., i]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class ScaledBlocks:
    """One block of each kind in scaled rows: R0 and V0 (t, C, k, k)."""

    R: Array
    V: Array


def find_identical(kernel: BlockDiagonalKernel, batch: RowBatch) -> IdenticalSubjects:
    """The kinds of a batch, what they observed added up where that is less."""
    if isinstance(kernel, LowRankKernel) and batch.rows.shape[1] > LARGE_BLOCK:  # none is like another, and looking costs k^2
        return IdenticalSubjects(batch.rows, batch.block, np.arange(len(batch.rows)), np.ones(len(batch.rows)), None)
    found = find_kinds(kernel, batch)
    B, k = batch.block.shape
    if not TUNING.pools_patterns(B, len(found.count), k, kernel.data.r):
        return found
    return replace(found, G=sum_by_pattern(scaled_Xy(kernel, batch.rows), found.kind, len(found.count)))


def find_kinds(kernel: BlockDiagonalKernel, batch: RowBatch) -> IdenticalSubjects:
    """The kinds of a batch, nothing added up."""
    return _kinds(batch.rows, batch.block, features(kernel, batch))


def error_kinds(design: Design) -> list[tuple[Codes, IdenticalSubjects]]:
    """The rows (B, k) of the subjects of each size in the order of their visits, and which have the same R0."""
    assert design.residual is not None
    found = []
    for rows in order_rows(design, design.residual.subject.codes):
        block = block_of(design, rows)
        found.append((rows, _kinds(rows, block, _as_features(_errors_depend_on(block), len(rows)))))
    return found


def _kinds(rows: Codes, block: BlockRows, seen: Array) -> IdenticalSubjects:
    """Blocks of which the same is seen (B, any) are of one kind."""
    first, kind = equal_rows(seen)
    return IdenticalSubjects(rows[first], block.part(first), kind, np.bincount(kind).astype(float), None)


def _errors_depend_on(block: BlockRows) -> list[Array]:
    """All that R0 of a block depends on, (B, ...) each."""
    seen = (block.group, block.place, block.distances, block.same)
    return [np.asarray(part, float) for part in seen if part is not None]


def _as_features(parts: list[Array], blocks: int) -> Array:
    """(B, any)."""
    return np.concatenate([round_values(part.reshape(blocks, -1)) for part in parts], axis=1)


def features(kernel: BlockDiagonalKernel, batch: RowBatch) -> Array:
    """All that V0 of a block depends on, (B, any)."""
    found = _errors_depend_on(batch.block) + _scales_depend_on(kernel, batch.rows)
    for term in kernel.data.terms:
        found += [term.Z[batch.rows], level_mask(term, batch.rows)]
    return _as_features(found, len(batch.rows))


def _scales_depend_on(kernel: BlockDiagonalKernel, rows: Codes) -> list[Array]:
    """All that weights and the variance function see of blocks of rows (B, k), (B, k) each."""
    weights, variance = kernel.data.log_weight_scale, kernel.variance
    found = [] if weights is None else [weights[rows]]
    found += [value[rows] for value in variance.values if value is not None]
    return found + [np.asarray(factor.strata[rows], float) for factor in variance.factors if factor.strata is not None]


def find_row_kinds(kernel: BlockDiagonalKernel, design: Design) -> tuple[Codes, Array]:
    """One row of all whose errors have the same variance, and how many they are, (C,) each."""
    rows = np.arange(design.nobs)[:, None]
    block = block_of(design, rows)
    found = _kinds(rows, block, _as_features(_errors_depend_on(block) + _scales_depend_on(kernel, rows), len(rows)))
    return found.rows[:, 0], found.count


def round_values(values: Array) -> Array:
    """Equal where values agree but for rounding."""
    # each by its own size: beside the largest of a column that goes over many orders the small ones would all be 0
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(np.ldexp(mantissa, SAME_BITS)), exponent - SAME_BITS) + 0.0)


def row_scale(kernel: BlockDiagonalKernel, rows: Codes) -> Array | float:
    """What rows are divided by, (B, k, 1)."""
    log_scale = kernel.data.log_weight_scale
    return 1.0 if log_scale is None else np.asarray(np.exp(log_scale[rows])[..., None])


def scaled_Xy(kernel: BlockDiagonalKernel, rows: Codes) -> Array:
    """[X y] (B, k, r) in scaled rows."""
    return np.asarray(kernel.data.Xy[rows] / row_scale(kernel, rows))


def scaled_columns(kernel: BlockDiagonalKernel, rows: Codes) -> list[Array]:
    """Z (B, k, q) of every term in scaled rows."""
    scale = row_scale(kernel, rows)
    return [np.asarray(data.Z[rows] / scale) for data in kernel.data.terms]


@dataclass(frozen=True, slots=True, eq=False)
class RowInverses:
    """Of rows (B, k) at t points: what divides them (t or 1, B, k), the diagonal of V0^-1 (t, B, k) and V0^-1 [X y] (t, B, k, r)."""

    rows: Codes
    scale: Array
    diagonal: Array
    products: Array


@dataclass(frozen=True, slots=True, eq=False)
class PooledSubjectsKernel:
    """The values of a kernel of structured errors at many x; kinds : of every batch of rows."""

    kernel: BlockDiagonalKernel
    kinds: tuple[IdenticalSubjects, ...]

    @property
    def cells(self) -> int:
        """Array elements that one x asks for."""
        data = self.kernel.data
        if self.low_rank is not None:
            return sum(int(batch.rows.size) * (2 * data.r + 3 * self.low_rank.columns_of(batch)) for batch in data.rows)
        return self._dense_cells

    @property
    def _dense_cells(self) -> int:
        data = self.kernel.data
        shapes = [own.block.shape for own in self.kinds] + [group.block.shape for group in data.pooled]
        return sum(4 * B * k * (k + data.r) for B, k in shapes)

    @property
    def draw_cells(self) -> int:
        """Array elements that a draw of the random effects at one x asks for."""
        data = self.kernel.data
        rows = sum(4 * int(batch.rows.size) for batch in data.rows)
        return self.cells + rows + sum(3 * term.K * int(term.Z.shape[1]) for term in data.terms)

    @property
    def low_rank(self) -> LowRankKernel | None:
        """The kernel whose low rank costs less at each x than all dense blocks at many."""
        return self.kernel if isinstance(self.kernel, LowRankKernel) and self._dense_cells > LOW_RANK_CELLS else None

    def solve(self, x: Array) -> Solution:
        """The profile in alpha at x (t, size)."""
        kernel = self.kernel
        if self.low_rank is not None:
            return self.low_rank.solve(x)
        t, r = len(x), kernel.data.r
        log_scale = kernel.data.log_weight_scale
        logdet = np.full(t, 0.0 if log_scale is None else 2.0 * float(log_scale.sum()))
        Xy = np.zeros((t, r, r))
        for batch, kind in zip(kernel.data.rows, self.kinds, strict=True):
            part, own = self._rows(batch, kind, x)
            logdet += part
            Xy += own
        for group in kernel.data.pooled:
            R = many_matrices(kernel.structure, x[:, kernel.residual_part], group.block)
            part, own = self._sum_kinds(R, group.count, group.G)
            logdet += part
            Xy += own
        return solve_Xy(logdet, 0.5 * (Xy + Xy.swapaxes(-1, -2)))

    def _rows(self, batch: RowBatch, kind: IdenticalSubjects, x: Array) -> tuple[Array, Array]:
        V, r = self.factorize_kind(kind, x).V, self.kernel.data.r
        if kind.G is not None:
            return self._sum_kinds(V, kind.count, kind.G)
        L, U = np.linalg.cholesky(V), scaled_Xy(self.kernel, batch.rows)
        logdet = _logdets(L) @ kind.count
        if len(kind.count) < len(kind.kind):
            L = L[:, kind.kind]
        half = np.linalg.solve(L, np.broadcast_to(U, (*L.shape[:-1], r))).reshape(len(x), -1, r)
        return logdet, half.swapaxes(-1, -2) @ half

    def factorize_kind(self, kind: IdenticalSubjects, x: Array) -> ScaledBlocks:
        """The blocks of every kind at many x."""
        kernel = self.kernel
        R = many_matrices(kernel.structure, x[:, kernel.residual_part], kind.block)
        if kernel.variance.size:
            v = np.exp(kernel.variance.log_multipliers(x[:, kernel.variance_part], kind.rows))
            R = v[..., None] * R * v[..., None, :]
        V = R
        for Z, term, data in zip(scaled_columns(kernel, kind.rows), kernel.random.terms, kernel.data.terms, strict=True):
            D = term.covariance.matrix(x[:, term.part])
            V = V + (Z @ D[:, None] @ Z.swapaxes(-1, -2)) * level_mask(data, kind.rows)
        return ScaledBlocks(R, V)

    def all_rows(self) -> list[tuple[RowBatch, IdenticalSubjects]]:
        """Every batch of rows, those of subjects that were added up too, with its kinds."""
        data = self.kernel.data
        pooled = [(batch, find_kinds(self.kernel, batch)) for batch in data.pooled_rows]
        return [*zip(data.rows, self.kinds, strict=True), *pooled]

    def invert_blocks(self, blocks: list[tuple[RowBatch, IdenticalSubjects]], x: Array) -> Iterator[InvertedBlocks]:
        """V0^-1 of some batches at many x, their rows divided by the weights alone."""
        require_dense([batch for batch, _ in blocks])
        for batch, kind in blocks:
            yield InvertedBlocks(batch.rows, scaled_Xy(self.kernel, batch.rows), np.linalg.inv(self.factorize_kind(kind, x).V), kind.kind)

    def row_inverses(self, blocks: list[tuple[RowBatch, IdenticalSubjects]], x: Array) -> Iterator[RowInverses]:
        """What single rows need of V0^-1 of some batches at many x."""
        if self.low_rank is not None:
            for number, batch in enumerate(self.kernel.data.rows):
                parts = [self.low_rank.evaluate_one(own).blocks[number] for own in x]
                diagonal, products = (np.stack(found) for found in zip(*(part.row_inverses() for part in parts), strict=True))
                log_scales = [np.zeros(self.kernel.data.n) if (own := self.kernel.log_scale(row)[0]) is None else own for row in x]
                yield RowInverses(batch.rows, np.exp(np.stack(log_scales)[:, batch.rows]), diagonal, products)
            return
        for part in self.invert_blocks(blocks, x):
            diagonal = np.diagonal(part.inverse, axis1=-2, axis2=-1)[:, part.kind]
            scale = np.broadcast_to(row_scale(self.kernel, part.rows), (*part.rows.shape, 1))[None, ..., 0]
            yield RowInverses(part.rows, scale, diagonal, multiply_by_kind(part.inverse, part.U[None], part.kind))

    def _sum_kinds(self, V: Array, count: Array, G: Array) -> tuple[Array, Array]:
        """log |V| and [X y] of blocks added up."""
        L = np.linalg.cholesky(V)
        Li = np.linalg.inv(L)
        inverse = (Li.swapaxes(-1, -2) @ Li).reshape(len(V), -1)
        r = self.kernel.data.r
        return _logdets(L) @ count, (inverse @ G.reshape(inverse.shape[1], r * r)).reshape(len(V), r, r)


def _logdets(L: Array) -> Array:
    """log |L L'|, (t, B)."""
    return np.asarray(2.0 * np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(-1))


def pool_subjects(kernel: BlockDiagonalKernel) -> PooledSubjectsKernel:
    """A kernel's values at many x."""
    return PooledSubjectsKernel(kernel, tuple(find_identical(kernel, batch) for batch in kernel.data.rows))
