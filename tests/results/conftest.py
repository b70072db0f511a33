"""Fits that several tests look at; none of them changes a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


@pytest.fixture(scope="session")
def sleepstudy() -> pd.DataFrame:
    return blm.load_dataset("sleepstudy")


@pytest.fixture(scope="session")
def model(sleepstudy: pd.DataFrame) -> blm.LMM:
    return blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy)


@pytest.fixture(scope="session")
def fit(model: blm.LMM) -> blm.Fit:
    return model.fit()


@pytest.fixture(scope="session")
def trial() -> pd.DataFrame:
    """The first 60 patients of the bundled trial."""
    data = blm.load_dataset("trial")
    return data[data["USUBJID"].isin(data["USUBJID"].unique()[:60])].reset_index(drop=True)


@pytest.fixture(scope="session")
def crossed() -> pd.DataFrame:
    """Two crossed factors with slopes, unbalanced, seed 7."""
    rng = np.random.default_rng(7)
    n, K, L = 240, 12, 7
    g, h, x = rng.integers(0, K, n), rng.integers(0, L, n), rng.normal(size=n)
    y = 1 + 2 * x + rng.normal(size=K)[g] + rng.normal(size=K)[g] * x + rng.normal(size=L)[h] + 0.5 * rng.normal(size=n)
    w = rng.uniform(0.5, 2.0, n)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{i}" for i in g], "h": [f"h{i}" for i in h], "w": w})
