"""One large block of crossed levels, kept as triangles, is the same likelihood as the definition and as blocks kept whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.prediction import conditional_covariances, conditional_modes
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects import off_diagonal as coupling
from bayeslmm.likelihood.random_effects import schur as rest
from bayeslmm.likelihood.random_effects.schur import PackedBlock
from tests.laws.definition import define

FORMULAS = ("y ~ x + (1 | a) + (1 | b)", "y ~ x + (x | a) + (1 | b)", "y ~ x + (1 | a) + (1 | b) + (1 | c)")
POINTS = ((0.8, 0.4, 0.5, 0.6), (0.6, 0.0, 0.3, 0.0), (0.7, 1e-5, 1e-6, 1e-7))


def crossed_frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    n, sizes = 1500, {"a": TUNING.packed_columns + 60, "b": TUNING.packed_columns + 20, "c": 30}
    codes = {name: rng.integers(0, size, n) for name, size in sizes.items()}
    x = rng.normal(size=n)
    y = 1 + x + sum(rng.normal(size=size)[codes[name]] for name, size in sizes.items()) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, **codes})


DATA = crossed_frame()


def built(formula: str) -> Problem:
    return blm.LMM(formula, DATA).problem


def large_block(point: CriterionPoint) -> PackedBlock:
    (block,) = [b for b in point.state.levels.rest.blocks if isinstance(b, PackedBlock)]
    return block


@pytest.mark.parametrize(
    ("formula", "restricted"),
    [
        pytest.param(f, reml, id=f"{f}-{'REML' if reml else 'ML'}", marks=() if reml == (i % 2 == 0) else pytest.mark.slow)
        for i, f in enumerate(FORMULAS)
        for reml in (True, False)
    ],
)
def test_a_large_block_equals_the_definition(formula: str, restricted: bool) -> None:
    problem = built(formula)
    for start in POINTS:
        x = np.array(start)[: problem.size]
        point = problem.criterion.at(x, restricted)
        judge = define(problem, x, restricted)
        assert len(large_block(point).lower) >= TUNING.packed_columns
        assert point.value == pytest.approx(judge.value, rel=1e-12)
        assert problem.sigma2(point.sigma2) == pytest.approx(judge.sigma2, rel=1e-9)


@pytest.mark.parametrize("formula", FORMULAS)
def test_derivatives_and_effects_equal_those_of_whole_blocks(formula: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = built(formula)
    xs = [np.array(start)[: problem.size] for start in POINTS]
    large = [problem.criterion.at(x, restricted) for x in xs for restricted in (True, False)]
    effects = [(conditional_modes(problem, point), conditional_covariances(problem, point)) for point in large]
    monkeypatch.setattr(rest, "TUNING", replace(TUNING, packed_columns=10**6))
    whole = [problem.criterion.at(x, restricted) for x in xs for restricted in (True, False)]
    for a, b, (modes, covariances) in zip(large, whole, effects, strict=True):
        assert not any(isinstance(block, PackedBlock) for block in b.state.levels.rest.blocks)
        np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-9, atol=1e-10 * np.abs(b.gradient).max())
        np.testing.assert_allclose(a.hessian, b.hessian, rtol=1e-9, atol=1e-10 * np.abs(b.hessian).max())
        for mine, other in zip(modes, conditional_modes(problem, b), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-10)
        for mine, other in zip(covariances, conditional_covariances(problem, b), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


def test_products_with_Q_are_the_same_before_and_after_the_inverse_is_made() -> None:
    problem = built(FORMULAS[2])
    point = problem.criterion.at(np.array([0.8, 0.4, 0.5]), True, order=0)
    block = large_block(point)
    for columns in (2, 20):
        M = np.random.default_rng(0).normal(size=(1, 1, len(block.lower), columns))
        fresh = large_block(problem.criterion.at(np.array([0.8, 0.4, 0.5]), True, order=0))
        np.testing.assert_allclose(fresh.times_Q(M), block.Q @ M, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(block.times_Q(M), block.Q @ M, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(block.times_U(M), block.U @ M, rtol=1e-9, atol=1e-12)


def test_the_map_to_the_block_is_the_same_however_it_is_portioned(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array(POINTS[0][:4])
    whole = built(FORMULAS[1]).criterion.at(x, True)
    monkeypatch.setattr(coupling, "PRODUCTS_AT_ONCE", 7)
    assert built(FORMULAS[1]).criterion.at(x, True).value == whole.value
