"""Sums over rows by level, and by pair of levels, while rows are coming in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bayeslmm.arrays import Array, Codes

SMALL = 1 << 15
"""Tables of this many pairs of levels are kept whole: sparse bookkeeping would cost more than the arithmetic."""

PAIRS = 1 << 20
"""Entries of sparse pieces that wait to be added up: memory is that of the pairs that occur, not of the rows."""


class PairSums:
    """Sums over the rows by pair of levels: a whole table where it is small, else sparse pieces."""

    __slots__ = ("full", "pieces", "shape", "table")

    def __init__(self, K: int, L: int) -> None:
        self.shape, self.pieces, self.full = (K, L), list[sp.coo_array](), PAIRS
        self.table = np.zeros(K * L) if K * L <= SMALL else None

    def add(self, row: Codes, column: Codes, values: Array) -> None:
        if self.table is not None:
            self.table += np.bincount(row * self.shape[1] + column, values, len(self.table))
        else:
            self.pieces.append(sp.coo_array((values, (row, column)), shape=self.shape).tocsr().tocoo())
            if sum(piece.nnz for piece in self.pieces) > self.full:
                self.pieces = [self._whole().tocoo()]
                self.full = max(PAIRS, 2 * self.pieces[0].nnz)

    def copy(self) -> PairSums:
        """The same sums, to go on with."""
        out = PairSums(*self.shape)
        if self.table is not None:
            out.table = self.table.copy()
        elif self.pieces:
            if len(self.pieces) > 1:
                self.pieces = [self._whole().tocoo()]
            out.pieces, out.full = list(self.pieces), self.full
        return out

    def _whole(self) -> sp.csr_array:
        """All pieces as one matrix, entries that cancel kept: patterns must stay alike."""
        row, column = (np.concatenate([piece.coords[axis] for piece in self.pieces]) for axis in (0, 1))
        return sp.coo_array((np.concatenate([piece.data for piece in self.pieces]), (row, column)), shape=self.shape).tocsr()

    def entries(self) -> tuple[Codes, Codes, Array]:
        """Row, column and sum of every pair, those of a whole table that never met included; sorted by row and column.

        Sparse pieces are converted in one go: adding sparse matrices would drop entries that cancel, and patterns must stay alike.
        """
        K, L = self.shape
        if self.table is not None:
            return np.repeat(np.arange(K), L), np.tile(np.arange(L), K), self.table
        whole = self._whole()
        return np.repeat(np.arange(K), np.diff(whole.indptr)), whole.indices.astype(np.int64), whole.data


@dataclass(frozen=True, slots=True, eq=False)
class LevelSlice:
    """The levels that a piece of rows has: of many, sorted rows have a few that lie together."""

    code: Codes
    span: slice

    @classmethod
    def of(cls, code: Codes, K: int) -> LevelSlice:
        if len(code) >= K or not len(code):
            return cls(code, slice(0, K))
        low, high = int(code.min()), int(code.max())
        return cls(code - low if low else code, slice(low, high + 1))

    def add(self, total: Array, values: Array) -> None:
        """total (K,) plus the sums of the values by level."""
        sums = np.bincount(self.code, values, self.span.stop - self.span.start)
        if len(sums) == len(total):
            total += sums
        else:
            total[self.span] += sums
