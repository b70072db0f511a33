"""REML and ML estimates of one design for many responses at once, with Satterthwaite's degrees of freedom for all of them.

The columns are the same for every response, so the cross-products of X and Z are made once and one call of the kernel evaluates the
criterion of many responses, each at parameters of its own. Every response is conditioned by its own least-squares fit: neither its origin
nor its unit costs digits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, concatenate_fields
from bayeslmm.estimate.batch_descent import inverse_newton_matrix
from bayeslmm.estimate.checks import SINGULAR_SD, null_directions, smallest_size
from bayeslmm.inference.intervals.batch_refit import (
    BatchPoint,
    ResponseProducts,
    descend_responses,
    evaluate_responses,
    evaluate_values,
)
from bayeslmm.likelihood.problem import Problem, problem_from_sums
from bayeslmm.likelihood.random_effects.cross_products import cross_products
from bayeslmm.likelihood.threads import one_thread

START_SDS = (0.15, 0.7, 3.0)
"""Relative standard deviations of the random effects at which every response is looked at before it is searched."""

MOST_STARTS = 27
"""Starts that are looked at; beyond, all terms share one relative standard deviation."""

CURVATURE_STEP = 1e-3
"""Step of the differences, in standard errors of x; the first guess of it, where none is known, is relative to 1."""

NEGLIGIBLE_CURVATURE = 1e-8
"""Curvature, relative to the largest, below which a direction of the parameters is not identified."""

RESPONSES_AT_ONCE = 1000
"""Most responses that are worked on at once: what they pass through stays near."""

NEGLIGIBLE_SD = 1e-3
"""Relative standard deviation below which 0 is tried in its place."""

LARGEST_STEP = 0.5
"""Longest Newton step of the last refinement: where it is longer, the response is not near its optimum."""

STATIONARY = 1e-7
"""Predicted decrease of the criterion, after the last step, at which a response counts as settled."""


@dataclass(frozen=True, slots=True, eq=False)
class ResponseFits:
    """Estimates of B responses.

    x : (B, size) covariance parameters on standardized columns; sigma : (B,) residual standard deviations, of weight 1
    alpha : (B, p) coefficients of the columns kept, on the user's columns; C : (B, p, p) covariance of alpha on standardized columns,
    relative to sigma^2; unit : (B,) what a standardized response is multiplied by
    hessian : (B, size + 1, size + 1) of the criterion in (x, log sigma); value : (B,) the criterion
    settled : (B,) whether the search ended at an optimum; singular : (B,) whether a variance is 0 or a correlation 1 in size
    """

    x: Array
    sigma: Array
    alpha: Array
    C: Array
    unit: Array
    hessian: Array
    value: Array
    settled: NDArray[np.bool_]
    singular: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ResponseProblem:
    """One design and its responses, each less its least-squares fit and divided by the size of what is left.

    alpha0 : (p, B) least squares on the user's columns; unit : (B,) root mean squares
    """

    problem: Problem
    products: ResponseProducts
    alpha0: Array
    unit: Array

    @classmethod
    def of(cls, problem: Problem, Y: Array) -> ResponseProblem:
        """Y : (n, B) finite, on the scale of the left side of the formula."""
        design, c = problem.design, problem.standardization
        if design.terms:
            # laid out for many parameters at once: the largest factor is eliminated, however few its levels
            problem = problem_from_sums(design, c, cross_products(design, c, small=False))
        n = len(Y)
        X = c.Xy(design, slice(0, n))[:, :-1]
        if design.offset is not None:
            Y = Y - design.offset[:, None]
        w = c.weights(design, slice(0, n))
        root = np.ones(n) if w is None else np.sqrt(w)
        # centred first: the origin of a response must not be lost in the rounding of its fit
        solution = np.linalg.lstsq(X * root[:, None], Y * root[:, None], rcond=None)[0]
        left = Y - X @ solution
        again = np.linalg.lstsq(X * root[:, None], left * root[:, None], rcond=None)[0]
        left = left - X @ again
        unit = np.sqrt(np.einsum("nb,nb->b", left * root[:, None] ** 2, left) / n)
        size = np.abs(Y).max(axis=0, initial=0.0)
        unit = np.where(unit > 64.0 * np.finfo(float).eps * size, unit, np.nan)
        with np.errstate(invalid="ignore"):
            scaled = np.where(np.isfinite(unit), left / np.where(np.isfinite(unit), unit, 1.0), 0.0)
        return cls(problem, ResponseProducts.of(problem, scaled), c.back @ (solution + again), unit)

    def some(self, which: Codes) -> ResponseProblem:
        """The problem of some of the responses."""
        return ResponseProblem(self.problem, self.products.some(which), self.alpha0[:, which], self.unit[which])

    @property
    def exact(self) -> NDArray[np.bool_]:
        """(B,) responses that the fixed effects reproduce: their likelihood has no maximum."""
        return ~np.isfinite(self.unit)


def fit_responses(responses: ResponseProblem, restricted: bool, advance: Callable[[int], None] = lambda _: None) -> ResponseFits:
    """Estimates of all responses, none of which the fixed effects reproduce exactly; `advance` is told how many more are done."""
    with one_thread(responses.problem.criterion.width):
        return concatenate_fields(_in_parts(responses, lambda which: _fit_part(responses, which, restricted), advance))


def _in_parts[Result](responses: ResponseProblem, work: Callable[[Codes], Result], advance: Callable[[int], None]) -> list[Result]:
    """The work done on parts that stay in cache, in as many threads as there are processors: NumPy lets go of Python meanwhile."""
    count = responses.products.count
    step = min(max(1, responses.products.step), RESPONSES_AT_ONCE)
    parts = [np.arange(begin, min(begin + step, count)) for begin in range(0, count, step)]

    def done(which: Codes) -> Result:
        with np.errstate(all="ignore"):
            return work(which)

    found = []
    with ThreadPoolExecutor(max(1, min(len(parts), os.cpu_count() or 1))) as threads:
        for which, result in zip(parts, threads.map(done, parts), strict=True):
            found.append(result)
            advance(len(which))
    return found


def _fit_part(responses: ResponseProblem, which: Codes, restricted: bool) -> ResponseFits:
    problem, products = responses.problem, responses.products
    start, inverse = _best_starts(problem, products, which, restricted)
    size = start.shape[1]
    found = descend_responses(problem, products, which, restricted, start, inverse)
    x = _set_negligible_to_zero(problem, products, which, found.x, found.value, restricted)
    curvature = _second_order(problem, products, which, x, restricted, np.full(x.shape, CURVATURE_STEP))
    settled = found.settled
    if size:
        # BFGS stops where the criterion no longer tells; one Newton step with the measured curvature goes on to where the gradient does
        move = -np.einsum("bij,bj->bi", _inverse(curvature.profiled), curvature.gradient)
        move *= np.minimum(1.0, LARGEST_STEP / np.maximum(np.linalg.norm(move, axis=1), 1e-300))[:, None]
        moved = evaluate_responses(problem.criterion, products, which, x + move, restricted)
        better = moved.value <= curvature.value + 1e-11 * np.maximum(1.0, np.abs(curvature.value))
        x = np.where(better[:, None], x + move, x)
        curvature = curvature.at(moved, better)
        predicted = 0.5 * np.einsum("bi,bij,bj->b", curvature.gradient, _inverse(curvature.profiled), curvature.gradient)
        settled &= np.isfinite(predicted) & (np.abs(predicted) < STATIONARY)
    c, unit = problem.standardization, responses.unit[which]
    df = problem.criterion.df(restricted)
    alpha = responses.alpha0[:, which].T + unit[:, None] * (curvature.alpha @ c.back.T)
    sigma = np.sqrt(curvature.sigma2 * c.weight_mean) * unit
    value = curvature.value + 2.0 * df * np.log(unit / c.y_scale)
    return ResponseFits(x, sigma, alpha, curvature.C, unit, curvature.hessian, value, settled, _is_singular(problem, x))


def _best_starts(problem: Problem, products: ResponseProducts, which: Codes, restricted: bool) -> tuple[Array, Array]:
    """For every response the best of a few relative sizes of the random effects, (B, size), and an inverse Newton matrix there."""
    terms = problem.random.terms
    size = problem.size
    inverse = np.zeros((len(which), size, size))
    if size == 0:
        return np.zeros((len(which), 0)), inverse
    together = len(START_SDS) ** len(terms) > MOST_STARTS
    grid = [(s,) * len(terms) for s in START_SDS] if together else list(product(START_SDS, repeat=len(terms)))
    best = np.full(len(which), np.inf)
    x = np.zeros((len(which), size))
    for sds in grid:
        trial = np.zeros(size)
        for term, sd in zip(terms, sds, strict=True):
            q = term.covariance.factor(trial[term.part]).shape[-1]
            trial[term.part] = term.covariance.from_matrix(sd**2 * np.eye(q))
        value = evaluate_values(problem.criterion, products, which, np.tile(trial, (len(which), 1)), restricted)
        lower = value < best
        best, x = np.where(lower, value, best), np.where(lower[:, None], trial, x)
        inverse[lower] = inverse_newton_matrix(problem.criterion, trial, restricted)
    return x, inverse


@dataclass(frozen=True, slots=True, eq=False)
class _Expansion:
    """The criterion of B responses around x to second order."""

    value: Array
    gradient: Array
    sigma2: Array
    alpha: Array
    C: Array
    slopes: Array
    hessian: Array

    def at(self, moved: BatchPoint, which: NDArray[np.bool_]) -> _Expansion:
        """The point itself moved for some responses; second derivatives are those of before."""

        def chosen(new: Array, old: Array) -> Array:
            return np.where(which.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return replace(
            self,
            value=chosen(moved.value, self.value),
            gradient=chosen(moved.gradient, self.gradient),
            sigma2=chosen(moved.sigma2, self.sigma2),
            alpha=chosen(moved.alpha, self.alpha),
            C=chosen(moved.state.solution.information_inverse, self.C),
        )

    @property
    def profiled(self) -> Array:
        """(B, size, size) with log sigma profiled out."""
        H, size = self.hessian, self.gradient.shape[1]
        cross = H[:, :size, size]
        return np.asarray(H[:, :size, :size] - cross[:, :, None] * cross[:, None, :] / H[:, size, size][:, None, None])


def _second_order(problem: Problem, products: ResponseProducts, which: Codes, x: Array, restricted: bool, steps: Array) -> _Expansion:
    """Hessian in (x, log sigma) and slopes of the covariance of alpha, by central differences of the analytic gradient."""
    B, size = x.shape
    point = evaluate_responses(problem.criterion, products, which, x, restricted)
    solution = point.state.solution
    C = solution.information_inverse
    p = C.shape[-1]
    df = problem.criterion.df(restricted)
    H = np.zeros((B, size + 1, size + 1))
    slopes = np.zeros((B, size + 1, p, p))
    slopes[:, size] = 2.0 * C
    H[:, size, size] = 4.0 * solution.r2 / point.sigma2 if df else 0.0
    _, r2 = point.state.gradients(restricted)
    H[:, size, :size] = H[:, :size, size] = -2.0 * r2 / point.sigma2[:, None]
    for i in range(size):
        sides = []
        for sign in (1.0, -1.0):
            at = x.copy()
            at[:, i] += sign * steps[:, i]
            moved = evaluate_responses(problem.criterion, products, which, at, restricted)
            logdet, r2 = moved.state.gradients(restricted)
            sides.append((logdet + r2 / point.sigma2[:, None], moved.state.solution.information_inverse))
        width = 2.0 * steps[:, i]
        H[:, i, :size] = (sides[0][0] - sides[1][0]) / width[:, None]
        slopes[:, i] = (sides[0][1] - sides[1][1]) / width[:, None, None]
    H[:, :size, :size] = 0.5 * (H[:, :size, :size] + H[:, :size, :size].transpose(0, 2, 1))
    return _Expansion(point.value, point.gradient, point.sigma2, point.alpha, C, slopes, H)


def _steps(x: Array, hessian: Array) -> Array:
    """(B, size) a small fraction of the standard error of each x, and of x itself: near a variance of 0 everything moves with x^2."""
    diagonal = np.einsum("bii->bi", hessian)[:, : x.shape[1]]
    errors = np.where(diagonal > 0, np.sqrt(2.0 / np.where(diagonal > 0, diagonal, 1.0)), 0.1)
    return np.clip(CURVATURE_STEP * np.minimum(errors, np.maximum(np.abs(x), CURVATURE_STEP)), 1e-7, 1e-2)


def _inverse(H: Array) -> Array:
    """Inverses made positive definite: negative curvature counts by its size."""
    if H.shape[-1] == 0:
        return H
    values, vectors = np.linalg.eigh(np.where(np.isfinite(H), H, 0.0))
    size = np.abs(values)
    size = np.maximum(size, 1e-4 * size.max(axis=1, keepdims=True))
    size = np.where(size > 0, size, 1.0)
    return np.asarray((vectors / size[:, None, :]) @ vectors.transpose(0, 2, 1))


def _set_negligible_to_zero(problem: Problem, products: ResponseProducts, which: Codes, x: Array, value: Array, restricted: bool) -> Array:
    """x with directions of every term's covariance that are negligible set to exactly 0, where the criterion does not mind."""
    trial = x.copy()
    for term in problem.random.terms:
        T = term.covariance.factor(x[:, term.part])
        left, sizes, right = np.linalg.svd(T)
        for b in np.flatnonzero(sizes.min(axis=-1, initial=np.inf) < NEGLIGIBLE_SD):
            kept = (left[b] * np.where(sizes[b] < NEGLIGIBLE_SD, 0.0, sizes[b])) @ right[b]
            trial[b, term.part] = term.covariance.from_matrix(kept @ kept.T)
    changed = np.flatnonzero((trial != x).any(axis=1))
    if len(changed):
        moved = evaluate_responses(problem.criterion, products, which[changed], trial[changed], restricted).value
        good = moved <= value[changed] + 1e-9 + 1e-14 * np.abs(value[changed])
        x = x.copy()
        x[changed[good]] = trial[changed[good]]
    return x


