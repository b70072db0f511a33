"""Where the search for variances starts when columns are few: one step of Fisher's scoring in the covariances themselves.

At relative covariances of 1, V0 = Z Z' + I, the expected values of y'P V_i P y are linear in sigma^2 and the entries s of every D,

    sum_j tr(P V_i P V_j) s_j = y'P V_i P y,    V_0 = I,  V_i = Z S_i Z',

which is MIVQUE(1) of Rao (1971). In balanced data its solution is the REML estimate itself, in others it is near (Searle, Casella and
McCulloch 1992, chapter 11). With G = Z'P Z, and P V0 P = P, nothing is left of the rows.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.linalg import lapack

from bayeslmm.arrays import Array
from bayeslmm.likelihood.few import FewColumns, FewPoint
from bayeslmm.likelihood.moments import own_axes, started

MANY = 28
"""Parameters above which the equations cost more than the evaluations that they save."""


def scored_start(few: FewColumns, residual_df: int) -> Array | None:
    """x at which covariances are those of one scoring step; None where that says nothing. residual_df : n - p.

    Unstructured, diagonal and common variances only: other structures have a start of their own.
    """
    parameters = few.parameters
    if not 0 < parameters.size <= MANY or not own_axes(parameters):
        return None
    point = few.at_unit(np.concatenate([term.covariance.start() for term in parameters.terms]))
    if point is None:
        return None
    _, found, failed = lapack.dposv(*equations(point, residual_df))
    if failed or not np.isfinite(found).all() or found[0] <= 0.0:
        return None
    dT = point.dT
    D = ((found[1:] / found[0]) @ dT.reshape(len(dT), -1)).reshape(dT.shape[1:])
    D += D.T
    return started(parameters, [D[begin:end, begin:end] for begin, end in pairwise(few.starts)])


def equations(point: FewPoint, residual_df: int) -> tuple[Array, Array]:
    """Matrix (k + 1, k + 1) and right-hand side in sigma^2 and s, S_i = dT_i + dT_i' on the levels of its factor."""
    m, a, d, half = point.data.m, point.scores, point.dLambda, 0.5 * point.x
    k, A = len(d), point.A[:, :-1]
    G = point.data.products[:m, :m] - A @ A.T
    seen = (d + d.swapaxes(1, 2)) @ G
    M, right = np.empty((k + 1, k + 1)), np.empty(k + 1)
    M[1:, 1:] = seen.reshape(k, -1) @ seen.swapaxes(1, 2).reshape(k, -1).T
    right[1:] = 2.0 * ((d @ a) @ a)
    # what belongs to sigma^2 follows from V0 = I + sum x_i V_i / 2 and P V0 P = P
    traces = 2.0 * (d.reshape(k, -1) @ G.ravel())
    M[0, 1:] = M[1:, 0] = traces - M[1:, 1:] @ half
    M[0, 0] = residual_df - traces @ half - M[0, 1:] @ half
    right[0] = float(point.L[-1, -1]) ** 2 - right[1:] @ half
    return M, right
