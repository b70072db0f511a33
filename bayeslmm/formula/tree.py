"""The syntax tree of a formula. Chains are flat, so that the depth of a tree is the depth of its brackets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Name:
    """A column; `quoted` where the formula has it in backticks."""

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
class Listing:
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


Node = Name | Value | Listing | Call | Unary | Chain | Power | Sum | Bar | Offset
