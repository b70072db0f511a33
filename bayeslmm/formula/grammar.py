"""The algebra of terms: `+ - * / : ^ %in%`, bars, wrappers around bars, offsets."""

from __future__ import annotations

from itertools import pairwise

from bayeslmm.covariance.base import StructureOrder
from bayeslmm.covariance.registry import MAX_ORDER, is_structure, nearest_structures, takes_order, takes_orders
from bayeslmm.errors import FormulaLimitError
from bayeslmm.formula.expression import COMPARISONS, read_expression, read_named
from bayeslmm.formula.syntax import CODINGS, Bar, Chain, Name, Node, Offset, Power, Sum, Value, own_name
from bayeslmm.formula.tokens import Cursor, Token, describe_token

MAX_TERM_EXPONENT = 8
_PRODUCTS: tuple[tuple[str, ...], ...] = (("*", "/"), ("%in%",), (":",))


_ADDITIONS = {
    "se": "known standard errors are weights=1/se**2 and sigma=1.0",
    **dict.fromkeys(("weights", "w"), "name the column of weights as weights="),
    "mi": "rows without an outcome are left out by themselves: drop mi()",
    "subset": "choose the rows beforehand: data[condition]",
    **dict.fromkeys(("trunc", "cens", "resp_trunc", "resp_cens"), "outcomes cut off or censored are not here: brms has them"),
    **dict.fromkeys(
        ("trials", "rate", "cat", "dec", "thres", "vint", "vreal"), "responses are continuous and normal here: brms has others"
    ),
}
"""What follows the bar of a response in brms, and what it is here."""


def read_sides(cursor: Cursor) -> tuple[Node, Sum]:
    """Both sides of `response ~ terms`, to the end of the text."""
    if len(cursor.tokens) == 1:
        raise cursor.error(cursor.token, "the formula is empty", "write response ~ terms")
    if cursor.token.says("~"):
        raise cursor.error(cursor.token, "the left side is empty", "write response ~ terms")
    response = read_expression(cursor)
    if cursor.token.says("|"):
        bar, word = cursor.token, cursor.ahead().text
        raise cursor.error(bar, "a response has no addition behind a bar", _ADDITIONS.get(word, "leave out what follows the bar"))
    cursor.expect("~", f"'~' is missing before {describe_token(cursor.token)}", "write response ~ terms")
    if cursor.token.says("~"):
        raise cursor.error(cursor.token, "a second '~'", "write response ~ terms")
    if cursor.token.kind == "end":
        raise cursor.error(cursor.token, "the right side is empty", "write 1 for an intercept alone")
    terms = read_sum(cursor)
    if cursor.token.says("|", "||"):
        raise cursor.error(cursor.token, "a random term stands in brackets", "write it as (x | g)")
    if cursor.token.says("~"):
        raise cursor.error(cursor.token, "a second '~'", "a formula has one response")
    cursor.require_end()
    return response, terms


def read_sum(cursor: Cursor) -> Sum:
    """Signed summands, until something else comes."""
    cursor.deeper()
    start = cursor.token.start
    items: list[tuple[str, Node]] = []
    sign = cursor.take("+", "-")
    while True:
        minus = sign is not None and sign.text == "-"
        if sign is not None and not minus and cursor.token.says("-"):
            cursor.next()  # `x + -1`, as R prints it
            minus = True
        item = _product(cursor, 0)
        if minus and _holds_bar(item):
            raise cursor.error_between(item.start, item.end, "a random term or an offset cannot be subtracted", "leave it out")
        items.append(("-" if minus else "+", item))
        if (sign := cursor.take("+", "-")) is None:
            break
    cursor.depth -= 1
    return Sum(tuple(items), start, items[-1][1].end)


def _holds_bar(node: Node) -> bool:
    return isinstance(node, Bar | Offset) or (isinstance(node, Sum) and any(_holds_bar(item) for _, item in node.items))


def _product(cursor: Cursor, level: int) -> Node:
    if level == len(_PRODUCTS):
        return _power(cursor)
    first = _product(cursor, level + 1)
    rest: list[tuple[str, Node]] = []
    while (token := cursor.take(*_PRODUCTS[level])) is not None:
        rest.append((token.text, _product(cursor, level + 1)))
    if not rest:
        return first
    for operand in (first, *(node for _, node in rest)):
        _require_factor(cursor, operand)
    return Chain(first, tuple(rest), first.start, rest[-1][1].end)


