"""WHERE conditions: read as a tree, evaluated on columns with SAS's rules.

A missing number is smaller than every number, a missing text is blank, blanks at the end do not count, the case of values does.
Comparisons (`= ^= ~= <> < <= > >=` and EQ NE LT LE GT GE, with a colon for the beginnings of texts), IN, BETWEEN, IS MISSING, IS NULL,
CONTAINS, LIKE, AND, OR, NOT; arithmetic, and the functions of `functions`. A number alone is true where it is neither 0 nor missing.
The dates of a column are numbers of days since 1 January 1960, its datetimes numbers of seconds, as in SAS.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Mask
from bayeslmm.errors import DataError, FormulaLimitError
from bayeslmm.sas.language.functions import OF_DATES, OF_SECONDS, SAS_FUNCTIONS, apply_function
from bayeslmm.sas.language.tokens import SASCursor, SASToken

ConditionColumns = Mapping[str, NDArray[Any]]

MAX_CONDITION_DEPTH = 64

MAX_RANGE = 10_000
"""Numbers that a range of IN may hold."""


class TimeNumber(float):
    """What the literal of a date, a time or a datetime stands for."""

    __slots__ = ("unit",)
    unit: str

    @classmethod
    def of(cls, token: SASToken) -> TimeNumber:
        """As it was read."""
        found = cls(token.text)
        found.unit = token.kind
        return found


@dataclass(frozen=True, slots=True)
class ColumnReference:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class ConstantValue:
    """A number, a text, or the missing value (None)."""

    value: float | str | None


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function, or arithmetic by its sign, of operands."""

    name: str
    arguments: tuple[Operand, ...]


Operand = ColumnReference | ConstantValue | FunctionCall


@dataclass(frozen=True, slots=True)
class WhereComparison:
    """left op right; op is one of = ^= < <= > >= contains like; `beginning`: texts are compared up to the width of the narrower side."""

    op: str
    left: Operand
    right: Operand
    beginning: bool = False


@dataclass(frozen=True, slots=True)
class InList:
    """left IN (values)."""

    left: Operand
    values: tuple[float | str | None, ...]
    beginning: bool = False


@dataclass(frozen=True, slots=True)
class IsTrue:
    """A number that stands for a condition: neither 0 nor missing."""

    operand: Operand


@dataclass(frozen=True, slots=True)
class BooleanCondition:
    """Conditions joined by "and" or "or"."""

    op: str
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """NOT condition."""

    part: Condition


Condition = WhereComparison | InList | IsTrue | BooleanCondition | Negation

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
        raise FormulaLimitError(what, cursor.place(), "simplify the condition")
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
    part = _read_bracket(cursor, depth) if cursor.sees("(") else _comparison(cursor, depth)
    return Negation(part) if negative else part


def _read_bracket(cursor: SASCursor, depth: int) -> Condition:
    """A condition in parentheses, or a comparison that begins with arithmetic in parentheses."""
    inner = cursor.in_brackets(lambda: parse_condition(cursor, depth + 1))
    return _comparison(cursor, depth, inner.operand) if isinstance(inner, IsTrue) else inner


def _comparison(cursor: SASCursor, depth: int, first: Operand | None = None) -> Condition:
    left = _sum(cursor, depth, first)
    negative = cursor.sees_word("not")
    if negative:
        cursor.take()
    elif cursor.at_end or cursor.sees(")") or cursor.sees("&") or cursor.sees("|") or cursor.sees_word("and", "or"):
        return IsTrue(left)
    found = _predicate(cursor, left, depth)
    return Negation(found) if negative else found


