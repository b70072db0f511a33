"""What a formula may not say, with the spot marked."""

from __future__ import annotations

import pytest

from bayeslmm.errors import BayesLMMError, FormulaError
from bayeslmm.formula.parse import parse_formula

CASES = [
    # text, the characters that are underlined, a word of the message
    ("y ~ x + + z", "+", "missing"),
    ("y", "", "'~' is missing"),
    ("~ x", "~", "left side is empty"),
    ("y | se(s) ~ x", "|", "behind a bar"),
    ("y ~", "", "right side is empty"),
    ("y ~~ x", "~", "second '~'"),
    ("y ~ x ~ z", "~", "second '~'"),
    ("y ~ .", ".", "all other columns"),
    ("y ~ x + (1 | g", "(", "not closed"),
    ("y ~ x)", ")", "closes nothing"),
    ("y ~ (x]", "]", "closes nothing"),
    ("y ~ x + 1 | g", "|", "stands in brackets"),
    ("y ~ x z", "z", "out of place"),
    ("y ~ 2x", "x", "operator is missing"),
    ("y ~ x +", "", "missing before the end"),
    ("y ~ `x", "`", "not closed"),
    ("y ~ 'x'", "'x'", "string is no term"),
    ("y ~ 2", "2", "no term"),
    ("y ~ 2 * x", "2", "no term"),
    ("y ~ x * 1", "1", "intercept inside a product"),
    ("y ~ x^2", "x^2", "the term itself"),
    ("y ~ (a + b)**0.5", "0.5", "whole number"),
    ("y ~ y", "y", "response"),
    ("log(y) ~ x + I(y**2)", "I(y**2)", "response"),
    ("y ~ (y | g)", "(y | g)", "response"),
    ("y ~ (1 | y)", "(1 | y)", "response"),
    ("y ~ offset(y)", "offset(y)", "response"),
    ("3 ~ x", "3", "names no column"),
    ("y ~ (x | x)", "(x | x)", "both sides of the bar"),
    ("y ~ (x | g:x)", "(x | g:x)", "both sides of the bar"),
    ("y ~ (log(x) | x / g)", "(log(x) | x / g)", "both sides of the bar"),
    ("y ~ (0 | g)", "(0 | g)", "without columns"),
    ("y ~ (1 | 1)", "1", "no grouping factor"),
    ("y ~ (1 | a + b)", "+", "sum of grouping factors"),
    ("y ~ (1 | log(g))", "log", "function of columns"),
    ("y ~ x * (1 | g)", "(1 | g)", "added, not multiplied"),
    ("y ~ x - (1 | g)", "(1 | g)", "cannot be subtracted"),
    ("y ~ ((1 | g) | h)", "(1 | g)", "inside a random term"),
    ("y ~ offset(x) * z", "offset(x)", "added, not multiplied"),
    ("y ~ cs(x)", "cs", "no bar"),
    ("y ~ ar2(x | g)", "ar2", "no covariance structure"),
    ("y ~ us(x || g)", "||", "inside a covariance structure"),
    ("y ~ cs(0 + x | g, 2)", "2", "no order"),
    ("y ~ toep(0 + x | g, 0)", "0", "whole number above 0"),
    ("y ~ sp_exp(x | g)", "sp_exp(x | g)", "spatial"),
    ("y ~ lgo(x)", "lgo", "no function 'lgo'"),
    ("y ~ log()", "log()", "lacks an argument"),
    ("y ~ log(x, 2)", "2", "too many"),
    ("y ~ maximum(x)", "maximum(x)", "lacks an argument"),
    ("y ~ poly(x, degree = z)", "z", "number"),
    ("y ~ poly(x, -1)", "-", "not a whole number above 0"),
    ("y ~ poly(x, dgree = 2)", "dgree", "no option"),
    ("y ~ bs(x, 4, df = 4)", "df", "twice"),
    ("y ~ bs(x, df = 'four')", "'four'", "not a count"),
    ("y ~ C(g, wave)", "wave", "names no contrasts"),
    ("y ~ C(log(g))", "log", "function of columns"),
    ("y ~ I(x = 3)", "x", "no option"),
    ("y ~ True", "True", "value, not a column"),
    ("y ~ x # note", "#", "comment"),
    ("y ~ x; z", ";", "one formula"),
]


@pytest.mark.parametrize(("text", "spot", "word"), CASES, ids=[case[0] for case in CASES])
def test_an_error_marks_its_spot(text: str, spot: str, word: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_formula(text)
    assert word in caught.value.what
    assert caught.value.remedy
    _, line, carets = caught.value.where.split("\n")
    start, width = carets.index("^"), carets.count("^")
    assert line[start : start + width] == spot


def test_known_standard_errors_are_told_how_they_are_given() -> None:
    with pytest.raises(FormulaError) as caught:
        parse_formula("y | se(s) ~ x + (1 | g)")
    assert "weights=1/se**2 and sigma=1.0" in caught.value.remedy


TWICE = ["(1|g) + (1|g)", "(1 + x|g) + (x|g)", "(1|a/b) + (1|a)", "(1|a:b) + (1|b:a)", "(x||g) + (x|g)", "(1|g) + us(1|g)"]


@pytest.mark.parametrize("bars", TWICE)
def test_a_term_given_twice_is_refused(bars: str) -> None:
    with pytest.raises(FormulaError, match="twice"):
        parse_formula("y ~ " + bars)


def test_a_slope_beside_an_intercept_is_no_duplicate() -> None:
    assert len(parse_formula("y ~ (1 | g) + (0 + x | g)").random) == 2


def test_an_error_of_a_long_formula_shows_its_surroundings_only() -> None:
    with pytest.raises(FormulaError) as caught:
        parse_formula("y ~ " + " + ".join(f"x{i}" for i in range(500)) + " + + z")
    assert len(caught.value.where) < 300


def test_an_unknown_function_says_how_to_bring_ones_own() -> None:
    with pytest.raises(FormulaError, match="functions="):
        parse_formula("y ~ f(x)")
    with pytest.raises(FormulaError, match=r"there are log, exp, sqrt"):
        parse_formula("y ~ qzx(x)")


@pytest.mark.parametrize("given", [None, 3, b"y ~ x", ["y ~ x"], {"y": "x"}])
def test_a_formula_that_is_no_text_is_refused(given: object) -> None:
    with pytest.raises(BayesLMMError, match="a formula is a text"):
        parse_formula(given)  # type: ignore[arg-type]


def test_a_users_function_has_a_plain_name() -> None:
    with pytest.raises(FormulaError, match="plain identifier"):
        parse_formula("y ~ x", frozenset({"os.system"}))
