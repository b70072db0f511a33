"""The same cross-products with other columns of [X y]: combinations of them, another response, many responses at once.

Only the border of the cross-products knows of X and y; the blocks of the random effects stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.crossproducts import CrossProducts
from bayeslmm.likelihood.kernel import RandomEffectsKernel
from bayeslmm.likelihood.levels import LevelBlock
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.subjects import SubjectData, SubjectsKernel
from bayeslmm.likelihood.subjects_rows import PooledBatch


def recombined(criterion: Criterion, M: Array) -> Criterion:
    """The criterion of [X y] M, M (p + 1, s); the last of the s columns is the response."""
    kernel = criterion.kernel
    if isinstance(kernel, RandomEffectsKernel):
        moved: RandomEffectsKernel | SubjectsKernel = replace(kernel, cross=_cross(kernel.cross, M))
    else:
        assert isinstance(kernel, SubjectsKernel)
        moved = replace(kernel, data=_rows(kernel.data, M))
    return replace(criterion, p=M.shape[1] - 1, kernel=moved)


def _cross(cross: CrossProducts, M: Array) -> CrossProducts:
    border = M.T @ cross.border @ M
    first = cross.first
    if first is not None:
        first = LevelBlock(first.A, np.ascontiguousarray(np.einsum("ark,rs->ask", first.C, M)))
    V0 = None if cross.V0 is None else cross.V0 @ M
    return replace(cross, p=M.shape[1] - 1, border=0.5 * (border + border.T), first=first, V0=V0)


def _rows(data: SubjectData, M: Array) -> SubjectData:
    return replace(data, border=data.border @ M, pooled=tuple(_pooled(batch, M, data.r) for batch in data.pooled))


def _pooled(batch: PooledBatch, M: Array, r: int) -> PooledBatch:
    B, kk = batch.G.shape[:2]
    G = M.T @ batch.G.reshape(B, kk, r, r) @ M
    return replace(batch, G=np.ascontiguousarray(G).reshape(B, kk, -1))


def coefficient_held(problem: Problem, j: int, value: float) -> Criterion:
    """The criterion over the other coefficients, coefficient j of the columns kept held at a value (user's scale)."""
    c = problem.conditioning
    b = c.back[j]
    p = len(b)
    shift = (value - c.alpha0[j]) / c.y_scale / float(b @ b)
    # the coefficients that keep b' alpha are those of an orthonormal basis of what is orthogonal to b
    others = np.linalg.qr(b[:, None], mode="complete")[0][:, 1:]
    M = np.zeros((p + 1, p))
    M[:p, : p - 1] = others
    M[:p, p - 1] = -shift * b
    M[p, p - 1] = 1.0
    return recombined(problem.criterion, M)
