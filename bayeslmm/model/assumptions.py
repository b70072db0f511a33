"""A fit at assumed parameters, without an outcome: the start of every power analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._validation import require_one_of
from bayeslmm.errors import DesignError
from bayeslmm.formula import parse_formula
from bayeslmm.model.fit import AssumedFit, Fit
from bayeslmm.model.lmm import LMM
from bayeslmm.results.fitted import as_pandas
from bayeslmm.trials.assumed import Numbers, estimates_of

if TYPE_CHECKING:
    from bayeslmm._types import Frame


def assume(
    formula: str,
    skeleton: Frame,
    *,
    alpha: Numbers,
    sd: Numbers | Mapping[str, Numbers] | None = None,
    corr: float | Array | Mapping[str, float | Array] | None = None,
    sigma: float | None = None,
    residual: str | None = None,
    R: Array | Sequence[Sequence[float]] | pd.DataFrame | None = None,
    method: Literal["REML", "ML"] = "REML",
) -> Fit:
    """A fit at assumed parameters, with no outcome.

    Parameters
    ----------
    formula
        As of `LMM`; the outcome need not be in the skeleton.
    skeleton
        One row per planned observation: groups, visits, covariates.
    alpha
        Coefficients in their order, or by name.
    sd
        Standard deviations of the random effects: numbers of the only term, or grouping factor -> numbers.
    corr
        Their correlations: one number, a matrix, or grouping factor -> these; 0 where not given.
    sigma
        Residual standard deviation.
    residual, R
        Structure of the errors over visits, and their covariance matrix; a structure with one sd may take `sigma` alone.
    method
        What simulated data will be fitted by.

    Returns
    -------
    Fit
        With `predict`, `marginal_cov`, `simulate`, `power` and all that needs no outcome.

    >>> plan = blm.assume("y ~ x + (1 | g)", {"x": [0, 1] * 6, "g": list("aabbccddeeff")}, alpha=[0, 1], sd=1, sigma=1)
    >>> round(plan.power("x", method="analytic").frame["power"].item(), 3)
    0.291
    """
    require_one_of(method, ("REML", "ML"), "method")
    frame = as_pandas(skeleton).copy()
    outcome = parse_formula(formula).response
    if len(frame) < 2:
        raise DesignError(f"the skeleton has {len(frame)} rows", "skeleton", "give one row per planned observation")
    # numbers that no column of the design reproduces, replaced by a response with the assumed estimates
    frame[outcome] = np.random.default_rng(0).standard_normal(len(frame))
    model = LMM(formula, frame, residual=residual)
    found = estimates_of(model, alpha, sd, corr, sigma, R, method)
    return AssumedFit(found.model, found.problem, found.estimate, 0.0)
