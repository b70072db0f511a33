"""Columns brought to a scale and an origin at which arithmetic is exact, and the way back.

A REML criterion cannot depend on where x starts, nor on its unit. So X is centred and orthogonalised, y replaced by its least-squares
residual in units of its own size, and the columns of each random term changed as far as the term's covariance structure is closed under
the change: any invertible map for an unstructured D, one factor per column for a diagonal one, one common factor otherwise. Weights are
brought to mean 1. Rows are read in pieces, so no second copy of the data is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.data.design import Design, RandomTerm

ROWS = 1 << 16
"""Rows worked on at once."""

NARROW = 16
"""Columns up to which a matrix of rows is worked on column by column."""

SURE = 1e-6
"""A determinant of unit columns above this is no near collinearity, for as many columns as a random term has."""

SAFE_CONDITION = 1e-11
"""Columns of a random term nearer to collinear than this are only scaled, not whitened."""


def pieces(n: int) -> Iterator[slice]:
    for begin in range(0, n, ROWS):
        yield slice(begin, min(begin + ROWS, n))


@dataclass(frozen=True, slots=True, eq=False)
class ColumnMap:
    """Z -> (Z - 1 c') M for one random term, where the constant is one of the columns of Z (or c = 0).

    whole : (q, q) the same change as one matrix, Z -> Z whole; D on the user's scale is whole D whole'
    shared : whether the columns are those of X, and changed alike
    """

    center: Array
    matrix: Array
    whole: Array
    inverse: Array
    shared: bool = False

    def apply(self, Z: Array) -> Array:
        if len(self.matrix) == 1:
            return np.asarray(Z * self.matrix[0, 0])
        return centred(Z, self.center) @ self.matrix


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """The change of columns of a design.

    center : (p,) subtracted from the columns of X; B : (p, p) then applied, so that X_tilde = (X - 1 c') B
    back : (p, p) alpha = alpha0 + y_scale * back @ alpha_tilde
    alpha0 : (p,) least squares
    y_scale : y_tilde = (y - offset - X alpha0) / y_scale
    weight_mean : R_tilde = 1 / (w / weight_mean)
    logdet_X : log |R'R|, what log |X' V^-1 X| gains on the way back
    """

    center: Array
    B: Array
    back: Array
    alpha0: Array
    y_scale: float
    weight_mean: float
    logdet_X: float
    logdet_weights: float
    maps: tuple[ColumnMap, ...]

    def weights(self, design: Design, part: slice) -> Array | None:
        return None if design.weights is None else design.weights[part] / self.weight_mean

    def border(self, design: Design, part: slice) -> Array:
        """[X_tilde y_tilde] of a piece of the rows, (rows, p + 1)."""
        p = design.X.shape[1]
        out = np.empty((part.stop - part.start, p + 1))
        np.matmul(centred(design.X[part], self.center), self.B, out=out[:, :p])
        residual = design.y[part] - design.X[part] @ self.alpha0
        if design.offset is not None:
            residual -= design.offset[part]
        out[:, p] = residual / self.y_scale
        return out


def centred(columns: Array, center: Array) -> Array:
    """Columns less their centers, one by one: a short row taken from every row of a long matrix costs ten times that."""
    if len(center) > NARROW:
        return columns - center
    out = columns.copy()
    for j in np.flatnonzero(center):
        out[:, j] -= center[j]
    return out


def _means(columns: Array) -> Array:
    return sum((np.ones(part.stop - part.start) @ columns[part] for part in pieces(len(columns))), np.zeros(columns.shape[1])) / len(
        columns
    )


def _triangular(R: Array, block: Array) -> Array:
    """R of the QR factorisation of what was seen and a new piece."""
    return np.linalg.qr(np.vstack([R, block]) if len(R) else block, mode="r")


def _constant_column(X: Array) -> int | None:
    """The position of a column that holds one value other than 0 throughout."""
    for j in range(X.shape[1]):
        first = X[0, j]
        if first != 0.0 and X[-1, j] == first and np.all(X[:, j] == first):
            return j
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Whitening:
    """Columns centred where one is constant: center (q,), the change before @ R^-1, and R of the QR factorisation."""

    center: Array
    before: Array
    after: Array
    R: Array


def _whitening(columns: Array, root_weights: Array | None) -> _Whitening:
    size = columns.shape[1]
    center, before, after = np.zeros(size), np.eye(size), np.eye(size)
    constant = _constant_column(columns) if size > 1 else None
    if constant is not None:
        center = _means(columns)
        center[constant] = 0.0
        shift = center / columns[0, constant]
        before[constant] -= shift
        after[constant] += shift
    R = np.zeros((0, size))
    for part in pieces(len(columns)):
        block = centred(columns[part], center)
        R = _triangular(R, block if root_weights is None else block * root_weights[part, None])
    return _Whitening(center, before, after, R)


def _independent(R: Array) -> bool:
    """Whether the columns are far enough from collinear to be whitened."""
    size = np.sqrt((R**2).sum(axis=0))
    if not np.all(size > 0):
        return False
    # columns of unit length: the determinant is a lower bound of the smallest singular value, up to q^((q-1)/2)
    if float(np.abs(R.diagonal() / size).prod()) > SURE:
        return True
    return bool(np.linalg.cond(R / size) < 1.0 / SAFE_CONDITION)


def _column_map(term: RandomTerm, root_weights: Array | None, known: _Whitening | None) -> ColumnMap:
    """known : the whitening of the term's columns where they are those of X."""
    Z, q = term.Z, term.Z.shape[1]
    kind = term.covariance.invariance
    if kind == "any" and q > 1:
        white = known or _whitening(Z, root_weights)
        if _independent(white.R):
            M = np.linalg.inv(white.R) * np.sqrt(len(Z))
            # the way back goes through R, not through the inverse of a product
            return ColumnMap(white.center, M, white.before @ M, (white.R / np.sqrt(len(Z))) @ white.after, known is not None)
    size = np.sqrt(np.mean(Z**2, axis=0))
    if kind == "scalar":
        size = np.full(q, np.sqrt(np.mean(size**2)))
    size = np.where(size > 0, size, 1.0)
    return ColumnMap(np.zeros(q), np.diag(1.0 / size), np.diag(1.0 / size), np.diag(size))


def condition(design: Design) -> Conditioning:
    """Find the change of columns for a design whose X has full column rank."""
    X, y, w = design.X, design.y, design.weights
    n, p = X.shape
    weight_mean = 1.0 if w is None else float(np.mean(w))
    root = None if w is None else np.sqrt(w / weight_mean)
    white = _whitening(X, root)
    center, R = white.center, white.R
    # Q has orthonormal columns; times sqrt(n), its columns have the size of a constant 1
    scale = np.sqrt(n)
    B = np.linalg.inv(R) * scale if p else np.zeros((0, 0))
    alpha = np.zeros(p)
    for part in pieces(n):
        block = centred(X[part], center) @ B
        target = y[part] if design.offset is None else y[part] - design.offset[part]
        if root is not None:
            block, target = block * root[part, None], target * root[part]
        alpha += block.T @ target
    back = white.before @ B
    alpha0 = back @ (alpha / n)
    total = 0.0
    for part in pieces(n):
        residual = y[part] - X[part] @ alpha0
        if design.offset is not None:
            residual = residual - design.offset[part]
        if root is not None:
            residual = residual * root[part]
        total += float(residual @ residual)
    y_scale = float(np.sqrt(total / n)) or 1.0
    logdet_X = 2.0 * float(np.log(np.abs(np.diagonal(R)) / scale).sum()) if p else 0.0
    logdet_weights = 0.0 if w is None else float(np.log(w / weight_mean).sum())
    maps = tuple(_column_map(term, root, white if term.Z is X else None) for term in design.terms)
    return Conditioning(center, B, back, alpha0, y_scale, weight_mean, logdet_X, logdet_weights, maps)
