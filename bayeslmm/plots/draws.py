"""Figures of draws: parameters with their intervals, densities beside priors, traces, ranks of chains, pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from bayeslmm._arrays import Array
from bayeslmm._validation import require_names
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.residuals import PlotColumn
from bayeslmm.plots.style import (
    BLUE,
    HISTOGRAM_POINTS,
    ORANGE,
    PALETTE,
    axes_for,
    counts_map,
    few_ticks,
    from_zero,
    grey,
    ink,
    legend_above,
    legend_of_panels,
    level_label,
    light,
    named_ticks,
    panels,
    paper,
    percent,
    plain_axes,
)

DrawTable = Mapping[str, Array]
"""Name of a parameter -> draws (chains, draws)."""

PARAMETER_PANELS = 24
"""Parameters that get a panel each where none are named."""

PAIRED_PARAMETERS = 5
"""Parameters that are paired where none are named."""

DENSITY_DRAWS = 4000
"""Draws that a density is estimated from."""


def choose_parameters(draws: DrawTable, terms: Sequence[str] | str | None, most: int) -> list[str]:
    """The parameters asked for, or the first ones. Raises SpecificationError for a name that is none."""
    if terms is None:
        return list(draws)[:most]
    names = require_names(terms, "terms")
    for name in names:
        if name not in draws:
            raise SpecificationError(
                f"there is no parameter {name!r}", "terms", "use names among " + ", ".join(map(repr, list(draws)[:12]))
            )
    return names


def note_truncation(axes: list[Axes], drawn: int, of: int, what: str = "parameters: name others by terms=") -> None:
    """Where not all are drawn, the last panel says so."""
    if drawn < of:
        axes[-1].annotate(
            f"{drawn} of {of} {what}",
            (1.0, -0.42),
            xycoords="axes fraction",
            ha="right",
            fontsize="x-small",
            color=grey(),
        )


def forest_of_draws(draws: DrawTable, kinds: Mapping[str, str], conf_level: float, ax: Any = None) -> list[Axes]:
    """One panel for each kind of parameter, as their scales differ: means, halves of the draws thick, `conf_level` of them thin."""
    groups: dict[str, list[str]] = {}
    for name in draws:
        groups.setdefault(kinds[name], []).append(name)
    tallest = max(len(names) for names in groups.values())
    axes = panels(ax, len(groups), width=3.9, height=float(np.clip(1.0 + 0.3 * tallest, 2.0, 11.0)))
    for place, (kind, names) in zip(axes, groups.items(), strict=True):
        rows = np.arange(len(names))[::-1]
        values = [draws[name].ravel() for name in names]
        for share, width in ((conf_level, 1.4), (0.5, 4.0)):
            ends = np.array([np.quantile(v, [0.5 - 0.5 * share, 0.5 + 0.5 * share]) for v in values])
            place.hlines(rows, ends[:, 0], ends[:, 1], color=BLUE, linewidth=width, zorder=2)
        place.plot([v.mean() for v in values], rows, "o", color=paper(), markeredgecolor=BLUE, markersize=6, zorder=3)
        if kind != "sd":
            place.axvline(0.0, color=light(), linewidth=1, zorder=1)
        named_ticks(place, names[::-1])
        place.set_ylim(-0.7, len(names) - 0.3)
        plain_axes(place, "", "").set_xlabel(f"{kind}\n({percent(conf_level)} and 50% of the draws)")
    return axes


def density_axes(draws: DrawTable, priors: Mapping[str, tuple[Array, Array]], conf_level: float, total: int, ax: Any = None) -> list[Axes]:
    """A panel for each parameter: the density of its draws, its interval, its mean; dashed its prior, where it is proper."""
    axes = panels(ax, len(draws), width=3.2, height=2.5)
    for place, (name, values) in zip(axes, draws.items(), strict=True):
        grid, height = kernel_density(values.ravel())
        low, high = np.quantile(values, [0.5 - 0.5 * conf_level, 0.5 + 0.5 * conf_level])
        inside = (grid >= low) & (grid <= high)
        place.fill_between(grid[inside], height[inside], color=BLUE, alpha=0.25, linewidth=0, label=f"{percent(conf_level)} of the draws")
        place.plot(grid, height, color=BLUE, linewidth=1.8, label="posterior")
        middle = float(values.mean())
        place.plot([middle, middle], [0.0, float(np.interp(middle, grid, height))], color=ink(), linewidth=1.2, label="mean")
        if name in priors:
            at, p = priors[name]
            place.plot(grid, np.interp(grid, at, p, left=0.0, right=0.0), color=ORANGE, linewidth=1.6, linestyle="--", label="prior")
        from_zero(place)
        place.set_yticks([])
        few_ticks(place)
        plain_axes(place, name, "density" if place is axes[0] else "")
    legend_of_panels(axes, ax)
    note_truncation(axes, len(draws), total)
    return axes


def kernel_density(values: Array, points: int = 160) -> tuple[Array, Array]:
    """Places and a kernel estimate of the density there; a parameter that never moves is a narrow peak."""
    thinned = values[:: max(1, len(values) // DENSITY_DRAWS)]
    spread, size = float(np.ptp(thinned)), float(np.abs(thinned).max())
    if spread <= 1e-12 * size:
        place, step = float(thinned[0]), 1e-3 * (size or 1.0)
        return place + step * np.array([-1.0, 0.0, 1.0]), np.array([0.0, 1.0 / step, 0.0])
    # a heavy tail must not squeeze the rest of the curve
    low, high = np.quantile(thinned, [0.001, 0.999])
    reach = 0.12 * (high - low)
    begin = max(low - reach, 0.0) if thinned.min() >= 0.0 else low - reach
    grid, kernel = np.linspace(begin, high + reach, points), gaussian_kde(thinned)
    # what a kernel spreads beyond the boundary at 0 belongs on this side of it
    return grid, np.asarray(kernel(grid) + kernel(-grid) if begin == 0.0 else kernel(grid))


def trace_axes(draws: DrawTable, total: int, ax: Any = None) -> list[Axes]:
    """Draws in their order, a colour for each chain: level bands without steps or slow waves."""
    axes = panels(ax, len(draws), width=3.8, height=2.0)
    for place, (name, values) in zip(axes, draws.items(), strict=True):
        for c, chain in enumerate(values):
            place.plot(chain, color=PALETTE[c % len(PALETTE)], linewidth=0.5, alpha=0.75, label=f"chain {c + 1}", rasterized=True)
        plain_axes(place, "draw", "", name)
    legend_of_panels(axes, ax)
    note_truncation(axes, len(draws), total)
    return axes


def rank_axes(draws: DrawTable, total: int, ax: Any = None) -> list[Axes]:
    """Whether chains agree: the distribution of each chain's ranks among all draws, minus a uniform one, with a pointwise 95% band."""
    axes = panels(ax, len(draws), width=3.2, height=2.2, sharey=True)
    for place, (name, values) in zip(axes, draws.items(), strict=True):
        chains, n = values.shape
        order = np.argsort(np.argsort(values, axis=None, kind="stable"), kind="stable").reshape(chains, n)
        share = (np.sort(order, axis=1) + 0.5) / (chains * n)
        at = (np.arange(n) + 0.5) / n
        # ranks are drawn without replacement, a chain's share of all of them
        half = 1.96 * np.sqrt(at * (1.0 - at) / n * (1.0 - 1.0 / chains))
        place.fill_between(at, -half, half, color=grey(), alpha=0.2, linewidth=0, label="95% band")
        for c in range(chains):
            place.plot(share[c], at - share[c], color=PALETTE[c % len(PALETTE)], linewidth=1.1, label=f"chain {c + 1}")
        plain_axes(place, "rank among all draws", "difference from uniform" if place is axes[0] else "", name)
    legend_of_panels(axes, ax)
    note_truncation(axes, len(draws), total)
    return axes


