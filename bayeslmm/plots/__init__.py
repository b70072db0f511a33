"""Figures: tidy tables in, Matplotlib axes out."""

from bayeslmm.plots.accessor import FitPlots
from bayeslmm.plots.intervals import bootstrap_axes, forest_axes, profile_axes
from bayeslmm.plots.means import emmeans_axes
from bayeslmm.plots.simulated import simulated_axes

__all__ = ["FitPlots", "bootstrap_axes", "emmeans_axes", "forest_axes", "profile_axes", "simulated_axes"]
