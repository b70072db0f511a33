"""Parsing: text to `Formula`, residual structure or variance function, and their canonical texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import cast, get_args

from bayeslmm.covariance.base import order_text
from bayeslmm.covariance.registry import canonical, fits_series, has_nugget, takes_coordinates
from bayeslmm.errors import FormulaError, FormulaLimitError
from bayeslmm.formula.expression import read_expression
from bayeslmm.formula.grammar import has_bar, is_product, read_product, read_series, read_sides, read_sum, read_wrapper
from bayeslmm.formula.syntax import (
    LITERALS,
    RESERVED,
    Bar,
    BarTerm,
    Chain,
    Formula,
    Name,
    Node,
    Offset,
    ResidualTerm,
    Sum,
    Value,
    VarianceFactor,
    VarianceKind,
    expression_text,
    group_text,
    quote_name,
)
from bayeslmm.formula.terms import Items, bar_terms, columns_read, count_terms, flat_items, side_terms, side_text, without_intercept
from bayeslmm.formula.tokens import Cursor, describe_token

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
    require_own_sides(cursor, response, items)
    return build_formula(cursor, response, items)


def build_formula(cursor: Cursor, response: Node, items: Items) -> Formula:
    """The formula of a response and summands, its laws checked."""
    fixed = tuple((sign, node) for sign, node in items if not isinstance(node, Bar | Offset))
    bars = [node for _, node in items if isinstance(node, Bar)]
    offsets = [node for _, node in items if isinstance(node, Offset)]
    count_terms(cursor, [node for _, node in without_intercept(fixed)])
    return Formula(
        response=expression_text(response),
        fixed=side_text(fixed),
        random=bar_terms(cursor, bars),
        offsets=tuple(expression_text(node.expression) for node in offsets),
        text=normalize_spaces(cursor.text),
        terms=side_terms(fixed),
    )


def require_own_sides(cursor: Cursor, response: Node, items: Items) -> None:
    """Raise for a response without a column, and for one whose column stands on the right too."""
    left = set(columns_read(response, inside=not isinstance(response, Name)))
    if not left:
        raise cursor.error_between(response.start, response.end, "the left side names no column", "name the response")
    for _, node in items:
        for name in columns_read(node):
            if name in left:
                what = f"{name!r} is the response and stands on the right side too"
                raise cursor.error_between(node.start, node.end, what, "leave it out on one side")


def normalize_spaces(text: str) -> str:
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
    return f"{term.structure}({term.text}{order_text(term.order)})"


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
    cursor.require_end()
    return tuple(columns_read(terms))


@lru_cache(maxsize=1024)
def _expression_columns(text: str) -> tuple[str, ...]:
    cursor = Cursor(text, None)
    node = read_expression(cursor)
    cursor.require_end()
    return tuple(columns_read(node, inside=not isinstance(node, Name)))


MAX_COORDINATES = 64
FITTED_VALUE = "fitted"
_NLME_VARIANCES = {
    "varIdent": "ident(g) for varIdent(form = ~ 1 | g)",
    "varPower": "power(x), or power(fitted)",
    "varExp": "exp(x), or exp(fitted)",
    "varConstPower": "const_power(x)",
    "varFixed": "weights=1/x as an argument of the model",
    "varComb": "a product: ident(g) * power(x)",
}


def parse_residual(text: str) -> ResidualTerm:
    """A residual covariance structure in mmrm's syntax.

    The part before the bar is the visit, the coordinates (`sp_exp(x, y | id)`), the outcome and the visit of a product
    (`us@ar1(outcome, visit | id)`), or 1, the order of the rows. Behind it the subject, or `group / subject` for parameters of their own
    in each group; without a bar the rows are one series: `ar1(Year)`. A product of any structures is also written with a column for each,
    `ar1(row):ar1(col)`, `us(outcome) @ ar1(visit) | id`. A number of bands or factors follows a comma, `toep(visit | id, 2)`,
    or the two orders of `arma(1 | id, 2, 1)`; `+ local` adds a nugget.
    Errors: FormulaError with the spot marked.

    >>> parse_residual("us(AVISIT | ARMCD / USUBJID)").group
    ('ARMCD',)
    """
    return _parse_residual(text) if isinstance(text, str) else read_residual(Cursor(text))


@lru_cache(maxsize=256)
def _parse_residual(text: str) -> ResidualTerm:
    return read_residual(Cursor(text))


def read_residual(cursor: Cursor) -> ResidualTerm:
    """The residual structure under a cursor, to the end of the text."""
    if cursor.token.kind == "end":
        raise cursor.error(cursor.token, "a residual structure is empty", "write us(visit | subject)")
    if is_product(cursor):
        bar = read_product(cursor)
    elif not cursor.ahead().says("(", "@"):
        raise cursor.error(cursor.token, "a covariance structure is missing", "write us(visit | subject)")
    else:
        bar = read_wrapper(cursor) if has_bar(cursor, 1) or has_bar(cursor, 2) else read_series(cursor)
    nugget = cursor.take("+") is not None
    if nugget and cursor.next().text not in ("local", "nugget"):
        raise cursor.error(cursor.tokens[cursor.at - 1], "only a nugget is added to a residual structure", "write + local")
    cursor.require_end()
    return residual_term(cursor, bar, nugget)


def residual_term(cursor: Cursor, bar: Bar, nugget: bool) -> ResidualTerm:
    """The residual structure that a wrapper says, its laws checked."""
    structure = canonical(bar.structure or "us", bar.order)
    visit = _visit(cursor, bar, structure)
    group, subject = _subject(cursor, bar.group)
    own = group == subject and fits_series(structure, bar.order)  # parameters of its own for each subject
    names = [*visit, *group, *(() if own else subject)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        what = f"{twice!r} is used twice in a residual structure"
        raise cursor.error_between(bar.start, bar.end, what, "visit, group and subject are different columns")
    if len(names) > MAX_COORDINATES:
        raise cursor.error_between(bar.start, bar.end, f"{len(names)} columns", f"the limit is {MAX_COORDINATES}", FormulaLimitError)
    if nugget and has_nugget(structure):
        what = f"a nugget beside {structure}, which contains one"
        raise cursor.error_between(bar.start, bar.end, what, "leave out + local")
    term = ResidualTerm(structure, bar.order, visit, subject, group, nugget, "")
    return ResidualTerm(structure, bar.order, visit, subject, group, nugget, residual_text(term))


def residual_text(term: ResidualTerm) -> str:
    """The canonical text of a residual structure."""
    before = ", ".join(map(quote_name, term.visit)) or "1"
    subjects = f"{group_text(term.group)} / {group_text(term.subject)}" if term.group else group_text(term.subject)
    within = f" | {subjects}" if subjects else ""
    return f"{term.structure}({before}{within}{order_text(term.order)}){' + local' if term.nugget else ''}"


def _visit(cursor: Cursor, bar: Bar, structure: str) -> tuple[str, ...]:
    columns_before = [_bare(cursor, left) for left in bar.lefts]
    visit = tuple(name for name in columns_before if name is not None)
    most = MAX_COORDINATES if takes_coordinates(structure) else 1
    if "@" in structure:
        factors = structure.count("@") + 1
        if len(visit) != factors or len(bar.lefts) != factors:
            what = "a product structure takes an outcome and a visit" if factors == 2 else f"a product of {factors} takes {factors} columns"
            remedy = f"write {structure}({'outcome, visit' if factors == 2 else ', '.join('abcdefgh'[:factors])} | subject)"
            raise cursor.error_between(bar.start, bar.end, what, remedy)
    elif len(visit) not in (0, len(bar.lefts)) or len(bar.lefts) > most:
        what = f"{structure} takes coordinates, or 1 alone" if takes_coordinates(structure) else f"{structure} takes one visit"
        raise cursor.error_between(
            bar.start, bar.end, what, f"write {structure}({'x, y' if takes_coordinates(structure) else 'visit'} | subject)"
        )
    return visit


def _bare(cursor: Cursor, left: Sum) -> str | None:
    """The column of one entry before the bar; None for the literal 1."""
    node = left.items[0][1]
    if len(left.items) == 1 and left.items[0][0] == "+":
        if isinstance(node, Name):
            return node.name
        if isinstance(node, Value) and node.text == "1":
            return None
    what = "before the bar of a residual structure stands a column, or 1"
    raise cursor.error_between(left.start, left.end, what, "name the visit: us(visit | subject)")


def _subject(cursor: Cursor, node: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of `group / subject`; no group without a slash, nor a subject without a bar."""
    if isinstance(node, Sum):
        return (), ()
    if not isinstance(node, Chain) or node.rest[0][0] == ":":
        return (), _interaction(cursor, node)
    if len(node.rest) == 1 and node.rest[0][0] == "/":
        return _interaction(cursor, node.first), _interaction(cursor, node.rest[0][1])
    raise cursor.error_between(
        node.start, node.end, "behind the bar stands subject, or group / subject", "join columns of a subject by ':'"
    )


