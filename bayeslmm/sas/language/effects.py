"""Effects of a linear model as SAS writes them: `a`, `a*b`, `b(a)`, `a|b|c@2`, `x1-x4`, `intercept`.

`SASEffect` is what the program says. `GLMEffect` is the same effect once it is known which variables are classes: SAS then orders the
class variables as the CLASS statement does, puts continuous variables in front, and varies the last one fastest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from bayeslmm.errors import FormulaLimitError
from bayeslmm.sas.language.tokens import SASCursor

MAX_EFFECTS = 10_000

_NUMBERED = re.compile(r"(.*?)(\d+)\Z")


@dataclass(frozen=True, slots=True)
class SASEffect:
    """An effect as written: the variables that are crossed, and those in parentheses within which they are nested.

    The intercept is the effect of no variable.
    """

    crossed: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """All variables, each once."""
        return tuple(dict.fromkeys(self.crossed + self.nested))

    @property
    def text(self) -> str:
        """As SAS writes it."""
        return effect_text(self.crossed, self.nested)


INTERCEPT_EFFECT = SASEffect()


@dataclass(frozen=True, slots=True)
class GLMEffect:
    """An effect with its variables in the order in which SAS builds columns.

    continuous : with repetition (`x*x` is ("x", "x")), in the order written
    crossed, nested : class variables, each in the order of the CLASS statement
    """

    continuous: tuple[str, ...] = ()
    crossed: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class variables, the slowest first: columns are sorted by the nesting ones, then by the crossed ones."""
        return self.nested + self.crossed

    @property
    def name(self) -> str:
        """The name that SAS prints: `Intercept`, `x*a`, `b(a)`."""
        return effect_text(self.continuous + self.crossed, self.nested)


def effect_text(crossed: Sequence[str], nested: Sequence[str]) -> str:
    """The text of an effect: `a*b(c d)`."""
    inside = f"({' '.join(nested)})" if nested else ""
    return ("*".join(crossed) or "Intercept") + inside


def glm_effect(effect: SASEffect, classes: Sequence[str]) -> GLMEffect:
    """The effect with its variables sorted as SAS sorts them; `classes` are the variables of the CLASS statement, in its order.

    >>> glm_effect(SASEffect(("b", "x", "a")), ("a", "b")).name
    'x*a*b'
    """
    crossed, nested = set(effect.crossed), set(effect.nested)
    return GLMEffect(
        continuous=tuple(v for v in effect.crossed + effect.nested if v not in classes),
        crossed=tuple(c for c in classes if c in crossed - nested),
        nested=tuple(c for c in classes if c in nested),
    )


def contains(outer: GLMEffect, inner: GLMEffect) -> bool:
    """Whether `inner` is contained in `outer` as SAS defines it for types II and III.

    Both have the same continuous variables; `outer` has more class variables, among them all those of `inner`.
    """
    return sorted(outer.continuous) == sorted(inner.continuous) and set(outer.classes) > set(inner.classes)


def parse_effects(cursor: SASCursor, intercept: bool = False) -> tuple[SASEffect, ...]:
    """Effects up to `/`, `,`, `)` or the end, bars expanded, repeated effects dropped; `intercept` allows INTERCEPT and INT."""
    found: dict[SASEffect, None] = {}
    while not (cursor.at_options or cursor.sees(",") or cursor.sees(")")):
        for effect in _group(cursor, intercept):
            found.setdefault(effect)
            if len(found) > MAX_EFFECTS:
                what = f"the {cursor.statement} statement has more than {MAX_EFFECTS} effects"
                raise FormulaLimitError(what, cursor.place(), "name fewer effects")
    return tuple(found)


