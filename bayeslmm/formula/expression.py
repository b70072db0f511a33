"""The grammar of expressions: arithmetic, calls, codings and constants. What it does not read has no form here."""

from __future__ import annotations

import math
from dataclasses import replace

from bayeslmm.errors import FormulaLimitError
from bayeslmm.formula.syntax import (
    CODINGS,
    CONSTANTS,
    CONTRASTS,
    FUNCTIONS,
    LITERALS,
    MAX_BASIS_COLUMNS,
    OWN_FUNCTION,
    RESERVED,
    Call,
    Chain,
    ListLiteral,
    Name,
    Node,
    OptionKind,
    Power,
    Signature,
    Unary,
    Value,
    function_remedy,
    own_name,
)
from bayeslmm.formula.terms import columns_read
from bayeslmm.formula.tokens import Cursor, Token, describe_token

Constant = Value | Unary | ListLiteral


def read_number(cursor: Cursor) -> Value:
    """A number, printed as Python prints it."""
    token = cursor.next()
    whole = token.text.isdecimal()
    value = int(token.text) if whole else float(token.text)
    if not math.isfinite(value) or abs(value) >= 1e300:
        raise cursor.error(token, f"the number {token.text} is too large", "scale the column beforehand")
    return Value(repr(value), "number", token.start, token.end)


def read_string(cursor: Cursor) -> Value:
    """A string."""
    token = cursor.next()
    return Value(repr(token.text), "string", token.start, token.end)


def read_constant(cursor: Cursor) -> Constant:
    """A number, a string, True, False, None (also as R writes them), or a list of these."""
    token = cursor.token
    if token.kind == "number":
        return read_number(cursor)
    if token.kind == "string":
        return read_string(cursor)
    if token.kind == "name" and token.text in LITERALS:
        cursor.next()
        return Value(LITERALS[token.text], "literal", token.start, token.end)
    if token.says("-") and cursor.ahead().kind == "number":
        cursor.next()
        number = read_number(cursor)
        return Unary("-", number, token.start, number.end)
    if token.says("["):
        return read_list(cursor)
    raise cursor.error(token, "an option is a number, a string, True, False, None or a list of these", "give a constant")


def read_list(cursor: Cursor) -> ListLiteral:
    """A flat list of constants."""
    opening = cursor.expect("[", "a list is missing", 'write it as ["a", "b"]')
    items: list[Node] = []
    while not cursor.token.says("]"):
        if cursor.token.says("["):
            raise cursor.error(cursor.token, "a list in a list", "give a flat list")
        items.append(read_constant(cursor))
        if cursor.take(",") is None:
            break
    end = cursor.expect("]", f"{describe_token(cursor.token)} is out of place in a list", "separate the items by commas").end
    return ListLiteral(tuple(items), opening.start, end)


def read_option(cursor: Cursor, option: str, kind: OptionKind | None) -> Constant:
    """The value of an option of a known function; kind None (a user's function) takes any constant."""
    start = cursor.token
    value = read_constant(cursor)
    absent = isinstance(value, Value) and value.text == "None"
    if kind is None or absent:
        return value
    if _kind(value) != {"count": "number", "word": "string"}.get(kind, kind):
        raise cursor.error(start, f"{option} is not a {kind}", f"give a {kind}")
    if kind == "count":
        _require_count(cursor, start, option, value)
    return value


def _kind(value: Constant) -> str:
    if isinstance(value, ListLiteral):
        return (
            "numbers"
            if all(isinstance(item, Unary) or (isinstance(item, Value) and item.kind == "number") for item in value.items)
            else "list"
        )
    if isinstance(value, Unary):
        return "number"
    return "flag" if value.kind == "literal" else value.kind


def _require_count(cursor: Cursor, start: Token, option: str, value: Constant) -> None:
    if not isinstance(value, Value) or not value.text.isdecimal() or int(value.text) < 1:
        raise cursor.error(start, f"{option} is not a whole number above 0", f"give for instance {option}=3")
    if int(value.text) > MAX_BASIS_COLUMNS:
        raise cursor.error(start, f"{option} is {int(value.text):,}", f"the limit is {MAX_BASIS_COLUMNS:,}", FormulaLimitError)


_USAGE = "write C(factor, contrasts, levels=[...])"


