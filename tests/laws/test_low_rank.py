"""fa0(q) of fewer factors than columns: a covariance of low rank, fitted over any number of columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import bayeslmm as blm


def visits(seed: int, q: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    loadings = rng.uniform(0.5, 1.5, q)
    y = rng.normal(size=(20, 1)) * loadings + 0.5 * rng.normal(size=(20, q))
    return pd.DataFrame({"id": np.repeat([f"s{i}" for i in range(20)], q), "v": np.tile([f"v{k}" for k in range(q)], 20), "y": y.ravel()})


@pytest.mark.parametrize("q", [2, 3, 5])
@pytest.mark.parametrize("seed", [1, 2])
def test_one_factor_beside_independent_errors(seed: int, q: int) -> None:
    data = visits(seed, q)
    fit = blm.LMM("y ~ v + fa0(0 + v | id, 1)", data).fit()
    assert fit.converged and not fit.singular and not any(name.startswith("singular") for name in fit.checks)
    wide = data.y.to_numpy().reshape(20, q)
    S = np.cov(wide.T)

    def value(theta: np.ndarray) -> float:
        V = np.outer(theta[:q], theta[:q]) + np.exp(2 * theta[q]) * np.eye(q)
        return float(19 * (np.linalg.slogdet(V)[1] + np.trace(np.linalg.solve(V, S))))

    starts = [np.append(np.full(q, s), np.log(0.5)) for s in (0.5, 1.0, 2.0)]
    best = min((minimize(value, start, method="BFGS", options={"gtol": 1e-7}) for start in starts), key=lambda found: found.fun)
    constant = 19 * q * np.log(2 * np.pi) + q * np.log(20)
    assert fit.criterion == pytest.approx(best.fun + constant, abs=1e-5)


def test_a_full_factor_is_still_told_from_nothing() -> None:
    with pytest.raises(blm.errors.IdentifiabilityError):
        blm.LMM("y ~ v + fa0(0 + v | id, 3)", visits(1, 3)).fit()