def parse_effect(cursor: SASCursor, intercept: bool = False) -> SASEffect:
    """One effect without bars."""
    if intercept and cursor.sees_word("intercept", "int"):
        cursor.take()
        return INTERCEPT_EFFECT
    crossed = [cursor.name()]
    while cursor.accept("*"):
        crossed.append(cursor.name())
    nested = cursor.in_brackets(lambda: _names(cursor)) if cursor.sees("(") else ()
    _check(cursor, crossed, nested)
    return SASEffect(tuple(crossed), nested)


def _names(cursor: SASCursor) -> tuple[str, ...]:
    names = [cursor.name()]
    while not cursor.sees(")"):
        cursor.accept("*")
        names.append(cursor.name())
    return tuple(dict.fromkeys(names))


def _check(cursor: SASCursor, crossed: Sequence[str], nested: Sequence[str]) -> None:
    if both := set(crossed) & set(nested):
        cursor.fail(f"{min(both)} is nested within itself", "a variable is either crossed or in the parentheses")


def _group(cursor: SASCursor, intercept: bool) -> list[SASEffect]:
    """`a | b | c @ 2`, a range `x1-x4`, or a single effect."""
    start = cursor.token
    first = parse_effect(cursor, intercept)
    if cursor.sees("-") or cursor.sees("--"):
        return _range(cursor, first)
    operands = [first]
    while cursor.accept("|"):
        operands.append(parse_effect(cursor))
    most = cursor.integer() if cursor.accept("@") else None
    if 2 ** len(operands) > 4 * MAX_EFFECTS and most is None:
        raise FormulaLimitError(f"a bar of {len(operands)} effects has {2 ** len(operands) - 1} terms", cursor.place(), "limit it: a|b|c@2")
    if len(operands) > 1 and first == INTERCEPT_EFFECT:
        cursor.fail_at(start, "the intercept cannot stand in a bar")
    return _bar(operands, most)


def _bar(operands: Sequence[SASEffect], most: int | None) -> list[SASEffect]:
    """All crossings of the operands, from the left: a|b|c is a, b, a*b, c, a*c, b*c, a*b*c."""
    effects: list[SASEffect] = []
    for operand in operands:
        crossings = (_cross(effect, operand) for effect in effects)
        effects += [e for e in chain((operand,), crossings) if e is not None and (most is None or len(e.crossed + e.nested) <= most)]
        if len(effects) > MAX_EFFECTS:
            raise FormulaLimitError(f"a bar of {len(operands)} effects has more than {MAX_EFFECTS} terms", remedy="limit it: a|b|c@2")
    return effects


def _cross(left: SASEffect, right: SASEffect) -> SASEffect | None:
    """a*b of two effects; None (as in SAS) when a variable would be nested within itself: a|b(a) has no a*b(a)."""
    crossed = left.crossed + right.crossed
    nested = tuple(dict.fromkeys(left.nested + right.nested))
    return None if set(crossed) & set(nested) else SASEffect(crossed, nested)


def _range(cursor: SASCursor, first: SASEffect) -> list[SASEffect]:
    dash = cursor.take()
    last = cursor.name()
    if dash.text == "--":
        cursor.not_supported_at(
            dash, "a range by position (a--b) is not read: it depends on the order of the columns", "name the variables"
        )
    low, high = _NUMBERED.match(first.text), _NUMBERED.match(last)
    if low is None or high is None or low.group(1).lower() != high.group(1).lower() or int(low.group(2)) > int(high.group(2)):
        cursor.fail_at(dash, f"{first.text}-{last} is not a numbered range", "x1-x4 stands for x1 x2 x3 x4")
    if int(high.group(2)) - int(low.group(2)) >= MAX_EFFECTS:
        what = f"{first.text}-{last} has more than {MAX_EFFECTS} variables"
        raise FormulaLimitError(what, cursor.place(), "name fewer variables")
    width = len(low.group(2)) if low.group(2).startswith("0") else 0
    names = (f"{low.group(1)}{i:0{width}d}" for i in range(int(low.group(2)), int(high.group(2)) + 1))
    return [SASEffect((cursor.spell(name),)) for name in names]
