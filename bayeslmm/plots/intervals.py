"""Figures of intervals: profiles, forests, bootstrap histograms, comparisons, priors, calibrations, marginal means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.interpolate import PchipInterpolator
from scipy.optimize import nnls
from scipy.special import ndtri

from bayeslmm._arrays import Array, Codes
from bayeslmm._validation import require_flag, require_name
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.effects import along_axis, is_ordered
from bayeslmm.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    axes_for,
    band,
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
    percent,
    plain_axes,
    printable_name,
)
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.response_scale import scale_name

METHOD_NAMES = {"wald": "Wald"}
PROFILE_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def profile_axes(profile: Any, absolute: bool = False, ax: Any = None) -> list[Axes]:
    """zeta of every parameter against its value: a straight line where a Wald interval is right. Vertical lines are limits at 50 to 99 %.

    absolute : the size of zeta, as a valley
    """
    require_flag(absolute, "absolute")
    terms = list(dict.fromkeys(profile.frame["term"]))
    axes = panels(ax, len(terms))
    for place, term in zip(axes, terms, strict=True):
        own = profile.frame[profile.frame["term"] == term].sort_values("value")
        own = own[np.isfinite(own["zeta"])].drop_duplicates("zeta")
        value, zeta = own["value"].to_numpy(), own["zeta"].to_numpy()
        smooth = PchipInterpolator(value, zeta) if len(value) > 2 and np.all(np.diff(value) > 0) else None
        grid = np.linspace(value[0], value[-1], 200)
        curve = smooth(grid) if smooth is not None else np.interp(grid, value, zeta)
        for level in PROFILE_LEVELS:
            reach = float(ndtri(0.5 + 0.5 * level))
            inside = grid[np.abs(curve) <= reach]
            for end, sign in ((inside.min(), -1.0), (inside.max(), 1.0)) if len(inside) else ():
                if abs(abs(np.interp(end, grid, curve)) - reach) < 0.1:
                    top = reach if absolute else sign * reach
                    place.plot([end, end], [0.0, top], color=light(), linewidth=1, zorder=1)
        place.axhline(0.0, color=ink(), linewidth=0.8, zorder=1)
        place.plot(grid, np.abs(curve) if absolute else curve, color=BLUE, linewidth=1.8, zorder=2)
        few_ticks(place)
        plain_axes(place, term, ("|ζ|" if absolute else "ζ, signed root of the deviance") if place is axes[0] else "")
    return axes


def forest_axes(fit: Estimates, limits: pd.DataFrame, method: str, level: float, intercept: bool = False, ax: Axes | None = None) -> Axes:
    """Fixed effects with their limits by a method of `confint`, first at the top; the line is 0."""
    require_flag(intercept, "intercept")
    names = [name for name in fit.design.coef_names if intercept or name != "Intercept"] or list(fit.design.coef_names)
    table = limits.set_index("term").reindex(names).assign(estimate=fit.fixef.reindex(names))
    return forest(
        axes_for(ax, 6.4, 0.8 + 0.32 * max(len(names), 3)),
        table,
        f"estimate with {percent(level)} limits ({METHOD_NAMES.get(method, method)})",
    )


def forest(ax: Axes, table: pd.DataFrame, label: str) -> Axes:
    """Rows of `estimate, conf_low, conf_high`, the first at the top."""
    place = np.arange(len(table))[::-1]
    ax.axvline(0.0, color=ink(), linewidth=1, zorder=1)
    ax.hlines(place, table["conf_low"].to_numpy(float), table["conf_high"].to_numpy(float), color=BLUE, linewidth=2, zorder=2)
    ax.plot(table["estimate"].to_numpy(float), place, "o", color=BLUE, markersize=6, zorder=3)
    named_ticks(ax, list(table.index)[::-1])
    ax.set_ylim(-0.7, len(table) - 0.3)
    return plain_axes(ax, label, "")


def bootstrap_axes(boot: Any, level: float = 0.95, ax: Any = None) -> list[Axes]:
    """A histogram of the replicates of every parameter, with the estimate and percentile limits."""
    limits = boot.confint(level).set_index("term")
    axes = panels(ax, len(boot.frame.columns))
    for place, term in zip(axes, boot.frame.columns, strict=True):
        values = boot.frame[term].to_numpy(float)
        values = values[np.isfinite(values)]
        place.hist(values, bins=min(60, max(10, int(np.sqrt(len(values)) * 1.5))), color=BLUE, alpha=0.55, linewidth=0)
        place.axvline(boot.estimate[term], color=ink(), linewidth=1.6, label="estimate")
        for end in limits.loc[term, ["conf_low", "conf_high"]]:
            place.axvline(end, color=ORANGE, linewidth=1.4, linestyle="--", label=f"{percent(level)} limits")
        few_ticks(place)
        plain_axes(place, term, "replicates" if place is axes[0] else "")
    legend_of_panels(axes, ax)
    return axes


SOURCE_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"), (SKY, "v"), (GREY, "P"))
"""Colour and mark of each source: the marks differ too, for print without colour."""

PARAMETER_KEYS = ["effect", "group", "term"]


def comparison_axes(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A forest of a comparison: every parameter on its own scale of posterior sds around the reference, a mark for each source."""
    sources = list(dict.fromkeys(frame["source"]))
    parameters = frame[PARAMETER_KEYS].fillna("").apply(tuple, axis=1)
    keys = list(dict.fromkeys(parameters))
    ax = axes_for(ax, 7.2, 1.2 + 0.42 * len(keys) * max(1.0, len(sources) / 3))
    ax.axvline(0.0, color=light(), linewidth=1, zorder=0)
    for i in range(1, len(keys), 2):
        ax.axhspan(i - 0.5, i + 0.5, color=band(), zorder=-1, linewidth=0)
    for j, source in enumerate(sources):
        color, mark = SOURCE_STYLES[j % len(SOURCE_STYLES)]
        for i, key in enumerate(keys):
            rows = frame[(parameters == key).to_numpy()]
            centre, scale = _centre_and_scale(rows)
            own = rows[rows["source"] == source]
            place = np.full(len(own), i - 0.4 + 0.8 * (j + 1) / (len(sources) + 1))
            ends = ((own[["conf_low", "conf_high"]] - centre) / scale).to_numpy(float)
            ax.hlines(place, ends[:, 0], ends[:, 1], color=color, linewidth=1.6)
            ax.plot((own["estimate"] - centre) / scale, place, mark, color=color, markersize=5, label=source)
    named_ticks(ax, [f"{term} | {group}" if group and effect == "ran_pars" else str(term) for effect, group, term in keys])
    ax.set_ylim(len(keys) - 0.4, -0.6)
    legend_above(ax)
    drawn = bool((frame["gap"] == 0.0).any())
    return plain_axes(
        ax, "distance from the posterior mean, in posterior sds" if drawn else "distance from the first source, in standard errors", ""
    )


