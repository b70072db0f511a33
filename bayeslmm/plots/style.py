"""The common style of figures: a colour-blind palette, axes made when none are given, thinned points."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import SpecificationError

# Okabe and Ito's palette: distinct under every common deficiency of colour vision
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW)
GREY, LIGHT, INK = "#666666", "#C9CDD2", "#222222"
DARK_GREY, DARK_LIGHT, DARK_INK = "#A3A8AE", "#4B5158", "#E4E6E8"
BAND, DARK_BAND = "#F4F6F8", "#1C2126"

LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": "small",
    "title_fontsize": "small",
    "columnspacing": 1.2,
    "handlelength": 1.4,
    "borderaxespad": 0.2,
}

LEGEND_CHARACTERS = 75
"""Characters of a legend that fit in one row of a figure of Matplotlib's width."""

USUAL_AXES = 0.775 * 6.4
"""Width of its axes in inches."""

NAME_INCHES = 0.17
"""Height of a name beside a point."""

LABEL_CHARACTERS = 32
"""Characters of a label in one line."""

CUT_CHARACTERS = 48
"""Characters of a label that has one line."""

LABEL_LINES = 3
"""Lines of a label where there are few."""

CHARACTERS_PER_INCH = 11.0
"""Characters of labels beside one another that have room in an inch."""

LEAST_CHARACTERS = 12
"""Characters in a line of a label, however small the axes are."""

CAPTION_CHARACTERS = 80
"""Characters in a line of a caption."""

LABELLED_LEVELS = 60
"""Levels up to which each has its own label."""

HISTOGRAM_POINTS = 20_000
"""Points beyond which a scatter would be a blot: a two-dimensional histogram takes its place."""


def ink() -> str:
    """The colour of thin lines and text."""
    return DARK_INK if _is_dark() else INK


def grey() -> str:
    """The colour of what stands back: captions, bands, single levels."""
    return DARK_GREY if _is_dark() else GREY


def light() -> str:
    """The colour of guides."""
    return DARK_LIGHT if _is_dark() else LIGHT


def band() -> str:
    """The colour of every other row of a long table of intervals."""
    return DARK_BAND if _is_dark() else BAND


def counts_map() -> ListedColormap:
    """Colours of counts, from one that stands out from the ground to the one furthest from it."""
    return ListedColormap(plt.get_cmap("Blues_r" if _is_dark() else "Blues")(np.linspace(0.25, 1.0, 256)))


def ribbon() -> float:
    """Opacity of a band between limits: on a dark ground what is as faint as on a light one cannot be seen."""
    return 0.4 if _is_dark() else 0.2


def paper() -> str:
    """The colour that a line is set off by: that of the ground."""
    return "black" if _is_dark() else "white"


def _is_dark() -> bool:
    """Whether the style in force writes light text, which asks for light lines: the ground itself may be transparent."""
    red, green, blue = to_rgb(plt.rcParams["text.color"])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5


def axes_for(ax: Axes | None, width: float = 6.4, height: float = 4.4) -> Axes:
    """The axes given, or new ones in a figure of their own. Errors: SpecificationError for what is no axes."""
    if ax is not None:
        return _axes(ax)
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _axes(axes: Any) -> Axes:
    if not isinstance(axes, Axes):
        raise SpecificationError(f"ax is a {type(axes).__name__}", "ax", "give Matplotlib axes, or None for a new figure")
    return axes


