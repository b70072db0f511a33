"""Doors to what only containers, tables and figures of draws need: opened when asked for, so that sampling never waits for them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bayeslmm.errors import DependencyError

OPTIONAL = frozenset({"arviz", "arviz_stats", "arviz_plots", "arviz_base", "xarray", "pymc", "nutpie", "bambi", "pytensor", "matplotlib"})


def optional(name: str) -> Any:
    """An optional package. Raises DependencyError with what to install."""
    assert name.partition(".")[0] in OPTIONAL
    return opened(name)


def opened(module: str) -> Any:
    """A module that needs optional packages. Raises DependencyError with what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        absent = str(error.name or "").partition(".")[0]
        if absent not in OPTIONAL:
            raise
        raise DependencyError(f"{absent} is not installed", str(error), "pip install bayeslmm[bayes]") from error


FIGURES = frozenset({"PosteriorPlots", "calibration_axes", "comparison_axes", "priors_axes"})


def plot(figure: str, value: Any, *more: Any, **options: Any) -> Any:
    """Draw a result by a function of the room of plots."""
    assert figure in FIGURES
    return getattr(import_module("bayeslmm.plots"), figure)(value, *more, **options)


def comparison_report(comparison: Any, path: Any, title: str | None) -> str:
    """The report of a comparison, by the room of reports."""
    return str(import_module("bayeslmm.reports.comparison").comparison_report(comparison, path, title=title))


NAMES = {
    "Calibration": "bayeslmm.bayes.calibration",
    "Comparison": "bayeslmm.bayes.comparison",
    "calibrate": "bayeslmm.bayes.calibration",
    "compare": "bayeslmm.bayes.comparison",
    "compare_models": "bayeslmm.bayes.comparison",
    "leave_one_out": "bayeslmm.bayes.loo",
    "sensitivity": "bayeslmm.bayes.sensitivity",
    "to_bambi": "bayeslmm.bayes.pymc_model.bambi",
    "to_pymc": "bayeslmm.bayes.pymc_model.model",
    "Posterior": "bayeslmm.bayes.posterior.posterior",
    "open_posterior": "bayeslmm.bayes.posterior.store",
    "save_posterior": "bayeslmm.bayes.posterior.store",
    "map_estimate": "bayeslmm.bayes.sampling.mode",
    "posterior_contrast": "bayeslmm.bayes.posterior.tables",
    "posterior_emmeans": "bayeslmm.bayes.posterior.tables",
    "prior_predictive": "bayeslmm.bayes.sampling.prior_predictive",
    "resolved_priors": "bayeslmm.bayes.sampling.prior_predictive",
    "sample": "bayeslmm.bayes.sampling.sample",
    "sample_hierarchical": "bayeslmm.bayes.sampling.hierarchical",
}
"""Public name of the room -> module that has it."""


def hand_on(name: str) -> Any:
    """What `bayeslmm.bayes.NAME` is."""
    if name in NAMES:
        return getattr(opened(NAMES[name]), name)
    raise AttributeError(f"module 'bayeslmm.bayes' has no attribute {name!r}")