def read_coding(cursor: Cursor, name: Token) -> Call:
    """The call whose name has been taken."""
    cursor.next()
    arguments: list[Node] = [cursor.column(f"the factor of {name.text}()")]
    options: dict[str, Node] = {}
    while cursor.take(",") is not None:
        key = cursor.token
        if key.kind == "name" and cursor.ahead().says("="):
            cursor.next()
            cursor.next()
            if key.text not in ("levels", "contrasts", "contrast") or key.text in options:
                raise cursor.error(key, f"{name.text}() has no option {key.text!r} here", _USAGE)
            options[key.text] = read_list(cursor) if key.text == "levels" else _contrast(cursor)
        elif len(arguments) == 1 and not options:
            arguments.append(_contrast(cursor))
        else:
            raise cursor.error(key, "one argument too many", _USAGE)
    end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place in {name.text}()", _USAGE).end
    return Call(name.text, tuple(arguments), tuple(options.items()), name.start, end)


def _contrast(cursor: Cursor) -> Node:
    token = cursor.next()
    if token.kind not in ("name", "string") or token.text.removeprefix("contr.").lower() not in CONTRASTS:
        raise cursor.error(token, f"{describe_token(token)} names no contrasts", "use one of " + ", ".join(sorted(CONTRASTS)))
    if token.kind == "string":
        return Value(repr(token.text), "string", token.start, token.end)
    if not cursor.token.says("("):
        return Value(token.text, "literal", token.start, token.end)
    return _read_call(cursor, token)


def _read_call(cursor: Cursor, token: Token) -> Call:
    cursor.next()
    arguments: tuple[Node, ...] = ()
    options: tuple[tuple[str, Node], ...] = ()
    if cursor.token.kind == "name" and cursor.token.text == "omit" and cursor.ahead().says("="):
        raise cursor.error(cursor.token, "the level left out is the last", "put it last: C(f, Sum, levels=[...])")
    if cursor.token.kind == "name" and cursor.token.text in ("base", "reference") and cursor.ahead().says("="):
        key = cursor.next().text
        cursor.next()
        options = ((key, read_constant(cursor)),)
    elif not cursor.token.says(")"):
        arguments = (read_constant(cursor),)
    end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place", 'write Treatment("level")').end
    return Call(token.text, arguments, options, token.start, end)


MAX_OPERATIONS = 100  # in one expression: `x + x + ...` nests as deep as it is long once it is evaluated
MAX_NUMBER_EXPONENT = 64
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_LEVELS: tuple[tuple[str, ...], ...] = (("+", "-"), ("*", "/", "//", "%"))


def read_expression(cursor: Cursor) -> Node:
    """An expression over columns: arithmetic, at most one comparison, calls of the closed table."""
    cursor.deeper()
    left = _chain(cursor, 0)
    if (token := cursor.take(*COMPARISONS)) is not None:
        right = read_string(cursor) if cursor.token.kind == "string" else _chain(cursor, 0)
        left = Chain(left, ((token.text, right),), left.start, right.end)
    cursor.depth -= 1
    return left


def _chain(cursor: Cursor, level: int) -> Node:
    if level == len(_LEVELS):
        return _unary(cursor)
    first = _chain(cursor, level + 1)
    rest: list[tuple[str, Node]] = []
    while (token := cursor.take(*_LEVELS[level])) is not None:
        rest.append((token.text, _chain(cursor, level + 1)))
        cursor.operations += 1
        if cursor.operations > MAX_OPERATIONS:
            what = f"more than {MAX_OPERATIONS} operations in an expression"
            raise cursor.error(token, what, "compute the column beforehand", FormulaLimitError)
    return Chain(first, tuple(rest), first.start, rest[-1][1].end) if rest else first


def _unary(cursor: Cursor) -> Node:
    if (sign := cursor.take("-", "+")) is None:
        return _power(cursor)
    cursor.deeper()
    operand = _unary(cursor)
    cursor.depth -= 1
    return Unary(sign.text, operand, sign.start, operand.end)


def _power(cursor: Cursor) -> Node:
    base = _operand(cursor)
    if cursor.take("**", "^") is None:
        return base
    cursor.deeper()
    exponent = _unary(cursor)
    cursor.depth -= 1
    _require_small_power(cursor, base, exponent)
    return Power(base, exponent, base.start, exponent.end)


def _require_small_power(cursor: Cursor, base: Node, exponent: Node) -> None:
    """Refuse powers of mere numbers that would take for ever to write down: `9**9**9`, `(9**60)**60`."""
    if any(columns_read(exponent, inside=True)):
        return
    number = exponent.operand if isinstance(exponent, Unary) else exponent
    plain_base = isinstance(base, Name | Value) or any(columns_read(base, inside=True))
    if not isinstance(number, Name | Value) or not plain_base:
        raise cursor.error_between(base.start, exponent.end, "a power of powers of numbers", "write the number")
    if isinstance(number, Value) and float(number.text) > MAX_NUMBER_EXPONENT:
        remedy = f"the limit is {MAX_NUMBER_EXPONENT}; scale the column beforehand"
        raise cursor.error_between(exponent.start, exponent.end, f"an exponent of {number.text}", remedy, FormulaLimitError)


