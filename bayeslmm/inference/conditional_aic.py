"""The conditional AIC: for predictions of the groups at hand, where the marginal AIC is for groups yet to come.

    cAIC = -2 log p(y | alpha^, beta^) + 2 (rho + 1),   rho = sum_i d y^_i / d y_i

rho is the trace of the leverage plus what y moves through the covariance parameters (Greven and Kneib 2010), found by the implicit
function theorem: theta moves with y by `-H^-1 d2f / dtheta dy`, f the profiled criterion, whose derivative in y is `2 d / r2 V0^-1 e`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array
from bayeslmm.errors import InferenceError
from bayeslmm.inference.hat import leverage
from bayeslmm.inference.tau import pseudo_inverse
from bayeslmm.likelihood.prediction import conditional_modes
from bayeslmm.likelihood.residuals import residual_sds
from bayeslmm.results.fit import Fit

STEP = 1e-4
"""Step of the central differences in x: their error is of its square."""


def caic(fit: Fit) -> pd.DataFrame:
    """One row: `caic, loglik` (conditional), `df` (rho), `df_known` (the trace of the leverage, as if covariance parameters were known).

    Raises InferenceError for structured errors, under which an observed outcome is its own best prediction.

    >>> caic(fit)["df"].round(1).item() > caic(fit)["df_known"].round(1).item()
    True
    """
    if fit.problem.structured is not None:
        raise InferenceError(
            "the conditional AIC is not defined for structured errors", "residual= or variance=", "compare by aic, or by loo of a posterior"
        )
    sds = residual_sds(fit.problem, fit.point)
    loglik = -0.5 * float(np.sum((fit.residuals() / sds) ** 2) + 2.0 * np.log(sds).sum() + fit.nobs * np.log(2.0 * np.pi))
    known = float(leverage(fit).sum())
    df = known + _through_parameters(fit)
    return pd.DataFrame({"caic": [-2.0 * loglik + 2.0 * (df + 1.0)], "loglik": [loglik], "df": [df], "df_known": [known]})


def _through_parameters(fit: Fit) -> float:
    """sum_i (d y^_i / d theta)' (d theta / d y_i)."""
    size, x = fit.problem.size, fit.estimate.x
    if size == 0:
        return 0.0
    moved, slopes, H = np.empty((size, fit.nobs)), np.empty((size, fit.nobs)), np.empty((size, size))
    for k in range(size):
        step = np.zeros(size)
        step[k] = STEP
        up, down = _at(fit, x + step), _at(fit, x - step)
        moved[k], slopes[k], H[k] = ((a - b) / (2.0 * STEP) for a, b in zip(up, down, strict=True))
    return -float(np.einsum("jn,jk,kn->", moved, pseudo_inverse(0.5 * (H + H.T)), slopes))


def _at(fit: Fit, x: Array) -> tuple[Array, Array, Array]:
    """Fitted values, the derivative of the criterion in y, its gradient in x, at other covariance parameters."""
    problem, design = fit.problem, fit.design
    point = problem.criterion.at(x, fit.restricted, order=1)
    assert point.state is not None
    fitted = design.X @ problem.alpha(point.state.solution.alpha[0])
    if design.offset is not None:
        fitted = fitted + design.offset
    for term, beta in zip(design.terms, conditional_modes(problem, point), strict=True):
        fitted = fitted + np.einsum("nq,nq->n", term.Z, beta[term.group.codes])
    weights = 1.0 if design.weights is None else design.weights
    # V0^-1 (y - X alpha) = W (y - X alpha - Z beta), and r2 / d is sigma^2
    return fitted, 2.0 * weights * (design.y - fitted) / problem.sigma2(point.sigma2), point.gradient
