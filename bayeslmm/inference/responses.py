"""Other responses on the same rows: only what the cross-products know of y is made anew, for one response or for many at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.design import Design
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.crossproducts import CrossProducts, Factor
from bayeslmm.likelihood.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.levels import LevelBlock
from bayeslmm.likelihood.levels_kernel import evaluate
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.subjects import SubjectsKernel
from bayeslmm.likelihood.subjects_rows import pooled

ELEMENTS = 4_000_000
"""Entries of [Z' W y] held at once when many responses are evaluated together."""


def conditioned(problem: Problem, Y: Array) -> Array:
    """Responses (n, B) or (n,) on the conditioned scale."""
    c, design = problem.conditioning, problem.design
    mean = design.X @ c.alpha0
    if design.offset is not None:
        mean = mean + design.offset
    return np.asarray((Y - (mean if Y.ndim == 1 else mean[:, None])) / c.y_scale)


def with_response(problem: Problem, design: Design) -> Problem:
    """The problem of a design that differs in its response alone; X, Z and what depends on them are shared."""
    y = conditioned(problem, design.y)
    kernel = problem.criterion.kernel
    if isinstance(kernel, RandomEffectsKernel):
        products = Products.of(problem, y[:, None])
        moved: RandomEffectsKernel | SubjectsKernel = replace(kernel, cross=products.one(0))
    else:
        assert isinstance(kernel, SubjectsKernel)
        border = kernel.data.border.copy()
        border[:, -1] = y
        groups = [pooled(problem.design, batch.rows, border[batch.rows]) for batch in kernel.data.behind]
        data = replace(kernel.data, border=border, pooled=tuple(group for group in groups if group is not None))
        moved = replace(kernel, data=data)
    return replace(problem, design=design, criterion=replace(problem.criterion, kernel=moved))


@dataclass(frozen=True, eq=False)
class Products:
    """What many responses share with the columns.

    Xy : (p, B), yy : (B,); first : (q, K, B) Z'Wy of the first factor, rest : (m, B) of the others
    """

    cross: CrossProducts
    Xy: Array
    yy: Array
    first: Array | None
    rest: Array | None

    @classmethod
    def of(cls, problem: Problem, Y: Array) -> Products:
        """One pass over the rows; Y (n, B) conditioned."""
        kernel, design, c = problem.criterion.kernel, problem.design, problem.conditioning
        assert isinstance(kernel, RandomEffectsKernel)
        everything = slice(0, len(Y))
        w = c.weights(design, everything)
        weighted = Y if w is None else Y * w[:, None]
        X = c.border(design, everything)[:, :-1]
        cross = kernel.cross
        blocks = [_level_products(problem, factor, weighted) for factor in cross.factors]
        first = blocks[0] if cross.first is not None else None
        others = blocks[int(cross.first is not None) :]
        rest = np.concatenate([b.transpose(1, 0, 2).reshape(-1, Y.shape[1]) for b in others]) if others else None
        return cls(cross, X.T @ weighted, np.einsum("nb,nb->b", Y, weighted), first, rest)

    @property
    def count(self) -> int:
        return len(self.yy)

    def one(self, b: int) -> CrossProducts:
        """The cross-products of one response."""
        found = self._crossed(np.array([b]))
        first = None if found.first is None else LevelBlock(found.first.A, np.ascontiguousarray(found.first.C[:, 0]))
        return replace(found, border=found.border[0], first=first, V0=None if found.V0 is None else found.V0[0])

    def together(self, which: Codes) -> CrossProducts:
        """The cross-products of some responses, one for each theta."""
        return self._crossed(which)

    @cached_property
    def step(self) -> int:
        """How many responses are worked on at once."""
        cross = self.cross
        size = 0 if cross.first is None else cross.first.A.shape[0] * cross.first.K
        size += 0 if cross.rest is None else cross.rest.m + cross.rest.flat
        return max(1, ELEMENTS // max(1, size * (cross.p + 1)))

    def _crossed(self, which: Codes) -> CrossProducts:
        cross, p, t = self.cross, self.cross.p, len(which)
        border = np.empty((t, p + 1, p + 1))
        border[:, :p, :p] = cross.border[:p, :p]
        border[:, p, :p] = border[:, :p, p] = self.Xy[:, which].T
        border[:, p, p] = self.yy[which]
        first = None
        if cross.first is not None and self.first is not None:
            q, K = cross.first.q, cross.first.K
            C = np.empty((q, t, p + 1, K))
            C[:, :, :p] = cross.first.C[:, None, :p]
            C[:, :, p] = self.first[:, :, which].transpose(0, 2, 1)
            first = LevelBlock(cross.first.A, C)
        V0 = None
        if cross.V0 is not None and self.rest is not None:
            V0 = np.empty((t, *cross.V0.shape))
            V0[:, :, :p] = cross.V0[:, :p]
            V0[:, :, p] = self.rest[:, which].T
        return replace(cross, border=border, first=first, V0=V0)


def _level_products(problem: Problem, factor: Factor, weighted: Array) -> Array:
    """Z'Wy of a factor by level, (q, K, B), the columns of its relationship matrix's root included."""
    design, c = problem.design, problem.conditioning
    n = len(weighted)
    codes = design.terms[factor.terms[0]].group.codes
    found = []
    for i in factor.terms:
        for column in c.maps[i].apply(design.terms[i].Z).T:
            by_level = sp.csr_array((column, (codes, np.arange(n))), shape=(factor.K, n))
            products = by_level @ weighted
            found.append(products if factor.root is None else factor.root.T @ products)
    return np.stack(found)


@dataclass(frozen=True, slots=True, eq=False)
class ManyPoints:
    """The criterion of t responses, each at an x of its own: (t,), (t, size), (t,), (t, p)."""

    value: Array
    gradient: Array
    sigma2: Array
    alpha: Array
    state: RandomEffectsState


def evaluate_many(criterion: Criterion, products: Products, which: Codes, x: Array, restricted: bool) -> ManyPoints:
    """Value and gradient of the criterion for responses `which`, at x (t, size)."""
    kernel = criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    levels = evaluate(products.together(which), kernel.parameters.blocks(x))
    state = RandomEffectsState(kernel.parameters, x, levels)
    solution, df = state.solution, criterion.df(restricted)
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma2 = solution.r2 / df
        value = solution.logdet + df * np.log(sigma2) + criterion.constant(restricted)
        if restricted:
            value = value + solution.logdet_X
    value = np.where(np.isfinite(value) & (solution.r2 > 0), value, np.inf)
    logdet, r2 = state.gradients(restricted)
    return ManyPoints(value, logdet + r2 / sigma2[:, None], sigma2, solution.alpha, state)
