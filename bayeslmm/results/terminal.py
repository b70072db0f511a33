"""A summary as rich draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from bayeslmm.results.layout import Table
from bayeslmm.results.text import visible

if TYPE_CHECKING:
    from bayeslmm.results.summary import Summary

COLOURS = {"failed": "red", "noted": "yellow"}


def renderable(summary: Summary) -> Group:
    """Title, facts, tables, checks; texts are never read as markup."""
    parts: list[Text | RichTable] = [Text(visible(summary.title), style="bold")]
    parts += [Text.assemble((f"{name}: ", "dim"), visible(value)) for name, value in summary.facts]
    parts += [_table(table) for table in summary.tables]
    parts += [Text(visible(note), style=COLOURS.get(note.partition(":")[0], "")) for note in summary.notes]
    return Group(*parts)


def _table(table: Table) -> RichTable:
    out = RichTable(title=Text(visible(table.title), style="bold") if table.title else None, title_justify="left", box=box.SIMPLE_HEAD)
    for j, name in enumerate(table.names):
        out.add_column(Text(visible(name)), justify="left" if j < table.labels else "right", no_wrap=j >= table.labels)
    for row in table.rows:
        out.add_row(*(Text(visible(cell)) for cell in row))
    return out
