"""Standardization: columns brought to a scale and an origin at which arithmetic is exact, and the way back.

A REML criterion cannot depend on where x starts, nor on its unit. So X is centred and orthogonalised, y replaced by its least-squares
residual in units of its own size, and the columns of each random term changed as far as the term's covariance structure is closed under
the change: any invertible map for an unstructured D, one factor per column for a diagonal one, one common factor otherwise. Weights are
brought to mean 1. Rows are read in pieces, so no second copy of the data is held.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import lapack, solve_triangular

from bayeslmm._arrays import Array, readonly
from bayeslmm.data.design import Design, RandomTerm

ROWS_AT_ONCE = 1 << 16
"""Rows worked on at once."""

SURE_DETERMINANT = 1e-6
"""A determinant of unit columns above this is no near collinearity, for as many columns as a random term has."""

FAR_START = 1024.0
"""Standard deviations from 0 beyond which a column's part in a sum is found about its own mean."""

ROUNDED_MOVE = 4 * sys.float_info.epsilon
"""Rounding of a sum of products, relative to their sizes."""

LOST = 1e-2
"""Relative rounding from which a row of products of far covariates says nothing."""

SAFE_CONDITION = 1e-11
"""Columns of a random term nearer to collinear than this are only scaled, not whitened."""


def row_pieces(n: int) -> Iterator[slice]:
    for begin in range(0, n, ROWS_AT_ONCE):
        yield slice(begin, min(begin + ROWS_AT_ONCE, n))


@dataclass(frozen=True, slots=True, eq=False)
class ColumnMap:
    """Z -> (Z - 1 c') M for one random term, where the constant is one of the columns of Z (or c = 0).

    whole : (q, q) the same change as one matrix, Z -> Z whole; D on the user's scale is whole D whole'
    shared : whether the columns are those of X, and changed alike
    moves : (q, q) what covariates' origins are taken off by before anything else, as in `NearColumns`; None where they count for nothing
    far : whether a column is so far from 0, in units of its own spread, that sums over the user's columns lose digits
    """

    center: Array
    matrix: Array
    whole: Array
    inverse: Array
    shared: bool = False
    moves: Array | None = None
    far: bool = False

    def apply(self, Z: Array) -> Array:
        return np.ascontiguousarray(self.columns(Z).T)

    def columns(self, Z: Array) -> Array:
        """The same column by column, (q, rows)."""
        if len(self.matrix) == 1:
            return np.asarray(Z.T * self.matrix[0, 0])
        return np.asarray(self.matrix.T @ _center(Z if self.moves is None else Z @ self.moves, self.center))


@dataclass(frozen=True, slots=True, eq=False)
class Standardization:
    """The change of columns of a design.

    moves : (p, p) what takes X about the origins of its covariates, as in `NearColumns`; None where that is X itself
    center : (p,) subtracted from those columns; B : (p, p) then applied, so that X_tilde = (X moves - 1 c') B
    spread : (p,) root mean square of the columns about it
    before : (p, p) with X moves - 1 c' = X moves before; after : (p, p) the inverse of moves before
    back : (p, p) = moves before B, alpha = alpha0 + y_scale * back @ alpha_tilde
    alpha0 : (p,) least squares; least_squares : (p,) the same on standardized columns, alpha0 = back @ least_squares
    near_alpha0 : (p,) the same of the columns about the origins
    far : whether a column is so far from 0, in units of its own spread, that sums over the user's columns lose digits
    y_scale : y_tilde = (y - offset - X alpha0) / y_scale
    weight_mean : R_tilde = 1 / (w / weight_mean)
    logdet_X : log |R'R|, what log |X' V^-1 X| gains on the way back
    """

    moves: Array | None
    center: Array
    spread: Array
    B: Array
    before: Array
    after: Array
    back: Array
    alpha0: Array
    near_alpha0: Array
    least_squares: Array
    y_scale: float
    weight_mean: float
    logdet_X: float
    logdet_weights: float
    maps: tuple[ColumnMap, ...]
    far: bool

    def functions(self, L: Array) -> Array:
        """Functions of the user's coefficients (r, p) as functions of standardized ones; origins are taken off before anything is added.

        NaN of which the rounding of products of far covariates leaves nothing.
        """
        if self.moves is None:
            return np.asarray((L @ self.before) @ self.B)
        return self._without_lost(L, (L @ self.moves) @ self.before) @ self.B

    def _without_lost(self, L: Array, centred: Array) -> Array:
        """NaN for rows (r, p) of centred columns in which rounding is not small beside the largest, each in units of its own spread."""
        assert self.moves is not None
        rounding = ROUNDED_MOVE * (np.abs(L) @ np.abs(self.moves))
        lost = (rounding / self.spread).max(axis=-1) > LOST * (np.abs(centred) / self.spread).max(axis=-1)
        return np.where(lost[..., None], np.nan, centred)

    def user_functions(self, own: Array) -> Array:
        """The inverse of `functions`."""
        moved = solve_triangular(self.B, own.T, trans="T", check_finite=False).T if len(self.B) else own
        return np.asarray(moved @ self.after)

    def coefficients(self, alpha: Array) -> Array:
        """Conditioned coefficients (..., p) of the user's: the inverse of `back`."""
        moved = alpha @ self.after.T
        return np.asarray(solve_triangular(self.B, moved.T, check_finite=False).T) if len(self.B) else moved

    def rows(self, X: Array) -> Array:
        """Rows of the user's columns as rows of standardized ones, (r, p)."""
        if self.moves is None:
            return np.asarray((X - self.center) @ self.B)
        return self._without_lost(X, X @ self.moves - self.center) @ self.B

    def design_rows(self, design: Design) -> Array:
        """All rows of a design in memory as rows of standardized columns, (n, p)."""
        return np.asarray((design.near_X - self.center) @ self.B)

    def weights(self, design: Design, part: slice) -> Array | None:
        return None if design.weights is None else design.weights[part] / self.weight_mean

    def Xy(self, design: Design, part: slice) -> Array:
        """[X_tilde y_tilde] of a piece of the rows, (rows, p + 1)."""
        return np.ascontiguousarray(self.Xy_columns(design, part).T)

    def Xy_columns(self, design: Design, part: slice) -> Array:
        """The same column by column, (p + 1, rows)."""
        p = design.X.shape[1]
        out = np.empty((p + 1, part.stop - part.start))
        np.matmul(self.B.T, _center(design.near_X[part], self.center), out=out[:p])
        np.divide(_residual(design, self.near_alpha0, part), self.y_scale, out=out[p])
        return out


