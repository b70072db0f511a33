"""Cross-products of the levels that a part has, and their merging: parts of few levels cost the memory of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bayeslmm._arrays import Codes
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.likelihood.random_effects.cross_products import Accumulator, Factor, PairSums, summands
from bayeslmm.likelihood.standardize import Standardization, row_pieces
from bayeslmm.likelihood.tuning import TUNING


def _present(codes: Codes, K: int) -> Codes:
    """The levels that occur, in order."""
    return np.flatnonzero(np.bincount(codes, minlength=K)) if 4 * len(codes) > K else np.unique(codes)


def empty_sums(factors: Sequence[Factor], sizes: Sequence[int], r: int, standardization: Standardization) -> Accumulator:
    """Sums of nothing yet. factors : of all levels, which decide where tables are whole; sizes : of the levels that there are here"""
    own = tuple(replace(factor, K=size) for factor, size in zip(factors, sizes, strict=True))
    made = Accumulator.empty(own, r, standardization.maps)
    for (f, g), lines in made.pairs.items():
        if TUNING.table_pairs < factors[f].K * factors[g].K:
            for line in lines:
                for pairs in line:
                    pairs.table = None
    return made


@dataclass(slots=True, eq=False)
class SumsByLevel:
    """Cross-products over some levels. levels : of every factor, codes among all levels, in order"""

    factors: tuple[Factor, ...]
    levels: tuple[Codes, ...]
    sums: Accumulator

    @classmethod
    def of(cls, factors: tuple[Factor, ...], design: Design, standardization: Standardization) -> SumsByLevel:
        """Those of the rows of a part."""
        codes = [design.terms[factor.terms[0]].group.codes for factor in factors]
        levels = tuple(_present(own, factor.K) for own, factor in zip(codes, factors, strict=True))
        sums = empty_sums(factors, [len(own) for own in levels], len(design.kept) + 1, standardization)
        for rows in row_pieces(len(design.y)):
            own_codes, Z, Xy, weights = summands(factors, design, standardization, rows)
            places = [np.searchsorted(own, code) for own, code in zip(levels, own_codes, strict=True)]
            sums.add(places, Z, Xy, weights)
        return cls(factors, levels, sums)

    @classmethod
    def of_nothing(cls, factors: tuple[Factor, ...], design: Design, standardization: Standardization) -> SumsByLevel:
        """Those of no rows."""
        levels = tuple(np.zeros(0, np.int64) for _ in factors)
        return cls(factors, levels, empty_sums(factors, [0] * len(factors), len(design.kept) + 1, standardization))

    def merge(self, later: SumsByLevel, standardization: Standardization) -> SumsByLevel:
        """Those of the rows of both."""
        levels = tuple(np.union1d(a, b) for a, b in zip(self.levels, later.levels, strict=True))
        if all(len(both) == len(own) for both, own in zip(levels, self.levels, strict=True)):
            self._absorb(later)
            return self
        made = SumsByLevel(self.factors, levels, empty_sums(self.factors, [len(own) for own in levels], self.sums.r, standardization))
        made._absorb(self)
        made._absorb(later)
        return made

    def _absorb(self, part: SumsByLevel) -> None:
        """Add sums over levels that are among these."""
        total, own = self.sums, part.sums
        places = [np.searchsorted(levels, some) for levels, some in zip(self.levels, part.levels, strict=True)]
        total.n += own.n
        total.Xy += own.Xy
        for f, place in enumerate(places):
            if len(place) == total.factors[f].K:
                total.diagonal[f] += own.diagonal[f]
                total.with_Xy[f] += own.with_Xy[f]
            else:
                total.diagonal[f][:, :, place] += own.diagonal[f]
                total.with_Xy[f][:, :, place] += own.with_Xy[f]
        for (f, g), lines in own.pairs.items():
            for whole, some in zip(total.pairs[(f, g)], lines, strict=True):
                for target, pairs in zip(whole, some, strict=True):
                    _add_pairs(target, pairs, places[f], places[g])


def _add_pairs(target: PairSums, pairs: PairSums, rows: Codes, columns: Codes) -> None:
    if pairs.table is None and not pairs.pieces:
        return
    row, column, values = pairs.entries()
    target.add(rows[row], columns[column], values)


@dataclass(slots=True, eq=False)
class CoincidingFactors:
    """Which grouping factors with as many levels have divided all rows alike so far."""

    partners: dict[tuple[str, str], Codes | None] = field(default_factory=dict)

    def add(self, rows: Design) -> None:
        """The rows of a part."""
        groups = list({term.group.name: term.group for term in rows.terms}.values())
        for i, a in enumerate(groups):
            for b in groups[i + 1 :]:
                if a.size == b.size:
                    partner = np.full(a.size, -1)
                    partner[a.codes] = b.codes
                    self._join((a.name, b.name), partner if (partner[a.codes] == b.codes).all() else None)

    def merge(self, later: CoincidingFactors) -> CoincidingFactors:
        """What the rows of both say."""
        for pair, partner in later.partners.items():
            self._join(pair, partner)
        return self

    def _join(self, pair: tuple[str, str], partner: Codes | None) -> None:
        known = self.partners.setdefault(pair, partner)
        if known is not None and partner is not None:
            both = (known >= 0) & (partner >= 0)
            self.partners[pair] = np.where(known >= 0, known, partner) if (known == partner)[both].all() else None
        else:
            self.partners[pair] = None

    def alike(self, a: GroupingFactor, b: GroupingFactor) -> bool:
        """Whether two factors divide the rows alike."""
        pair = (a.name, b.name) if (a.name, b.name) in self.partners else (b.name, a.name)
        return self.partners.get(pair) is not None
