"""Hypothesis matrices of types 1, 2 and 3 on the columns of GLM coding, as SAS builds them.

Type 1 tests an effect adjusted for those before it; type 2 for all that do not contain it; type 3 by estimable functions that do not
involve effects that do not contain it, and that are orthogonal to those that involve only effects containing it (SAS/STAT, "The Four
Types of Estimable Functions"). Each matrix is (m, P), m being the numerator degrees of freedom; m = 0 where nothing is left to test.
"""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array, frozen
from bayeslmm.spec.sas.effects import contains
from bayeslmm.spec.sas.glm import GLMLayout, RowSpace

_NEGLIGIBLE = 1e-9


def hypothesis(layout: GLMLayout, space: RowSpace, effect: int, kind: int) -> Array:
    """L (m, P) of the test of one effect; kind is 1, 2 or 3.

    effect : position in `layout.effects`
    """
    if kind == 1:
        return frozen(_type1(layout, space, effect))
    return frozen(_type2(layout, effect) if kind == 2 else _type3(layout, space, effect))


def _type1(layout: GLMLayout, space: RowSpace, effect: int) -> Array:
    """The effect's rows of the triangle of the kept columns: sums of squares in the order of the model."""
    R = np.linalg.qr(layout.X[:, space.kept], mode="r")
    block = layout.blocks[effect]
    mine = (space.kept >= block.start) & (space.kept < block.stop)
    rows = R[mine] / np.diag(R)[mine][:, None]
    return _tidy(np.asarray(rows @ space.C))


def _type2(layout: GLMLayout, effect: int) -> Array:
    """X_E' M [X_E X_F]: M projects on what the effects that do not contain E leave, X_F are the columns of those that contain it."""
    others, containing = _sides(layout, effect)
    block = layout.blocks[effect]
    Q = _orthonormal(layout.X[:, others])
    mine = layout.X[:, block]
    left = mine - Q @ (Q.T @ mine)
    L = np.zeros((mine.shape[1], layout.X.shape[1]))
    for columns in (block, containing):
        L[:, columns] = left.T @ layout.X[:, columns]
    return _hermite(_independent(L, float(np.linalg.norm(mine)) * float(np.linalg.norm(layout.X[:, ~others]))), block)


def _type3(layout: GLMLayout, space: RowSpace, effect: int) -> Array:
    others, containing = _sides(layout, effect)
    rows = space.C
    free = _left_null(rows[:, others]) @ rows
    if containing.any():
        only = _left_null(free[:, layout.blocks[effect]]) @ free
        Q = _orthonormal(only.T)
        free = free - (free @ Q) @ Q.T
    return _hermite(_independent(free, 1.0), layout.blocks[effect])


def _sides(layout: GLMLayout, effect: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the columns of the other effects: those that do not contain this one, those that do."""
    others = np.zeros(len(layout.columns), dtype=np.bool_)
    containing = others.copy()
    for k, (other, block) in enumerate(zip(layout.effects, layout.blocks, strict=True)):
        if k != effect:
            side = containing if contains(other, layout.effects[effect]) else others
            side[block] = True
    return others, containing


def _orthonormal(A: Array) -> Array:
    """An orthonormal basis of the columns of A."""
    if A.size == 0:
        return np.zeros((A.shape[0], 0))
    length = np.sqrt(np.einsum("ij,ij->j", A, A))
    U, s, _ = np.linalg.svd(A[:, length > 0] / length[length > 0], full_matrices=False)
    return np.asarray(U[:, s > _NEGLIGIBLE * s.max(initial=0.0)])


def _left_null(A: Array) -> Array:
    """Rows N, orthonormal, with N A = 0."""
    if A.shape[1] == 0:
        return np.eye(A.shape[0])
    length = np.abs(A).max(axis=0, initial=0.0)
    U, s, _ = np.linalg.svd(A / np.where(length > 0, length, 1.0))
    rank = int((s > _NEGLIGIBLE * s.max(initial=0.0)).sum())
    return np.asarray(U[:, rank:].T)


def _independent(L: Array, scale: float) -> Array:
    """As many rows as the rank, spanning the rows of L; what is below 1e-9 of the scale is rounding."""
    if L.size == 0:
        return np.zeros((0, L.shape[1]))
    _, s, Vt = np.linalg.svd(L, full_matrices=False)
    return np.asarray(Vt[s > _NEGLIGIBLE * max(scale, s.max(initial=0.0))])


def _hermite(L: Array, block: slice) -> Array:
    """The same rows in echelon form on the columns of the effect, as SAS prints them: each starts with a 1 where the others have 0."""
    L = L.copy()
    row = 0
    for column in range(block.start, block.stop):
        if row == len(L):
            break
        pivot = row + int(np.argmax(np.abs(L[row:, column])))
        if abs(L[pivot, column]) > _NEGLIGIBLE:
            L[[row, pivot]] = L[[pivot, row]]
            L[row] /= L[row, column]
            rest = np.arange(len(L)) != row
            L[rest] -= np.outer(L[rest, column], L[row])
            row += 1
    return _tidy(L)


def _tidy(L: Array) -> Array:
    return np.where(np.abs(L) < 1e-12, 0.0, L)