def _operand(cursor: Cursor) -> Node:
    token = cursor.token
    if token.says("("):
        cursor.next()
        inner = read_expression(cursor)
        cursor.expect(
            ")", f"{describe_token(cursor.token)} is out of place in an expression", "arithmetic, comparisons and functions stand here"
        )
        return inner
    if token.kind in ("name", "quoted"):
        return read_named(cursor)
    if token.kind == "number":
        return read_number(cursor)
    if token.kind == "string":
        raise cursor.error(token, "a string stands where a column or a number is expected", "strings are levels, in a comparison or in C()")
    raise cursor.error(token, f"a column or a number is missing before {describe_token(token)}", "complete the expression")


def read_named(cursor: Cursor) -> Node:
    """A column or a call."""
    token = cursor.next()
    if token.kind == "name":
        if token.text in RESERVED:
            raise cursor.error(token, f"{token.text!r} is a word of Python", f"a column of this name is quoted: `{token.text}`")
        if cursor.token.says("("):
            return _not_indexed(cursor, _call(cursor, token))
        if token.text in LITERALS:
            raise cursor.error(token, f"{token.text} is a value, not a column", f"a column of this name is quoted: `{token.text}`")
    quoted, own = token.kind == "quoted", own_name(token.text)
    return _not_indexed(cursor, Name(own if own in CONSTANTS and not quoted else token.text, quoted, token.start, token.end))


def _not_indexed(cursor: Cursor, node: Node) -> Node:
    if cursor.token.says("[", "("):
        what = "a formula has no indexing" if cursor.token.text == "[" else "only a function of the closed table is called"
        raise cursor.error(cursor.token, what, "make the column beforehand")
    return node


def _call(cursor: Cursor, name: Token) -> Node:
    name = replace(name, text=own_name(name.text))
    if name.text in CODINGS:
        return read_coding(cursor, name)
    own = cursor.functions is None or name.text in cursor.functions
    signature = OWN_FUNCTION if own else FUNCTIONS.get(name.text)
    if signature is None:
        remedy = function_remedy(name.text, cursor.functions or frozenset(), cursor.names_in_brackets())
        raise cursor.error(name, f"there is no function {name.text!r} in a formula", remedy)
    return _arguments(cursor, name, signature)


def _arguments(cursor: Cursor, name: Token, signature: Signature) -> Call:
    cursor.next()
    arguments: list[Node] = []
    options: dict[str, Node] = {}
    usage = signature.usage(name.text)
    while not cursor.token.says(")"):
        if cursor.token.kind == "name" and cursor.ahead().says("="):
            key, value = _option(cursor, signature, len(arguments), set(options), usage)
            options[key] = value
        elif options:
            raise cursor.error(cursor.token, "an argument without a name follows one with a name", usage)
        else:
            arguments.append(_argument(cursor, signature, len(arguments), usage))
        if cursor.take(",") is None:
            break
    end = cursor.expect(")", f"{describe_token(cursor.token)} is out of place in {name.text}()", usage).end
    if len(arguments) < signature.least:
        raise cursor.error_between(name.start, end, f"{name.text}() lacks an argument", usage)
    return Call(name.text, tuple(arguments), tuple(options.items()), name.start, end)


def _argument(cursor: Cursor, signature: Signature, place: int, usage: str) -> Node:
    if signature is OWN_FUNCTION and cursor.token.kind == "string":
        return read_string(cursor)
    if place < signature.most:
        return read_expression(cursor)
    if place - signature.most < len(signature.options):
        return read_option(cursor, *signature.options[place - signature.most])
    raise cursor.error(cursor.token, "one argument too many", usage)


def _option(cursor: Cursor, signature: Signature, n_positional: int, named: set[str], usage: str) -> tuple[str, Node]:
    key = cursor.next()
    cursor.next()
    by_place = {option for option, _ in signature.options[: max(0, n_positional - signature.most)]}
    if key.text in named | by_place:
        raise cursor.error(key, f"{key.text!r} is given twice", usage)
    kinds = dict(signature.options)
    if signature is not OWN_FUNCTION and key.text not in kinds:
        raise cursor.error(key, f"there is no option {key.text!r}", usage)
    return key.text, read_option(cursor, key.text, kinds.get(key.text))
