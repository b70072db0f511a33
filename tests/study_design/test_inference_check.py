"""Checks of inference: methods are judged in the same data sets, and by no more than the simulation tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm._arrays import seed_sequence
from bayeslmm.errors import SpecificationError
from bayeslmm.study_design import inference_check
from bayeslmm.study_design.inference_check import PREFERENCE, InferenceCheck
from tests.study_design.test_power import two_arms


@pytest.fixture(scope="module")
def few() -> blm.Fit:
    return blm.assume("y ~ arm + (1 | g)", two_arms(4), alpha=[0, 1], sd=1.0, sigma=1.0)


def made(covered: dict[str, Any], level: float = 0.95) -> InferenceCheck:
    rows = [
        {"method": method, "term": f"x{j}", "coverage": np.nanmean(inside[:, j]), "n": int(np.isfinite(inside[:, j]).sum())}
        for method, inside in covered.items()
        for j in range(inside.shape[1])
    ]
    return InferenceCheck(pd.DataFrame(rows), pd.DataFrame(), 0.0, 0.0, len(rows), level, covered)


def test_bootstraps_of_different_data_sets_are_independent(few: blm.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resamples drawn alike in every data set would share their Monte Carlo error, which no number of data sets averages out."""
    seeds = []

    def recorded(fit: Any, nsim: int, seed: Any) -> Any:
        seeds.append(seed)
        return original(fit, 40, seed)

    original = inference_check.bootstrap
    monkeypatch.setattr(inference_check, "bootstrap", recorded)
    for seed in (1, 1, 2):
        few.check_inference(3, seed=seed, methods=["bootstrap"])
    assert len(set(seeds)) == 6
    assert seeds[:3] == seeds[3:6]


def test_methods_are_judged_in_the_same_data_sets(few: blm.Fit) -> None:
    methods = ["wald", "satterthwaite", "kenward-roger", "sandwich", "residual"]
    check = few.check_inference(12, seed=5, methods=methods)
    Y = few.model.simulated(few.fixef_kept, few.theta, few._sigma, 12, seed_sequence(5))
    for b in range(12):
        own = few.model.with_response(Y.iloc[:, b].to_numpy()).fit()
        for method, options in {
            "wald": {"df": "asymptotic"},
            "kenward-roger": {"df": "kenward-roger"},
            "sandwich": {"vcov": "CR2"},
        }.items():
            table = own.tidy(**options, conf_int=True)
            inside = (table["conf_low"] <= few.fixef_kept) & (few.fixef_kept <= table["conf_high"])
            np.testing.assert_array_equal(check.covered[method][b], inside.to_numpy(float))
    assert list(check.frame["method"].unique()) == methods


@pytest.mark.parametrize("seed", range(5))
def test_what_a_simulation_does_not_tell_apart_is_not_told_apart(seed: int) -> None:
    """Two methods of one coverage are alike whatever the noise; a method that misses more of the same data sets is not."""
    rng = np.random.default_rng(seed)
    true = (rng.random((2000, 3)) < 0.95).astype(float)
    flips = rng.random((2000, 3)) < 0.01
    near = np.where(flips, 1.0 - true, true)
    near = np.where(flips & (true == 1.0) & (rng.random((2000, 3)) < 0.9), true, near)  # as many one way as the other, about
    short = np.where(rng.random((2000, 3)) < 0.03, 0.0, true)
    check = made({"wald": short, "kenward-roger": near[:200], "satterthwaite": true})
    assert check.alike == ("satterthwaite", "kenward-roger")
    assert check.advice.startswith("Use satterthwaite or kenward-roger, not distinguishable here")
    assert "within the error of this simulation" in check.advice
    alone = made({"wald": short})
    assert alone.advice.startswith("Use wald") and "off the level of 95%" in alone.advice


def test_a_large_design_has_no_best_method_and_a_small_one_has(few: blm.Fit) -> None:
    large = blm.assume("y ~ arm + (1 | g)", two_arms(150), alpha=[0, 1], sd=1.0, sigma=1.0)
    assert set(large.check_inference(300, seed=1).alike) == {"satterthwaite", "wald"}
    assert few.check_inference(600, seed=1).alike == ("satterthwaite",)


