"""Formulas as lme4 reads them."""

from __future__ import annotations

import pytest

from bayeslmm.formula.parse import columns_of, parse_formula
from bayeslmm.formula.syntax import BarTerm


def said(text: str) -> list[tuple[str, str]]:
    return [(term.left, term.name) for term in parse_formula(text).random]


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("y ~ x", "1 + x"),
        ("y~x", "1 + x"),
        ("y ~ 1", "1"),
        ("y ~ 0", "0"),
        ("y ~ 0 + x", "0 + x"),
        ("y ~ x - 1", "0 + x"),
        ("y ~ -1 + x", "0 + x"),
        ("y ~ x + -1", "0 + x"),
        ("y ~ x + 0 + 1", "1 + x"),
        ("y ~ (x + z)", "1 + x + z"),
        ("y ~ a*b - a:b", "1 + a * b - a:b"),
        ("y ~ (a+b)^2", "1 + (a + b)**2"),
        ("y ~ a / b %in% c", "1 + a / b %in% c"),
        ("y ~ x + (1 | g)", "1 + x"),
        ("y ~ (1 | g)", "1"),
        ("y ~ 0 + (1 | g)", "0"),
        ("y ~ a * (b + c):d", "1 + a * (b + c):d"),
        ("y ~ a + b + c - (b + c)", "1 + a + b + c - b - c"),
    ],
)
def test_the_fixed_part_has_its_intercept_spelled(text: str, fixed: str) -> None:
    assert parse_formula(text).fixed == fixed


def test_a_correlated_slope_is_one_term() -> None:
    formula = parse_formula("Reaction ~ Days + (Days | Subject)")
    assert formula.random == (BarTerm("us", None, "1 + Days", ("Subject",), "1 + Days | Subject", ((), ("Days",))),)


def test_a_double_bar_is_a_term_for_each_component() -> None:
    assert said("y ~ (x || g)") == [("1", "g"), ("0 + x", "g")]
    assert said("y ~ (0 + x + f || g)") == [("0 + x", "g"), ("0 + f", "g")]
    assert said("y ~ (x * z || g)") == [("1", "g"), ("0 + x", "g"), ("0 + z", "g"), ("0 + x:z", "g")]


def test_a_double_bar_is_the_sum_that_it_stands_for() -> None:
    assert parse_formula("y ~ (x || g)").random == parse_formula("y ~ (1 | g) + (0 + x | g)").random


def test_nested_groups_are_expanded() -> None:
    assert said("y ~ (1 | a/b)") == [("1", "a"), ("1", "a:b")]
    assert said("y ~ (x | a/b/c)") == [("1 + x", "a"), ("1 + x", "a:b"), ("1 + x", "a:b:c")]
    assert said("y ~ (1 | a:b/c)") == [("1", "a:b"), ("1", "a:b:c")]
    assert said("y ~ (1 | a*b)") == [("1", "a"), ("1", "b"), ("1", "a:b")]
    assert said("y ~ (1 | (a/b):c)") == [("1", "a:c"), ("1", "a:b:c")]
    assert said("y ~ (x || a/b)") == [("1", "a"), ("0 + x", "a"), ("1", "a:b"), ("0 + x", "a:b")]


def test_crossed_terms_keep_their_order() -> None:
    assert said("y ~ (1 | subject) + x + (1 | item)") == [("1", "subject"), ("1", "item")]


def test_a_grouping_factor_may_be_marked_as_a_factor() -> None:
    assert parse_formula("y ~ (1 | factor(g))").random == parse_formula("y ~ (1 | g)").random


def test_a_bar_may_stand_in_more_brackets_than_it_needs() -> None:
    assert parse_formula("y ~ x + ((1 | g))").random == parse_formula("y ~ x + (1 | g)").random


@pytest.mark.parametrize("name", ["us", "diag", "id", "cs", "csh", "ar1", "ar1h", "toep", "toeph", "ad", "adh", "hf", "fa", "fa0"])
def test_a_wrapper_names_the_structure_of_a_term(name: str) -> None:
    (term,) = parse_formula(f"y ~ {name}(0 + visit | g)").random
    assert (term.structure, term.order, term.left, term.group) == (name, None, "0 + visit", ("g",))


