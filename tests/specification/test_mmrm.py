"""mmrm's formula says fixed effects and one covariance term."""

from __future__ import annotations

import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula.parse import parse_formula, parse_residual
from bayeslmm.specification.model_spec import make_spec
from bayeslmm.specification.toml import mmrm_spec, read_mmrm


def test_the_covariance_term_becomes_the_residual() -> None:
    spec = mmrm_spec("FEV1 ~ RACE + ARMCD * AVISIT + us(AVISIT | USUBJID)")
    assert spec.residual == parse_residual("us(AVISIT | USUBJID)")
    assert spec.formula.fixed == parse_formula("FEV1 ~ RACE + ARMCD * AVISIT").fixed
    assert spec.formula.random == ()


def test_it_is_the_same_model_as_with_a_residual_argument() -> None:
    spec = mmrm_spec("y ~ a + sp_exp(t, u | g / id)", weights="w")
    same = make_spec("y ~ 1 + a", residual="sp_exp(t, u | g / id)", weights="w")
    assert spec == same


@pytest.mark.parametrize("text", ["y ~ us(v | s) + x", "y ~ x + us(v | s)", "y ~ x + (us(v | s))", "y~x+us(v|s)"])
def test_the_covariance_term_may_stand_anywhere(text: str) -> None:
    formula, residual = read_mmrm(text)
    assert (formula.text, residual.text) == ("y ~ 1 + x", "us(v | s)")


def test_bands_and_functions_are_read() -> None:
    formula, residual = read_mmrm("y ~ f(x) + toep(v | s, 2)", {"f"})
    assert (formula.fixed, residual.order) == ("1 + f(x)", 2)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("y ~ x", "0 covariance terms"),
        ("y ~ us(v | s) + ar1(v | s)", "2 covariance terms"),
        ("y ~ x + (1 | s)", "random effect"),
        ("y ~ us(v | s) + (1 | s)", "random effect"),
        ("y ~ us(v | s) - us(v | s)", "subtracted"),
        ("y ~ foo(v | s)", "no covariance structure"),
        ("y ~ us(v + w | s)", "a column, or 1"),
        ("y ~ us(v | y)", "response"),
        ("", "empty"),
    ],
)
def test_other_formulas_are_refused_with_their_spot(text: str, word: str) -> None:
    with pytest.raises(FormulaError) as caught:
        read_mmrm(text)
    assert word in caught.value.what
    assert "^" in caught.value.where
