"""Expansion of `*`, `/`, `^` and bars to terms, counted before anything is expanded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import comb

from bayeslmm.covariance.registry import canonical, names
from bayeslmm.errors import FormulaError, FormulaLimitError
from bayeslmm.formula.syntax import (
    CONSTANTS,
    Bar,
    BarTerm,
    Call,
    Chain,
    ListLiteral,
    Name,
    Node,
    Offset,
    Power,
    Sum,
    Terms,
    Unary,
    Value,
    group_text,
    term_text,
)
from bayeslmm.formula.tokens import Cursor

MAX_TERMS = 10_000
MAX_INTERACTION = 16  # columns in one interaction: coding it looks at each of its 2^16 margins
Items = tuple[tuple[str, Node], ...]


def flat_items(cursor: Cursor, terms: Sum) -> Items:
    """The summands with the brackets of plain sums taken away."""
    return tuple(_flat(cursor, terms, "+"))


def _flat(cursor: Cursor, terms: Sum, outer: str) -> Iterator[tuple[str, Node]]:
    for sign, node in terms.items:
        if outer == "-" and sign == "-":
            raise cursor.error_between(node.start, node.end, "a minus inside a bracket that is subtracted", "write the terms that stay")
        if isinstance(node, Sum):
            yield from _flat(cursor, node, "-" if "-" in (sign, outer) else "+")
        else:
            yield "-" if "-" in (sign, outer) else "+", node


def has_intercept(items: Items) -> bool:
    """Whether the summands leave the implicit intercept in; the last `0`, `1`, `-1` decides."""
    marks = [(sign == "+") == (node.text == "1") for sign, node in items if isinstance(node, Value)]
    return marks[-1] if marks else True


def without_intercept(items: Items) -> Items:
    """The summands other than `0` and `1`."""
    return tuple((sign, node) for sign, node in items if not isinstance(node, Value))


def side_text(items: Items) -> str:
    """The right-hand side with its intercept spelled: `1 + Days`, `0 + Machine`."""
    text = "1" if has_intercept(items) else "0"
    for sign, node in without_intercept(items):
        text += f" {sign} {term_text(node)}"
    return text


# ------------------------------------------------------------------------------------------------------------------ count


def count_terms(cursor: Cursor, nodes: Iterable[Node]) -> int:
    """The number of terms; raises FormulaLimitError beyond 10,000 terms or 16 columns in an interaction."""
    total = 0
    for node in nodes:
        count, order = _count(node)
        total += count
        if total > MAX_TERMS:
            what = f"the formula has {total:,} terms" if total < 10**12 else "the formula has more than 10^12 terms"
            raise cursor.error_between(node.start, node.end, what, f"the limit is {MAX_TERMS:,}", FormulaLimitError)
        if order > MAX_INTERACTION:
            what = f"an interaction of {order:,} columns"
            raise cursor.error_between(node.start, node.end, what, f"the limit is {MAX_INTERACTION}", FormulaLimitError)
    return total


def _count(node: Node) -> tuple[int, int]:
    """(terms, columns of the longest), an upper bound where columns are repeated."""
    if isinstance(node, Sum):
        parts = [_count(item) for _, item in node.items]
        return sum(count for count, _ in parts), max(order for _, order in parts)
    if isinstance(node, Power):
        count, order = _count(node.base)
        exponent = int(node.exponent.text) if isinstance(node.exponent, Value) else 1
        return sum(comb(count, k) for k in range(1, exponent + 1)), order * min(count, exponent)
    if isinstance(node, Chain):
        return _count_chain(node)
    return 1, 1


def _count_chain(node: Chain) -> tuple[int, int]:
    count, order = _count(node.first)
    width = _width(node.first)
    for operator, operand in node.rest:
        here, longest = _count(operand)
        if operator == "*":
            count, order = count + here + count * here, order + longest
        elif operator == ":":
            count, order = count * here, order + longest
        elif operator == "%in%":
            order += _width(operand)
        else:
            count, order = count + here, width + longest
        width += _width(operand)
        if count > 10**15:
            break  # far beyond the limit: numbers of thousands of digits are not needed to say so
    return count, order


def _width(node: Node) -> int:
    """Columns that the terms of a node have together, at most."""
    if isinstance(node, Sum):
        return sum(_width(item) for _, item in node.items)
    if isinstance(node, Chain):
        return _width(node.first) + sum(_width(operand) for _, operand in node.rest)
    return _width(node.base) if isinstance(node, Power) else 1


# ----------------------------------------------------------------------------------------------------------------- expand

TermTable = dict[frozenset[str], tuple[str, ...]]  # the atoms of a term, unordered and ordered


def expand_summands(items: Items) -> TermTable:
    """The terms of counted summands, by degree; the intercept is not among them."""
    return dict(sorted(_expand_sum(items).items(), key=lambda pair: len(pair[1])))


def side_terms(items: Items) -> Terms:
    """The terms of a right-hand side as tuples of atoms, the intercept () first where there is one."""
    return ((),) * has_intercept(items) + tuple(expand_summands(items).values())


def _expand_sum(items: Items) -> TermTable:
    """The same in the order written, which is the order of the atoms of products."""
    terms: TermTable = {}
    for sign, node in without_intercept(items):
        found = _expand(node)
        if sign == "+":
            _add(terms, found)
            continue
        absent = [term for key, term in found.items() if key not in terms]
        if absent:
            there = ", ".join(":".join(term) for term in terms.values()) or "none"
            raise FormulaError(f"{':'.join(absent[0])} is taken away and is not there", f"terms before it: {there}", "leave it out")
        for key in found:
            del terms[key]
    return terms


def _expand(node: Node) -> TermTable:
    if isinstance(node, Sum):
        return _expand_sum(node.items)
    if isinstance(node, Power):
        base = _expand(node.base)
        found = base
        for _ in range(int(node.exponent.text) - 1 if isinstance(node.exponent, Value) else 0):
            found = _interact(found, base)  # a term times itself is the term, so lower powers stay
        return found
    if isinstance(node, Chain):
        found = _expand(node.first)
        for operator, operand in node.rest:
            found = _combine(operator, found, _expand(operand))
        return found
    text = term_text(node)
    return {frozenset([text]): (text,)}


def _combine(operator: str, left: TermTable, right: TermTable) -> TermTable:
    if operator == ":":
        return _interact(left, right)
    if operator == "*":
        return _union(left, right, _interact(left, right))
    parents, nested = (right, left) if operator == "%in%" else (left, right)
    together = tuple(dict.fromkeys(atom for term in parents.values() for atom in term))
    whole = {frozenset(together): together}
    return _interact(nested, whole) if operator == "%in%" else _union(parents, _interact(whole, nested))


def _union(*parts: TermTable) -> TermTable:
    """TermTable in order; one that comes again stays as it was first written."""
    found: TermTable = {}
    for terms in parts:
        _add(found, terms)
    return found


def _add(found: TermTable, terms: TermTable) -> None:
    for key, term in terms.items():
        found.setdefault(key, term)


def _interact(left: TermTable, right: TermTable) -> TermTable:
    found: TermTable = {}
    for first in left.values():
        for second in right.values():
            term = tuple(dict.fromkeys((*first, *second)))
            found.setdefault(frozenset(term), term)
    return found


# ---------------------------------------------------------------------------------------------------------------- columns


def columns_read(node: Node, inside: bool = False) -> Iterator[str]:
    """The columns that a node reads, in order, with repetitions. `inside` an expression a bare `pi` is the number."""
    if isinstance(node, Name):
        if not (inside and node.name in CONSTANTS and not node.quoted):
            yield node.name
    else:
        deeper = inside or isinstance(node, Call | Offset | Unary)
        for part in _parts(node):
            yield from columns_read(part, deeper)


def _parts(node: Node) -> Iterator[Node]:
    if isinstance(node, Call):
        yield from node.arguments
    elif isinstance(node, Chain):
        yield node.first
        yield from (operand for _, operand in node.rest)
    elif isinstance(node, Sum):
        yield from (item for _, item in node.items)
    elif isinstance(node, Power):
        yield node.base
        yield node.exponent
    elif isinstance(node, Unary):
        yield node.operand
    elif isinstance(node, Offset):
        yield node.expression
    elif isinstance(node, Bar):
        yield from node.lefts
        yield node.group
    elif isinstance(node, ListLiteral):
        yield from node.items


Group = tuple[str, ...]


def bar_terms(cursor: Cursor, bars: list[Bar]) -> tuple[BarTerm, ...]:
    """The random terms of a formula, in the order written.

    Errors: a variable on both sides of a bar, a term twice for the same grouping factor, more than 10,000 terms.
    """
    found: list[BarTerm] = []
    seen: dict[frozenset[str], set[frozenset[str]]] = {}
    total = 0
    for bar in bars:
        structure = _require_random(cursor, bar)
        items = _cells(cursor, bar) if "@" in structure else flat_items(cursor, bar.lefts[0])
        total += count_terms(cursor, [node for _, node in without_intercept(items)]) + _count_groups(bar.group)
        if total > MAX_TERMS:
            what = f"the random terms expand to {total:,} terms" if total < 10**12 else "the random terms expand to more than 10^12 terms"
            raise cursor.error_between(bar.start, bar.end, what, f"the limit is {MAX_TERMS:,}", FormulaLimitError)
        _require_shallow(cursor, bar)
        expanded = side_terms(items)
        terms = {frozenset(term) for term in expanded}
        if not terms:
            raise cursor.error_between(bar.start, bar.end, "a random term without columns", "write (1 | g) or (0 + x | g)")
        lefts = _split(expanded) if bar.double else ((side_text(items), expanded),)
        for group in _groups(bar.group):
            _require_sides_apart(cursor, bar, group)
            _require_new(cursor, bar, terms, seen.setdefault(frozenset(group), set()))
            found.extend(BarTerm(structure, bar.order, left, group, f"{left} | {group_text(group)}", own) for left, own in lefts)
    return tuple(found)


def _require_random(cursor: Cursor, bar: Bar) -> str:
    name = bar.structure or "us"
    if "@" in name:
        wrong = [factor for factor in name.split("@") if factor not in names("D")]
        if wrong or len(bar.lefts) != name.count("@") + 1:
            what = f"{wrong[0]} in a random term" if wrong else f"a product of {name.count('@') + 1} with {len(bar.lefts)} columns"
            remedy = "use car1, a function of distances in one column" if wrong else "name a column for each: (ar1(row):ar1(col) | trial)"
            raise cursor.error_between(bar.start, bar.end, what, remedy)
    elif len(bar.lefts) > 1 or name not in names("D"):
        what, remedy = "several lists before the bar", "a random term is (x + z | g)"
        if name not in names("D"):
            # effects of places and independent errors add up to errors with a nugget, also where several rows share a place
            what, remedy = "coordinates of a spatial structure", f'residual="{name}(x, y | g) + local" is the same model'
        raise cursor.error_between(bar.start, bar.end, f"{what} in a random term", remedy)
    return canonical(name, bar.order)


def _cells(cursor: Cursor, bar: Bar) -> Items:
    """The left side of a product: an indicator of every cell, those of the last column running fastest, as rows of a product do."""
    factors: list[tuple[str, Node]] = []
    for left in reversed(bar.lefts):
        column = without_intercept(flat_items(cursor, left))
        if len(column) != 1 or column[0][0] == "-" or not isinstance(column[0][1], Name | Call):
            what = "a factor of a product takes one column"
            raise cursor.error_between(left.start, left.end, what, "name the column: (ar1(row):ar1(col) | trial)")
        node = column[0][1]
        factors.append((":", node if isinstance(node, Call) else Call("C", (node,), (), node.start, node.end)))
    cells = Chain(factors[0][1], tuple(factors[1:]), bar.start, bar.end)
    return ("+", Value("0", "number", bar.start, bar.start)), ("+", cells)


def _require_shallow(cursor: Cursor, bar: Bar) -> None:
    """The deepest interaction of `a/b/c` or `a:b:c` has all of its columns."""
    size = len(set(columns_read(bar.group)))
    if size > MAX_INTERACTION:
        what = f"a grouping factor of {size:,} columns"
        raise cursor.error_between(bar.start, bar.end, what, f"the limit is {MAX_INTERACTION}", FormulaLimitError)


def _split(terms: Terms) -> tuple[tuple[str, Terms], ...]:
    """The left sides that `||` stands for, text and term: one for each additive component, as in lme4."""
    return tuple((f"0 + {':'.join(term)}" if term else "1", (term,)) for term in terms)


def _require_sides_apart(cursor: Cursor, bar: Bar, group: Group) -> None:
    for name in (name for left in bar.lefts for name in columns_read(left)):
        if name in group:
            what = f"{name!r} stands on both sides of the bar"
            raise cursor.error_between(bar.start, bar.end, what, f"write (1 | {group_text(group)}), or another column on the left")


def _require_new(cursor: Cursor, bar: Bar, terms: set[frozenset[str]], seen: set[frozenset[str]]) -> None:
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
        return [tuple(columns_read(node))]
    found = _groups(node.first)
    for operator, operand in node.rest:
        found = _combine_groups(operator, found, _groups(operand))
    return list(dict.fromkeys(found))


def _combine_groups(operator: str, left: list[Group], right: list[Group]) -> list[Group]:
    if operator == "/":
        parents = tuple(dict.fromkeys(name for group in left for name in group))
        return left + _interact_groups([parents], right)
    crossed = _interact_groups(left, right)
    return crossed if operator == ":" else left + right + crossed


def _interact_groups(left: list[Group], right: list[Group]) -> list[Group]:
    return [tuple(dict.fromkeys((*first, *second))) for first in left for second in right]