def pair_axes(draws: DrawTable, ax: Any = None) -> list[Axes]:
    """Every two parameters against each other below the diagonal, densities on it."""
    names = list(draws)
    k = len(names)
    axes = panels(ax, k * k, width=2.2, height=2.1, columns=k)
    for i in range(k):
        for j in range(k):
            place = axes[i * k + j]
            if j > i:
                place.set_axis_off()
                continue
            if i == j:
                grid, height = kernel_density(draws[names[i]].ravel())
                place.fill_between(grid, height, color=BLUE, alpha=0.35, linewidth=0)
                from_zero(place)
                place.spines["left"].set_visible(False)
                place.tick_params(left=False)
            else:
                x, y = draws[names[j]].ravel(), draws[names[i]].ravel()
                place.hexbin(x, y, gridsize=32, cmap=counts_map(), mincnt=1, linewidths=0.1)
            plain_axes(place, names[j] if i == k - 1 else "", names[i] if j == 0 and i else "")
            for axis in (place.xaxis, place.yaxis):
                axis.label.set_fontsize("small")
                axis.set_major_locator(MaxNLocator(4))
            place.tick_params(labelbottom=i == k - 1, labelleft=j == 0 and i > 0, labelsize="x-small")
    return axes


PREDICTIVE_STATISTICS: Mapping[str, Callable[[Array], Any]] = {
    "mean": np.mean,
    "median": np.median,
    "sd": lambda values: np.std(values, ddof=1),
    "min": np.min,
    "max": np.max,
}
"""Statistics of responses by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Replicated:
    """Responses drawn from a posterior (S, n), the response (n,) and its name."""

    draws: Array
    y: Array
    name: str

    def of_rows(self, rows: Array) -> Replicated:
        """Those of some rows."""
        return Replicated(self.draws[:, rows], self.y[rows], self.name)


def predictive_panels(
    found: Replicated, draw: Callable[[Axes, Replicated], None], by: PlotColumn | None, axis: tuple[str, str], ax: Any = None
) -> list[Axes]:
    """What `draw` shows of all rows, or a panel for those of each level of a column."""
    if by is None:
        place = axes_for(ax, 6.0, 3.8)
        draw(place, found)
        legend_above(place)
        return [plain_axes(place, *axis)]
    codes = by.codes
    chosen = range(min(len(by.labels), PARAMETER_PANELS))
    axes = panels(ax, len(chosen), width=3.2, height=2.6)
    for place, k in zip(axes, chosen, strict=True):
        draw(place, found.of_rows(codes == k))
        plain_axes(place, axis[0], axis[1] if place is axes[0] else "", level_label(by.labels[k]))
    legend_of_panels(axes, ax)
    note_truncation(axes, len(chosen), len(by.labels), "levels")
    return axes


def draw_densities(ax: Axes, found: Replicated) -> None:
    """Densities of responses drawn from the posterior, and that of the response."""
    label = f"{len(found.draws)} drawn from the posterior"
    for row in found.draws:
        ax.plot(*kernel_density(row), color=BLUE, linewidth=0.7, alpha=0.3, label=label)
        label = "_"
    ax.plot(*kernel_density(found.y), color=ink(), linewidth=2.0, label="observed")
    from_zero(ax)
    ax.set_yticks([])


def draw_statistic(statistic: Callable[[Array], Any]) -> Callable[[Axes, Replicated], None]:
    """A histogram of a statistic of the responses drawn, and its value for the response."""

    def draw(ax: Axes, found: Replicated) -> None:
        own = float(statistic(found.y))
        values = np.array([float(statistic(row)) for row in found.draws])
        ax.hist(values, bins=30, color=BLUE, alpha=0.35, label=f"{len(values)} drawn from the posterior")
        ax.axvline(own, color=ink(), linewidth=2.0, label="observed")
        ax.annotate(
            f"share above: {np.mean(values > own):.2f}", (1.0, 1.0), xycoords="axes fraction", ha="right", va="top", fontsize="small"
        )
        ax.set_yticks([])

    return draw


def draw_intervals(conf_level: float) -> Callable[[Axes, Replicated], None]:
    """The central interval of every response drawn, in the order of their means, and the response."""

    def draw(ax: Axes, found: Replicated) -> None:
        order = np.argsort(found.draws.mean(axis=0), kind="stable")
        at = np.arange(len(order))
        for share, width, label in ((conf_level, 1.0, f"{percent(conf_level)} of those drawn"), (0.5, 2.4, "50%")):
            low, high = np.quantile(found.draws[:, order], [0.5 - 0.5 * share, 0.5 + 0.5 * share], axis=0)
            ax.vlines(at, low, high, color=BLUE, alpha=0.5, linewidth=width, label=label, rasterized=len(at) > HISTOGRAM_POINTS)
        ax.plot(at, found.y[order], ".", color=ink(), markersize=3, label="observed", rasterized=len(at) > HISTOGRAM_POINTS)

    return draw
