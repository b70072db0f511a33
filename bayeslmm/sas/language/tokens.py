"""The tokens of a SAS program, each with its place, and the cursor that reads them.

What is refused here, by name: macro language beyond %LET, hexadecimal literals.

`%let name = value;` and `&name` are read as SAS reads them; DATA steps, other procedures, LIBNAME and its like are left out, with a note:
the frame is taken as it is. What is left out leaves its lines, so that errors still show the right one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal, NoReturn

from bayeslmm.errors import FormulaError, FormulaLimitError, SpecificationError

SASTokenKind = Literal["name", "number", "length", "string", "symbol", "date", "time", "datetime", "end"]

MAX_LENGTH = 64 * 1024

_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_UNIT = re.compile(r"(?:in|cm|mm|pt|px|em)\b", re.IGNORECASE)
_NAME = re.compile(r"[^\W\d]\w*")
_SYMBOL = re.compile(r"<=|>=|<>|\^=|~=|\*\*|\|\||--|[-=<>^~()\[\]{},/|*@+.?&:!#$]")
_LITERAL_SUFFIX = re.compile(r"(dt|[ndtx])(?!\w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SASToken:
    """One token: what it is, its text (quotes removed), and where it stands in the program."""

    kind: SASTokenKind
    text: str
    position: int

    @property
    def lower(self) -> str:
        """The text in lower case: SAS names and keywords do not mind the case."""
        return self.text.lower()

    def is_symbol(self, text: str) -> bool:
        """Whether this is the symbol written `text`."""
        return self.kind == "symbol" and self.text == text


def program_spot(program: str, position: int) -> str:
    """Where a position is, for a person: line and column, the line itself, and a caret under the place."""
    position = min(position, len(program))
    start = program.rfind("\n", 0, position) + 1
    stop = program.find("\n", position)
    line = program[start : len(program) if stop < 0 else stop].replace("\t", " ")
    number = program.count("\n", 0, position) + 1
    column = position - start + 1
    return f"line {number}, column {column}\n    {line.rstrip()}\n    {' ' * (column - 1)}^"


def syntax_error(program: str, position: int, what: str, remedy: str = "") -> NoReturn:
    """Raise the error of a text that is not SAS."""
    raise FormulaError(what, program_spot(program, position), remedy or "correct the program at the spot marked")


def not_supported(program: str, position: int, what: str, remedy: str = "") -> NoReturn:
    """Raise the error of valid SAS that is not supported here."""
    raise SpecificationError(what, program_spot(program, position), remedy or "leave out what stands at the spot marked")


def tokenize_program(program: str) -> tuple[SASToken, ...]:
    """The tokens of a program; statements end with a token of kind "end".

    Raises FormulaLimitError beyond 64 KB, FormulaError for an unfinished comment or quote and for a character that SAS has no use for,
    SpecificationError for macro language.

    >>> [t.text for t in tokenize_program("class id; /* subjects */ model y = x;")]
    ['class', 'id', ';', 'model', 'y', '=', 'x', ';']
    """
    if len(program) > MAX_LENGTH:
        raise FormulaLimitError(f"the program has more than {MAX_LENGTH} characters", remedy="give the PROC MIXED step alone")
    tokens: list[SASToken] = []
    position = 0
    while (position := _skip(program, position, not tokens or tokens[-1].kind == "end")) < len(program):
        token, position = _next(program, position)
        tokens.append(token)
    return tuple(tokens)


def _skip(program: str, position: int, at_start: bool) -> int:
    """The next position that is neither space nor comment; `* ... ;` is a comment only where a statement may start."""
    while position < len(program):
        if space := _SPACE.match(program, position):
            position = space.end()
        elif program.startswith("/*", position):
            position = _after(program, position, "*/", "this comment is not closed", "end it with */")
        elif program.startswith("%*", position) or (at_start and program[position] == "*"):
            position = _after(program, position, ";", "this comment is not closed", "end it with a semicolon")
        else:
            break
    return position


def _after(program: str, position: int, mark: str, what: str, remedy: str) -> int:
    found = program.find(mark, position)
    if found < 0:
        syntax_error(program, position, what, remedy)
    return found + len(mark)


def _next(program: str, position: int) -> tuple[SASToken, int]:
    character = program[position]
    if character == ";":
        return SASToken("end", ";", position), position + 1
    if character in "'\"":
        return _read_quoted(program, position)
    if number := _NUMBER.match(program, position):
        return _number(program, number)
    if name := _NAME.match(program, position):
        return SASToken("name", name.group(), position), name.end()
    if character == "%" or (character == "&" and _NAME.match(program, position + 1)):
        not_supported(
            program, position, "the macro language is not read", "write out what the macro produces (in SAS, `options mprint` shows it)"
        )
    if symbol := _SYMBOL.match(program, position):
        return SASToken("symbol", symbol.group(), position), symbol.end()
    syntax_error(program, position, f"the character {character!r} means nothing here")


def _number(program: str, number: re.Match[str]) -> tuple[SASToken, int]:
    if unit := _UNIT.match(program, number.end()):  # of the size of a figure
        return SASToken("length", number.group() + unit.group(), number.start()), unit.end()
    if _NAME.match(program, number.end()):
        syntax_error(program, number.start(), "a name cannot start with a digit", "write it as a name literal: '1st'n")
    return SASToken("number", number.group(), number.start()), number.end()


_MONTHS = {name: k for k, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)}
_DATE = re.compile(r"(\d{1,2})[-/ ]?([a-z]{3})[-/ ]?(\d{4}|\d{2})")
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d*)?))? ?([ap]m)?")
SAS_EPOCH = date(1960, 1, 1)
CENTURY_FROM = 1926
"""The first of the hundred years that two digits stand for: SAS's YEARCUTOFF."""


