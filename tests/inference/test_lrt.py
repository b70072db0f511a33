"""Likelihood ratios: what is compared, and with which distribution."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning, InferenceError
from bayeslmm.inference.lrt import ChiBarSquare, added_columns, bootstrap_lrt, exact_rlrt, lrt
from tests.inference.frames import blocks, unbalanced


def fitted(formula: str, method: str = "REML") -> blm.Fit:
    return blm.LMM(formula, unbalanced()).fit(method)


def test_one_variance_has_half_the_p_value() -> None:
    small, large = fitted("y ~ x + (1 | g)"), fitted("y ~ x + (x || g)")
    mixed, plain = lrt(small, large), lrt(small, large, boundary=False)
    assert mixed["p_value"].iloc[1] == pytest.approx(plain["p_value"].iloc[1] / 2)
    assert mixed["statistic"].iloc[1] == pytest.approx(small.criterion - large.criterion)


def test_a_slope_with_its_correlation_mixes_one_and_two() -> None:
    table = lrt(fitted("y ~ x + (1 | g)"), fitted("y ~ x + (x | g)"))
    value = table["statistic"].iloc[1]
    assert table["p_value"].iloc[1] == pytest.approx(0.5 * stats.chi2.sf(value, 1) + 0.5 * stats.chi2.sf(value, 2))


def test_fixed_effects_have_the_plain_chi_square() -> None:
    table = lrt(fitted("y ~ 1 + (x | g)", "ML"), fitted("y ~ x + (x | g)", "ML"))
    assert table["p_value"].iloc[1] == pytest.approx(stats.chi2.sf(table["statistic"].iloc[1], 1))
    assert table["npar"].tolist() == [5, 6]


def test_reml_fits_with_other_fixed_effects_are_refitted_with_one_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = lrt(fitted("y ~ a + x + (1 | g)"), fitted("y ~ x + (1 | g)"))
    assert [w.category for w in caught] == [BayesLMMWarning]
    np.testing.assert_allclose(table["loglik"], [fitted(f, "ML").loglik for f in ("y ~ x + (1 | g)", "y ~ a + x + (1 | g)")], rtol=1e-9)


def test_reml_fits_with_the_same_fixed_effects_are_compared_as_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = lrt(fitted("y ~ x + (1 | g)"), fitted("y ~ x + (x | g)"))
    assert table["loglik"].iloc[0] == pytest.approx(fitted("y ~ x + (1 | g)").loglik)


def test_other_data_are_refused() -> None:
    with pytest.raises(InferenceError, match="different data"):
        lrt(fitted("y ~ x + (1 | g)"), blm.LMM("y ~ x + (1 | g)", unbalanced().iloc[1:]).fit())
    with pytest.raises(InferenceError, match="two fits"):
        lrt(fitted("y ~ x + (1 | g)"))


def test_mixtures() -> None:
    assert ChiBarSquare((1,), 0).p_value(0.0) == 1.0
    assert ChiBarSquare((1,), 0).p_value(2.7055) == pytest.approx(0.05, rel=1e-3)
    two = ChiBarSquare((1, 1), 0).p_value(3.0)
    assert two == pytest.approx(0.5 * stats.chi2.sf(3, 1) + 0.25 * stats.chi2.sf(3, 2))
    # the cone of 2 x 2 matrices, its weights against simulation of the same kind as for larger ones
    rng = np.random.default_rng(1)
    M = rng.standard_normal((100_000, 2, 2))
    lengths = np.sum(np.maximum(np.linalg.eigvalsh((M + M.swapaxes(1, 2)) / 2), 0) ** 2, axis=1)
    assert ChiBarSquare((2,), 0).p_value(2.0) == pytest.approx(np.mean(lengths > 2.0), abs=0.004)
    assert ChiBarSquare((3,), 2).p_value(9.0) < stats.chi2.sf(9.0, 8)


def test_which_variances_are_tested_is_read_off_the_designs() -> None:
    design = {
        f: blm.LMM(f"y ~ x + {f}", unbalanced()).design
        for f in ("(1 | g)", "(x | g)", "(x || g)", "(x + w | g)", "(1 | b) + (1 | g)", "(1 | b)")
    }
    assert added_columns(design["(1 | g)"], design["(x | g)"]) == [1]
    assert added_columns(design["(1 | g)"], design["(x + w | g)"]) == [2]
    assert added_columns(design["(1 | g)"], design["(1 | b) + (1 | g)"]) == [1]
    assert added_columns(design["(x || g)"], design["(x | g)"]) == []
    assert added_columns(design["(1 | b)"], design["(x | g)"]) == []


def test_ranova_leaves_out_one_term_after_the_other() -> None:
    fit = fitted("y ~ x + (x | g) + (1 | b)")
    table = fit.ranova()
    assert table["term"].tolist() == ["<none>", "x in (x | g)", "(1 | b)"]
    assert table["npar"].tolist() == [7, 5, 6]
    without = fitted("y ~ x + (1 | g) + (1 | b)")
    assert table["loglik"].iloc[1] == pytest.approx(without.loglik, rel=1e-9)
    assert fit.ranova(boundary=False)["p_value"].iloc[1] == pytest.approx(stats.chi2.sf(table["statistic"].iloc[1], 2))


def _visits() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"id": np.repeat([f"p{i:02d}" for i in range(30)], 4), "visit": np.tile([1, 2, 3, 4], 30), "arm": np.repeat(["a", "b"], 60)}
    )
    return frame.assign(y=rng.normal(size=30).repeat(4) + rng.normal(size=120), a_long_covariate=rng.normal(size=120))


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("smaller", ["cs", "ar1"])
def test_criteria_are_those_that_the_fits_have(method: Any, smaller: str) -> None:
    fits = [blm.mmrm(f"y ~ arm * C(visit) + {name}(visit | id)", _visits()).fit(method) for name in (smaller, "us")]
    fits_of_lme4 = [blm.LMM(f"y ~ arm + {term}", _visits()).fit(method) for term in ("(1 | id)", "(visit | id)")]
    for pair in (fits, fits_of_lme4):
        table = blm.lrt(*pair)
        for column in ("aic", "bic", "loglik"):
            np.testing.assert_allclose(table[column], [getattr(fit, column) for fit in pair], rtol=1e-12)
    assert fits_of_lme4[1].ranova()["aic"].iloc[0] == pytest.approx(fits_of_lme4[1].aic, rel=1e-12)


def test_long_titles_differ_where_a_table_shows_them() -> None:
    formula = "y ~ 1 + arm * C(visit) + a_long_covariate + a_long_covariate:C(visit)"
    fits = [blm.LMM(formula, _visits(), residual=f"{name}(visit | id)").fit() for name in ("cs", "ar1", "us")]
    shown = str(blm.lrt(*fits))
    for name in ("cs(", "ar1(", "us("):
        assert name in shown
    added = blm.lrt(fits[1], blm.LMM(formula, _visits(), residual="ar1(visit | id)", variance="ident(arm)").fit())
    assert "variance ident(arm)" in str(added)
    nested = [fits[2].update(". ~ . - a_long_covariate:C(visit)").model.fit("ML"), fits[2].model.fit("ML")]
    assert blm.lrt(*nested)["model"].is_unique


@pytest.mark.parametrize("term", ["(x | block)", "diag(x | block)"])
def test_ranova_names_a_term_as_it_is_written(term: str) -> None:
    data = blocks().assign(x=np.tile([0.0, 1.0, 2.0, 3.0], len(blocks()) // 4 + 1)[: len(blocks())])
    assert blm.LMM(f"y ~ x + {term}", data, check="warn").fit().ranova()["term"].tolist() == ["<none>", f"x in {term}"]


def test_ranova_down_to_no_random_effects() -> None:
    table = blm.LMM("y ~ treatment + (1 | block)", blocks()).fit().ranova()
    assert table["npar"].tolist() == [6, 5]
    assert 0 < table["p_value"].iloc[1] < 0.01


def test_the_exact_test_of_a_variance_is_the_F_test_in_balanced_groups() -> None:
    data = blocks(groups=6)
    data["y"] += 2.5 * np.random.default_rng(4).normal(size=len(data))
    fit = blm.LMM("y ~ 1 + (1 | block)", data).fit()
    F, p = stats.f_oneway(*[own["y"] for _, own in data.groupby("block")])
    found = exact_rlrt(fit, n=40_000, seed=1)
    assert F > 1
    assert found.p_value == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 40_000))


def test_the_exact_test_is_for_one_variance() -> None:
    with pytest.raises(InferenceError, match="single variance"):
        exact_rlrt(fitted("y ~ x + (x | g)"))
    assert exact_rlrt(blm.LMM("y ~ treatment + (1 | block)", blocks()).fit("ML"), n=2000, seed=3).p_value < 0.01


def test_the_bootstrap_is_seeded_and_counts_what_fails() -> None:
    small, large = fitted("y ~ x + (1 | g)"), fitted("y ~ x + (x | g)")
    one, again = (bootstrap_lrt(small, large, n=12, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.draws, again.draws)
    assert one.failed == 0
    assert one.p_value == (1 + np.sum(one.draws >= one.statistic)) / 13
    assert (one.draws > -1e-6).all()


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(
    ("without", "with_intercept"), [("0 + a", "a"), ("0 + b + x", "b + x"), ("0 + a:b", "a:b"), ("0 + a + b", "a + b"), ("0 + x", None)]
)
def test_ranova_is_the_same_however_a_factor_is_coded(without: str, with_intercept: str | None, shift: int) -> None:
    data = unbalanced(seed=3 + shift, rows=300)
    data["x"] -= 20
    fit = blm.LMM(f"y ~ x + ({without} | g)", data).fit()
    table = fit.ranova()
    if with_intercept is None:  # a slope alone has no margin: the term goes whole
        assert table["npar"].tolist() == [4, 3]
        return
    if with_intercept == "a:b":  # no reduced coding of the product alone: the reduction is the random intercept
        small = blm.LMM("y ~ x + (1 | g)", data).fit()
        assert table["loglik"].tolist()[1] == pytest.approx(small.loglik, abs=1e-5)
        assert table["npar"].tolist()[1] == 4
        return
    other = blm.LMM(f"y ~ x + ({with_intercept} | g)", data).fit().ranova()
    assert table["npar"].tolist() == other["npar"].tolist()
    assert table["loglik"].to_numpy() == pytest.approx(other["loglik"].to_numpy(), abs=1e-4)
    assert table["p_value"].to_numpy() == pytest.approx(other["p_value"].to_numpy(), rel=1e-2, nan_ok=True)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("formula", ["y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | g / h)"])
def test_a_variance_that_is_estimated_as_0_has_a_statistic_of_0_and_a_p_value_of_1(formula: str) -> None:
    """Rounding of two criteria that are one must not decide between the halves of a mixture."""
    found = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        g, h = np.repeat(np.arange(8), 8), rng.integers(0, 5, 64)
        data = pd.DataFrame({"g": g, "h": h, "x": rng.normal(size=64), "y": rng.normal(size=64) + 0.5 * rng.normal(size=8)[g]})
        fit = blm.LMM(formula, data).fit()
        table = fit.ranova().dropna(subset=["statistic"])
        zero = (fit.varcorr.query("term1 == 'Intercept'")["variance"].to_numpy() == 0.0)[: len(table)]
        found += int(zero.sum())
        assert (table.loc[zero, ["statistic", "p_value"]].to_numpy() == [0.0, 1.0]).all()
        assert (table["statistic"] >= 0.0).all()
    assert found > 5