def _require_factor(cursor: Cursor, node: Node) -> None:
    """Refuse what has no meaning in a product: random terms, offsets, 0 and 1."""
    if _holds_bar(node):
        raise cursor.error_between(node.start, node.end, "a random term or an offset is added, not multiplied", "join it by +")
    constants = [item for _, item in node.items if isinstance(item, Value)] if isinstance(node, Sum) else []
    if isinstance(node, Value) or constants:
        raise cursor.error_between(node.start, node.end, "an intercept inside a product", "leave 0 and 1 out; arithmetic stands in I(...)")


def _power(cursor: Cursor) -> Node:
    base = _operand(cursor)
    if cursor.token.says(*COMPARISONS):
        remedy = f"write I({cursor.text[base.start : base.end]} {cursor.token.text} ...), which is 1 where it holds"
        raise cursor.error(cursor.token, "a comparison is no term by itself", remedy)
    if (operator := cursor.take("**", "^")) is None:
        return base
    _require_factor(cursor, base)
    token = cursor.next()
    if token.kind != "number" or not token.text.isdecimal() or int(token.text) < 1:
        raise cursor.error(token, "an exponent of terms is a whole number above 0", "arithmetic stands in I(...): I(x**2)")
    if int(token.text) > MAX_TERM_EXPONENT:
        raise cursor.error(token, f"an exponent of {token.text}", f"the limit is {MAX_TERM_EXPONENT}", FormulaLimitError)
    if not isinstance(base, Sum) and int(token.text) > 1:
        raise cursor.error_between(base.start, token.end, "a power of one term is the term itself", "the square of a column is I(x**2)")
    if cursor.token.says("**", "^"):
        raise cursor.error(operator, "a power of a power", "multiply the exponents")
    return Power(base, Value(token.text, "number", token.start, token.end), base.start, token.end)


def _operand(cursor: Cursor) -> Node:
    token = cursor.token
    cursor.operations = 0
    if token.says("("):
        return _bracket(cursor)
    if token.kind == "number":
        cursor.next()
        if token.text not in ("0", "1"):
            raise cursor.error(
                token, f"the number {token.text} is no term", "0 and 1 say whether there is an intercept; arithmetic stands in I(...)"
            )
        return Value(token.text, "number", token.start, token.end)
    if token.kind in ("name", "quoted"):
        if token.kind == "name" and cursor.ahead().says("(", "@"):
            return _read_call(cursor)
        return read_named(cursor)
    if token.kind == "string":
        raise cursor.error(token, "a string is no term", "a column with a strange name stands in backticks")
    raise cursor.error(token, f"a term is missing before {describe_token(token)}", "complete the formula")


def _bracket(cursor: Cursor) -> Node:
    if is_product(cursor):
        return read_product(cursor)
    opening = cursor.next()
    inner = read_sum(cursor)
    if cursor.token.says("|", "||"):
        _require_plain(cursor, inner)
        double = cursor.next().text == "||"
        group = read_group(cursor)
        remedy = "leave out what stands between two bars: (x | g)" if cursor.token.says("|", "||") else _GROUP
        end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place in a grouping factor", remedy).end
        return Bar(None, (inner,), double, group, None, opening.start, end)
    end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place", "separate terms by an operator such as +").end
    return Sum(inner.items, opening.start, end)


def _require_plain(cursor: Cursor, inner: Sum) -> None:
    if _holds_bar(inner):
        raise cursor.error_between(inner.start, inner.end, "a random term or an offset inside a random term", "take it out of the bracket")


def _read_call(cursor: Cursor) -> Node:
    """`name(...)`: a wrapper when there is a bar in its bracket, an offset, or a function of columns."""
    name = cursor.token
    if has_bar(cursor, 1) or cursor.ahead().says("@") or (is_structure(name.text) and has_bar(cursor, 2)):
        return read_wrapper(cursor)
    if name.text == "offset":
        cursor.next()
        cursor.next()
        expression = read_expression(cursor)
        end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place in offset()", "write offset(z)").end
        return Offset(expression, name.start, end)
    if is_structure(name.text) and name.text not in (cursor.functions or ()):
        remedy = f"({name.text}(row):... | trial)" if is_product(cursor) else f"{name.text}(x | g)"
        raise cursor.error(name, f"{name.text}() has no bar", f"a random term is written {remedy}")
    return read_named(cursor)


