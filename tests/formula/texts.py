"""Random formulas, as texts, with every form that the grammar has."""

from __future__ import annotations

from hypothesis import strategies as st

from bayeslmm.covariance.registry import names, takes_coordinates
from bayeslmm.formula.syntax import quote_name

COLUMNS = ("x", "z", "age", "log.radon", "größe", "two words", "a`b", "class", "lambda", "pi", "Intercept", "1", "_u", "名")
GROUPS = ("g", "h", "batch", "my group", "g.1")

columns = st.sampled_from(COLUMNS).map(quote_name)
groups = st.sampled_from(GROUPS).map(quote_name)
numbers = st.one_of(st.integers(0, 10**6).map(str), st.floats(0, 1e6, allow_nan=False).map(repr), st.sampled_from(["1e3", ".5", "2."]))


def _arithmetic(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(inner, st.sampled_from(["+", " - ", "*", " / ", "//", "%"]), inner)
    return st.one_of(
        pairs.map("".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        st.tuples(inner, st.sampled_from(["**2", "^2", " ** -1", "** 0.5"])).map(lambda pair: f"({pair[0]}){pair[1]}"),
        st.tuples(st.sampled_from(["log", "exp", "sqrt", "I", "abs"]), inner).map(lambda pair: f"{pair[0]}({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"maximum({pair[0]}, {pair[1]})"),
    )


arithmetic = st.recursive(st.one_of(columns, numbers), _arithmetic, max_leaves=6)
atoms = st.one_of(
    columns,
    arithmetic.map("I({})".format),
    columns.map("poly({}, 2)".format),
    columns.map("bs({}, df = 4,degree=2)".format),
    columns.map("scale({}, center=TRUE)".format),
    columns.map("C({}, Treatment('b'))".format),
    columns.map('C({}, levels=["a", "b\'s"])'.format),
    columns.map("C({}, contr.sum)".format),
    columns.map("I({} == 'TRT')".format),
)


def _products(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from([":", "*", " / ", " %in% "]), inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} + {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} + {pair[1]})**2"),
    )


terms = st.recursive(atoms, _products, max_leaves=4)
intercepts = st.sampled_from(["", "0 + ", "1 + ", "-1 + "])
sides = st.tuples(intercepts, st.lists(terms, min_size=1, max_size=3)).map(lambda pair: pair[0] + " + ".join(pair[1]))
factors = st.one_of(groups, st.tuples(groups, st.sampled_from([":", "/", " * "]), groups).map("".join))
bars = st.one_of(
    st.tuples(st.one_of(st.just("1"), sides), st.sampled_from(["|", " | ", "||"]), factors).map(lambda parts: f"({''.join(parts)})"),
    st.tuples(st.sampled_from(names("D")), columns, factors).map(lambda parts: f"{parts[0]}(0 + {parts[1]} | {parts[2]})"),
    st.tuples(st.sampled_from(["toep", "un", "fa"]), columns, groups).map(lambda parts: f"{parts[0]}(0 + {parts[1]} | {parts[2]}, 2)"),
)
responses = st.sampled_from(["y", "log(y)", "`the y`", "y / 2", "sqrt(y + 1)"])
formulas = st.tuples(responses, sides, st.lists(arithmetic.map("offset({})".format), max_size=1), st.lists(bars, max_size=2)).map(
    lambda parts: f"{parts[0]} ~ {' + '.join([parts[1], *parts[2], *parts[3]])}"
)
residuals = st.one_of(
    st.tuples(st.sampled_from(names("D")), st.one_of(st.just("1"), columns), groups).map(
        lambda parts: f"{parts[0]}({parts[1]}|{parts[2]})"
    ),
    st.tuples(st.sampled_from([name for name in names() if takes_coordinates(name)]), columns, groups, st.sampled_from(["", "+local"])).map(
        lambda p: f"{p[0]}({p[1]} | {p[2]}){p[3]}"
    ),
    st.tuples(columns, groups).map(lambda parts: f"us({parts[0]} | arm / {parts[1]})"),
    st.tuples(columns, groups).map(lambda parts: f"toep({parts[0]} | arm:sex / {parts[1]}, 3)"),
    st.tuples(columns, groups).map(lambda parts: f"us@ar1(outcome, {parts[0]} | {parts[1]})"),
)
# Letters that formulas are made of, in no order: nearly all are errors, and an error is all that may come of them.
noise = st.text(st.sampled_from("yxg ~+-*/:^|()[]{}`'\".,=<>%@#0123456789eEé_\\\n\t\x00\u200b"), max_size=60)
WORDS = (
    "y x g ~ + - * / : ^ ** | || ( ) , = == 1 0 2.5 'a' \"b\" `q` us( toep( (1|g) I( C( log( poly( offset( lambda import __import__ "
    "x.__class__ [ ] 1 2 3 %in% @ us@ar1( f'{x}' := ; . pi True None eval( open( getattr( x[0] x.y"
)
words = st.lists(st.sampled_from(WORDS.split(" ")), max_size=14).map(" ".join)
