"""Means and mean products of columns read in parts: triangles of incremental QR factorisations, and rows that span the columns.

Means, lengths and angles of the columns, hence their rank, their least-squares fit and the change of columns that conditions them, are
those of `R`. Columns are counted from the first row, so that an origin far away costs no digits and a constant column is exactly one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from scipy.linalg import qr

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.columns import Columns
from bayeslmm.data.model_matrix import DesignBlock
from bayeslmm.likelihood.standardize import row_pieces
from bayeslmm.partitions.first_pass import EncodedPart


@dataclass(slots=True, eq=False)
class IncrementalQR:
    """R of [1, M - first row], rows times the roots of their weights."""

    origin: Array | None = None
    R: Array | None = None

    def add(self, M: Array, root: Array | None) -> None:
        """Rows (n, k) of the matrix, and the roots of their weights (n,) where they have any."""
        if not len(M):
            return
        if self.origin is None or self.R is None:
            self.origin, self.R = M[0].copy(), np.zeros((0, M.shape[1] + 1))
        for part in row_pieces(len(M)):
            block = np.empty((part.stop - part.start, M.shape[1] + 1))
            block[:, 0] = 1.0
            np.subtract(M[part], self.origin, out=block[:, 1:])
            if root is not None:
                block *= root[part, None]
            self.R = np.linalg.qr(np.vstack([self.R, block]), mode="r")

    def merge(self, later: IncrementalQR) -> None:
        """The rows of another as well, counted from the first row of these."""
        if later.origin is None or later.R is None:
            return
        if self.origin is None or self.R is None:
            self.origin, self.R = later.origin, later.R
            return
        moved = later.R.copy()
        moved[:, 1:] += moved[:, :1] * (later.origin - self.origin)
        self.R = np.linalg.qr(np.vstack([self.R, moved]), mode="r")

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


@dataclass(slots=True, eq=False)
class ColumnMoments:
    """Moments of [X y offset] and of every Z, with the weights and without; the range of the response; sums of variables.

    plain_columns, plain_blocks : the moments without weights, where there are weights; largest, left : largest absolute value of the
        response, and of what the offset leaves of it; sums : variable of the fixed effects that is no factor -> sums of its columns
    """

    columns: IncrementalQR = field(default_factory=IncrementalQR)
    blocks: list[IncrementalQR] = field(default_factory=list)
    plain_columns: IncrementalQR = field(default_factory=IncrementalQR)
    plain_blocks: list[IncrementalQR] = field(default_factory=list)
    sums: dict[str, Array] = field(default_factory=dict)
    largest: float = 0.0
    left: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, rows: EncodedPart, block: DesignBlock, source: Columns) -> None:
        """The rows of a part. block : of the fixed effects; source : the rows that it is to encode"""
        shift = [] if rows.shift is None else [rows.shift]
        matrix = np.column_stack([rows.X, rows.y, *shift])
        root = None if rows.weights is None else np.sqrt(rows.weights)
        while len(self.blocks) < len(rows.Zs):
            self.blocks.append(IncrementalQR())
            self.plain_blocks.append(IncrementalQR())
        self.columns.add(matrix, root)
        for own, Z in zip(self.blocks, rows.Zs, strict=True):
            own.add(Z, root)
        if root is not None:
            self.plain_columns.add(matrix, None)
            for own, Z in zip(self.plain_blocks, rows.Zs, strict=True):
                own.add(Z, None)
        for key, atom in block.atoms.items():
            total = np.array([piece.sum() for piece in atom.pieces(source, reduced=True)], dtype=np.float64)
            self.sums[key] = self.sums.get(key, 0.0) + total
        left = rows.y if rows.shift is None else rows.y - rows.shift
        self.largest = max(self.largest, float(np.abs(rows.y).max()))
        self.left = max(self.left, float(np.abs(left).max()))
        self.low, self.high = min(self.low, float(left.min())), max(self.high, float(left.max()))

    def merge(self, later: ColumnMoments) -> ColumnMoments:
        """Those of both."""
        if not self.blocks:
            self.blocks, self.plain_blocks = later.blocks, later.plain_blocks
        else:
            for own, other in zip((*self.blocks, *self.plain_blocks), (*later.blocks, *later.plain_blocks), strict=len(later.blocks) > 0):
                own.merge(other)
        self.columns.merge(later.columns)
        self.plain_columns.merge(later.plain_columns)
        for key, total in later.sums.items():
            self.sums[key] = self.sums[key] + total if key in self.sums else total
        self.largest, self.left = max(self.largest, later.largest), max(self.left, later.left)
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        return self

    @property
    def unweighted(self) -> tuple[IncrementalQR, list[IncrementalQR]]:
        """The moments without weights."""
        return (self.columns, self.blocks) if self.plain_columns.R is None else (self.plain_columns, self.plain_blocks)


SPANNING_PIVOT = 1e-4
"""The last pivot against the first from which rows count as spanning the columns: they do so to 12 digits."""

CANDIDATES = 4096
"""Rows among which some are chosen at once."""


@dataclass(slots=True, eq=False)
class SpanningRows:
    """Rows of the data on which the standardized columns of X are independent: as many as there are columns, chosen by their pivots."""

    columns: tuple[str, ...]
    X: Array | None = None
    frame: pd.DataFrame | None = None
    complete: bool = False

    def add(self, X: Array, taken: Callable[[Codes], pd.DataFrame]) -> None:
        """Rows of X (n, p), and how rows of the data are taken."""
        for begin in range(0, len(X), CANDIDATES):
            if self.complete:
                return
            self._choose(X[begin : begin + CANDIDATES], partial(_taken_from, taken, begin))

    def merge(self, later: SpanningRows) -> SpanningRows:
        """The better of the rows of both."""
        if not self.complete and later.X is not None and later.frame is not None:
            frame = later.frame
            self._choose(later.X, lambda rows: frame.iloc[rows])
        return self

    def _choose(self, X: Array, taken: Callable[[Codes], pd.DataFrame]) -> None:
        p = X.shape[1]
        known = np.zeros((0, p)) if self.X is None else self.X
        together = np.vstack([known, X])
        R, order = qr(together.T, mode="r", pivoting=True, check_finite=False) if p else (np.zeros((0, 0)), np.arange(1))
        pivots = np.abs(np.diagonal(R))
        rank = int(np.sum(pivots > 1e-10 * pivots[0])) if len(pivots) else 0
        chosen = np.sort(np.asarray(order[: max(rank, 1)], np.int64))
        self.complete = rank == p and (p == 0 or pivots[p - 1] >= SPANNING_PIVOT * pivots[0])
        old, new = chosen[chosen < len(known)], chosen[chosen >= len(known)] - len(known)
        frames = ([] if self.frame is None else [self.frame.iloc[old]]) + ([taken(new)] if len(new) else [])
        self.X, self.frame = together[chosen], pd.concat(frames, ignore_index=True)


def _taken_from(taken: Callable[[Codes], pd.DataFrame], begin: int, rows: Codes) -> pd.DataFrame:
    """Rows counted from `begin`."""
    return taken(rows + begin)
