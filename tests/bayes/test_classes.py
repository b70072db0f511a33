"""Levels that are alike, added up: the same likelihood as level by level, at any theta."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import kernel_for_many_points
from bayeslmm.likelihood.kernel import ENTRYWISE_COLUMNS, ENTRYWISE_MATRICES, factor_and_inverse
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, classify_levels, pool_levels
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel
from bayeslmm.likelihood.structured.pooled import pool_subjects
from tests.bayes.designs import grouped, model

NAMES = ["intercepts", "slopes", "independent slopes", "crossed", "nested", "weights and offset", "cs", "ar1h", "related"]


@pytest.mark.parametrize("name", NAMES)
def test_classes_give_the_likelihood_of_levels(name: str) -> None:
    problem = model(name).problem
    many = kernel_for_many_points(problem)
    assert isinstance(many, RandomEffectsKernel)
    pooled = pool_levels(many)
    assert pooled is not None
    x = problem.start + np.random.default_rng(0).normal(size=(9, problem.size))
    x[0] = 0.0
    fast, slow = pooled.solve(x), problem.criterion.kernel.solve(x)
    assert np.allclose(fast.logdet, slow.logdet, rtol=1e-12, atol=1e-11)
    assert np.allclose(fast.logdet_X, slow.logdet_X, rtol=1e-11)
    assert np.allclose(fast.r2, slow.r2, rtol=1e-11)
    assert np.allclose(fast.alpha, slow.alpha, atol=1e-10)


def test_a_balanced_design_has_one_class() -> None:
    problem = model("slopes").problem
    pooled = pool_levels(problem.criterion.kernel)
    assert pooled is not None
    assert pooled.count.tolist() == [8.0]


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g/b/c)", "y ~ x + (0 + half | g) + (1 | g:b) + (1 | g:b:c)"])
def test_components_that_are_alike_are_factorised_once(formula: str) -> None:
    """Nested factors: groups of 16 rows in two shapes, one of them seen less often."""
    rng, n = np.random.default_rng(2), 320
    data = pd.DataFrame({"g": np.arange(n) // 16, "b": np.arange(n) // 4 % 4, "c": np.arange(n) // 2 % 2, "x": rng.normal(size=n)})
    data = data.assign(y=rng.normal(size=n) + data.g % 3, half=1.0 + data.b % 2)[(data.g % 5 > 0) | (data.b > 0)]
    problem = blm.LMM(formula, data).problem
    many = kernel_for_many_points(problem)
    assert isinstance(many, RandomEffectsKernel)
    pooled = pool_levels(many)
    assert pooled is not None and pooled.kinds is not None
    assert sorted(len(own) for members in pooled.kinds.members for own in members) == [4, 16]
    x = rng.normal(size=(9, problem.size)) * 10.0 ** rng.integers(-3, 3, (9, 1))
    x[0], x[1, 1] = 0.0, 0.0
    fast, slow = pooled.solve(x), problem.criterion.kernel.solve(x)
    np.testing.assert_allclose(fast.logdet, slow.logdet, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(fast.logdet_X, slow.logdet_X, rtol=1e-10)
    np.testing.assert_allclose(fast.r2, slow.r2, rtol=1e-10)
    np.testing.assert_allclose(fast.alpha, slow.alpha, atol=1e-9)


def test_levels_are_told_apart_by_what_was_seen() -> None:
    data = grouped().drop(index=[0, 7])
    kernel = blm.LMM("y ~ x + (x | g)", data).problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    assert kernel.cross.first is not None
    assert len(set(classify_levels(kernel.cross.first.A).tolist())) == 3


@pytest.mark.parametrize("name", ["us errors", "ar1 errors", "toep errors", "spatial errors", "variance function", "ratio"])
def test_patterns_give_the_likelihood_of_subjects(name: str) -> None:
    problem = model(name).problem
    kernel = problem.criterion.kernel
    assert isinstance(kernel, BlockDiagonalKernel)
    pooled = pool_subjects(kernel)
    x = problem.start + 0.2 * np.random.default_rng(0).normal(size=(9, problem.size))
    fast, slow = pooled.solve(x), kernel.solve(x)
    assert np.allclose(fast.logdet, slow.logdet, rtol=1e-11, atol=1e-10)
    assert np.allclose(fast.r2, slow.r2, rtol=1e-10)
    assert np.allclose(fast.alpha, slow.alpha, atol=1e-9)


def test_groups_of_parameters_have_patterns_too() -> None:
    data = grouped().assign(arm=lambda d: np.where(d["g"] < "g4", "a", "b"))
    problem = blm.LMM("y ~ x", data, residual="ar1h(visit | arm / g)").problem
    kernel = problem.criterion.kernel
    assert isinstance(kernel, BlockDiagonalKernel)
    pooled = pool_subjects(kernel)
    x = problem.start + 0.2 * np.random.default_rng(0).normal(size=(5, problem.size))
    assert np.allclose(pooled.solve(x).r2, kernel.solve(x).r2, rtol=1e-10)


def kinds_of(built: blm.LMM) -> list[int]:
    """Blocks of each kind, over all batches; the likelihood of kinds is that of the blocks."""
    kernel = built.problem.criterion.kernel
    assert isinstance(kernel, BlockDiagonalKernel)
    pooled = pool_subjects(kernel)
    x = built.problem.start + 0.2 * np.random.default_rng(0).normal(size=(70, built.problem.size))
    fast, slow = pooled.solve(x), [kernel.solve(row[None]) for row in x]
    assert np.allclose(fast.logdet, [one.logdet[0] for one in slow], rtol=1e-11, atol=1e-10)
    assert np.allclose(fast.r2, [one.r2[0] for one in slow], rtol=1e-10)
    assert np.allclose(fast.alpha, [one.alpha[0] for one in slow], atol=1e-9)
    return sorted(int(n) for kind in pooled.kinds for n in kind.count)


def test_blocks_with_the_same_visits_effects_and_weights_are_one_kind() -> None:
    def built(data: pd.DataFrame, **more: str) -> blm.LMM:
        return blm.LMM("y ~ x + (x | g)", data, residual="ar1(visit | g)", check="warn", **more)

    whole = grouped(groups=12)
    assert kinds_of(built(whole)) == [12]
    assert kinds_of(built(whole.drop(index=[0, 7, 13]))) == [1, 2, 9]
    assert kinds_of(built(whole.assign(w=np.where(whole["g"] < "g2", 1.0, 2.0)), weights="w")) == [4, 8]
    assert kinds_of(built(whole, weights="w")) == [1] * 12


@pytest.mark.parametrize(
    ("variance", "kinds"),
    [("exp(x)", [12]), ("ident(inner) * exp(x)", [12]), ("power(o)", [1] * 12), ("const_power(o | inner)", [1] * 12)],
)
def test_variance_functions_multiply_the_errors_of_a_kind(variance: str, kinds: list[int]) -> None:
    """x is the same in every group, o in none; the strata alternate within groups."""
    for residual in (None, "ar1(visit | g)"):
        assert kinds_of(blm.LMM("y ~ x + (x | g)", grouped(groups=12), variance=variance, residual=residual, check="warn")) == kinds


def test_nested_levels_tell_kinds_apart() -> None:
    """Rows 0, 2, 4 share a level of g:inner in every subject but one, where they are 0, 1, 2."""
    data = grouped(groups=9)
    data.loc[data["g"] == "g8", "inner"] = ["i0", "i0", "i0", "i1", "i1", "i1"]
    assert kinds_of(blm.LMM("y ~ x + (1 | g:inner)", data, residual="ar1(visit | g)", check="warn")) == [1, 8]


def test_many_small_factors_are_those_of_lapack() -> None:
    rng = np.random.default_rng(0)
    for p in range(1, ENTRYWISE_COLUMNS + 1):
        A = rng.normal(size=(ENTRYWISE_MATRICES, 2 * p, p))
        M = A.swapaxes(-1, -2) @ A
        root, inverse = factor_and_inverse(M)
        assert np.allclose(root, np.linalg.cholesky(M), rtol=1e-12, atol=1e-13)
        assert np.allclose(inverse @ root, np.eye(p), atol=1e-11)
        M[5, -1, -1] = -1.0
        with pytest.raises(np.linalg.LinAlgError):
            factor_and_inverse(M)
