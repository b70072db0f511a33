"""A frame that carries notes, what its numbers are, and prints them below."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import ClassVar

import pandas as pd

from bayeslmm.errors import escape_control


class NotedFrame(pd.DataFrame):
    """A pandas frame with `notes`; parts of it keep them."""

    _metadata: ClassVar[list[str]] = ["notes"]
    notes: tuple[str, ...] = ()

    @property
    def _constructor(self) -> type[NotedFrame]:
        return NotedFrame

    def __repr__(self) -> str:
        lines = [*self.to_string(index=False).split("\n"), *self.notes]
        return "\n".join(map(escape_control, lines))

    def _repr_html_(self) -> str:
        return self.to_html(index=False) + "".join(f"<p>{escape(escape_control(note))}</p>" for note in self.notes)


def noted(frame: pd.DataFrame, notes: Sequence[str]) -> NotedFrame:
    """The frame with these notes."""
    out = NotedFrame(frame)
    out.notes = tuple(notes)
    return out
