"""How docstrings are read for the reference: lines `name : meaning` become a list, examples become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

ARGUMENT = re.compile(r"^(?P<names>\w[\w, *]{0,40}?) : (?P<meaning>\S.*)$")


class House(griffe.Extension):
    """Rewrites each docstring as Markdown before it is rendered."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and obj.docstring.value:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring of this house as Markdown."""
    lines: list[str] = []
    example = listed = False
    for line in text.splitlines():
        if line.startswith(">>>") and not example:
            lines += ["", "```pycon"]
            example = True
        elif example and not line.strip():
            lines.append("```")
            example = False
        argument = None if example else ARGUMENT.match(line)
        if argument is not None:
            lines += [] if listed else [""]
            meaning = re.sub(r" ; (\w+) : ", r" ; **\1**: ", argument["meaning"])
            lines.append(f"- **{argument['names']}**: {meaning}")
            listed = True
            continue
        if listed and not line.startswith("    ") and not example:
            lines.append("")
            listed = False
        lines.append(line)
    return "\n".join([*lines, "```"] if example else lines)
