"""Figures: tidy tables in, Matplotlib axes out."""

from bayeslmm.plots.accessor import FitPlots
from bayeslmm.plots.compared import calibration_axes, comparison_axes, priors_axes
from bayeslmm.plots.intervals import bootstrap_axes, forest_axes, profile_axes
from bayeslmm.plots.means import emmeans_axes
from bayeslmm.plots.posterior import PosteriorPlots
from bayeslmm.plots.simulated import simulated_axes

__all__ = [
    "FitPlots",
    "PosteriorPlots",
    "bootstrap_axes",
    "calibration_axes",
    "comparison_axes",
    "emmeans_axes",
    "forest_axes",
    "priors_axes",
    "profile_axes",
    "simulated_axes",
]
