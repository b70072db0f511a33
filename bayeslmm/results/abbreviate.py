"""Names of coefficients short enough to head a column of correlations, as lme4 shortens them, and never two alike."""

from __future__ import annotations

import re
from collections.abc import Sequence

WIDTH = 6
"""Characters of a short name: what a correlation and its neighbour need anyway."""

_LEVEL = re.compile(r"^(?P<factor>.+?)\[(?:[A-Z]\.)?(?P<level>.*)\]$")
_DIGITS = re.compile(r"^(?P<head>.*?)(?P<digits>\d*)$")


def abbreviated(names: Sequence[str], width: int = WIDTH) -> list[str] | None:
    """Short names, one for each; None where two would be the same.

    >>> abbreviated(["Intercept", "Days", "ARMCD[T.TRT]", "ARMCD[T.TRT]:VISITN"])
    ['(Intr)', 'Days', 'ARMTRT', 'AT:VIS']
    """
    found = [_short_name(name, width) for name in names]
    return found if len(set(found)) == len(found) else None


def _short_name(name: str, width: int) -> str:
    if name == "Intercept":
        return "(Intr)"
    if len(name) <= width:
        return name
    parts = name.split(":")
    if len(parts) > (width + 1) // 2:
        return name[:width]
    left, out = width - (len(parts) - 1), list[str]()
    for i, part in enumerate(parts):
        room = left // (len(parts) - i)
        out.append(_short_part(part, room))
        left -= len(out[-1])
    return ":".join(out)


def _short_part(part: str, room: int) -> str:
    """A column, or a factor and its level: the level tells more, so it gets half the room or more."""
    found = _LEVEL.match(part)
    if found is None:
        return _squeezed(part, room)
    level = _squeezed(found["level"], min(len(found["level"]), (room + 1) // 2))
    return _squeezed(found["factor"], room - len(level)) + level


def _squeezed(text: str, room: int) -> str:
    """Small vowels go first, then small letters, both from the end; then what is too long, but for a number at the end."""
    for letters in ("aeiou", "abcdefghijklmnopqrstuvwxyz"):
        for i in range(len(text) - 1, 0, -1):
            if len(text) <= room:
                return text
            if text[i] in letters:
                text = text[:i] + text[i + 1 :]
    if len(text) <= room:
        return text
    found = _DIGITS.match(text)
    digits = found["digits"] if found else ""
    return text[: room - len(digits)] + digits if 0 < len(digits) < room else text[:room]
