"""The criterion before sigma is profiled out: a function of tau = (x, nu), nu = log sigma on conditioned columns.

    f(x, nu) = log |V0| [+ log |X' V0^-1 X|] + d (log 2 pi + 2 nu) + r2(x) exp(-2 nu)

Its minimum over nu is the profiled criterion. What is held fixed in a profile, an sd say, involves both.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.likelihood.criterion import Criterion, one_thread


@dataclass(frozen=True, slots=True, eq=False)
class JointPoint:
    """f, its gradient and Newton matrix at tau; `x` is tau, as the minimiser calls it."""

    x: Array
    value: float
    gradient: Array
    hessian: Array | None


def joint(criterion: Criterion, tau: Array, restricted: bool) -> JointPoint:
    """Evaluate f; infinite where it does not exist."""
    nowhere = JointPoint(tau, np.inf, np.full(len(tau), np.nan), None)
    if not np.all(np.isfinite(tau)) or abs(tau[-1]) > 300.0:
        return nowhere
    try:
        with one_thread(criterion.width), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = _joint(criterion, tau, restricted)
    except np.linalg.LinAlgError:
        return nowhere
    return found if np.isfinite(found.value) else nowhere


def _joint(criterion: Criterion, tau: Array, restricted: bool) -> JointPoint:
    x, nu = tau[:-1], float(tau[-1])
    state = criterion.kernel.evaluate(x[None], derivatives=True)
    solution, df, sigma2 = state.solution, criterion.df(restricted), float(np.exp(2.0 * nu))
    r2 = float(solution.r2[0]) / sigma2
    value = float(solution.logdet[0]) + df * (2.0 * nu - 1.0) + r2 + criterion.constant(restricted)
    if restricted:
        value += float(solution.logdet_X[0])
    logdet, slope = (g[0] for g in state.gradients(restricted))
    slope = slope / sigma2
    k = len(tau)
    H = np.empty((k, k))
    # with endless degrees of freedom nothing is taken off for a sigma that is profiled out
    H[:-1, :-1] = state.newton_matrix(restricted, sigma2, sys.maxsize)
    H[-1, :-1] = H[:-1, -1] = -2.0 * slope
    H[-1, -1] = 4.0 * r2
    return JointPoint(tau, value, np.append(logdet + slope, 2.0 * (df - r2)), H)
