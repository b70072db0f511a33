"""A model as a PROC MIXED program, and back."""

from __future__ import annotations

import pytest

from bayeslmm.errors import SpecificationError
from bayeslmm.formula.parse import parse_formula, parse_residual, parse_variance
from bayeslmm.formula.syntax import BarTerm, ResidualTerm
from bayeslmm.sas.to_sas import program_of_spec as to_sas
from bayeslmm.sas.translate import translate
from bayeslmm.specification.model_spec import ModelSpec
from bayeslmm.specification.priors import Priors
from tests.sas.programs import CASES, Case

FACTORS = ("a", "b", "f")

MODELS = [
    ("y ~ 1 + x + (1 | id)", None),
    ("y ~ 1 + x + (1 + x | id)", None),
    ("y ~ 1 + a + b + a:b + (1 | g) + (1 | g:h)", None),
    ("y ~ 0 + a + x:a", None),
    ("y ~ 1 + x + I(x**2) + I(x**2):a", None),
    ("y ~ 1 + x + (1 | id) + (0 + x | id)", None),
    ("y ~ 1 + cs(0 + a | id) + diag(0 + b | h)", None),
    ("y ~ 1 + toep(0 + a | id, 2) + fa0(0 + b | id, 1)", None),
    ("y ~ 1 + a", "us(visit | id)"),
    ("y ~ 1 + a", "ar1(1 | id) + local"),
    ("y ~ 1 + a", "adh(visit | arm / id)"),
    ("y ~ 1 + a", "sp_exp(u, w | id)"),
    ("y ~ 1 + a", "us@ar1(o, visit | id)"),
    ("`the y` ~ 1 + `log x` + (1 | `the group`)", "cs(1 | `the group`:visit)"),
]


@pytest.mark.parametrize(("formula", "residual"), MODELS)
def test_a_model_written_and_read_is_the_same_model(formula: str, residual: str | None) -> None:
    spec = ModelSpec(parse_formula(formula), parse_residual(residual) if residual else None)
    assert translate(to_sas(spec, FACTORS)).spec == spec


def unordered(term: BarTerm | ResidualTerm) -> tuple[object, ...]:
    """A term, its grouping columns without their order: patient(drug) is written drug*patient."""
    if isinstance(term, BarTerm):
        return term.structure, term.order, term.left, frozenset(term.group)
    return term.structure, term.order, term.visit, frozenset(term.subject), term.group, term.nugget


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_translated_program_written_again_is_the_same_model(case: Case) -> None:
    translation = translate(case.program)
    text = to_sas(translation.spec, translation.program.class_names, method=translation.method)
    again = translate(text).spec
    assert again.variance == translation.spec.variance
    assert [unordered(t) for t in again.formula.random] == [unordered(t) for t in translation.spec.formula.random]
    if again.residual is None or translation.spec.residual is None:
        assert again.residual is translation.spec.residual
    else:
        assert unordered(again.residual) == unordered(translation.spec.residual)


def test_the_program_of_the_main_job() -> None:
    spec = ModelSpec(parse_formula("BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)"))
    assert (
        to_sas(spec, data="data", df="kenward-roger")
        == """proc mixed data=data method=reml;
  class USUBJID;
  model BCVA_CHG = VISITN BCVA_BL / solution ddfm=kenwardroger;
  random intercept / subject=USUBJID;
run;
"""
    )


def test_a_factor_as_random_slope_has_indicator_columns_in_sas() -> None:
    spec = ModelSpec(parse_formula("y ~ 1 + (a | id)"))
    assert translate(to_sas(spec, FACTORS)).spec.formula.random[0].left == "0 + a"


def test_coded_factors_and_weights() -> None:
    text = to_sas(ModelSpec(parse_formula("y ~ C(k) + x * z"), variance=parse_variance("ident(k)"), weights="w"))
    assert "class k;" in text
    assert "model y = k x z x*z / solution;" in text
    assert "repeated / group=k;" in text
    assert "weight w;" in text


REFUSED = {
    "the response log(y)": ModelSpec(parse_formula("log(y) ~ x")),
    "bs(x)": ModelSpec(parse_formula("y ~ bs(x)")),
    "I(x + z)": ModelSpec(parse_formula("y ~ I(x + z)")),
    "an offset": ModelSpec(parse_formula("y ~ x + offset(z)")),
    "a known matrix": ModelSpec(parse_formula("y ~ x + (1 | animal)"), relationship=("animal",)),
    "k as a class and as a covariate": ModelSpec(parse_formula("y ~ x + (1 | k)"), variance=parse_variance("exp(k)")),
    "these priors": ModelSpec(parse_formula("y ~ x + (1 | g)"), priors=Priors()),
    "this variance function": ModelSpec(parse_formula("y ~ x"), variance=parse_variance("power(x)")),
    "the structure ad": ModelSpec(parse_formula("y ~ x + ad(0 + a | g)")),
    "the residual structure ad": ModelSpec(parse_formula("y ~ x"), parse_residual("ad(v | id)")),
    "the factors a and b": ModelSpec(parse_formula("y ~ x + (a + b | g)")),
    "cs over an intercept": ModelSpec(parse_formula("y ~ x + cs(a | g)")),
    "g as a class and as a covariate": ModelSpec(parse_formula("y ~ g + (1 | g)")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_sas_cannot_say_is_named(what: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        to_sas(REFUSED[what], FACTORS)
    assert caught.value.what.startswith(f"PROC MIXED cannot say {what}")


def test_degrees_of_freedom_that_sas_does_not_have() -> None:
    with pytest.raises(SpecificationError, match="asymptotic"):
        to_sas(ModelSpec(parse_formula("y ~ x + (1 | g)")), df="asymptotic")
