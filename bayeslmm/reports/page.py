"""An HTML page of sections, escaped tables and embedded figures, which asks the network for nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Self, get_args

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayeslmm._arrays import Array
from bayeslmm._io import as_path, write_atomically
from bayeslmm.errors import BayesLMMError, Check, Verdict, escape_control, printable_text
from bayeslmm.likelihood.threads import undo_if_interrupted
from bayeslmm.results.render import align_digits, check_value_text, format_p, format_signed

REPORT_HEADINGS = {
    "std_error": "std. error",
    "p_value": "p",
    "conf_low": "lower",
    "conf_high": "upper",
    "num_df": "df",
    "den_df": "denominator df",
    "corr": "correlation",
    "sd": "std. deviation",
    "term1": "term",
    "term2": "with",
}
"""Columns of tables by the words of a report."""

BESIDE_ERROR = ("estimate", "std_error", "conf_low", "conf_high")
"""Columns whose decimals go by the standard error of their row."""

WIDE_COLUMNS = frozenset({"remedy", "value"})


def escape_html(value: Any) -> str:
    """Text for HTML: escaped, control characters shown as escapes."""
    return escape(escape_control(str(value)))


def cell_texts(frame: pd.DataFrame) -> list[list[str]]:
    """The rows of a table as text."""
    columns = [_column(frame, str(name)) for name in frame.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _column(frame: pd.DataFrame, name: str) -> list[str]:
    values = frame[name]
    if values.dtype.kind != "f":
        return ["" if value is None or value is pd.NA or value != value else _exact(value) for value in values.tolist()]
    if name == "p_value":
        return ["" if np.isnan(p) else format_p(p) for p in values]
    if name in ("df", "den_df", "num_df"):
        return [
            "" if np.isnan(df) else "∞" if np.isinf(df) or df > 1e5 else f"{df:.0f}" if float(df).is_integer() else f"{df:.1f}"
            for df in values
        ]
    if name in ("statistic", "corr", "gap", "pull"):
        return ["" if np.isnan(value) else format_signed(value) for value in values]
    numbers = values.to_numpy(float)
    if name in BESIDE_ERROR and "std_error" in frame:
        return [_by_error(value, error) for value, error in zip(numbers, _errors(frame), strict=True)]
    shown = iter(align_digits(numbers[np.isfinite(numbers)]))
    return [next(shown) if np.isfinite(value) else "" for value in numbers]


def _errors(frame: pd.DataFrame) -> Array:
    """The standard error of every row; in a comparison, a row without one has that of another source of the same parameter."""
    errors = frame["std_error"].astype(float)
    if {"source", "group", "term"} <= set(frame.columns):
        errors = errors.fillna(errors.groupby([frame["group"].fillna(""), frame["term"]]).transform("max"))
    return np.asarray(errors.to_numpy(float))


def _by_error(value: float, error: float) -> str:
    """A number with the decimals that show three digits of its standard error."""
    if np.isnan(value):
        return ""
    if not np.isfinite(error) or error <= 0.0 or not 1e-5 < error < 1e5:
        return align_digits([value])[0]
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(error))))}f}"


def _exact(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000 else str(value)


def five_digits(value: float) -> str:
    """One number to five digits."""
    return "–" if not np.isfinite(value) else align_digits([value])[0]


def heading(name: str) -> str:
    """A column's heading."""
    return REPORT_HEADINGS.get(name, name)


FONT: Any = {"font.size": 9.5, "axes.edgecolor": "#5b6570", "svg.fonttype": "path", "svg.hashsalt": "bayeslmm"}


@contextmanager
def _report_font() -> Iterator[None]:
    """The look of figures of a report, and afterwards the user's."""
    before = {key: matplotlib.rcParams[key] for key in FONT}
    undo_if_interrupted(lambda: matplotlib.rcParams.update(before))
    with matplotlib.rc_context(FONT):
        yield


def draw_figure(draw: Callable[[Axes], Any], width: float = 5.6, height: float = 3.9) -> Figure:
    """A figure of one panel; `draw` is given its axes. Sizes are in inches."""
    with _report_font():
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
    return figure


def draw_panels(draw: Callable[[list[Axes]], Any], count: int, width: float = 3.6, height: float = 3.6, *, alike: bool = False) -> Figure:
    """A figure of several panels; `draw` is given their axes. alike : on one common scale."""
    columns = min(3, count)
    rows = -(-count // columns)
    with _report_font():
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False, sharex=alike).ravel())
        for extra in axes[count:]:
            figure.delaxes(extra)
        draw(axes[:count])
    return figure


def embed_figure(figure: Figure) -> str:
    """The figure as an address that holds it; the same figure gives the same text."""
    content = io.BytesIO()
    with _report_font():
        figure.savefig(content, format="svg", dpi=150, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=140)
    write_atomically(path, content.getvalue())
    return path


