"""Level space against the definition through V: the pieces of Kenward and Roger, for every way that factors can meet."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.inference.fixed_effects.kenward_roger import v_derivatives
from bayeslmm.likelihood.problem import Problem

FORMULAS = (
    "y ~ x + (1 | g)",
    "y ~ x + (x | g)",
    "y ~ x + (x || g)",
    "y ~ x + (x | g) + (1 | h)",
    "y ~ x + (x + z | g) + (x | h)",
    "y ~ x + (x | k) + (1 | g)",
    "y ~ x + (x | k) + (1 | g) + (1 | h)",
    "y ~ x + cs(0 + a | g)",
    "y ~ x + csh(0 + a | g) + (1 | h)",
    "y ~ x + ar1(0 + a | g)",
)


def frame(seed: int = 5, n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g = np.concatenate([np.arange(20), rng.integers(0, 20, n - 20)])
    h = np.concatenate([np.arange(7), rng.integers(0, 7, n - 7)])
    columns = {"g": g.astype(str), "h": h.astype(str), "k": (g // 4).astype(str), "a": np.array(list("uvw"))[rng.integers(0, 3, n)]}
    numbers = {"x": rng.normal(size=n), "z": rng.normal(size=n), "w": rng.uniform(0.5, 2, n), "y": rng.normal(size=n)}
    return pd.DataFrame(columns | numbers)


def V_moves(problem: Problem, x: Array) -> tuple[Array, list[Array]]:
    """V0 and dV0/dpsi, (n, n) each, from the definition."""
    design, c = problem.design, problem.standardization
    W = np.ones(design.nobs) if design.weights is None else design.weights / c.weight_mean
    V, moves = np.diag(1 / W), []
    for term, own, columns in zip(design.terms, problem.random.terms, c.maps, strict=True):
        Z, codes = columns.apply(term.Z), term.group.codes
        link = (codes[:, None] == codes).astype(float) if term.relationship is None else term.relationship[np.ix_(codes, codes)]
        sigma, first, _ = own.covariance.component_derivatives(own.covariance.components(x[own.part]))
        V = V + Z @ sigma @ Z.T * link
        moves += [Z @ E @ Z.T * link for E in first]
    return V, [*moves, np.diag(1 / W)]


def check(problem: Problem, x: Array) -> None:
    point = problem.criterion.at(x, True)
    pieces = v_derivatives(point.state, problem, x)
    V, moves = V_moves(problem, x)
    inverse = np.linalg.inv(V)
    X = (problem.design.X - problem.standardization.center) @ problem.standardization.B
    S = [inverse @ v @ inverse for v in moves]
    P = np.array([X.T @ s @ X for s in S])
    Q = np.array([[X.T @ s @ v @ inverse @ X for v in moves] for s in S])
    traces = np.array([[np.sum((inverse @ a) * (inverse @ b).T) for b in moves] for a in moves])
    for ours, theirs in ((pieces.P, P), (pieces.Q, Q), (pieces.traces, traces)):
        np.testing.assert_allclose(ours, theirs, atol=1e-9 * np.abs(theirs).max())


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("weights", [None, "w"])
def test_level_space_gives_the_products_of_V(formula: str, weights: str | None) -> None:
    problem = blm.LMM(formula, frame(), weights=weights).problem
    check(problem, problem.start + 0.3 * np.random.default_rng(1).normal(size=problem.size))


@pytest.mark.parametrize("formula", ["y ~ x + (x | g) + (1 | h)", "y ~ x + (1 | k) + (1 | g)"])
def test_a_variance_of_zero_is_no_special_case(formula: str) -> None:
    problem = blm.LMM(formula, frame()).problem
    x = problem.start.copy()
    x[0] = 0.0
    check(problem, x)


def test_a_known_relationship_matrix_is_followed() -> None:
    data = frame()
    levels = sorted(set(data["g"]))
    M = np.random.default_rng(2).normal(size=(20, 20))
    A = pd.DataFrame(M @ M.T / 20 + 0.1 * np.eye(20), index=levels, columns=levels)
    for formula in ("y ~ x + (x | g)", "y ~ x + (x | g) + (1 | h)"):
        problem = blm.LMM(formula, data, relationship={"g": A}).problem
        check(problem, problem.start + 0.1)
