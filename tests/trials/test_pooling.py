"""Pooling rules against their formulas written out, deltas and tipping grids against analyses one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from bayeslmm.trials.pooling import pool_bootstrap, pool_bootstrap_mi, pool_jackknife, pool_rubin
from bayeslmm.trials.report import tipping_figure

REFERENCE = {"drug": "placebo"}
ANALYSIS = "change ~ arm + base"


@pytest.fixture(scope="module")
def imp(model: blm.LMM, events: pd.DataFrame) -> blm.Imputations:
    return blm.impute(model, treatment="arm", reference=REFERENCE, events=events, strategy="CIR")


@pytest.fixture(scope="module")
def many(model: blm.LMM, events: pd.DataFrame) -> blm.Imputations:
    return blm.impute(model, treatment="arm", reference=REFERENCE, events=events, strategy="JR", method="approximate-bayes", n=12, seed=2)


@pytest.fixture(scope="module")
def booted(model: blm.LMM, events: pd.DataFrame) -> blm.Imputations:
    return blm.impute(model, treatment="arm", reference=REFERENCE, events=events, strategy="CIR", resampling="bootstrap", n=99, seed=4)


@pytest.mark.parametrize("seed", range(5))
def test_rubin_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    M, v = int(rng.integers(2, 30)), float(rng.integers(5, 300))
    q, u = rng.normal(size=M), rng.uniform(0.5, 2.0, M)
    W, B = np.mean(u**2), np.var(q, ddof=1)
    T = W + (1 + 1 / M) * B
    lam = (1 + 1 / M) * B / T
    old, obs = (M - 1) / lam**2, (v + 1) / (v + 3) * v * (1 - lam)
    found = pool_rubin(q, u, v)
    assert found.estimate == pytest.approx(q.mean(), rel=1e-13)
    assert found.std_error == pytest.approx(np.sqrt(T), rel=1e-13)
    assert found.df == pytest.approx(old * obs / (old + obs), rel=1e-12)
    assert pool_rubin(q, u, v, "rubin").df == pytest.approx(old, rel=1e-12)
    assert pool_rubin(q, u, np.inf).df == pytest.approx(old, rel=1e-12)
    low, high = found.limits(0.9, "two-sided")
    half = stats.t.ppf(0.95, found.df) * np.sqrt(T)
    assert (low, high) == pytest.approx((q.mean() - half, q.mean() + half))


def test_equal_estimates_leave_the_degrees_of_freedom_of_the_complete_data() -> None:
    found = pool_rubin(np.ones(4), np.full(4, 0.5), 20.0)
    assert found.std_error == 0.5
    assert found.df == pytest.approx(21 / 23 * 20)


def test_the_jackknife_is_centred_at_the_whole_sample() -> None:
    values = np.array([2.0, 1.0, 2.5, 3.0, 2.2])
    found = pool_jackknife(values)
    out = values[1:]
    assert found.estimate == 2.0
    assert found.std_error == pytest.approx(np.sqrt(3 / 4 * np.sum((out - out.mean()) ** 2)))


def test_bootstrap_percentiles_are_of_type_six_and_their_p_value_inverts_them() -> None:
    draws = np.random.default_rng(1).normal(1.0, 0.6, 99)
    found = pool_bootstrap(np.concatenate([[1.0], draws]))
    low, _ = found.limits(0.9, "two-sided")
    assert low == pytest.approx(np.sort(draws)[4])
    p = float(found.p_value("two-sided"))
    limits = found.limits(1.0 - p, "two-sided")
    assert min(abs(limits[0]), abs(limits[1])) < 1e-9


def test_bootstrap_mi_written_out() -> None:
    rng = np.random.default_rng(4)
    B, D = 40, 3
    e = rng.normal(size=(B, 1)) + 0.4 * rng.normal(size=(B, D))
    MSB, MSW = D * np.var(e.mean(axis=1), ddof=1), np.sum((e - e.mean(axis=1, keepdims=True)) ** 2) / (B * (D - 1))
    V = (1 + 1 / B) * (MSB - MSW) / D + MSW / (B * D)
    found = pool_bootstrap_mi(e.ravel(), D)
    assert found.estimate == pytest.approx(e.mean())
    assert found.std_error == pytest.approx(np.sqrt(V))
    nu = V**2 / (((B + 1) / (B * D)) ** 2 * MSB**2 / (B - 1) + MSW**2 / (B * D**2 * (D - 1)))
    assert found.df == pytest.approx(max(3.0, nu))


@pytest.mark.parametrize("alternative", ["less", "greater"])
def test_one_sided_limits_agree_with_the_test(alternative: Any, many: blm.Imputations) -> None:
    """A one-sided interval excludes 0 just when its own test rejects."""
    for level in (0.6, 0.9, 0.975):
        table = many.analyse(ANALYSIS).pool(level, alternative)
        excludes = (table["conf_high"] < 0) if alternative == "less" else (table["conf_low"] > 0)
        assert excludes.equals(table["p_value"] < 1 - level)
        assert np.isinf(table["conf_low" if alternative == "less" else "conf_high"]).all()


@pytest.mark.parametrize("null", [-1.5, 0.0, 2.0])
@pytest.mark.parametrize("which", ["rubin", "jackknife", "bootstrap"])
def test_a_margin_is_shown_where_the_one_sided_limit_lies_beyond_it(which: str, null: float, request: pytest.FixtureRequest) -> None:
    """Non-inferiority: the test against a margin rejects just where the limit of its side excludes the margin, whatever is pooled."""
    own = request.getfixturevalue({"rubin": "many", "jackknife": "imp", "bootstrap": "booted"}[which])
    analyses = own.analyse(ANALYSIS)
    for level in (0.8, 0.95):
        for alternative in ("less", "greater"):
            table = analyses.pool(level, alternative, null=null)
            table = table[table["parameter"] == "difference"]
            excludes = (table["conf_high"] < null) if alternative == "less" else (table["conf_low"] > null)
            assert excludes.equals(table["p_value"] < 1 - level)
    means = analyses.pool(null=null).query("parameter == 'mean'")
    pd.testing.assert_frame_equal(means, analyses.pool().query("parameter == 'mean'"))
    if which == "rubin":
        shifted = analyses.pool(null=null)
        differences = shifted["parameter"] == "difference"
        t = (shifted["estimate"] - null) / shifted["std_error"]
        want = 2.0 * stats.t.sf(np.abs(t), shifted["df"])
        np.testing.assert_allclose(shifted.loc[differences, "p_value"], want[differences], rtol=1e-10)


def test_a_margin_is_lost_where_the_tipping_table_says(imp: blm.Imputations) -> None:
    table = imp.tipping(np.linspace(-2, 12, 29), ANALYSIS, alternative="less", null=3.0)
    for row in table.frame.iloc[[0, 14, 28]].to_dict("records"):
        one = imp.analyse(ANALYSIS, delta=imp.delta({"drug": row["delta_drug"]})).pool(alternative="less", null=3.0)
        want = one[(one["visit"] == 8) & (one["parameter"] == "difference")].iloc[0]
        assert row["p_value"] == pytest.approx(want["p_value"], rel=1e-9)
    assert len(table.points) == 1


@pytest.mark.parametrize("which", ["imp", "many"])
def test_the_report_says_what_the_strategies_and_the_test_do(which: str, request: pytest.FixtureRequest) -> None:
    own = request.getfixturevalue(which)
    page = own.report(analysis=ANALYSIS, alternative="less", null=2.0, conf_level=0.975)
    assert "that a difference is below 2 is shown where the upper limit of 97.5 % lies below it" in page
    random = own.at_random().analyse(ANALYSIS).pool().set_index(["visit", "parameter"]).loc[(8, "difference"), "estimate"]
    under = own.analyse(ANALYSIS).pool().set_index(["visit", "parameter"]).loc[(8, "difference"), "estimate"]
    assert f"drug at 8: {random:.4g} missing at random, {under:.4g} under the strategies" in page
    widest = max(row.count("<th") for row in page.split("<tr>"))
    assert widest <= 10, "a table wider than the page"
    assert ("by information-anchored standard errors" in page) == (own.analyse(ANALYSIS).anchored is not None)
    with pytest.raises(blm.errors.BayesLMMError):
        own.report(analysis=ANALYSIS, alternative="both")


@pytest.mark.parametrize("weights", ["counterfactual", "equal", "proportional"])
def test_an_ancova_is_the_least_squares_of_its_visit(weights: str, many: blm.Imputations) -> None:
    frame = many.data(3)
    own = frame[frame["week"] == 6]
    X = np.column_stack([np.ones(len(own)), own["arm"] == "drug", own["base"]]).astype(float)
    beta, rss = np.linalg.lstsq(X, own["change"], rcond=None)[:2]
    table = many.analyse(ANALYSIS, weights=weights).frame
    row = table[(table["imputation"] == 3) & (table["visit"] == 6) & (table["parameter"] == "difference")].iloc[0]
    sigma2 = float(rss[0]) / (len(own) - 3)
    assert row["estimate"] == pytest.approx(beta[1], rel=1e-10)
    assert row["std_error"] == pytest.approx(np.sqrt(sigma2 * np.linalg.inv(X.T @ X)[1, 1]), rel=1e-10)
    assert row["df"] == len(own) - 3


@pytest.mark.parametrize("formula", [ANALYSIS, "change ~ arm * base"])
@pytest.mark.parametrize("weights", ["counterfactual", "equal", "proportional"])
def test_no_estimate_depends_on_where_a_covariate_starts(formula: str, weights: str, imp: blm.Imputations, many: blm.Imputations) -> None:
    for given in (imp, many):
        moved = replace(given, layout=replace(given.layout, frame=given.layout.frame.assign(base=given.layout.frame["base"] + 2.0**23)))
        one, two = (own.analyse(formula, weights=weights) for own in (given, moved))
        np.testing.assert_allclose(two.estimate, one.estimate, rtol=0, atol=1e-7)
        np.testing.assert_allclose(two.std_error, one.std_error, rtol=0, atol=1e-7)


def test_the_difference_is_between_means_where_a_covariate_interacts_with_the_arm(many: blm.Imputations) -> None:
    table = many.analyse("change ~ arm * base").pool()
    last = table[table["visit"] == 8].set_index(["parameter", "arm"])["estimate"]
    assert last["difference", "drug"] == pytest.approx(last["mean", "drug"] - last["mean", "placebo"], rel=1e-10)


def test_means_over_a_factor_are_weighted_as_said(trial: pd.DataFrame, many: blm.Imputations) -> None:
    site = np.where(np.arange(160) % 5 == 0, "x", "y")
    frames = [many.data(k).assign(site=np.repeat(site, 5)) for k in range(3)]
    given = blm.imputations(frames, outcome="change", visit="week", subject="id", treatment="arm", reference=REFERENCE)
    means = {w: given.analyse("change ~ arm + site", weights=w).pool() for w in ("counterfactual", "equal", "proportional")}
    np.testing.assert_allclose(means["counterfactual"]["estimate"], means["proportional"]["estimate"], rtol=1e-10)
    assert not np.allclose(means["equal"]["estimate"], means["proportional"]["estimate"])


def test_a_tipping_grid_is_the_analysis_with_each_delta(imp: blm.Imputations, many: blm.Imputations) -> None:
    for own in (imp, many):
        table = own.tipping({"drug": [-1.0, 0.0, 2.5], "placebo": [0.0, -2.0]}, ANALYSIS, visit=[4, 8]).frame
        for row in table.iloc[[0, 3, 7, 11]].to_dict("records"):
            delta = own.delta({"drug": row["delta_drug"], "placebo": row["delta_placebo"]})
            one = own.analyse(ANALYSIS, delta=delta).pool()
            want = one[(one["visit"] == row["visit"]) & (one["parameter"] == "difference")].iloc[0]
            for name in ("estimate", "std_error", "p_value", "conf_low", "conf_high"):
                assert row[name] == pytest.approx(want[name], rel=1e-9), name


def test_the_tipping_point_lies_where_p_crosses(imp: blm.Imputations) -> None:
    table = imp.tipping(np.linspace(-2, 12, 57), ANALYSIS)
    point = table.points.iloc[0]
    near = imp.tipping([point["delta_drug"] - 0.3, point["delta_drug"] + 0.3], ANALYSIS).frame["p_value"]
    assert (near.iloc[0] - 0.05) * (near.iloc[1] - 0.05) < 0


def test_a_grid_in_any_order_tips_at_the_same_point(imp: blm.Imputations) -> None:
    grid = np.linspace(-2, 12, 9)
    straight = imp.tipping(grid, ANALYSIS)
    shuffled = imp.tipping([*grid[::-1], *grid[:3]], ANALYSIS)
    pd.testing.assert_frame_equal(shuffled.points, straight.points)
    pd.testing.assert_frame_equal(shuffled.frame, straight.frame)


def test_a_lagged_delta_accumulates_from_the_event(imp: blm.Imputations, trial: pd.DataFrame) -> None:
    frame = imp.delta([5, 6, 7, 8, 9], lag=[1, 2, 3, 4, 5], missing_only=False)
    stopped = trial["stopped"].to_numpy(dtype=float, na_value=np.nan)
    one = frame[(stopped == 4).tolist()].groupby("id", observed=True)["delta"].apply(list)
    assert all(values == [0.0, 0.0, 7.0, 7.0 + 16.0, 7.0 + 16.0 + 27.0] for values in one)
    assert (frame.loc[np.isnan(stopped), "delta"] == 0).all()
    only = imp.delta([5, 6, 7, 8, 9], lag=[1, 2, 3, 4, 5])
    assert (only.loc[trial["change"].notna(), "delta"] == 0).all()


def test_information_anchored_errors_hold_the_difference_to_missing_at_random(imp: blm.Imputations) -> None:
    table = imp.analyse(ANALYSIS).pool(information_anchored=True)
    shift = imp.values[0] - imp.trial.complete(imp.parameters.take(np.array([0])), at_random=True)[0]
    random = imp.trial.complete(imp.parameters, at_random=True)
    own = blm.Imputations(imp.layout, random + shift, imp.replication).analyse(ANALYSIS).pool()
    np.testing.assert_allclose(table["anchored_std_error"], own["std_error"], rtol=1e-10)
    np.testing.assert_allclose(table["estimate"], own["estimate"], rtol=1e-10)
    last = table[(table["visit"] == 8) & (table["parameter"] == "difference")].iloc[0]
    assert last["anchored_std_error"] > last["std_error"]


def test_a_function_and_an_mmrm_say_what_the_formulas_say(model: blm.LMM, events: pd.DataFrame) -> None:
    own = blm.impute(model, treatment="arm", reference=REFERENCE, events=events, strategy="JR", method="approximate-bayes", n=3, seed=1)

    def last_difference(frame: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
        fit = blm.LMM("change ~ arm + base", frame).fit()
        row = fit.contrast({"arm[T.drug]": 1.0}, df="residual").frame.iloc[0]
        return {"drug": (row["estimate"], row["std_error"], row["df"])}

    by_function = own.analyse(last_difference).pool()
    by_formula = own.analyse(ANALYSIS).pool()
    by_formula = by_formula[by_formula["parameter"] == "difference"]
    np.testing.assert_allclose(by_function["estimate"], by_formula["estimate"], rtol=1e-8)
    np.testing.assert_allclose(by_function["std_error"], by_formula["std_error"], rtol=1e-8)
    mmrm = own.analyse("change ~ C(week) * arm + C(week) * base", residual="us(week | id)").frame
    fit = blm.LMM("change ~ C(week) * arm + C(week) * base", own.data(2), residual="us(week | id)").fit()
    pairs = fit.emmeans("arm", by="week", at={"base": [float(own.data(2)["base"].mean())], "week": [8]}).pairs(adjust="none").iloc[0]
    row = mmrm[(mmrm["imputation"] == 2) & (mmrm["visit"] == 8) & (mmrm["parameter"] == "difference")].iloc[0]
    assert row["estimate"] == pytest.approx(-pairs["estimate"], rel=1e-6)
    assert row["std_error"] == pytest.approx(pairs["std_error"], rel=1e-6)
    assert row["df"] == pytest.approx(pairs["df"], rel=1e-4)


def test_figures_are_drawn(imp: blm.Imputations) -> None:
    assert len(imp.plot().get_lines()) == 6
    assert imp.tipping(range(5), ANALYSIS).plot().get_xlabel() == "added to imputed outcomes of drug"
    assert imp.tipping({"drug": range(5), "placebo": range(3)}, ANALYSIS).plot().get_ylabel().endswith("placebo")


@pytest.mark.parametrize("size", [(2.6, 2.0), (3.4, 2.8), (6.4, 4.4)])
@pytest.mark.parametrize("grid", [range(5), {"drug": range(5), "placebo": range(3)}], ids=["one arm", "both arms"])
def test_labels_of_a_tipping_figure_stay_on_it(grid: Any, size: tuple[float, float], imp: blm.Imputations) -> None:
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    imp.tipping(grid, ANALYSIS).plot(ax=ax)
    figure.canvas.draw()
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        box = text.get_window_extent()
        assert box.width == 0 or (box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1), text
    plt.close(figure)
    for absent in ({"analysis": "nonsense"}, {"analysis": "change ~ arm + nope"}, {"covariates": ["nope"]}):
        with pytest.raises(blm.errors.BayesLMMError):
            imp.report(**absent)
    page = imp.report(analysis=ANALYSIS)
    assert all(words in page for words in ("Who was imputed", "copy increments in reference", "anchored", "missing at random"))


def test_errors_anchored_at_missing_at_random_are_shown_beside_other_strategies_alone(
    imp: blm.Imputations, model: blm.LMM, events: pd.DataFrame
) -> None:
    alone = blm.impute(model, treatment="arm", events=events, strategy="MAR")
    pooled = alone.analyse(ANALYSIS).pool(information_anchored=True)
    np.testing.assert_allclose(pooled["anchored_std_error"], pooled["std_error"], rtol=1e-9)
    assert "anchored" in imp.report(analysis=ANALYSIS)
    assert "anchored" not in alone.report(analysis=ANALYSIS)


@pytest.mark.parametrize("width", [3.4, 6.6, 10.0])
def test_the_legend_of_a_tipping_figure_has_the_arms_first_and_stays_in_it(width: float) -> None:
    amounts = np.linspace(0.0, 6.0, 7)
    arms = ["low dose", "high dose"]
    frame = pd.concat(
        pd.DataFrame({"visit": 4, "arm": arm, "delta_T": amounts, "estimate": amounts - 3, "p_value": amounts / 7}) for arm in arms
    ).assign(conf_low=lambda f: f["estimate"] - 1, conf_high=lambda f: f["estimate"] + 1)
    figure = Figure(figsize=(width, 0.7 * width), layout="constrained")
    ax = tipping_figure(frame, ("delta_T",), 0.95, figure.subplots())
    figure.draw_without_rendering()
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["low dose at 4", "high dose at 4", "p < 0.05", "p ≥ 0.05"]
    assert legend.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.slow
def test_a_report_has_the_check_and_the_one_sided_imputations(trial: pd.DataFrame, events: pd.DataFrame, model: blm.LMM) -> None:
    fit = model.fit()
    imp = blm.impute(model, treatment="arm", reference={"drug": "placebo"}, events=events, strategy="CIR")
    check = fit.check_inference(20, seed=1)
    options: dict[str, Any] = {"analysis": "change ~ arm + base", "alternative": "less", "null": 1.0, "conf_level": 0.975}
    page = fit.report(imputations=imp, inference_check=check, **options)
    assert "Can inference be trusted in this design?" in page and check.advice in page.replace("&#x27;", "'")
    assert "that a difference is below 1 is shown where the upper limit of 97.5 %" in page
    with pytest.raises(SpecificationError):
        fit.report(alternative="less")
    with pytest.raises(SpecificationError):
        fit.report(inference_check=imp)  # type: ignore[arg-type]
