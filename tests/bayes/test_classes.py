"""Levels that are alike, added up: the same likelihood as level by level, at any theta."""

from __future__ import annotations

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.density import for_many
from bayeslmm.likelihood.classes import alike, class_kernel
from bayeslmm.likelihood.kernel import RandomEffectsKernel
from bayeslmm.likelihood.patterns import pattern_kernel
from bayeslmm.likelihood.subjects import SubjectsKernel
from tests.bayes.designs import grouped, model

NAMES = ["intercepts", "slopes", "independent slopes", "crossed", "nested", "weights and offset", "cs", "ar1h", "related"]


@pytest.mark.parametrize("name", NAMES)
def test_classes_give_the_likelihood_of_levels(name: str) -> None:
    problem = model(name).problem
    many = for_many(problem)
    assert isinstance(many, RandomEffectsKernel)
    pooled = class_kernel(many)
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
    pooled = class_kernel(problem.criterion.kernel)
    assert pooled is not None
    assert pooled.count.tolist() == [8.0]


def test_levels_are_told_apart_by_what_was_seen() -> None:
    data = grouped().drop(index=[0, 7])
    kernel = blm.LMM("y ~ x + (x | g)", data).problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    assert kernel.cross.first is not None
    assert len(set(alike(kernel.cross.first.A).tolist())) == 3


@pytest.mark.parametrize("name", ["us errors", "ar1 errors", "toep errors", "spatial errors"])
def test_patterns_give_the_likelihood_of_subjects(name: str) -> None:
    problem = model(name).problem
    kernel = problem.criterion.kernel
    assert isinstance(kernel, SubjectsKernel)
    pooled = pattern_kernel(kernel)
    assert pooled is not None
    x = problem.start + 0.2 * np.random.default_rng(0).normal(size=(9, problem.size))
    fast, slow = pooled.solve(x), kernel.solve(x)
    assert np.allclose(fast.logdet, slow.logdet, rtol=1e-11, atol=1e-10)
    assert np.allclose(fast.r2, slow.r2, rtol=1e-10)
    assert np.allclose(fast.alpha, slow.alpha, atol=1e-9)


def test_groups_of_parameters_have_patterns_too() -> None:
    data = grouped().assign(arm=lambda d: np.where(d["g"] < "g4", "a", "b"))
    problem = blm.LMM("y ~ x", data, residual="ar1h(visit | arm / g)").problem
    kernel = problem.criterion.kernel
    assert isinstance(kernel, SubjectsKernel)
    pooled = pattern_kernel(kernel)
    assert pooled is not None
    x = problem.start + 0.2 * np.random.default_rng(0).normal(size=(5, problem.size))
    assert np.allclose(pooled.solve(x).r2, kernel.solve(x).r2, rtol=1e-10)
