"""Figures of subjects over time: observed profiles, means by arm and drop-out, semivariances, covariances of errors and effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import ResidualKind
from bayeslmm._validation import require_flag
from bayeslmm.data.design import Design
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.effects import LINE_MARKS, is_ordered
from bayeslmm.plots.residuals import RESIDUAL_LABELS, PlotColumn, column_of, require_few
from bayeslmm.plots.style import (
    BLUE,
    INK,
    PALETTE,
    RED,
    axes_for,
    caption,
    from_zero,
    grey,
    has_local_line,
    ink,
    legend_above,
    legend_of_panels,
    level_label,
    local_line,
    named_ticks,
    panels,
    paper,
    plain_axes,
    printable_name,
)
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import residuals

PROFILES = 60
"""Subjects whose profiles are drawn in a panel; of more, this many are drawn from evenly over the data."""

PROFILE_PANELS = 12
"""Levels that get a panel each."""

PATTERNS = 6
"""Patterns of drop-out that get a line each; more are put together with their neighbours."""

MEAN_PLACES = 20
"""Distinct times up to which each has its own mean; more are put together, as many in each."""


def subject_codes(design: Design, where: str) -> tuple[Codes, str]:
    """The subject of each row, and what subjects are called: those of the residual structure, else of the innermost grouping factor."""
    if design.residual is not None:
        return design.residual.subject.codes, design.residual.subject.name
    if design.terms:
        group = max((term.group for term in design.terms), key=lambda group: group.size)
        return group.codes, group.name
    raise SpecificationError("the model has no subjects along which residuals follow one another", where, "use plot.residuals()")


def time_column(design: Design, x: str | None, subject: Codes, where: str) -> PlotColumn:
    """The column named, else the visit of the residual structure, else the first with an order that differs within subjects."""
    if x is not None:
        return column_of(design, x, "x")
    if design.residual is not None and len(design.residual.spec.visit) == 1:
        return column_of(design, design.residual.spec.visit[0], "x")
    for name in (*design.encoding.covariates, *design.encoding.levels):
        column = column_of(design, name, "x")
        lowest, highest = np.full(subject.max() + 1, np.inf), np.full(subject.max() + 1, -np.inf)
        np.minimum.at(lowest, subject, column.values)
        np.maximum.at(highest, subject, column.values)
        if is_ordered(design, name) and np.mean(highest > lowest) > 0.5:
            return column
    raise SpecificationError("no column of the model is a time of subjects", where, 'name it: x="day"')


def profiles_axes(
    design: Design,
    y: Array,
    label: str,
    by: str | None = None,
    x: str | None = None,
    *,
    dropout: bool = True,
    levels: bool = True,
    ax: Any = None,
) -> list[Axes]:
    """A panel for each level of `by`: profiles of subjects, thin, and observed means by when subjects were last seen.

    y : (n,) responses; dropout : whether subjects are told apart by when they were last seen; levels : whether profiles are drawn
    """
    require_flag(levels, "levels")
    require_flag(dropout, "dropout")
    subject, name = subject_codes(design, "plot.profiles")
    across = time_column(design, x, subject, "plot.profiles")
    split = column_of(design, by, "by") if by is not None else None
    if split is not None:
        require_few(split, "by")
    parts = [np.arange(len(y))] if split is None else [np.flatnonzero(split.codes == k) for k in range(len(split.labels))]
    titles = [""] if split is None else [f"{split.name} {level_label(value)}" for value in split.labels]
    shown = [(title, rows) for title, rows in zip(titles, parts, strict=True) if len(rows)]
    drawn = shown[:PROFILE_PANELS]
    width, height = (6.8, 4.4) if len(drawn) == 1 else (4.2, 3.6)
    axes = panels(ax, len(drawn), width=width, height=height, sharey=len(drawn) > 1)
    patterns = _patterns(across, subject) if dropout else None
    for place, (title, rows) in zip(axes, drawn, strict=True):
        own = None if patterns is None else (patterns[0][rows], patterns[1])
        _profile_panel(place, y[rows], across.values[rows], subject[rows], own, levels, counted=len(drawn) == 1)
        heading = f"{title} (n = {len(np.unique(subject[rows])):,})" if title else ""
        if across.levels is not None:
            named_ticks(place, across.levels, vertical=False)
        plain_axes(place, across.name, label if place is axes[0] else "", heading)
    legend_above(axes[0]) if len(axes) == 1 else legend_of_panels(axes, ax)
    left = f"; {len(shown) - len(drawn)} levels of {by} are not shown" if len(shown) > len(drawn) else ""
    caption(axes[0], f"thin lines: {name}; thick: observed means" + left if levels else f"observed means of {name}" + left)
    return axes


def _patterns(across: PlotColumn, subject: Codes) -> tuple[Codes, list[str]]:
    """For each row the pattern of its subject, by when it was last seen; what the patterns are called."""
    last = np.full(subject.max() + 1, -np.inf)
    np.maximum.at(last, subject, across.values)
    seen = np.unique(last[np.isfinite(last)])
    groups = np.array_split(seen, PATTERNS) if len(seen) > PATTERNS else [seen[i : i + 1] for i in range(len(seen))]
    names = []
    for group in groups:
        ends = [level_label(float(end)) if across.levels is None else level_label(across.levels[int(end)]) for end in (group[0], group[-1])]
        names.append(ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}")
    starts = np.array([group[0] for group in groups])
    return np.searchsorted(starts, last[subject], side="right") - 1, names


def _profile_panel(
    ax: Axes, y: Array, at: Array, subject: Codes, patterns: tuple[Codes, list[str]] | None, levels: bool, counted: bool
) -> None:
    pattern = np.zeros(len(y), np.int64) if patterns is None else patterns[0]
    if levels:
        chosen = np.unique(subject)
        if len(chosen) > PROFILES:
            chosen = chosen[np.linspace(0, len(chosen) - 1, PROFILES).astype(int)]
        order = np.lexsort((at, subject))
        starts, ends = (np.searchsorted(subject[order], chosen, side) for side in ("left", "right"))
        for start, end in zip(starts, ends, strict=True):
            rows = order[start:end]
            color = grey() if patterns is None else PALETTE[int(pattern[rows[0]]) % len(PALETTE)]
            # a subject that was seen once has no line
            mark = "." if len(rows) == 1 else ""
            ax.plot(at[rows], y[rows], marker=mark, color=color, linestyle="-", alpha=0.3, linewidth=0.7, zorder=1.5, markersize=3)
    for kind in np.unique(pattern).tolist():
        rows = np.flatnonzero(pattern == kind)
        places, means = _means_over(at[rows], y[rows])
        color, count = BLUE if patterns is None else PALETTE[kind % len(PALETTE)], len(np.unique(subject[rows]))
        label = "observed mean" if patterns is None else f"last seen at {patterns[1][kind]}"
        label += f" (n = {count:,})" if counted else ""
        ax.plot(places, means, color=paper(), linewidth=4.2, alpha=0.8, zorder=2.9)
        mark = LINE_MARKS[kind % len(LINE_MARKS)]
        ax.plot(places, means, mark, color=color, linestyle="-", linewidth=2.2, markersize=5, zorder=3, label=printable_name(label))


def _means_over(at: Array, y: Array) -> tuple[Array, Array]:
    """Means at each time; of many times, of neighbouring ones together."""
    places, index = np.unique(at, return_inverse=True)
    if len(places) > MEAN_PLACES:
        edges = np.unique(np.quantile(at, np.linspace(0.0, 1.0, MEAN_PLACES + 1)))
        index = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, max(len(edges) - 2, 0))
    counts = np.bincount(index)
    kept = counts > 0
    return (np.bincount(index, at) / np.maximum(counts, 1))[kept], (np.bincount(index, y) / np.maximum(counts, 1))[kept]


# -- the variogram -------------------------------------------------------------------------------------------------------------------------

VARIOGRAM_ROWS = 50_000
"""Rows beyond which subjects are drawn at random."""

VARIOGRAM_LAGS = 200
"""How many rows apart two of a subject are at most."""

DISTANCES = 20
"""Distinct distances up to which each has its own point; more are put together, as many pairs in each."""


@dataclass(frozen=True, slots=True, eq=False)
class Semivariances:
    """Halves of mean squared differences within subjects, by distance, and how many pairs each is of; `model` of the fit, or None."""

    distance: Array
    value: Array
    pairs: Codes
    model: Array | None


def semivariances(values: Array, place: Array, subject: Codes, expected: Any = None) -> Semivariances:
    """Of values (n,) at places (n, d); rows of any order. expected : of rows i and j, what the model says, or None."""
    order = np.lexsort((*place.T[::-1], subject))
    values, place, subject = values[order], place[order], subject[order]
    longest = int(np.bincount(subject).max())
    distances, halves, models = [], [], []
    for lag in range(1, min(longest, VARIOGRAM_LAGS + 1)):
        i = np.flatnonzero(subject[lag:] == subject[:-lag])
        j = i + lag
        distances.append(np.sqrt(((place[j] - place[i]) ** 2).sum(axis=1)))
        halves.append(0.5 * (values[j] - values[i]) ** 2)
        if expected is not None:
            models.append(expected(order[i], order[j]))
    if not distances or not sum(map(len, distances)):
        raise SpecificationError("no subject has two rows", "plot.variogram", "use plot.residuals()")
    distance, half = np.concatenate(distances), np.concatenate(halves)
    # of two equal steps in time, one is longer by rounding: a part of the longest distance tells nothing apart
    apart, index = np.unique(np.round(distance / (float(distance.max()) or 1.0), 9), return_inverse=True)
    if len(apart) > DISTANCES:
        edges = np.unique(np.quantile(distance, np.linspace(0.0, 1.0, DISTANCES + 1)))
        index = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, max(len(edges) - 2, 0))
    counts = np.bincount(index)
    kept = counts > 0
    means = [np.bincount(index, each)[kept] / counts[kept] for each in (distance, half, *([np.concatenate(models)] if models else []))]
    return Semivariances(means[0], means[1], counts[kept], means[2] if models else None)


def variogram_axes(fit: Estimates, kind: ResidualKind = "pearson", x: str | None = None, ax: Axes | None = None) -> Axes:
    """Semivariances of residuals within subjects against the distance in time or place; nlme's `plot(Variogram(fit))`.

    Pearson residuals without correlation stay near 1 at every distance; where the fit has a covariance over visits, its own is drawn too.
    """
    errors, design = residuals(fit, kind), fit.design
    subject, name = subject_codes(design, "plot.variogram")
    place, label = _places_of(design, x, subject)
    rows = np.arange(len(subject))
    sampled = ""
    if len(rows) > VARIOGRAM_ROWS:
        sizes = np.bincount(subject)
        chosen = np.random.default_rng(0).permutation(len(sizes))
        kept = chosen[: max(1, int(np.searchsorted(np.cumsum(sizes[chosen]), VARIOGRAM_ROWS)))]
        rows = np.flatnonzero(np.isin(subject, kept))
        sampled = f"{len(kept):,} of {len(sizes):,} levels of {name}, drawn at random"
    found = semivariances(errors[rows], place[rows], subject[rows], _model_variogram(fit, kind, rows))
    ax = axes_for(ax)
    if kind in ("pearson", "normalized"):
        ax.axhline(1.0, color=ink(), linewidth=1, linestyle=":", zorder=1, label="no correlation")
    ax.plot(found.distance, found.value, "o", color=BLUE, markersize=5, zorder=3, label="residuals")
    if found.model is not None:
        ax.plot(found.distance, found.model, color=RED, linewidth=1.8, zorder=2, label="the model's errors")
    elif has_local_line(found.distance):
        ax.plot(*local_line(found.distance, found.value), color=RED, linewidth=1.8, zorder=2, label="local mean")
    from_zero(ax)
    ax.set_xlim(left=0.0)
    if np.all(found.distance == np.round(found.distance)):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(ax)
    caption(ax, sampled)
    return plain_axes(ax, label, f"semivariance ({RESIDUAL_LABELS[kind]})")


def _places_of(design: Design, x: str | None, subject: Codes) -> tuple[Array, str]:
    """Where each row stands in time or space, (n, d), and what a distance is called."""
    residual = design.residual
    if x is not None:
        column = column_of(design, x, "x")
        return column.values[:, None], f"distance in {column.name}"
    if residual is not None and residual.coords is not None:
        return residual.coords, f"distance in {', '.join(residual.spec.visit) or 'rows'}"
    if residual is not None and residual.visit is not None:
        steps = np.asarray(residual.positions or range(len(residual.visit_levels)), dtype=float)
        return steps[residual.visit][:, None], f"visits apart ({', '.join(residual.spec.visit) or 'order of the rows'})"
    try:
        column = time_column(design, None, subject, "plot.variogram")
    except SpecificationError:
        return np.arange(len(subject), dtype=float)[:, None], "rows apart"
    return column.values[:, None], f"distance in {column.name}"


def _model_variogram(fit: Estimates, kind: str, rows: Codes) -> Any:
    """1 minus the correlation of two errors of a subject, by the structure over visits; None where there is none."""
    residual = fit.design.residual
    if kind != "pearson" or residual is None or residual.visit is None or fit.R is None:
        return None
    matrices = list(fit.R.values()) if isinstance(fit.R, dict) else [fit.R]
    correlations = []
    for matrix in matrices:
        sd = np.sqrt(np.diag(matrix.to_numpy(float)))
        correlations.append(matrix.to_numpy(float) / np.outer(sd, sd))
    stacked, visit = np.stack(correlations), residual.visit[rows]
    group = np.zeros(len(rows), np.int64) if residual.group is None else residual.group.codes[rows]
    return lambda i, j: 1.0 - stacked[group[i], visit[i], visit[j]]


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
                text = f"{sd[i]:.3g}" if i == j else f"{correlation[i, j]:.2f}"
                # cells are light but for strong correlations, whatever the ground, which the diagonal shows
                color = ink() if i == j else "white" if abs(correlation[i, j]) > 0.6 else INK
                ax.text(
                    j,
                    i,
                    text,
                    ha="center",
                    va="center",
                    fontsize="x-small",
                    color=color,
                    weight="bold" if i == j else "normal",
                )
    ax.spines[:].set_visible(False)
    ax.set_title(printable_name(title), fontsize="medium")
    ax.set_xlabel("correlations; standard deviations on the diagonal" if len(names) <= NUMBERED else "correlations", fontsize="small")
    bar = ax.inset_axes((1.03, 0.0, 0.035, 1.0))
    figure: Any = ax.get_figure()
    figure.colorbar(image, cax=bar, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.tick_params(labelsize="x-small")
