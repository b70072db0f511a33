"""Which functions of the coefficients the rows of a design determine: the one definition of rank for tests, means and predictions.

Everything is decided on standardized columns, so that neither the unit nor the origin of a covariate counts. An aliased column is, over the
rows, a combination X~ a of standardized columns; a function of all coefficients is estimable just when its part on that column is a too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array
from bayeslmm.data.design import Design
from bayeslmm.data.identifiability import column_rank
from bayeslmm.likelihood.standardize import Standardization

DEPENDENT_ROWS = 1e-8
"""Relative size of a direction of unit rows below which it is a combination of the others."""

ROUNDED = 1e-12
"""Share of a column that is left of it by rounding when the others explain it."""

EPSILON = float(np.finfo(float).eps)


def full_rank(X: Array) -> bool:
    """Whether columns are independent, wherever they start and whatever their units; False where rows are as few as columns."""
    n, p = X.shape
    constant = p > 0 and n > 0 and X[0, 0] != 0.0 and bool((X[:, 0] == X[0, 0]).all())
    return bool(n > p and len(column_rank(X, intercept=constant).kept) == p)


def left_null_space(M: Array, size: Array) -> Array:
    """Rows a (orthonormal) with a M = 0, (r, len(M)).

    size : (columns,) how long the columns of M were before something was taken off them: what is left by rounding is 0
    """
    length = np.linalg.norm(M, axis=0)
    own = M[:, length > ROUNDED * size] / length[length > ROUNDED * size]
    if own.shape[1] == 0:
        return np.eye(len(M))
    left, values, _ = np.linalg.svd(own)
    return np.asarray(left[:, int((values > ROUNDED * values.max()).sum()) :].T)


def basis(L: Array) -> tuple[Array, Array]:
    """An orthonormal basis (q, p) of the rows of L, and what makes it of rows of length 1: basis = (q, r) @ unit rows.

    L : (r, p) on standardized columns
    """
    left, values, _ = np.linalg.svd(L, full_matrices=False)
    independent = int((values > DEPENDENT_ROWS * values.max(initial=0.0)).sum()) if values.size else 0
    turn = left[:, :independent].T
    return np.asarray(turn @ L), turn


@dataclass(frozen=True, slots=True, eq=False)
class Aliases:
    """Aliased columns over the rows of the design, less their means where a constant is among the columns kept.

    gone : (a,) their positions among all coefficients; center : (a,) means; weights : (p, a) of standardized columns; size : (a,) rms
    constant : position of the constant among the columns kept, None without one
    """

    gone: tuple[int, ...]
    center: Array
    weights: Array
    size: Array
    constant: int | None

    @classmethod
    def of(cls, design: Design, standardization: Standardization) -> Aliases:
        """Those of a design."""
        kept = list(design.kept)
        gone = tuple(i for i in range(len(design.coef_names)) if i not in set(kept))
        every = design.encoding.fixed(design.frame)[0]
        columns = every[:, list(gone)]
        flat = [j for j, i in enumerate(kept) if every[0, i] == 1.0 and bool((every[:, i] == 1.0).all())]
        constant = flat[0] if flat else None
        center = columns.mean(axis=0) if constant is not None else np.zeros(len(gone))
        columns = columns - center
        X = (design.X - standardization.center) @ standardization.B
        size = np.sqrt(np.mean(columns**2, axis=0))
        # an empty cell has a column of zeros: the other columns of its term say how large it would be
        terms = [design.coef_terms[i] for i in range(len(design.coef_names))]
        rms = np.sqrt(np.mean(every**2, axis=0))
        typical = np.array([max((rms[i] for i, term in enumerate(terms) if term == terms[g]), default=0.0) for g in gone])
        nothing = size <= 64 * EPSILON * np.abs(center)
        size = np.where(nothing, np.where(typical > 0, typical, 1.0), size)
        return cls(gone, center, np.linalg.solve(X.T @ X, X.T @ columns), size, constant)

    def estimable(self, L: Array, own: Array) -> NDArray[np.bool_]:
        """(r,) which rows are.

        L : (r, all coefficients); own : (r, p) the part on the columns kept, as functions of standardized coefficients
        """
        lost = L[:, list(self.gone)]
        start = np.zeros(len(L)) if self.constant is None else L[:, self._all_constant(L)]
        shift = start[:, None] * self.center
        part = (lost - shift) / self.size
        gap = np.abs(part - own @ (self.weights / self.size))
        large = np.maximum(np.abs(own).max(axis=1, initial=0.0)[:, None], np.abs(part))
        rounding = 64 * EPSILON * (np.abs(lost) + np.abs(shift)) / self.size
        return np.asarray((gap <= DEPENDENT_ROWS * large + rounding).all(axis=1))

    def _all_constant(self, L: Array) -> int:
        """The constant's position among all coefficients."""
        assert self.constant is not None
        kept = np.setdiff1d(np.arange(L.shape[1]), self.gone)
        return int(kept[self.constant])