def _center(columns: Array, center: Array) -> Array:
    """Columns less their centers, each as a row: what lies side by side is worked on together."""
    out = np.array(columns.T, order="C")
    for j, c in enumerate(center.tolist()):
        if c != 0.0:
            out[j] -= c
    return out


def _response(design: Design, part: slice) -> Array:
    return design.y[part] if design.offset is None else design.y[part] - design.offset[part]


def _residual(design: Design, near_alpha: Array, part: slice) -> Array:
    residual = design.y[part] - design.near_X[part] @ near_alpha
    if design.offset is not None:
        residual -= design.offset[part]
    return residual


def _means(columns: Array) -> Array:
    return sum((np.ones(part.stop - part.start) @ columns[part] for part in row_pieces(len(columns))), np.zeros(columns.shape[1])) / len(
        columns
    )


@lru_cache(maxsize=64)
def _identity(size: int) -> Array:
    return readonly(np.eye(size))


@lru_cache(maxsize=64)
def _upper(size: int) -> Array:
    """Ones on and above the diagonal."""
    return readonly(np.tri(size).T.copy())


def _update_triangle(R: Array, rows: Array) -> Array:
    """R of the QR factorisation of what was seen and a new piece; rows (q, n), each a column."""
    size = len(rows)
    if size == 0:
        return np.zeros((0, 0))
    seen = np.hstack([R.T, rows]) if len(R) else rows
    packed = lapack.dgeqrf(seen.T, lwork=64 * size)[0][:size]
    return np.asarray(packed * _upper(size)[: len(packed)])


def upper_inverse(R: Array) -> Array:
    """The inverse of an upper triangle; LinAlgError where it has none."""
    if len(R) == 0:
        return np.zeros((0, 0))
    inverse, failed = lapack.dtrtri(R)
    if failed:
        raise np.linalg.LinAlgError("Singular matrix")
    return np.asarray(inverse)


def _constant_column(X: Array) -> int | None:
    """The position of a column that holds one value other than 0 throughout."""
    for j in range(X.shape[1]):
        first = X[0, j]
        if first != 0.0 and X[-1, j] == first and (X[:, j] == first).all():
            return j
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Whitening:
    """Columns centred where one is constant: center (q,), the change before @ R^-1, and R of the QR factorisation.

    rows : (q, n) the columns centred, each as a row; None where they do not fit in one piece
    """

    center: Array
    before: Array
    after: Array
    R: Array
    rows: Array | None

    def is_far(self, n: int) -> bool:
        """Whether a column starts far from 0."""
        return bool((np.abs(self.center) > FAR_START * np.linalg.norm(self.R, axis=0) / math.sqrt(n)).any())


def _find_whitening(columns: Array, root_weights: Array | None) -> _Whitening:
    n, size = columns.shape
    center, before, after = np.zeros(size), _identity(size), _identity(size)
    constant = _constant_column(columns) if size > 1 else None
    if constant is not None:
        center = _means(columns)
        center[constant] = 0.0
        shift = center / columns[0, constant]
        before, after = before.copy(), after.copy()
        before[constant] -= shift
        after[constant] += shift
    R, rows = np.zeros((0, size)), None
    for part in row_pieces(n):
        rows = _center(columns[part], center)
        R = _update_triangle(R, rows if root_weights is None else rows * root_weights[part])
    return _Whitening(center, before, after, R, rows if n <= ROWS_AT_ONCE else None)


def standardize_columns(columns: Array) -> Array:
    """The change (p, p) of independent columns to standardized ones."""
    white = _find_whitening(columns, None)
    return np.asarray(white.before @ upper_inverse(white.R) * math.sqrt(len(columns)))