def _parts(ax: Axes, count: int, columns: int) -> list[Axes]:
    """A grid of insets that fills the axes, whose own frame is taken away."""
    rows = -(-count // columns)
    ax.set_axis_off()
    width, height = 1.0 / columns, 1.0 / rows
    # what is left between two parts is for the labels of the right and the lower one
    size = (0.78 * width if columns > 1 else width, 0.7 * height if rows > 1 else height)
    return [ax.inset_axes(((i % columns) * width, 1.0 - (i // columns) * height - size[1], *size)) for i in range(count)]


def panels(ax: Any, count: int, width: float = 3.4, height: float = 2.8, columns: int = 3, **options: Any) -> list[Axes]:
    """As many axes as there are panels: those given, the parts of the one given, or a new grid."""
    if isinstance(ax, Axes) and count > 1:
        return _parts(ax, count, min(columns, count))
    if ax is not None:
        axes = [ax] if isinstance(ax, Axes) else list(np.ravel(np.asarray(ax, dtype=object)))
        if len(axes) < count:
            raise SpecificationError(
                f"{count} panels are drawn, {len(axes)} axes were given", "ax", f"give {count} axes, or None for a new figure"
            )
        return [_axes(each) for each in axes[:count]]
    rows = -(-count // min(columns, count))
    columns = -(-count // rows)
    figure, grid = plt.subplots(rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False, **options)
    for extra in grid.ravel()[count:]:
        figure.delaxes(extra)
    for lowest in grid.ravel()[max(count - columns, 0) : count]:
        lowest.tick_params(labelbottom=True)
    return list(grid.ravel()[:count])


def cloud(ax: Axes, x: Array, y: Array, color: str = BLUE) -> None:
    """Points that get fainter and smaller the more there are; a histogram in two dimensions where they would merge."""
    if len(x) > HISTOGRAM_POINTS:
        ax.hexbin(x, y, gridsize=60, cmap=counts_map(), bins="log", mincnt=1, linewidths=0)
        return
    size = float(np.clip(2500.0 / max(len(x), 1), 3.0, 26.0))
    ax.scatter(
        x, y, s=size, color=color, alpha=float(np.clip(25.0 / np.sqrt(max(len(x), 1)), 0.12, 0.75)), linewidths=0, rasterized=len(x) > 2000
    )


SIDEWAYS = 0.02
"""Share of the range of x by which points are moved at most: less than a reader would take for another x."""


def spread(x: Array) -> Array:
    """Values moved a little to the side where many share a place, so that a column of points shows how many there are."""
    places, counts = np.unique(x, return_counts=True)
    if len(places) < 2 or np.median(counts) < 12:
        return x
    reach = min(0.28 * float(np.diff(places).min()), SIDEWAYS * float(places[-1] - places[0]))
    return np.asarray(x + np.random.default_rng(0).uniform(-reach, reach, len(x)))


LOCAL_POINTS = 15
"""Points, and a third as many places, from which a local line says more than the points themselves."""


def has_local_line(x: Array) -> bool:
    """Whether there are enough points at enough places for a local line."""
    return len(x) >= LOCAL_POINTS and len(np.unique(x)) > LOCAL_POINTS // 3


def name_points(ax: Axes, x: Array | Codes, y: Array, names: Sequence[Any]) -> None:
    """Names beside points, moved up or down where they would stand on one another."""
    if not len(names):
        return
    ax.autoscale_view()
    figure: Any = ax.get_figure()
    inches = max(ax.get_position().height * figure.get_figheight(), 1e-3)
    bottom, top = ax.get_ylim()
    # heights of a line of names, and where each name's middle would be, as parts of the axes
    gap = NAME_INCHES / inches
    order = np.argsort(y, kind="stable")
    wanted = (np.asarray(y, float)[order] - bottom) / ((top - bottom) or 1.0)
    placed = np.empty(len(order))
    for i, at in enumerate(wanted):
        placed[i] = at if i == 0 else max(at, placed[i - 1] + gap)
    placed -= max(0.0, placed[-1] - max(1.0, wanted[-1]))
    for i in range(len(placed) - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    left, right = ax.get_xlim()
    for row, at, meant in zip(order, placed, wanted, strict=True):
        beyond = (x[row] - left) / ((right - left) or 1.0) > 0.8
        ax.annotate(
            printable_name(level_label(names[row])),
            (x[row], y[row]),
            xytext=(-6.0 if beyond else 6.0, 72.0 * inches * (at - meant)),
            textcoords="offset points",
            ha="right" if beyond else "left",
            va="center",
            fontsize="small",
        )


def local_line(x: Array, y: Array, points: int = 60) -> tuple[Array, Array]:
    """A local straight line through a cloud, weighted by nearness (tricube over two fifths of the points)."""
    order = np.argsort(x)
    x, y = x[order], y[order]
    if len(x) > 4000:
        thinned = np.linspace(0, len(x) - 1, 4000).astype(int)
        x, y = x[thinned], y[thinned]
    grid = np.linspace(x[0], x[-1], points)
    reach = max(3, int(0.4 * len(x)))
    least = max(1e-12 * float(x[-1] - x[0]), np.finfo(np.float64).tiny)
    out = np.empty(points)
    for i, at in enumerate(grid):
        distance = np.abs(x - at)
        width = max(float(np.partition(distance, reach - 1)[reach - 1]), least)
        w = np.clip(1.0 - (distance / width) ** 3, 0.0, None) ** 3
        mean_x, mean_y = np.average(x, weights=w), np.average(y, weights=w)
        spread = np.sum(w * (x - mean_x) ** 2)
        slope = np.sum(w * (x - mean_x) * (y - mean_y)) / spread if spread > 0 else 0.0
        out[i] = mean_y + slope * (at - mean_x)
    return grid, out


def plain_axes(ax: Axes, xlabel: str, ylabel: str, title: str = "") -> Axes:
    """Labels on, in as many lines as the axes need room for; what carries no information off."""
    extent, figure = ax.get_window_extent(), cast(Any, ax.get_figure())
    width, height = (CHARACTERS_PER_INCH * pixels / figure.dpi for pixels in (extent.width, extent.height))
    ax.set_xlabel(_in_lines(xlabel, width))
    ax.set_ylabel(_in_lines(ylabel, height))
    if title:
        ax.set_title(_in_lines(title, width), fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _in_lines(text: str, room: float) -> str:
    """A text in lines of as many characters as there is room for."""
    lines = [text] if len(text) <= room else wrap(text, max(int(room), LEAST_CHARACTERS), break_on_hyphens=False)
    return "\n".join(map(printable_name, lines))


def from_zero(ax: Axes) -> None:
    """y from 0 on; the margin above is that of the whole range, as values close to one another leave none of theirs for a mark."""
    ax.set_ylim(0.0, max(ax.get_ylim()[1], ax.dataLim.y1 * (1.0 + cast(Any, ax).margins()[1])))


class AboveTitle(Legend):
    """A legend above axes that makes room for their title, which a user may set after the figure was drawn."""

    _height = 1.0

    def _make_room(self, renderer: RendererBase) -> None:
        ax: Any = self.axes
        top = ax.title.get_window_extent(renderer).y1 if ax.get_title() else 0.0
        height = max(1.0, float(ax.transAxes.inverted().transform((0.0, top))[1]))
        if height != self._height:
            self._height = height
            self.set_bbox_to_anchor((0.0, height), transform=ax.transAxes)

    def draw(self, renderer: RendererBase) -> None:
        self._make_room(renderer)
        super().draw(renderer)

    def get_tightbbox(self, renderer: RendererBase | None = None) -> Any:
        if renderer is not None:
            self._make_room(renderer)
        return super().get_tightbbox(renderer)


def legend_above(ax: Axes, title: str | None = None) -> None:
    """What the marks mean, above the axes, where it hides no data."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        seen = dict(zip(labels, handles, strict=True))
        figure: Any = ax.get_figure()
        columns = legend_columns(list(seen), LEGEND_CHARACTERS * ax.get_window_extent().width / figure.dpi / USUAL_AXES)
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "alignment": "left"}
        ax.legend_ = AboveTitle(ax, list(seen.values()), list(seen), title=title, ncols=columns, **place, **LEGEND)


def legend_columns(labels: Sequence[str], room: float) -> int:
    """How many labels stand in a row: all of them, or as many as the longest leaves room for."""
    return len(labels) if sum(len(label) + 5 for label in labels) < room else max(1, int(room / (max(map(len, labels)) + 5)))


def legend_of_panels(axes: Sequence[Axes], ax: Any, title: str | None = None) -> None:
    """The same once for several panels: above all of them in a figure of our own, in the first panel on axes that were given."""
    seen: dict[Any, Any] = {}
    for one in axes:
        handles, labels = one.get_legend_handles_labels()
        seen = dict(zip(labels, handles, strict=True)) | seen
    if ax is None and seen:
        figure: Any = axes[0].get_figure()
        columns = legend_columns(list(seen), LEGEND_CHARACTERS * figure.get_figwidth() / 6.4)
        where: dict[str, Any] = {"loc": "outside upper left", "alignment": "left"}
        drawn = figure.legend(list(seen.values()), list(seen), ncols=columns, title=title, **where, **LEGEND)
    elif seen:
        drawn = axes[0].legend(list(seen.values()), list(seen), loc="best", title=title, **LEGEND)
    else:
        return
    for line in drawn.get_lines():
        line.set_alpha(1.0)
        line.set_linewidth(max(line.get_linewidth(), 1.6))


def caption(ax: Axes, text: str) -> None:
    """A line below the axes: what the figure averages over, at which values, on which scale."""
    if not text:
        return
    lines = "\n".join(wrap(printable_name(text), CAPTION_CHARACTERS))
    ax.annotate(
        lines,
        (0.5, 0.0),
        xycoords=ax.xaxis.label,
        xytext=(0, -3),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize="x-small",
        color=grey(),
    )


def few_ticks(ax: Axes) -> None:
    """At most five numbers along x, so that they do not run into one another on a small panel."""
    ax.xaxis.set_major_locator(MaxNLocator(5))


def level_label(value: Any) -> str:
    """A level as it is read: 9, not 9.0."""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def percent(level: float) -> str:
    """A level of confidence: 95%, 99.9%."""
    return f"{100.0 * level:.4g}%"


def printable_name(text: str) -> str:
    """A name of the data as Matplotlib prints it: no dollar sign starts a formula, no control character passes."""
    return "".join(c if c.isprintable() else " " for c in str(text)).replace("$", r"\$")


def fold_label(label: str, lines: int) -> str:
    """A long label in some lines, broken after the marks between its parts; what has no room in them is cut."""
    done: list[str] = []
    rest = label
    while len(rest) > LABEL_CHARACTERS and len(done) < lines - 1:
        cut = max((rest.rfind(mark, 8, LABEL_CHARACTERS) for mark in ":, "), default=-1) + 1 or LABEL_CHARACTERS
        done.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    most = LABEL_CHARACTERS if lines > 1 else CUT_CHARACTERS
    return "\n".join(printable_name(line) for line in [*done, rest if len(rest) <= most else rest[: most - 3] + "..."])


def named_ticks(ax: Axes, labels: Sequence[Any], *, vertical: bool = True) -> None:
    """A tick for every label where they are few, none where they would run into one another."""
    axis = ax.yaxis if vertical else ax.xaxis
    if len(labels) > LABELLED_LEVELS:
        axis.set_ticks([])
        return
    size = "small" if len(labels) <= 25 else "x-small"
    lines = LABEL_LINES if len(labels) <= 12 else 2 if len(labels) <= 25 else 1
    shown = [fold_label(level_label(label), lines) for label in labels]
    longest = max(len(line) for label in shown for line in label.split("\n"))
    figure: Any = ax.get_figure()
    room = CHARACTERS_PER_INCH * ax.get_position().width * figure.get_figwidth()
    rotation: dict[str, Any] = {}
    if not vertical and (longest + 1) * len(labels) >= room:
        rotation = {"rotation": 45.0, "ha": "right", "rotation_mode": "anchor"} if len(labels) <= 25 else {"rotation": 90.0}
    axis.set_ticks(np.arange(len(labels)), labels=shown, fontsize=size, **rotation)
