"""Published kinds of programs are read, and mean what they should."""

from __future__ import annotations

import pytest

from bayeslmm.formula.parse import parse_formula, parse_residual
from bayeslmm.sas.language.statements import parse_program
from bayeslmm.sas.statement_text import program_text
from bayeslmm.sas.translate import translate
from tests.sas.programs import CASES, Case

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@cases
def test_the_model_is_the_one_that_sas_fits(case: Case) -> None:
    translation = translate(case.program)
    assert translation.spec.formula == parse_formula(case.formula)
    assert translation.spec.residual == (parse_residual(case.residual) if case.residual else None)
    assert [f.covariate for f in translation.spec.variance] == ([case.variance] if case.variance else [])


@cases
def test_the_inference_is_the_one_that_sas_does(case: Case) -> None:
    translation = translate(case.program)
    assert (translation.df, translation.vcov, translation.method) == (case.df, case.vcov, case.method)
    assert translation.information == "observed"


@cases
def test_the_text_of_a_program_is_the_same_program(case: Case) -> None:
    program = parse_program(case.program)
    again = parse_program(program_text(program))
    assert again == parse_program(program_text(again))
    assert (again.model, again.random, again.repeated, again.lsmeans) == (
        program.model,
        program.random,
        program.repeated,
        program.lsmeans,
    )
    assert (again.estimates, again.contrasts, again.parms, again.where) == (
        program.estimates,
        program.contrasts,
        program.parms,
        program.where,
    )
    assert (again.proc, again.classes, again.by, again.id) == (program.proc, program.classes, program.by, program.id)


@cases
def test_every_table_asked_for_is_listed_once(case: Case) -> None:
    tables = translate(case.program).tables
    assert len(tables) == len(set(tables))
    assert {"CovParms", "FitStatistics", "NObs", "Dimensions"} <= set(tables)


