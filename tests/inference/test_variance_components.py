"""Variance components and their ratios: standard errors beside closed forms, whatever the units, the coding and the names."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError


def one_way(a: int, n: int, seed: int) -> pd.DataFrame:
    r = np.random.default_rng(seed)
    g = np.repeat(np.arange(a), n)
    return pd.DataFrame({"g": [f"s{i}" for i in g], "y": 1.5 * r.normal(size=a)[g] + r.normal(size=a * n)})


@cache
def two_factors() -> blm.Fit:
    r = np.random.default_rng(3)
    d = pd.DataFrame({"part": np.repeat(np.arange(12), 12), "operator": np.tile(np.repeat(list("abcd"), 3), 12), "x": r.normal(size=144)})
    codes = d["operator"].map({c: i for i, c in enumerate("abcd")})
    d["y"] = 2.0 * r.normal(size=12)[d["part"]] + r.normal(size=4)[codes] + 0.5 * d["x"] + r.normal(size=144)
    return blm.LMM("y ~ x + (1 + x | part) + (1 | operator)", d).fit()


@pytest.mark.parametrize(("a", "n"), [(20, 5), (9, 12), (40, 2)])
def test_a_balanced_one_way_layout_has_closed_forms(a: int, n: int) -> None:
    data = one_way(a, n, a)
    fit = blm.LMM("y ~ 1 + (1 | g)", data).fit()
    means = data.groupby("g")["y"].mean()
    between, within = n * means.var(), ((data["y"] - data["g"].map(means)) ** 2).sum() / (a * (n - 1))
    of_between, of_within = 2.0 * between**2 / (a - 1), 2.0 * within**2 / (a * (n - 1))
    table = fit.varcomp().set_index("term")
    assert table.loc["var__Intercept", "std_error"] == pytest.approx(np.sqrt((of_between + of_within) / n**2), rel=1e-5)
    assert table.loc["var__Observation", "std_error"] == pytest.approx(np.sqrt(of_within), rel=1e-5)
    below = between + (n - 1) * within
    slopes = np.array([n * within, -n * between]) / below**2
    share = fit.ratio("g").iloc[0]
    assert share["estimate"] == pytest.approx((between - within) / below, rel=1e-6)
    assert share["std_error"] == pytest.approx(np.sqrt(slopes**2 @ [of_between, of_within]), rel=1e-5)
    assert 0.0 < share["conf_low"] < share["estimate"] < share["conf_high"] < 1.0


@pytest.mark.parametrize("scale", ["variance", "sd"])
def test_the_two_scales_say_the_same(scale: Any) -> None:
    fit = two_factors()
    variances, sds = fit.varcomp(conf_int=True).set_index(["group", "term"]), fit.varcomp("sd", conf_int=True).set_index(["group", "term"])
    for group, name in [("part", "Intercept"), ("part", "x"), ("operator", "Intercept"), ("Residual", "Observation")]:
        variance, sd = variances.loc[group, f"var__{name}"], sds.loc[group, f"sd__{name}"]
        np.testing.assert_allclose(variance["estimate"], sd["estimate"] ** 2, rtol=1e-10)
        np.testing.assert_allclose(variance["std_error"], 2 * sd["estimate"] * sd["std_error"], rtol=1e-6)
        np.testing.assert_allclose(variance["conf_low"], sd["conf_low"] ** 2, rtol=1e-6)
    table, told = fit.varcomp(scale), fit.varcorr
    np.testing.assert_allclose(variances.loc[("part", "cov__Intercept.x"), "estimate"], told["variance"][2], rtol=1e-9)
    assert list(table.columns) == ["group", "term", "estimate", "std_error"]
    tidy = fit.tidy("ran_pars").set_index(["group", "term"])
    np.testing.assert_allclose(sds["std_error"], tidy.loc[sds.index, "std_error"])


def test_units_do_not_count() -> None:
    data = one_way(12, 4, 8)
    small, large = (blm.LMM("y ~ 1 + (1 | g)", data.assign(y=data["y"] * unit + 7 * unit)).fit() for unit in (1e-6, 1e6))
    np.testing.assert_allclose(small.ratio("g").iloc[0, 1:].astype(float), large.ratio("g").iloc[0, 1:].astype(float), rtol=1e-5)
    np.testing.assert_allclose(small.varcomp()["std_error"] * 1e12, large.varcomp()["std_error"] / 1e12, rtol=1e-5)


def test_names_of_all_kinds_are_read() -> None:
    fit = two_factors()
    by_name = fit.ratio("operator").iloc[0]
    for name in ("sd__(Intercept)|operator", "sd__Intercept|operator", "var__Intercept|operator", "Intercept|operator"):
        np.testing.assert_allclose(fit.ratio(name).iloc[0, 1:].astype(float), by_name.iloc[1:].astype(float))
    by_function = fit.ratio(lambda v: v["operator"] / v["total"]).iloc[0]
    assert by_function["estimate"] == pytest.approx(by_name["estimate"])
    assert by_function["std_error"] == pytest.approx(by_name["std_error"], rel=1e-5)
    shares = fit.icc(by="factor").set_index("group")["adjusted"]
    assert fit.ratio("part")["estimate"].item() == pytest.approx(shares["part"])
    assert fit.ratio(["part", "operator"])["estimate"].item() == pytest.approx(shares.sum())
    assert fit.ratio(["part", "operator", "Residual"])["estimate"].item() == pytest.approx(1.0)
    assert fit.ratio("total", of="Residual")["estimate"].item() > 1.0


@pytest.mark.parametrize(
    "ask",
    [
        lambda f: f.ratio("prat"),
        lambda f: f.ratio("part", of="nothing"),
        lambda f: f.ratio([]),
        lambda f: f.ratio(lambda v: v["nope"]),
        lambda f: f.ratio(lambda v: "text"),
        lambda f: f.ratio(lambda v: v["part"], of="Residual"),
        lambda f: f.varcomp("log"),
        lambda f: f.varcomp(se="False"),
        lambda f: f.ratio("part", conf_level=95),
    ],
)
def test_what_is_no_ratio_is_refused(ask: Any) -> None:
    with pytest.raises(SpecificationError) as caught:
        ask(two_factors())
    assert caught.value.remedy


def test_a_variance_of_zero_has_no_standard_error_and_that_is_said() -> None:
    data = one_way(10, 4, 1)
    data["y"] -= data.groupby("g")["y"].transform("mean")
    fit = blm.LMM("y ~ 1 + (1 | g)", data).fit()
    table, share = fit.varcomp(conf_int=True), fit.ratio("g")
    assert table["estimate"][0] == 0.0
    assert table.loc[0, ["std_error", "conf_low", "conf_high"]].isna().all()
    assert share["std_error"].isna().all()
    for frame in (table, share):
        assert "end of its range" in repr(frame)


@pytest.mark.filterwarnings("error")
def test_limits_beyond_all_numbers_are_infinite_without_a_warning() -> None:
    """Errors without correlation say nothing about the range: the limits of its logarithm are hundreds."""
    rng = np.random.default_rng(5)
    row, col = (grid.ravel() for grid in np.meshgrid(np.arange(8), np.arange(6)))
    for seed in range(4):
        data = pd.DataFrame(
            {
                "y": 0.3 * (-1.0) ** (row + col) + np.random.default_rng(seed).normal(size=48),
                "row": row,
                "col": col,
                "x": rng.normal(size=48),
            }
        )
        table = blm.LMM("y ~ x", data, residual="sp_exp(row, col)").fit().varcomp(conf_int=True)
        assert (table["conf_high"] > table["estimate"])[table["std_error"] > 0].all()


def test_a_held_sd_is_known() -> None:
    data = one_way(10, 4, 2)
    fit = blm.LMM("y ~ 1 + (1 | g)", data, sigma=1.0).fit()
    table = fit.varcomp().set_index("term")
    assert np.isnan(table.loc["var__Observation", "std_error"])
    assert table.loc["var__Intercept", "std_error"] > 0
    assert "is held" in repr(fit.varcomp())


def test_fits_of_other_kinds_answer() -> None:
    data = one_way(15, 4, 4)
    data["t"] = np.tile(np.arange(4), 15)
    whole, parts = blm.LMM("y ~ t + (1 | g)", data).fit(), blm.from_partitions("y ~ t + (1 | g)", [data[:32], data[32:]]).fit()
    pd.testing.assert_frame_equal(whole.varcomp(), parts.varcomp(), rtol=1e-5)
    pd.testing.assert_frame_equal(whole.ratio("g"), parts.ratio("g"), rtol=1e-5)
    for options in ({"residual": "us(t | g)"}, {"residual": "ar1(t | g)"}, {"variance": "ident(t)"}):
        formula = "y ~ t" if "residual" in options else "y ~ t + (1 | g)"
        fit = blm.LMM(formula, data.astype({"t": "category"}), **options).fit()
        table = fit.varcomp("sd").set_index("term")
        tidy = fit.tidy("ran_pars").set_index("term")
        np.testing.assert_allclose(table["std_error"], tidy.loc[table.index, "std_error"])
        assert fit.ratio("Residual", of="total")["estimate"].item() <= 1.0
