"""Figures: tidy tables in, Matplotlib axes out."""

from bayeslmm.plots.intervals import bootstrap_axes, calibration_axes, comparison_axes, emmeans_axes, forest_axes, priors_axes, profile_axes
from bayeslmm.plots.residuals import simulated_axes

__all__ = [
    "bootstrap_axes",
    "calibration_axes",
    "comparison_axes",
    "emmeans_axes",
    "forest_axes",
    "priors_axes",
    "profile_axes",
    "simulated_axes",
]
