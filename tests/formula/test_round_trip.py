"""Text to formula to text to the same formula."""

from __future__ import annotations

import ast
from dataclasses import replace

from hypothesis import assume, given

from bayeslmm.errors import FormulaError
from bayeslmm.formula.grammar import read_sum
from bayeslmm.formula.parse import columns_of, formula_text, parse_formula, parse_residual, parse_variance, variance_text
from bayeslmm.formula.syntax import Formula
from bayeslmm.formula.terms import count_terms, expand_summands, flat_items, side_terms, without_intercept
from bayeslmm.formula.tokens import Cursor
from tests.formula import texts


def read(text: str) -> Formula:
    """The formula, or no example where the random text breaks a law of formulas (a term twice, both sides of a bar)."""
    try:
        return parse_formula(text)
    except FormulaError:
        assume(False)
        raise


@given(texts.formulas)
def test_a_formula_is_read_back_from_its_text(text: str) -> None:
    formula = read(text)
    written = formula_text(formula)
    again = parse_formula(written)
    assert replace(again, text=formula.text) == formula
    assert formula_text(again) == written
    assert columns_of(again) == columns_of(formula)


@given(texts.formulas)
def test_the_kept_text_says_the_same_formula(text: str) -> None:
    formula = read(text)
    assert parse_formula(formula.text) == formula


@given(texts.arithmetic)
def test_arithmetic_is_written_as_python_prints_it(text: str) -> None:
    formula = read(f"response ~ I({text})")
    atom = formula.fixed.removeprefix("1 + ")
    assume("`" not in atom)
    assert ast.unparse(ast.parse(atom, mode="eval")) == atom


@given(texts.arithmetic)
def test_arithmetic_keeps_its_structure(text: str) -> None:
    formula = read(f"response ~ I({text})")
    assume("`" not in text)
    python = text.replace("^", "**")
    assert ast.dump(ast.parse(f"I({python})", mode="eval")) == ast.dump(ast.parse(formula.fixed.removeprefix("1 + "), mode="eval"))


@given(texts.sides)
def test_the_count_before_expansion_is_an_upper_bound(text: str) -> None:
    read(f"response ~ {text}")
    cursor = Cursor(text)
    items = flat_items(cursor, read_sum(cursor))
    assert len(expand_summands(items)) <= count_terms(cursor, [node for _, node in without_intercept(items)])


@given(texts.sides)
def test_a_formula_has_the_terms_of_its_texts(text: str) -> None:
    """The canonical text of a side, expanded again, has the same terms, their atoms in the same order."""
    formula = read(f"response ~ {text}")
    for side, terms in ((formula.fixed, formula.terms), *((bar.left, bar.terms) for bar in formula.random)):
        cursor = Cursor(side)
        assert side_terms(flat_items(cursor, read_sum(cursor))) == terms
        assert [len(term) for term in terms] == sorted(map(len, terms))
        assert len({frozenset(term) for term in terms}) == len(terms)


@given(texts.residuals)
def test_a_residual_is_read_back_from_its_text(text: str) -> None:
    try:
        term = parse_residual(text)
    except FormulaError:
        assume(False)
        raise
    assert parse_residual(term.text) == term


def test_a_variance_is_read_back_from_its_text() -> None:
    for text in ("ident(Sex)", "power(fitted)", "const_power(age | Sex:Arm) * ident(`two words`) * exp(x)"):
        factors = parse_variance(text)
        assert variance_text(factors) == text
        assert parse_variance(variance_text(factors)) == factors
