"""Figures of the design of studies: power along sizes and effects, coverage of intervals by method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayeslmm.plots.style import PALETTE, axes_for, grey, legend_above, light, plain_axes, printable_name, ribbon


def power_figure(frame: pd.DataFrame, along: str, test: str, alpha: float, ax: Axes | None) -> Axes:
    """Power along n, or an effect, with its Monte Carlo band, and the level; a line for each of several tests."""
    ax = axes_for(ax, 6.4, 4.2)
    several = "test" in frame
    for i, (name, own) in enumerate(frame.groupby("test", sort=False) if several else [(test, frame)]):
        x, color = own["effect" if along == "effect" else "n"].to_numpy(float), PALETTE[i % len(PALETTE)]
        ax.fill_between(x, own["conf_low"], own["conf_high"], color=color, alpha=ribbon(), lw=0)
        if len(x) == 1:  # a band of one point has no width
            ax.vlines(x, own["conf_low"], own["conf_high"], color=color, lw=1.6)
        ax.plot(x, own["power"], color=color, lw=2.0, marker="o", ms=4, label=printable_name(str(name)))
    if several:
        legend_above(ax)
    for level in (0.8, 0.9):
        ax.axhline(level, color=light(), lw=1.0)
    ax.axhline(alpha, color=grey(), lw=1.0, ls=":")
    ax.set_ylim(0.0, 1.02)
    if along != "effect":
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))
    title = "" if several else f"test of {test}, level {alpha:g}"
    return plain_axes(ax, "effect" if along == "effect" else f"levels of {along}", "power", title)


def coverage_figure(frame: pd.DataFrame, conf_level: float, ax: Axes | None) -> Axes:
    """Coverage of every coefficient, one mark for each method."""
    terms, methods = list(dict.fromkeys(frame["term"])), list(dict.fromkeys(frame["method"]))
    ax = axes_for(ax, 6.8, 1.4 + 0.35 * len(terms))
    for m, method in enumerate(methods):
        own = frame[frame["method"] == method].set_index("term").loc[terms]
        y = np.arange(len(terms)) + 0.6 * ((m + 0.5) / len(methods) - 0.5)
        ax.hlines(y, own["conf_low"], own["conf_high"], color=PALETTE[m % len(PALETTE)], lw=1.6)
        ax.plot(own["coverage"], y, color=PALETTE[m % len(PALETTE)], marker="o", ls="", label=method)
    ax.axvline(conf_level, color=grey(), lw=1.0, ls="--")
    ax.set_yticks(np.arange(len(terms)), [printable_name(term) for term in terms])
    ax.set_ylim(len(terms) - 0.5, -0.5)
    legend_above(ax)
    return plain_axes(ax, f"coverage of {conf_level:.0%} intervals", "")