def _interaction(cursor: Cursor, node: Node) -> tuple[str, ...]:
    if isinstance(node, Chain) and any(operator != ":" or isinstance(operand, Chain) for operator, operand in node.rest):
        raise cursor.error_between(
            node.start, node.end, "behind the bar stands subject, or group / subject", "join columns of a subject by ':'"
        )
    return tuple(columns_read(node))


# --------------------------------------------------------------------------------------------------------------- variance


def parse_variance(text: str) -> tuple[VarianceFactor, ...]:
    """The factors of a variance function: `ident(Sex)`, `power(age)`, `power(fitted)`, `const_power(age | Sex)`, joined by `*`.

    Errors: FormulaError with the spot marked.

    >>> parse_variance("ident(Sex) * power(age)")[1]
    VarianceFactor(kind='power', covariate='age', group=())
    """
    return _parse_variance(text) if isinstance(text, str) else _read_variance(Cursor(text))


@lru_cache(maxsize=256)
def _parse_variance(text: str) -> tuple[VarianceFactor, ...]:
    return _read_variance(Cursor(text))


def _read_variance(cursor: Cursor) -> tuple[VarianceFactor, ...]:
    factors = [_factor(cursor)]
    while cursor.take("*") is not None:
        start = cursor.token
        factor = _factor(cursor)
        if factor in factors:
            raise cursor.error(start, "a variance factor is given twice", "leave one out")
        factors.append(factor)
        if len(factors) > MAX_COORDINATES:
            raise cursor.error(start, f"more than {MAX_COORDINATES} variance factors", "leave some out", FormulaLimitError)
    cursor.require_end()
    return tuple(factors)


