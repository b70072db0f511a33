"""Refits of one model to many responses, side by side.

Every replicate starts at the estimate of the fit with its Newton matrix and goes on by BFGS; an iteration evaluates all that are not done
in one call of the kernel. What has not settled, or has settled on a boundary that is none, is fitted by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, concatenate_fields
from bayeslmm.data.design import Design
from bayeslmm.estimate.batch_descent import BatchFits, BatchValues, DescentRule, descend_together, inverse_newton_matrix
from bayeslmm.estimate.boundary import NULL_DIRECTION
from bayeslmm.likelihood.criterion import Criterion, one_thread
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.blocked import evaluate_blocked
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts, Factor
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.random_effects.level_blocks import BlockDiagonal
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel, pool_by_pattern

RESPONSE_ELEMENTS = 4_000_000
"""Entries of [Z' W y] held at once when many responses are evaluated together."""


def standardize_response(problem: Problem, Y: Array) -> Array:
    """Responses (n, B) or (n,) on the standardized scale."""
    c, design = problem.standardization, problem.design
    mean = design.X @ c.alpha0
    if design.offset is not None:
        mean = mean + design.offset
    return np.asarray((Y - (mean if Y.ndim == 1 else mean[:, None])) / c.y_scale)


def with_response(problem: Problem, design: Design) -> Problem:
    """The problem of a design that differs in its response alone; X, Z and what depends on them are shared."""
    y = standardize_response(problem, design.y)
    kernel = problem.criterion.kernel
    if isinstance(kernel, RandomEffectsKernel):
        products = ResponseProducts.of(problem, y[:, None])
        moved: RandomEffectsKernel | BlockDiagonalKernel = replace(kernel, cross=products.one(0))
    else:
        assert isinstance(kernel, BlockDiagonalKernel)
        Xy = kernel.data.Xy.copy()
        Xy[:, -1] = y
        groups = [pool_by_pattern(problem.design, batch.rows, Xy[batch.rows]) for batch in kernel.data.pooled_rows]
        data = replace(kernel.data, Xy=Xy, pooled=tuple(group for group in groups if group is not None))
        moved = replace(kernel, data=data)
    return replace(problem, design=design, criterion=replace(problem.criterion, kernel=moved))


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


@dataclass(frozen=True, slots=True, eq=False)
class BatchPoint:
    """The criterion of t responses, each at an x of its own: (t,), (t, size), (t,), (t, p)."""

    value: Array
    gradient: Array
    sigma2: Array
    alpha: Array
    state: RandomEffectsState


def evaluate_responses(criterion: Criterion, products: ResponseProducts, which: Codes, x: Array, restricted: bool) -> BatchPoint:
    """Value and gradient of the criterion for responses `which`, at x (t, size)."""
    kernel = criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    levels = evaluate_blocked(products.together(which), kernel.parameters.blocks(x))
    state = RandomEffectsState(kernel.parameters, x, levels)
    sigma2 = state.solution.r2 / criterion.df(restricted)
    logdet, r2 = state.gradients(restricted)
    value = criterion.of_solution(state.solution, restricted)
    return BatchPoint(value, logdet + r2 / sigma2[:, None], sigma2, state.solution.alpha, state)


def evaluate_values(criterion: Criterion, products: ResponseProducts, which: Codes, x: Array, restricted: bool) -> Array:
    """The criterion alone, (t,), for responses `which`, at x (t, size)."""
    kernel = criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    levels = evaluate_blocked(products.together(which), kernel.parameters.blocks(x), derivatives=False)
    return criterion.of_solution(RandomEffectsState(kernel.parameters, x, levels).solution, restricted)


LIFTED_SD = 0.2
"""Relative standard deviation put where the fit has 0: at 0 itself a gradient sees nothing."""


def refit_many(problem: Problem, Y: Array, restricted: bool, start: Array) -> BatchFits:
    """Fit responses Y (n, B), standardized, from x = start."""
    products = ResponseProducts.of(problem, Y)
    parts = []
    with one_thread(problem.criterion.width):
        for begin in range(0, products.count, products.step):
            which = np.arange(begin, min(begin + products.step, products.count))
            inverse = np.tile(inverse_newton_matrix(problem.criterion, start, restricted), (len(which), 1, 1))
            parts.append(descend_responses(problem, products, which, restricted, np.tile(start, (len(which), 1)), inverse))
    return concatenate_fields(parts)


def lift_off_boundary(parameters: RandomParameters, x: Array) -> Array:
    """x with the null directions of every term's T lifted to `LIFTED_SD`."""
    out = x.copy()
    for term in parameters.terms:
        T = term.covariance.factor(x[term.part])
        left, sizes, right = np.linalg.svd(T)
        if sizes.min(initial=1.0) < LIFTED_SD * 1e-2:
            lifted = (left * np.maximum(sizes, LIFTED_SD)) @ right
            out[term.part] = term.covariance.from_matrix(lifted @ lifted.T)
    return out


def descend_responses(
    problem: Problem, products: ResponseProducts, which: Codes, restricted: bool, start: Array, inverse: Array
) -> BatchFits:
    """BFGS for responses `which` side by side, from x = start (B, size) with inverse Newton matrices (B, size, size)."""
    criterion = problem.criterion

    def at(rows: Codes, where: Array) -> BatchValues:
        found = evaluate_responses(criterion, products, which[rows], where, restricted)
        return BatchValues(found.value, found.gradient)

    ends = descend_together(at, start, inverse, DescentRule())
    point = evaluate_responses(criterion, products, which, ends.x, restricted)
    settled = ends.done & _are_optima(problem, products, which, ends.x, restricted)
    return BatchFits(ends.x, point.sigma2, point.alpha, ends.point.value, settled)


def _are_optima(problem: Problem, products: ResponseProducts, which: Codes, x: Array, restricted: bool) -> NDArray[np.bool_]:
    """Whether each replicate's boundary, where it is at one, is an optimum: no null direction of Sigma along which the criterion falls."""
    parameters = problem.random
    singular = np.zeros(len(x), bool)
    for term in parameters.terms:
        singular |= np.linalg.svd(term.covariance.factor(x[:, term.part]), compute_uv=False).min(axis=-1) < 1e2 * NULL_DIRECTION
    good = np.ones(len(x), bool)
    rows = np.flatnonzero(singular)
    if len(rows) == 0:
        return good
    point = evaluate_responses(problem.criterion, products, which[rows], x[rows], restricted)
    information = point.state.levels.information(restricted)
    for f, (factor, T) in enumerate(zip(parameters.factors, point.state.levels.Ts, strict=True)):
        G = information[f] - point.state.levels.squares[f] / point.sigma2[:, None, None]
        for own in factor.slices:
            good[rows] &= _slopes(G[:, own, own], T[:, own, own]) >= -1e-6 * np.maximum(1.0, np.abs(point.value))
    return good


def _slopes(G: Array, T: Array) -> Array:
    """The smallest derivative along the null directions of each T, (t,); 0 where there are none."""
    left, sizes, _ = np.linalg.svd(T)
    null = left * (sizes < 1e2 * NULL_DIRECTION)[:, None, :]
    return np.minimum(np.linalg.eigvalsh(null.transpose(0, 2, 1) @ (0.5 * (G + G.transpose(0, 2, 1))) @ null).min(axis=-1), 0.0)