def read_sas_time(kind: SASTokenKind, text: str) -> float | None:
    """What a literal stands for: days since 1 January 1960, seconds since midnight, or seconds since then; None where it is none.

    >>> read_sas_time("date", "02jan1960"), read_sas_time("datetime", "01jan1960:00:01")
    (1.0, 60.0)
    """
    text = text.strip().lower()
    if kind == "datetime":
        first, _, second = text.partition(":") if ":" in text else text.partition(" ")
        day, clock = read_sas_time("date", first), read_sas_time("time", second)
        return None if day is None or clock is None else 86400.0 * day + clock
    if kind == "time":
        found = _TIME.fullmatch(text)
        if found is None or int(found[2]) > 59 or float(found[3] or 0) >= 60.0 or (found[4] and not 1 <= int(found[1]) <= 12):
            return None
        hours = int(found[1]) % 12 + 12 * (found[4] == "pm") if found[4] else int(found[1])
        return 3600.0 * hours + 60.0 * int(found[2]) + float(found[3] or 0)
    found = _DATE.fullmatch(text)
    if found is None or found[2] not in _MONTHS:
        return None
    year = int(found[3])
    if len(found[3]) == 2:
        year += CENTURY_FROM - CENTURY_FROM % 100
        year += 100 * (year < CENTURY_FROM)
    try:
        return float((date(year, _MONTHS[found[2]], int(found[1])) - SAS_EPOCH).days)
    except ValueError:
        return None


def _read_quoted(program: str, position: int) -> tuple[SASToken, int]:
    """A quoted text, a doubled quote standing for one; followed by `n` it is a name."""
    quote = program[position]
    end = position + 1
    parts: list[str] = []
    while True:
        stop = program.find(quote, end)
        if stop < 0:
            syntax_error(program, position, "this quote is not closed", f"end it with {quote}")
        parts.append(program[end:stop])
        end = stop + 1
        if not program.startswith(quote, end):
            break
        end += 1
    text = quote.join(parts)
    suffix = _LITERAL_SUFFIX.match(program, end)
    if suffix is None:
        return SASToken("string", text, position), end
    kinds: dict[str, SASTokenKind] = {"d": "date", "t": "time", "dt": "datetime"}
    if (kind := kinds.get(suffix.group().lower())) is not None:
        value = read_sas_time(kind, text)
        if value is None:
            form = {"date": "'01jan2020'd", "time": "'9:25:00't", "datetime": "'01jan2020:9:25:00'dt"}[kind]
            syntax_error(program, position, f"{program[position : suffix.end()]} is no {kind}", f"write it as {form}")
        return SASToken(kind, repr(value), position), suffix.end()
    if suffix.group().lower() != "n":
        not_supported(
            program, position, f"the literal {program[position : suffix.end()]} is not read", "compare with a number or a text instead"
        )
    return SASToken("name", text, position), suffix.end()


