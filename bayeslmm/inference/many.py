"""Many fits of one model to many responses, side by side.

Every replicate starts at the estimate of the fit with its Newton matrix and goes on by BFGS; an iteration evaluates all that are not done
in one call of the kernel. What has not settled, or has settled on a boundary that is none, is fitted by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes, chained
from bayeslmm.estimate.boundary import NULL
from bayeslmm.inference.responses import ManyPoints, Products, evaluate_many
from bayeslmm.likelihood.criterion import Criterion, one_thread
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.problem import Problem

ITERATIONS = 40
SETTLED = 1e-9
"""Predicted decrease of the criterion at which a replicate is done."""

BUMP = 0.2
"""Relative standard deviation put where the fit has 0: at 0 itself a gradient sees nothing."""

REACH = 2.0
"""Longest step, in the norm of x."""


@dataclass(frozen=True, slots=True, eq=False)
class ManyFits:
    """x (B, size), sigma^2 (B,) and alpha (B, p) on conditioned columns, the criterion (B,); settled : (B,) to be believed."""

    x: Array
    sigma2: Array
    alpha: Array
    value: Array
    settled: NDArray[np.bool_]


def fit_many(problem: Problem, Y: Array, restricted: bool, start: Array) -> ManyFits:
    """Fit responses Y (n, B), conditioned, from x = start."""
    products = Products.of(problem, Y)
    parts = []
    with one_thread(problem.criterion.width):
        for begin in range(0, products.count, products.step):
            which = np.arange(begin, min(begin + products.step, products.count))
            parts.append(_descend(problem, products, which, restricted, start))
    return chained(parts)


def off_boundary(parameters: RandomParameters, x: Array) -> Array:
    """x with the null directions of every term's T lifted to `BUMP`."""
    out = x.copy()
    for term in parameters.terms:
        T = term.covariance.factor(x[term.part])
        left, sizes, right = np.linalg.svd(T)
        if sizes.min(initial=1.0) < BUMP * 1e-2:
            lifted = (left * np.maximum(sizes, BUMP)) @ right
            out[term.part] = term.covariance.from_matrix(lifted @ lifted.T)
    return out


def _start_matrix(criterion: Criterion, x: Array, restricted: bool) -> Array:
    """The inverse Newton matrix at the start, made positive definite."""
    hessian = criterion.at(x, restricted).hessian
    if hessian is None or not np.all(np.isfinite(hessian)):
        return np.eye(len(x))
    values, vectors = np.linalg.eigh(hessian)
    values = np.maximum(np.abs(values), 1e-4 * float(np.abs(values).max(initial=1e-300)))
    return np.asarray((vectors / values) @ vectors.T)


@dataclass(slots=True, eq=False)
class _Search:
    """The state of all replicates of a batch."""

    x: Array
    inverse: Array
    point: ManyPoints
    length: Array


def _descend(problem: Problem, products: Products, which: Codes, restricted: bool, start: Array) -> ManyFits:
    criterion = problem.criterion
    B, size = len(which), len(start)
    x = np.tile(start, (B, 1))
    inverse = np.tile(_start_matrix(criterion, start, restricted), (B, 1, 1))
    length = np.ones(B)

    def at(rows: Codes, where: Array) -> ManyPoints:
        return evaluate_many(criterion, products, which[rows], where, restricted)

    first = at(np.arange(B), x)
    value, gradient, sigma2, alpha = first.value.copy(), first.gradient.copy(), first.sigma2.copy(), first.alpha.copy()
    done = np.zeros(B, bool) if size else np.ones(B, bool)
    for _ in range(ITERATIONS):
        step = -np.einsum("bij,bj->bi", inverse, gradient)
        predicted = -0.5 * np.einsum("bi,bi->b", step, gradient)
        done |= predicted < SETTLED
        rows = np.flatnonzero(~done & np.isfinite(value))
        if len(rows) == 0:
            break
        move = step[rows] * length[rows, None]
        size_of = np.linalg.norm(move, axis=1)
        move *= np.minimum(1.0, REACH / np.maximum(size_of, 1e-300))[:, None]
        try:
            trial = at(rows, x[rows] + move)
        except np.linalg.LinAlgError:
            length[rows] *= 0.5
            continue
        lower = trial.value < value[rows] + 1e-4 * np.einsum("bi,bi->b", gradient[rows], move) + 1e-11 * np.abs(value[rows])
        taken, kept = rows[lower], rows[~lower]
        _update(inverse, taken, move[lower], trial.gradient[lower] - gradient[taken])
        x[taken] += move[lower]
        value[taken], gradient[taken] = trial.value[lower], trial.gradient[lower]
        sigma2[taken], alpha[taken] = trial.sigma2[lower], trial.alpha[lower]
        length[taken] = 1.0
        length[kept] *= 0.3
        done[kept[length[kept] < 1e-6]] = True
    settled = done & (length > 1e-5) & np.isfinite(value)
    settled &= _certified(problem, products, which, x, restricted)
    return ManyFits(x, sigma2, alpha, value, settled)


def _update(inverse: Array, rows: Codes, s: Array, y: Array) -> None:
    """BFGS on the inverse matrices of some replicates, left as they are where the curvature is not positive."""
    sy = np.einsum("bi,bi->b", s, y)
    Hy = np.einsum("bij,bj->bi", inverse[rows], y)
    yHy = np.einsum("bi,bi->b", y, Hy)
    good = sy > 1e-10 * np.sqrt(np.maximum(np.einsum("bi,bi->b", s, s) * np.einsum("bi,bi->b", y, y), 1e-300))
    rows, s, Hy, sy, yHy = rows[good], s[good], Hy[good], sy[good], yHy[good]
    outer = np.einsum("bi,bj->bij", s, Hy) / sy[:, None, None]
    inverse[rows] += (1.0 + yHy / sy)[:, None, None] * np.einsum("bi,bj->bij", s, s) / sy[:, None, None] - outer - outer.transpose(0, 2, 1)


def _certified(problem: Problem, products: Products, which: Codes, x: Array, restricted: bool) -> NDArray[np.bool_]:
    """Whether each replicate's boundary, where it is at one, is an optimum: no null direction of Sigma along which the criterion falls."""
    parameters = problem.random
    singular = np.zeros(len(x), bool)
    for term in parameters.terms:
        singular |= np.linalg.svd(term.covariance.factor(x[:, term.part]), compute_uv=False).min(axis=-1) < 1e2 * NULL
    good = np.ones(len(x), bool)
    rows = np.flatnonzero(singular)
    if len(rows) == 0:
        return good
    point = evaluate_many(problem.criterion, products, which[rows], x[rows], restricted)
    information = point.state.levels.information(restricted)
    for f, (factor, T) in enumerate(zip(parameters.factors, point.state.levels.Ts, strict=True)):
        G = information[f] - point.state.levels.squares[f] / point.sigma2[:, None, None]
        for own in factor.slices:
            good[rows] &= _slopes(G[:, own, own], T[:, own, own]) >= -1e-6 * np.maximum(1.0, np.abs(point.value))
    return good


def _slopes(G: Array, T: Array) -> Array:
    """The smallest derivative along the null directions of each T, (t,); 0 where there are none."""
    left, sizes, _ = np.linalg.svd(T)
    null = left * (sizes < 1e2 * NULL)[:, None, :]
    return np.minimum(np.linalg.eigvalsh(null.transpose(0, 2, 1) @ (0.5 * (G + G.transpose(0, 2, 1))) @ null).min(axis=-1), 0.0)
