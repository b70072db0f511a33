"""From text to `Formula` and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from bayeslmm.errors import FormulaError
from bayeslmm.formula.bars import bar_terms
from bayeslmm.formula.cursor import Cursor
from bayeslmm.formula.expression import read_expression
from bayeslmm.formula.functions import LITERALS, RESERVED
from bayeslmm.formula.grammar import read_sides, read_sum
from bayeslmm.formula.model import BarTerm, Formula, ResidualTerm, VarianceFactor
from bayeslmm.formula.terms import Items, columns, demand_countable, flat_items, side_text, without_intercept
from bayeslmm.formula.text import expression_text
from bayeslmm.formula.tree import Bar, Name, Node, Offset

_SPACE = re.compile(r"(`[^`]*`|\"[^\"]*\"|'[^']*')|\s+")


def parse_formula(text: str, functions: Iterable[str] = frozenset()) -> Formula:
    """The parts of a formula in lme4's syntax.

    functions : names of the user's own functions, beside the closed table
    Errors: FormulaError with the spot marked; FormulaLimitError beyond 64 KB, 64 nested brackets, 10,000 terms, an exponent of 8.

    >>> formula = parse_formula("Reaction ~ Days + (Days || Subject)")
    >>> formula.fixed, [term.text for term in formula.random]
    ('1 + Days', ['1 | Subject', '0 + Days | Subject'])
    """
    own = functions if isinstance(functions, frozenset) else frozenset(functions)
    return _parse(text, own) if isinstance(text, str) else read_formula(Cursor(text, own))


@lru_cache(maxsize=1024)
def _parse(text: str, functions: frozenset[str]) -> Formula:
    for name in functions:
        if not isinstance(name, str) or not name.isidentifier() or name in LITERALS or name in RESERVED:
            raise FormulaError(f"a function cannot be called {name!r}", "functions", "name it by a plain identifier")
    return read_formula(Cursor(text, functions))


def read_formula(cursor: Cursor) -> Formula:
    """The formula under a cursor."""
    response, terms = read_sides(cursor)
    items = flat_items(cursor, terms)
    demand_own_sides(cursor, response, items)
    return build_formula(cursor, response, items)


def build_formula(cursor: Cursor, response: Node, items: Items) -> Formula:
    """The formula of a response and summands, its laws checked."""
    fixed = tuple((sign, node) for sign, node in items if not isinstance(node, Bar | Offset))
    bars = [node for _, node in items if isinstance(node, Bar)]
    offsets = [node for _, node in items if isinstance(node, Offset)]
    demand_countable(cursor, [node for _, node in without_intercept(fixed)])
    return Formula(
        response=expression_text(response),
        fixed=side_text(fixed),
        random=bar_terms(cursor, bars),
        offsets=tuple(expression_text(node.expression) for node in offsets),
        text=normalised(cursor.text),
    )


def demand_own_sides(cursor: Cursor, response: Node, items: Items) -> None:
    """Raise for a response without a column, and for one whose column stands on the right too."""
    left = set(columns(response, inside=not isinstance(response, Name)))
    if not left:
        raise cursor.error_between(response.start, response.end, "the left side names no column", "name the response")
    for _, node in items:
        for name in columns(node):
            if name in left:
                what = f"{name!r} is the response and stands on the right side too"
                raise cursor.error_between(node.start, node.end, what, "leave it out on one side")


def normalised(text: str) -> str:
    """The text with its white space made single, quotations left alone."""
    return _SPACE.sub(lambda match: match.group(1) or " ", text).strip()


def formula_text(formula: Formula) -> str:
    """The canonical text: parsing it gives the same formula, but for `.text`.

    >>> formula_text(parse_formula("y~x+(1|a/b)"))
    'y ~ 1 + x + (1 | a) + (1 | a:b)'
    """
    parts = [formula.fixed, *(f"offset({expression})" for expression in formula.offsets), *map(bar_text, formula.random)]
    return f"{formula.response} ~ {' + '.join(parts)}"


def bar_text(term: BarTerm) -> str:
    """A random term as a formula writes it: `(1 | g)`, `toep(0 + visit | g, 2)`."""
    if term.structure == "us":
        return f"({term.text})"
    return f"{term.structure}({term.text}{'' if term.order is None else f', {term.order}'})"


def columns_of(source: Formula | BarTerm | ResidualTerm | VarianceFactor | str) -> tuple[str, ...]:
    """The data columns that a formula, one of its parts, or a text (a right-hand side or an expression) reads, in order, each once.

    >>> columns_of(parse_formula("log(y) ~ x * z + (x | g)"))
    ('y', 'x', 'z', 'g')
    """
    return tuple(dict.fromkeys(_columns_of(source)))


def _columns_of(source: Formula | BarTerm | ResidualTerm | VarianceFactor | str) -> Iterator[str]:
    if isinstance(source, str):
        yield from _text_columns(source)
    elif isinstance(source, Formula):
        yield from _expression_columns(source.response)
        yield from _side_columns(source.fixed)
        for expression in source.offsets:
            yield from _expression_columns(expression)
        for term in source.random:
            yield from _columns_of(term)
    elif isinstance(source, BarTerm):
        yield from (*_side_columns(source.left), *source.group)
    elif isinstance(source, ResidualTerm):
        yield from (*source.visit, *source.group, *source.subject)
    else:
        yield from (() if source.covariate == "fitted" else (source.covariate,))
        yield from source.group


def _text_columns(text: str) -> tuple[str, ...]:
    try:
        return _side_columns(text)
    except FormulaError:  # arithmetic, such as `y / 2`, is no right-hand side
        return _expression_columns(text)


@lru_cache(maxsize=1024)
def _side_columns(text: str) -> tuple[str, ...]:
    cursor = Cursor(text, None)
    terms = read_sum(cursor)
    cursor.demand_end()
    return tuple(columns(terms))


@lru_cache(maxsize=1024)
def _expression_columns(text: str) -> tuple[str, ...]:
    cursor = Cursor(text, None)
    node = read_expression(cursor)
    cursor.demand_end()
    return tuple(columns(node, inside=not isinstance(node, Name)))
