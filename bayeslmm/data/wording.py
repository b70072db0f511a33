"""How rows, names and levels are spelled in an error: a few of them, and how many there are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Letters of other alphabets that print like Latin ones: what a formula typed on another keyboard contains.
_LOOK_ALIKE = str.maketrans(
    "авеіјкмнорсѕтухԁԛԝһАВЕІЈКМНОРСЅТУХҮΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ",
    "abeijkmhopcstyxdqwhABEIJKMHOPCSTYXYABEZHIKMNOPTYXovp",
)


def rows_text(rows: NDArray[Any] | Sequence[int], limit: int = 6) -> str:
    """`rows 3, 17 and 40`, or the first few and the number of them; positions count from 0."""
    total = len(rows)
    if total == 1:
        return f"row {int(rows[0])}"
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    return f"rows {shown}" if total <= limit else f"rows {shown}, ... ({total} in all)"


def values_text(values: Iterable[Any], limit: int = 6) -> str:
    """A few values as Python spells them."""
    items = list(values)
    shown = ", ".join(repr(_plain(item)) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown}, ... ({len(items)} in all)"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def skeleton(name: str) -> str:
    """What a name looks like: one normal form, no invisible characters, look-alike letters made Latin."""
    folded = unicodedata.normalize("NFKC", name)
    visible = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    return visible.translate(_LOOK_ALIKE)


def strange_characters(name: str) -> str:
    """The characters of a name that are not plain ASCII, by code and by name."""
    found = dict.fromkeys(letter for letter in name if not " " <= letter <= "~")
    return ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter, 'unnamed')}" for letter in found)


def nearest_names(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Up to three names that the writer may have meant, look-alikes first, then other case, then near spelling."""
    twins = [other for other in names if other != name and skeleton(other) == skeleton(name)]
    cased = [other for other in names if other.casefold() == name.casefold()]
    near = get_close_matches(name, names, 3, 0.6)
    return tuple(dict.fromkeys([*twins, *cased, *near]))[:3]


def absent_name(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Where and remedy of an error about a column that is not there."""
    near = nearest_names(name, names)
    twin = next((other for other in near if skeleton(other) == skeleton(name)), None)
    if twin is not None:
        odd = strange_characters(name + twin)
        return (
            f"column {twin!r} looks the same but is spelled with other characters ({odd})",
            f"rename the column, or copy its name: {twin!r}",
        )
    listed = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    remedy = "did you mean " + " or ".join(map(repr, near)) + "?" if near else "add the column to the data, or correct the formula"
    return f"columns of the data: {listed or 'none'}", remedy
