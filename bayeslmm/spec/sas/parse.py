"""A PROC MIXED program, text in, `MixedProgram` out.

Around the step the text may hold comments, `run; quit;`, ODS statements (ignored: every table comes back as a frame), TITLE and
FOOTNOTE (printed with the listing) and OPTIONS that only lay out pages. All else is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from bayeslmm.spec.sas.cursor import Cursor
from bayeslmm.spec.sas.program import MixedProgram
from bayeslmm.spec.sas.statements import MANY, ONCE, REFUSED, read_proc, read_text
from bayeslmm.spec.sas.tokens import Token, syntax_error, tokenize

_PAGE_OPTIONS = frozenset(
    {"center", "date", "formdlim", "linesize", "ls", "missing", "nocenter", "nodate", "nonumber", "nonotes", "notes", "number"}
    | {"orientation", "pageno", "pagesize", "ps"}
)
_FOLLOWS_MODEL = frozenset({"random", "repeated", "lsmeans", "lsmean", "estimate", "contrast"})


@dataclass(slots=True)
class _Step:
    """What has been read of the step so far."""

    fields: dict[str, Any] = field(default_factory=dict)
    many: dict[str, list[Any]] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=lambda: {"title": {}, "footnote": {}})
    ods: list[str] = field(default_factory=list)
    finished: bool = False

    def program(self) -> MixedProgram:
        read: dict[str, Any] = dict(self.fields)
        read |= {name: tuple(values) for name, values in self.many.items()}
        read |= {f"{name}s": tuple(text for _, text in sorted(numbered.items())) for name, numbered in self.texts.items()}
        return MixedProgram(**read, ods=tuple(self.ods))


@lru_cache(maxsize=64)
def parse_program(program: str, columns: tuple[str, ...] = ()) -> MixedProgram:
    """Read a PROC MIXED program.

    columns : names of the data's columns; the program may write them in any case. Without them the first spelling of a name is kept.

    Raises FormulaError for text that is not SAS, SpecificationError for SAS that is not supported (the statement or option is named),
    FormulaLimitError for a text that is too long or has too many effects. Each error shows the spot.

    >>> p = parse_program("proc mixed data=a; class id; model y = x / s; random int / sub=id; run;")
    >>> p.model.response, p.class_names, p.random[0].subject.text
    ('y', ('id',), 'id')
    """
    step = _Step()
    names = _spellings(columns)
    for tokens in _statements(program, tokenize(program)):
        _read(program, tokens, step, names)
    if "proc" not in step.fields:
        syntax_error(program, 0, "the program has no PROC MIXED statement", "proc mixed data=a; model y = x / solution; run;")
    if "model" not in step.fields:
        syntax_error(program, len(program), "the program has no MODEL statement", "model y = x / solution;")
    return step.program()


def _spellings(columns: tuple[str, ...]) -> dict[str, str]:
    """Each column under its own name, and in lower case where that is one column alone."""
    lower = [c.lower() for c in columns]
    return {c.lower(): c for c in columns if lower.count(c.lower()) == 1} | {c: c for c in columns}


def _statements(program: str, tokens: tuple[Token, ...]) -> Iterator[tuple[Token, ...]]:
    start = 0
    for index, token in enumerate(tokens):
        if token.kind == "end":
            if index > start:
                yield tokens[start : index + 1]
            start = index + 1
    if start < len(tokens):
        syntax_error(program, tokens[-1].position + len(tokens[-1].text), "the last statement has no semicolon")


def _read(program: str, tokens: tuple[Token, ...], step: _Step, names: dict[str, str]) -> None:
    head = tokens[0]
    if head.kind != "name":
        syntax_error(program, head.position, f"a statement cannot start with `{head.text}`")
    word = head.lower
    cursor = Cursor(program, tokens[1:], word.upper(), names)
    if word == "proc":
        _read_proc(cursor, step)
    elif _is_global(word):
        _read_global(cursor, head, step)
    elif word in {"run", "quit"}:
        cursor.finish()
        step.finished = step.finished or "proc" in step.fields
    else:
        _read_statement(cursor, head, step)


def _read_proc(cursor: Cursor, step: _Step) -> None:
    token = cursor.token
    procedure = cursor.word()
    if procedure != "mixed":
        cursor.refuse_at(token, f"PROC {token.text.upper()} is not read", "give the PROC MIXED step alone; BY groups need no sorting")
    if "proc" in step.fields:
        cursor.refuse_at(token, "the program has two PROC MIXED steps", "run them one by one")
    cursor.statement = "PROC MIXED"
    step.fields["proc"] = read_proc(cursor)


def _is_global(word: str) -> bool:
    stem = word.rstrip("0123456789")
    return word in {"ods", "options", "option"} or stem in {"title", "footnote"}


def _read_global(cursor: Cursor, head: Token, step: _Step) -> None:
    stem = head.lower.rstrip("0123456789")
    if stem in step.texts:
        step.texts[stem][head.lower[len(stem) :].zfill(2)] = read_text(cursor)
    elif stem == "ods":
        step.ods.append(read_text(cursor))
    else:
        _read_page_options(cursor)


def _read_page_options(cursor: Cursor) -> None:
    while not cursor.at_end:
        token = cursor.token
        name = cursor.word()
        if name not in _PAGE_OPTIONS:
            cursor.refuse_at(token, f"the system option {token.text.upper()} is not supported", "leave it out")
        if cursor.accept("="):
            cursor.take()


def _read_statement(cursor: Cursor, head: Token, step: _Step) -> None:
    word = head.lower
    if word in REFUSED:
        cursor.refuse_at(head, f"the {head.text.upper()} statement is not supported", REFUSED[word])
    if word not in ONCE and word not in MANY:
        near = get_close_matches(word, [*ONCE, *MANY, "proc", "run"], 2)
        remedy = f"did you mean {' or '.join(n.upper() for n in near)}?" if near else "a missing semicolon above makes one statement of two"
        cursor.fail_at(head, f"{head.text.upper()} is not a statement of PROC MIXED", remedy)
    _check_place(cursor, head, step)
    if word in MANY:
        name, read = MANY[word]
        step.many.setdefault(name, []).append(read(cursor))
        return
    name, read = ONCE[word]
    if name in step.fields:
        cursor.fail_at(head, f"the {head.text.upper()} statement is given twice", "PROC MIXED takes it once")
    step.fields[name] = read(cursor)


def _check_place(cursor: Cursor, head: Token, step: _Step) -> None:
    if "proc" not in step.fields:
        cursor.fail_at(head, f"{head.text.upper()} stands before PROC MIXED", "start with: proc mixed data=a;")
    if step.finished:
        cursor.fail_at(head, f"{head.text.upper()} stands after RUN", "put it before RUN")
    if head.lower in _FOLLOWS_MODEL and "model" not in step.fields:
        cursor.fail_at(head, f"{head.text.upper()} stands before MODEL", "MODEL comes first")
    if head.lower in {"class", "classes"} and "model" in step.fields:
        cursor.fail_at(head, "CLASS stands after MODEL", "CLASS comes first")
