"""Cross-products of many responses with the columns of one design: all that the likelihood needs of a response."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from bayeslmm._arrays import Array, Codes
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts, Factor
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.random_effects.level_blocks import BlockDiagonal

RESPONSE_ELEMENTS = 4_000_000
"""Entries of [Z' W y] held at once when many responses are evaluated together."""


@dataclass(frozen=True, eq=False)
class ResponseProducts:
    """What many responses share with the columns.

    Xy : (p, B), yy : (B,); first : (q, K, B) Z'Wy of the first factor, rest : (m, B) of the others
    """

    cross: CrossProducts
    Xy: Array
    yy: Array
    first: Array | None
    rest: Array | None

    @classmethod
    def of(cls, problem: Problem, Y: Array) -> ResponseProducts:
        """One pass over the rows; Y (n, B) standardized."""
        kernel, design, c = problem.criterion.kernel, problem.design, problem.standardization
        assert isinstance(kernel, RandomEffectsKernel)
        everything = slice(0, len(Y))
        w = c.weights(design, everything)
        weighted = Y if w is None else Y * w[:, None]
        X = c.Xy(design, everything)[:, :-1]
        cross = kernel.cross
        blocks = [_level_products(problem, factor, weighted) for factor in cross.factors]
        first = blocks[0] if cross.first is not None else None
        others = blocks[int(cross.first is not None) :]
        rest = np.concatenate([b.transpose(1, 0, 2).reshape(-1, Y.shape[1]) for b in others]) if others else None
        return cls(cross, X.T @ weighted, np.einsum("nb,nb->b", Y, weighted), first, rest)

    @property
    def count(self) -> int:
        return len(self.yy)

    def some(self, which: Codes) -> ResponseProducts:
        """The products of some of the responses."""
        first = None if self.first is None else self.first[..., which]
        rest = None if self.rest is None else self.rest[:, which]
        return ResponseProducts(self.cross, self.Xy[:, which], self.yy[which], first, rest)

    def one(self, b: int) -> CrossProducts:
        """The cross-products of one response."""
        found = self._crossed(np.array([b]))
        first = None if found.first is None else BlockDiagonal(found.first.A, np.ascontiguousarray(found.first.C[:, 0]))
        return replace(found, Xy=found.Xy[0], first=first, V0=None if found.V0 is None else found.V0[0])

    def together(self, which: Codes) -> CrossProducts:
        """The cross-products of some responses, one for each theta."""
        return self._crossed(which)

    @cached_property
    def step(self) -> int:
        """How many responses are worked on at once."""
        cross = self.cross
        size = 0 if cross.first is None else cross.first.A.shape[0] * cross.first.K
        size += 0 if cross.rest is None else cross.rest.m + cross.rest.flat
        return max(1, RESPONSE_ELEMENTS // max(1, size * (cross.p + 1)))

    def _crossed(self, which: Codes) -> CrossProducts:
        cross, p, t = self.cross, self.cross.p, len(which)
        Xy = np.empty((t, p + 1, p + 1))
        Xy[:, :p, :p] = cross.Xy[:p, :p]
        Xy[:, p, :p] = Xy[:, :p, p] = self.Xy[:, which].T
        Xy[:, p, p] = self.yy[which]
        first = None
        if cross.first is not None and self.first is not None:
            q, K = cross.first.q, cross.first.K
            C = np.empty((q, t, p + 1, K))
            C[:, :, :p] = cross.first.C[:, None, :p]
            C[:, :, p] = self.first[:, :, which].transpose(0, 2, 1)
            first = BlockDiagonal(cross.first.A, C)
        V0 = None
        if cross.V0 is not None and self.rest is not None:
            V0 = np.empty((t, *cross.V0.shape))
            V0[:, :, :p] = cross.V0[:, :p]
            V0[:, :, p] = self.rest[:, which].T
        return replace(cross, Xy=Xy, first=first, V0=V0)


def _level_products(problem: Problem, factor: Factor, weighted: Array) -> Array:
    """Z'Wy of a factor by level, (q, K, B), the columns of its relationship matrix's root included."""
    design, c = problem.design, problem.standardization
    n = len(weighted)
    codes = design.terms[factor.terms[0]].group.codes
    found = []
    for i in factor.terms:
        for column in c.maps[i].apply(design.terms[i].Z).T:
            by_level = sp.csr_array((column, (codes, np.arange(n))), shape=(factor.K, n))
            products = by_level @ weighted
            found.append(products if factor.root is None else factor.root.T @ products)
    return np.stack(found)
