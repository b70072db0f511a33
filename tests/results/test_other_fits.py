"""Fits made from fits: simulated, refitted, updated; and the criterion of a model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, FormulaError, NonFiniteError, SpecificationError
from bayeslmm.formula.parse import parse_formula
from bayeslmm.formula.update import update_formula


def test_the_criterion_of_a_model_at_the_estimate_is_that_of_the_fit(model: blm.LMM, fit: blm.Fit) -> None:
    assert model.criterion(fit.theta) == pytest.approx(fit.criterion, abs=1e-9)
    assert model.criterion([1.0, 0.0, 1.0]) > fit.criterion


def test_the_gradient_is_the_slope_of_the_criterion(model: blm.LMM) -> None:
    theta, step = np.array([0.8, 0.1, 0.3]), 1e-5
    for method in ("REML", "ML"):
        slopes = [(model.criterion(theta + step * e, method) - model.criterion(theta - step * e, method)) / (2 * step) for e in np.eye(3)]
        assert np.allclose(model.gradient(theta, method), slopes, rtol=1e-6, atol=1e-5)


def test_a_theta_of_another_length_is_refused(model: blm.LMM) -> None:
    with pytest.raises(SpecificationError, match="3 numbers"):
        model.criterion([1.0])


def test_Z_times_the_modes_is_what_fitted_values_have_beyond_the_population(model: blm.LMM, fit: blm.Fit) -> None:
    beta = np.concatenate([modes.ravel() for modes in fit.modes])
    assert np.allclose(model.Z @ beta, fit.fitted() - fit.fitted("population"))


def test_a_method_that_does_not_exist_is_refused(model: blm.LMM) -> None:
    with pytest.raises(SpecificationError, match="REML"):
        model.fit("OLS")


def test_simulations_do_not_depend_on_how_many_there_are(fit: blm.Fit) -> None:
    many, few = fit.simulate(5, seed=11), fit.simulate(2, seed=11)
    assert many.iloc[:, :2].equals(few)
    assert not many["sim_1"].equals(many["sim_2"])


def test_simulated_responses_have_the_marginal_covariance(fit: blm.Fit) -> None:
    drawn = fit.simulate(4000, seed=3).to_numpy()[:10]
    assert np.allclose(drawn.mean(1), fit.fitted("population")[:10], atol=4 * 70 / np.sqrt(4000))
    expected = fit.marginal_cov("308").to_numpy()
    assert np.allclose(np.cov(drawn), expected, atol=0.12 * np.sqrt(np.outer(np.diag(expected), np.diag(expected))).max())


def test_simulated_errors_follow_R(trial: pd.DataFrame) -> None:
    fit = blm.LMM("BCVA_CHG ~ VISITN", trial, residual="ar1(AVISIT | USUBJID)").fit()
    rows = np.flatnonzero((trial["USUBJID"] == trial["USUBJID"][0]).to_numpy())
    drawn = np.cov(fit.simulate(4000, seed=3).to_numpy()[rows])
    assert np.allclose(drawn, fit.marginal_cov(trial["USUBJID"][0]), atol=0.12 * drawn.max())


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
def test_errors_of_lower_rank_are_simulated() -> None:
    r = np.random.default_rng(65)
    g = np.repeat(np.arange(30), 3)
    data = pd.DataFrame({"g": g, "t": np.tile([0, 1, 2], 30), "x": r.normal(size=90)})
    data["y"] = np.array([1.0, 2.0, -1.0])[data["t"]] * r.normal(size=30)[g] + (1 + data["x"]) * r.normal(size=30)[g] + data["x"] ** 2
    fit = blm.LMM("y ~ x + (x || g)", data, residual="fa0(t | g, 1)").fit()
    drawn, expected = fit.simulate(4000, seed=3).to_numpy()[:3], fit.marginal_cov(0).to_numpy()
    assert np.allclose(np.cov(drawn), expected, atol=0.12 * np.diag(expected).max())
    assert np.isfinite(fit.bootstrap(3, seed=1).frame).all().all()


def test_parameters_of_a_simulation_are_checked(model: blm.LMM) -> None:
    with pytest.raises(SpecificationError, match="missing: sigma"):
        model.simulate({"alpha": [1, 2], "theta": [1, 0, 1]})
    with pytest.raises(SpecificationError, match="2 finite numbers"):
        model.simulate({"alpha": [1], "theta": [1, 0, 1], "sigma": 1})
    by_name = model.simulate({"alpha": {"Days": 2, "Intercept": 1}, "theta": [1, 0, 1], "sigma": 1}, seed=1)
    assert by_name.equals(model.simulate({"alpha": [1, 2], "theta": [1, 0, 1], "sigma": 1}, seed=1))


def test_a_refit_to_the_same_response_is_the_same_fit(fit: blm.Fit, sleepstudy: pd.DataFrame) -> None:
    again = fit.refit(sleepstudy["Reaction"])
    assert again.criterion == fit.criterion
    assert fit.refit(3 * fit.design.y).sigma == pytest.approx(3 * fit.sigma)


def test_a_refit_takes_one_column_and_says_what_takes_several(fit: blm.Fit) -> None:
    simulated = fit.simulate(2, seed=1)
    one = fit.refit(simulated.iloc[:, 0]).criterion
    assert fit.refit(simulated.iloc[:, [0]]).criterion == one == fit.refit(simulated.to_numpy()[:, :1]).criterion
    with pytest.raises(DataError, match="fit_many"):
        fit.refit(simulated)


def test_a_refit_takes_rows_of_the_data_or_rows_used(sleepstudy: pd.DataFrame) -> None:
    holes = sleepstudy.copy()
    holes.loc[4, "Reaction"] = np.nan
    fit = blm.LMM("Reaction ~ Days + (1 | Subject)", holes).fit()
    assert fit.refit(sleepstudy["Reaction"]).criterion == pytest.approx(fit.criterion)
    assert fit.refit(sleepstudy["Reaction"].drop(4)).criterion == pytest.approx(fit.criterion)
    with pytest.raises(DataError, match="shape 12"):
        fit.refit(np.zeros(12))
    with pytest.raises(NonFiniteError):
        fit.refit(sleepstudy["Reaction"].where(sleepstudy.index != 7))
    with pytest.raises(SpecificationError, match="y is "):
        fit.refit(["a"] * 179)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (". ~ . + z", "y ~ 1 + x + z + (1 + x | g)"),
        ("~ . + z", "y ~ 1 + x + z + (1 + x | g)"),
        (". ~ . - (x | g)", "y ~ 1 + x"),
        (". ~ . - (x | g) + (1 | g)", "y ~ 1 + x + (1 | g)"),
        (". ~ . - x", "y ~ 1 + x - x + (1 + x | g)"),
        ("log(.) ~ .", "log(y) ~ 1 + x + (1 + x | g)"),
        (". ~ z", "y ~ z"),
        (". ~ . + offset(z)", "y ~ 1 + x + offset(z) + (1 + x | g)"),
        (". ~ . + (0 + z || h)", "y ~ 1 + x + (1 + x | g) + (0 + z | h)"),
        (". ~ . + I(x - 1)", "y ~ 1 + x + I(x - 1) + (1 + x | g)"),
    ],
)
def test_a_dot_stands_for_what_was_there(change: str, expected: str) -> None:
    found = update_formula(parse_formula("y ~ x + (x | g)"), change)
    assert parse_formula(found).random == parse_formula(expected).random
    assert (parse_formula(found).fixed, parse_formula(found).response) == (parse_formula(expected).fixed, parse_formula(expected).response)
    assert parse_formula(found).offsets == parse_formula(expected).offsets


def test_a_term_that_is_not_there_cannot_be_taken_away(fit: blm.Fit) -> None:
    with pytest.raises(FormulaError, match="1 \\| Subject") as caught:
        fit.update(". ~ . - (1 | Subject)")
    assert "Days | Subject" in caught.value.where


def test_an_update_keeps_what_was_said(crossed: pd.DataFrame) -> None:
    fit = blm.LMM("y ~ x + (1 | g)", crossed, weights="w").fit("ML")
    again = fit.update(". ~ . + (1 | h)")
    assert again.method == "ML"
    assert again.design.weights is not None
    assert fit.update(weights=None).design.weights is None
    assert fit.update(data=crossed.head(100)).nobs == 100
    with pytest.raises(SpecificationError, match="colour"):
        fit.update(colour="red")


def test_a_spec_file_reads_back_as_the_model(tmp_path: pytest.TempPathFactory, crossed: pd.DataFrame) -> None:
    model = blm.LMM("y ~ x + (x | g)", crossed, weights="w", contrasts=None)
    model.write(tmp_path / "model.toml")
    again = blm.read_model(tmp_path / "model.toml", crossed)
    assert again.spec == model.spec
    assert again.fit().criterion == model.fit().criterion
    with pytest.raises(blm.errors.StoreError, match="array"):
        blm.LMM("y ~ x + (x | g)", crossed, weights=crossed["w"].to_numpy()).write(tmp_path / "model.toml")


def test_the_front_door_hands_names_on_and_knows_no_others() -> None:
    assert {"LMM", "Fit", "load", "lrt", "compare", "Priors", "mmrm", "proc_mixed", "read_model"} <= set(dir(blm))
    with pytest.raises(AttributeError, match="nothing"):
        _ = blm.nothing