def _predicate(cursor: SASCursor, left: Operand, depth: int) -> Condition:
    token = cursor.take()
    word = token.lower
    if word == "in":
        beginning = cursor.accept(":")
        return InList(left, cursor.in_brackets(lambda: _values(cursor)), beginning)
    if word == "is":
        return _is_missing(cursor, left)
    if word == "between":
        low = _sum(cursor, depth)
        if not cursor.sees_word("and"):
            cursor.fail("BETWEEN needs AND: x between 1 and 3")
        cursor.take()
        return BooleanCondition("and", (WhereComparison(">=", left, low), WhereComparison("<=", left, _sum(cursor, depth))))
    op = word if word in {"contains", "like"} else _WORDS.get(word) or _SYMBOLS.get(token.text)
    if op is None:
        cursor.fail_at(
            token, f"`{token.text}` is not a comparison", "compare with = ^= < <= > >=, IN, BETWEEN, IS MISSING, CONTAINS or LIKE"
        )
    beginning = op in _COMPARE and cursor.accept(":")
    right = _sum(cursor, depth)
    first = WhereComparison(op, left, right, beginning)
    if cursor.token.text in _SYMBOLS or cursor.token.lower in _WORDS:  # 8 <= age <= 12
        return BooleanCondition("and", (first, _predicate(cursor, right, depth + 1)))
    return first


def _is_missing(cursor: SASCursor, left: Operand) -> Condition:
    negative = cursor.sees_word("not")
    if negative:
        cursor.take()
    if not cursor.sees_word("missing", "null"):
        cursor.fail("IS is followed by MISSING or NULL")
    cursor.take()
    found = WhereComparison("=", left, ConstantValue(None))
    return Negation(found) if negative else found


def _sum(cursor: SASCursor, depth: int, first: Operand | None = None) -> Operand:
    """Terms joined by + - ||; `first` has been read."""
    found = _product(cursor, depth, first)
    while sign := next((sign for sign in ("+", "-", "||") if cursor.accept(sign)), None):
        found = FunctionCall(sign, (found, _product(cursor, depth)))
    return found


def _product(cursor: SASCursor, depth: int, first: Operand | None = None) -> Operand:
    found = _power(cursor, depth, first)
    while sign := next((sign for sign in ("*", "/") if cursor.accept(sign)), None):
        found = FunctionCall(sign, (found, _power(cursor, depth)))
    return found


def _power(cursor: SASCursor, depth: int, first: Operand | None = None) -> Operand:
    """A sign goes before a whole power: -2**2 is -4; powers are read from the right."""
    if depth > MAX_CONDITION_DEPTH:
        what = f"the condition is nested more than {MAX_CONDITION_DEPTH} deep"
        raise FormulaLimitError(what, cursor.place(), "simplify the condition")
    if first is None and cursor.sees("-"):
        cursor.take()
        inner = _power(cursor, depth + 1)
        if isinstance(inner, ConstantValue) and isinstance(inner.value, float):
            return ConstantValue(-inner.value)
        return FunctionCall("-", (ConstantValue(0.0), inner))
    if first is None:
        cursor.accept("+")
        first = _operand(cursor, depth)
    return FunctionCall("**", (first, _power(cursor, depth + 1))) if cursor.accept("**") else first


def _operand(cursor: SASCursor, depth: int) -> Operand:
    if cursor.sees("("):
        return cursor.in_brackets(lambda: _sum(cursor, depth + 1))
    if cursor.token.kind == "name":
        start = cursor.token
        name = cursor.name()
        return _call(cursor, start, depth) if cursor.sees("(") else ColumnReference(name)
    return ConstantValue(_value(cursor))


def _call(cursor: SASCursor, start: SASToken, depth: int) -> FunctionCall:
    function = SAS_FUNCTIONS.get(start.lower)
    if function is None:
        near = get_close_matches(start.lower, SAS_FUNCTIONS, 3)
        remedy = f"did you mean {' or '.join(n.upper() for n in near)}?" if near else "make a column of it first"
        cursor.not_supported_at(start, f"the function {start.text.upper()}() in a WHERE condition is not read", remedy)

    def arguments() -> tuple[Operand, ...]:
        found = [_sum(cursor, depth + 1)]
        while cursor.accept(","):
            found.append(_sum(cursor, depth + 1))
        return tuple(found)

    operands = cursor.in_brackets(arguments)
    if function.kinds(len(operands)) is None:
        cursor.fail_at(start, f"{start.text.upper()}() does not take {len(operands)} arguments")
    return FunctionCall(start.lower, operands)


