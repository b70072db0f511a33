"""What stands around the PROC MIXED steps of a program: macro variables put in, other steps and statements left out and named.

`%let name = value;` and `&name` are read as SAS reads them; DATA steps, other procedures, LIBNAME and its like are left out, with a note:
the frame is taken as it is. What is left out leaves its lines, so that errors still show the right one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bayeslmm.errors import FormulaLimitError
from bayeslmm.sas.language.tokens import MAX_LENGTH, not_supported

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
        text = _substituted(program, start, statement, variables) if head not in ("", *_SKIPPED_GLOBALS) and inside is None else statement
        if head == "%let" and (found := _LET.match(_substituted(program, start, statement, variables))):
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
            kept.append(_substituted(program, start, statement, variables))
            continue
        kept.append(_blank(statement) if inside is not None else text)
        if inside is not None and head in ("run", "quit"):
            inside = None
        if sum(map(len, kept[-2:])) > MAX_LENGTH:
            raise FormulaLimitError(f"the program has more than {MAX_LENGTH} characters", remedy="give the PROC MIXED steps alone")
    told = (f"left out, since a program runs on the frame as it is: {', '.join(skipped)}",) if skipped else ()
    return PreparedText("".join(kept), told)


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


def _substituted(program: str, start: int, statement: str, variables: dict[str, str]) -> str:
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
