"""Tidy tables, summaries as text and HTML, augmented data."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import bayeslmm as blm
from bayeslmm.errors import SpecificationError

COLUMNS = ["effect", "group", "level", "term", "estimate", "std_error", "df", "statistic", "p_value"]


def test_tidy_has_brooms_columns_for_every_effect(fit: blm.Fit) -> None:
    for effects, rows in (("fixed", 2), ("ran_pars", 4), ("ran_vals", 36), ("all", 42)):
        table = fit.tidy(effects, df="asymptotic")
        assert table.columns.tolist() == COLUMNS
        assert len(table) == rows
        assert table["estimate"].notna().all()
    assert fit.tidy(conf_int=True, df="asymptotic").columns.tolist() == [*COLUMNS, "conf_low", "conf_high"]


def test_covariance_parameters_have_brooms_names(fit: blm.Fit) -> None:
    table = fit.tidy("ran_pars")
    assert table["term"].tolist() == ["sd__Intercept", "sd__Days", "cor__Intercept.Days", "sd__Observation"]
    assert table["group"].tolist() == ["Subject", "Subject", "Subject", "Residual"]


def test_normal_intervals_are_symmetric_and_as_wide_as_they_say(fit: blm.Fit) -> None:
    table = fit.tidy(df="asymptotic", conf_int=True, conf_level=0.99)
    assert np.allclose(table["conf_high"] - table["estimate"], 2.5758293 * table["std_error"])
    assert np.allclose(table["conf_high"] + table["conf_low"], 2 * table["estimate"])


def test_t_intervals_use_the_degrees_of_freedom_of_the_test(fit: blm.Fit) -> None:
    table = fit.tidy(conf_int=True)
    assert np.allclose(table["df"], 17.0, atol=0.01)
    assert np.allclose((table["conf_high"] - table["estimate"]) / table["std_error"], 2.1098, atol=1e-3)


def test_options_that_do_not_exist_are_refused(fit: blm.Fit) -> None:
    with pytest.raises(SpecificationError, match="random"):
        fit.tidy("random")
    with pytest.raises(SpecificationError, match="deviance"):
        fit.residuals("deviance")


def test_glance_is_one_row(fit: blm.Fit) -> None:
    assert fit.glance().columns.tolist() == ["nobs", "sigma", "loglik", "aic", "bic", "criterion", "df_residual"]
    assert len(fit.glance()) == 1


def test_augment_puts_fitted_values_beside_the_data(fit: blm.Fit, sleepstudy: pd.DataFrame) -> None:
    table = fit.augment()
    assert np.allclose(table["fitted"] + table["resid"], table["Reaction"])
    other = fit.augment(sleepstudy.head(3))
    assert np.allclose(other["fitted"], table["fitted"][:3])
    assert np.allclose(other["resid"], table["resid"][:3])


def test_a_column_called_fitted_is_kept_apart(sleepstudy: pd.DataFrame) -> None:
    data = sleepstudy.rename(columns={"Days": "fitted"})
    table = blm.LMM("Reaction ~ fitted + (1 | Subject)", data).fit().augment()
    assert table["fitted"].equals(data["fitted"])
    assert ".fitted" in table


def test_the_summary_fits_eighty_columns_and_has_its_blocks(fit: blm.Fit) -> None:
    text = str(fit.summary(df="asymptotic"))
    assert max(map(len, text.splitlines())) <= 80
    for word in ("REML", "Random effects", "Residual", "Fixed effects", "groups: Subject 18", "Correlation of the fixed effects"):
        assert word in text


def test_a_wide_summary_breaks_its_tables_and_not_its_lines(trial: pd.DataFrame) -> None:
    fit = blm.LMM("BCVA_CHG ~ ARMCD * AVISIT * RACE + (1 | USUBJID)", trial, check="warn").fit()
    text = str(fit.summary(df="asymptotic"))
    assert max(map(len, text.splitlines())) <= 80


def test_checks_that_did_not_pass_are_in_the_summary(trial: pd.DataFrame) -> None:
    flat = trial.assign(BCVA_CHG=np.random.default_rng(1).normal(size=len(trial)))
    fit = blm.LMM("BCVA_CHG ~ VISITN + (1 | USUBJID)", flat).fit()
    shown = str(fit.summary(df="asymptotic"))
    for name, check in fit.checks.items():
        assert (f"{check.verdict}: {name}" in shown.replace("\n    ", " ")) == (check.verdict != "passed")


def test_names_are_escaped_in_html_and_controls_shown_in_text(sleepstudy: pd.DataFrame) -> None:
    evil = "<script>alert(1)</script>"
    data = sleepstudy.assign(arm=np.array(["1", evil, "b\x1b[31mred"] * 60))
    fit = blm.LMM("Reaction ~ arm + (1 | Subject)", data).fit()
    summary = fit.summary(df="asymptotic")
    assert "<script>" not in summary._repr_html_()
    assert "&lt;script&gt;" in summary._repr_html_()
    assert "\x1b" not in str(summary)


def test_rich_draws_the_summary_without_reading_names_as_markup(sleepstudy: pd.DataFrame) -> None:
    fit = blm.LMM("Reaction ~ `[bold]Days` + (1 | Subject)", sleepstudy.rename(columns={"Days": "[bold]Days"})).fit()
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(fit.summary(df="asymptotic"))
    assert "[bold]Days" in console.export_text()


def test_a_fit_is_one_line_when_it_is_shown(fit: blm.Fit) -> None:
    assert repr(fit) == "Fit(REML of Reaction ~ Days + (Days | Subject): criterion 1743.6283, nobs 180)"


def test_a_wide_summary_keeps_its_columns() -> None:
    """Eight random effects and 40 names of 45 characters: one line for each, correlations under one another."""
    rng = np.random.default_rng(0)
    arms = [f"treatment arm with a very long name no {i:03d}" for i in range(39)]
    d = pd.DataFrame({"id": np.repeat([f"s{i}" for i in range(60)], 12)} | {f"x{i}": rng.normal(size=720) for i in range(7)})
    d["a long factor name"] = np.tile(arms, 19)[:720]
    d["y"] = rng.normal(size=720) + np.repeat(rng.normal(size=60), 12)
    fit = blm.LMM("y ~ `a long factor name` + (x0 + x1 + x2 + x3 + x4 + x5 + x6 | id)", d, check="warn").fit()
    text = str(fit.summary())
    lines = text.split("\n")
    assert max(map(len, lines)) <= 80
    fixed = lines[next(i for i, line in enumerate(lines) if line.startswith("Fixed effects")) :]
    assert sum("name no 0" in line for line in fixed) == 38
    start = next(i for i, line in enumerate(lines) if line.startswith("Random effects"))
    block = lines[start + 1 : start + 11]
    D = fit.D["id"].to_numpy()
    corr = D / np.sqrt(np.outer(np.diag(D), np.diag(D)))
    column = block[0].index("Corr") + 4
    for i in range(1, 8):
        assert float(block[1 + i][column - 5 : column]) == pytest.approx(corr[i, 0], abs=0.0051)
    assert text.count("Residual") == 1


@pytest.mark.parametrize("residual", ["us(age | Subject)", "csh(age | Sex / Subject)", "adh(age | Subject)"])
def test_varcorr_has_the_errors_of_every_visit(residual: str) -> None:
    fit = blm.LMM("distance ~ age * Sex", blm.load_dataset("nlme/Orthodont"), residual=residual).fit()
    table = fit.varcorr.fillna({"term2": ""})
    for group, R in (fit.R if isinstance(fit.R, dict) else {None: fit.R}).items():
        own = table[table["group"] == ("Residual" if group is None else f"Residual|{group}")]
        sds = np.sqrt(np.diag(R))
        assert own["sd"].dropna().tolist() == pytest.approx(sds.tolist())
        above = np.triu_indices(len(R), 1)
        assert own["variance"].tolist() == pytest.approx([*sds**2, *R.to_numpy()[above]])
        assert own["corr"].dropna().tolist() == pytest.approx((R / np.outer(sds, sds)).to_numpy()[above].tolist())


def test_varcorr_has_one_row_of_errors_of_one_sd_and_of_each_group() -> None:
    data = blm.load_dataset("nlme/Orthodont")
    one = blm.LMM("distance ~ age * Sex", data, residual="ar1(age | Subject)").fit()
    assert one.varcorr["sd"].tolist() == [one.sigma]
    each = blm.LMM("distance ~ age * Sex", data, residual="sp_exp(age | Sex / Subject)").fit()
    assert each.varcorr["group"].tolist() == ["Residual|Male", "Residual|Female"]
    assert each.varcorr["sd"].tolist() == pytest.approx([each.residual_params["sd|Male"], each.residual_params["sd|Female"]])