def _independent(R: Array) -> bool:
    """Whether the columns are far enough from collinear to be whitened."""
    if len(R) < R.shape[1]:
        return False
    sizes, determinant = [], 1.0
    for j, column in enumerate(R.T.tolist()):
        size = math.hypot(*column)
        if not size > 0:
            return False
        sizes.append(size)
        determinant *= abs(column[j]) / size
    # columns of unit length: the determinant is a lower bound of the smallest singular value, up to q^((q-1)/2)
    return determinant > SURE_DETERMINANT or bool(np.linalg.cond(R / sizes) < 1.0 / SAFE_CONDITION)


def _combine(moves: Array | None, white: _Whitening) -> tuple[Array, Array]:
    """What takes the user's columns about their origins and centers them, and the way back."""
    if moves is None:
        return white.before, white.after
    # 1 - moves is nilpotent: the series ends, and loses nothing to pivots
    inverse = power = np.eye(len(moves))
    while (power := power @ (np.eye(len(moves)) - moves)).any():
        inverse = inverse + power
    return moves @ white.before, white.after @ inverse


def _column_map(term: RandomTerm, root_weights: Array | None, known: _Whitening | None) -> ColumnMap:
    """known : the whitening of the term's columns where they are those of X."""
    Z, q, moves = term.Z, term.Z.shape[1], term.moves
    kind = term.covariance.invariance
    scale = math.sqrt(len(Z))
    if kind == "any" and q > 1:
        white = known or _find_whitening(Z if moves is None else Z @ moves, root_weights)
        if _independent(white.R):
            M = upper_inverse(white.R) * scale
            # the way back goes through R, not through the inverse of a product
            before, after = _combine(moves, white)
            far = moves is not None or white.is_far(len(Z))
            return ColumnMap(white.center, M, before @ M, (white.R / scale) @ after, known is not None, moves, far)
    if q == 1:
        z = Z[:, 0]
        one = math.sqrt(float(z @ z)) / scale or 1.0
        M = np.array([[1.0 / one]])
        return ColumnMap(np.zeros(1), M, M, np.array([[one]]))
    size = np.sqrt(np.mean(Z**2, axis=0))
    if kind == "scalar":
        size = np.full(q, np.sqrt(np.mean(size**2)))
    size = np.where(size > 0, size, 1.0)
    return ColumnMap(np.zeros(q), np.diag(1.0 / size), np.diag(1.0 / size), np.diag(size))


def find_standardization(design: Design) -> Standardization:
    """Find the change of columns for a design whose X has full column rank."""
    return standardize_rows(design)[0]


def standardize_rows(design: Design) -> tuple[Standardization, Array | None]:
    """The change of columns, and what `Xy_columns` gives of all rows where they fit in one piece."""
    X, w = design.near_X, design.weights
    n, p = X.shape
    moves = None if design.near is None else design.near.moves
    weight_mean = 1.0 if w is None else float(np.mean(w))
    relative = None if w is None else w / weight_mean
    root = None if relative is None else np.sqrt(relative)
    white = _find_whitening(X, root)
    # Q has orthonormal columns; times sqrt(n), its columns have the size of a constant 1
    scale = math.sqrt(n)
    B = upper_inverse(white.R) * scale
    Xy = None if white.rows is None else np.empty((p + 1, n))
    alpha = np.zeros(p)
    for part in row_pieces(n):
        if Xy is not None and white.rows is not None:
            block = np.matmul(B.T, white.rows, out=Xy[:p])
        else:
            block = B.T @ _center(X[part], white.center)
        target = _response(design, part)
        alpha += block @ (target if relative is None else target * relative[part])
    before, after = _combine(moves, white)
    back = before @ B
    alpha0 = back @ (alpha / n)
    near_alpha0 = alpha0 if moves is None else white.before @ (B @ (alpha / n))
    total, residual = 0.0, np.zeros(0)
    for part in row_pieces(n):
        residual = _residual(design, near_alpha0, part)
        total += float(residual @ (residual if relative is None else residual * relative[part]))
    y_scale = math.sqrt(total / n) or sys.float_info.min  # no scale of a response that is reproduced to the bit, and `estimate` refuses it
    if Xy is not None:
        np.divide(residual, y_scale, out=Xy[p])
    logdet_X = 2.0 * sum(math.log(abs(v) / scale) for v in white.R.diagonal().tolist())
    logdet_weights = 0.0 if relative is None else float(np.log(relative).sum())
    maps = tuple(_column_map(term, root, white if term.Z is design.X else None) for term in design.terms)
    found = Standardization(
        moves=moves,
        center=white.center,
        spread=np.sqrt(np.einsum("ij,ij->j", white.R, white.R)) / scale,
        B=B,
        before=white.before,
        after=after,
        back=back,
        alpha0=alpha0,
        near_alpha0=near_alpha0,
        least_squares=alpha / n,
        y_scale=y_scale,
        weight_mean=weight_mean,
        logdet_X=logdet_X,
        logdet_weights=logdet_weights,
        maps=maps,
        far=moves is not None or white.is_far(n),
    )
    return found, Xy