def by_name(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def test_the_textbook_program_prints_these_tables() -> None:
    tables = translate(by_name("trial_random_intercept").program).tables
    assert tables == (
        "ModelInfo",
        "ClassLevels",
        "Dimensions",
        "NObs",
        "IterHistory",
        "ConvergenceStatus",
        "CovParms",
        "FitStatistics",
        "SolutionF",
        "Tests3",
    )


def test_mmrm_asks_for_the_tables_of_a_trial_report() -> None:
    tables = translate(by_name("mmrm").program).tables
    assert tables[6:] == (
        "R",
        "RCorr",
        "CovParms",
        "FitStatistics",
        "LRT",
        "SolutionF",
        "Tests3",
        "Estimates",
        "LSMeans",
        "Diffs",
        "Slices",
    )


def test_the_null_model_test_is_printed_for_structures_and_not_for_variance_components() -> None:
    assert "LRT" in translate(by_name("random_coefficients").program).tables
    assert "LRT" not in translate(by_name("random_coefficients_and_lack_of_fit").program).tables


def test_silent_options_leave_tables_out() -> None:
    tables = translate(by_name("school_effects").program).tables
    assert not {"ClassLevels", "IterHistory", "Tests3"} & set(tables)


def test_effects_are_named_as_sas_prints_them() -> None:
    effects = translate(by_name("growth_curves_by_gender").program).effects
    assert [effect.name for effect in effects] == ["Gender", "Age", "Age*Gender"]


def test_covariance_parameters_come_statement_by_statement() -> None:
    blocks = translate(by_name("nested_subject").program).blocks
    assert [(b.type.text, b.effects, b.subject, b.terms) for b in blocks] == [
        ("UN", ("Intercept", "ses"), "school", (0,)),
        ("VC", ("Intercept",), "class(school)", (1,)),
    ]


def test_subjects_are_the_coarsest_where_the_others_are_nested_in_them() -> None:
    assert translate(by_name("nested_subject").program).subject == ("school",)
    assert translate(by_name("multi_location").program).subject == ()
    assert translate(by_name("mmrm").program).subject == ("usubjid",)


def test_residual_row_stands_only_where_sas_factors_it_out() -> None:
    with_residual = {case.name for case in CASES if translate(case.program).residual}
    assert {"growth_curves_unstructured", "growth_curves_by_gender", "mmrm", "unequal_variances", "ante_dependence"}.isdisjoint(
        with_residual
    )
    assert {"split_plot", "line_source_sprinkler", "uniformity_trial", "heart_rate_spatial_power"} <= with_residual


def test_group_in_random_gives_each_level_its_own_term() -> None:
    program = "proc mixed; class id arm; model y = arm x; random int x / subject=id(arm) group=arm type=un; run;"
    translation = translate(program, levels={"arm": ("A", "B")})
    assert [(t.left, t.group) for t in translation.spec.formula.random] == [
        ("0 + `arm=A` + `arm=A`:x", ("arm", "id")),
        ("0 + `arm=B` + `arm=B`:x", ("arm", "id")),
    ]
    assert [(d.name, d.of, d.level) for d in translation.derived] == [("arm=A", ("arm",), "A"), ("arm=B", ("arm",), "B")]
    assert [b.level for b in translation.blocks] == ["A", "B"]


def test_names_are_those_of_the_data_whatever_the_case() -> None:
    program = by_name("trial_random_intercept").program.lower()
    translation = translate(program, columns=["USUBJID", "BCVA_CHG", "VISITN", "BCVA_BL"])
    assert translation.spec.formula == parse_formula("BCVA_CHG ~ 1 + VISITN + BCVA_BL + (1 | USUBJID)")


def test_name_literals_reach_columns_with_any_name() -> None:
    translation = translate("proc mixed; class 'my id'n; model 'log y'n = 'a b'n; random int / subject='my id'n; run;")
    assert translation.spec.formula == parse_formula("`log y` ~ 1 + `a b` + (1 | `my id`)")


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("un", "us(v | id)"),
        ("unr", "us(v | id)"),
        ("un(2)", "un(v | id, 2)"),
        ("un(1)", "diag(v | id)"),
        ("cs", "cs(v | id)"),
        ("csh", "csh(v | id)"),
        ("ar(1)", "ar1(v | id)"),
        ("arh(1)", "ar1h(v | id)"),
        ("arma(1,1)", "arma(v | id)"),
        ("ante(1)", "adh(v | id)"),
        ("toep", "toep(v | id)"),
        ("toep(3)", "toep(v | id, 3)"),
        ("toeph", "toeph(v | id)"),
        ("toeph(2)", "toeph(v | id, 2)"),
        ("hf", "hf(v | id)"),
        ("fa(2)", "fa(v | id, 2)"),
        ("fa0(2)", "fa0(v | id, 2)"),
        ("fa1(1)", "fa1(v | id, 1)"),
        ("sp(exp)(t)", "sp_exp(t | id)"),
        ("sp(pow)(t)", "sp_pow(t | id)"),
        ("sp(gau)(t u)", "sp_gau(t, u | id)"),
        ("sp(sph)(t)", "sp_sph(t | id)"),
        ("sp(lin)(t)", "sp_lin(t | id)"),
        ("sp(matern)(t)", "matern(t | id)"),
    ],
)
def test_structures_have_these_names_here(written: str, ours: str) -> None:
    translation = translate(f"proc mixed; class id v; model y = x; repeated v / subject=id type={written}; run;")
    assert translation.spec.residual == parse_residual(ours)


@pytest.mark.parametrize("written", ["un@ar(1)", "UN@CS", "un@un"])
def test_products_of_structures(written: str) -> None:
    translation = translate(f"proc mixed; class id o v; model y = o; repeated o v / subject=id type={written}; run;")
    ours = {"un@ar(1)": "us@ar1", "un@cs": "us@cs", "un@un": "us@us"}[written.lower()]
    assert translation.spec.residual == parse_residual(f"{ours}(o, v | id)")


def test_default_degrees_of_freedom_follow_the_statements() -> None:
    assert translate("proc mixed; class id; model y = x; random int / subject=id; run;").df == "containment"
    assert translate("proc mixed; class id; model y = x; repeated / subject=id; run;").df == "between-within"
    assert translate("proc mixed; class id; model y = x; run;").df == "residual"
    assert translate("proc mixed dfbw; class id; model y = x; random int / subject=id; run;").df == "between-within"


def test_scoring_takes_the_expected_information() -> None:
    assert translate("proc mixed scoring=4; model y = x; run;").information == "expected"


def test_a_subject_outside_class_has_to_stand_together() -> None:
    translation = translate("proc mixed; model y = x; random int / subject=id; run;")
    assert translation.contiguous == ("id",)
    assert any("id in SUBJECT= is not in CLASS" in note for note in translation.notes)
