"""Errors that show the text with the spot marked."""

from __future__ import annotations

import unicodedata

from bayeslmm.errors import FormulaError

WINDOW = 100  # characters of a long formula shown around the spot


def spotted(text: str, start: int, end: int, what: str, remedy: str = "", kind: type[FormulaError] = FormulaError) -> FormulaError:
    """A FormulaError whose `where` is the text with characters start..end-1 underlined.

    >>> print(spotted("y ~ x + + z", 8, 9, "a term is missing before '+'").where)
    <BLANKLINE>
        y ~ x + + z
                ^
    """
    first = max(0, start - WINDOW // 2)
    last = min(len(text), first + WINDOW)
    before, after = ("... " if first else ""), (" ..." if last < len(text) else "")
    shown = "".join(map(visible, text[first:last]))
    marks = max(1, min(end, last) - start)
    return kind(what, f"\n    {before}{shown}{after}\n    {' ' * (len(before) + start - first)}{'^' * marks}", remedy)


def visible(character: str) -> str:
    """The character, or one stand-in of the same width for white space and what would not show or would steer a terminal."""
    if character.isspace():
        return " "
    return "�" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") else character


def named_character(character: str) -> str:
    """A character with its code point, for one that may be invisible or look like another."""
    name = unicodedata.name(character, "a control character")
    shown = f"{character!r} " if visible(character) == character else ""
    return f"{shown}(U+{ord(character):04X} {name})"
