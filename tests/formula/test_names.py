"""Columns with strange names."""

from __future__ import annotations

import unicodedata

import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula.parse import columns_of, parse_formula
from bayeslmm.formula.syntax import quote_name

STRANGE = ["two words", "log.radon", "a-b", "a`b", "``", "1", "2nd", "größe", "名前", "class", "lambda", "True"]
STRANGE += ["x.__class__", "(1|g)", "a\nb", "'", "~"]


@pytest.mark.parametrize("name", STRANGE)
def test_any_name_stands_in_backticks_anywhere(name: str) -> None:
    mark = "`" + name.replace("`", "``") + "`"
    formula = parse_formula(f"{mark} ~ u + v:w + (u | g)")
    assert columns_of(formula.response) == (name,)
    formula = parse_formula(f"y ~ {mark} + log({mark}) + offset({mark}) + ({mark} | g) + (1 | h:`g 2`)")
    assert columns_of(formula)[:2] == ("y", name)
    assert parse_formula(f"y ~ (1 | {mark})").random[0].group == (name,)


@pytest.mark.parametrize("name", STRANGE)
def test_a_quoted_name_is_read_back_as_itself(name: str) -> None:
    assert columns_of(quote_name(name)) == (name,)


def test_a_plain_name_needs_no_backticks() -> None:
    assert parse_formula("y ~ `x`").fixed == parse_formula("y ~ x").fixed == "1 + x"


def test_a_name_with_dots_may_stand_bare_as_in_r() -> None:
    assert parse_formula("log.radon ~ Sepal.Length").fixed == "1 + `Sepal.Length`"


def test_letters_of_any_alphabet_are_names() -> None:
    assert columns_of(parse_formula("größe ~ 名 + αβ_1")) == ("größe", "名", "αβ_1")


def test_composed_and_decomposed_letters_stay_as_typed() -> None:
    decomposed = unicodedata.normalize("NFD", "größe")
    assert columns_of(parse_formula(f"y ~ {decomposed}")) == ("y", decomposed)


def test_a_column_called_intercept_or_sigma_is_a_column() -> None:
    assert columns_of(parse_formula("y ~ Intercept + sigma + `1`")) == ("y", "Intercept", "sigma", "1")


@pytest.mark.parametrize("letter", ["\u200b", "\u200d", "\u202e", "\ufeff", "\x00", "\x1b"])
def test_an_invisible_letter_is_named_by_its_code_point(letter: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_formula(f"y ~ x{letter}")
    assert f"U+{ord(letter):04X}" in caught.value.what
    assert letter not in str(caught.value)
