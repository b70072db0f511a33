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
    return str(import_module("bayeslmm.reports").comparison_report(comparison, path, title=title))


NAMES = {
    "Calibration": "bayeslmm.bayes.calibration",
    "Comparison": "bayeslmm.bayes.comparison",
    "calibrate": "bayeslmm.bayes.calibration",
    "compare": "bayeslmm.bayes.comparison",
    "compare_models": "bayeslmm.bayes.ranking",
    "leave_one_out": "bayeslmm.bayes.loo",
    "sensitivity": "bayeslmm.bayes.power_scaling",
    "to_bambi": "bayeslmm.bayes.bambi",
    "to_pymc": "bayeslmm.bayes.graph_model",
    "Posterior": "bayeslmm.bayes.posterior",
    "open_posterior": "bayeslmm.bayes.posterior_store",
    "save_posterior": "bayeslmm.bayes.posterior_store",
    "map_estimate": "bayeslmm.bayes.maximum",
    "posterior_contrast": "bayeslmm.bayes.posterior_effects",
    "posterior_emmeans": "bayeslmm.bayes.posterior_effects",
    "prior_predictive": "bayeslmm.bayes.prior_draws",
    "resolved_priors": "bayeslmm.bayes.resolved",
    "sample": "bayeslmm.bayes.sampling",
    "sample_hierarchical": "bayeslmm.bayes.hierarchical",
}
"""Public name of the room -> module that has it."""


def hand_on(name: str) -> Any:
    """What `bayeslmm.bayes.NAME` is."""
    if name in NAMES:
        return getattr(opened(NAMES[name]), name)
    raise AttributeError(f"module 'bayeslmm.bayes' has no attribute {name!r}")
