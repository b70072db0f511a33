"""A variance of the fitted value: at the end the weights are those of the fit, also where whole steps go to and fro."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DesignError


@pytest.mark.parametrize("seed", [1, 8, 16, 17])
def test_weights_and_fit_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(12), 5)
    frame = pd.DataFrame({"g": g, "x": rng.uniform(0, 2, 60)})
    mean = [10, 1.0, 0.3][seed % 3] + 2 * frame["x"] + 0.5 * rng.normal(size=12)[g]
    frame["y"] = mean + rng.normal(size=60) * 0.3 * np.abs(mean) ** [0.5, 1, 1.5][seed // 3 % 3]
    fit = blm.LMM("y ~ x + (1 | g)", frame, variance="power(fitted)").fit()
    assert fit.converged
    # the fit with these fitted values as a column, held, is the same fit
    held = blm.LMM("y ~ x + (1 | g)", frame.assign(v=fit.augment()["fitted"].to_numpy()), variance="power(v)").fit()
    assert held.criterion == pytest.approx(fit.criterion, abs=1e-5)
    np.testing.assert_allclose(held.augment()["fitted"], fit.augment()["fitted"], rtol=1e-5, atol=1e-7)


def growing(seed: int = 5) -> pd.DataFrame:
    """Twelve groups of eight rows whose errors grow with their means."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(12), 8), np.tile(np.linspace(0.0, 6.0, 8), 12)
    mean = 3.0 + 1.2 * x + rng.normal(size=12)[g]
    return pd.DataFrame({"g": g, "x": x, "y": mean + 0.15 * mean * rng.normal(size=96)})


@pytest.fixture(scope="module")
def fit() -> blm.Fit:
    return blm.LMM("y ~ x + (1 | g)", growing(), variance="power(fitted)").fit()


def test_a_replicate_has_weights_of_its_own(fit: blm.Fit) -> None:
    replicate = fit.bootstrap(n=2, seed=1).frame.iloc[1]
    again = fit.refit(fit.simulate(2, seed=1)["sim_2"].to_numpy())
    np.testing.assert_allclose(replicate[["Intercept", "x"]], again.fixef, rtol=1e-6)
    np.testing.assert_allclose(replicate[["sigma", "power"]], [again.sigma, again.theta[-1]], rtol=1e-5)


def test_what_is_left_without_a_group_has_weights_of_its_own(fit: blm.Fit) -> None:
    data, found = growing(), fit.influence("g").set_index("level")
    for level in (0, 7):
        again = blm.LMM("y ~ x + (1 | g)", data[data["g"] != level], variance="power(fitted)").fit()
        np.testing.assert_allclose(found.loc[level, ["Intercept", "x"]].to_numpy(float), again.fixef, rtol=1e-6)


def test_held_parameters_hold_the_weights_of_the_fit(fit: blm.Fit) -> None:
    held = blm.LMM("y ~ x + (1 | g)", growing().assign(v=fit.augment()["fitted"].to_numpy()), variance="power(v)").fit()
    for values in ("estimates", "dfbetas"):
        tables = [one.influence("g", values=values, refit=False)[["Intercept", "x"]].to_numpy() for one in (fit, held)]
        np.testing.assert_allclose(*tables, rtol=1e-5, atol=1e-7)


def test_simulated_errors_have_the_sd_of_simulated_means(fit: blm.Fit) -> None:
    drawn, power, sd = fit.simulate(4000, seed=2).to_numpy(), fit.theta[-1], fit.varcorr["sd"].iloc[0]
    # the mean of |m + b|^(2 power) over b by quadrature
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    means = fit.fitted("population").to_numpy()[:8, None] + sd * nodes
    expected = sd**2 + fit.sigma**2 * (np.abs(means) ** (2.0 * power) @ weights) / weights.sum()
    np.testing.assert_allclose(drawn[:8].var(axis=1), expected, rtol=5.0 * np.sqrt(2.0 / 4000.0))  # five standard errors


def test_assumed_means_make_the_weights(fit: blm.Fit) -> None:
    assumed, sd, g = fit.with_params(alpha={"x": 2.0}), fit.varcorr["sd"].iloc[0], growing()["g"].to_numpy()
    X = assumed.design.X
    V = sd**2 * (g[:, None] == g) + np.diag((fit.sigma * np.abs(X @ [fit.fixef["Intercept"], 2.0]) ** fit.theta[-1]) ** 2)
    np.testing.assert_allclose(assumed.covariance(), np.linalg.inv(X.T @ np.linalg.solve(V, X)), rtol=1e-8)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_weights_settle_in_every_unit(unit: float) -> None:
    for seed in (723, 727, 753):
        rng = np.random.default_rng(seed)
        g = np.repeat(np.arange(8), 5)
        frame = pd.DataFrame({"g": g, "x": rng.normal(2.0, 1.0, 40)})
        frame["y"] = 5.0 + 0.5 * frame["x"] + rng.normal(size=8)[g] + rng.normal(size=40)
        fits = [blm.LMM("y ~ x + (1 | g)", frame.assign(y=frame["y"] * s), variance="power(fitted)").fit("ML") for s in (1.0, unit)]
        assert [fit.converged for fit in fits] == [True, True]
        assert fits[1].criterion - 2 * 40 * np.log(unit) == pytest.approx(fits[0].criterion, abs=1e-6)
        np.testing.assert_allclose(fits[1].fixef / unit, fits[0].fixef, rtol=1e-6)


def test_means_that_hardly_differ_are_refused_by_name() -> None:
    x = np.linspace(-1.0, 1.0, 60)
    errors = np.exp(0.4 * x) * np.tile([1.0, -1.0, -1.0, 1.0], 15)
    frame = pd.DataFrame({"x": x, "y": 1e6 * (7.0 + 0.005 * x + errors)})
    with pytest.raises(DesignError, match="runs off"):
        blm.LMM("y ~ x", frame, variance="power(fitted)").fit()