def _is_singular(problem: Problem, x: Array) -> NDArray[np.bool_]:
    singular = np.zeros(len(x), bool)
    for term in problem.random.terms:
        sizes = np.linalg.svd(term.covariance.factor(x[:, term.part]), compute_uv=False)
        singular |= smallest_size(sizes, null_directions(term.covariance)) < SINGULAR_SD
    return singular


def satterthwaite_rows(responses: ResponseProblem, fits: ResponseFits, L: Array, restricted: bool) -> Array:
    """(B, r) degrees of freedom of the rows of L (r, p), on standardized columns, for every response."""
    problem, products = responses.problem, responses.products

    def work(which: Codes) -> Array:
        x = fits.x[which]
        expansion = _second_order(problem, products, which, x, restricted, _steps(x, fits.hessian[which]))
        values, vectors = np.linalg.eigh(np.where(np.isfinite(expansion.hessian), expansion.hessian, 0.0))
        kept = values > NEGLIGIBLE_CURVATURE * values.max(axis=1, keepdims=True, initial=0.0)
        covariance = 2.0 * (vectors * np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
        variance = np.einsum("rx,bxy,ry->br", L, expansion.C, L, optimize=True)
        slopes = np.einsum("rx,btxy,ry->brt", L, expansion.slopes, L, optimize=True)
        spread = np.einsum("brt,bts,brs->br", slopes, covariance, slopes, optimize=True)
        return np.asarray(2.0 * variance**2 / spread)

    with one_thread(problem.criterion.width):
        found = _in_parts(responses, work, lambda _: None)
    return np.concatenate(found) if found else np.empty((0, len(L)))
