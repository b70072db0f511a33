"""Figures of covariance matrices: correlations of the errors over visits and of random effects, as colours and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm.errors import SpecificationError
from bayeslmm.plots.style import INK, caption, closes_on_error, named_ticks, panels, printable_name

NUMBERED = 12
"""Rows of a matrix up to which its numbers are written."""

MATRIX_PANELS = 9
"""Matrices that are drawn."""


def covariance_matrices(D: Mapping[str, pd.DataFrame], R: Any) -> dict[str, pd.DataFrame]:
    """What there is to draw: R, by group where it differs, and D of every factor with several random effects.

    Raises SpecificationError where nothing is correlated.
    """
    found: dict[str, pd.DataFrame] = {}
    if isinstance(R, Mapping):
        found |= {f"errors, {level}": matrix for level, matrix in R.items()}
    elif R is not None:
        found["errors"] = R
    found |= {f"random effects of {group}": matrix for group, matrix in D.items() if len(matrix) > 1}
    if not found:
        what = "the model has neither a residual structure over visits nor correlated random effects"
        raise SpecificationError(what, "plot.covariance", "fit.varcorr has its variances, fit.marginal_cov(level) the covariance of rows")
    return found


@closes_on_error
def covariance_axes(matrices: Mapping[str, pd.DataFrame], ax: Any = None) -> list[Axes]:
    """A panel for each matrix: correlations as colours, the standard deviations on the diagonal."""
    drawn = dict(list(matrices.items())[:MATRIX_PANELS])
    size = max(len(matrix) for matrix in drawn.values())
    side = float(np.clip(1.6 + 0.42 * min(size, NUMBERED), 3.4, 6.6))
    axes = panels(ax, len(drawn), width=side + 0.8, height=side)
    for place, (title, matrix) in zip(axes, drawn.items(), strict=True):
        _heat_map(place, title, matrix)
    if len(drawn) < len(matrices):
        caption(axes[-1], f"{len(drawn)} of {len(matrices)} matrices")
    return axes


def _heat_map(ax: Axes, title: str, matrix: pd.DataFrame) -> None:
    covariance = matrix.to_numpy(float)
    sd = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.outer(sd, sd)
    colours = correlation.copy()
    np.fill_diagonal(colours, np.nan)
    image = ax.imshow(colours, cmap="RdBu_r", vmin=-1.0, vmax=1.0, aspect="equal", interpolation="none")
    names = list(matrix.index)
    named_ticks(ax, names)
    named_ticks(ax, names, vertical=False)
    if len(names) <= NUMBERED:
        for i in range(len(names)):
            for j in range(len(names)):
                told = f"{sd[i]:.3g}" if i == j else f"{correlation[i, j]:.2f}"
                strong = i != j and abs(correlation[i, j]) > 0.6
                ax.text(
                    j,
                    i,
                    told,
                    ha="center",
                    va="center",
                    fontsize="x-small",
                    color="white" if strong else INK,
                    weight="bold" if i == j else "normal",
                )
    ax.spines[:].set_visible(False)
    ax.set_title(printable_name(title), fontsize="medium")
    ax.set_xlabel("correlations; standard deviations on the diagonal" if len(names) <= NUMBERED else "correlations", fontsize="small")
    bar = ax.inset_axes((1.03, 0.0, 0.035, 1.0))
    figure: Any = ax.get_figure()
    figure.colorbar(image, cax=bar, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.tick_params(labelsize="x-small")