STYLE = """
:root { --ink: #1b1f24; --soft: #5b6570; --line: #dfe3e8; --ground: #f6f7f9; }
:root { --blue: #0072b2; --green: #00735a; --orange: #9a6200; --red: #b34700; }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); background: #fff; margin: 0; }
main { max-width: 64rem; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; overflow-wrap: anywhere; }
.lead, .note, figcaption { color: var(--soft); }
.note { font-size: .92em; }
nav { margin: 1.1rem 0 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .92em; }
nav a { color: var(--blue); text-decoration: none; } nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .7rem; margin: 1.3rem 0 0; }
.tile { background: var(--ground); border-radius: .4rem; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.2rem; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: .85em; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93em; }
caption { text-align: left; font-weight: 600; padding-bottom: .35rem; }
th, td { padding: .27rem .8rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
thead th { border-bottom: 1.5px solid var(--soft); font-weight: 600; }
th.name, td.name { text-align: left; } td.wide { white-space: normal; max-width: 28rem; text-align: left; overflow-wrap: anywhere; }
td:first-child, th:first-child { padding-left: .2rem; }
tbody tr:hover td { background: var(--ground); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: .5rem 0 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code, pre { font: .9em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { background: var(--ground); padding: .8rem 1rem; border-radius: .4rem; overflow-x: auto; }
.verdict { font-weight: 600; } .passed { color: var(--green); } .noted { color: var(--orange); } .failed { color: var(--red); }
figure { margin: .6rem 0 1.2rem; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .92em; max-width: 46rem; margin-top: .2rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: .4rem 1.6rem; align-items: start; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6ea; --soft: #a3adb8; --line: #39414a; --ground: #1d2329; }
  :root { --blue: #6cb8ea; --green: #4fc9a4; --orange: #e5b04a; --red: #ff9a5c; }
  body { background: #14181c; } figure img { filter: invert(1) hue-rotate(180deg) brightness(1.2); mix-blend-mode: screen; }
}
@media print { nav { display: none; } h2, figure, table { break-inside: avoid; } main { padding: 0; max-width: none; } }
@media (max-width: 40rem) { .pair, dl { grid-template-columns: 1fr; } dd { padding-left: 1rem; } th, td { padding: .25rem .45rem; } }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What the file itself tells the browser: no script runs, nothing is fetched."""


