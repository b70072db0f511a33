"""MODEL / INFLUENCE against generalised least squares without the rows, and against linear models."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError


def trial(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": rng.integers(0, 7, 40), "a": rng.choice(list("uvw"), 40), "x": rng.normal(size=40) + 100})
    frame["y"] = rng.normal(size=7)[frame["id"]] * 1.5 + frame["x"] + rng.normal(size=40)
    frame.loc[[3, 17], "y"] = np.nan
    return frame


def run(text: str, frame: pd.DataFrame) -> blm.MixedResult:
    result = blm.proc_mixed(text, frame)
    assert not isinstance(result, list)
    return result


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("effect", ["id", "a", "id*a"])
def test_a_level_is_left_out_as_least_squares_leave_it_out(effect: str, method: str) -> None:
    frame = trial(1)
    result = run(f"proc mixed method={method}; class id a; model y = a x / influence(effect={effect}); random id; run;", frame)
    table, used = result["Influence"], frame.dropna().reset_index(drop=True)
    b2, s2 = result["CovParms"]["Estimate"]
    X = np.column_stack([pd.get_dummies(used["a"]).to_numpy(float), used["x"]])
    y = used["y"].to_numpy()
    V = b2 * (used["id"].to_numpy()[:, None] == used["id"].to_numpy()) + s2 * np.eye(len(y))

    def gls(keep: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        K = np.linalg.inv(V[np.ix_(keep, keep)])
        M = X[keep].T @ K @ X[keep]
        alpha = np.linalg.solve(M, X[keep].T @ K @ y[keep])
        rest = y[keep] - X[keep] @ alpha
        return alpha, np.linalg.inv(M), float(rest @ K @ rest) / (len(keep) - (4 if method == "reml" else 0))

    whole, F, scale = gls(np.arange(len(y)))
    keys = used[effect.split("*")].astype(str).agg(" ".join, axis=1)
    assert len(table) == keys.nunique()
    for (_, row), level in zip(table.iterrows(), sorted(keys.unique()), strict=True):
        gone = (keys == level).to_numpy()
        assert row["NumObs"] == gone.sum()
        if effect == "a":
            assert np.isnan(row["CookD"])  # nothing is left to tell its coefficient
            continue
        alpha, after, moved = gls(np.flatnonzero(~gone))
        ratio = moved / scale
        delta = whole - alpha
        np.testing.assert_allclose(row["PRESS"], ((y[gone] - X[gone] @ alpha) ** 2).sum(), rtol=1e-6)
        np.testing.assert_allclose(row["CookD"], delta @ np.linalg.solve(F, delta) / 4, rtol=1e-6)
        np.testing.assert_allclose(row["MDFFITS"], delta @ np.linalg.solve(ratio * after, delta) / 4, rtol=1e-6)
        np.testing.assert_allclose(row["COVRATIO"], np.linalg.det(ratio * after) / np.linalg.det(F), rtol=1e-6)
        np.testing.assert_allclose(row["COVTRACE"], abs(np.trace(np.linalg.solve(F, ratio * after)) - 4), rtol=1e-5)
        np.testing.assert_allclose(row["RMSE"], np.sqrt(s2 * ratio), rtol=1e-6)


def test_without_random_effects_it_is_that_of_linear_models() -> None:
    frame = trial(2)
    table = run("proc mixed; class a; model y = a x / influence; run;", frame)["Influence"]
    used = frame.dropna()
    X, y = np.column_stack([pd.get_dummies(used["a"]).to_numpy(float), used["x"]]), used["y"].to_numpy()
    n, p = X.shape
    H = X @ np.linalg.pinv(X)
    e, h = y - H @ y, np.diagonal(H)
    s2 = e @ e / (n - p)
    without = (e @ e - e**2 / (1 - h)) / (n - p - 1)
    assert table["Index"].tolist() == (used.index + 1).tolist()
    for name, value in {
        "Leverage": h,
        "PRESSRes": e / (1 - h),
        "Student": e / np.sqrt(s2 * (1 - h)),
        "RStudent": e / np.sqrt(without * (1 - h)),
        "CookD": e**2 * h / (p * s2 * (1 - h) ** 2),
        "DFFITS": e / np.sqrt(without * (1 - h)) * np.sqrt(h / (1 - h)),
        "COVRATIO": (without / s2) ** p / (1 - h),
        "RMSE": np.sqrt(without),
    }.items():
        np.testing.assert_allclose(table[name], value, rtol=1e-6, err_msg=name)


def test_structured_errors_and_sets_of_rows() -> None:
    frame = trial(3)
    text = "proc mixed; class id a; model y = a x / influence({}); repeated / type=un(1) group=a subject=id; run;".replace("un(1)", "vc")
    assert "RMSE" not in run(text.format("effect=id"), frame)["Influence"]


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("repeated", ["", "repeated / group=a;"])
def test_every_pair_of_the_selected_rows_is_left_out_and_the_most_influential_come_first(method: str, repeated: str) -> None:
    frame, chosen = trial(3), [1, 2, 4, 9, 12, 30]  # row 4 has no response
    text = f"proc mixed method={method}; class id a; model y = a x / influence({{}}); random id; {repeated} run;"
    table = run(text.format("size=2 select=1, 2 4 9 12 30"), frame)["Influence"]
    assert sorted(table["Level"]) == sorted(f"{i} {j}" for i, j in combinations([k for k in chosen if k != 4], 2))
    assert (table["NumObs"] == 2).all()
    short = run(text.format("size=2 keep=3 select=1 2 4 9 12 30"), frame)["Influence"]
    pd.testing.assert_frame_equal(short, table.head(3))
    if repeated:
        assert table["PRESS"].is_monotonic_decreasing
        return
    whole = run(text.format("effect=id"), frame)
    again, used = [], frame.dropna()
    b2, s2 = whole["CovParms"]["Estimate"]
    X = np.column_stack([pd.get_dummies(used["a"]).to_numpy(float), used["x"]])
    y, V = used["y"].to_numpy(), b2 * (used["id"].to_numpy()[:, None] == used["id"].to_numpy()) + s2 * np.eye(len(used))

    def gls(keep: np.ndarray) -> tuple[np.ndarray, float]:
        K = np.linalg.inv(V[np.ix_(keep, keep)])
        alpha = np.linalg.solve(X[keep].T @ K @ X[keep], X[keep].T @ K @ y[keep])
        e = y[keep] - X[keep] @ alpha
        return alpha, float(e @ K @ e) / (len(keep) - (4 if method == "reml" else 0))

    def likelihood(alpha: np.ndarray | None, scale: float) -> float:
        K = np.linalg.inv(V * scale)
        M = X.T @ K @ X
        e = y - X @ (np.linalg.solve(M, X.T @ K @ y) if alpha is None or method == "reml" else alpha)
        return float(e @ K @ e + np.linalg.slogdet(V * scale)[1] + (np.linalg.slogdet(M)[1] if method == "reml" else 0.0))

    first, unit = gls(np.arange(len(used)))
    for level in table["Level"]:
        alpha, scale = gls(np.flatnonzero(~np.isin(used.index + 1, [int(k) for k in level.split()])))
        again.append(likelihood(alpha, scale / unit) - likelihood(first, 1.0))
    assert again == sorted(again, reverse=True)


def test_levels_and_rows_are_selected_and_kept() -> None:
    frame = trial(4)
    text = "proc mixed; class id a; model y = a x / influence{}; random id; run;"
    levels, rows = run(text.format("(effect=id)"), frame)["Influence"], run(text.format(""), frame)["Influence"]
    pd.testing.assert_frame_equal(
        run(text.format("(effect=id select=2 5)"), frame)["Influence"], levels.iloc[[1, 4]].reset_index(drop=True)
    )
    chosen = run(text.format("(select=2 4 7)"), frame)["Influence"]
    pd.testing.assert_frame_equal(chosen, rows[rows["Index"].isin([2, 7])].reset_index(drop=True))
    assert len(run(text.format("(size=2)"), frame)["Influence"]) == 50
    iterated = run(text.format("(effect=id iter=5 keep=2 select=1 2 3 4)"), frame)["Influence"]
    everything = run(text.format("(effect=id iter=5 select=1 2 3 4)"), frame)["Influence"]
    assert iterated["RLD"].tolist() == sorted(everything["RLD"], reverse=True)[:2]


@pytest.mark.parametrize(
    "inner",
    [
        "effect=x",
        "effect=nothing",
        "iter=-1",
        "size=0",
        "effect",
        "effect=id size=2",
        "effect=id select=99",
        "select=4",
        "size=9",
        "keep=0",
    ],
)
def test_what_is_not_there_is_refused_in_words(inner: str) -> None:
    with pytest.raises(BayesLMMError):
        run(f"proc mixed; class id; model y = x / influence({inner}); random id; run;", trial(0))


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_iterated_influence_is_what_the_program_gives_without_the_rows(method: str) -> None:
    frame = trial(2)
    text = f"proc mixed method={method} asycov; class id a; model y = a x / s {{}}; random id; run;"
    whole, table = run(text.format(""), frame), run(text.format("influence(effect=id iter=20 estimates)"), frame)["Influence"]
    covariance = whole["AsyCov"][["CovP1", "CovP2"]].to_numpy()
    used = frame.dropna().reset_index(drop=True)
    X = np.column_stack([pd.get_dummies(used["a"]).to_numpy(float), used["x"]])
    y = used["y"].to_numpy()

    def likelihood(b2: float, s2: float, alpha: np.ndarray | None) -> float:
        V = b2 * (used["id"].to_numpy()[:, None] == used["id"].to_numpy()) + s2 * np.eye(len(y))
        K = np.linalg.inv(V)
        M = X.T @ K @ X
        best = np.linalg.solve(M, X.T @ K @ y)
        e = y - X @ (best if alpha is None else alpha)
        return float(np.linalg.slogdet(V)[1] + e @ K @ e + (np.linalg.slogdet(M)[1] if method == "reml" else 0.0))

    for _, row in table.iterrows():
        left = run(text.format(""), frame[frame["id"].astype(str) != row["Level"]])
        theta, gone = whole["CovParms"]["Estimate"].to_numpy(), left["CovParms"]["Estimate"].to_numpy()
        np.testing.assert_allclose(row[["CovP1", "CovP2"]].astype(float), gone, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            row[[f"Parm{k}" for k in range(1, 6)]].astype(float), left["SolutionF"]["Estimate"], rtol=1e-3, atol=1e-4
        )
        after = left["AsyCov"][["CovP1", "CovP2"]].to_numpy()
        np.testing.assert_allclose(row["CookDCP"], (theta - gone) @ np.linalg.solve(covariance, theta - gone), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(row["MDFFITSCP"], (theta - gone) @ np.linalg.solve(after, theta - gone), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(row["COVRATIOCP"], np.linalg.det(after) / np.linalg.det(covariance), rtol=1e-3)
        np.testing.assert_allclose(row["COVTRACECP"], abs(np.trace(np.linalg.solve(covariance, after)) - 2), rtol=1e-3, atol=1e-4)
        a = left["SolutionF"]["Estimate"].to_numpy()
        alpha = None if method == "reml" else np.append(a[0] + a[1:4], a[4])
        fallen = likelihood(*gone, alpha) - likelihood(*theta, None)
        np.testing.assert_allclose(row["RLD" if method == "reml" else "LD"], fallen, rtol=1e-3, atol=1e-6)


def test_iterated_influence_of_a_row_studentizes_outside_of_it() -> None:
    frame = trial(4).dropna().reset_index(drop=True).head(16)
    text = "proc mixed; class id; model y = x / s {}; random id; run;"
    table = run(text.format("influence(iter=9)"), frame)["Influence"]
    for i in (0, 7):
        b2, s2 = run(text.format(""), frame.drop(i))["CovParms"]["Estimate"]
        V = b2 * (frame["id"].to_numpy()[:, None] == frame["id"].to_numpy()) + s2 * np.eye(len(frame))
        X = np.column_stack([np.ones(len(frame)), frame["x"]])
        Q = V - X @ np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T)
        np.testing.assert_allclose(table["RStudent"][i], table["Residual"][i] / np.sqrt(Q[i, i]), rtol=1e-4)
