"""The numbers of a fit, and the one warning it may give."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning, PredictionError
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.specification.toml import mmrm_spec


def test_sleepstudy_has_the_published_estimates(fit: blm.Fit) -> None:
    assert fit.criterion == pytest.approx(1743.6282719584, abs=1e-8)
    assert fit.fixef.round(3).to_dict() == {"Intercept": 251.405, "Days": 10.467}
    assert np.sqrt(np.diag(fit.vcov)).round(3).tolist() == [6.825, 1.546]
    assert fit.theta.round(4).tolist() == [0.9667, 0.0152, 0.2309]
    assert (fit.aic, fit.bic, fit.loglik) == pytest.approx((1755.628272, 1774.786013, -871.814136), abs=1e-6)


def test_theta_is_the_factor_of_D(fit: blm.Fit) -> None:
    T = np.zeros((2, 2))
    T[[0, 1, 1], [0, 0, 1]] = fit.theta
    assert np.allclose(fit.sigma**2 * T @ T.T, fit.D["Subject"], rtol=1e-10)


def test_varcorr_has_a_row_per_variance_per_pair_and_one_for_the_residual(fit: blm.Fit) -> None:
    table = fit.varcorr
    assert table.columns.tolist() == ["group", "term1", "term2", "variance", "sd", "corr"]
    assert table["group"].tolist() == ["Subject", "Subject", "Subject", "Residual"]
    assert table["term2"].isna().tolist() == [True, True, False, True]
    pair = table.iloc[2]
    D = fit.D["Subject"]
    assert pair["variance"] == D.loc["Intercept", "Days"]
    assert pair["corr"] == pytest.approx(pair["variance"] / np.sqrt(D.loc["Intercept", "Intercept"] * D.loc["Days", "Days"]))


def test_independent_terms_have_no_correlation_to_report(sleepstudy: pd.DataFrame) -> None:
    fit = blm.LMM("Reaction ~ Days + diag(Days | Subject)", sleepstudy).fit()
    assert fit.varcorr["term2"].isna().all()
    assert not fit.tidy("ran_pars")["term"].str.startswith("cor").any()


def test_what_is_done_to_a_frame_does_not_reach_the_fit(fit: blm.Fit) -> None:
    before = fit.fixef, fit.vcov, fit.ranef()["Subject"], fit.D["Subject"]
    for frame in (fit.fixef, fit.vcov, fit.ranef()["Subject"], fit.D["Subject"]):
        frame.iloc[0] = 0.0
    assert all(now.equals(then) for now, then in zip((fit.fixef, fit.vcov, fit.ranef()["Subject"], fit.D["Subject"]), before, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        fit.theta[0] = 0.0


def test_later_changes_of_the_data_do_not_reach_the_fit(sleepstudy: pd.DataFrame) -> None:
    data = sleepstudy.copy()
    model = blm.LMM("Reaction ~ Days + (Days | Subject)", data)
    data["Reaction"] = 0.0
    assert model.fit().criterion == pytest.approx(1743.6282722)


def test_aliased_coefficients_are_nan_and_named_in_the_warning(sleepstudy: pd.DataFrame) -> None:
    with pytest.warns(BayesLMMWarning, match="twice") as told:
        fit = blm.LMM("Reaction ~ Days + twice + (1 | Subject)", sleepstudy.assign(twice=2 * sleepstudy["Days"])).fit()
    assert len(told) == 1
    assert fit.fixef.isna().tolist() == [False, False, True]
    assert fit.vcov.isna().to_numpy().sum() == 5
    assert fit.df_model == 4


def test_a_good_fit_warns_of_nothing(model: blm.LMM) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = model.fit()
        fit.tidy("all", df="asymptotic", conf_int=True)
    assert fit.converged
    assert not fit.singular


def test_a_singular_fit_says_so_in_its_checks(sleepstudy: pd.DataFrame) -> None:
    flat = sleepstudy.assign(Reaction=np.random.default_rng(0).normal(size=len(sleepstudy)))
    fit = blm.LMM("Reaction ~ Days + (1 | Subject)", flat).fit()
    if fit.singular:
        assert any(name.startswith("singular") for name in fit.checks)
    assert np.all(np.isfinite(fit.vcov))


def test_an_interrupted_fit_keeps_the_best_point_and_is_marked(sleepstudy: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    unbalanced = sleepstudy.drop(index=range(0, 180, 7))  # a balanced search ends where it begins
    model = blm.LMM("Reaction ~ Days + (Days | Subject)", unbalanced)
    whole, calls = Criterion.at_in_one_thread, []

    def pressed(self: Criterion, x: np.ndarray, restricted: bool, order: int = 2) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, x, restricted, order)

    monkeypatch.setattr(Criterion, "at_in_one_thread", pressed)
    with pytest.warns(BayesLMMWarning, match="interrupted"):
        fit = model.fit()
    assert fit.interrupted
    assert not fit.converged
    assert fit.criterion == min(value for _, value in fit.path)
    assert "interrupted" in repr(fit)


def test_after_an_interrupt_no_search_is_begun_beyond_a_variance_of_0(sleepstudy: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = sleepstudy.assign(Reaction=np.random.default_rng(2).normal(size=180)).drop(index=range(0, 180, 7))
    model = blm.LMM("Reaction ~ Days + (1 | Subject)", noise)
    whole, calls = Criterion.at_in_one_thread, []

    def pressed(self: Criterion, x: np.ndarray, restricted: bool, order: int = 2) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, np.full_like(x, 1e-6), restricted, order)  # the search begins next to 0

    monkeypatch.setattr(Criterion, "at_in_one_thread", pressed)
    monkeypatch.setattr("bayeslmm.estimate.estimate.DECREASE_TOLERANCE", -1.0)
    monkeypatch.setattr("bayeslmm.estimate.estimate.MACHINE_EPSILON", 0.0)
    monkeypatch.setattr("bayeslmm.estimate.estimate.step_beyond", lambda *given: pytest.fail("a search was begun after Ctrl-C"))
    with pytest.warns(BayesLMMWarning, match="interrupted"):
        assert model.fit().interrupted


def test_rows_are_positions_in_the_data_given(sleepstudy: pd.DataFrame) -> None:
    holes = sleepstudy.copy()
    holes.loc[[3, 50], "Reaction"] = np.nan
    model = blm.LMM("Reaction ~ Days + (1 | Subject)", holes)
    fit = model.fit()
    assert (model.nobs, model.n_dropped) == (178, 2)
    assert fit.rows.tolist() == [i for i in range(180) if i not in (3, 50)]
    assert len(fit.fitted()) == len(fit.residuals()) == 178


def test_residuals_of_every_kind(crossed: pd.DataFrame) -> None:
    fit = blm.LMM("y ~ x + (1 | g)", crossed, weights="w").fit()
    e = crossed["y"] - fit.fitted()
    assert np.allclose(fit.residuals(), e)
    assert np.allclose(fit.residuals("pearson"), e / (fit.sigma / np.sqrt(crossed["w"])))
    assert np.allclose(fit.residuals("normalized"), fit.residuals("pearson"))
    assert np.allclose(fit.residuals("marginal"), crossed["y"] - fit.fitted("population"))


def test_normalized_residuals_are_whitened_by_the_subjects_R(trial: pd.DataFrame) -> None:
    fit = blm.LMM("BCVA_CHG ~ VISITN", trial, residual="ar1h(AVISIT | USUBJID)").fit()
    one = trial.index[trial["USUBJID"] == trial["USUBJID"][0]].to_numpy()
    R = fit.marginal_cov(trial["USUBJID"][0]).to_numpy()
    expected = np.linalg.solve(np.linalg.cholesky(R), fit.residuals()[one])
    assert np.allclose(fit.residuals("normalized")[one], expected)
    assert np.allclose(fit.residuals("pearson")[one], fit.residuals()[one] / np.sqrt(np.diag(R)))


def test_the_marginal_covariance_is_ZDZ_plus_R(fit: blm.Fit, sleepstudy: pd.DataFrame) -> None:
    Z = np.column_stack([np.ones(10), np.arange(10)])
    expected = Z @ fit.D["Subject"].to_numpy() @ Z.T + fit.sigma**2 * np.eye(10)
    assert np.allclose(fit.marginal_cov("309"), expected)
    with pytest.raises(PredictionError, match="nobody"):
        fit.marginal_cov("nobody")


def test_extreme_weights_change_sigma_alone(crossed: pd.DataFrame) -> None:
    plain = blm.LMM("y ~ x + (x | g)", crossed).fit()
    for scale in (1e-300, 1e300):
        fit = blm.LMM("y ~ x + (x | g)", crossed, weights=np.full(len(crossed), scale)).fit()
        assert fit.criterion == pytest.approx(plain.criterion, rel=1e-9)
        assert np.allclose(fit.D["g"], plain.D["g"], rtol=1e-6)
        assert fit.sigma / np.sqrt(scale) == pytest.approx(plain.sigma, rel=1e-6)


def test_information_criteria_count_as_the_door_does(trial: pd.DataFrame) -> None:
    ours = blm.LMM("BCVA_CHG ~ VISITN", trial, residual="cs(AVISIT | USUBJID)").fit()
    theirs = blm.LMM.from_spec(mmrm_spec("BCVA_CHG ~ VISITN + cs(AVISIT | USUBJID)"), trial, counting="mmrm").fit()
    assert ours.criterion == theirs.criterion
    assert ours.aic == pytest.approx(ours.criterion + 2 * 4)
    assert theirs.aic == pytest.approx(theirs.criterion + 2 * 2)
    assert theirs.bic == pytest.approx(theirs.criterion + np.log(60) * 2)


def test_R_and_its_parameters(trial: pd.DataFrame) -> None:
    fit = blm.LMM("BCVA_CHG ~ VISITN", trial, residual="ar1(AVISIT | ARMCD / USUBJID)").fit()
    assert set(fit.R) == set(trial["ARMCD"])
    assert len(fit.residual_params) == 4
    assert np.isnan(fit.sigma)
    first = next(iter(fit.R.values()))
    assert first.iloc[0, 1] / first.iloc[0, 0] == pytest.approx(fit.residual_params.iloc[1])