def _factor(cursor: Cursor) -> VarianceFactor:
    name = cursor.next()
    usage = "write ident(group), power(x), exp(x) or const_power(x), with | group for parameters by group"
    if name.text in _NLME_VARIANCES:
        raise cursor.error(name, f"{name.text} is nlme's name", f"write {_NLME_VARIANCES[name.text]}")
    if name.kind != "name" or name.text not in get_args(VarianceKind):
        what = "a variance function is missing" if name.kind == "end" else f"there is no variance function {describe_token(name)}"
        raise cursor.error(name, what, usage)
    cursor.expect("(", f"'(' is missing before {describe_token(cursor.token)}", usage)
    if name.text == "ident" and cursor.token.kind == "number":
        raise cursor.error(cursor.token, "ident() takes a factor, without 1 |", "write ident(g)")
    covariate = cursor.column("a covariate")
    group = []
    if cursor.take(":" if name.text == "ident" else "|", "|") is not None:
        group = [cursor.column("a grouping column").name]
        while cursor.take(":") is not None:
            group.append(cursor.column("a grouping column").name)
    if name.text == "ident" and cursor.token.says("*", "+", "/", ","):
        other = cursor.ahead()
        remedy = f"one sd for each combination is ident({quote_name(covariate.name)}:{quote_name(other.text) if other.text else 'g'})"
        raise cursor.error(cursor.token, f"{describe_token(cursor.token)} is out of place in ident()", remedy)
    end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place in {name.text}()", usage)
    if name.text == "ident" and covariate.name == FITTED_VALUE and not covariate.quoted:
        raise cursor.error(end, "the fitted value has no levels", "write power(fitted) or exp(fitted)")
    if len({covariate.name, *group}) < 1 + len(group):
        raise cursor.error(name, "a column is used twice in a variance function", usage)
    return VarianceFactor(cast(VarianceKind, name.text), covariate.name, tuple(group))


def variance_text(factors: tuple[VarianceFactor, ...]) -> str:
    """The canonical text of a variance function."""
    return " * ".join(_factor_text(factor) for factor in factors)


def _factor_text(factor: VarianceFactor) -> str:
    return f"{factor.kind}({quote_name(factor.covariate)}{' | ' + group_text(factor.group) if factor.group else ''})"
