"""WHERE conditions: read as a tree, evaluated on columns with SAS's rules.

A missing number is smaller than every number, a missing text is blank, blanks at the end do not count, the case of values does.
Comparisons (`= ^= ~= <> < <= > >=` and EQ NE LT LE GT GE), IN, BETWEEN, IS MISSING, IS NULL, CONTAINS, LIKE, AND, OR, NOT. Functions
and arithmetic are refused by name.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Mask
from bayeslmm.errors import DataError, FormulaLimitError
from bayeslmm.sas.language.tokens import SASCursor

ConditionColumns = Mapping[str, NDArray[Any]]

MAX_CONDITION_DEPTH = 64


@dataclass(frozen=True, slots=True)
class ColumnReference:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class ConstantValue:
    """A number, a text, or the missing value (None)."""

    value: float | str | None


Operand = ColumnReference | ConstantValue


@dataclass(frozen=True, slots=True)
class WhereComparison:
    """left op right; op is one of = ^= < <= > >= contains like."""

    op: str
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class InList:
    """left IN (values)."""

    left: Operand
    values: tuple[float | str | None, ...]


@dataclass(frozen=True, slots=True)
class BooleanCondition:
    """Conditions joined by "and" or "or"."""

    op: str
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """NOT condition."""

    part: Condition


Condition = WhereComparison | InList | BooleanCondition | Negation

_WORDS = {"eq": "=", "ne": "^=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_SYMBOLS = {"=": "=", "^=": "^=", "~=": "^=", "<>": "^=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "?": "contains"}
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "^=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def parse_condition(cursor: SASCursor, depth: int = 0) -> Condition:
    """Read a condition: OR of ANDs of NOTs of comparisons."""
    if depth > MAX_CONDITION_DEPTH:
        what = f"the condition is nested more than {MAX_CONDITION_DEPTH} deep"
        raise FormulaLimitError(what, cursor.here(), "simplify the condition")
    parts = [_conjunction(cursor, depth)]
    while cursor.sees_word("or") or cursor.sees("|"):
        cursor.take()
        parts.append(_conjunction(cursor, depth))
    return parts[0] if len(parts) == 1 else BooleanCondition("or", tuple(parts))


def _conjunction(cursor: SASCursor, depth: int) -> Condition:
    parts = [_negation(cursor, depth)]
    while cursor.sees_word("and") or cursor.sees("&"):
        cursor.take()
        parts.append(_negation(cursor, depth))
    return parts[0] if len(parts) == 1 else BooleanCondition("and", tuple(parts))


def _negation(cursor: SASCursor, depth: int) -> Condition:
    negative = False
    while cursor.sees_word("not") or cursor.sees("^") or cursor.sees("~"):
        cursor.take()
        negative = not negative
    part = cursor.bracketed(lambda: parse_condition(cursor, depth + 1)) if cursor.sees("(") else _comparison(cursor)
    return Negation(part) if negative else part


def _comparison(cursor: SASCursor) -> Condition:
    left = _operand(cursor)
    negative = False
    if cursor.sees_word("not"):
        cursor.take()
        negative = True
    found = _predicate(cursor, left)
    return Negation(found) if negative else found


def _predicate(cursor: SASCursor, left: Operand) -> Condition:
    token = cursor.take()
    word = token.lower
    if word == "in":
        return InList(left, cursor.bracketed(lambda: _values(cursor)))
    if word == "is":
        return _is_missing(cursor, left)
    if word == "between":
        low = _operand(cursor)
        if not cursor.sees_word("and"):
            cursor.fail("BETWEEN needs AND: x between 1 and 3")
        cursor.take()
        return BooleanCondition("and", (WhereComparison(">=", left, low), WhereComparison("<=", left, _operand(cursor))))
    op = word if word in {"contains", "like"} else _WORDS.get(word) or _SYMBOLS.get(token.text)
    if op is None:
        _check_operator(cursor, token.text)
    right = _operand(cursor)
    first = WhereComparison(op, left, right)
    if cursor.token.text in _SYMBOLS or cursor.token.lower in _WORDS:  # 8 <= age <= 12
        return BooleanCondition("and", (first, _predicate(cursor, right)))
    return first


def _check_operator(cursor: SASCursor, text: str) -> NoReturn:
    if text in {"+", "-", "*", "/", "**", "||"}:
        cursor.not_supported_at(cursor.token, f"arithmetic (`{text}`) in a WHERE condition is not read", "make a column of it first")
    cursor.fail(f"`{text}` is not a comparison", "compare with = ^= < <= > >=, IN, BETWEEN, IS MISSING, CONTAINS or LIKE")


def _is_missing(cursor: SASCursor, left: Operand) -> Condition:
    negative = cursor.sees_word("not")
    if negative:
        cursor.take()
    if not cursor.sees_word("missing", "null"):
        cursor.fail("IS is followed by MISSING or NULL")
    cursor.take()
    found = WhereComparison("=", left, ConstantValue(None))
    return Negation(found) if negative else found


def _operand(cursor: SASCursor) -> Operand:
    if cursor.token.kind == "name":
        start = cursor.token
        name = cursor.name()
        if cursor.sees("("):
            cursor.not_supported_at(start, f"the function {start.text}() in a WHERE condition is not read", "make a column of it first")
        return ColumnReference(name)
    return ConstantValue(_value(cursor))


def _value(cursor: SASCursor) -> float | str | None:
    if cursor.token.kind == "string":
        return cursor.take().text.rstrip() or None
    if cursor.accept("."):
        return None
    return cursor.number()


def _values(cursor: SASCursor) -> tuple[float | str | None, ...]:
    values = [_value(cursor)]
    while not cursor.sees(")"):
        cursor.accept(",")
        values.append(_value(cursor))
    return tuple(values)


def columns_in(condition: Condition) -> tuple[str, ...]:
    """The variables that a condition reads, each once."""
    match condition:
        case WhereComparison(_, left, right):
            found = [o.name for o in (left, right) if isinstance(o, ColumnReference)]
        case InList(left, _):
            found = [left.name] if isinstance(left, ColumnReference) else []
        case Negation(part):
            found = list(columns_in(part))
        case BooleanCondition(_, parts):
            found = [name for part in parts for name in columns_in(part)]
    return tuple(dict.fromkeys(found))


def rows_where(condition: Condition, columns: ConditionColumns) -> Mask:
    """Which rows satisfy a condition.

    columns : the variables by name, (n,) each, numbers or texts
    Raises DataError when a text is compared with a number.
    """
    match condition:
        case Negation(part):
            return ~rows_where(part, columns)
        case BooleanCondition(op, parts):
            return _join_conditions(op, [rows_where(part, columns) for part in parts])
        case InList(left, values):
            return _join_conditions("or", [_compare("=", left, ConstantValue(value), columns) for value in values])
        case WhereComparison(op, left, right):
            return _compare(op, left, right, columns)


def _join_conditions(op: str, masks: Sequence[Mask]) -> Mask:
    return np.asarray(np.all(masks, axis=0) if op == "and" else np.any(masks, axis=0), dtype=np.bool_)


def _compare(op: str, left: Operand, right: Operand, columns: ConditionColumns) -> Mask:
    a, b = _evaluate(left, columns), _evaluate(right, columns)
    text = next((_is_text(side) for side in (a, b) if side is not None), False)
    n = next((len(c) for c in columns.values()), 0)
    if any(side is not None and _is_text(side) != text for side in (a, b)):
        raise DataError(
            f"WHERE compares the {_kind(a)} {_name(left)} with the {_kind(b)} {_name(right)}",
            remedy="quote the values of text columns, and only those",
        )
    a, b = (np.broadcast_to(_comparable(side, text), n) for side in (a, b))
    if op in _COMPARE:
        return np.asarray(_COMPARE[op](a, b), dtype=np.bool_)
    if not text:
        raise DataError(f"{op.upper()} in a WHERE condition needs a text column", remedy="compare numbers with = < > or BETWEEN")
    test = _contains if op == "contains" else _like
    return np.fromiter((test(x, y) for x, y in zip(a, b, strict=True)), dtype=np.bool_, count=n)


def _evaluate(operand: Operand, columns: ConditionColumns) -> Any:
    return columns[operand.name] if isinstance(operand, ColumnReference) else operand.value


def _is_text(side: Any) -> bool:
    if isinstance(side, np.ndarray):
        return side.dtype.kind in "UST" or (side.dtype.kind == "O" and any(isinstance(v, str) for v in side))
    return isinstance(side, str)


def _comparable(side: Any, text: bool) -> Any:
    """Numbers with missing as -inf, or texts without blanks at the end and missing as ""."""
    if not text:
        values = np.asarray([np.nan if v is None else v for v in np.atleast_1d(np.asarray(side, dtype=object))], dtype=np.float64)
        return np.where(np.isnan(values), -np.inf, values)
    values = np.atleast_1d(np.asarray(side, dtype=object))
    plain = np.empty(len(values), dtype=object)
    plain[:] = ["" if v is None or v != v else str(v).rstrip() for v in values]
    return plain


def _contains(text: str, part: str) -> bool:
    return part in text


def _like(text: str, pattern: str) -> bool:
    parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _name(operand: Operand) -> str:
    return operand.name if isinstance(operand, ColumnReference) else repr(operand.value)


def _kind(side: Any) -> str:
    return "text" if _is_text(side) else "number"