def has_bar(cursor: Cursor, within: int) -> bool:
    """Whether a bar stands in the bracket that opens after the name ahead, `within` brackets deep."""
    depth = 0
    for token in cursor.tokens[cursor.at + 1 :]:
        if token.says("(", "["):
            depth += 1
        elif token.says(")", "]"):
            depth -= 1
            if depth == 0:
                return False
        elif depth == within and token.says("|", "||"):
            return True
    return False


# ---------------------------------------------------------------------------------------------------- wrappers and groups

_GROUP = "a grouping factor is a column, or columns joined by ':' or '/'"


def read_wrapper(cursor: Cursor) -> Bar:
    """`us(x | g)`, `toep(0 + visit | g, 2)`, `sp_exp(x, y | id)`, `us@ar1(outcome, visit | id)`, `us((x | g))`."""
    start = cursor.token
    doubled = not cursor.ahead().says("@") and not has_bar(cursor, 1)
    structure = _structure(cursor)
    cursor.expect("(", f"'(' is missing before {describe_token(cursor.token)}", f"write {structure}(x | g)")
    if doubled:
        cursor.expect("(", f"a bar is missing in {structure}()", f"write {structure}(x | g)")
    lefts = [_left_side(cursor)]
    while cursor.take(",") is not None:
        lefts.append(_left_side(cursor))
    if not cursor.token.says("|", "||"):
        raise cursor.error(cursor.token, f"a bar is missing before {describe_token(cursor.token)}", f"write {structure}(x | g)")
    if cursor.next().text == "||":
        raise cursor.error(cursor.tokens[cursor.at - 1], "'||' inside a covariance structure", f"write (x || g), or {structure}(x | g)")
    group = read_group(cursor)
    if doubled:
        cursor.expect(")", f"{describe_token(cursor.token)} is out of place", "balance the brackets")
    order = _order(cursor, structure) if cursor.take(",") is not None else None
    end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place in {structure}()", _GROUP).end
    return Bar(structure, tuple(lefts), False, group, order, start.start, end)


def _left_side(cursor: Cursor) -> Sum:
    inner = read_sum(cursor)
    _require_plain(cursor, inner)
    return inner


def _structure(cursor: Cursor) -> str:
    start = cursor.next()
    name = start.text
    while cursor.take("@") is not None:
        name += "@" + cursor.next().text
    if start.kind != "name" or not is_structure(name):
        end = cursor.tokens[cursor.at - 1].end
        wrong = [factor for factor in name.split("@") if not is_structure(factor)]
        remedy = nearest_structures(wrong[0]) if wrong else _FACTOR_FIRST
        raise cursor.error_between(start.start, end, f"there is no covariance structure {name!r}", remedy)
    return name


_FACTOR_FIRST = "a structure of factors (fa, fa0, fa1) comes first in a product: fa@ar1(outcome, visit | subject)"


def is_product(cursor: Cursor) -> bool:
    """Whether calls joined by `:` or `@` stand ahead, perhaps in a bracket: `ar1(row):ar1(col)`, `(ar1(row) @ id(col) | trial)`."""
    depth, tokens = 0, cursor.tokens[cursor.at + (1 if cursor.token.says("(") else 0) :]
    if len(tokens) < 2 or not is_structure(tokens[0].text) or not tokens[1].says("("):
        return False
    for token, after in pairwise(tokens[1:]):
        depth += token.says("(") - token.says(")")
        if depth == 0:
            return after.says(":", "@")
    return False


def read_product(cursor: Cursor) -> Bar:
    """A product of structures, each with its column: `ar1(row):ar1(col)`, `us(outcome) @ ar1(visit) | subject`.

    The bar stands behind the last, with or without a bracket around all.
    """
    start, names, lefts = cursor.token, list[str](), list[Sum]()
    bracket = cursor.take("(") is not None
    while True:
        names.append(_structure(cursor))
        cursor.expect("(", f"'(' is missing before {describe_token(cursor.token)}", f"write {names[-1]}(row)")
        lefts.append(_left_side(cursor))
        what = f"{describe_token(cursor.token)} is out of place in a factor of a product"
        cursor.expect(")", what, "each factor is a structure of one column, and a bar follows the last: ar1(row):ar1(col) | trial")
        if cursor.take(":", "@") is None:
            break
    end = cursor.tokens[cursor.at - 1].end
    group: Node = Sum((), end, end)
    if cursor.take("|") is not None:
        group = read_group(cursor) if bracket else _group(cursor, 0)  # behind which a nugget may stand
    if bracket:
        end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place in a product of structures", "balance the brackets").end
    structure = "@".join(names)
    if not is_structure(structure):
        raise cursor.error_between(start.start, end, f"there is no covariance structure {structure!r}", _FACTOR_FIRST)
    return Bar(structure, tuple(lefts), False, group, None, start.start, max(end, group.end))


