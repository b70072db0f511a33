"""SAS functions and arithmetic that a WHERE condition may use, over columns.

Numbers are (n,) arrays with NaN for missing; texts are (n,) object arrays of `str` without blanks at the end, "" for missing. A missing
number makes the result of arithmetic and of functions of one number missing; MIN, MAX, SUM and MEAN leave it out.
"""

from __future__ import annotations

import math
import operator
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.sas.language.tokens import SAS_EPOCH

_WORD_DELIMITERS = " !$%&()*+,-./;<^|"


@dataclass(frozen=True, slots=True)
class SASFunction:
    """takes : one letter an argument, "n" a number, "c" a text, "a" either; `*` repeats the last; from `least` arguments on.

    gives : "n" or "c"; of : one row's value from its arguments
    """

    takes: str
    gives: str
    of: Callable[..., Any]
    least: int

    def kinds(self, count: int) -> str | None:
        """The kinds of `count` arguments; None where there may not be so many."""
        fixed = self.takes.rstrip("*")
        if count < self.least or (count > len(fixed) and fixed == self.takes):
            return None
        return (fixed + fixed[-1] * max(0, count - len(fixed)))[:count]


def _of_known(of: Callable[..., float]) -> Callable[..., float]:
    """NaN where an argument is missing or outside the domain."""

    def value(*arguments: Any) -> float:
        if any(isinstance(a, float) and math.isnan(a) for a in arguments):
            return math.nan
        try:
            found = of(*arguments)
        except (ValueError, ZeroDivisionError, OverflowError):
            return math.nan
        return float(found) if isinstance(found, (int, float)) else math.nan

    return value


def _of_present(of: Callable[[list[float]], float]) -> Callable[..., float]:
    """Of the arguments that are not missing."""

    def value(*arguments: float) -> float:
        present = [a for a in arguments if not math.isnan(a)]
        return float(of(present)) if present else math.nan

    return value


def _is_missing(value: Any) -> bool:
    return value == "" if isinstance(value, str) else math.isnan(value)


def _round(x: float, unit: float = 1.0) -> float:
    steps, inverse = math.copysign(math.floor(abs(x) / abs(unit) + 0.5 + 1e-12), x), round(1.0 / abs(unit))
    return steps / inverse if inverse and math.isclose(inverse * abs(unit), 1.0, rel_tol=1e-12) else steps * abs(unit)


def _substr(text: str, start: float, length: float = math.inf) -> str:
    begin = int(start) - 1
    return text[max(begin, 0) :] if math.isinf(length) else text[max(begin, 0) : max(begin, 0) + max(int(length), 0)]


def _scan(text: str, count: float, delimiters: str = _WORD_DELIMITERS) -> str:
    words = [w for w in re.split(f"[{re.escape(delimiters or ' ')}]", text) if w]
    place = int(count) - 1 if count > 0 else int(count)
    return words[place] if -len(words) <= place < len(words) else ""


def _find(text: str, part: str, modifiers: str = "") -> float:
    if "i" in modifiers.lower():
        text, part = text.lower(), part.lower()
    return float(text.find(part.rstrip() if "t" in modifiers.lower() else part) + 1)


def _compress(text: str, characters: str = " ", modifiers: str = "") -> str:
    gone = set(characters or ("" if modifiers else " "))
    for letter in modifiers.lower():
        gone |= set({"d": string.digits, "a": string.ascii_letters, "p": string.punctuation, "s": string.whitespace}.get(letter, ""))
    return "".join(c for c in text if (c in gone) == ("k" in modifiers.lower()))


def _propcase(text: str) -> str:
    return re.sub(r"[^\W\d_]+", lambda word: word.group().capitalize(), text)


def _first_given(*arguments: Any) -> Any:
    return next((a for a in arguments if not _is_missing(a)), arguments[-1])


def _if(condition: float, yes: Any, no: Any) -> Any:
    return yes if condition and not math.isnan(condition) else no


def _of_date(of: Callable[[date], float]) -> Callable[..., float]:
    """Of the day that a number of days since 1 January 1960 stands for."""
    return _of_known(lambda days: float(of(SAS_EPOCH + timedelta(days=math.floor(days)))))


