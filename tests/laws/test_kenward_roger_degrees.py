"""By the observed information, Kenward and Roger's degrees of freedom of a single row are Satterthwaite's, under every structure."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.covariance import STRUCTURES

VISITS = [
    name
    for name, row in STRUCTURES.items()
    if not name.startswith("sp_") and "@" not in name and name not in {"matern", "known", "lin", "id", "car1", "fa0"}
]
PLACES = [
    *(f"{name}(x, z | id)" for name in STRUCTURES if name.startswith("sp_")),
    *(f"{name}(x, z | id) + local" for name in ("sp_exp", "sp_gau", "sp_pow")),
    "matern(x, z | id)",
    pytest.param("matern(x, z | id) + local", marks=pytest.mark.slow),
    "car1(x | id)",
    "car1(x | id) + local",
    "sp_exp(x, z | a / id)",
]


@cache
def frame() -> pd.DataFrame:
    rng, n, m = np.random.default_rng(8), 24, 4
    data = pd.DataFrame({"id": np.repeat(np.arange(n), m), "v": np.tile([f"v{k}" for k in range(m)], n)})
    data["v"] = data["v"].astype("category")
    data["a"] = np.repeat(np.tile(["u", "w"], n // 2), m)
    data["x"] = np.tile(np.arange(m, dtype=float), n) + 0.5 * rng.random(n * m)
    data["z"] = rng.random(n * m)
    errors = rng.normal(size=(n, m))
    for k in range(1, m):
        errors[:, k] += 0.7 * errors[:, k - 1]
    data["y"] = (errors + 0.7 * rng.normal(size=(n, m))).ravel() + (data["a"] == "u")
    return data[np.random.default_rng(9).random(len(data)) > 0.1]


def residual_of(structure: str) -> str:
    return structure if "(" in structure else f"{structure}(v | id)"


@pytest.mark.parametrize("structure", [*PLACES, *VISITS])
def test_rows_have_the_degrees_of_satterthwaite(structure: str) -> None:
    fit = blm.LMM("y ~ a + z", frame(), residual=residual_of(structure), check="warn").fit()
    if not fit.converged or fit.singular:
        pytest.skip("the design has no optimum inside")
    kr, plain = (fit.tidy(df=df, information="observed")["df"].to_numpy() for df in ("kenward-roger", "satterthwaite"))
    np.testing.assert_allclose(kr, plain, rtol=2e-3)
