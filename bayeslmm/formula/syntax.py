"""The syntax tree of a formula and its text. Chains are flat: a tree is as deep as its brackets."""

from __future__ import annotations

import keyword
import unicodedata
from dataclasses import dataclass

from bayeslmm.formula.functions import CONSTANTS, LITERALS, RESERVED


@dataclass(frozen=True, slots=True)
class Name:
    """A column; `quote_name` where the formula has it in backticks."""

    name: str
    quoted: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Value:
    """A number, a string, or True, False, None; `text` is how Python prints it."""

    text: str
    kind: str  # "number", "string", "literal"
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """`[1, 2]`, as an option of a function."""

    items: tuple[Node, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Call:
    """`function(arguments, option=value)`; the function is in the closed table or the user's own."""

    function: str
    arguments: tuple[Node, ...]
    options: tuple[tuple[str, Node], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Unary:
    """`-x`, `+x` in arithmetic."""

    sign: str
    operand: Node
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Operands joined by operators of one precedence, read from the left: first (op operand)*."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Power:
    """`base ** exponent`; in the algebra of terms the exponent is a small integer."""

    base: Node
    exponent: Node
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Signed summands of the algebra of terms; `0` and `1` are Values."""

    items: tuple[tuple[str, Node], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Bar:
    """`(left | group)`, `(left || group)`, or either in a wrapper with its structure and order.

    lefts : what stands before the bar, split at its commas
    """

    structure: str | None
    lefts: tuple[Sum, ...]
    double: bool
    group: Node
    order: int | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Offset:
    """`offset(expression)`."""

    expression: Node
    start: int
    end: int


Node = Name | Value | ListLiteral | Call | Unary | Chain | Power | Sum | Bar | Offset

_PRECEDENCE = {"==": 0, "!=": 0, "<": 0, "<=": 0, ">": 0, ">=": 0, "+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2}
_UNARY, _POWER, _ATOM = 3, 4, 5


def quote_name(name: str) -> str:
    """A column's name as a formula writes it: in backticks unless it is a plain identifier.

    >>> quote_name("Days"), quote_name("log.radon"), quote_name("a`b")
    ('Days', '`log.radon`', '`a``b`')
    """
    plain = name.isidentifier() and not keyword.iskeyword(name) and name not in LITERALS and name not in RESERVED
    # Python reads identifiers in their NFKC form: another form would name another column once an expression is evaluated.
    return name if plain and (name.isascii() or unicodedata.is_normalized("NFKC", name)) else "`" + name.replace("`", "``") + "`"


def name_text(node: Name) -> str:
    """A column; a quoted `pi` stays quoted, for without backticks it is the number."""
    return f"`{node.name}`" if node.quoted and node.name in CONSTANTS else quote_name(node.name)


def expression_text(node: Node) -> str:
    """Arithmetic and calls, as Python prints them: `I(x ** 2)`, `bs(x, df=4)`."""
    if isinstance(node, Name):
        return name_text(node)
    if isinstance(node, Value):
        return node.text
    if isinstance(node, ListLiteral):
        return "[" + ", ".join(map(expression_text, node.items)) + "]"
    if isinstance(node, Call):
        options = (f"{key}={expression_text(value)}" for key, value in node.options)
        return f"{node.function}({', '.join([*map(expression_text, node.arguments), *options])})"
    if isinstance(node, Unary):
        return node.sign + _at_least(node.operand, _UNARY)
    if isinstance(node, Power):
        return f"{_at_least(node.base, _POWER + 1)} ** {_at_least(node.exponent, _POWER)}"
    if isinstance(node, Chain):
        own = _precedence(node)
        parts = [_at_least(node.first, own + (own == 0))]
        for operator, operand in node.rest:
            parts += [operator, _at_least(operand, own + 1)]
        return " ".join(parts)
    raise TypeError(f"no expression: {type(node).__name__}")  # pragma: no cover - expressions hold nothing else


def _precedence(node: Node) -> int:
    if isinstance(node, Chain):
        return _PRECEDENCE[node.rest[0][0]]
    if isinstance(node, Unary):
        return _UNARY
    return _POWER if isinstance(node, Power) else _ATOM


def _at_least(node: Node, least: int) -> str:
    text = expression_text(node)
    return f"({text})" if _precedence(node) < least else text


_TERMS = {"*": 1, "/": 1, "%in%": 2, ":": 3}


def term_text(node: Node) -> str:
    """A summand of the algebra of terms: `a * b`, `a:b`, `(a + b)**2`."""
    if isinstance(node, Sum):
        return f"({summands_text(node.items)})"
    if isinstance(node, Power):
        return f"{term_text(node.base)}**{expression_text(node.exponent)}"
    if isinstance(node, Chain) and node.rest[0][0] in _TERMS:
        own = _TERMS[node.rest[0][0]]
        parts = [_factor(node.first, own)]
        for operator, operand in node.rest:
            parts += [":" if operator == ":" else f" {operator} ", _factor(operand, own + 1)]
        return "".join(parts)
    return expression_text(node)


def _factor(node: Node, least: int) -> str:
    text = term_text(node)
    return f"({text})" if isinstance(node, Chain) and _TERMS[node.rest[0][0]] < least else text


def summands_text(items: tuple[tuple[str, Node], ...]) -> str:
    """Signed summands: `a + b - a:b`."""
    text = " ".join(f"{sign} {term_text(node)}" for sign, node in items)
    return text.removeprefix("+ ")


def group_text(columns: tuple[str, ...]) -> str:
    """A grouping factor: `batch:cask`."""
    return ":".join(map(quote_name, columns))
