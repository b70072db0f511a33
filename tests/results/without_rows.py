"""Every member of a fit, asked of one without rows: the answer of the fit on the rows, or a refusal that says that they are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError

type Calls = Mapping[str, Callable[[blm.Fit, Callable[..., Any]], Any]]
"""How a member of a fit is asked, where not by its name alone, for values that can be compared; None where there is nothing to compare."""

CALLS: Calls = {
    "expanded": lambda f, verb: verb(f.fixef_kept),
    "tidy": lambda f, verb: [
        verb("all", conf_int=True),
        verb(df="kenward-roger"),
        verb(df="kenward-roger", information="observed"),
        verb(df="residual"),
    ],
    "anova": lambda f, verb: [verb(k) for k in (1, 2, 3)],
    "ranef": lambda f, verb: [verb(), verb(se=True)],
    "ratio": lambda f, verb: [verb("Residual"), verb("total", of="Residual")],
    "confint": lambda f, verb: verb("wald"),
    "bootstrap": lambda f, verb: list(verb(3, seed=1).frame.columns),
    "check_inference": lambda f, verb: list(verb(3, seed=1).frame.columns),
    "save": lambda f, verb: None,
    "design": lambda f, verb: None,
    "model": lambda f, verb: None,
    "plot": lambda f, verb: None,
    "point": lambda f, verb: f.point.value,
    "report": lambda f, verb: None,
    "path": lambda f, verb: len(f.path),
    "summary": lambda f, verb: str(verb()).partition("Random effects")[2],
    "to_marginaleffects": lambda f, verb: None,
    "to_table": lambda f, verb: None,
    "warning": lambda f, verb: str(verb()),
    "checks": lambda f, verb: {name: check.verdict for name, check in f.checks.items()},
    "counts": lambda f, verb: [f.counts.aic, f.counts.bic, f.counts.subjects],
}

NEEDS_ROWS = {"augment", "conditional_mean", "fitted", "influence", "marginal_cov", "refit", "residuals", "rows", "simulate", "with_params"}
MAY_NEED_ROWS = {"bootstrap", "check_inference", "icc", "predict", "profile", "r2", "ranova", "standardized", "update"}
"""Verbs that need rows in some models, or that sums learn one day."""


def check_every_member(whole: blm.Fit, rowless: blm.Fit, calls: Calls) -> None:
    """calls : of the members that are asked with columns and rows of the design"""
    calls = {**CALLS, **calls}

    def ask(fit: blm.Fit, name: str) -> Any:
        member = getattr(fit, name)
        if name in calls:
            return calls[name](fit, member)
        return member() if callable(member) else member

    for name in (name for name in dir(blm.Fit) if not name.startswith("_")):
        try:
            answer = ask(rowless, name)
        except BayesLMMError as refused:
            if "added up" in refused.what or "not kept" in refused.what:
                assert name in NEEDS_ROWS | MAY_NEED_ROWS, name
                continue
            with pytest.raises(type(refused)):
                ask(whole, name)
            continue
        assert name not in NEEDS_ROWS, name
        equal(ask(whole, name), answer)


def equal(one: Any, other: Any) -> None:
    """Equal but for the rounding of sums that were added up in another order."""
    assert type(one) is type(other)
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, rtol=1e-5, atol=1e-7)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other, rtol=1e-5, atol=1e-7)
    elif isinstance(one, np.ndarray):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-7, nan_ok=True)
    elif isinstance(one, Mapping):
        assert list(one) == list(other)
        for key in one:
            equal(one[key], other[key])
    elif isinstance(one, tuple | list):
        for a, b in zip(one, other, strict=True):
            equal(a, b)
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-9, nan_ok=True)
    else:
        assert one == other
