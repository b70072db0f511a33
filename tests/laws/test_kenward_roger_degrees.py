"""Kenward and Roger: single rows have Satterthwaite's degrees of freedom; neither units nor origins nor precise measurements count."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.mark.parametrize("size", [1e2, 1e4, 1e5])
@pytest.mark.parametrize("residual", [None, "cs(v | id)"])
def test_precise_measurements_of_few_subjects_leave_few_degrees_of_freedom(residual: str | None, size: float) -> None:
    rng, n, m = np.random.default_rng(0), 20, 4
    data = pd.DataFrame({"id": np.repeat(np.arange(n), m), "v": np.tile(np.arange(m), n), "t": np.tile(np.arange(float(m)), n)})
    data["arm"] = data["id"] % 2
    data["y"] = size * rng.normal(size=n)[data["id"]] + rng.normal(size=n * m)
    fit = blm.LMM("y ~ t + arm" + ("" if residual else " + (1 | id)"), data, residual=residual).fit()
    found = fit.tidy(df="kenward-roger").iloc[1:3]
    # balanced: the exact tests within and between subjects
    np.testing.assert_allclose(found["df"].to_numpy(float), [n * (m - 1) - 1, n - 2], rtol=1e-3)
    np.testing.assert_allclose(found["std_error"].to_numpy(float), fit.tidy(df="residual")["std_error"].iloc[1:3], rtol=1e-4)
    # so do those of Satterthwaite, by differences; with a variance for each arm between subjects only
    apart = blm.LMM("y ~ t + arm + (1 | id)", data, variance="ident(arm)").fit() if residual is None else fit
    assert apart.tidy()["df"].iloc[2] == pytest.approx(n - 2, rel=1e-2)


SCALES = [
    ("power(z)", lambda d: d.assign(z=d["z"] * 2.0**20)),
    ("power(z)", lambda d: d.assign(z=d["z"] * 2.0**-20)),
    ("const_power(z)", lambda d: d.assign(z=d["z"] * 2.0**10)),
    ("exp(z)", lambda d: d.assign(z=d["z"] + 4.0)),
    ("exp(z)", lambda d: d.assign(z=(d["z"] - 2.0) * 2.0**10)),
    ("ident(a)", lambda d: d.assign(a=d["a"].map({"u": "z", "w": "w"}))),
    ("ident(a) * exp(z)", lambda d: d.assign(a=d["a"].map({"u": "z", "w": "w"}), z=d["z"] - 1.0)),
    ("power(fitted)", lambda d: d.assign(y=d["y"] * 2.0**20)),
]


@pytest.mark.parametrize("rest", [" + (1 | id)", "ar1(v | id)"])
@pytest.mark.parametrize(("variance", "moved"), SCALES)
def test_the_scale_of_a_variance_function_does_not_count(variance: str, moved: Callable[[pd.DataFrame], pd.DataFrame], rest: str) -> None:
    rng = np.random.default_rng(5)
    data = frame().assign(y=lambda d: 8.0 + d["x"] + rng.normal(size=24)[d["id"]] + (0.5 + d["z"]) * rng.normal(size=len(d)))
    residual = None if "|" in rest and "(1" in rest else rest

    def tests_of(own: pd.DataFrame) -> np.ndarray:
        fit = blm.LMM("y ~ x" + ("" if residual else rest), own, variance=variance, residual=residual).fit()
        table = fit.tidy(df="kenward-roger")
        return table.loc[table["term"].isin(["Intercept", "x"]), ["statistic", "df"]].to_numpy(float)

    np.testing.assert_allclose(tests_of(moved(data)), tests_of(data), rtol=2e-4)


def test_a_variance_for_each_stratum_is_group_of_proc_mixed() -> None:
    data = frame()
    own = blm.LMM("y ~ a + z + (1 | id)", data, variance="ident(a)").fit().tidy(df="kenward-roger", information="observed")
    program = "proc mixed data=frame; class id a; model y = a z / s ddfm=kr; random intercept / subject=id; repeated / group=a; run;"
    table = blm.proc_mixed(program, data)
    assert not isinstance(table, list)
    listed = table["SolutionF"].set_index("Effect")
    row = own.set_index("term").loc["z"]
    np.testing.assert_allclose(listed.loc["z", ["StdErr", "DF"]].astype(float), [row["std_error"], row["df"]], rtol=1e-4)


@pytest.mark.parametrize("method", ["type1", "type3", "mivque0"])
@pytest.mark.parametrize("adjustment", ["kr", "satterth"])
def test_variances_by_mean_squares_count_however_large_they_are(method: str, adjustment: str) -> None:
    rng, n, m = np.random.default_rng(0), 20, 4
    data = pd.DataFrame({"id": np.repeat(np.arange(n), m), "t": np.tile(np.arange(float(m)), n)})
    data["arm"] = data["id"] % 2
    data["y"] = 1e3 * rng.normal(size=n)[data["id"]] + rng.normal(size=n * m)
    program = f"proc mixed data=d method={method}; class id; model y = t arm / s ddfm={adjustment}; random id; run;"
    table = blm.proc_mixed(program, data)
    assert not isinstance(table, list)
    np.testing.assert_allclose(table["SolutionF"]["DF"].iloc[1:3].astype(float), [n * (m - 1) - 1, n - 2], rtol=1e-3)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("residual", ["us(v | g)", "csh(v | g)"])
def test_a_covariance_that_is_none_has_no_standard_errors(residual: str) -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 2), "v": pd.Categorical(["a", "b"] * 10)})
    data["y"] = np.where(data["v"] == "a", 1, -1) * rng.normal(size=10)[data["g"]]
    fit = blm.LMM("y ~ v", data, residual=residual, check="warn").fit()
    with pytest.warns(blm.errors.BayesLMMWarning, match="not positive definite"):
        table = fit.tidy(df="kenward-roger")
    assert table[["std_error", "statistic", "p_value"]].isna().all(axis=None)
    assert fit.anova(df="kenward-roger")[["statistic", "p_value"]].isna().all(axis=None)
    assert fit.emmeans("v", df="kenward-roger").frame["std_error"].isna().all()
    assert np.isfinite(fit.tidy()["std_error"]).all()
