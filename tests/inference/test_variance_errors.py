"""Standard errors of covariance parameters: PROC MIXED's on the variance scale, second differences of the criterion, none at a boundary."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


def errors(fit: blm.Fit) -> pd.Series:
    """By term and group."""
    return fit.tidy("ran_pars").set_index(["group", "term"])["std_error"]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_variances_have_the_errors_of_covtest(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(15), rng.integers(2, 7, 15))
    data = pd.DataFrame({"g": g, "x": rng.normal(size=len(g))})
    data["y"] = data.x + 2.0 * rng.normal(size=15)[g] + rng.normal(size=len(g))
    fit = blm.LMM("y ~ x + (1 | g)", data).fit(method)  # type: ignore[arg-type]
    program = f"proc mixed covtest method={method.lower()}; class g; model y = x; random int / subject=g; run;"
    table = blm.proc_mixed(program, data)["CovParms"]
    own = fit.tidy("ran_pars")
    np.testing.assert_allclose(2.0 * own["estimate"] * own["std_error"], table["StdErr"], rtol=1e-6)


def test_a_balanced_design_has_the_closed_form() -> None:
    # REML of a balanced one-way layout: MSE and MSA are independent multiples of chi-squares, which is what the information says inside
    rng = np.random.default_rng(3)
    k, n = 30, 5
    g = np.repeat(np.arange(k), n)
    data = pd.DataFrame({"g": g, "y": 2.0 * rng.normal(size=k)[g] + rng.normal(size=k * n)})
    fit = blm.LMM("y ~ 1 + (1 | g)", data).fit()
    means = data.groupby("g").y.mean()
    within = float(((data.y - means[g].to_numpy()) ** 2).sum() / (k * (n - 1)))
    between = float(n * means.var())
    residual = within * np.sqrt(2.0 / (k * (n - 1)))
    group = np.sqrt(2.0 * between**2 / (k - 1) + 2.0 * within**2 / (k * (n - 1))) / n
    own = fit.tidy("ran_pars")
    np.testing.assert_allclose(2.0 * own["estimate"] * own["std_error"], [group, residual], rtol=1e-5)


@pytest.mark.parametrize("residual", ["ar1(t | g)", "us(t | g)", "arma(t | g, 2, 0)"])
def test_errors_are_the_wald_interval_s(residual: str) -> None:
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat(np.arange(40), 4), "t": np.tile(np.arange(4), 40)})
    data["y"] = rng.normal(size=40)[data.g] + rng.normal(size=160)
    fit = blm.LMM("y ~ t", data, residual=residual).fit()
    own, limits = fit.tidy("ran_pars"), fit.confint("wald").set_index("term")
    for _, row in own.iterrows():
        low, high = limits.loc[row["term"]]
        if row["term"].startswith(("sd", "var")):
            width = np.log(high / low) * row["estimate"]
        elif row["term"].startswith("rho"):
            width = (np.arctanh(high) - np.arctanh(low)) * (1.0 - row["estimate"] ** 2)
        else:
            width = high - low
        assert row["std_error"] == pytest.approx(width / (2.0 * 1.959963984540054), rel=1e-8)


def test_a_parameter_at_its_boundary_has_none() -> None:
    rng = np.random.default_rng(26)
    data = pd.DataFrame({"g": np.repeat(list("abcdef"), 8), "t": np.repeat([0.0, 1, 0, 1, 0, 1], 8), "y": rng.normal(size=48)})
    data["y"] -= data.groupby("g").y.transform("mean")  # levels less alike than chance
    fit = blm.LMM("y ~ t + (1 | g)", data).fit()
    assert fit.singular
    found = errors(fit)
    assert np.isnan(found[("g", "sd__Intercept")])
    assert found[("Residual", "sd__Observation")] > 0
    held = errors(blm.LMM("y ~ t + (1 | g)", data, sigma=1.0).fit())
    assert np.isnan(held[("Residual", "sd__Observation")])
