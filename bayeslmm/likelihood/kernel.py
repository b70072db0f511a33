"""The protocols `Kernel` and `State`, and the generalised least-squares `Solution`."""

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
