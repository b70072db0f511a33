"""Bar terms: `||`, `a/b` and `a*b` expanded, and the laws that hold between the terms of a formula."""

from __future__ import annotations

from bayeslmm.errors import FormulaLimitError
from bayeslmm.formula.cursor import Cursor
from bayeslmm.formula.model import BarTerm
from bayeslmm.formula.structures import PLAIN, canonical
from bayeslmm.formula.terms import (
    MAX_ORDER,
    MAX_TERMS,
    Items,
    columns,
    demand_countable,
    expand,
    flat_items,
    has_intercept,
    side_text,
    without_intercept,
)
from bayeslmm.formula.text import group_text
from bayeslmm.formula.tree import Bar, Chain, Node

Group = tuple[str, ...]


def bar_terms(cursor: Cursor, bars: list[Bar]) -> tuple[BarTerm, ...]:
    """The random terms of a formula, in the order written.

    Errors: a variable on both sides of a bar, a term twice for the same grouping factor, more than 10,000 terms.
    """
    found: list[BarTerm] = []
    seen: dict[frozenset[str], set[frozenset[str]]] = {}
    total = 0
    for bar in bars:
        structure = _demand_random(cursor, bar)
        items = flat_items(cursor, bar.lefts[0])
        total += demand_countable(cursor, [node for _, node in without_intercept(items)]) + _count_groups(bar.group)
        if total > MAX_TERMS:
            what = f"the random terms expand to {total:,} terms" if total < 10**12 else "the random terms expand to more than 10^12 terms"
            raise cursor.error_between(bar.start, bar.end, what, f"the limit is {MAX_TERMS:,}", FormulaLimitError)
        _demand_shallow(cursor, bar)
        terms = set(expand(items)) | ({frozenset[str]()} if has_intercept(items) else set())
        if not terms:
            raise cursor.error_between(bar.start, bar.end, "a random term without columns", "write (1 | g) or (0 + x | g)")
        lefts = _split(items) if bar.double else (side_text(items),)
        for group in _groups(bar.group):
            _demand_sides_apart(cursor, bar, group)
            _demand_new(cursor, bar, terms, seen.setdefault(frozenset(group), set()))
            found.extend(BarTerm(structure, bar.order, left, group, f"{left} | {group_text(group)}") for left in lefts)
    return tuple(found)


def _demand_random(cursor: Cursor, bar: Bar) -> str:
    name = bar.structure or "us"
    if len(bar.lefts) > 1 or name not in PLAIN:
        what = "coordinates of a spatial structure" if name not in PLAIN and "@" not in name else "several lists before the bar"
        remedy = "a residual covariance is given by residual=; a random term is (x + z | g)"
        raise cursor.error_between(bar.start, bar.end, f"{what} in a random term", remedy)
    return canonical(name, bar.order)


def _demand_shallow(cursor: Cursor, bar: Bar) -> None:
    """The deepest interaction of `a/b/c` or `a:b:c` has all of its columns."""
    size = len(set(columns(bar.group)))
    if size > MAX_ORDER:
        what = f"a grouping factor of {size:,} columns"
        raise cursor.error_between(bar.start, bar.end, what, f"the limit is {MAX_ORDER}", FormulaLimitError)


def _split(items: Items) -> tuple[str, ...]:
    """The left sides that `||` stands for: one for each additive component, as in lme4."""
    slopes = tuple(f"0 + {':'.join(term)}" for term in expand(items).values())
    return ("1", *slopes) if has_intercept(items) else slopes


def _demand_sides_apart(cursor: Cursor, bar: Bar, group: Group) -> None:
    for name in columns(bar.lefts[0]):
        if name in group:
            what = f"{name!r} stands on both sides of the bar"
            raise cursor.error_between(bar.start, bar.end, what, f"write (1 | {group_text(group)}), or another column on the left")


def _demand_new(cursor: Cursor, bar: Bar, terms: set[frozenset[str]], seen: set[frozenset[str]]) -> None:
    twice = terms & seen
    if twice:
        shown = sorted(":".join(sorted(term)) or "1" for term in twice)[0]
        what = f"the random term {shown!r} is given twice for the same grouping factor"
        raise cursor.error_between(bar.start, bar.end, what, "leave one out; a bar has an intercept unless it says 0 +")
    seen |= terms


# ----------------------------------------------------------------------------------------------------------------- groups


def _count_groups(node: Node) -> int:
    if not isinstance(node, Chain):
        return 1
    counts = [_count_groups(node.first), *(_count_groups(operand) for _, operand in node.rest)]
    total = counts[0]
    for (operator, _), count in zip(node.rest, counts[1:], strict=True):
        total = total * count if operator == ":" else total + count + (total * count if operator == "*" else 0)
        if total > 10**15:
            break  # far beyond the limit: numbers of thousands of digits are not needed to say so
    return total


def _groups(node: Node) -> list[Group]:
    """The grouping factors of what stands behind a bar: `a/b` is `a`, `a:b`."""
    if not isinstance(node, Chain):
        return [tuple(columns(node))]
    found = _groups(node.first)
    for operator, operand in node.rest:
        found = _combine(operator, found, _groups(operand))
    return list(dict.fromkeys(found))


def _combine(operator: str, left: list[Group], right: list[Group]) -> list[Group]:
    if operator == "/":
        parents = tuple(dict.fromkeys(name for group in left for name in group))
        return left + _interact([parents], right)
    crossed = _interact(left, right)
    return crossed if operator == ":" else left + right + crossed


def _interact(left: list[Group], right: list[Group]) -> list[Group]:
    return [tuple(dict.fromkeys((*first, *second))) for first in left for second in right]
