"""Refits of one model to many responses, side by side.

Every replicate starts at the estimate of the fit with its Newton matrix and goes on by BFGS; an iteration evaluates all that are not done
in one call of the kernel. What has not settled, or has settled on a boundary that is none, is fitted by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, concatenate_fields
from bayeslmm.data.design import Design
from bayeslmm.estimate.batch_descent import BatchFits, BatchValues, DescentRule, descend_together, inverse_newton_matrix
from bayeslmm.estimate.boundary import NULL_DIRECTION
from bayeslmm.likelihood.criterion import Criterion, one_thread
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.blocked import evaluate_blocked
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.response_products import ResponseProducts
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel, pool_by_pattern


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
        return replace(problem_of_products(problem, ResponseProducts.of(problem, y[:, None]), 0), design=design)
    assert isinstance(kernel, BlockDiagonalKernel)
    Xy = kernel.data.Xy.copy()
    Xy[:, -1] = y
    groups = [pool_by_pattern(problem.design, batch.rows, Xy[batch.rows]) for batch in kernel.data.pooled_rows]
    data = replace(kernel.data, Xy=Xy, pooled=tuple(group for group in groups if group is not None))
    return replace(problem, design=design, criterion=replace(problem.criterion, kernel=replace(kernel, data=data)))


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
    return refit_products(problem, ResponseProducts.of(problem, Y), restricted, start)


def refit_products(problem: Problem, products: ResponseProducts, restricted: bool, start: Array) -> BatchFits:
    """Fit responses known by their cross-products, from x = start."""
    parts = []
    with one_thread(problem.criterion.width):
        inverse = inverse_newton_matrix(problem.criterion, start, restricted)
        for begin in range(0, products.count, products.step):
            which = np.arange(begin, min(begin + products.step, products.count))
            inverses, starts = np.tile(inverse, (len(which), 1, 1)), np.tile(start, (len(which), 1))
            parts.append(descend_responses(problem, products, which, restricted, starts, inverses))
    return concatenate_fields(parts)


def problem_of_products(problem: Problem, products: ResponseProducts, b: int) -> Problem:
    """The problem of one response that is known by its cross-products; its design's rows keep the response they had."""
    kernel = problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    return replace(problem, criterion=replace(problem.criterion, kernel=replace(kernel, cross=products.one(b))))


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
