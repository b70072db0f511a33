"""A residual sd that is known: the fit is that of the definition, published meta-analyses come out, and nothing counts it as estimated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import bayeslmm as blm
from bayeslmm.errors import PriorError, SpecificationError

BCG = {
    "yi": [-0.8893, -1.5854, -1.3481, -1.4416, -0.2175, -0.7861, -1.6209, 0.0120, -0.4694, -1.3713, -0.3394, 0.4459, -0.0173],
    "vi": [0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230, 0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714],
}
"""Log risk ratios of 13 trials of the BCG vaccine and their sampling variances, to the four digits that metafor prints."""


def meta(y: Any, v: Any, **options: Any) -> blm.LMM:
    frame = pd.DataFrame({"y": y, "w": 1.0 / np.asarray(v), "trial": [f"t{i}" for i in range(len(y))]})
    return blm.LMM("y ~ 1 + (1 | trial)", frame, weights="w", sigma=1.0, **options)


def test_the_vaccine_trials_are_those_of_metafor() -> None:
    """rma(yi, vi, method="REML"): estimate -0.7145, se 0.1798, tau^2 0.3132."""
    fit = meta(BCG["yi"], BCG["vi"]).fit()
    assert fit.fixef.item() == pytest.approx(-0.7145, abs=5e-5)
    assert float(np.sqrt(fit.vcov.to_numpy().item())) == pytest.approx(0.1798, abs=5e-5)
    # the published variances are rounded to four digits
    assert fit.D["trial"].to_numpy().item() == pytest.approx(0.3132, abs=2e-4)
    assert fit.sigma == 1.0
    assert fit.df_model == 2


def test_eight_schools_have_no_variance_between_them_by_reml() -> None:
    se = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    fit = meta(y, se**2).fit()
    assert fit.D["trial"].to_numpy().item() == 0.0
    weights = se**-2
    assert fit.fixef.item() == pytest.approx(weights @ y / weights.sum(), rel=1e-8)
    post = meta(y, se**2, priors=blm.Priors(sd=("half_cauchy", 25))).sample(seed=1)
    assert np.all(post.parameters["sigma"].values == 1.0)
    tau = post.parameters["sd_trial"].values[:, 0]
    assert 4.5 < tau.mean() < 8.5


def frame(seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, h = np.divmod(np.arange(120), 10)
    x = rng.normal(size=120)
    y = 1.0 + x + 0.8 * rng.normal(size=12)[g] + 0.5 * rng.normal(size=10)[h] + 0.7 * rng.normal(size=120)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{k}" for k in g], "h": [f"h{k}" for k in h], "w": rng.uniform(0.5, 2, 120)})


MODELS: dict[str, dict[str, Any]] = {
    "one factor": {"formula": "y ~ x + (1 | g)"},
    "crossed": {"formula": "y ~ x + (1 | g) + (1 | h)"},
    "slopes": {"formula": "y ~ x + (x | g)"},
    "weights": {"formula": "y ~ x + (1 | g)", "weights": "w"},
    "variance function": {"formula": "y ~ x + (1 | g)", "variance": "exp(x)"},
}


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_optimum_at_the_free_sigma_is_the_free_optimum(name: str, method: Any) -> None:
    """Held where the estimate is, the fit is that of an estimated sigma; held elsewhere, it is no better."""
    data = frame()
    free = blm.LMM(data=data, **MODELS[name]).fit(method)
    held = blm.LMM(data=data, sigma=free.sigma, **MODELS[name]).fit(method)
    assert held.criterion == pytest.approx(free.criterion, abs=1e-6)
    np.testing.assert_allclose(held.fixef, free.fixef, rtol=1e-4, atol=1e-5)
    assert held.sigma == pytest.approx(free.sigma, rel=1e-12)
    assert held.df_model == free.df_model - 1
    assert held.aic == pytest.approx(free.aic - 2.0, abs=1e-5)
    other = blm.LMM(data=data, sigma=1.3 * free.sigma, **MODELS[name]).fit(method)
    assert other.criterion > free.criterion
    assert other.converged


def test_the_fit_is_that_of_the_definition() -> None:
    data = frame()
    fit = blm.LMM("y ~ x + (1 | g)", data, sigma=0.5).fit()
    X, y = np.stack([np.ones(120), data["x"]], axis=1), data["y"].to_numpy()
    same = (data["g"].to_numpy()[:, None] == data["g"].to_numpy()).astype(float)

    def criterion(log_tau: Any) -> float:
        V = 0.25 * np.eye(120) + np.exp(2.0 * float(log_tau[0])) * same
        W = np.linalg.inv(V)
        A = X.T @ W @ X
        e = y - X @ np.linalg.solve(A, X.T @ W @ y)
        return float(np.linalg.slogdet(V)[1] + np.linalg.slogdet(A)[1] + e @ W @ e + 118 * np.log(2 * np.pi))

    best = minimize(criterion, [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert fit.criterion == pytest.approx(best.fun, abs=1e-6)
    assert fit.D["g"].to_numpy().item() == pytest.approx(float(np.exp(2.0 * best.x[0])), rel=1e-4)


def test_a_sigma_that_is_none_is_refused() -> None:
    for sigma in (0, -1, np.inf, "1", True):
        with pytest.raises(SpecificationError):
            blm.LMM("y ~ x + (1 | g)", frame(), sigma=sigma)  # type: ignore[arg-type]
    with pytest.raises(PriorError):
        blm.LMM("y ~ x + (1 | g)", frame(), sigma=1.0, priors=blm.Priors(sigma=("half_normal", 1)))
    with pytest.raises(SpecificationError):
        blm.LMM("y ~ x", frame(), sigma=1.0, residual="cs(1 | g)")


def test_a_held_sigma_is_kept_in_files_and_updates(tmp_path: Any) -> None:
    fit = blm.LMM("y ~ x + (1 | g)", frame(), sigma=0.7).fit()
    fit.save(tmp_path / "fit")
    assert blm.load(tmp_path / "fit").criterion == fit.criterion
    assert fit.update(". ~ . + I(x**2)").sigma == pytest.approx(0.7)
