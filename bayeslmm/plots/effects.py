"""Figures of effects: means, differences and slopes along a variable, a line for each level of another; forests of subgroups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm.data.design import Design
from bayeslmm.plots.style import (
    PALETTE,
    axes_for,
    caption,
    ink,
    legend_above,
    legend_of_panels,
    level_label,
    named_ticks,
    panels,
    plain_axes,
    printable_name,
    ribbon,
)

LINE_MARKS = "os^Dv"
"""One for each line, so that they differ without colours too."""

MARKED_PLACES = 20
"""Numbers along the axis up to which each has its mark and its interval; more are a line with a band."""

DODGE = 0.06
"""How far marks of neighbouring lines are moved apart, as a part of the distance between two places."""


def is_ordered(design: Design, name: str) -> bool:
    """Whether a variable has an order that lines may follow: numbers, an ordered factor, the visit of the residual structure."""
    column = design.spanning_frame[name]
    if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
        return True
    residual = design.spec.residual
    return pd.api.types.is_numeric_dtype(column) or (residual is not None and name in residual.visit)


def axis_places(values: pd.Series[Any]) -> dict[Any, float]:
    """Where each value stands along an axis: a number at itself, levels one after the other."""
    levels = list(values.cat.categories) if isinstance(values.dtype, pd.CategoricalDtype) else list(dict.fromkeys(values))
    present = set(values)
    levels = [level for level in levels if level in present]
    if pd.api.types.is_numeric_dtype(pd.Series(levels)) and not pd.api.types.is_bool_dtype(pd.Series(levels)):
        return {level: float(level) for level in levels}
    return {level: float(i) for i, level in enumerate(levels)}


def row_labels_of(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The levels of each row, joined by spaces."""
    return [" ".join(map(level_label, row)) for row in _rows_of(frame, names)]


