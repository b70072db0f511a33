"""Residual structures in mmrm's syntax, and variance functions."""

from __future__ import annotations

import pytest

from bayeslmm.covariance.registry import STRUCTURES, is_structure, names
from bayeslmm.errors import FormulaError
from bayeslmm.formula.parse import columns_of, parse_residual, parse_variance
from bayeslmm.formula.syntax import ResidualTerm, VarianceFactor


def test_visit_and_subject() -> None:
    assert parse_residual("us(AVISIT | USUBJID)") == ResidualTerm("us", None, ("AVISIT",), ("USUBJID",), (), False, "us(AVISIT | USUBJID)")


def test_parameters_of_their_own_by_group() -> None:
    term = parse_residual("us( AVISIT|ARMCD/USUBJID )")
    assert (term.group, term.subject, term.text) == (("ARMCD",), ("USUBJID",), "us(AVISIT | ARMCD / USUBJID)")


def test_subject_and_group_may_be_interactions() -> None:
    term = parse_residual("cs(v | a:b / c:d)")
    assert (term.group, term.subject) == (("a", "b"), ("c", "d"))


def test_one_is_the_order_of_the_rows() -> None:
    assert parse_residual("ar1(1 | Mare)").visit == ()


def test_spatial_structures_take_several_coordinates() -> None:
    assert parse_residual("sp_exp(x, y | id)").visit == ("x", "y")


def test_a_product_takes_an_outcome_and_a_visit() -> None:
    term = parse_residual("us@ar1(OUTCOME, VISIT | ID)")
    assert (term.structure, term.visit) == ("us@ar1", ("OUTCOME", "VISIT"))
    assert parse_residual("un@cs(OUTCOME, VISIT | ID)").structure == "us@cs"


def test_bands_follow_a_comma() -> None:
    assert parse_residual("toep(VISIT | ID, 2)").order == 2
    assert parse_residual("un(VISIT | ID, 2)").structure == "un"
    assert parse_residual("un(VISIT | ID)").structure == "us"
    assert parse_residual("fa(VISIT | ID, order=1)").order == 1


def test_a_nugget_is_added() -> None:
    term = parse_residual("sp_exp(t | id) + local")
    assert term.nugget
    assert term.text == "sp_exp(t | id) + local"


def test_columns_come_visit_first() -> None:
    assert columns_of(parse_residual("us(v | g / s)")) == ("v", "g", "s")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("us", "missing"),
        ("us()", "missing"),
        ("us(v", "not closed"),
        ("arma(v | g, 0, 0)", "both orders of arma are 0"),
        ("arma(v | g, 1.5)", "whole number of 0 or more"),
        ("arma(v | g, 2, 1, 1)", "out of place"),
        ("ar1(v, 2)", "has no order"),
        ("toep(v, 0)", "whole number above 0"),
        ("foo(v | g)", "no covariance structure"),
        ("us(v | a/b/c)", "group / subject"),
        ("us(v | a*b)", "group / subject"),
        ("us(v | v)", "used twice"),
        ("us(v | g / g)", "used twice"),
        ("us(v, w | g)", "one visit"),
        ("us(1, v | g)", "one visit"),
        ("us@ar1(v | g)", "outcome and a visit"),
        ("us@fa(v, w | g)", "no covariance structure"),
        ("ar1@ar1(v | g)", "outcome and a visit"),
        ("ar1@ar1@ar1(v, w | g)", "a product of 3 takes 3 columns"),
        ("ar1(v):xx(w)", "no covariance structure 'xx'"),
        ("ar1(v | g):ar1(w | g)", "out of place in a factor"),
        ("ar1(v):ar1(v)", "used twice"),
        ("us(0 + v | g)", "a column, or 1"),
        ("us(log(v) | g)", "a column, or 1"),
        ("us(v || g)", "inside a covariance structure"),
        ("toep(v | g, 0)", "whole number above 0"),
        ("us(v | g) + local", "contains one"),
        ("ar1(v | g) + x", "only a nugget"),
        ("ar1(v | g) + local + local", "out of place"),
        ("us(v | g) us(v | g)", "out of place"),
        ("(v | g)", "missing"),
    ],
)
def test_an_unreadable_residual_is_refused(text: str, word: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_residual(text)
    assert word in caught.value.what
    assert "^" in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("ident(Sex)", [("ident", "Sex", ())]),
        ("ident(Sex | Arm)", [("ident", "Sex", ("Arm",))]),
        ("ident(Sex:Arm)", [("ident", "Sex", ("Arm",))]),
        ("power(age)", [("power", "age", ())]),
        ("power(fitted)", [("power", "fitted", ())]),
        ("exp(age)", [("exp", "age", ())]),
        ("const_power(age | Sex)", [("const_power", "age", ("Sex",))]),
        ("ident(Sex) * power(age)", [("ident", "Sex", ()), ("power", "age", ())]),
        ("power(`my age` | a:b)", [("power", "my age", ("a", "b"))]),
    ],
)
def test_variance_functions(text: str, factors: list[tuple[str, str, tuple[str, ...]]]) -> None:
    assert parse_variance(text) == tuple(VarianceFactor(*factor) for factor in factors)  # type: ignore[arg-type]


