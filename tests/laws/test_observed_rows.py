"""An outcome that was observed is predicted as it is, without a variance, however near singular the errors are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


def repeated(noise: float, seed: int) -> pd.DataFrame:
    """Four visits, two of them nearly the first again."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=30)
    y = np.column_stack([first, first + noise * rng.normal(size=30), 2 * first + rng.normal(size=30), -first + noise * rng.normal(size=30)])
    data = pd.DataFrame({"y": 3.0 * y.ravel(), "g": np.repeat(np.arange(30), 4).astype(str), "t": np.tile(np.arange(4), 30)})
    return data[rng.random(len(data)) < 0.9].reset_index(drop=True)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize(
    ("noise", "formula", "structure"),
    [
        (1e-4, "y ~ C(t)", "us"),
        (1e-2, "y ~ C(t)", "csh"),
        pytest.param(1e-3, "y ~ t + (1 | g)", "ar1h", marks=pytest.mark.slow),
        pytest.param(1e-5, "y ~ C(t)", "us", marks=pytest.mark.slow),
    ],
)
def test_an_observed_outcome_has_no_variance_left(noise: float, formula: str, structure: str) -> None:
    data = repeated(noise, 3)
    fit = blm.LMM(formula, data, residual=f"{structure}(t | g)", check="warn").fit()
    seen = fit.predict(data, interval="prediction")
    assert np.abs(seen["estimate"] - data.y).max() < 1e-8
    assert (seen["std_error"] == 0.0).all()
    assert np.abs(fit.predict(data)["estimate"] - data.y).max() < 1e-8


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ C(t)", {"residual": "us(t | g)"}),
        ("y ~ t + (1 | g)", {"residual": "ar1(t | g)", "weights": "w"}),
        ("y ~ t + (1 | h)", {"residual": "ar1(t | g)", "variance": "exp(t)"}),
        ("y ~ t", {"residual": "ar1(t | g)"}),
    ],
)
def test_rows_are_predicted_by_themselves_as_among_all(formula: str, options: dict[str, str]) -> None:
    """Only the subjects of the rows are looked at: rows of known, of half known and of new subjects, with and without an interval."""
    rng = np.random.default_rng(5)
    data = repeated(0.5, 5).assign(w=lambda d: rng.uniform(0.5, 2.0, len(d)), h=lambda d: d.g.str[:1])
    data["y"] = data["y"] + rng.normal(size=len(data))
    fit = blm.LMM(formula, data, check="warn", **options).fit()
    asked = pd.concat([data.sample(12, random_state=1), data.head(3).assign(g="new"), data.tail(4).assign(h="other")])
    asked["t"] = rng.permutation(asked["t"])
    whole = fit.predict(asked, interval="prediction", new_levels="population")
    one_by_one = [fit.predict(asked.iloc[[i]], interval="prediction", new_levels="population") for i in range(len(asked))]
    np.testing.assert_allclose(pd.concat(one_by_one), whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit.predict(asked, new_levels="population")["estimate"], whole["estimate"], rtol=1e-9)