def read_series(cursor: Cursor) -> Bar:
    """A residual structure without a bar, all rows one series: `ar1(Year)`, `arma(Year, 2, 1)`, `toep(1, 3)`, `sp_exp(x, y)`."""
    start = cursor.token
    structure = _structure(cursor)
    cursor.expect("(", f"'(' is missing before {describe_token(cursor.token)}", f"write {structure}(time)")
    lefts, order = [_left_side(cursor)], None
    while cursor.take(",") is not None:
        if cursor.token.kind == "number" or cursor.ahead().says("="):
            order = _order(cursor, structure)
            break
        lefts.append(_left_side(cursor))
    end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place in {structure}()", f"write {structure}(time | subject)").end
    return Bar(structure, tuple(lefts), False, Sum((), end, end), order, start.start, end)


def _order(cursor: Cursor, structure: str) -> StructureOrder | None:
    """What follows the grouping factor: a number of bands or factors; of arma p and q, None for (1, 1), which it has without."""
    if "@" not in structure and takes_orders(structure):
        orders = _number(cursor, structure, "p"), _number(cursor, structure, "q") if cursor.take(",") is not None else 0
        if orders == (0, 0):
            raise cursor.error(cursor.tokens[cursor.at - 1], f"both orders of {structure} are 0", "leave the structure out")
        return None if orders == (1, 1) else orders
    if "@" in structure or not takes_order(structure):
        token = cursor.next()
        nugget = "; a nugget stands behind it: + local" if token.text in ("nugget", "local") else ""
        raise cursor.error(token, f"{structure} has no order", f"write {structure}(x | g){nugget}")
    return _number(cursor, structure, "order")


def _number(cursor: Cursor, structure: str, word: str) -> int:
    if cursor.token.kind == "name" and cursor.token.text in {word, "q"} and cursor.ahead().says("="):
        cursor.next()
        cursor.next()
    token, least = cursor.next(), 1 if word == "order" else 0
    if token.kind != "number" or not token.text.isdecimal() or int(token.text) < least:
        remedy = f"write {structure}(x | g, 2)" if least else f"write {structure}(x | g, 2, 1)"
        raise cursor.error(token, f"the order of {structure} is not a whole number {'above 0' if least else 'of 0 or more'}", remedy)
    if int(token.text) > MAX_ORDER:
        raise cursor.error(token, f"an order of {token.text}", f"the limit is {MAX_ORDER:,}", FormulaLimitError)
    return int(token.text)


def read_group(cursor: Cursor) -> Node:
    """What stands behind the bar: columns joined by `:`, `/`, `*`."""
    group = _group(cursor, 0)
    if cursor.token.says("+", "-"):
        raise cursor.error(cursor.token, "a sum of grouping factors", "write a term for each: (1 | a) + (1 | b)")
    return group


def _group(cursor: Cursor, level: int) -> Node:
    if level == len(_PRODUCTS):
        return _grouping_column(cursor)
    first = _group(cursor, level + 1)
    rest: list[tuple[str, Node]] = []
    while (token := cursor.take(*_PRODUCTS[level])) is not None:
        if token.text == "%in%":
            raise cursor.error(token, "'%in%' in a grouping factor", "write parent / child")
        rest.append((token.text, _group(cursor, level + 1)))
    return Chain(first, tuple(rest), first.start, rest[-1][1].end) if rest else first


def _grouping_column(cursor: Cursor) -> Name | Node:
    token: Token = cursor.token
    if cursor.take("(") is not None:
        cursor.deeper()
        inner = read_group(cursor)
        cursor.depth -= 1
        cursor.expect(")", f"{describe_token(cursor.token)} is out of place in a grouping factor", _GROUP)
        return inner
    if token.kind == "name" and own_name(token.text) in CODINGS and cursor.ahead().says("("):
        cursor.next()  # a grouping factor is a factor anyway
        cursor.next()
        column = cursor.column("a grouping factor")
        cursor.expect(")", f"{describe_token(cursor.token)} is out of place in a grouping factor", _GROUP)
        return column
    if token.kind == "number":
        raise cursor.error(token, f"the number {token.text} is no grouping factor", _GROUP)
    return cursor.column("a grouping factor")
