"""The text of a SAS program as tokens: comments dropped, quoted labels and name literals read, every token with its place.

What is refused here, by name: DATA steps and their lines, macro language (`%let`, `&name`), date and hexadecimal literals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from bayeslmm.errors import FormulaError, FormulaLimitError, SpecificationError

Kind = Literal["name", "number", "string", "symbol", "end"]

MAX_LENGTH = 64 * 1024

_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_NAME = re.compile(r"[^\W\d]\w*")
_SYMBOL = re.compile(r"<=|>=|<>|\^=|~=|\*\*|\|\||--|[-=<>^~()\[\]{},/|*@+.?&:!#$]")
_LITERAL_SUFFIX = re.compile(r"(dt|[ndtx])(?!\w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Token:
    """One token: what it is, its text (quotes removed), and where it stands in the program."""

    kind: Kind
    text: str
    position: int

    @property
    def lower(self) -> str:
        """The text in lower case: SAS names and keywords do not mind the case."""
        return self.text.lower()

    def is_symbol(self, text: str) -> bool:
        """Whether this is the symbol written `text`."""
        return self.kind == "symbol" and self.text == text


def spot(program: str, position: int) -> str:
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
    raise FormulaError(what, spot(program, position), remedy or "correct the program at the spot marked")


def refuse(program: str, position: int, what: str, remedy: str = "") -> NoReturn:
    """Raise the error of valid SAS that is not supported here."""
    raise SpecificationError(what, spot(program, position), remedy or "leave out what stands at the spot marked")


def tokenize(program: str) -> tuple[Token, ...]:
    """The tokens of a program; statements end with a token of kind "end".

    Raises FormulaLimitError beyond 64 KB, FormulaError for an unfinished comment or quote and for a character that SAS has no use for,
    SpecificationError for a DATA step or macro language.

    >>> [t.text for t in tokenize("class id; /* subjects */ model y = x;")]
    ['class', 'id', ';', 'model', 'y', '=', 'x', ';']
    """
    if len(program) > MAX_LENGTH:
        raise FormulaLimitError(f"the program has more than {MAX_LENGTH} characters", remedy="give the PROC MIXED step alone")
    tokens: list[Token] = []
    position = 0
    while (position := _skip(program, position, not tokens or tokens[-1].kind == "end")) < len(program):
        token, position = _next(program, position)
        if token.kind == "name" and (not tokens or tokens[-1].kind == "end"):
            _refuse_data_step(program, token)
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


def _next(program: str, position: int) -> tuple[Token, int]:
    character = program[position]
    if character == ";":
        return Token("end", ";", position), position + 1
    if character in "'\"":
        return _quoted(program, position)
    if number := _NUMBER.match(program, position):
        return _number(program, number)
    if name := _NAME.match(program, position):
        return Token("name", name.group(), position), name.end()
    if character == "%" or (character == "&" and _NAME.match(program, position + 1)):
        refuse(program, position, "the macro language is not read", "write out what the macro produces (in SAS, `options mprint` shows it)")
    if symbol := _SYMBOL.match(program, position):
        return Token("symbol", symbol.group(), position), symbol.end()
    syntax_error(program, position, f"the character {character!r} means nothing here")


def _number(program: str, number: re.Match[str]) -> tuple[Token, int]:
    if _NAME.match(program, number.end()):
        syntax_error(program, number.start(), "a name cannot start with a digit", "write it as a name literal: '1st'n")
    return Token("number", number.group(), number.start()), number.end()


def _quoted(program: str, position: int) -> tuple[Token, int]:
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
        return Token("string", text, position), end
    if suffix.group().lower() != "n":
        refuse(program, position, f"the literal {program[position : suffix.end()]} is not read", "compare with a number or a text instead")
    return Token("name", text, position), suffix.end()


def _refuse_data_step(program: str, token: Token) -> None:
    if token.lower in {"data", "datalines", "cards", "infile", "libname", "filename"}:
        refuse(
            program,
            token.position,
            f"the {token.text.upper()} statement is not read: a program runs on a frame that is there already",
            "prepare the data in Python and give the PROC MIXED step alone",
        )