@dataclass(slots=True)
class Section:
    """A heading and what stands under it, as HTML."""

    title: str
    name: str
    parts: list[str] = field(default_factory=list)

    def text(self, words: str, kind: str = "") -> None:
        """A paragraph; kind : "lead" or "note"."""
        self.parts.append(f'<p class="{kind}">{escape_html(words)}</p>' if kind else f"<p>{escape_html(words)}</p>")

    def add_heading(self, words: str) -> None:
        """A heading within the section."""
        self.parts.append(f"<h3>{escape_html(words)}</h3>")

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and what they are."""
        entries = "".join(f"<dt>{escape_html(name)}</dt><dd>{escape_html(value)}</dd>" for name, value in pairs)
        self.parts.append(f"<dl>{entries}</dl>")

    def code(self, text: str) -> None:
        """Text as it is typed."""
        self.parts.append(f"<pre><code>{escape_html(text)}</code></pre>")

    def table(self, frame: pd.DataFrame, caption: str = "") -> None:
        """A frame; columns of numbers flush right."""
        names = [str(name) for name in frame.columns]
        left = [frame[name].dtype.kind not in "iuf" for name in frame.columns]
        head = "".join(f'<th{_class(own)} scope="col">{escape_html(heading(name))}</th>' for name, own in zip(names, left, strict=True))
        body = "".join(_row(row, names, left) for row in cell_texts(frame.set_axis(names, axis=1)))
        title = f"<caption>{escape_html(caption)}</caption>" if caption else ""
        self.parts.append(f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')

    def checks(self, checks: Iterable[Check]) -> None:
        """Verdicts, those that did not pass first."""
        order = get_args(Verdict)
        rows = "".join(
            f'<tr><td class="name">{escape_html(check.name)}</td><td class="name verdict {check.verdict}">{check.verdict}</td>'
            f'<td class="wide">{escape_html(check_value_text(check.value))}</td>'
            f'<td class="name">{escape_html(check_value_text(check.limit))}</td>'
            f'<td class="wide">{escape_html(check.remedy)}</td></tr>'
            for check in sorted(checks, key=lambda check: order.index(check.verdict))
        )
        head = "".join(f'<th class="name" scope="col">{name}</th>' for name in ("check", "verdict", "value", "limit", "what to do"))
        self.parts.append(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>')

    def figure(self, figure: Figure, caption: str) -> None:
        """A figure in the file itself."""
        self.parts.append(picture(figure, caption))

    def pair(self, *figures: tuple[Figure, str]) -> None:
        """Figures side by side where there is room."""
        self.parts.append('<div class="pair">' + "".join(picture(figure, caption) for figure, caption in figures) + "</div>")

    def attempt(self, what: str, step: Callable[[], None]) -> None:
        """Run a step that some models do not allow; what one cannot say is said in a line instead."""
        try:
            step()
        except BayesLMMError as error:
            self.text(f"{what}: {error.what}." + (f" {error.remedy[0].upper()}{error.remedy[1:]}." if error.remedy else ""), "note")

    def html(self) -> str:
        """The section."""
        return f'<section id="{self.name}"><h2>{escape_html(self.title)}</h2>\n' + "\n".join(self.parts) + "\n</section>"


@dataclass(slots=True)
class Page:
    """A page: title, a line below it, a few numbers in tiles, sections.

    >>> page = Page("Visits")
    >>> page.section("Data").text("3 < 4 rows")
    >>> "3 &lt; 4 rows" in page.html()
    True
    """

    title: str
    lead: str = ""
    tiles: Sequence[tuple[str, str]] = ()
    sections: list[Section] = field(default_factory=list)

    def section(self, title: str, place: int | None = None) -> Section:
        """A new section, the last one or at a place among them."""
        made = Section(title, f"section-{len(self.sections) + 1}")
        self.sections.insert(len(self.sections) if place is None else place, made)
        return made

    def html(self) -> str:
        """The whole file."""
        head = (
            f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escape_html(self.title)}</title><style>{STYLE}</style>'
        )
        links = "".join(f'<a href="#{section.name}">{escape_html(section.title)}</a>' for section in self.sections)
        tiles = "".join(
            f'<div class="tile"><b>{escape_html(value)}</b><span>{escape_html(name)}</span></div>' for name, value in self.tiles
        )
        top = [f"<h1>{escape_html(self.title)}</h1>", f'<p class="lead">{escape_html(self.lead)}</p>' if self.lead else ""]
        top += [
            f'<div class="tiles">{tiles}</div>' if tiles else "",
            f'<nav aria-label="sections">{links}</nav>' if len(self.sections) > 1 else "",
        ]
        body = "\n".join([*filter(None, top), *(section.html() for section in self.sections)])
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'

    def finish(self, path: str | Path | None) -> HtmlPage:
        """The page as text; written to `path` where one is given."""
        place = None if path is None else self.save(path)
        return HtmlPage(self.html(), self.title, [section.title for section in self.sections], place)

    def save(self, path: str | Path) -> Path:
        """Write the page whole or not at all; StoreError where it cannot be written."""
        place = as_path(path)
        write_atomically(place, self.html().encode("utf-8"))
        return place


class HtmlPage(str):
    """The text of a page, which a session shows by its title, sections and size, and not by its megabyte."""

    __slots__ = ("heading", "path", "sections")
    heading: str
    sections: tuple[str, ...]
    path: Path | None

    def __new__(cls, text: str, title: str, sections: Sequence[str], path: Path | None) -> Self:
        """text : the whole file; path : where it was written, or None"""
        made = super().__new__(cls, text)
        made.heading, made.sections, made.path = title, tuple(sections), path
        return made

    @property
    def html(self) -> str:
        """The whole file.

        >>> fit.report(df="asymptotic").html.startswith("<!doctype html>")
        True
        """
        return str.__str__(self)

    def __repr__(self) -> str:
        where = "not written: give a path, or write its .html" if self.path is None else f"written to {self.path}"
        return f"HtmlPage({printable_text(self.heading)!r:.80}: {len(self.sections)} sections, {len(self) / 1e6:.2g} MB; {where})"

    def _repr_html_(self) -> str:
        where = "not written to a file" if self.path is None else f"written to <code>{escape_html(str(self.path))}</code>"
        parts = "".join(f"<li>{escape_html(name)}</li>" for name in self.sections)
        return f"<p><b>{escape_html(self.heading)}</b>, {len(self) / 1e6:.2g} MB, {where}</p><ul>{parts}</ul>"


def _class(name: bool) -> str:
    return ' class="name"' if name else ""


def _row(row: list[str], names: list[str], left: list[bool]) -> str:
    tags = [' class="wide"' if name in WIDE_COLUMNS else _class(own) for name, own in zip(names, left, strict=True)]
    return "<tr>" + "".join(f"<td{tag}>{escape_html(text)}</td>" for tag, text in zip(tags, row, strict=True)) + "</tr>"


def picture(figure: Figure, caption: str) -> str:
    """A figure with its caption, which is also what a screen reader says."""
    return (
        f'<figure><img alt="{escape_html(caption)}" src="{embed_figure(figure)}"><figcaption>{escape_html(caption)}</figcaption></figure>'
    )
