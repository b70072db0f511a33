"""Confidence intervals of all parameters by one of three methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bayeslmm.errors import SpecificationError
from bayeslmm.inference.bootstrap import bootstrap
from bayeslmm.inference.profile import profile_limits
from bayeslmm.inference.wald import wald_limits
from bayeslmm.results.fit import Fit
from bayeslmm.results.rows import demand_one_of

OPTIONS = {"wald": (), "profile": ("criterion",), "bootstrap": ("n", "seed", "kind", "interval", "workers", "progress")}


def confint(fit: Fit, method: str = "wald", level: float = 0.95, *, terms: Sequence[str] | None = None, **options: Any) -> pd.DataFrame:
    """Confidence limits: `term, conf_low, conf_high`; covariance parameters are called `sd__Days|Subject`, `cor__Intercept.Days|Subject`.

    method : "wald" (normal quantiles; covariance parameters on the log or Fisher z scale), "profile" (the criterion rises by the
        chi-square quantile; `criterion=` "ML", as lme4, or "REML"), or "bootstrap" (`n=`, `seed=`, `kind=`, `interval=` "percentile",
        "basic" or "bca")
    level : of confidence; terms : some parameters only

    A limit that is the end of a parameter's range (an sd of 0, a correlation of 1 in size) is that end; one that does not exist is NaN;
    both are said in `attrs["notes"]`.

    >>> fit.confint("profile", terms=["Days"])[["conf_low", "conf_high"]].round(2).to_numpy().tolist()
    [[7.36, 13.58]]
    """
    demand_one_of(method, ("wald", "profile", "bootstrap"), "method")
    for name in options:
        if name not in OPTIONS[method]:
            remedy = f"method={method!r} takes " + (", ".join(map(repr, OPTIONS[method])) or "no further option")
            raise SpecificationError(f"confint has no option {name!r} for method={method!r}", name, remedy)
    if method == "profile":
        return profile_limits(fit, level, terms=terms, **options)
    frame = wald_limits(fit, level) if method == "wald" else _bootstrap_limits(fit, level, options)
    return frame if terms is None else _picked(frame, terms)


def _bootstrap_limits(fit: Fit, level: float, options: dict[str, Any]) -> pd.DataFrame:
    interval = options.pop("interval", "percentile")
    return bootstrap(fit, **options).confint(level, interval)


def _picked(frame: pd.DataFrame, terms: Sequence[str]) -> pd.DataFrame:
    asked = [terms] if isinstance(terms, str) else list(terms)
    known = frame["term"].tolist()
    for term in asked:
        if term not in known:
            raise SpecificationError(f"there is no parameter {term!r}", "terms", "use one of " + ", ".join(map(repr, known)))
    out = frame.iloc[[known.index(term) for term in asked]].reset_index(drop=True)
    out.attrs = dict(frame.attrs)
    return out
