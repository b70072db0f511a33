"""Searches in the order of the pivots: the same optimum, without the circle along which rows of T turn into one another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.estimate.estimate import estimate
from bayeslmm.estimate.newton import needs_pivoting, unrotated_x
from tests.laws.designs import MIXED, mixed, random_x


def slopes_alone(seed: int, groups: int = 30) -> pd.DataFrame:
    """Slopes differ between groups, intercepts do not: the first pivot of T is 0, the second column's entries make up its row."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), 5)
    x, z = rng.normal(size=(2, len(g)))
    y = x + 2.0 * rng.normal(size=groups)[g] * x + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x, "z": z, "g": g})


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + z + (x + z | g)", "y ~ x + z + (z + x | g)"])
@pytest.mark.parametrize("seed", range(6))
def test_a_small_first_pivot_does_not_hold_the_search_up(formula: str, seed: int) -> None:
    found = estimate(blm.LMM(formula, slopes_alone(seed)).problem)
    assert found.converged
    assert len(found.path) <= 16


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_columns_does_not_matter(seed: int) -> None:
    data = slopes_alone(seed)
    a, b = (blm.LMM(f"y ~ x + z + ({columns} | g)", data).fit() for columns in ("x + z", "z + x"))
    assert a.criterion == pytest.approx(b.criterion, abs=1e-8)
    names = list(a.D["g"])
    np.testing.assert_allclose(a.D["g"], b.D["g"].loc[names, names], atol=1e-4 * float(np.trace(a.D["g"])))


@pytest.mark.parametrize("name", ["one factor", "three columns", "factor slope"])
def test_what_is_said_is_on_the_axes_of_the_problem(name: str) -> None:
    """From starts in any order: every point of the path has its value, the optimum is that of all."""
    problem = mixed(name).model(check="warn").problem
    best = estimate(problem).criterion
    for seed in range(4):
        start = random_x(problem, seed)
        start[0] = 1e-3
        found = estimate(problem, start=start)
        assert found.criterion == pytest.approx(best, abs=1e-7)
        for x, value in found.path:
            assert problem.criterion.at(x, True, order=0).value == pytest.approx(value, abs=1e-7)
        np.testing.assert_allclose(problem.theta(found.x), found.theta)


def test_only_pivots_that_stand_too_early_are_out_of_order() -> None:
    problem = mixed("one factor").model().problem
    own = (0,)
    assert needs_pivoting(problem, own, np.array([0.1, 1.0, 1.0]))
    assert not needs_pivoting(problem, own, np.array([1.0, 1.0, 0.0]))
    assert not needs_pivoting(problem, own, np.array([0.0, 0.01, 0.01]))
    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(unrotated_x(problem, x), x)


def test_axes_without_a_matrix_keep_their_order() -> None:
    assert {"uncorrelated", "three columns"} <= set(MIXED)
    problem = mixed("uncorrelated").model().problem
    assert not needs_pivoting(problem, (), np.array([0.0, 1.0]))


def test_a_valley_is_followed_to_its_end() -> None:
    """sd = c + v^d with a sd that hardly bends: c and d hang together along a valley where average information is far too large."""
    rng = np.random.default_rng(8)
    v = rng.uniform(1, 6, 200)
    data = pd.DataFrame({"y": rng.normal(size=200) * v**0.4, "v": v, "x": rng.normal(size=200)})
    problem = blm.LMM("y ~ x", data, variance="const_power(v)").problem
    found = estimate(problem)
    assert found.converged
    assert np.abs(found.gradient).max() < 1e-3
    near = found.x + np.random.default_rng(0).normal(size=(500, problem.size)) * 0.3
    assert problem.criterion.values(near, True).min() >= found.criterion - 1e-7


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "settles"), [(7, True), (9, False), (16, True)])
def test_a_power_of_fitted_values_that_hardly_differ_settles_or_is_refused(seed: int, settles: bool) -> None:
    """Little says what it is: the rounds end about typical fitted values, or at a power for which sigma is no number."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(10), 3)
    data = pd.DataFrame({"y": 12 + 0.8 * rng.normal(size=10)[g] + rng.normal(size=30), "g": g.astype(str)})
    model = blm.LMM("y ~ 1 + (1 | g)", data, variance="power(fitted)")
    if settles:
        fit = model.fit("ML")
        assert fit.converged
        assert fit.checks["variance of the fitted value"].verdict == "passed"
    else:
        with pytest.raises(blm.errors.DesignError, match="runs off"):
            model.fit("ML")
