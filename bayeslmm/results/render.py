"""Tables and numbers as text, as HTML and for rich, with notes; the progress of long computations."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from bayeslmm._validation import require_flag
from bayeslmm.errors import Check, escape_control, printable_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text


SIGNIFICANT_DIGITS = 5


@dataclass(frozen=True, slots=True)
class TextTable:
    """A titled table of text.

    labels : leading columns that hold names, set flush left
    """

    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1

    def __post_init__(self) -> None:
        if self.names and self.names[0] not in ("", "Group", "Name"):
            object.__setattr__(self, "labels", 0)


def align_digits(values: Iterable[float]) -> list[str]:
    """Numbers with the decimals that show five digits of the largest, so that they line up; powers of ten for very large and very small."""
    values = [float(value) for value in values]
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0.0]
    largest, smallest = max(sizes, default=1.0), min(sizes, default=1.0)
    if largest >= 1e7 or smallest < 1e-4:
        return [f"{value:.{SIGNIFICANT_DIGITS - 1}g}" for value in values]
    decimals = max(1, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(largest)))
    if smallest * 10.0**decimals < 10.0:
        decimals = min(6, math.ceil(-math.log10(smallest)) + 2)
    return [f"{value:.{decimals}f}" for value in values]


def format_signed(value: float, decimals: int = 2) -> str:
    """A correlation or a statistic; NaN where there is none."""
    if 1e5 <= abs(value) < math.inf:
        return f"{value:.3g}"
    return f"{value:.{decimals}f}"


def format_p(p: float) -> str:
    """A p value as it is printed in papers."""
    if math.isnan(p):
        return "NaN"
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"


def describe_checks(checks: Iterable[Check]) -> Iterator[str]:
    """One line for each check that did not pass: its verdict, its name, what to do."""
    for check in checks:
        if check.verdict != "passed":
            value = check_value_text(check.value)
            yield f"{check.verdict}: {check.name}" + (f" ({value})" if value else "") + (f"; {check.remedy}" if check.remedy else "")


def check_value_text(value: object) -> str:
    """The value of a check in a few characters."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {check_value_text(v)}" for key, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(check_value_text(v) for v in value)
    return str(value)


TEXT_WIDTH = 80
NAME_WIDTH = 28
"""Longest name of a row that is shown whole when the table would otherwise be too wide."""


def text_of(title: str, facts: Sequence[tuple[str, str]], tables: Sequence[TextTable], notes: Sequence[str]) -> str:
    """The whole summary."""
    parts = [escape_control(title)]
    width = max((len(name) for name, _ in facts), default=0) + 1
    for name, value in facts:
        parts.append(
            textwrap.fill(escape_control(value), TEXT_WIDTH, initial_indent=f"{name + ':':<{width}} ", subsequent_indent=" " * (width + 1))
        )
    for table in tables:
        parts += ["", *table_lines(table)]
    if notes:
        parts += ["", "Checks"]
        parts += [textwrap.fill(escape_control(note), TEXT_WIDTH, initial_indent="  ", subsequent_indent="    ") for note in notes]
    return "\n".join(parts)


def table_lines(table: TextTable) -> list[str]:
    """The title and the rows; columns that do not fit go into a second block below."""
    names = [escape_control(name) for name in table.names]
    rows = [[escape_control(cell) for cell in row] for row in table.rows]
    if table.labels and names:
        rows = _cut_labels(table.labels, names, rows)
    title = [escape_control(table.title)] if table.title else []
    widths = [max(len(names[j]), *(len(row[j]) for row in rows)) if rows else len(names[j]) for j in range(len(names))]
    lines: list[str] = []
    for block in _blocks(widths, table.labels):
        # a triangle of correlations has rows without a number in a later block
        shown = [row for row in rows if not lines or any(row[j] for j in block if j >= table.labels)]
        lines += [_line(names, widths, block, table.labels), *(_line(row, widths, block, table.labels) for row in shown)]
    return title + lines


