"""The observed information of the covariance parameters tau = (x, log sigma), and d vcov(alpha) / d tau.

The criterion before sigma is profiled out is

    f(x, sigma) = log |V0| [+ log |X' V0^-1 X|] + d log(2 pi sigma^2) + r2(x) / sigma^2.

Its second derivatives in sigma are exact at the optimum; those in x are central differences of the analytic gradient at fixed sigma, so
that any kernel will do. The covariance of tau is twice the inverse of the Hessian over the directions in which f curves at all: at a
variance of 0 the axis of its standard deviation is a direction in which the covariance of alpha does not move, and it drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.estimate.estimate import Fitted, is_restricted
from bayeslmm.likelihood.criterion import one_thread

INFORMATION_STEP = 1e-3
"""Step of the differences in standard errors of x: the error is of its square, far above rounding."""

FLAT_CURVATURE = 1e-8
"""Curvature, relative to the largest, below which a direction of tau is not identified."""


@dataclass(frozen=True, slots=True, eq=False)
class ObservedInformation:
    """Second-order facts at the optimum, on standardized columns and in units of sigma.

    C : (p, p) (X' V0^-1 X)^-1
    slopes : (k, p, p) d(sigma^2 C)/d tau at sigma = 1; k = size + 1, log sigma last
    hessian : (k, k) of the criterion; covariance : (k, k) 2 H^-1 over the directions that are identified
    """

    C: Array
    slopes: Array
    hessian: Array
    covariance: Array


def observed_information(fit: Fitted) -> ObservedInformation:
    """Differentiate the criterion of a fit around its optimum."""
    point, problem = fit.point, fit.problem
    assert point.state is not None
    size, reml = problem.size, is_restricted(fit)
    sigma2, df = point.sigma2, problem.criterion.df(reml)
    C = point.state.solution.information_inverse[0]
    _, r2 = (g[0] for g in point.state.gradients(reml))
    steps = _steps(fit)
    gradients, covariances = _around(fit, steps, reml)
    H = np.zeros((size + 1, size + 1))
    H[:size, :size] = (gradients[:size] - gradients[size:]) / (2.0 * steps[:, None])
    H[:size, :size] = 0.5 * (H[:size, :size] + H[:size, :size].T)
    H[size, :size] = H[:size, size] = -2.0 * r2 / sigma2
    H[size, size] = 4.0 * float(point.state.solution.r2[0]) / sigma2 if df else 0.0
    if problem.criterion.held is not None:
        H[size] = H[:, size] = 0.0  # a sigma that is held is no direction
    slopes = np.concatenate([(covariances[:size] - covariances[size:]) / (2.0 * steps[:, None, None]), 2.0 * C[None]])
    return ObservedInformation(C, slopes, H, 2.0 * pseudo_inverse(H))


def pseudo_inverse(H: Array) -> Array:
    """The inverse over the eigenvectors with positive, not negligible eigenvalues."""
    values, vectors = np.linalg.eigh(H)
    kept = values > FLAT_CURVATURE * values.max(initial=0.0)
    return np.asarray((vectors[:, kept] / values[kept]) @ vectors[:, kept].T)


def _steps(fit: Fitted) -> Array:
    """A small fraction of the standard error of each x, as the Newton matrix has it, and of the size of x.

    Near a variance of 0 the criterion is a function of x^2: the standard error of x is far longer than the way on which it is a parabola.
    """
    size = fit.problem.size
    hessian = fit.point.hessian if fit.point.hessian is not None else fit.estimate.hessian
    if hessian is None or not np.all(np.isfinite(hessian)):
        return np.full(size, 1e-4)
    diagonal = np.diagonal(hessian)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(2.0 / diagonal)
    near = INFORMATION_STEP * np.maximum(np.abs(fit.point.x), INFORMATION_STEP)
    return np.clip(np.minimum(np.where(diagonal > 0, INFORMATION_STEP * errors, 1e-4), near), 1e-7, 1e-2)


def _around(fit: Fitted, steps: Array, reml: bool) -> tuple[Array, Array]:
    """Gradient at fixed sigma (2 size, size) and C (2 size, p, p) at x + h_i e_i, then at x - h_i e_i."""
    x, size = fit.point.x, len(steps)
    moves = np.diag(steps)
    at = np.concatenate([x + moves, x - moves])
    p = fit.problem.criterion.p
    gradients, covariances = np.empty((2 * size, size)), np.empty((2 * size, p, p))
    with one_thread(fit.problem.criterion.width):
        for i, row in enumerate(at):
            state = fit.problem.criterion.kernel.evaluate(row[None], derivatives=True)
            logdet, r2 = state.gradients(reml)
            gradients[i] = logdet[0] + r2[0] / fit.point.sigma2
            covariances[i] = state.solution.information_inverse[0]
    return gradients, covariances
