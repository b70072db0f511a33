"""Sums by pattern of visits that are drawn without rows have the distribution of the sums of drawn rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.inference.intervals.batch_structured import ReplicateSums, evaluate
from bayeslmm.inference.intervals.drawn_patterns import PatternColumns, PatternSampler
from bayeslmm.inference.intervals.replicates import standardize_alpha
from bayeslmm.likelihood.problem import Problem
from tests.partitions.test_structured_errors import sorted_parts, trial

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")

DESIGNS = (
    ("y ~ base + arm * C(k)", "us(visit | id)", 90),
    ("y ~ base + arm", "cs(visit | arm / id)", 60),
    ("y ~ base:arm", "ar1(1 | id)", 12),
    ("y ~ 1", "toep(1 | id)", 25),
)


def fitted(formula: str, residual: str, subjects: int) -> blm.Fit:
    return blm.LMM(formula, trial(subjects, subjects=subjects), residual=residual, check="warn").fit()


@pytest.mark.parametrize(("formula", "residual", "subjects"), DESIGNS)
def test_a_root_gives_the_products_of_the_columns(formula: str, residual: str, subjects: int) -> None:
    for own in PatternSampler.of(fitted(formula, residual, subjects).problem).patterns:
        C, k, p = own.XX.shape[:3]
        for XX, L, count in zip(own.XX.reshape(C, k * p, k * p), own.root, own.count, strict=True):
            assert L.shape[1] <= count
            assert np.abs(L @ L.T - XX).max() < 1e-8 * np.abs(XX).max()


def sums_of_rows(problem: Problem, fit: blm.Fit, patterns: tuple[PatternColumns, ...], seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """[X y]' V0^-1 [X y] of drawn rows, by the problem built anew: what the criterion reads of a response."""
    r2, alpha = [], []
    for seed in seeds:
        again = fit.model.with_response(fit.simulate(1, seed=seed).to_numpy()[:, 0])
        scale = again.problem.standardization.y_scale / problem.standardization.y_scale
        state = again.problem.criterion.at(fit.estimate.x, True).state
        r2.append(float(state.solution.r2[0]) * scale**2)
        alpha.append(again.problem.alpha(state.solution.alpha[0]))
    return np.array(r2), np.array(alpha)


@pytest.mark.parametrize(("formula", "residual", "subjects"), DESIGNS[1:])
def test_drawn_sums_have_the_moments_of_drawn_rows(formula: str, residual: str, subjects: int) -> None:
    fit = fitted(formula, residual, subjects)
    problem, x = fit.problem, fit.estimate.x
    sampler = PatternSampler.of(problem)
    sigma2, n = fit.estimate.sigma**2 / problem.sigma2(1.0), 2000
    sums = sampler.draw(x, sigma2, standardize_alpha(problem, fit.fixef_kept), np.random.SeedSequence(1).spawn(n))
    points = evaluate(problem, sums, np.tile(x, (n, 1)), True)
    # r2 / sigma2 is chi-square with n - p degrees of freedom, and alpha is normal about its value, at the parameters drawn from
    df = problem.criterion.df(True)
    assert points.r2.mean() / sigma2 == pytest.approx(df, abs=5.0 * np.sqrt(2.0 * df / n))
    assert points.r2.var() / sigma2**2 == pytest.approx(2.0 * df, rel=0.2)
    own = points.alpha - standardize_alpha(problem, fit.fixef_kept)
    sd = np.sqrt(sigma2 * np.diagonal(points.C[0]))
    assert np.all(np.abs(own.mean(axis=0)) < 5.0 * sd / np.sqrt(n))
    assert np.cov(own.T).reshape(len(sd), -1) == pytest.approx(sigma2 * points.C[0], abs=0.15 * float((sd**2).max()))
    r2, _ = sums_of_rows(problem, fit, sampler.patterns, list(range(25)))
    assert abs(r2.mean() - points.r2.mean()) < 5.0 * points.r2.std() / np.sqrt(25)


def test_a_replicate_is_the_same_whatever_is_drawn_beside_it() -> None:
    fit = fitted(*DESIGNS[0])
    sampler, streams = PatternSampler.of(fit.problem), np.random.SeedSequence(3).spawn(6)
    alpha = standardize_alpha(fit.problem, fit.fixef_kept)
    whole = sampler.draw(fit.estimate.x, 1.0, alpha, streams)
    alone = sampler.draw(fit.estimate.x, 1.0, alpha, streams[4:5])
    assert isinstance(whole, ReplicateSums)
    for one, other in zip(whole.part(np.array([4])).kinds, alone.kinds, strict=True):
        assert np.allclose(one.XY, other.XY, rtol=1e-12, atol=1e-12)
        assert np.allclose(one.YY, other.YY, rtol=1e-12, atol=1e-12)


def test_a_bootstrap_in_parts_spreads_as_the_standard_errors_say() -> None:
    rows = trial(7, subjects=150)
    parts = blm.from_partitions("y ~ base + arm * visit", sorted_parts(rows, np.random.default_rng(0)), residual="us(visit | id)").fit()
    whole = blm.LMM("y ~ base + arm * visit", rows, residual="us(visit | id)").fit()
    drawn = parts.bootstrap(300, seed=1)
    assert drawn.n_failed == 0
    spread = drawn.summary().set_index("term")["std_error"]
    by_rows = whole.bootstrap(30, seed=2).summary().set_index("term")["std_error"]
    table = parts.tidy().set_index("term")["std_error"]
    assert spread[table.index].to_numpy() == pytest.approx(table.to_numpy(), rel=0.2)
    assert spread.to_numpy() == pytest.approx(by_rows.to_numpy(), rel=0.5)
    assert isinstance(drawn.tidy(conf_int=True), pd.DataFrame)
