"""Moments of many levels: the equations hold in expectation, and the search that starts there ends where any other does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.estimate.estimate import estimate
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts, cross_products
from bayeslmm.likelihood.starting_values import _equations, _factors, moment_start
from tests.laws.designs import MIXED, mixed


def unit(problem: Problem) -> np.ndarray:
    return np.concatenate([term.covariance.start() for term in problem.random.terms])


def expected(problem: Problem, cross: CrossProducts, found: list[np.ndarray], sigma2: float) -> list[np.ndarray]:
    """H Z'W V W Z H summed over levels, for every factor, from matrices over the rows; then the trace of W^1/2 V W^1/2."""
    design, standardization = problem.design, problem.standardization
    n = len(design.y)
    w = np.ones(n) if design.weights is None else standardization.weights(design, slice(0, n))
    columns = []
    for factor in cross.factors:
        codes = design.terms[factor.terms[0]].group.codes
        Z = np.concatenate([standardization.maps[i].apply(design.terms[i].Z) for i in factor.terms], axis=1)
        columns.append([np.where((codes == k)[:, None], Z, 0.0) for k in range(factor.K)])
    V = np.diag(sigma2 / w)
    for D, Zs in zip(found, columns, strict=True):
        V = V + sum(Z @ D @ Z.T for Z in Zs)
    out = []
    for Zs in columns:
        H = [np.linalg.inv(Z.T @ (w[:, None] * Z) + np.eye(Z.shape[1])) for Z in Zs]
        out.append(sum(h @ Z.T @ (w[:, None] * V * w) @ Z @ h for h, Z in zip(H, Zs, strict=True)))
    return [*out, np.sum(w * np.diagonal(V))]


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", [name for name in MIXED if "f" not in MIXED[name].split("(")[-1]])
def test_the_equations_hold_in_expectation(name: str, weighted: bool) -> None:
    problem = mixed(name, weighted=weighted).model().problem
    cross = cross_products(problem.design, problem.standardization, small=False)
    assert cross.first is not None
    rng = np.random.default_rng(3)
    roots = [rng.normal(size=(factor.q, factor.q)) for factor in cross.factors]
    D = [root @ root.T for root in roots]
    M, _ = _equations(cross, _factors(cross))
    M[0, 0] = cross.n  # the matrices over the rows know of no fixed effects
    left = M @ np.concatenate([[0.7], *[d.ravel() for d in D]])
    *products, total = expected(problem, cross, D, 0.7)
    np.testing.assert_allclose(left, np.concatenate([[total], *[m.ravel() for m in products]]), rtol=1e-9)


def simulated(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n, sizes = 20_000, {"a": 1500, "b": 300, "c": 60}
    codes = {name: rng.integers(0, size, n) for name, size in sizes.items()}
    x = rng.normal(size=n)
    b = rng.normal(size=(sizes["b"], 2)) @ np.array([[0.8, 0.2], [0.0, 0.5]])
    y = 1 + x + rng.normal(size=sizes["a"])[codes["a"]] + b[codes["b"], 0] + x * b[codes["b"], 1] + 0.6 * rng.normal(size=60)[codes["c"]]
    return pd.DataFrame({"y": y + rng.normal(size=n), "x": x, **codes})


@pytest.mark.parametrize(
    "formula",
    ["y ~ x + (1 | a)", "y ~ x + (x | b)", "y ~ x + (1 | a) + (x | b)", "y ~ x + (1 | a) + (x || b) + (1 | c)", "y ~ x + (1 | a/c)"],
)
def test_a_search_from_moments_ends_at_the_same_optimum_sooner(formula: str) -> None:
    problem = blm.LMM(formula, simulated(1)).problem
    kernel = problem.criterion.kernel
    start = moment_start(kernel.parameters, kernel.cross)
    np.testing.assert_allclose(start, problem.start, rtol=1e-12)
    near, far = estimate(problem), estimate(problem, start=unit(problem))
    assert near.criterion == pytest.approx(far.criterion, abs=1e-7)
    np.testing.assert_allclose(near.theta, far.theta, rtol=1e-4, atol=1e-4)
    assert len(near.path) < len(far.path)
    assert problem.criterion.at(start, True, 0).value < problem.criterion.at(unit(problem), True, 0).value


@pytest.mark.parametrize("formula", ["y ~ x + (1 | a)", "y ~ x + (1 | a) + (x || b)"])
def test_moments_find_variances_of_many_levels(formula: str) -> None:
    problem = blm.LMM(formula, simulated(2)).problem
    sizes = np.abs(np.asarray(problem.start))
    # the best linear combination of moments is off by about one in sqrt(levels)
    np.testing.assert_allclose(sizes, np.abs(estimate(problem).x), rtol=0.25)


def test_structures_with_axes_of_their_own_and_few_rows_start_at_one() -> None:
    few = blm.LMM("y ~ x + (1 | a)", simulated(3).iloc[:500])
    np.testing.assert_array_equal(few.problem.start, unit(few.problem))
    common = blm.LMM("y ~ x + cs(x | a)", simulated(3)).problem
    np.testing.assert_array_equal(common.start, unit(common))