class SASCursor:
    """Reads the tokens of one statement from left to right; the last token is the semicolon.

    names : lower-case name -> its spelling, shared by all statements; a name in its own spelling stands for itself
    """

    __slots__ = ("_index", "_names", "_tokens", "program", "statement")

    def __init__(self, program: str, tokens: tuple[SASToken, ...], statement: str, names: dict[str, str]) -> None:
        self.program = program
        self.statement = statement
        self._tokens = tokens
        self._names = names
        self._index = 0

    @property
    def token(self) -> SASToken:
        """The token to be read next."""
        return self._tokens[self._index]

    @property
    def ahead(self) -> SASToken:
        """The token after the next one (the last one at the end)."""
        return self._tokens[min(self._index + 1, len(self._tokens) - 1)]

    @property
    def at_end(self) -> bool:
        """Whether only the semicolon is left."""
        return self.token.kind == "end"

    @property
    def at_options(self) -> bool:
        """Whether the options (or the end) come next."""
        return self.at_end or self.token.is_symbol("/")

    def sees(self, symbol: str) -> bool:
        """Whether the symbol comes next."""
        return self.token.is_symbol(symbol)

    def sees_word(self, *words: str) -> bool:
        """Whether one of the words comes next (lower case)."""
        return self.token.kind == "name" and self.token.lower in words

    def take(self) -> SASToken:
        """The next token, read."""
        token = self.token
        if token.kind != "end":
            self._index += 1
        return token

    def take_value(self) -> None:
        """Read past a value: a token, or what stands in brackets."""
        if not self.accept("("):
            self.take()
            return
        while not self.accept(")"):
            if self.at_end:
                self.fail("this bracket is not closed")
            self.take_value()

    def accept(self, symbol: str) -> bool:
        """Read the symbol if it comes next."""
        found = self.sees(symbol)
        if found:
            self._index += 1
        return found

    def expect(self, symbol: str) -> SASToken:
        """Read the symbol, which must come next."""
        if not self.sees(symbol):
            self.fail(f"expected `{symbol}` here")
        return self.take()

    def name(self, of: str = "a variable name") -> str:
        """Read a name; the program's first spelling of it is the one kept."""
        token = self.token
        if token.kind != "name":
            self.fail(f"expected {of} here")
        self._index += 1
        return self.spell(token.text)

    def spell(self, name: str) -> str:
        """The name as the data, or the program where it first stands, spells it."""
        return self._names[name] if name in self._names else self._names.setdefault(name.lower(), name)

    def word(self) -> str:
        """Read a keyword, in lower case."""
        if self.token.kind != "name":
            self.fail("expected a word here")
        return self.take().lower

    def label(self) -> str:
        """Read a quoted text."""
        if self.token.kind != "string":
            self.fail("expected a quoted label here", "every ESTIMATE and CONTRAST has one: estimate 'A against B' trt 1 -1;")
        return self.take().text

    def sees_number(self) -> bool:
        """Whether a number, signed or not, comes next."""
        if self.token.kind == "symbol" and self.token.text in "+-":
            return self.ahead.kind == "number"
        return self.token.kind == "number"

    def number(self) -> float:
        """Read a number with its sign."""
        if not self.sees_number():
            self.fail("expected a number here")
        sign = self.take().text if self.token.kind == "symbol" else "+"
        token = self.take()
        value = float(token.text)
        if not math.isfinite(value):
            self.fail_at(token, "this number is beyond double precision")
        return -value if sign == "-" else value

    def integer(self) -> int:
        """Read a whole number, at least 1."""
        token = self.token
        value = self.number()
        if value != int(value) or value < 1:
            self.fail_at(token, "expected a whole number from 1 up here")
        return int(value)

    def in_brackets[T](self, read: Callable[[], T]) -> T:
        """Read `( ... )` around what `read` reads."""
        self.expect("(")
        value = read()
        self.expect(")")
        return value

    def until_options[T](self, read: Callable[[], T]) -> tuple[T, ...]:
        """Read items until `/` or the end of the statement."""
        items: list[T] = []
        while not self.at_options:
            items.append(read())
        return tuple(items)

    def finish(self) -> None:
        """Nothing may be left."""
        if not self.at_end:
            self.fail(f"`{self.token.text}` is not expected in the {self.statement} statement here")

    def place(self) -> str:
        """The place of the next token, for a person."""
        return program_spot(self.program, self.token.position)

    def fail(self, what: str, remedy: str = "") -> NoReturn:
        """Raise for text that is not SAS at the next token."""
        syntax_error(self.program, self.token.position, what, remedy)

    def fail_at(self, token: SASToken, what: str, remedy: str = "") -> NoReturn:
        """Raise for text that is not SAS at this token."""
        syntax_error(self.program, token.position, what, remedy)

    def not_supported_at(self, token: SASToken, what: str, remedy: str = "") -> NoReturn:
        """Raise for SAS that is not supported at this token."""
        not_supported(self.program, token.position, what, remedy)


MAX_TEXT = 16 * MAX_LENGTH
"""Characters of a program with all that stands around its PROC MIXED steps."""

