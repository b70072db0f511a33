"""Numbers, strings and lists: what an expression may hold beside columns."""

from __future__ import annotations

import math

from bayeslmm.errors import FormulaLimitError
from bayeslmm.formula.cursor import Cursor
from bayeslmm.formula.functions import LITERALS, MAX_COLUMNS, Option
from bayeslmm.formula.tokens import Token, shown
from bayeslmm.formula.tree import Listing, Node, Unary, Value

Constant = Value | Unary | Listing


def read_number(cursor: Cursor) -> Value:
    """A number, printed as Python prints it."""
    token = cursor.next()
    whole = token.text.isdecimal()
    value = int(token.text) if whole else float(token.text)
    if not math.isfinite(value) or abs(value) >= 1e300:
        raise cursor.error(token, f"the number {token.text} is too large", "scale the column beforehand")
    return Value(repr(value), "number", token.start, token.end)


def read_string(cursor: Cursor) -> Value:
    """A string."""
    token = cursor.next()
    return Value(repr(token.text), "string", token.start, token.end)


def read_constant(cursor: Cursor) -> Constant:
    """A number, a string, True, False, None (also as R writes them), or a list of these."""
    token = cursor.token
    if token.kind == "number":
        return read_number(cursor)
    if token.kind == "string":
        return read_string(cursor)
    if token.kind == "name" and token.text in LITERALS:
        cursor.next()
        return Value(LITERALS[token.text], "literal", token.start, token.end)
    if token.says("-") and cursor.ahead().kind == "number":
        cursor.next()
        number = read_number(cursor)
        return Unary("-", number, token.start, number.end)
    if token.says("["):
        return read_list(cursor)
    raise cursor.error(token, "an option is a number, a string, True, False, None or a list of these", "give a constant")


def read_list(cursor: Cursor) -> Listing:
    """A flat list of constants."""
    opening = cursor.expect("[", "a list is missing", 'write it as ["a", "b"]')
    items: list[Node] = []
    while not cursor.token.says("]"):
        if cursor.token.says("["):
            raise cursor.error(cursor.token, "a list in a list", "give a flat list")
        items.append(read_constant(cursor))
        if cursor.take(",") is None:
            break
    end = cursor.expect("]", f"{shown(cursor.token)} is out of place in a list", "separate the items by commas").end
    return Listing(tuple(items), opening.start, end)


def read_option(cursor: Cursor, option: str, kind: Option | None) -> Constant:
    """The value of an option of a known function; kind None (a user's function) takes any constant."""
    start = cursor.token
    value = read_constant(cursor)
    absent = isinstance(value, Value) and value.text == "None"
    if kind is None or absent:
        return value
    if _kind(value) != {"count": "number", "word": "string"}.get(kind, kind):
        raise cursor.error(start, f"{option} is not a {kind}", f"give a {kind}")
    if kind == "count":
        _demand_count(cursor, start, option, value)
    return value


def _kind(value: Constant) -> str:
    if isinstance(value, Listing):
        return (
            "numbers"
            if all(isinstance(item, Unary) or (isinstance(item, Value) and item.kind == "number") for item in value.items)
            else "list"
        )
    if isinstance(value, Unary):
        return "number"
    return "flag" if value.kind == "literal" else value.kind


def _demand_count(cursor: Cursor, start: Token, option: str, value: Constant) -> None:
    if not isinstance(value, Value) or not value.text.isdecimal() or int(value.text) < 1:
        raise cursor.error(start, f"{option} is not a whole number above 0", f"give for instance {option}=3")
    if int(value.text) > MAX_COLUMNS:
        raise cursor.error(start, f"{option} is {int(value.text):,}", f"the limit is {MAX_COLUMNS:,}", FormulaLimitError)
