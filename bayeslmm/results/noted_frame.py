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

    @property
    def _shows_index(self) -> bool:
        """Numbers of rows say nothing; an index that somebody set does."""
        return self.index.nlevels > 1 or self.index.name is not None or not pd.api.types.is_integer_dtype(self.index)

    def __repr__(self) -> str:
        lines = [*self.to_string(index=self._shows_index).split("\n"), *self.notes]
        return "\n".join(map(escape_control, lines))

    def _repr_html_(self) -> str:
        return self.to_html(index=self._shows_index) + "".join(f"<p>{escape(escape_control(note))}</p>" for note in self.notes)


def noted(frame: pd.DataFrame, notes: Sequence[str]) -> NotedFrame:
    """The frame with these notes."""
    out = NotedFrame(frame)
    out.notes = tuple(notes)
    return out
