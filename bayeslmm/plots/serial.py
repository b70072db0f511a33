"""Residuals along a subject: the autocorrelation that is left in them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayeslmm.arrays import Array, Codes
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.rows import LABELS
from bayeslmm.plots.style import BLUE, GREY, INK, axes_for, legend_above, plain
from bayeslmm.results.fit import Fit


def acf_axes(fit: Fit, kind: str = "normalized", lags: int | None = None, ax: Axes | None = None) -> Axes:
    """Autocorrelation of the residuals within subjects by lag, with the band of 95% of white noise; nlme's `plot(ACF(fit))`.

    Subjects are those of the residual structure, else the levels of the innermost grouping factor; their rows follow one another in the
    order of the visits, else in that of the data.
    """
    order, codes = _rows_of_subjects(fit)
    values, pairs = autocorrelation(fit.residuals(kind)[order], codes[order], lags)
    ax = axes_for(ax)
    at = np.arange(len(values))
    half = 1.96 / np.sqrt(pairs[1:])
    ax.fill_between(at[1:], -half, half, color=GREY, alpha=0.2, linewidth=0, label="95% band of white noise")
    ax.axhline(0.0, color=INK, linewidth=1, zorder=2)
    ax.vlines(at[1:], 0.0, values[1:], color=BLUE, linewidth=1.8, zorder=3)
    ax.plot(at[1:], values[1:], "o", color=BLUE, markersize=5, zorder=3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(ax)
    return plain(ax, "lag", f"autocorrelation ({LABELS[kind]})")


def autocorrelation(values: Array, codes: Codes, lags: int | None = None) -> tuple[Array, Codes]:
    """Autocorrelations at lags 0, 1, ... within subjects, as nlme's ACF, and the pairs that each rests on.

    values : (n,) in order along subjects; codes : (n,) subject of each, rows of a subject together
    """
    longest = int(np.bincount(codes).max())
    most = min(longest - 1, int(10 * np.log10(longest))) if lags is None else min(lags, longest - 1)
    sums, pairs = np.zeros(most + 1), np.zeros(most + 1, dtype=np.int64)
    for lag in range(most + 1):
        together = codes[lag:] == codes[: len(codes) - lag]
        products = values[lag:] * values[: len(values) - lag]
        sums[lag], pairs[lag] = products[together].sum(), int(together.sum())
    return (sums / pairs) / (sums[0] / pairs[0]), pairs


def _rows_of_subjects(fit: Fit) -> tuple[Codes, Codes]:
    design = fit.design
    if design.residual is not None:
        codes, visit = design.residual.subject.codes, design.residual.visit
    elif design.terms:
        codes, visit = max((term.group for term in design.terms), key=lambda group: group.size).codes, None
    else:
        raise SpecificationError("the model has no subjects along which residuals follow one another", "plot.acf", "use plot.residuals()")
    along = np.arange(len(codes)) if visit is None else visit
    return np.lexsort((along, codes)), np.asarray(codes)
