"""Leverage, Cook's distance and deletion by group against their definitions, and shares of variance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import InferenceError
from bayeslmm.inference.diagnostics import allfit, caic, simulated_residuals
from bayeslmm.likelihood import prediction
from tests.inference.examples import DATA, FORMULAS, fitted

MODELS = ["slope", "uncorrelated", "weighted", "crossed_slope", "nested", "serial", "mixed_serial", "plain"]


@pytest.mark.parametrize("name", ["slope", "weighted", "crossed_slope", "nested", "plain"])
def test_leverage_is_the_slope_of_a_fitted_value_in_its_own_observation(name: str) -> None:
    fit = fitted(name)
    design = fit.design
    V = np.diag(1.0 / (design.weights if design.weights is not None else np.ones(fit.nobs)))
    ZDZ = np.zeros_like(V)
    for term, D in zip(design.terms, fit.covariances, strict=True):
        codes = term.group.codes
        ZDZ += (codes[:, None] == codes) * (term.Z @ (D / fit.sigma**2) @ term.Z.T)
    Vi = np.linalg.inv(V + ZDZ)
    X = design.X
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    H = np.eye(fit.nobs) - V @ P
    np.testing.assert_allclose(fit.influence()["hat"], np.diag(H), rtol=1e-7)


@pytest.mark.parametrize("name", ["serial", "mixed_serial"])
def test_leverage_under_structured_errors_is_that_of_the_definition(name: str) -> None:
    fit = fitted(name)
    rows = fit.design.residual.subject.codes  # type: ignore[union-attr]
    V, R = np.zeros((fit.nobs, fit.nobs)), np.zeros((fit.nobs, fit.nobs))
    for k, level in enumerate(fit.design.residual.subject.levels):  # type: ignore[union-attr]
        own = np.flatnonzero(rows == k)
        V[np.ix_(own, own)] = fit.marginal_cov(level).to_numpy()
        visits = fit.design.residual.visit[own]  # type: ignore[union-attr,index]
        R[np.ix_(own, own)] = fit.R.to_numpy()[np.ix_(visits, visits)]  # type: ignore[union-attr]
    Vi, X = np.linalg.inv(V), fit.design.X
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    np.testing.assert_allclose(fit.influence()["hat"], np.diag(np.eye(fit.nobs) - R @ P), rtol=1e-7)


@pytest.mark.parametrize("name", ["serial", "mixed_serial"])
def test_the_distance_of_a_row_under_structured_errors_is_that_of_its_deletion(name: str) -> None:
    fit = fitted(name)
    found, rows = fit.influence()["cooks_distance"].to_numpy(), fit.design.residual.subject.codes  # type: ignore[union-attr]
    V = np.zeros((fit.nobs, fit.nobs))
    for k, level in enumerate(fit.design.residual.subject.levels):  # type: ignore[union-attr]
        V[np.ix_(rows == k, rows == k)] = fit.marginal_cov(level).to_numpy()
    X, y = fit.design.X, fit.design.y
    information = X.T @ np.linalg.solve(V, X)
    whole = np.linalg.solve(information, X.T @ np.linalg.solve(V, y))
    for i in range(0, fit.nobs, 7):
        own = np.arange(fit.nobs) != i
        inverse = np.linalg.inv(V[np.ix_(own, own)])
        change = whole - np.linalg.solve(X[own].T @ inverse @ X[own], X[own].T @ inverse @ y[own])
        np.testing.assert_allclose(found[i], change @ information @ change / X.shape[1], rtol=1e-6)
    assert (found >= 0).all()


@pytest.mark.parametrize(
    ("name", "group"), [("slope", "id"), ("weighted", "id"), ("crossed_slope", "sample"), ("nested", "batch"), ("serial", "id")]
)
def test_without_a_level_is_the_fit_of_the_data_without_it(name: str, group: str) -> None:
    fit = fitted(name)
    formula, data, options = FORMULAS[name]
    frame = DATA[data]()
    found = fit.influence(group).set_index("level")
    for level in list(found.index)[:4]:
        alone = blm.LMM(formula, frame[frame[group] != level].reset_index(drop=True), **options).fit()  # type: ignore[arg-type]
        np.testing.assert_allclose(found.loc[level, list(fit.fixef.index)].astype(float), alone.fixef, rtol=2e-5, atol=1e-5)
    assert (found["cooks_distance"] >= 0).all()


def test_held_covariance_parameters_give_nearly_the_same_deletions() -> None:
    fit = fitted("slope")
    exact, quick = (fit.influence("id", refit=refit)[["Intercept", "time"]] for refit in (True, False))
    spread = (exact - fit.fixef[["Intercept", "time"]]).abs().max()
    assert ((exact - quick).abs().max() < 0.35 * spread).all()


def test_dfbetas_are_changes_in_standard_errors() -> None:
    fit = fitted("slope")
    shown, raw = fit.influence("id", values="dfbetas"), fit.influence("id")
    change = fit.fixef["time"] - raw["time"]
    np.testing.assert_array_equal(np.sign(shown["time"]), np.sign(change))
    assert (shown["time"].abs() < 3).all()


def test_a_level_without_which_nothing_is_left_has_no_values() -> None:
    frame = DATA["subjects"]()
    frame["only"] = (frame["id"] == "3").astype(float)
    fit = blm.LMM("y ~ time + only + (1 | id)", frame).fit()
    found = fit.influence("id").set_index("level")
    assert found.loc["3", ["Intercept", "time"]].isna().all()
    assert found.drop(index="3")["time"].notna().all()


@pytest.mark.parametrize("name", MODELS)
def test_shares_of_variance_lie_between_their_bounds(name: str) -> None:
    fit = fitted(name)
    r2, icc = fit.r2().iloc[0], fit.icc().iloc[0]
    assert 0.0 <= r2["marginal"] <= r2["conditional"] <= 1.0
    assert 0.0 <= icc["unadjusted"] <= icc["adjusted"] <= 1.0


def test_degrees_of_freedom_of_the_conditional_aic_are_the_slopes_of_refits() -> None:
    fit = fitted("weighted")
    y, total, step = fit.design.y, 0.0, 1e-3
    for i in range(fit.nobs):
        up, down = y.copy(), y.copy()
        up[i], down[i] = y[i] + step, y[i] - step
        total += (fit.refit(up).fitted()[i] - fit.refit(down).fitted()[i]) / (2.0 * step)
    found = caic(fit).iloc[0]
    # refits end where a predicted decrease falls below 1e-12, which a step of 1e-3 turns into four digits
    assert found["df"] == pytest.approx(total, rel=1e-4)
    assert found["df_known"] == pytest.approx(fit.influence()["hat"].sum())
    with pytest.raises(InferenceError):
        caic(fitted("serial"))


@pytest.mark.parametrize("name", ["slope", "crossed_slope", "serial"])
def test_every_search_ends_at_the_optimum(name: str) -> None:
    found = allfit(fitted(name), starts=2)
    newton = found[found["search"].str.startswith("newton")]
    assert newton["excess"].abs().max() < 1e-6
    assert found["excess"].min() > -1e-6


def test_simulated_residuals_are_uniform_under_the_model_and_not_under_another() -> None:
    fit = fitted("slope")
    good = simulated_residuals(fit, seed=1)
    assert ((good.values > 0) & (good.values < 1)).all()
    assert (good.tests()["p_value"] > 0.001).all()
    heavy = blm.LMM("y ~ time + arm", DATA["subjects"]().assign(y=lambda d: np.exp(d["y"] / 4))).fit()
    assert simulated_residuals(heavy, seed=1).tests()["p_value"].min() < 0.05


@pytest.mark.parametrize("formula", ["y ~ x + (1 | s) + (1 | i)", "y ~ x + (x | s) + (x | i) + (1 | h)", "y ~ x + (1 | s) + (0 + x | i)"])
def test_variances_by_level_are_those_row_by_row(formula: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows share their level's products with Q; the answer may not depend on it. Unseen levels, too."""
    rng = np.random.default_rng(3)
    n = 900
    data = pd.DataFrame({"s": rng.integers(0, 60, n), "i": rng.integers(0, 45, n), "h": rng.integers(0, 5, n), "x": rng.normal(size=n)})
    data["y"] = data["x"] + rng.normal(size=60)[data["s"]] + rng.normal(size=45)[data["i"]] * data["x"] + rng.normal(size=n)
    fit = blm.LMM(formula, data).fit()
    assert prediction._shares_levels(fit.point.state.levels, n)
    new = data.assign(i=np.where(np.arange(n) % 9 == 0, 999, data["i"]))
    options = {"interval": "prediction", "new_levels": "population"}
    shared = fit.predict(new, **options)["std_error"]
    monkeypatch.setattr(prediction, "_shares_levels", lambda *_: False)
    np.testing.assert_allclose(shared, fit.predict(new, **options)["std_error"], rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"residual": "ar1(t | g)"}, {"variance": "power(u)"}], ids=["independent", "serial", "power"])
@pytest.mark.parametrize("unit", [1.0, 3.0, 1e6])
def test_a_row_that_alone_tells_a_coefficient_has_no_distance(options: dict[str, str], unit: float) -> None:
    rng = np.random.default_rng(0)
    g, t = np.divmod(np.arange(40), 5)
    data = pd.DataFrame({"g": g, "t": t, "u": t + 1.0, "x": rng.normal(size=40), "a": ["p"] * 39 + ["q"]})
    data["y"] = unit * (rng.normal(size=8)[g] + rng.normal(size=40))
    for formula in ("y ~ a + x", "y ~ a + x + (1 | g)"):
        found = blm.LMM(formula, data, **options).fit().influence()
        assert found["hat"].iloc[-1] == pytest.approx(1.0)
        assert found["cooks_distance"].isna().tolist() == [False] * 39 + [True]