def test_a_wrapper_takes_bands_or_factors_after_a_comma() -> None:
    for text in ("toep(0 + visit | g, 2)", "toep(0 + visit | g, order = 2)", "toep(0 + visit | g, q=2)"):
        (term,) = parse_formula("y ~ " + text).random
        assert (term.structure, term.order) == ("toep", 2)


def test_a_wrapper_may_hold_the_brackets_of_its_bar() -> None:
    assert parse_formula("y ~ us((x | g))").random == parse_formula("y ~ (x | g)").random


def test_unstructured_without_bands_goes_by_its_usual_name() -> None:
    assert parse_formula("y ~ un(x | g)").random[0].structure == "us"
    assert parse_formula("y ~ un(0 + x | g, 2)").random[0].structure == "un"


def test_offsets_leave_the_fixed_part() -> None:
    formula = parse_formula("y ~ offset(log(t)) + x + offset(z)")
    assert formula.offsets == ("log(t)", "z")
    assert formula.fixed == "1 + x"


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("I(x^2)", "I(x ** 2)"),
        ("I( x**2 )", "I(x ** 2)"),
        ("I((x+1)*2)", "I((x + 1) * 2)"),
        ("I(x-(z-w))", "I(x - (z - w))"),
        ("I(-x**2)", "I(-x ** 2)"),
        ("I((-x)**2)", "I((-x) ** 2)"),
        ("sin(2*pi*Time)", "sin(2 * pi * Time)"),
        ("sin(2*np.pi*Time)", "sin(2 * pi * Time)"),
        ("exp(math.pi*`np.pi`)", "exp(pi * `np.pi`)"),
        ("bs(x,df = 4)", "bs(x, df=4)"),
        ("poly(x,2,raw=TRUE)", "poly(x, 2, raw=True)"),
        ('C(g, Treatment("b"))', "C(g, Treatment('b'))"),
        ("C(g,contr.treatment(base=2))", "C(g, contr.treatment(base=2))"),
        ("C(g, Sum, levels=['a','b'])", "C(g, Sum, levels=['a', 'b'])"),
        ("I(arm=='TRT')", "I(arm == 'TRT')"),
        ("log(`log.radon`)", "log(`log.radon`)"),
        ("log(log.radon)", "log(`log.radon`)"),
        ("scale(x)", "scale(x)"),
        ("I(1e3*x)", "I(1000.0 * x)"),
    ],
)
def test_expressions_are_written_as_python_prints_them(written: str, printed: str) -> None:
    assert parse_formula(f"y ~ {written}").fixed == f"1 + {printed}"


def test_the_square_has_one_name_however_it_is_written() -> None:
    assert parse_formula("y ~ I(x^2)").fixed == parse_formula("y ~ I(x ** 2)").fixed


def test_columns_come_in_the_order_of_the_formula_each_once() -> None:
    formula = parse_formula("log(y) ~ x * z + offset(t) + C(f, Sum) + sin(2 * pi * x) + (x | a/b)")
    assert columns_of(formula) == ("y", "x", "z", "f", "t", "a", "b")
    assert columns_of("I(w / v) + `two words`") == ("w", "v", "two words")


def test_pi_is_a_number_in_arithmetic_and_a_column_in_backticks() -> None:
    assert columns_of("sin(pi * x)") == ("x",)
    assert columns_of("sin(`pi` * x)") == ("pi", "x")
    assert columns_of(parse_formula("y ~ pi")) == ("y", "pi")


def test_a_users_function_is_named_beforehand() -> None:
    formula = parse_formula("y ~ f(x, 2, by='a', deep=True)", frozenset({"f"}))
    assert formula.fixed == "1 + f(x, 2, by='a', deep=True)"


def test_the_text_is_kept_but_for_white_space() -> None:
    assert parse_formula("  y ~\n x  +\t`two  words` ").text == "y ~ x + `two  words`"
