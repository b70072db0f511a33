"""The scoring step of few columns: its equations are those of the definition, and in balanced data it ends the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.estimate.estimate import estimate
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.starting_values import scoring_equations, scoring_start
from tests.laws.designs import MIXED, Example, mixed, related


def unit(problem: Problem) -> np.ndarray:
    return np.concatenate([term.covariance.start() for term in problem.random.terms])


OWN = [name for name in MIXED if name not in ("cs", "csh", "ar1", "toeph")]


@pytest.mark.parametrize("example", [mixed(name, weighted=True) for name in OWN] + [related()], ids=[*OWN, "relationship"])
def test_the_equations_are_those_of_the_rows(example: Example) -> None:
    """tr(P V_i P V_j) and y'P V_i P y from matrices over the rows, V_i by differences of Z D Z', which is quadratic in x."""
    problem = example.model(check="warn").problem
    few, design, standardization = problem.criterion.kernel.dense, problem.design, problem.standardization
    n, x = len(design.y), unit(problem)
    Xy = standardization.Xy(design, slice(0, n))
    weights = np.ones(n) if design.weights is None else standardization.weights(design, slice(0, n))
    Xy = np.sqrt(weights)[:, None] * Xy
    X, y = Xy[:, :-1], Xy[:, -1]

    def ZDZ(at: np.ndarray) -> np.ndarray:
        total = np.zeros((n, n))
        for term, parameters, change in zip(design.terms, problem.random.terms, standardization.maps, strict=True):
            Z = np.sqrt(weights)[:, None] * change.apply(term.Z)
            same = np.eye(term.group.size) if term.relationship is None else term.relationship
            T = parameters.covariance.factor(at[parameters.part])
            total += same[np.ix_(term.group.codes, term.group.codes)] * (Z @ T @ T.T @ Z.T)
        return total

    moved = [0.5 * (ZDZ(x + step) - ZDZ(x - step)) for step in np.eye(len(x))]
    inverse = np.linalg.inv(ZDZ(x) + np.eye(n))
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    V = [np.eye(n), *moved]
    M, right = scoring_equations(few.at_unit(x), n - X.shape[1])
    np.testing.assert_allclose(few.at_unit(x).K, few.evaluate(x).K, rtol=1e-9, atol=1e-12)
    wanted = np.array([[np.trace(P @ Vi @ P @ Vj) for Vj in V] for Vi in V])
    np.testing.assert_allclose(M, wanted, rtol=1e-8, atol=1e-9 * np.abs(wanted).max())
    np.testing.assert_allclose(right, [y @ P @ Vi @ P @ y for Vi in V], rtol=1e-8, atol=1e-9 * np.abs(right).max())


def balanced(seed: int) -> pd.DataFrame:
    """Six subjects by four items twice over, a covariate of the same values for each subject."""
    rng = np.random.default_rng(seed)
    subject, item, twice = (axis.ravel() for axis in np.meshgrid(np.arange(6), np.arange(4), np.arange(2), indexing="ij"))
    x = (item * 2 + twice).astype(float)
    y = 3 * rng.normal(size=6)[subject] + 2 * rng.normal(size=4)[item] + (1 + 2 * rng.normal(size=6)[subject]) * x + rng.normal(size=48)
    return pd.DataFrame({"y": y, "x": x, "subject": subject, "item": item})


@pytest.mark.parametrize(
    "formula", ["y ~ x + (x | subject)", "y ~ 1 + (1 | subject) + (1 | item)", "y ~ 1 + (1 | subject / item)", "y ~ x + (1 | subject)"]
)
def test_balanced_data_need_one_evaluation(formula: str) -> None:
    problem = blm.LMM(formula, balanced(3)).problem
    found = estimate(problem)
    assert len(found.path) == 1
    far = estimate(problem, start=unit(problem))
    assert len(far.path) > 3
    assert found.criterion == pytest.approx(far.criterion, abs=1e-10)
    np.testing.assert_allclose(found.theta, far.theta, rtol=1e-5)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("example", [mixed(name, weighted=True) for name in MIXED] + [related()], ids=[*MIXED, "relationship"])
def test_a_search_from_the_step_ends_at_the_same_optimum(example: Example, method: str) -> None:
    problem = example.model(check="warn").problem
    near, far = estimate(problem, method), estimate(problem, method, start=unit(problem))
    assert near.criterion == pytest.approx(far.criterion, abs=1e-7)
    assert near.converged
    assert near.singular or len(near.path) <= len(far.path)


def test_a_variance_estimated_below_zero_starts_at_the_least() -> None:
    data = balanced(3).assign(y=np.random.default_rng(5).normal(size=48))
    data["y"] -= data.groupby("subject")["y"].transform("mean")
    problem = blm.LMM("y ~ 1 + (1 | subject)", data).problem
    assert problem.start.tolist() == [pytest.approx(0.05)]
    assert estimate(problem).singular


def test_structures_with_axes_of_their_own_start_where_they_say() -> None:
    problem = blm.LMM("y ~ x + cs(x | subject)", balanced(3)).problem
    assert scoring_start(problem.criterion.kernel.dense, 46) is None
    np.testing.assert_array_equal(problem.start, unit(problem))
    apart = replace(problem.criterion.kernel, together=False)
    assert apart.dense is None
