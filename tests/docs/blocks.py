"""Code blocks of Markdown pages: found, run in order, their output set beside the one printed below them.

A ```python block is run as a notebook cell: what it prints, then the value of its last line. A ```text block right below it is that output.
An HTML comment `<!-- tol: 0.1 -->` before the output says how far its numbers may lie from ours, relatively (posterior draws).
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]+)?\s*$")
TOLERANCE = re.compile(r"<!-- tol: (?P<tol>[0-9.]+) -->")
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*\.?\d*(?:[eE][+-]?\d+)?(?!\w)")
CLOSE = 2e-3
NOISE = 1e-6
"""Numbers smaller than this are rounding, or p values that nobody reads to the digit."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, text, first and last line (fences included, from 0), indentation."""

    language: str
    text: str
    first: int
    last: int
    indent: int


@dataclass(frozen=True, slots=True)
class Cell:
    """A block of Python and the output printed below it, where there is one."""

    code: Block
    output: Block | None
    tolerance: float


def blocks_of(lines: list[str]) -> Iterator[Block]:
    """The fenced blocks of a page."""
    start: re.Match[str] | None = None
    first = 0
    for number, line in enumerate(lines):
        if start is None:
            start = FENCE.match(line)
            first = number
        elif line.strip() == "```":
            indent = len(start["indent"])
            text = "\n".join(inner[indent:] for inner in lines[first + 1 : number])
            yield Block(start["language"] or "", text, first, number, indent)
            start = None


def cells_of(lines: list[str]) -> Iterator[Cell]:
    """The blocks of Python of a page, each with the output below it."""
    blocks = list(blocks_of(lines))
    for block, after in zip(blocks, [*blocks, None][1:], strict=True):
        if block.language != "python":
            continue
        between = [] if after is None else [line.strip() for line in lines[block.last + 1 : after.first] if line.strip()]
        follows = after is not None and after.language == "text" and all(TOLERANCE.fullmatch(line) for line in between)
        found = TOLERANCE.search(" ".join(between)) if follows else None
        yield Cell(block, after if follows else None, float(found["tol"]) if found else CLOSE)


def run(code: str, known: dict[str, Any], name: str) -> str:
    """What a cell prints, and then the value of its last line."""
    tree = ast.parse(code, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) and not code.rstrip().endswith(";") else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings(), as_printed():
        warnings.simplefilter("ignore")
        exec(compile(tree, name, "exec"), known)  # noqa: S102
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), known)  # noqa: S307
            if value is not None:
                printed.write(f"{value if isinstance(value, pd.DataFrame | pd.Series) else repr(value)}\n")
    return "\n".join(line.rstrip() for line in printed.getvalue().rstrip().splitlines())


@contextlib.contextmanager
def as_printed() -> Iterator[None]:
    """Frames as the pages print them: whole, on 100 columns."""
    with pd.option_context("display.width", 100, "display.max_columns", 20, "display.max_rows", 20, "display.precision", 4):
        yield


def difference(expected: str, found: str, tolerance: float) -> str:
    """What differs between two outputs but for spaces and the last digits of numbers; empty when nothing does."""
    told, ours = expected.split(), found.split()
    if len(told) != len(ours):
        return f"{len(told)} words are printed, {len(ours)} come out"
    for one, other in zip(told, ours, strict=True):
        if one != other and not near(one, other, tolerance):
            return f"{one!r} is printed, {other!r} comes out"
    return ""


def near(one: str, other: str, tolerance: float) -> bool:
    """Whether two words are the same but for their numbers, and those close."""
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(
        max(abs(number(a)), abs(number(b))) < NOISE or abs(number(a) - number(b)) <= tolerance * abs(number(a)) + unit(a) for a, b in pairs
    )


def number(text: str) -> float:
    return float(text.replace(",", ""))


def unit(text: str) -> float:
    """A unit of the last digit printed."""
    mantissa, _, exponent = text.lower().partition("e")
    return float(f"1.001e{int(exponent or 0) - len(mantissa.partition('.')[2])}")


def pages(root: Path) -> list[Path]:
    """README and every page of the site that is written by hand."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
