"""Degrees of freedom where they are known exactly, and how the methods relate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import InferenceError, SpecificationError
from bayeslmm.inference.fixed_effects.degrees_of_freedom import observed_information
from bayeslmm.inference.fixed_effects.kenward_roger import scale_and_df
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from tests.inference.frames import blocks, split_plot, unbalanced

METHODS = ("satterthwaite", "kenward-roger", "kenward-roger-linear")


@pytest.mark.parametrize("df", METHODS)
def test_a_randomised_block_design_has_the_textbook_F(df: str) -> None:
    data = blocks()
    table = blm.LMM("y ~ treatment + (1 | block)", data).fit().anova(df=df)
    wide = data.pivot(index="block", columns="treatment", values="y").to_numpy()
    residual = wide - wide.mean(0) - wide.mean(1, keepdims=True) + wide.mean()
    F = 8 * np.sum((wide.mean(0) - wide.mean()) ** 2) / 3 / (np.sum(residual**2) / 21)
    assert table["statistic"].item() == pytest.approx(F, rel=1e-6)
    assert table["den_df"].item() == pytest.approx(21, rel=1e-5)


@pytest.mark.parametrize("df", METHODS)
def test_a_split_plot_has_its_two_strata(df: str) -> None:
    table = blm.LMM("y ~ variety * nitrogen + (1 | block / variety)", split_plot()).fit().anova(df=df).set_index("term")
    # whole plots: (6 - 1)(3 - 1); parts: 3 (6 - 1)(4 - 1)
    np.testing.assert_allclose(table["den_df"], [10, 45, 45], rtol=2e-5)
    other = blm.LMM("y ~ variety * nitrogen + (1 | block / variety)", split_plot()).fit().anova(df="containment").set_index("term")
    np.testing.assert_allclose(table["statistic"], other["statistic"], rtol=1e-6)


def test_the_intercept_of_balanced_groups_has_groups_less_one() -> None:
    fit = blm.LMM("y ~ 1 + (1 | block)", blocks()).fit()
    for df in METHODS:
        assert fit.tidy(df=df)["df"].item() == pytest.approx(7, rel=1e-5)


def test_observed_kenward_roger_of_one_coefficient_is_satterthwaite() -> None:
    fit = blm.LMM("y ~ a * x + (x | g)", unbalanced()).fit()
    ours, theirs = fit.tidy(df="kenward-roger", information="observed"), fit.tidy(df="satterthwaite")
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=1e-5)
    assert (ours["std_error"] > theirs["std_error"]).all()


def test_a_change_of_units_and_origin_changes_no_degrees_of_freedom() -> None:
    data = unbalanced()
    moved = data.assign(x=1000 * data["x"] + 1e6)
    for df in METHODS:
        ours = blm.LMM("y ~ x + (x | g)", data).fit().tidy(df=df)["df"].to_numpy()[1]
        theirs = blm.LMM("y ~ x + (x | g)", moved).fit().tidy(df=df)["df"].to_numpy()[1]
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_variance_of_zero_leaves_the_residual_degrees_of_freedom() -> None:
    data = blocks()
    data["y"] = data["y"] - data.groupby("block")["y"].transform("mean")
    fit = blm.LMM("y ~ treatment + (1 | block)", data).fit()
    assert fit.singular
    np.testing.assert_allclose(fit.tidy()["df"], 28, rtol=1e-6)


def test_containment_counts_strata_as_nlme() -> None:
    fit = blm.LMM("y ~ variety * nitrogen + (1 | block / variety)", split_plot()).fit()
    table = fit.tidy(df="containment").set_index("term")["df"]
    assert table["variety[T.M]"] == 10
    assert table["nitrogen[T.b]"] == table["Intercept"] == table["variety[T.M]:nitrogen[T.b]"] == 45


def test_between_within_counts_subjects() -> None:
    data = blocks().assign(arm=lambda d: np.where(d["block"].astype(int) < 4, "t", "c"))
    table = blm.LMM("y ~ arm + treatment + (1 | block)", data).fit().tidy(df="between-within").set_index("term")["df"]
    assert table["arm[T.t]"] == 8 - 1 - 1
    assert table["treatment[T.B]"] == table["Intercept"] == 32 - 8 - 3


def test_residual_and_asymptotic() -> None:
    fit = blm.LMM("y ~ treatment + (1 | block)", blocks()).fit()
    assert set(fit.tidy(df="residual")["df"]) == {28.0}
    normal = fit.anova(df="asymptotic")
    assert np.isinf(normal["den_df"].item())
    assert 0 < normal["p_value"].item() < 1


def test_crossed_factors_have_no_containment() -> None:
    data = unbalanced().assign(h=lambda d: np.arange(len(d)) % 5)
    fit = blm.LMM("y ~ x + (1 | g) + (1 | h)", data.assign(h=data["h"].astype(str))).fit()
    for df in ("containment", "between-within"):
        with pytest.raises(InferenceError, match="crossed"):
            fit.tidy(df=df)


def test_kenward_roger_wants_reml() -> None:
    with pytest.raises(InferenceError, match="REML"):
        blm.LMM("y ~ treatment + (1 | block)", blocks()).fit("ML").tidy(df="kenward-roger")


def test_options_are_checked_and_the_nearest_is_told() -> None:
    fit = blm.LMM("y ~ treatment + (1 | block)", blocks()).fit()
    with pytest.raises(SpecificationError, match="kenward-roger"):
        fit.tidy(df="kenward-rogers")
    with pytest.raises(SpecificationError, match="CR2"):
        fit.tidy(vcov="CR9")
    with pytest.raises(InferenceError, match="robust"):
        fit.tidy(df="kenward-roger", vcov="CR2")


def test_the_moments_of_hotelling_are_exact() -> None:
    """Kenward and Roger's F is exact for Hotelling's T2: W of an unstructured q x q matrix known from m degrees of freedom."""
    q, m = 3, 20
    scale, df = scale_and_df(A1=2.0 * q / m, A2=q * (q + 1.0) / m, q=q)
    assert df == pytest.approx(m - q + 1, rel=1e-9)
    assert scale == pytest.approx((m - q + 1) / m, rel=1e-9)


def test_degrees_of_freedom_beside_a_variance_near_zero_do_not_depend_on_the_step() -> None:
    """Near 0 the criterion is a function of the variance: its curvature in the standard deviation changes over a short way."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(40), 5)
    frame = pd.DataFrame({"g": g, "arm": np.where(g < 20, "a", "b"), "y": rng.normal(size=200)})
    frame["y"] -= frame.groupby("g")["y"].transform("mean")
    between = rng.normal(size=40)
    between -= pd.Series(between).groupby(np.arange(40) < 20).transform("mean").to_numpy()
    between /= np.sqrt((between**2).sum() / 38)
    within = (frame["y"] ** 2).sum() / 160
    for ratio in (1e-4, 1e-3, 1e-2):
        data = frame.assign(y=frame["y"] + between[g] * np.sqrt(within * (1 / 5 + ratio)))
        fit = blm.LMM("y ~ arm + (1 | g)", data).fit()
        # balanced: the difference of the arms is known as the mean square of the groups is, with 38 degrees of freedom
        assert fit.tidy()["df"].iloc[1] == pytest.approx(38.0, rel=1e-4), ratio


@pytest.mark.parametrize("formula", ["y ~ a * x + (x | g)", "y ~ x + (x || g)", "y ~ x + (1 | g) + (1 | a)", "y ~ x + (0 + a | g)"])
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_curvature_found_at_all_points_together_is_that_of_one_point_after_the_other(
    formula: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = blm.LMM(formula, unbalanced(), check="warn")
    together = observed_information(model.fit(method))
    monkeypatch.setattr(RandomEffectsKernel, "evaluate_together", lambda kernel, x: None)
    alone = observed_information(model.fit(method))
    for name in ("slopes", "hessian"):
        size = np.abs(getattr(alone, name)).max()
        np.testing.assert_allclose(getattr(together, name), getattr(alone, name), rtol=1e-8, atol=1e-8 * size)
