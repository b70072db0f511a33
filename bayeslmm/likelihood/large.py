"""One large block of the Schur complement, every factor in it of one column: triangles, worked on by LAPACK where they lie.

Thousands of crossed levels are one block of hundreds of megabytes. It is written twice, U and the factor of S, and the factor becomes Q in
its own place when derivatives are asked for: a value alone needs no inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas, lapack

from bayeslmm.arrays import Array, symmetric

LARGE = 256
"""Columns from which a block of one theta is kept as triangles."""

VECTORS = 8
"""Products with up to this many vectors go one by one: a matrix product would first copy the triangle into a form of its own."""


def _times(triangle: Array, M: Array) -> Array:
    """The symmetric matrix with this lower triangle, times M (s, k)."""
    if M.shape[1] > VECTORS:
        return np.asarray(blas.dsymm(1.0, triangle.T, M, lower=0))
    out = np.empty_like(M)
    for j in range(M.shape[1]):
        out[:, j] = blas.dsymv(1.0, triangle.T, np.ascontiguousarray(M[:, j]), lower=0)
    return out


@dataclass(slots=True, eq=False)
class LargeBlock:
    """U, and either the Cholesky factor of S = Lambda U Lambda + I or Q = Lambda S^-1 Lambda.

    lower : (s, s) U on and below the diagonal; above it anything
    scale : (s,) the diagonal of Lambda
    local : for each factor present: its number, and its slice of the columns
    solved : (s, r) S^-1 Lambda v of the border v
    """

    lower: Array
    scale: Array
    local: Sequence[tuple[int, slice]]
    logdet: Array
    solved: Array
    _held: Array
    _inverted: bool = False

    @property
    def U(self) -> Array:
        """(1, 1, s, s), a new array."""
        return symmetric(self.lower)[None, None]

    @property
    def Q(self) -> Array:
        """(1, 1, s, s), a new array."""
        return symmetric(self._inverse())[None, None]

    def _inverse(self) -> Array:
        """Q on and below the diagonal, zeros above; takes the place of the factor."""
        if not self._inverted:
            self._held = lapack.dpotri(self._held.T, lower=0, overwrite_c=1)[0].T
            self._held *= self.scale
            self._held *= self.scale[:, None]
            self._inverted = True
        return self._held

    def lower_Q(self) -> Array:
        """Entries of Q on and below the diagonal, zeros above, (1, s s); not a copy."""
        return self._inverse().reshape(1, -1)

    def times_U(self, M: Array) -> Array:
        """U M for M (1, 1, s, k)."""
        return _times(self.lower, M[0, 0])[None, None]

    def times_Q(self, M: Array) -> Array:
        """Q M for M (1, 1, s, k)."""
        if self._inverted:
            return _times(self._held, M[0, 0])[None, None]
        return (self.scale[:, None] * _solve(self._held, self.scale[:, None] * M[0, 0]))[None, None]

    @property
    def Qv(self) -> Array:
        """Q v of the border, (1, 1, s, r)."""
        return (self.scale[:, None] * self.solved)[None, None]

    def solved_border(self, p: int) -> Array:
        """S^-1 Lambda V of the first p columns of the border, (1, 1, s, p)."""
        return self.solved[None, None, :, :p]

    def solved_rows(self, part: slice) -> Array:
        """S^-1 Lambda V of one factor's columns, (1, 1, k, r)."""
        return self.solved[None, None, part]

    def own_products(self) -> list[tuple[int, Array]]:
        """For each factor: sum over its levels of U Lambda S^-1, (1, 1, 1); 0 where Lambda is, since S^-1 is then I."""
        Q, found = self._inverse(), []
        for i, (f, rows) in enumerate(self.local):
            theta = float(self.scale[rows.start])
            own = np.diagonal(Q)[rows]
            if abs(theta) >= 1.0:
                # U Lambda S^-1 = (I - S^-1) / Lambda, without a difference of large numbers
                total = (len(own) - float(own.sum()) / theta**2) / theta
            elif theta == 0.0:
                total = 0.0
            else:
                total = (self._products(i, Q) - float(np.diagonal(self.lower)[rows] @ own)) / theta
            found.append((f, np.full((1, 1, 1), total)))
        return found

    def _products(self, i: int, Q: Array) -> float:
        """Products of U and Q over the rows of one factor, those of its diagonal twice."""
        rows, total = self.local[i][1], 0.0
        for j, (_, columns) in enumerate(self.local):
            first, second = (rows, columns) if j <= i else (columns, rows)
            product = float(np.einsum("ij,ij->", self.lower[first, second], Q[first, second]))
            total += 2.0 * product if i == j else product
        return total


def _solve(factor: Array, M: Array) -> Array:
    return np.asarray(lapack.dpotrs(factor.T, M, lower=0)[0])


def large_block(lower: Array, scale: Array, local: Sequence[tuple[int, slice]], v: Array) -> LargeBlock:
    """Factorise S.

    lower : (s, s) U on and below the diagonal; scale : (s,); v : (s, r) the border
    Raises LinAlgError where S is not positive definite.
    """
    s = len(lower)
    S = lower * scale
    S *= scale[:, None]
    S.reshape(-1)[:: s + 1] += 1.0
    # what LAPACK calls the upper triangle of a matrix by columns is the lower one by rows
    factor, failed = lapack.dpotrf(S.T, lower=0, clean=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("Matrix is not positive definite")
    held = factor.T
    logdet = 2.0 * float(np.log(np.diagonal(held)).sum())
    return LargeBlock(lower, scale, local, np.array([[logdet]]), _solve(held, scale[:, None] * v), held)
