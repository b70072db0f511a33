"""Tables as plain text that fits a terminal of eighty columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from bayeslmm.results.layout import Table

WIDTH = 80
NAME = 28
"""Longest name of a row that is shown whole when the table would otherwise be too wide."""


def visible(text: str) -> str:
    """The text with control characters, which a terminal would obey, shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def text_of(title: str, facts: Sequence[tuple[str, str]], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The whole summary."""
    parts = [visible(title)]
    width = max((len(name) for name, _ in facts), default=0) + 1
    for name, value in facts:
        parts.append(textwrap.fill(visible(value), WIDTH, initial_indent=f"{name + ':':<{width}} ", subsequent_indent=" " * (width + 1)))
    for table in tables:
        parts += ["", *table_lines(table)]
    if notes:
        parts += ["", "Checks"]
        parts += [textwrap.fill(visible(note), WIDTH, initial_indent="  ", subsequent_indent="    ") for note in notes]
    return "\n".join(parts)


def table_lines(table: Table) -> list[str]:
    """The title and the rows; columns that do not fit go into a second block below."""
    names = [visible(name) for name in table.names]
    rows = [[visible(cell) for cell in row] for row in table.rows]
    if table.labels and names:
        rows = _cut_labels(table.labels, names, rows)
    title = [visible(table.title)] if table.title else []
    widths = [max(len(names[j]), *(len(row[j]) for row in rows)) if rows else len(names[j]) for j in range(len(names))]
    lines: list[str] = []
    for block in _blocks(widths, table.labels):
        lines += [_line(names, widths, block, table.labels), *(_line(row, widths, block, table.labels) for row in rows)]
    return title + lines


def _cut_labels(labels: int, names: list[str], rows: list[list[str]]) -> list[list[str]]:
    """Names of rows cut in the middle where the table is wider than the terminal."""
    others = sum(max(len(names[j]), *(len(row[j]) for row in rows)) + 2 for j in range(labels, len(names))) if rows else 0
    room = max(NAME, (WIDTH - others - 2) // labels)
    return [[_middle(cell, room) if j < labels else cell for j, cell in enumerate(row)] for row in rows]


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
        if used + widths[j] + 2 > WIDTH and len(current) > labels:
            blocks.append(current)
            current, used = list(lead), start
        current.append(j)
        used += widths[j] + 2
    return [*blocks, current]


def _line(cells: Sequence[str], widths: list[int], block: list[int], labels: int) -> str:
    shown = [f"{cells[j]:<{widths[j]}}" if j < labels else f"{cells[j]:>{widths[j]}}" for j in block]
    return ("  " + "  ".join(shown)).rstrip()
