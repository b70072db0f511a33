"""The mean error variance, from rows of one kind counted, is that of all rows one by one; matrices repeated or not multiply alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.likelihood.structured import pooled
from bayeslmm.likelihood.structured import residual_covariance as errors

MODELS = {
    "visits": {"residual": "us(visit | id)"},
    "arms": {"residual": "ar1h(visit | arm / id)"},
    "places": {"residual": "sp_exp(t | id)"},
    "strata": {"variance": "ident(arm)"},
    "all": {"residual": "cs(visit | id)", "variance": "power(size)", "weights": "w"},
    "weights": {"residual": "ar1(visit | id)", "weights": "w"},
}


def frame(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    subject, visit = (code.ravel() for code in np.indices((40, 4)))
    t, size = visit + rng.uniform(0, 0.5, 160), rng.uniform(1, 3, 160)
    data = pd.DataFrame(
        {"id": subject, "visit": visit, "arm": np.array(["a", "b"])[subject % 2], "t": t, "size": size, "w": rng.integers(1, 4, 160)}
    )
    data["y"] = rng.normal(size=160) + rng.normal(size=40)[subject]
    return data[rng.uniform(size=160) < 0.85].sample(frac=1.0, random_state=seed, ignore_index=True)


@pytest.mark.parametrize("name", MODELS)
def test_rows_counted_are_rows_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = blm.LMM("y ~ arm + C(visit)", frame(len(name)), **MODELS[name]).problem
    x = problem.start + np.random.default_rng(1).normal(scale=0.2, size=(7, problem.size))
    whole = (errors.many_unit_sds(problem, x) ** 2).mean(axis=1) + np.zeros(7)
    np.testing.assert_allclose(errors.mean_unit_variances(problem, x), whole, rtol=1e-13)
    np.testing.assert_allclose([errors.mean_unit_variance(problem, one) for one in x], whole, rtol=1e-13)
    monkeypatch.setattr(errors, "VARIANCES_AT_ONCE", 50)
    np.testing.assert_allclose(errors.mean_unit_variances(problem, x), whole, rtol=1e-13)


@pytest.mark.parametrize("points", [1, 3])
def test_matrices_are_repeated_or_not_alike(points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(points)
    matrices, vectors, kind = rng.normal(size=(points, 9, 4, 5)), rng.normal(size=(1, 300, 5, 2)), rng.integers(0, 9, 300)
    definition = np.einsum("tbik,tbkm->tbim", matrices[:, kind], np.repeat(vectors, points, axis=0))
    for elements in (0, 10**9):
        monkeypatch.setattr(pooled, "CALL_ELEMENTS", elements)
        np.testing.assert_allclose(pooled.multiply_by_kind(matrices, vectors, kind), definition, rtol=1e-12, atol=1e-13)
