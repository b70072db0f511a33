"""The triangle R of a QR factorisation, rows coming in part by part; and a few rows that stand for all of them.

Means, lengths and angles of the columns, hence their rank, their least-squares fit and the change of columns that conditions them, are
those of `R`. Columns are counted from the first row, so that an origin far away costs no digits and a constant column is exactly one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.likelihood.conditioning import pieces


@dataclass(slots=True, eq=False)
class Triangle:
    """R of [1, M - first row], rows times the roots of their weights."""

    origin: Array | None = None
    R: Array | None = None

    def add(self, M: Array, root: Array | None) -> None:
        """Rows (n, k) of the matrix, and the roots of their weights (n,) where they have any."""
        if not len(M):
            return
        if self.origin is None or self.R is None:
            self.origin, self.R = M[0].copy(), np.zeros((0, M.shape[1] + 1))
        for part in pieces(len(M)):
            block = np.empty((part.stop - part.start, M.shape[1] + 1))
            block[:, 0] = 1.0
            np.subtract(M[part], self.origin, out=block[:, 1:])
            if root is not None:
                block *= root[part, None]
            self.R = np.linalg.qr(np.vstack([self.R, block]), mode="r")

    def rows(self) -> Array:
        """k + 1 rows without weights whose means are those of all rows, and whose squares and products are, per row, theirs.

        (H R_1..k) sqrt((k + 1) / W) + origin, with H orthogonal, its first column constant, and W the sum of the weights.
        """
        assert self.origin is not None and self.R is not None
        m = len(self.origin) + 1
        R = np.zeros((m, m))
        R[: len(self.R)] = self.R
        total = R[0, 0]
        if total < 0:
            R[0] *= -1.0
        return np.asarray(_constant_first(m) @ R[:, 1:] * (np.sqrt(m) / abs(total)) + self.origin)


def _constant_first(m: int) -> Array:
    """An orthogonal matrix whose first column is constant: the reflection of the first axis to it."""
    normal = np.full(m, -1.0 / np.sqrt(m))
    normal[0] += 1.0
    square = float(normal @ normal)
    return np.eye(m) if square == 0.0 else np.eye(m) - 2.0 * np.outer(normal, normal) / square
