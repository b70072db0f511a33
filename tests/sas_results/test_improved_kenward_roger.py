"""DDFM=KR2: Kenward and Roger (2009) by their formula on dense matrices; one result for every way to write a covariance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


def visits(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame([(i, v) for i in range(14) for v in range(4)], columns=["id", "v"])
    noise = np.zeros((14, 4))
    for j in range(4):
        noise[:, j] = 0.6 * (noise[:, j - 1] if j else 0.0) + rng.normal(size=14) * (1 + 0.3 * j)
    frame["arm"] = np.array(list("uv"))[frame["id"] % 2]
    frame["y"] = noise.ravel() + frame["v"] * 0.3
    return frame.drop(rng.choice(56, 4, replace=False)).reset_index(drop=True)


def table(kind: str, df: str, frame: pd.DataFrame) -> pd.DataFrame:
    text = f"proc mixed; class id v arm; model y = arm|v / s ddfm={df}; {kind}; run;"
    result = blm.proc_mixed(text, frame)
    assert not isinstance(result, list)
    return result["SolutionF"][["Estimate", "StdErr", "DF"]].dropna()


@pytest.mark.parametrize(
    "kind", ["repeated v / type=un subject=id", "repeated v / type=cs subject=id", "random id", "repeated v / type=toep subject=id"]
)
def test_where_the_covariance_is_linear_it_is_the_adjustment_of_1997(kind: str) -> None:
    frame = visits(1)
    np.testing.assert_allclose(table(kind, "kr2", frame), table(kind, "kr", frame), rtol=2e-6)


@pytest.mark.parametrize("seed", range(2))
def test_it_does_not_depend_on_how_the_covariance_is_written(seed: int) -> None:
    """UN as variances and correlations, CS as a correlation, AR(1) as an exponential of time: equal with KR2, not with KR."""
    frame = visits(seed)
    frame["t"] = frame["v"].astype(float)
    un, unr, fa0 = (f"repeated v / type={name} subject=id" for name in ("un", "unr", "fa0(4)"))
    np.testing.assert_allclose(table(unr, "kr2", frame), table(un, "kr2", frame), rtol=1e-5)
    np.testing.assert_allclose(table(fa0, "kr2", frame), table(un, "kr2", frame), rtol=1e-5)
    ar, power, exponential = (
        "repeated v / type=ar(1) subject=id",
        "repeated / type=sp(pow)(t) subject=id",
        "repeated / type=sp(exp)(t) subject=id",
    )
    np.testing.assert_allclose(table(power, "kr2", frame), table(ar, "kr2", frame), rtol=1e-5)
    np.testing.assert_allclose(table(exponential, "kr2", frame), table(ar, "kr2", frame), rtol=1e-5)
    assert np.abs(table(exponential, "kr", frame)["StdErr"] / table(ar, "kr", frame)["StdErr"] - 1.0).max() > 1e-5


def test_it_is_the_formula_of_the_paper() -> None:
    """AR(1): W, V_ab and the bias -1/4 W tr(P V_ab P V_r) from dense matrices with derivatives written out."""
    frame = visits(3)
    text = "proc mixed scoring=500 asycov; class id v arm; model y = arm|v / s covb ddfm={}; repeated v / type=ar(1) subject=id; run;"
    result = blm.proc_mixed(text.format("kr2"), frame)
    assert not isinstance(result, list)
    rho, s2 = result["CovParms"]["Estimate"]
    gap = np.abs(frame["v"].to_numpy()[:, None] - frame["v"].to_numpy()).astype(float)
    same = frame["id"].to_numpy()[:, None] == frame["id"].to_numpy()
    R = np.where(same, rho**gap, 0.0)
    d1, d2 = np.where(same, gap * rho ** (gap - 1), 0.0), np.where(same, gap * (gap - 1) * rho ** (gap - 2), 0.0)
    V, first = s2 * R, [s2 * d1, R]
    second = [[s2 * d2, d1], [d1, np.zeros_like(R)]]
    X = pd.get_dummies(frame["v"].astype(str) + frame["arm"]).to_numpy(float)
    inverse = np.linalg.inv(V)
    F = np.linalg.inv(X.T @ inverse @ X)
    P = inverse - inverse @ X @ F @ X.T @ inverse
    W = np.array(result["AsyCov"][["CovP1", "CovP2"]])
    expected = np.linalg.inv(0.5 * np.array([[np.trace(P @ a @ P @ b) for b in first] for a in first]))
    np.testing.assert_allclose(W, expected, rtol=1e-4)
    S = inverse @ X
    inner = np.zeros_like(F)
    for a in range(2):
        for b in range(2):
            Q = S.T @ first[a] @ inverse @ first[b] @ S
            inner += W[a, b] * (Q - S.T @ first[a] @ S @ F @ S.T @ first[b] @ S - 0.25 * S.T @ second[a][b] @ S)
    M = sum(W[a, b] * second[a][b] for a in range(2) for b in range(2))
    bias = -0.25 * W @ np.array([np.trace(P @ M @ P @ V_r) for V_r in first])
    adjusted = F + 2.0 * F @ inner @ F - sum(b * F @ S.T @ V_s @ S @ F for b, V_s in zip(bias, first, strict=True))
    rows = blm.proc_mixed(text.format("kr2").replace(" run;", " lsmeans arm*v / cov; run;"), frame)
    assert not isinstance(rows, list)
    found = rows["LSMeans"].filter(like="Cov").to_numpy()
    np.testing.assert_allclose(found, adjusted, rtol=2e-4, atol=1e-6)
