"""`C(g)`, `C(g, Sum)`, `C(g, Treatment("b"))`, `C(g, contr.sum)`, `C(g, levels=["b", "a"])`: a factor and its coding."""

from __future__ import annotations

from bayeslmm.formula.constants import read_constant, read_list
from bayeslmm.formula.cursor import Cursor
from bayeslmm.formula.functions import CONTRASTS
from bayeslmm.formula.tokens import Token, shown
from bayeslmm.formula.tree import Call, Node, Value

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
    end = cursor.expect(")", f"{shown(cursor.token)} is out of place in {name.text}()", _USAGE).end
    return Call(name.text, tuple(arguments), tuple(options.items()), name.start, end)


def _contrast(cursor: Cursor) -> Node:
    token = cursor.next()
    if token.kind not in ("name", "string") or token.text.removeprefix("contr.").lower() not in CONTRASTS:
        raise cursor.error(token, f"{shown(token)} names no contrasts", "use one of " + ", ".join(sorted(CONTRASTS)))
    if token.kind == "string":
        return Value(repr(token.text), "string", token.start, token.end)
    if not cursor.token.says("("):
        return Value(token.text, "literal", token.start, token.end)
    return _called(cursor, token)


def _called(cursor: Cursor, token: Token) -> Call:
    cursor.next()
    given: tuple[Node, ...] = ()
    options: tuple[tuple[str, Node], ...] = ()
    if cursor.token.kind == "name" and cursor.token.text in ("base", "reference") and cursor.ahead().says("="):
        key = cursor.next().text
        cursor.next()
        options = ((key, read_constant(cursor)),)
    elif not cursor.token.says(")"):
        given = (read_constant(cursor),)
    end = cursor.expect(")", f"{shown(cursor.token)} is out of place", 'write Treatment("level")').end
    return Call(token.text, given, options, token.start, end)