def _value(cursor: SASCursor) -> float | str | None:
    if cursor.token.kind == "string":
        return cursor.take().text.rstrip() or None
    if cursor.token.kind in ("date", "time", "datetime"):
        return TimeNumber.of(cursor.take())
    if cursor.accept("."):
        return None
    return cursor.number()


def _values(cursor: SASCursor) -> tuple[float | str | None, ...]:
    """Of IN: numbers, texts, and whole numbers from first to last written `1:3`."""
    values: list[float | str | None] = []
    while not cursor.sees(")") or not values:
        value = _value(cursor)
        if isinstance(value, float) and cursor.accept(":"):
            last = cursor.number()
            if last < value or last - value > MAX_RANGE:
                cursor.fail(f"a range goes from a number up to {MAX_RANGE} further")
            values += [value + i for i in range(int(last - value) + 1)]
        else:
            values.append(value)
        cursor.accept(",")
    return tuple(values)


def columns_in(condition: Condition) -> tuple[str, ...]:
    """The variables that a condition reads, each once."""
    match condition:
        case WhereComparison(_, left, right):
            found = [*_columns_of(left), *_columns_of(right)]
        case InList(left) | IsTrue(left):
            found = _columns_of(left)
        case Negation(part):
            found = list(columns_in(part))
        case BooleanCondition(_, parts):
            found = [name for part in parts for name in columns_in(part)]
    return tuple(dict.fromkeys(found))


def _columns_of(operand: Operand) -> list[str]:
    if isinstance(operand, FunctionCall):
        return [name for argument in operand.arguments for name in _columns_of(argument)]
    return [operand.name] if isinstance(operand, ColumnReference) else []


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
        case InList(left, values, beginning):
            return _join_conditions("or", [_compare("=", left, ConstantValue(value), columns, beginning) for value in values])
        case IsTrue(operand):
            values_ = np.broadcast_to(_as_kind(operand, columns, "n", "a condition"), _length(columns))
            return np.asarray(~np.isnan(values_) & (values_ != 0.0), dtype=np.bool_)
        case WhereComparison(op, left, right, beginning):
            return _compare(op, left, right, columns, beginning)


def _join_conditions(op: str, masks: Sequence[Mask]) -> Mask:
    return np.asarray(np.all(masks, axis=0) if op == "and" else np.any(masks, axis=0), dtype=np.bool_)


def _length(columns: ConditionColumns) -> int:
    return next((len(c) for c in columns.values()), 0)


def _compare(op: str, left: Operand, right: Operand, columns: ConditionColumns, beginning: bool = False) -> Mask:
    a, b = _evaluate(left, columns, _unit_of(right)), _evaluate(right, columns, _unit_of(left))
    text = next((_is_text(side) for side in (a, b) if side is not None), False)
    n = _length(columns)
    if any(side is not None and _is_text(side) != text for side in (a, b)):
        raise DataError(
            f"WHERE compares the {_kind(a)} {_name(left)} with the {_kind(b)} {_name(right)}",
            remedy="quote the values of text columns, and only those",
        )
    a, b = (np.broadcast_to(_comparable(side, text), n) for side in (a, b))
    if op in _COMPARE and not (beginning and text):
        return np.asarray(_COMPARE[op](a, b), dtype=np.bool_)
    if not text:
        raise DataError(f"{op.upper()} in a WHERE condition needs a text column", remedy="compare numbers with = < > or BETWEEN")
    if op in _COMPARE:
        compare, width = _COMPARE[op], min(max(map(len, side), default=0) for side in (a, b))
        return np.fromiter(
            (compare(*(side.ljust(width)[:width] for side in row)) for row in zip(a, b, strict=True)), dtype=np.bool_, count=n
        )
    test = operator.contains if op == "contains" else _like
    return np.fromiter((test(x, y) for x, y in zip(a, b, strict=True)), dtype=np.bool_, count=n)


