"""Structured errors at many x at once: the blocks of every batch for all x in one Cholesky, pooled patterns in one matrix product.

Values only, and without a variance function, whose rows scale differently at every x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.likelihood.levels_kernel import Solution, solve_border
from bayeslmm.likelihood.residual_structure import Block, Grouped, ResidualStructure, SpatialStructure
from bayeslmm.likelihood.subjects import SubjectsKernel, level_mask
from bayeslmm.likelihood.subjects_rows import PooledBatch, RowBatch


def many_matrices(structure: ResidualStructure, phi: Array, block: Block) -> Array:
    """R0 (t, B, k, k) at phi (t, size)."""
    B, k = block.shape
    if not isinstance(structure, Grouped):
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
class ScaledRows:
    """A batch of blocks in scaled rows: U (B, k, r), Z (B, k, q) of every term, R0 and V0 (t, B, k, k)."""

    U: Array
    Z: tuple[Array, ...]
    R: Array
    V: Array


@dataclass(frozen=True, slots=True, eq=False)
class PatternKernel:
    """The values of a kernel of structured errors at many x."""

    kernel: SubjectsKernel

    @property
    def cells(self) -> int:
        """Array elements that one x asks for."""
        data = self.kernel.data
        shapes = [batch.block.shape for batch in data.rows] + [group.block.shape for group in data.pooled]
        return sum(4 * B * k * (k + data.r) for B, k in shapes)

    def solve(self, x: Array) -> Solution:
        """The profile in alpha at x (t, size)."""
        kernel = self.kernel
        t, r = len(x), kernel.data.r
        log_scale = kernel.data.log_weight_scale
        logdet = np.full(t, 0.0 if log_scale is None else 2.0 * float(log_scale.sum()))
        border = np.zeros((t, r, r))
        for batch in kernel.data.rows:
            part, own = self._rows(batch, x)
            logdet += part
            border += own
        for group in kernel.data.pooled:
            part, own = self._pooled(group, x)
            logdet += part
            border += own
        return solve_border(logdet, 0.5 * (border + border.swapaxes(-1, -2)))

    def _rows(self, batch: RowBatch, x: Array) -> tuple[Array, Array]:
        rows, r = self.scaled(batch, x), self.kernel.data.r
        L = np.linalg.cholesky(rows.V)
        half = np.linalg.solve(L, np.broadcast_to(rows.U, (*L.shape[:-1], r))).reshape(len(x), -1, r)
        return _logdets(L).sum(1), half.swapaxes(-1, -2) @ half

    def scaled(self, batch: RowBatch, x: Array) -> ScaledRows:
        """The blocks of a batch at many x."""
        kernel = self.kernel
        log_scale = kernel.data.log_weight_scale
        scale = 1.0 if log_scale is None else np.exp(log_scale[batch.rows])[..., None]
        R = many_matrices(kernel.structure, x[:, kernel.residual_part], batch.block)
        V, Zs = R, []
        for term, data in zip(kernel.random.terms, kernel.data.terms, strict=True):
            Z = data.Z[batch.rows] / scale
            D = term.covariance.matrix(x[:, term.part])
            V = V + (Z @ D[:, None] @ Z.swapaxes(-1, -2)) * level_mask(data, batch.rows)
            Zs.append(Z)
        return ScaledRows(kernel.data.border[batch.rows] / scale, tuple(Zs), R, V)

    def _pooled(self, group: PooledBatch, x: Array) -> tuple[Array, Array]:
        L = np.linalg.cholesky(many_matrices(self.kernel.structure, x[:, self.kernel.residual_part], group.block))
        Li = np.linalg.inv(L)
        inverse = (Li.swapaxes(-1, -2) @ Li).reshape(len(x), -1)
        r = self.kernel.data.r
        return _logdets(L) @ group.count, (inverse @ group.G.reshape(inverse.shape[1], r * r)).reshape(len(x), r, r)


def _logdets(L: Array) -> Array:
    """log |L L'|, (t, B)."""
    return np.asarray(2.0 * np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(-1))


def pattern_kernel(kernel: SubjectsKernel) -> PatternKernel | None:
    """A kernel's values at many x; None where a variance function scales rows."""
    return None if kernel.variance.size else PatternKernel(kernel)
