"""No figure of inference depends on the unit, or the origin, of the covariate of a variance function.

sigma is the sd where the covariate is 1 (powers) or 0 (exp): sds of random effects relative to it are numbers of any size.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

FORMULA = "y ~ v + (1 | g)"


def trial(power: float, seed: int = 3) -> pd.DataFrame:
    """Twenty groups of ten rows whose errors have the sd v ** power."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(20), 10)
    v = np.round(rng.uniform(1.0, 5.0, 200) * 256.0) / 256.0
    return pd.DataFrame({"g": g, "v": v, "y": 10.0 + 0.6 * rng.normal(size=20)[g] + v**power * rng.normal(size=200)})


def figures(data: pd.DataFrame, variance: str, y_unit: float = 1.0) -> dict[str, object]:
    fit = blm.LMM(FORMULA, data, variance=variance).fit()
    tests = [fit.anova(df=df).iloc[0] for df in ("satterthwaite", "kr")]
    groups = fit.varcomp(scale="sd").iloc[0]
    return {
        "flags": (fit.converged, fit.singular),
        "tests": np.array([[row["statistic"], row["den_df"]] for row in tests]),
        "group sd": np.array([groups["estimate"], groups["std_error"]]) / y_unit,
        "icc": fit.icc().to_numpy(float),
        "limits of a group sd": fit.confint("profile", terms=["sd__Intercept|g"])[["conf_low", "conf_high"]].to_numpy() / y_unit,
    }


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    for name, value in expected.items():
        if name == "flags":
            assert found[name] == value
        else:  # second derivatives by differences, and ends of searches
            np.testing.assert_allclose(found[name], value, rtol=2e-4, err_msg=name)


@pytest.mark.parametrize("unit", [pytest.param(2.0**-20, id="tiny"), pytest.param(2.0**20, id="large")])
@pytest.mark.parametrize("power", [-1.5, pytest.param(-0.5, marks=pytest.mark.slow), pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_the_unit_of_a_power(power: float, unit: float) -> None:
    data = trial(power)
    assert_same(figures(data.assign(v=data["v"] * unit), "power(v)"), figures(data, "power(v)"))


@pytest.mark.parametrize("start", [50.0, pytest.param(-300.0, marks=pytest.mark.slow)])
def test_the_origin_of_an_exponent(start: float) -> None:
    data = trial(0.5)
    assert_same(figures(data.assign(v=data["v"] + start), "exp(v)"), figures(data, "exp(v)"))


@pytest.mark.parametrize("unit", [pytest.param(1e-6, marks=pytest.mark.slow), 1e6])
def test_the_unit_of_the_fitted_value(unit: float) -> None:
    data = trial(0.5).assign(y=lambda d: d["y"] + 2.0 * d["v"])
    moved = figures(data.assign(y=data["y"] * unit), "power(fitted)", unit)
    assert_same(moved, figures(data, "power(fitted)"))


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("variance", ["power(v)", "const_power(v)"])
def test_kenward_roger_beside_a_variance_of_0(variance: str, unit: float) -> None:
    rng = np.random.default_rng(1)
    data = trial(0.5, 1).assign(h=rng.integers(0, 8, 200), x=rng.normal(size=200))
    tables = []
    for own in (data, data.assign(v=data["v"] * unit)):
        fit = blm.LMM("y ~ x + (1 | g) + (1 | h)", own, variance=variance).fit()
        assert fit.varcorr["sd"].iloc[1] == 0.0
        tables.append(fit.anova(df="kr")[["statistic", "den_df"]])
    np.testing.assert_allclose(*tables, rtol=1e-5)