def _cut_labels(labels: int, names: list[str], rows: list[list[str]]) -> list[list[str]]:
    """Names of rows cut in the middle where the table is wider than the terminal."""
    others = sum(max(len(names[j]), *(len(row[j]) for row in rows)) + 2 for j in range(labels, len(names))) if rows else 0
    # two spaces stand before a line, and two after each name
    room = max(NAME_WIDTH, (TEXT_WIDTH - others - 2 - 2 * labels) // labels)
    shown = [_cut_apart({row[j] for row in rows}, room) for j in range(labels)]
    return [[shown[j][cell] if j < labels else cell for j, cell in enumerate(row)] for row in rows]


def _cut_apart(texts: set[str], width: int) -> dict[str, str]:
    """Names cut to a width so that no two look alike: where their ends agree, what tells them apart is shown; else they stay whole."""
    shown = {text: _middle(text, width) for text in texts}
    for whole in (False, True):
        alike: dict[str, list[str]] = {}
        for text, short in shown.items():
            alike.setdefault(short, []).append(text)
        for group in alike.values():
            if len(group) > 1:
                ends = zip(min(group), max(group), strict=False)  # the first and the last in order differ where any two do
                start = next((k for k, (a, b) in enumerate(ends) if a != b), len(min(group)))
                shown |= {text: text if whole or len(text) <= width else _from_difference(text, start, width) for text in group}
    return shown


def _from_difference(text: str, start: int, width: int) -> str:
    """The beginning of a text, and what stands around a place in it."""
    head = width // 4
    room = width - head - 2
    first = max(head + 1, min(start - 3, len(text) - room - 1))
    return f"{text[:head]}…{text[first : first + room]}" + ("…" if first + room < len(text) else "")


def _middle(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def _blocks(widths: list[int], labels: int) -> list[list[int]]:
    """Columns of each block; every block repeats the names."""
    lead = list(range(labels))
    start = 2 + sum(widths[j] + 2 for j in lead)
    blocks, current, used = [], list(lead), start
    for j in range(labels, len(widths)):
        if used + widths[j] + 2 > TEXT_WIDTH and len(current) > labels:
            blocks.append(current)
            current, used = list(lead), start
        current.append(j)
        used += widths[j] + 2
    return [*blocks, current]


def _line(cells: Sequence[str], widths: list[int], block: list[int], labels: int) -> str:
    shown = [f"{cells[j]:<{widths[j]}}" if j < labels else f"{cells[j]:>{widths[j]}}" for j in block]
    return ("  " + "  ".join(shown)).rstrip()


_STYLE = (
    ".bayeslmm{font-family:system-ui,sans-serif;font-size:.9em;line-height:1.35}"
    ".bayeslmm h4{margin:.9em 0 .2em;font-size:1em}"
    ".bayeslmm table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:0}"
    ".bayeslmm th,.bayeslmm td{padding:.12em .7em;text-align:right;border:0;background:none}"
    ".bayeslmm th{border-bottom:1px solid currentColor;font-weight:600}"
    ".bayeslmm .name{text-align:left}"
    ".bayeslmm dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em .8em;margin:.3em 0}"
    ".bayeslmm dt{font-weight:600}.bayeslmm dd{margin:0}"
)


def html_of(title: str, facts: Sequence[tuple[str, str]], tables: Sequence[TextTable], notes: Sequence[str]) -> str:
    """The whole summary as one element."""
    entries = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in facts)
    shown = "".join(_table(table) for table in tables)
    listed = "<h4>Checks</h4><ul>" + "".join(f"<li>{_safe(note)}</li>" for note in notes) + "</ul>" if notes else ""
    return f'<div class="bayeslmm"><style>{_STYLE}</style><h4>{_safe(title)}</h4><dl>{entries}</dl>{shown}{listed}</div>'


def html_of_frame(title: str, frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A frame under a title, numbers with four digits, missing values left empty."""
    names = tuple(map(str, frame.columns))
    rows = tuple(tuple(_cell_text(value) for value in row) for row in frame.itertuples(index=False))
    return html_of(title, (), (TextTable("", names, rows),), notes)


def _cell_text(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4g}"
    return "" if value is None or value is pd.NA else str(value)


def _table(table: TextTable) -> str:
    title = f"<h4>{_safe(table.title)}</h4>" if table.title else ""
    head = "".join(_cell("th", name, j < table.labels) for j, name in enumerate(table.names))
    body = "".join("<tr>" + "".join(_cell("td", cell, j < table.labels) for j, cell in enumerate(row)) + "</tr>" for row in table.rows)
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, text: str, name: bool) -> str:
    return f'<{tag} class="name">{_safe(text)}</{tag}>' if name else f"<{tag}>{_safe(text)}</{tag}>"


def _safe(text: str) -> str:
    return escape(escape_control(text))


VERDICT_COLOURS = {"failed": "red", "noted": "yellow"}


def renderable(title: str, facts: Sequence[tuple[str, str]], tables: Sequence[TextTable], notes: Sequence[str]) -> Group:
    """Title, facts, tables, checks; texts are never read as markup."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Text | RichTable] = [Text(escape_control(title), style="bold")]
    parts += [Text.assemble((f"{name}: ", "dim"), escape_control(value)) for name, value in facts]
    parts += [_rich_table(table) for table in tables]
    parts += [Text(escape_control(note), style=VERDICT_COLOURS.get(note.partition(":")[0], "")) for note in notes]
    return Group(*parts)


def _rich_table(table: TextTable) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    out = RichTable(
        title=Text(escape_control(table.title), style="bold") if table.title else None, title_justify="left", box=box.SIMPLE_HEAD
    )
    for j, name in enumerate(table.names):
        out.add_column(Text(escape_control(name)), justify="left" if j < table.labels else "right", no_wrap=j >= table.labels)
    for row in table.rows:
        out.add_row(*(Text(escape_control(cell)) for cell in row))
    return out


def bar_shown(shown: bool | None) -> bool:
    """Whether there is a bar: where there is a terminal, unless told otherwise."""
    if sys.stderr is None or sys.stderr.closed:
        return False  # a windowed program has no terminal
    return sys.stderr.isatty() if shown is None else require_flag(shown, "progress")


@contextmanager
def progress_bar(name: str, total: int, shown: bool | None) -> Iterator[Callable[[int], None]]:
    """A function that is told how many more are done; shows a bar where there is a terminal, unless told otherwise."""
    if not bar_shown(shown):
        yield lambda _: None
        return
    console = import_module("rich.console").Console(stderr=True)
    with import_module("rich.progress").Progress(console=console, transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda more: bar.advance(task, more)


class NotedFrame(pd.DataFrame):
    """A pandas frame with `notes`; parts of it keep them."""

    _metadata: ClassVar[list[str]] = ["notes"]
    notes: tuple[str, ...] = ()

    @property
    def _constructor(self) -> type[NotedFrame]:
        return NotedFrame

    @property
    def _shows_index(self) -> bool:
        """Numbers of rows say nothing; an index that somebody set does."""
        return self.index.nlevels > 1 or self.index.name is not None or not pd.api.types.is_integer_dtype(self.index)

    def __repr__(self) -> str:
        lines = [*self.to_string(index=self._shows_index).split("\n"), *self.notes]
        return "\n".join(map(escape_control, lines))

    def _repr_html_(self) -> str:
        return printable_text(self.to_html(index=self._shows_index)) + "".join(
            f"<p>{escape(escape_control(note))}</p>" for note in self.notes
        )


def add_notes(frame: pd.DataFrame | dict[str, Any], notes: Sequence[str]) -> NotedFrame:
    """The frame, or one of these columns, with these notes."""
    out = NotedFrame(frame)
    out.notes = tuple(notes)
    return out