def _of_clock(unit: int, size: int) -> Callable[..., float]:
    """Of the time of day that a number of seconds stands for."""
    return _of_known(lambda seconds: float(math.floor(seconds % 86400.0) // unit % size))


def _mdy(month: float, day: float, year: float) -> float:
    return float((date(int(year), int(month), int(day)) - SAS_EPOCH).days)


SAS_FUNCTIONS: Mapping[str, SASFunction] = {
    "+": SASFunction("nn", "n", _of_known(operator.add), 2),
    "-": SASFunction("nn", "n", _of_known(operator.sub), 2),
    "*": SASFunction("nn", "n", _of_known(operator.mul), 2),
    "/": SASFunction("nn", "n", _of_known(operator.truediv), 2),
    "**": SASFunction("nn", "n", _of_known(operator.pow), 2),
    "||": SASFunction("cc", "c", operator.add, 2),
    "year": SASFunction("n", "n", _of_date(lambda day: day.year), 1),
    "qtr": SASFunction("n", "n", _of_date(lambda day: (day.month + 2) // 3), 1),
    "month": SASFunction("n", "n", _of_date(lambda day: day.month), 1),
    "day": SASFunction("n", "n", _of_date(lambda day: day.day), 1),
    "weekday": SASFunction("n", "n", _of_date(lambda day: day.isoweekday() % 7 + 1), 1),
    "mdy": SASFunction("nnn", "n", _of_known(_mdy), 3),
    "datepart": SASFunction("n", "n", _of_known(lambda seconds: math.floor(seconds / 86400.0)), 1),
    "timepart": SASFunction("n", "n", _of_known(lambda seconds: seconds % 86400.0), 1),
    "dhms": SASFunction("nnnn", "n", _of_known(lambda d, h, m, s: 86400.0 * d + 3600.0 * h + 60.0 * m + s), 4),
    "hms": SASFunction("nnn", "n", _of_known(lambda h, m, s: 3600.0 * h + 60.0 * m + s), 3),
    "hour": SASFunction("n", "n", _of_clock(3600, 24), 1),
    "minute": SASFunction("n", "n", _of_clock(60, 60), 1),
    "second": SASFunction("n", "n", _of_known(lambda seconds: seconds % 60.0), 1),
    "abs": SASFunction("n", "n", _of_known(abs), 1),
    "ceil": SASFunction("n", "n", _of_known(math.ceil), 1),
    "exp": SASFunction("n", "n", _of_known(math.exp), 1),
    "floor": SASFunction("n", "n", _of_known(math.floor), 1),
    "int": SASFunction("n", "n", _of_known(math.trunc), 1),
    "log": SASFunction("n", "n", _of_known(math.log), 1),
    "log10": SASFunction("n", "n", _of_known(math.log10), 1),
    "log2": SASFunction("n", "n", _of_known(math.log2), 1),
    "mod": SASFunction("nn", "n", _of_known(math.fmod), 2),
    "round": SASFunction("nn", "n", _of_known(_round), 1),
    "sign": SASFunction("n", "n", _of_known(lambda x: (x > 0) - (x < 0)), 1),
    "sqrt": SASFunction("n", "n", _of_known(math.sqrt), 1),
    "max": SASFunction("n*", "n", _of_present(max), 2),
    "min": SASFunction("n*", "n", _of_present(min), 2),
    "mean": SASFunction("n*", "n", _of_present(lambda v: math.fsum(v) / len(v)), 1),
    "sum": SASFunction("n*", "n", _of_present(math.fsum), 1),
    "n": SASFunction("n*", "n", lambda *v: float(sum(not math.isnan(x) for x in v)), 1),
    "nmiss": SASFunction("n*", "n", lambda *v: float(sum(math.isnan(x) for x in v)), 1),
    "cmiss": SASFunction("a*", "n", lambda *v: float(sum(map(_is_missing, v))), 1),
    "missing": SASFunction("a", "n", lambda v: float(_is_missing(v)), 1),
    "coalesce": SASFunction("n*", "n", _first_given, 1),
    "coalescec": SASFunction("c*", "c", _first_given, 1),
    "ifn": SASFunction("nnn", "n", _if, 3),
    "ifc": SASFunction("ncc", "c", _if, 3),
    "whichn": SASFunction("n*", "n", lambda x, *v: float(next((i for i, a in enumerate(v, 1) if a == x), 0)), 2),
    "whichc": SASFunction("c*", "n", lambda x, *v: float(next((i for i, a in enumerate(v, 1) if a == x), 0)), 2),
    "cat": SASFunction("c*", "c", lambda *v: "".join(v), 1),
    "cats": SASFunction("c*", "c", lambda *v: "".join(a.strip() for a in v), 1),
    "catx": SASFunction("c*", "c", lambda between, *v: between.join(a.strip() for a in v if a.strip()), 2),
    "char": SASFunction("cn", "c", lambda text, place: _substr(text, place, 1.0), 2),
    "compress": SASFunction("ccc", "c", _compress, 1),
    "countw": SASFunction("c", "n", lambda text: float(len([w for w in re.split(f"[{re.escape(_WORD_DELIMITERS)}]", text) if w])), 1),
    "find": SASFunction("ccc", "n", _find, 2),
    "first": SASFunction("c", "c", lambda text: text[:1], 1),
    "index": SASFunction("cc", "n", _find, 2),
    "left": SASFunction("c", "c", str.lstrip, 1),
    "length": SASFunction("c", "n", lambda text: float(max(len(text), 1)), 1),
    "lengthn": SASFunction("c", "n", lambda text: float(len(text)), 1),
    "lowcase": SASFunction("c", "c", str.lower, 1),
    "propcase": SASFunction("c", "c", _propcase, 1),
    "reverse": SASFunction("c", "c", lambda text: text[::-1], 1),
    "scan": SASFunction("cnc", "c", _scan, 2),
    "strip": SASFunction("c", "c", str.strip, 1),
    "substr": SASFunction("cnn", "c", _substr, 2),
    "substrn": SASFunction("cnn", "c", _substr, 2),
    "tranwrd": SASFunction("ccc", "c", lambda text, old, new: text.replace(old, new) if old else text, 3),
    "trim": SASFunction("c", "c", str.rstrip, 1),
    "trimn": SASFunction("c", "c", str.rstrip, 1),
    "upcase": SASFunction("c", "c", str.upper, 1),
}
"""SAS name, or sign of arithmetic -> function."""

OF_DATES = frozenset(("year", "qtr", "month", "day", "weekday"))
"""Functions of a number of days."""

OF_SECONDS = frozenset(("datepart", "timepart", "hour", "minute", "second"))
"""Functions of a number of seconds."""


def apply_function(function: SASFunction, arguments: list[Array]) -> Array:
    """The function row by row; arguments (n,) each, numbers or texts as the function takes them."""
    found = [function.of(*row) for row in zip(*(a.tolist() for a in arguments), strict=True)]
    if function.gives == "n":
        return np.array(found, dtype=np.float64)
    texts = np.empty(len(found), dtype=object)
    texts[:] = [text.rstrip() for text in found]
    return texts
