"""The doors from a fit to the rooms above it: a closed table of names, opened when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

INFERENCE = frozenset(
    {
        "anova",
        "bootstrap",
        "confint",
        "contrast",
        "covariance",
        "emmeans",
        "emtrends",
        "icc",
        "influence",
        "maketables_coefficients",
        "maketables_statistic",
        "predict_dynamic",
        "profile",
        "r2",
        "ranova",
        "to_marginaleffects",
    }
)

INTEROP = frozenset({"maketables_coefficients", "maketables_statistic", "to_marginaleffects"})


def infer(verb: str, fit: Any, *args: Any, **options: Any) -> Any:
    """Call a verb of the inference room on a fit."""
    assert verb in INFERENCE
    return getattr(import_module("bayeslmm.model.interop" if verb in INTEROP else "bayeslmm.inference"), verb)(fit, *args, **options)


def coefficient_table(fit: Any, df: str, vcov: str | None, information: str) -> Any:
    """t tests of the coefficients: term, estimate, std_error, df, statistic, p_value."""
    return import_module("bayeslmm.inference.fixed_effects.tests").coefficient_table(fit, df, vcov, information)


def plots(fit: Any) -> Any:
    """The accessor behind `fit.plot`."""
    return import_module("bayeslmm.plots.accessors").FitPlots(fit)


def report(fit: Any, path: Any, **options: Any) -> str:
    """The HTML report of a fit."""
    text: str = import_module("bayeslmm.reports.fit").fit_report(fit, path, **options)
    return text


def terminal(summary: Any) -> Any:
    """A summary for rich, which is imported with it."""
    return import_module("bayeslmm.results.render").renderable(summary)
