"""A problem less some of its rows: their cross-products are taken off the sums, and the columns stay conditioned as they are.

The criterion does not depend on how columns are conditioned, so nothing else is looked at again. A level that loses all of its rows stays
behind with zeros: it changes no estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayeslmm.arrays import Array, Codes
from bayeslmm.likelihood.crossproducts import Accumulator, add_rows, summands
from bayeslmm.likelihood.kernel import RandomEffectsKernel
from bayeslmm.likelihood.problem import Problem

COLLINEAR = 1e-10
"""Smallest eigenvalue of X'WX, relative to their mean, of columns that are still told apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The sums over all rows of a problem of random effects, and what every row adds to them.

    counts : rows of every level of every factor
    """

    problem: Problem
    kernel: RandomEffectsKernel
    total: Accumulator
    codes: list[Codes]
    columns: list[list[Array]]
    border: Array
    weights: Array | None
    counts: list[Codes]

    @classmethod
    def of(cls, problem: Problem) -> Sums:
        """Read the rows once more."""
        kernel, design, conditioning = problem.criterion.kernel, problem.design, problem.conditioning
        assert isinstance(kernel, RandomEffectsKernel)
        factors = kernel.cross.factors
        total = Accumulator.empty(factors, problem.criterion.p + 1, conditioning.maps)
        add_rows(total, design, conditioning)
        codes, columns, border, weights = summands(factors, design, conditioning, slice(0, design.nobs))
        counts = [np.bincount(code, minlength=factor.K) for code, factor in zip(codes, factors, strict=True)]
        return cls(problem, kernel, total, codes, columns, border, weights, counts)

    def without(self, rows: Codes) -> Problem | None:
        """The problem less these rows; None where the rest does not identify the coefficients."""
        criterion = self.problem.criterion
        n = criterion.n - len(rows)
        if n <= criterion.p or not self.identified(rows):
            return None
        left = self.total.copy()
        left.add([code[rows] for code in self.codes], [[z[rows] for z in own] for own in self.columns], *self._taken(rows))
        left.n = n
        self._cleared(left, rows)
        return replace(self.problem, criterion=replace(criterion, n=n, kernel=replace(self.kernel, cross=left.finish())))

    def identified(self, rows: Codes) -> bool:
        """Whether columns of X that were orthonormal with all rows are independent without these."""
        border, weights = self._taken(rows)
        X = border[:-1]
        left = self.total.border[:-1, :-1] + (X * weights) @ X.T
        return len(left) == 0 or float(np.linalg.eigvalsh(left)[0]) >= COLLINEAR * float(np.trace(left)) / len(left)

    def _taken(self, rows: Codes) -> tuple[Array, Array]:
        """[X y] of some rows, column by column, and weights that take them off."""
        return self.border[:, rows], np.full(len(rows), -1.0) if self.weights is None else -self.weights[rows]

    def _cleared(self, left: Accumulator, rows: Codes) -> None:
        """Levels that have lost all of their rows are exactly 0, not what rounding leaves."""
        for code, count, diagonal, with_border in zip(self.codes, self.counts, left.diagonal, left.with_border, strict=True):
            levels, lost = np.unique(code[rows], return_counts=True)
            gone = levels[lost == count[levels]]
            diagonal[..., gone] = 0.0
            with_border[..., gone] = 0.0
