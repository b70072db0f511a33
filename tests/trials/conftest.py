"""A trial with drop-out, its events and its imputation model, for every test of this folder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

FORMULA = "change ~ C(week) * arm + C(week) * base"


def events_of(data: pd.DataFrame) -> pd.DataFrame:
    stopped = data.dropna(subset=["stopped"]).drop_duplicates("id")
    return stopped[["id", "stopped"]].rename(columns={"stopped": "week"})


@pytest.fixture(scope="session")
def trial() -> pd.DataFrame:
    return blm.load_dataset("dropout")


@pytest.fixture(scope="session")
def events(trial: pd.DataFrame) -> pd.DataFrame:
    return events_of(trial)


@pytest.fixture(scope="session")
def model(trial: pd.DataFrame) -> blm.LMM:
    return blm.LMM(FORMULA, trial, residual="us(week | id)")


@pytest.fixture(scope="session")
def small() -> pd.DataFrame:
    """Three arms, four visits, a covariate that changes by visit, gaps, outcomes after events, a subject with nothing observed."""
    rng = np.random.default_rng(11)
    N, visits = 48, ["a", "b", "c", "d"]
    data = pd.DataFrame(
        {
            "id": np.repeat(np.arange(1, N + 1), 4),
            "visit": pd.Categorical(np.tile(visits, N), visits, ordered=True),
            "arm": pd.Categorical(np.repeat(np.array(["P", "A", "B"])[np.arange(N) % 3], 4), ["P", "A", "B"]),
            "dose": rng.normal(size=4 * N).round(3),
        }
    )
    L = np.linalg.cholesky(0.5 * np.eye(4) + 0.5 * np.ones((4, 4)))
    y = (rng.normal(size=(N, 4)) @ L.T).ravel() + 0.5 * data["dose"] - data["visit"].cat.codes * (0.3 + 0.4 * data["arm"].cat.codes)
    data["y"] = y.to_numpy()
    for subject, lost in {
        2: "cd",
        5: "bcd",
        6: "c",
        9: "d",
        11: "abcd",
        14: "d",
        15: "bc",
        20: "abcd",
        23: "bcd",
        27: "cd",
        30: "b",
    }.items():
        data.loc[(data["id"] == subject) & data["visit"].isin(list(lost)), "y"] = np.nan
    return data


@pytest.fixture(scope="session")
def small_events() -> pd.DataFrame:
    rows = [
        (2, "c", "JR"),
        (5, "b", "CIR"),
        (9, "d", "CR"),
        (11, "a", "JR"),
        (14, "d", "LMCF"),
        (15, "b", "JR"),
        (23, "b", "MAR"),
        (27, "c", "CIR"),
        (33, "b", "CR"),
    ]
    return pd.DataFrame(rows, columns=["id", "visit", "strategy"])