def _centre_and_scale(rows: pd.DataFrame) -> tuple[float, float]:
    """The reference of a parameter, the first source where there is none, and its widest standard error."""
    reference = rows["estimate"][rows["gap"] == 0.0]
    scale = float(rows["std_error"].max())
    return float((reference if len(reference) else rows["estimate"]).iloc[0]), scale if np.isfinite(scale) and scale > 0 else 1.0


def priors_axes(priors: Any, ax: Any = None) -> list[Axes]:
    """The density of every proper prior, a panel each."""
    curves = {str(label): part for label, part in priors.curves().groupby("label", sort=False)}
    axes = panels(ax, len(curves), width=3.2, height=2.3)
    for place, (label, part) in zip(axes, curves.items(), strict=True):
        value, density = part["value"].to_numpy(float), part["density"].to_numpy(float)
        place.fill_between(value, density, color=ORANGE, alpha=0.25, linewidth=0)
        place.plot(value, density, color=ORANGE, linewidth=1.8)
        from_zero(place)
        place.set_yticks([])
        plain_axes(place, label, "prior density" if place is axes[0] else "")
    return axes


def calibration_axes(distributions: Mapping[str, Array], band: tuple[Array, Array, Array], ax: Any = None) -> list[Axes]:
    """The distribution of the ranks of every quantity minus that of uniform ones, with the simultaneous band; outside it in red.

    distributions : shares of the ranks below each place, quantity by quantity; band : places, lower and upper limits
    """
    x, low, high = band
    axes = panels(ax, len(distributions), width=2.7, height=2.1, columns=4, sharex=True, sharey=True)
    for place, (name, found) in zip(axes, distributions.items(), strict=True):
        outside = bool(((found < low - 1e-12) | (found > high + 1e-12)).any())
        place.fill_between(x, low - x, high - x, color=grey(), alpha=0.2, linewidth=0, step="mid", label="95% of right samplers")
        place.axhline(0.0, color=ink(), linewidth=0.8)
        place.step(x, found - x, where="mid", color="#D55E00" if outside else BLUE, linewidth=1.4, label="ranks")
        place.tick_params(labelbottom=True, labelsize="x-small")
        plain_axes(place, "", "ECDF - uniform" if place is axes[0] else "", name)
    across = -(-len(axes) // -(-len(axes) // 4))
    for place in axes[-across:]:
        place.set_xlabel("rank of the truth, as a share", fontsize="small")
    legend_of_panels(axes, ax)
    return axes


def emmeans_axes(means: Any, comparisons: bool = False, adjust: str = "tukey", x: str | None = None, ax: Any = None) -> list[Axes]:
    """One panel for each level of `by`: means, confidence intervals, and with `comparisons` arrows: two that do not overlap differ.

    x : one of the variables, to go along the axis in one panel: a joined line for every combination of the others (arms over visits)

    The lengths of arrows agree best with the pairwise limits under `adjust`; confidence intervals alone say nothing of pairs.
    """
    require_flag(comparisons, "comparisons")
    if x is not None:
        return [_along(means, require_name(x, "x"), ax)]
    frame = means.frame
    along = _ordered_variable(means)
    if along is not None and not comparisons:
        return [_along(means, along, ax)]
    if means.by:
        parts = [
            (" ".join(f"{name} {level_label(level)}" for name, level in zip(means.by, key, strict=True)), part)
            for key, part in frame.groupby(list(means.by), sort=False, observed=True)
        ]
    else:
        parts = [("", frame)]
    height = 1.1 + 0.36 * max(len(part) for _, part in parts)
    axes = panels(ax, len(parts), width=4.0, height=max(height, 2.2), sharex=True)
    lengths = arrow_lengths(means, adjust) if comparisons else None
    for place, (title, part) in zip(axes, parts, strict=True):
        rows = np.arange(len(part))[::-1]
        place.hlines(rows, part["conf_low"], part["conf_high"], color=BLUE, alpha=0.35, linewidth=7, zorder=1)
        place.plot(part["estimate"], rows, "o", color=BLUE, markersize=6, zorder=3)
        if lengths is not None:
            _arrows(place, part["estimate"].to_numpy(float), lengths[frame.index.get_indexer(part.index)], rows)
        named_ticks(place, _labels(part, means.specs)[::-1])
        place.set_ylim(-0.7, len(part) - 0.3)
        plain_axes(place, mean_label(means), " ".join(means.specs) if place is axes[0] else "", title)
    return axes


def _ordered_variable(means: Any) -> str | None:
    """Of two variables, the one with an order, such as visits: of numbers, or that the data have as an ordered factor."""
    names = [*means.specs, *means.by]
    if len(names) != 2:
        return None
    ordered = [name for name in names if is_ordered(means.fit.design, name) and means.frame[name].nunique() > 2]
    return ordered[-1] if len(ordered) == 1 or (len(ordered) == 2 and means.by) else None


def mean_label(means: Any) -> str:
    """What the means are of, on which scale, with which intervals."""
    slopes = next((note for note in means.notes if note.startswith("slopes of ")), None)
    label = slopes.replace("slopes", "slope") if slopes else "marginal mean"
    of = scale_name(means.fit.design, "link" if means.scale is None else "response")
    return f"{label}, {of} ({percent(means.conf_level)} interval)"


def _labels(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    if not names:
        return ["overall"] * len(frame)
    return [" ".join(map(level_label, row)) for row in frame[list(names)].itertuples(index=False)]


def _along(means: Any, x: str, ax: Axes | None) -> Axes:
    """Means with their intervals along x, moved apart a little so that intervals do not hide one another."""
    names = [*means.specs, *means.by]
    if x not in names:
        raise SpecificationError(f"the means have no variable {x!r}", "x", "use one of " + ", ".join(map(repr, names)))
    others = [name for name in names if name != x]
    drawn = along_axis(axes_for(ax, 6.4, 4.2), means.frame, x, others, mean_label(means))
    legend_above(drawn, title=printable_name(" ".join(others)) or None)
    return drawn


def _arrows(ax: Axes, center: Array, length: Array, rows: Codes) -> None:
    for middle, half, row in zip(center, length, rows, strict=True):
        for sign in (-1.0, 1.0):
            if np.isfinite(half) and half > 0:
                style = {"arrowstyle": "-|>", "color": ORANGE, "linewidth": 1.6, "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
                ax.annotate("", (middle + sign * half, row), (middle, row), arrowprops=style, zorder=4)


def arrow_lengths(means: Any, adjust: str) -> Array:
    """Half-lengths r with r_i + r_j near to the least significant difference, near pairs counting most; NaN where not estimable."""
    pairs = means.pairs(adjust)
    out = np.full(len(means.frame), np.nan)
    groups = means.frame.groupby(list(means.by), sort=False, observed=True).indices.values() if means.by else [np.arange(len(means.frame))]
    begin = 0
    for rows in groups:
        k = len(rows)
        count = k * (k - 1) // 2
        own = pairs.iloc[begin : begin + count]
        begin += count
        i, j = np.triu_indices(k, 1)
        least = 0.5 * (own["conf_high"] - own["conf_low"]).to_numpy(float)
        gap = np.abs(own["estimate"].to_numpy(float))
        fine = np.isfinite(least)
        if k < 2 or not fine.any():
            continue
        # a pair far apart, or far too near, is told right by any length: those at the border decide
        weight = 1.0 / (1e-3 * least.max() + np.abs(gap - least))[fine]
        A = np.zeros((count, k))
        A[np.arange(count), i], A[np.arange(count), j] = 1.0, 1.0
        ridge = 1e-3 * weight.max() * np.eye(k)
        target = np.concatenate([weight * least[fine], ridge.diagonal() * 0.5 * np.nanmean(least)])
        out[np.asarray(rows)] = nnls(np.vstack([A[fine] * weight[:, None], ridge]), target)[0]
    return out
