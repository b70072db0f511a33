"""`update`: a formula in which a dot stands for what was there, as in R."""

from __future__ import annotations

import re

from bayeslmm.errors import FormulaError
from bayeslmm.formula.parse import bar_text, parse_formula
from bayeslmm.formula.syntax import BarTerm, Formula

_DOT = re.compile(r"(?<![\w.`])\.(?![\w.`(])")
_QUOTES = "`'\""


def update_formula(old: Formula, change: str) -> str:
    """The text of a new formula.

    change : `". ~ . + x - z"`, `"~ . - (x | g)"`, `"log(.) ~ ."`; random terms and offsets are taken away by writing them
    Raises FormulaError for a random term or an offset that is not there to be taken away.

    >>> update_formula(parse_formula("y ~ x + (x | g)"), ". ~ . + z - (x | g) + (1 | g)")
    'y ~ 1 + x + z + (1 | g)'
    """
    if not isinstance(change, str):
        raise FormulaError(f"the change is a {type(change).__name__}", "update", 'give text, such as ". ~ . + x"')
    left, right = _sides(change)
    response = _DOT.sub(lambda _: old.response, left) or old.response
    fixed: list[str] = []
    bars: list[BarTerm] = []
    offsets: list[str] = []
    for sign, piece in _summands(right):
        if piece == ".":
            _require(sign == "+", "a dot cannot be taken away", change)
            fixed.append(("+ " if fixed else "") + old.fixed)
            bars += [term for term in old.random if term not in bars]
            offsets += old.offsets
        elif _has_bar(piece):
            bars = _change_bars(bars, sign, parse_formula(f"{old.response} ~ {piece}").random)
        elif piece.startswith("offset(") and piece.endswith(")"):
            offsets = _drop_offsets(offsets, piece[7:-1], change) if sign == "-" else [*offsets, piece[7:-1]]
        else:
            fixed.append(f"{sign} {piece}" if fixed or sign == "-" else piece)
    parts = [" ".join(fixed) or "1", *(f"offset({text})" for text in offsets), *map(bar_text, bars)]
    return f"{response} ~ {' + '.join(parts)}"


def without_structure(change: str) -> tuple[str, str | None]:
    """A change without the covariance structure that mmrm's formula has in it, and that structure.

    >>> without_structure(". ~ . + x + ar1(visit | id)")
    ('. ~ . + x', 'ar1(visit | id)')
    """
    left, right = _sides(change)
    pieces = _summands(right)
    found = [piece for sign, piece in pieces if sign == "+" and _has_bar(piece) and re.match(r"\w+\s*\(", piece)]
    if len(found) != 1:
        return change, None
    kept = " ".join(f"{sign} {piece}" for sign, piece in pieces if piece != found[0]).removeprefix("+ ")
    return f"{left or '.'} ~ {kept or '1'}", found[0]


def _change_bars(bars: list[BarTerm], sign: str, changes: tuple[BarTerm, ...]) -> list[BarTerm]:
    if sign == "+":
        return [*bars, *(term for term in changes if term not in bars)]
    for term in changes:
        there = ", ".join(map(bar_text, bars)) or "none"
        _require(term in bars, f"the model has no term {bar_text(term)}", f"random terms: {there}")
    return [term for term in bars if term not in changes]


def _drop_offsets(offsets: list[str], text: str, change: str) -> list[str]:
    plain = [re.sub(r"\s", "", known) for known in offsets]
    _require(re.sub(r"\s", "", text) in plain, f"the model has no offset({text})", change)
    at = plain.index(re.sub(r"\s", "", text))
    return offsets[:at] + offsets[at + 1 :]


def _require(fine: bool, what: str, where: str) -> None:
    if not fine:
        raise FormulaError(what, where, 'write a change such as ". ~ . + x"')


def _sides(change: str) -> tuple[str, str]:
    parts = _split_at(change, "~")
    _require(len(parts) <= 2, "the change has more than one ~", change)
    left, right = parts if len(parts) == 2 else ["", parts[0]]
    _require(bool(right.strip()), "the right side is empty", change)
    return left.strip(), right


def _summands(text: str) -> list[tuple[str, str]]:
    """Signed pieces between the plus and minus signs outside brackets."""
    found, sign = [], "+"
    for piece, following in _cut_signs(text):
        if piece.strip():
            found.append((sign, piece.strip()))
        sign = following
    return found


def _split_at(text: str, mark: str) -> list[str]:
    parts, last = [], 0
    for i, depth in _outside(text):
        if text[i] == mark and depth == 0:
            parts.append(text[last:i])
            last = i + 1
    return [*parts, text[last:]]


def _cut_signs(text: str) -> list[tuple[str, str]]:
    parts, last = [], 0
    for i, depth in _outside(text):
        if text[i] in "+-" and depth == 0:
            parts.append((text[last:i], text[i]))
            last = i + 1
    return [*parts, (text[last:], "")]


def _has_bar(piece: str) -> bool:
    return any(piece[i] == "|" for i, _ in _outside(piece))


def _outside(text: str) -> list[tuple[int, int]]:
    """Positions outside quotations, with their depth in brackets."""
    found, depth, quote = [], 0, ""
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
            continue
        if character in _QUOTES:
            quote = character
            continue
        depth -= character in ")]"
        found.append((i, depth))
        depth += character in "(["
    return found
