"""Wald intervals: fixed effects on their own scale, covariance parameters on the scale where their estimates are nearest to normal."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtri

from bayeslmm.inference.parameters import covariance_parameters, from_scale, to_scale, value_of
from bayeslmm.inference.profile import checked_level, standard_error
from bayeslmm.inference.tau import curvature
from bayeslmm.results.fit import Fit


def wald_limits(fit: Fit, level: float = 0.95) -> pd.DataFrame:
    """`term, conf_low, conf_high` with normal quantiles; log scale for standard deviations, Fisher's z for correlations.

    The covariance of the covariance parameters is that of the observed information of the fit's own criterion, sigma included. A parameter
    at the end of its range has no Wald interval: NaN, and a note in `attrs["notes"]`.
    """
    quantile = -float(ndtri(0.5 * (1.0 - checked_level(level))))
    terms, low, high, notes = [], [], [], []
    tau = np.append(fit.estimate.x, 0.5 * np.log(fit.point.sigma2))
    found = curvature(fit).covariance
    for parameter in covariance_parameters(fit.problem):
        value = value_of(parameter, fit.problem, tau)
        error = standard_error(parameter, fit.problem, tau, found)
        middle = to_scale(parameter.scale, value)
        usable = np.isfinite(error) and error > 0
        ends = [from_scale(parameter.scale, middle + sign * quantile * error) if usable else np.nan for sign in (-1.0, 1.0)]
        if not usable:
            notes.append(f"{parameter.term}: the estimate {value:g} is at the end of the range; use method='profile' or 'bootstrap'")
        terms.append(parameter.term)
        low.append(ends[0])
        high.append(ends[1])
    estimate, half = fit.fixef.to_numpy(), quantile * np.sqrt(np.diagonal(fit.vcov.to_numpy()))
    frame = pd.DataFrame(
        {
            "term": [*terms, *fit.design.coef_names],
            "conf_low": [*low, *(estimate - half)],
            "conf_high": [*high, *(estimate + half)],
        }
    )
    frame.attrs["notes"] = tuple(notes)
    return frame