UNREADABLE = [
    "",
    "ident",
    "ident()",
    "ident(fitted)",
    "pow(x)",
    "power(x) * power(x)",
    "power(x | x)",
    "power(log(x))",
    "power(x) + exp(z)",
]


@pytest.mark.parametrize("text", UNREADABLE)
def test_an_unreadable_variance_function_is_refused(text: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_variance(text)
    assert caught.value.remedy


def test_the_structures_that_a_formula_names_are_those_that_there_are() -> None:
    made = set(STRUCTURES) - {"lin", "known"}  # made from matrices, which no text can hold
    assert made == set(names())
    assert all(is_structure(f"{outer}@{inner}") == (inner[:2] != "fa") for outer in made for inner in made)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ar1(row):ar1(col)", "ar1@ar1(row, col)"),
        ("(ar1(row) @ id(col) | trial)", "ar1@id(row, col | trial)"),
        ("sp_exp(row):ar1(col) | year:trial + local", "sp_exp@ar1(row, col | year:trial) + local"),
        ("us(y):ar1(row):ar1(col) | trial / trial", "us@ar1@ar1(y, row, col | trial / trial)"),
        ("un(y) @ cs(visit) | arm / id", "us@cs(y, visit | arm / id)"),
    ],
)
def test_a_product_may_be_written_with_a_column_for_each_factor(text: str, canonical: str) -> None:
    term = parse_residual(text)
    assert term.text == canonical
    assert parse_residual(canonical) == term


@pytest.mark.parametrize(
    ("text", "canonical", "visit", "order"),
    [
        ("ar1(Year)", "ar1(Year)", ("Year",), None),
        ("ar1(1)", "ar1(1)", (), None),
        ("arma(Year, 2, 1)", "arma(Year, 2, 1)", ("Year",), (2, 1)),
        ("arma(Year, p=0, q=2)", "arma(Year, 0, 2)", ("Year",), (0, 2)),
        ("arma(1, 1, 1)", "arma(1)", (), None),
        ("toep(Year, 3) + local", "toep(Year, 3) + local", ("Year",), 3),
        ("sp_exp(x, y)", "sp_exp(x, y)", ("x", "y"), None),
        ("us@ar1(out, Year)", "us@ar1(out, Year)", ("out", "Year"), None),
    ],
)
def test_a_structure_without_a_bar_is_one_series(text: str, canonical: str, visit: tuple[str, ...], order: object) -> None:
    term = parse_residual(text)
    assert (term.text, term.visit, term.order, term.subject, term.group) == (canonical, visit, order, (), ())
    assert parse_residual(term.text) == term


@pytest.mark.parametrize(
    ("text", "order"),
    [("arma(v | g)", None), ("arma(v | g, 1, 1)", None), ("arma(v | g, 2, 2)", (2, 2)), ("arma(v | a / g, 3)", (3, 0))],
)
def test_arma_takes_two_orders(text: str, order: object) -> None:
    term = parse_residual(text)
    assert term.order == order
    assert parse_residual(term.text) == term


@pytest.mark.parametrize(
    ("text", "own"),
    [("corLin(x)", "sp_lin"), ("corRatio(x)", "sp_ratio"), ("ar1(v):idv(w)", "id("), ("exp(x):exp(z)", "sp_exp"), ("idh(v)", "diag")],
)
def test_structures_of_nlme_and_asreml_are_answered_by_those_of_here(text: str, own: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_residual(text)
    assert own in (caught.value.remedy or "")
