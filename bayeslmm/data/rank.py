"""Which columns of X depend on earlier ones: decided on centred and scaled columns, so that units and origins do not matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array

# A column whose part outside the earlier ones is below this fraction of its length is a combination of them: far above rounding (1e-15),
# far below anything that data could mean (x and x + 1e-6 z are two columns).
TOLERANCE = 1e-9
CONDITION_LIMIT = 1e5
_SAFE = 1e-6  # squared fraction above which the cross-products, which square the condition, still decide
_CONSTANT = 1e-14  # a column that moves less than this about its mean is constant to rounding


@dataclass(frozen=True, slots=True)
class Rank:
    """kept : positions of independent columns, in order; condition : of those, scaled, and centred where they hold a constant."""

    kept: tuple[int, ...]
    condition: float


def rank(X: Array, *, intercept: bool) -> Rank:
    """The columns that do not depend on earlier ones.

    intercept : whether the first column is constant
    """
    rows, size = X.shape
    if size <= rows and size - intercept <= 1:
        independent, condition = size == intercept or _moves(X[:, -1], centred=intercept), 1.0
    else:
        root = _plain_root(X, intercept=intercept)
        independent, condition = root is not None, 1.0 if root is None else float(np.linalg.cond(root))
    return Rank(tuple(range(size)), condition) if independent else _orthogonalised(X)


def _moves(column: Array, *, centred: bool) -> bool:
    """Whether cross-products say that a column is not 0, or not constant; what they leave in doubt they do not say."""
    raw, total = float(column @ column), float(column.sum()) if centred else 0.0
    return raw - total * total / len(column) > _SAFE * raw


def _plain_root(X: Array, *, intercept: bool) -> Array | None:
    """A Cholesky factor of the correlations, where it says full rank: one pass over the rows, enough for all but doubtful designs."""
    rows, size = X.shape
    if rows < size:
        return None
    gram = X.T @ X
    raw = np.diag(gram).copy()
    if intercept:
        gram = gram[1:, 1:] - np.outer(gram[0, 1:], gram[0, 1:]) / rows
        raw = raw[1:]
    scale = np.diag(gram)
    if not (scale > _SAFE * raw).all():
        return None
    sizes = np.sqrt(scale)
    try:
        root = np.linalg.cholesky(gram / (sizes[:, None] * sizes))
    except np.linalg.LinAlgError:
        return None
    return root if (np.diag(root) ** 2 > _SAFE).all() else None


def _orthogonalised(X: Array) -> Rank:
    """Gram-Schmidt, twice, column by column; columns are centred as soon as the constant is in the span of those before."""
    rows, size = X.shape
    Q = np.empty((rows, min(rows, size)))
    R = np.zeros((size, size))
    constant = np.full(rows, 1.0 / np.sqrt(rows))  # what of the constant is outside the span so far
    centred = False
    kept: list[int] = []
    for j in range(size):
        column = X[:, j] - X[:, j].mean() if centred else X[:, j].copy()
        length, raw = float(np.linalg.norm(column)), float(np.linalg.norm(X[:, j]))
        if length <= _CONSTANT * raw or len(kept) == rows:
            continue
        column /= length
        basis = Q[:, : len(kept)]
        for _ in range(2):
            part = basis.T @ column
            column -= basis @ part
            R[: len(kept), len(kept)] += part
        outside = float(np.linalg.norm(column))
        if outside <= TOLERANCE:
            R[:, len(kept)] = 0.0
            continue
        Q[:, len(kept)] = column / outside
        R[len(kept), len(kept)] = outside
        constant -= Q[:, len(kept)] * (Q[:, len(kept)] @ constant)
        kept.append(j)
        centred = centred or bool(np.linalg.norm(constant) < 1e-8)
    independent = R[: len(kept), : len(kept)]
    return Rank(tuple(kept), float(np.linalg.cond(independent)) if kept else 1.0)
