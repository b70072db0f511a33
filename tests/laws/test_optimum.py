"""An estimate is the lowest point there is, and a larger family is never worse: laws 8 and 9; identities of law 10."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.estimate.estimate import estimate
from tests.laws.designs import MIXED, mixed, random_x, structured, three_visits


@pytest.mark.parametrize("name", MIXED)
def test_no_theta_is_better_than_the_estimate(name: str) -> None:
    model = mixed(name).model()
    fit = model.fit()
    rng = np.random.default_rng(0)
    problem = model.problem
    x = np.concatenate([fit.estimate.x + rng.normal(size=(500, problem.size)) * s for s in (0.05, 0.5)])
    assert problem.criterion.values(x, True).min() >= fit.criterion - 1e-8


@pytest.mark.parametrize("name", MIXED)
def test_every_start_ends_at_the_same_optimum(name: str) -> None:
    model = mixed(name).model()
    best = model.fit().criterion
    rng = np.random.default_rng(1)
    for seed in range(8):
        start = random_x(model.problem, seed) * rng.uniform(0.2, 3.0, model.problem.size)
        assert estimate(model.problem, "REML", start).criterion == pytest.approx(best, abs=1e-6)


NESTED = [
    ("y ~ x + (x || subject)", "y ~ x + (x | subject)"),
    ("y ~ x + id(x | subject)", "y ~ x + diag(x | subject)"),
    ("y ~ x + cs(0 + f | subject)", "y ~ x + csh(0 + f | subject)"),
    ("y ~ x + csh(0 + f | subject)", "y ~ x + us(0 + f | subject)"),
    ("y ~ x + ar1(0 + f | subject)", "y ~ x + toep(0 + f | subject)"),
    ("y ~ x + toep(0 + f | subject)", "y ~ x + us(0 + f | subject)"),
    ("y ~ x + (1 | subject)", "y ~ x + (1 | subject) + (1 | item)"),
]


@pytest.mark.parametrize(("small", "large"), NESTED)
@pytest.mark.parametrize("seed", range(4))
def test_a_larger_covariance_never_fits_worse(small: str, large: str, seed: int) -> None:
    data = mixed("one factor", seed).data
    assert blm.LMM(large, data).fit().criterion <= blm.LMM(small, data).fit().criterion + 1e-7


RESIDUAL_NESTED = [
    ("cs", "csh"), ("csh", "us"), ("ar1", "ar1h"), ("ar1", "toep"), ("ar1", "ad"), ("ad", "adh"), ("toep", "toeph"), ("toeph", "us"),
    ("adh", "us"), ("cs", "toep"), ("cs", "hf"), ("hf", "us"), ("ar1", "arma"),
]  # fmt: skip


@pytest.mark.parametrize(("small", "large"), RESIDUAL_NESTED)
@pytest.mark.parametrize("seed", range(2))
def test_a_larger_residual_structure_never_fits_worse(small: str, large: str, seed: int) -> None:
    a, b = (structured(f"{name}(visit | subject)", seed).model().fit() for name in (small, large))
    assert b.criterion <= a.criterion + 1e-6
    assert a.converged
    assert b.converged


def test_compound_symmetry_of_the_errors_is_a_random_intercept() -> None:
    a = structured("cs(visit | subject)").model().fit()
    b = structured(None, random=" + (1 | subject)").model().fit()
    assert a.criterion == pytest.approx(b.criterion, abs=1e-8)
    np.testing.assert_allclose(a.fixef, b.fixef, rtol=1e-6)
    np.testing.assert_allclose(a.vcov, b.vcov, rtol=1e-5)


def test_uncorrelated_effects_are_two_terms() -> None:
    data = mixed("one factor").data
    a, b = blm.LMM("y ~ x + (x || subject)", data).fit(), blm.LMM("y ~ x + (1 | subject) + (0 + x | subject)", data).fit()
    assert a.criterion == pytest.approx(b.criterion, abs=1e-9)
    np.testing.assert_allclose(a.theta, b.theta, rtol=1e-5)


def test_autoregression_on_an_even_grid_is_spatial_exponential() -> None:
    data = three_visits(0)
    data["t"] = data["visit"].cat.codes.astype(float)
    a = blm.LMM("y ~ x + arm * visit", data, residual="ar1(visit | subject)").fit()
    b = blm.LMM("y ~ x + arm * visit", data, residual="sp_exp(t | subject)").fit()
    c = blm.LMM("y ~ x + arm * visit", data, residual="sp_pow(t | subject)").fit()
    assert a.criterion == pytest.approx(b.criterion, abs=1e-7)
    assert a.criterion == pytest.approx(c.criterion, abs=1e-7)


def test_balanced_one_way_reml_is_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(10), 6)
    data = pd.DataFrame({"y": rng.normal(size=60) + rng.normal(size=10)[group] * 2, "g": group.astype(str)})
    fit = blm.LMM("y ~ 1 + (1 | g)", data).fit()
    means = data.groupby("g")["y"].mean()
    between = 6 * means.var(ddof=1)
    within = ((data["y"] - data.groupby("g")["y"].transform("mean")) ** 2).sum() / 50
    assert fit.sigma**2 == pytest.approx(within, rel=1e-8)
    assert fit.D["g"].iloc[0, 0] == pytest.approx((between - within) / 6, rel=1e-7)


def test_unstructured_errors_of_complete_data_are_the_sample_covariance() -> None:
    rng = np.random.default_rng(4)
    Y = rng.normal(size=(30, 3)) @ np.array([[2.0, 0, 0], [1, 1, 0], [0.5, 0.2, 3]]).T
    data = pd.DataFrame({"y": Y.ravel(), "visit": pd.Categorical(np.tile(list("abc"), 30)), "id": np.repeat(np.arange(30), 3).astype(str)})
    fit = blm.LMM("y ~ 0 + visit", data, residual="us(visit | id)").fit()
    np.testing.assert_allclose(fit.R, np.cov(Y.T), rtol=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_a_variance_of_zero_is_certified_and_a_false_zero_is_left(seed: int) -> None:
    # 6 groups of 4 whose true variance is 0: about half of the estimates are 0
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"y": rng.normal(size=24), "x": rng.normal(size=24), "g": np.repeat(list("abcdef"), 4)})
    model = blm.LMM("y ~ x + (x | g)", data)
    with np.errstate(all="ignore"):
        fit = model.fit()
    grid = np.random.default_rng(0).uniform(-1.2, 1.2, size=(4000, 3))
    assert model.problem.criterion.values(grid, True).min() >= fit.criterion - 1e-7
    if fit.singular:
        assert any(name.startswith("singular") for name in fit.checks)


def test_singular_fits_give_the_fixed_effects_of_least_squares() -> None:
    rng = np.random.default_rng(11)
    group = np.repeat(np.arange(6), 5)
    e = rng.normal(size=30)
    e -= pd.Series(e).groupby(group).transform("mean").to_numpy()  # negative intraclass correlation
    data = pd.DataFrame({"y": 3 + e, "g": group.astype(str)})
    fit = blm.LMM("y ~ 1 + (1 | g)", data).fit()
    assert fit.singular
    assert fit.theta[0] == 0.0
    assert fit.fixef.iloc[0] == pytest.approx(data["y"].mean(), rel=1e-12)
    assert fit.vcov.iloc[0, 0] == pytest.approx(data["y"].var(ddof=1) / 30, rel=1e-10)


@pytest.mark.parametrize("seed", [1011, 1151, 1628, 2012])
def test_a_maximum_at_0_is_not_taken_for_the_highest(seed: int) -> None:
    """Data of few groups whose restricted likelihood has one maximum where the sd is 0 and a higher one where it is not."""
    rng = np.random.default_rng(seed)
    groups, n = int(rng.integers(4, 7)), int(rng.integers(10, 22))
    g = rng.integers(0, groups, n)
    g[:groups] = np.arange(groups)
    x = rng.normal(size=n).round(2)
    y = (x + rng.normal(size=groups)[g] * 3 * (rng.random() < 0.5) + rng.standard_t(2, size=n)).round(2)
    problem = blm.LMM("y ~ x + (1 | g)", pd.DataFrame({"y": y, "x": x, "g": g})).problem
    grid = problem.criterion.values(np.linspace(0.0, 5.0, 501)[:, None], True)
    inside = (grid[1:-1] < grid[:-2]) & (grid[1:-1] < grid[2:])
    assert grid[0] < grid[1]
    assert inside.any()
    for start in (None, np.array([0.05]), np.array([1.0])):
        found = estimate(problem, start=start)
        assert found.criterion <= grid.min() + 1e-9
        assert not found.singular
