"""Leverage: how much an observation's fitted value moves with the observation itself, from the factor that the fit has already made.

The conditional fit is linear in y at fixed covariance parameters, y^ = H y, and H has the diagonal

    h_i = w_i var(x'(alpha^ - alpha) + z'(beta^ - beta)) / sigma^2

as lme4's hatvalues. With structured errors H = I - R V^-1 (I - X (X' V^-1 X)^-1 X' V^-1).
"""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.likelihood.prediction import row_variances
from bayeslmm.likelihood.residuals import unit_sds
from bayeslmm.likelihood.subjects import RowsState, SubjectsState
from bayeslmm.results.fit import Fit


def leverage(fit: Fit) -> Array:
    """(nobs,) diagonal of the map from y to conditional fitted values."""
    design, problem = fit.design, fit.problem
    if problem.structured is not None:
        return _structured(fit)
    codes = [term.group.codes for term in design.terms]
    variance = row_variances(problem, fit.point, design.X, [term.Z for term in design.terms], codes)
    return np.asarray(variance / (fit.estimate.sigma * unit_sds(problem, fit.point.x)) ** 2)


def _structured(fit: Fit) -> Array:
    """1 - diag(R V^-1) + diag(R V^-1 X C X' V^-1), block by block."""
    state = fit.point.state
    assert isinstance(state, SubjectsState)
    C, p = state.solution.information_inverse[0], fit.problem.criterion.p
    out = np.empty(fit.nobs)

    for part in state.row_states:
        out[part.batch.rows] = _block_leverage(part, C, p)
    return out


def _block_leverage(part: RowsState, C: Array, p: int) -> Array:
    ViX = part.inverse @ part.U[..., :p]
    RVi, RViX = part.R @ part.inverse, part.R @ ViX
    own = np.diagonal(RVi, axis1=1, axis2=2)
    return np.asarray(1.0 - own + np.einsum("bkx,xz,bkz->bk", RViX, C, ViX))