_SKIPPED_GLOBALS = frozenset({"goptions", "libname", "filename", "dm", "x", "axis", "symbol", "legend"})
_LINES = re.compile(r"(datalines|cards|lines|parmcards)(4?)\Z", re.IGNORECASE)
_PIECE = re.compile(r"/\*.*?(?:\*/|\Z)|'[^']*(?:'|\Z)|\"[^\"]*(?:\"|\Z)|;", re.DOTALL)
_BEFORE = r"(?:\s|/\*.*?\*/)*+"  # what is read is not given back: a text of blanks is read once
_STAR_COMMENT = re.compile(_BEFORE + r"%?\*", re.DOTALL)
_HEAD = re.compile(_BEFORE + r"(%?\w+)(?:" + _BEFORE + r"(\w+(?:\.\w+)?))?", re.DOTALL)
_LET = re.compile(_BEFORE + r"%let\s+(\w+)\s*=(.*);\Z", re.IGNORECASE | re.DOTALL)
_REFERENCE = re.compile(r"'[^']*'|/\*.*?\*/|&(\w+)\.?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PreparedText:
    """The text of the PROC MIXED steps, and what was left out of it."""

    text: str
    notes: tuple[str, ...]


def prepare_text(program: str) -> PreparedText:
    """Leave out of a program what is not PROC MIXED, and put in its macro variables.

    Raises FormulaLimitError for a text that is too long, SpecificationError for a macro variable without %LET.

    >>> prepare_text("%let y = height; proc sort data=a; by id; run; proc mixed; model &y = x; run;").text.strip()
    'proc mixed; model height = x; run;'
    """
    if len(program) > MAX_TEXT:
        raise FormulaLimitError(f"the program has more than {MAX_TEXT} characters", remedy="give the PROC MIXED steps alone")
    variables: dict[str, str] = {}
    kept: list[str] = []
    skipped: list[str] = []
    inside: str | None = None  # the step that is being left out
    for start, statement in _statements(program):
        head, word = _heads(statement)
        text = _expand(program, start, statement, variables) if head not in ("", *_SKIPPED_GLOBALS) and inside is None else statement
        if head == "%let" and (found := _LET.match(_expand(program, start, statement, variables))):
            variables[found.group(1).lower()] = found.group(2).strip()
            kept.append(_blank(statement))
            continue
        if head in ("data", "proc"):
            head, word = _heads(text)
            inside = None if (head, word.lower()) == ("proc", "mixed") else _step_name(head, word)
            if inside is not None and inside not in skipped:
                skipped.append(inside)
        elif head in _SKIPPED_GLOBALS:
            skipped += [name for name in [head.upper()] if name not in skipped]
            kept.append(_blank(statement))
            continue
        elif inside is not None and head.rstrip("0123456789") in ("title", "footnote", "ods"):
            kept.append(_expand(program, start, statement, variables))
            continue
        kept.append(_blank(statement) if inside is not None else text)
        if inside is not None and head in ("run", "quit"):
            inside = None
        if sum(map(len, kept[-2:])) > MAX_LENGTH:
            raise FormulaLimitError(f"the program has more than {MAX_LENGTH} characters", remedy="give the PROC MIXED steps alone")
    notes = (f"left out, since a program runs on the frame as it is: {', '.join(skipped)}",) if skipped else ()
    return PreparedText("".join(kept), notes)


def _step_name(head: str, word: str) -> str:
    return f"PROC {word.upper()}" if head == "proc" else f"DATA {word}".strip()


def _heads(statement: str) -> tuple[str, str]:
    """The first word of a statement in lower case, and the second."""
    if _STAR_COMMENT.match(statement):
        return "", ""
    found = _HEAD.match(statement)
    return (found.group(1).lower(), found.group(2) or "") if found else ("", "")


def _statements(program: str) -> Iterator[tuple[int, str]]:
    """Statements with their semicolons, comments and blanks before them, data lines as statements of their own; and where each starts."""
    start = 0
    while start < len(program):
        end = _end(program, start)
        statement = program[start:end]
        yield start, statement
        if lines := _LINES.match(_heads(statement)[0]):
            mark = ";;;;" if lines.group(2) else ";"
            stop = re.compile(rf"^[ \t]*{mark}[ \t]*$" if lines.group(2) else r"^[^\n]*;", re.MULTILINE).search(program, end)
            close = len(program) if stop is None else stop.end()
            yield end, program[end:close]
            end = close
        start = end


def _end(program: str, start: int) -> int:
    """Behind the semicolon that ends the statement."""
    if comment := _STAR_COMMENT.match(program, start):
        found = program.find(";", comment.end())
        return len(program) if found < 0 else found + 1
    for piece in _PIECE.finditer(program, start):
        if piece.group() == ";":
            return piece.end()
    return len(program)


def _expand(program: str, start: int, statement: str, variables: dict[str, str]) -> str:
    """Macro variables put in, but for those between single quotes and in comments."""

    def value(found: re.Match[str]) -> str:
        if found.group(1) is None:
            return found.group()
        name = found.group(1).lower()
        if name not in variables:
            remedy = f"%let {found.group(1)} = ...; before it, or a blank behind & where AND is meant"
            not_supported(program, start + found.start(), f"the macro variable {found.group(1)} has no value", remedy)
        return variables[name]

    return statement if "&" not in statement else _REFERENCE.sub(value, statement)


def _blank(statement: str) -> str:
    return "\n" * statement.count("\n")
