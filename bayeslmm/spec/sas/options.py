"""Options after `/` (and those of the PROC statement): a table for each statement says what is read, what is refused, and why.

A reader takes the cursor just after the option's name and returns a value. An option that SAS has and we do not is in the table as a
`Refused` with the way out; an option that SAS does not have is an error that names the nearest ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

from bayeslmm.spec.sas.cursor import Cursor
from bayeslmm.spec.sas.effects import INTERCEPT, Effect, parse_effect
from bayeslmm.spec.sas.tokens import Token

Reader = Callable[[Cursor], Any]


@dataclass(frozen=True, slots=True)
class Option:
    """An option that is read into the field; `gather` keeps the values of repeated options in a tuple."""

    field: str
    read: Reader
    gather: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """An option of SAS that is not supported, with what to do instead."""

    remedy: str


Table = Mapping[str, Option | Refused]


def read_options(cursor: Cursor, table: Table) -> dict[str, Any]:
    """Options up to the end of the statement, as values by field."""
    values: dict[str, Any] = {}
    while not cursor.at_end:
        start = cursor.token
        if start.kind != "name":
            cursor.fail(f"expected an option of the {cursor.statement} statement here")
        name = cursor.word()
        option = _look_up(cursor, start, table.get(name), table)
        value = option.read(cursor)
        if option.gather:
            values[option.field] = values.get(option.field, ()) + value
        elif option.field in values and values[option.field] != value:
            cursor.fail_at(start, f"the option {start.text.upper()} is given twice, with different values")
        else:
            values[option.field] = value
    return values


def slash_options(cursor: Cursor, table: Table) -> dict[str, Any]:
    """Options after a slash; none when the statement ends without one."""
    values = read_options(cursor, table) if cursor.accept("/") else {}
    cursor.finish()
    return values


def _look_up(cursor: Cursor, start: Token, option: Option | Refused | None, table: Table) -> Option:
    if option is None:
        _unknown(cursor, start, table)
    if isinstance(option, Refused):
        cursor.refuse_at(start, f"the option {start.text.upper()} of the {cursor.statement} statement is not supported", option.remedy)
    return option


def _unknown(cursor: Cursor, start: Token, table: Table) -> NoReturn:
    known = [name for name, o in table.items() if isinstance(o, Option)]
    near = get_close_matches(start.lower, known, 3) or sorted(known)
    cursor.fail_at(
        start,
        f"{start.text.upper()} is not an option of the {cursor.statement} statement",
        f"one of {', '.join(name.upper() for name in near)}",
    )


def flag(_cursor: Cursor) -> bool:
    """An option that is there or not."""
    return True


def constant(value: Any) -> Reader:
    """An option without a value of its own."""
    return lambda _cursor: value


def after_equals(read: Reader) -> Reader:
    """`= value`."""

    def reader(cursor: Cursor) -> Any:
        cursor.expect("=")
        return read(cursor)

    return reader


def number(cursor: Cursor) -> float:
    """A number."""
    return cursor.number()


def positive(cursor: Cursor) -> float:
    """A number above 0."""
    token = cursor.token
    value = cursor.number()
    if not value > 0:
        cursor.fail_at(token, "expected a number above 0 here")
    return value


def nonzero(cursor: Cursor) -> float:
    """A number other than 0."""
    token = cursor.token
    value = cursor.number()
    if value == 0:
        cursor.fail_at(token, "expected a number other than 0 here")
    return value


def fraction(cursor: Cursor) -> float:
    """A number between 0 and 1."""
    token = cursor.token
    value = cursor.number()
    if not 0 < value < 1:
        cursor.fail_at(token, "expected a number between 0 and 1 here", "alpha=0.05 gives 95% limits")
    return value


def whole(cursor: Cursor) -> int:
    """A whole number from 1 up."""
    return cursor.integer()


def listed(read: Reader) -> Reader:
    """One or more values, with commas or without, in parentheses or without."""

    def reader(cursor: Cursor) -> tuple[Any, ...]:
        if cursor.accept("("):
            values = [read(cursor)]
            while not cursor.sees(")"):
                cursor.accept(",")
                values.append(read(cursor))
            cursor.expect(")")
            return tuple(values)
        values = [read(cursor)]
        while cursor.accept(",") or cursor.sees_number():
            values.append(read(cursor))
        return tuple(values)

    return reader


def one_of(choices: Mapping[str, Any], refused: Mapping[str, str] | None = None) -> Reader:
    """One of a few words; `refused` are the words that SAS has besides, each with its remedy."""

    def reader(cursor: Cursor) -> Any:
        token = cursor.token
        word = cursor.word()
        if refused and word in refused:
            cursor.refuse_at(token, f"{token.text.upper()} is not supported in the {cursor.statement} statement", refused[word])
        if word not in choices:
            near = ", ".join(dict.fromkeys(name.upper() for name in choices))
            cursor.fail_at(token, f"{token.text.upper()} is not a choice here", f"one of {near}")
        return choices[word]

    return reader


def dataset(cursor: Cursor) -> str:
    """The name of a data set: `name` or `library.name`."""
    name = cursor.take().text if cursor.token.kind in {"name", "string"} else cursor.name("the name of a data set")
    return f"{name}.{cursor.name('the name of a data set')}" if cursor.accept(".") else name


def one_effect(cursor: Cursor) -> Effect:
    """An effect such as `id`, `a*b`, `site(region)`; INTERCEPT is the effect of no variable."""
    return parse_effect(cursor, intercept=True) if cursor.sees_word("intercept") else parse_effect(cursor)


def block_numbers(cursor: Cursor) -> tuple[int, ...]:
    """The optional `=1,3` of R, V and their kin: which subjects are shown; the first by default."""
    return tuple(listed(whole)(cursor)) if cursor.accept("=") else (1,)


def degrees(cursor: Cursor) -> float | None:
    """A number of degrees of freedom; `.` keeps the default."""
    return None if cursor.accept(".") else positive(cursor)


def slices(cursor: Cursor) -> tuple[Effect, ...]:
    """`=a` or `=(a b)`."""
    cursor.expect("=")
    if not cursor.accept("("):
        return (one_effect(cursor),)
    effects: list[Effect] = []
    while not cursor.accept(")"):
        effects.append(one_effect(cursor))
    return tuple(effects)


def is_whole_data(subject: Effect | None) -> bool:
    """Whether a SUBJECT= effect makes all rows one subject: none given, or INTERCEPT."""
    return subject is None or subject == INTERCEPT