def test_every_method_has_a_place_in_the_order() -> None:
    from bayeslmm.study_design.inference_check import ONE_BY_ONE, SIDE_BY_SIDE

    assert sorted(PREFERENCE) == sorted([*SIDE_BY_SIDE, *ONE_BY_ONE])


def one_way(levels: int, clusters: int = 3) -> pd.DataFrame:
    """Every level of a factor in clusters of its own."""
    cells = [(f"a{i % levels}", f"g{i}", k) for i in range(clusters * levels) for k in range(3)]
    return pd.DataFrame(cells, columns=["a", "g", "row"])


@pytest.mark.parametrize("residual", [None, pytest.param("cs(row | g)", marks=pytest.mark.slow)])
def test_terms_are_tested_for_their_true_values(residual: str | None) -> None:
    options: dict[str, Any] = {"R": np.eye(3) + 0.5} if residual else {"sd": 0.7, "sigma": 1.0}
    plan = blm.assume("y ~ a" if residual else "y ~ a + (1 | g)", one_way(4), alpha=[0, 1, -1, 0.5], residual=residual, **options)
    methods = ["wald", "satterthwaite", "kenward-roger"]
    check = plan.check_inference(30, seed=2, methods=methods)
    assert check.terms[["method", "term", "df"]].to_numpy().tolist() == [[method, "a", 3] for method in methods]
    Y = plan.model.simulated(plan.fixef_kept, plan.theta, plan._sigma, 30, seed_sequence(2))
    # without their true mean the data are those of no effect, which anova tests
    null = Y.sub(plan.model.design.X @ plan.fixef_kept, axis=0)
    for method, df in zip(methods, ("asymptotic", "satterthwaite", "kenward-roger"), strict=True):
        tables = [plan.model.with_response(null.iloc[:, b].to_numpy()).fit().anova(df=df) for b in range(30)]
        p = [table.loc[table["term"] == "a", "p_value"].item() for table in tables]
        assert check.terms.loc[check.terms["method"] == method, "size"].item() == pytest.approx(np.mean(np.array(p) < 0.05))
    assert "a" in repr(check).splitlines()[-1]


def test_variances_are_judged_where_nothing_runs_side_by_side() -> None:
    """Power of the fitted value: every refit is a search of its own."""
    data = one_way(3).assign(x=lambda f: 1.0 + f["row"])
    plan = blm.assume("y ~ a + x + (1 | g)", data, alpha=[0, 1, -1, 2.0], sd=0.7, sigma=1.0)
    y = plan.model.simulated(plan.fixef_kept, plan.theta, plan._sigma, 1, seed_sequence(3)).iloc[:, 0].to_numpy()
    fit = blm.LMM("y ~ a + x + (1 | g)", data.assign(y=y), variance="power(fitted)", check="warn").fit()
    check = fit.check_inference(6, seed=1, methods=["wald"])
    assert check.variances["parameter"].tolist() == ["Intercept | g", "Residual"]
    assert np.isfinite(check.variances["bias"]).all()
    assert 0.0 <= check.singular <= 1.0
    assert check.failed < 1.0


def test_variances_of_groups_have_names_of_their_own() -> None:
    data = one_way(2, 8)
    matrices = {"a0": np.eye(3) + 0.5, "a1": 2.0 * np.eye(3)}
    plan = blm.assume("y ~ a", data, alpha=[0, 1], residual="us(row | a / g)", R=matrices)
    check = plan.check_inference(20, seed=1, methods=["wald"])
    assert check.variances["parameter"].tolist() == [f"R[{row}] | {level}" for level in ("a0", "a1") for row in range(3)]
    assert check.variances["true"].tolist() == pytest.approx([1.5] * 3 + [2.0] * 3)


def test_a_design_whose_data_have_no_maximum_is_refused() -> None:
    plan = blm.assume("y ~ a", one_way(2), alpha=[0, 1], residual="us(row | a / g)", R=np.eye(3) + 0.5, method="REML")
    with pytest.raises(SpecificationError, match="no simulated data set"):
        plan.check_inference(5, seed=1, methods=["wald"])
