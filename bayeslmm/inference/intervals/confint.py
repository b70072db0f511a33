"""Confidence intervals of all parameters: Wald, profile, bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtri

from bayeslmm._types import ConfMethod
from bayeslmm._validation import find_word, require_level, require_names
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.fixed_effects.degrees_of_freedom import observed_information
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.intervals.parameters import covariance_parameters, from_scale, parameter_value, to_scale
from bayeslmm.inference.intervals.profile import profile_limits, standard_error
from bayeslmm.results.estimates import Estimates

if TYPE_CHECKING:
    from bayeslmm._types import BootstrapInterval, BootstrapKind, LikelihoodKind, Names


def wald_limits(fit: Estimates, level: float = 0.95) -> pd.DataFrame:
    """`term, conf_low, conf_high` with normal quantiles; log scale for standard deviations, Fisher's z for correlations.

    The covariance of the covariance parameters is that of the observed information of the fit's own criterion, sigma included. A parameter
    at the end of its range has no Wald interval: NaN, and a note in `attrs["notes"]`.
    """
    quantile = -float(ndtri(0.5 * (1.0 - require_level(level, "level"))))
    terms, low, high, notes = [], [], [], []
    tau = np.append(fit.estimate.x, 0.5 * np.log(fit.point.sigma2))
    found = observed_information(fit).covariance
    for parameter in covariance_parameters(fit.problem):
        value = parameter_value(parameter, fit.problem, tau)
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


def confint(
    fit: Estimates,
    method: ConfMethod = "wald",
    level: float = 0.95,
    *,
    terms: Names | None = None,
    criterion: LikelihoodKind | None = None,
    n: int | None = None,
    seed: int | None = None,
    kind: BootstrapKind | None = None,
    interval: BootstrapInterval | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Confidence limits: `term, conf_low, conf_high`; covariance parameters are called `sd__Days|Subject`, `cor__Intercept.Days|Subject`.

    method : "wald" (normal quantiles; covariance parameters on the log or Fisher z scale), "profile" (the criterion rises by the
        chi-square quantile; `criterion=` "ML", as lme4, or "REML"), or "bootstrap" (`n=`, `seed=`, `kind=`, `interval=` "percentile",
        "basic" or "bca")
    level : of confidence; terms : some parameters only; an option of another method is refused

    A limit that is the end of a parameter's range (an sd of 0, a correlation of 1 in size) is that end; one that does not exist is NaN;
    both are said in `attrs["notes"]`.

    >>> fit.confint("profile", terms=["Days"])[["conf_low", "conf_high"]].round(2).to_numpy().tolist()
    [[7.36, 13.58]]
    """
    method, level = find_word(method, get_args(ConfMethod), "method"), require_level(level, "level")
    own = {"n": n, "seed": seed, "kind": kind, "interval": interval, "workers": workers, "progress": progress}
    applies: dict[str, tuple[str, ...]] = {"wald": (), "profile": ("criterion",), "bootstrap": tuple(own)}
    for name, value in (own | {"criterion": criterion}).items():
        if value is not None and name not in applies[method]:
            remedy = f"method={method!r} takes " + (", ".join(map(repr, applies[method])) or "no further option")
            raise SpecificationError(f"confint has no option {name!r} for method={method!r}", name, remedy)
    if method == "profile":
        return profile_limits(fit, level, "ML" if criterion is None else criterion, terms)
    if method == "wald":
        frame = wald_limits(fit, level)
    else:
        replicates = bootstrap(
            fit,
            1000 if n is None else n,
            seed,
            kind="parametric" if kind is None else kind,
            workers=1 if workers is None else workers,
            progress=progress,
        )
        frame = replicates.confint(level, "percentile" if interval is None else interval)
        if replicates.interrupted:
            frame.attrs["notes"] = (f"interrupted: from {len(replicates.frame):,} replicates",)
    return frame if terms is None else _pick_terms(frame, terms)


def _pick_terms(frame: pd.DataFrame, terms: Names) -> pd.DataFrame:
    asked = require_names(terms, "terms")
    known = frame["term"].tolist()
    for term in asked:
        if term not in known:
            raise SpecificationError(f"there is no parameter {term!r}", "terms", "use one of " + ", ".join(map(repr, known)))
    out = frame.iloc[[known.index(term) for term in asked]].reset_index(drop=True)
    out.attrs = dict(frame.attrs)
    return out
