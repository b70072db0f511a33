"""What sums by level tell of random effects: how many of a term have a row, and which the fixed effects can mimic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.data.design import RandomTerm
from bayeslmm.likelihood.random_effects.cross_products import Accumulator
from bayeslmm.likelihood.standardize import Standardization

ROUNDED_SQUARES = 1e-12
"""Share of what a sum of squares was made of, below which it is rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductsByLevel:
    """Products of the columns of a random term, as the user has them, by level.

    squares : (q, K); terms : (q, K) the sizes of the numbers that each was added up from; with_X : (q, p, K) with standardized columns
    """

    squares: Array
    terms: Array
    with_X: Array

    @classmethod
    def of(cls, sums: Accumulator, standardization: Standardization, number: int) -> ProductsByLevel:
        """Those of a term. sums : with all their entries written out"""
        at = next(i for i, factor in enumerate(sums.factors) if number in factor.terms)
        own = sums.factors[at].slices[sums.factors[at].terms.index(number)]
        back, G = standardization.maps[number].inverse, sums.diagonal[at][own, own]
        squares, terms = (np.einsum("aj,abk,bj->jk", b, g, b) for b, g in ((back, G), (np.abs(back), np.abs(G))))
        return cls(squares, terms, np.einsum("aj,apk->jpk", back, sums.with_Xy[at][own, :-1]))

    @property
    def present(self) -> Array:
        """Whether a column has a row of a level in which it is not 0, (q, K)."""
        return np.asarray(self.squares > ROUNDED_SQUARES * self.terms)


@dataclass(frozen=True, slots=True, eq=False)
class SummedTerms:
    """The random terms of rows that were added up."""

    products: tuple[ProductsByLevel, ...]
    XX: Array

    @classmethod
    def of(cls, terms: Sequence[RandomTerm], sums: Accumulator, standardization: Standardization) -> SummedTerms:
        """From sums of all rows."""
        whole = sums.complete()
        p = whole.r - 1
        products = tuple(ProductsByLevel.of(whole, standardization, i) for i in range(len(terms)))
        return cls(products, 0.5 * (whole.Xy + whole.Xy.T)[:p, :p])

    def count_effects(self, number: int) -> int:
        """How many effects of a term have a row."""
        return int(self.products[number].present.sum())

    def is_inside(self, number: int, column: int, effect: Array) -> bool:
        """Whether the column of a term, times an effect of each level, lies in the span of the fixed effects."""
        own = self.products[number]
        length, terms = own.squares[column] @ effect**2, own.terms[column] @ effect**2
        with_X = own.with_X[column] @ effect
        left = length - with_X @ np.linalg.solve(self.XX, with_X)
        return bool(left <= ROUNDED_SQUARES * terms)