def _unit_of(operand: Operand) -> str:
    """What a literal that stands beside an operand counts; "" where nothing says so."""
    if isinstance(operand, FunctionCall):
        return "date" if operand.name in ("mdy", "datepart") else "datetime" if operand.name == "dhms" else ""
    return operand.value.unit if isinstance(operand, ConstantValue) and isinstance(operand.value, TimeNumber) else ""


def _sas_numbers(name: str, values: NDArray[Any], unit: str) -> Any:
    """Days since 1 January 1960 where the times of a column are all midnights, or `unit` says so; seconds since then otherwise."""
    seconds = (values.astype("datetime64[us]") - np.datetime64("1960-01-01", "us")) / np.timedelta64(1, "s")
    if unit == "datetime" or (unit != "date" and bool(np.any(seconds % 86400.0 > 0.0))):
        return seconds
    if bool(np.any(seconds % 86400.0 > 0.0)):
        raise DataError(
            f"WHERE takes {name} for a date, and it has times of day", remedy=f"datepart({name}), or a literal '01jan2020:00:00:00'dt"
        )
    return seconds / 86400.0


def _evaluate(operand: Operand, columns: ConditionColumns, unit: str = "") -> Any:
    match operand:
        case ColumnReference(name):
            column = columns[name]
            return _sas_numbers(name, column, unit) if column.dtype.kind == "M" else column
        case ConstantValue(value):
            return value
        case FunctionCall(name, arguments):
            function = SAS_FUNCTIONS[name]
            kinds = function.kinds(len(arguments)) or ""
            unit = "date" if name in OF_DATES else "datetime" if name in OF_SECONDS else ""
            values = [_as_kind(argument, columns, kind, name.upper(), unit) for argument, kind in zip(arguments, kinds, strict=True)]
            return apply_function(function, [np.broadcast_to(value, _length(columns)) for value in values])


def _as_kind(operand: Operand, columns: ConditionColumns, kind: str, where: str, unit: str = "") -> Any:
    """An argument as numbers ("n") or texts ("c") of the kind that is wanted; "a" takes both."""
    value = _evaluate(operand, columns, unit)
    text = kind == "c" if value is None else _is_text(value)
    if kind != "a" and text != (kind == "c"):
        wanted = "text" if kind == "c" else "number"
        raise DataError(f"WHERE: {where} takes a {wanted}, and {_name(operand)} is a {_kind(value)}", remedy="quote texts, and only those")
    return _comparable(value, text, blank=np.nan)


def _is_text(side: Any) -> bool:
    if isinstance(side, np.ndarray):
        return side.dtype.kind in "UST" or (side.dtype.kind == "O" and any(isinstance(v, str) for v in side))
    return isinstance(side, str)


def _comparable(side: Any, text: bool, blank: float = -np.inf) -> Any:
    """Numbers with missing as `blank`, or texts without blanks at the end and missing as ""."""
    if not text:
        values = np.asarray([np.nan if v is None else v for v in np.atleast_1d(np.asarray(side, dtype=object))], dtype=np.float64)
        return np.where(np.isnan(values), blank, values)
    values = np.atleast_1d(np.asarray(side, dtype=object))
    plain = np.empty(len(values), dtype=object)
    plain[:] = ["" if v is None or v is pd.NA or v != v else str(v).rstrip() for v in values]
    return plain


def _like(text: str, pattern: str) -> bool:
    parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _name(operand: Operand) -> str:
    if isinstance(operand, FunctionCall):
        return f"{operand.name.upper()}({', '.join(map(_name, operand.arguments))})"
    return operand.name if isinstance(operand, ColumnReference) else repr(operand.value)


def _kind(side: Any) -> str:
    return "text" if _is_text(side) else "number"
