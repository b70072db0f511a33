"""t tests of linear functions of the fixed effects for many fits side by side, with Satterthwaite's degrees of freedom.

The same definition as for one fit: f(x, log sigma) is the criterion before sigma is profiled out, its Hessian by central differences of the
analytic gradient, var(v) of the variance v of a function by the delta method, df = 2 v^2 / var(v).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.inference.intervals.batch_refit import evaluate_responses
from bayeslmm.inference.intervals.batch_structured import Kinds, Points, ReplicateSums, SubjectGroup
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.response_products import ResponseProducts

STEP = 1e-3
"""Step of the differences in standard errors of x."""


@dataclass(frozen=True, slots=True, eq=False)
class FunctionTests:
    """Estimates, standard errors and degrees of freedom of q functions, (B, q) each."""

    estimate: Array
    std_error: Array
    df: Array


def responses(groups: tuple[SubjectGroup, ...], subject_y: Array, weights: Array | None = None) -> ReplicateSums:
    """Sums of replicates that differ in their responses.

    subject_y : one array (B, n, k) for each group of subjects would not be of one shape: (B, rows) on the conditioned scale, rows in the
        order of the groups, subject by subject; weights : (B, subjects) how often each subject counts, or None
    """
    B, begin, kinds, rows = len(subject_y), 0, [], np.zeros(len(subject_y))
    for group in groups:
        n, k, r = group.Xy.shape
        p, C = r - 1, group.block.shape[0]
        Y = subject_y[:, begin : begin + n * k].reshape(B, n, k)
        begin += n * k
        X = group.Xy[..., :p]
        member = np.zeros((n, C))
        member[np.arange(n), group.kind] = 1.0
        own = np.ones((1, n)) if weights is None else weights[:, group.subjects]
        XX = (X[:, :, None, :, None] * X[:, None, :, None, :]).reshape(n, k * k, p * p)
        counted = own[:, :, None] * member
        shared = np.einsum("bnc,nx->bcx", counted, XX.reshape(n, -1), optimize=True).reshape(len(own), C, k * k, p * p)
        XY, YY = np.empty((B, C, k * k, p)), np.empty((B, C, k * k))
        for c in range(C):
            i = np.flatnonzero(group.kind == c)
            w = np.ones((1, len(i))) if weights is None else own[:, i]
            scaled = Y[:, i] * w[..., None]
            cross = np.einsum("bil,ikp->bklp", scaled, X[i], optimize=True)
            XY[:, c] = (0.5 * (cross + cross.swapaxes(1, 2))).reshape(B, k * k, p)
            YY[:, c] = np.einsum("bik,bil->bkl", scaled, Y[:, i], optimize=True).reshape(B, k * k)
        count = np.broadcast_to(counted.sum(axis=1), (B, C))
        kinds.append(Kinds(group.block, count, shared, XY, YY))
        rows += k * own.sum(axis=1)
    return ReplicateSums(tuple(kinds), rows)


def grouped_rows(problem: Problem) -> Codes:
    """Rows of the design in the order in which `responses` takes them."""
    kernel = problem.structured
    assert kernel is not None
    return np.concatenate([batch.rows.ravel() for batch in (*kernel.data.rows, *kernel.data.pooled_rows)])


type PointsAt = Callable[[Array], Points]
"""The criterion of every replicate at x (B, size) of its own."""


def points_of_responses(problem: Problem, products: ResponseProducts, restricted: bool) -> PointsAt:
    """The points of a model of random effects for many responses."""

    def at(x: Array) -> Points:
        found = evaluate_responses(problem.criterion, products, np.arange(len(x)), x, restricted)
        solution = found.state.solution
        r2 = found.state.gradients(restricted)[1]
        return Points(found.value, found.gradient, found.sigma2, found.alpha, solution.information_inverse, r2, solution.r2)

    return at


def function_tests(problem: Problem, at: PointsAt, x: Array, rows: Array | float, L: Array, df: str) -> FunctionTests:
    """Tests of L (1 or B, q, p) on the user's columns at the estimates x (B, size).

    rows : numbers of rows, for df="residual"; df : "satterthwaite", "residual" or "asymptotic"
    """
    point = at(x)
    c = problem.standardization
    own = np.broadcast_to(L @ c.back, (len(x), L.shape[1], L.shape[2]))
    unit = np.einsum("bqp,bpr,bqr->bq", own, point.C, own, optimize=True)
    estimate = np.einsum("bqp,bp->bq", np.broadcast_to(L, own.shape), problem.alpha(point.alpha))
    std_error = np.sqrt(np.maximum(unit * point.sigma2[:, None], 0.0)) * c.y_scale * np.sqrt(c.weight_mean)
    if df == "asymptotic":
        return FunctionTests(estimate, std_error, np.full_like(unit, np.inf))
    if df == "residual":
        left = np.broadcast_to(rows, (len(x),)) - problem.criterion.p
        return FunctionTests(estimate, std_error, np.broadcast_to(left[:, None], unit.shape))
    return FunctionTests(estimate, std_error, satterthwaite_df(problem, at, x, point, own, unit))


def satterthwaite_df(problem: Problem, at: PointsAt, x: Array, point: Points, own: Array, unit: Array) -> Array:
    """Degrees of freedom (B, q) of functions own (B, q, p) of standardized coefficients, whose variance over sigma^2 is unit (B, q)."""
    B, size = x.shape
    steps = _steps(problem, x)
    H, slopes = np.zeros((B, size + 1, size + 1)), np.zeros((B, unit.shape[1], size + 1))
    for i in range(size):
        move = np.zeros_like(x)
        move[:, i] = steps[:, i]
        sides = [at(x + sign * move) for sign in (1.0, -1.0)]
        gradient = [s.gradient - s.r2_gradient / s.sigma2[:, None] + s.r2_gradient / point.sigma2[:, None] for s in sides]
        H[:, i, :size] = (gradient[0] - gradient[1]) / (2.0 * steps[:, i : i + 1])
        moved = [np.einsum("bqp,bpr,bqr->bq", own, s.C, own, optimize=True) for s in sides]
        slopes[:, :, i] = (moved[0] - moved[1]) / (2.0 * steps[:, i : i + 1])
    H[:, :size, :size] = 0.5 * (H[:, :size, :size] + H[:, :size, :size].swapaxes(1, 2))
    H[:, size, :size] = H[:, :size, size] = -2.0 * point.r2_gradient / point.sigma2[:, None]
    H[:, size, size] = 4.0 * point.r2 / point.sigma2
    slopes[:, :, size] = 2.0 * unit
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = 2.0 * np.einsum("bqt,bts,bqs->bq", slopes, _inverse(H), slopes, optimize=True)
        return np.asarray(2.0 * unit**2 / spread)


def _steps(problem: Problem, x: Array) -> Array:
    hessian = problem.criterion.at(x.mean(axis=0), True).hessian
    diagonal = np.ones(x.shape[1]) if hessian is None else np.diagonal(hessian)
    errors = np.sqrt(2.0 / np.where(diagonal > 0, diagonal, 1.0))
    return np.broadcast_to(np.clip(STEP * errors, 1e-7, 1e-2), x.shape)


def _inverse(H: Array) -> Array:
    """Inverses over the directions in which each Hessian curves."""
    good = np.isfinite(H).all((1, 2))
    values, vectors = np.linalg.eigh(np.where(good[:, None, None], H, np.eye(H.shape[-1])))
    kept = values > 1e-8 * values.max(axis=1, keepdims=True)
    inverse = (vectors * np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)[:, None, :]) @ vectors.swapaxes(1, 2)
    return np.where(good[:, None, None], inverse, np.nan)
