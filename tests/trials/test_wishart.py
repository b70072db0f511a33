"""Inverse Wishart priors of imputation: the posterior has a closed form where every subject has every visit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from bayeslmm.trials.imputation import draw_visit_parameters


def trial(seed: int, subjects: int = 36, visits: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    root = np.tril(rng.normal(size=(visits, visits))) + 2.0 * np.eye(visits)
    y = rng.normal(size=(subjects, visits)) @ root.T * 3.0 + 20.0
    week = pd.Categorical(np.tile([f"w{v}" for v in range(visits)], subjects), ordered=True)
    x = np.repeat(rng.normal(size=subjects), visits) + 5.0
    arm = np.repeat(np.array(["a", "b"])[np.arange(subjects) % 2], visits)
    return pd.DataFrame({"id": np.repeat(np.arange(subjects), visits), "week": week, "x": x, "arm": arm, "y": y.ravel()})


@pytest.mark.parametrize("prior", ["jeffreys", "inverse-wishart"])
@pytest.mark.parametrize("by_arm", [False, True])
def test_complete_data_have_the_inverse_wishart_posterior(prior: str, by_arm: bool) -> None:
    data, n = trial(3), 4000
    fixed = "y ~ 0 + week:arm" if by_arm else "y ~ 0 + week + week:x"
    fit = blm.LMM(fixed, data, residual=f"us(week | {'arm / ' if by_arm else ''}id)").fit()
    given = draw_visit_parameters(fit, prior, n, np.random.default_rng(1))
    Y = data["y"].to_numpy().reshape(-1, 3)
    arm, x = data["arm"].to_numpy()[::3], data["x"].to_numpy()[::3]
    parts = [np.flatnonzero(arm == a) for a in "ab"] if by_arm else [np.arange(len(Y))]
    for g, own in enumerate(parts):
        X = np.ones((len(own), 1)) if by_arm else np.column_stack([np.ones(len(own)), x[own]])
        e = Y[own] - X @ np.linalg.lstsq(X, Y[own], rcond=None)[0]
        df, scale = float(len(own) - X.shape[1]), e.T @ e
        if prior == "inverse-wishart":
            df, scale = df + 5.0, scale + e.T @ e / (len(own) - X.shape[1])  # REML is the estimate of these data
        expected = scale / (df - 4.0)
        spread = given.R[:, g].std(axis=0)
        # chains side by side, thinned: half as many draws as if they were independent
        np.testing.assert_allclose((given.R[:, g].mean(axis=0) - expected) / spread, 0.0, atol=4.5 / np.sqrt(n / 2))
        a = df - 3.0
        sd = np.sqrt(((a + 1.0) * expected**2 + (a - 1.0) * np.outer(expected.diagonal(), expected.diagonal())) / (a * (a - 3.0)))
        np.testing.assert_allclose(spread, sd, rtol=0.12)
    np.testing.assert_allclose((given.alpha.mean(axis=0) - fit.fixef_kept) / given.alpha.std(axis=0), 0.0, atol=4.5 / np.sqrt(n / 2))


@pytest.mark.parametrize("prior", ["jeffreys", "inverse-wishart"])
def test_missing_outcomes_are_imputed_under_either_prior(prior: str) -> None:
    data = trial(5, 60)
    data.loc[(data["week"] == "w2") & (data["id"] % 3 == 0), "y"] = np.nan
    model = blm.LMM("y ~ week * arm", data, residual="us(week | id)")
    found = blm.impute(model, treatment="arm", method="bayes", n=400, seed=1, prior=prior)  # type: ignore[arg-type]
    usual = blm.impute(model, treatment="arm", method="bayes", n=400, seed=1)
    here, there = (imp.analyse("y ~ arm").pool() for imp in (found, usual))
    error = np.sqrt(here["mcse"] ** 2 + there["mcse"] ** 2)
    assert (np.abs(here["estimate"] - there["estimate"]) < 4.5 * error + 0.03 * here["std_error"]).all()
    again = blm.impute(model, treatment="arm", method="bayes", n=400, seed=1, prior=prior)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.values, again.values)


def test_priors_that_do_not_apply_are_refused() -> None:
    data = trial(1)
    with pytest.raises(SpecificationError, match="unstructured"):
        blm.impute(blm.LMM("y ~ week", data, residual="ar1(week | id)"), treatment="arm", method="bayes", prior="jeffreys")
    with pytest.raises(SpecificationError, match="no priors"):
        blm.impute(blm.LMM("y ~ week", data, residual="us(week | id)"), treatment="arm", prior="jeffreys")
