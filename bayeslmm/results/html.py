"""Tables as HTML for notebooks; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from bayeslmm.results.layout import Table
from bayeslmm.results.text import visible

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


def html_of(title: str, facts: Sequence[tuple[str, str]], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The whole summary as one element."""
    told = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in facts)
    shown = "".join(_table(table) for table in tables)
    listed = "<h4>Checks</h4><ul>" + "".join(f"<li>{_safe(note)}</li>" for note in notes) + "</ul>" if notes else ""
    return f'<div class="bayeslmm"><style>{_STYLE}</style><h4>{_safe(title)}</h4><dl>{told}</dl>{shown}{listed}</div>'


def html_of_frame(title: str, frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A frame under a title, numbers with four digits, missing values left empty."""
    names = tuple(map(str, frame.columns))
    rows = tuple(tuple(_cell_text(value) for value in row) for row in frame.itertuples(index=False))
    return html_of(title, (), (Table("", names, rows),), notes)


def _cell_text(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4g}"
    return "" if value is None or value is pd.NA else str(value)


def _table(table: Table) -> str:
    title = f"<h4>{_safe(table.title)}</h4>" if table.title else ""
    head = "".join(_cell("th", name, j < table.labels) for j, name in enumerate(table.names))
    body = "".join("<tr>" + "".join(_cell("td", cell, j < table.labels) for j, cell in enumerate(row)) + "</tr>" for row in table.rows)
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, text: str, name: bool) -> str:
    return f'<{tag} class="name">{_safe(text)}</{tag}>' if name else f"<{tag}>{_safe(text)}</{tag}>"


def _safe(text: str) -> str:
    return escape(visible(text))