def _rows_of(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(frame[list(names)].itertuples(index=False)) if names else [()] * len(frame)


def along_axis(
    ax: Axes,
    frame: pd.DataFrame,
    x: str,
    others: Sequence[str],
    label: str,
    *,
    joined: bool = True,
    null: float | None = None,
    title: str = "",
) -> Axes:
    """Estimates with their intervals along x, a line for each combination of the others, moved apart so that none hides another.

    frame : x, the others, `estimate, conf_low, conf_high`; joined : whether marks are joined; null : a line at the value of no difference
    """
    places = axis_places(frame[x])
    numeric = any(not isinstance(level, str) for level in places) and list(places) == list(places.values())
    lines = row_labels_of(frame, others)
    drawn = list(dict.fromkeys(lines))
    band = numeric and len(places) > MARKED_PLACES
    gap = float(np.diff(sorted(places.values())).min()) if len(places) > 1 else 1.0
    if null is not None:
        ax.axhline(null, color=ink(), linewidth=1, zorder=1)
    for j, name in enumerate(drawn):
        part = frame[[line == name for line in lines]]
        at = np.array([places[level] for level in part[x]])
        color = PALETTE[j % len(PALETTE)]
        shown = printable_name(name) or None
        if band:
            order = np.argsort(at)
            low, high, middle = (part[column].to_numpy(float)[order] for column in ("conf_low", "conf_high", "estimate"))
            ax.fill_between(at[order], low, high, color=color, alpha=ribbon(), linewidth=0, zorder=2)
            ax.plot(
                at[order], middle, color=color, linewidth=2, linestyle=("-", "--", "-.", ":")[j // len(PALETTE) % 4], label=shown, zorder=3
            )
            continue
        at = at + DODGE * gap * (j - 0.5 * (len(drawn) - 1))
        ax.vlines(at, part["conf_low"], part["conf_high"], color=color, linewidth=1.6, alpha=0.8, zorder=2)
        style: dict[str, Any] = {"linestyle": "-" if joined else "none", "markersize": 5.0, "linewidth": 1.6}
        ax.plot(at, part["estimate"], LINE_MARKS[j % len(LINE_MARKS)], color=color, label=shown, zorder=3, **style)
    if not numeric:
        named_ticks(ax, list(places), vertical=False)
        ax.set_xlim(-0.5, len(places) - 0.5)
    elif not band:
        ax.set_xticks(sorted(places.values()))
    return plain_axes(ax, x, label, title)


def effect_axes(
    frame: pd.DataFrame,
    x: str,
    lines: Sequence[str],
    parts: Sequence[str],
    label: str,
    *,
    notes: Sequence[str] = (),
    joined: bool = True,
    null: float | None = None,
    ax: Any = None,
) -> list[Axes]:
    """A panel for each combination of `parts`, in it a line along x for each combination of `lines`; `notes` stand below."""
    titles = [" ".join(f"{name} {level_label(value)}" for name, value in zip(parts, row, strict=True)) for row in _rows_of(frame, parts)]
    shown = list(dict.fromkeys(titles))
    width, height = (6.4, 4.2) if len(shown) == 1 else (4.2, 3.6)
    axes = panels(ax, len(shown), width=width, height=height, sharey=len(shown) > 1)
    for place, title in zip(axes, shown, strict=True):
        own = frame[[each == title for each in titles]]
        along_axis(place, own, x, lines, label if place is axes[0] else "", joined=joined, null=null, title=title)
    heading = printable_name(" ".join(lines)) or None
    legend_above(axes[0], heading) if len(axes) == 1 else legend_of_panels(axes, ax, heading)
    caption(axes[0], "; ".join(notes))
    return axes


def subgroup_axes(
    table: pd.DataFrame, label: str, *, notes: Sequence[str] = (), ax: Axes | None = None, measure: str = "interaction p"
) -> Axes:
    """A forest of differences within subgroups, overall first, the numbers beside it; the line is 0.

    measure : of the interaction, the number in the column `p_value`: p, or the posterior probability of a direction

    table : `subgroup` (empty for all), `level`, `contrast`, `estimate, conf_low, conf_high`, `n` (levels of the group, NaN where not known)
        and `p_value` of the interaction, the same within a subgroup
    """
    lines: list[tuple[str, list[int]]] = []
    for i, (subgroup, level) in enumerate(zip(table["subgroup"], table["level"], strict=True)):
        if subgroup and (not i or table["subgroup"].iloc[i - 1] != subgroup):
            p = float(table["p_value"].iloc[i])
            lines.append((f"{subgroup}" + (f" ({measure} = {p:.2g})" if np.isfinite(p) else ""), []))
        counted = table["n"].iloc[i]
        text = f"  {level}" if subgroup else str(level)
        text += f" (n = {int(counted):,})" if np.isfinite(counted) else ""
        if lines and lines[-1][0] == text and lines[-1][1]:
            lines[-1][1].append(i)
        else:
            lines.append((text, [i]))
    contrasts = list(dict.fromkeys(table["contrast"]))
    ax = axes_for(ax, 8.0, 1.2 + max(0.34, 0.12 + 0.17 * len(contrasts)) * len(lines))
    place = {i: len(lines) - 1 - row for row, (_, members) in enumerate(lines) for i in members}
    ax.axvline(0.0, color=ink(), linewidth=1, zorder=1)
    for j, name in enumerate(contrasts):
        rows = np.flatnonzero((table["contrast"] == name).to_numpy())
        own = table.iloc[rows]
        color, mark = PALETTE[j % len(PALETTE)], LINE_MARKS[j % len(LINE_MARKS)]
        at = np.array([place[int(i)] for i in rows]) + 0.8 / len(contrasts) * (0.5 * (len(contrasts) - 1) - j)
        ax.hlines(at, own["conf_low"], own["conf_high"], color=color, linewidth=2, zorder=2)
        ax.plot(own["estimate"], at, mark, color=color, markersize=6, zorder=3, label=printable_name(name))
        for y, (_, row) in zip(at, own.iterrows(), strict=True):
            interval = (
                f"{row['estimate']:.3g} ({row['conf_low']:.3g}, {row['conf_high']:.3g})" if np.isfinite(row["estimate"]) else "no data"
            )
            ax.annotate(
                interval,
                (1.02, y),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize="x-small",
                color=color if len(contrasts) > 1 else ink(),
            )
    named_ticks(ax, [text for text, _ in lines][::-1])
    for tick, (_, members) in zip(ax.get_yticklabels(), lines[::-1], strict=True):
        if not members:
            tick.set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.7, len(lines) - 0.3)
    if len(contrasts) > 1:
        legend_above(ax)
    caption(ax, "; ".join(notes))
    return plain_axes(ax, label if len(contrasts) > 1 else f"{contrasts[0]}: {label}", "")
