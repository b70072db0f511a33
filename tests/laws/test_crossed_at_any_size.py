"""Crossed factors solved by products alone are the dense likelihood, within a Monte Carlo error that is known.

The iterative kernel takes over where a block would be too large. A size in `Tuning` decides; here it is 0, so that both kernels can run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import InferenceError
from bayeslmm.estimate import checks
from bayeslmm.estimate.checks import LARGEST_SHARE, monte_carlo_shares
from bayeslmm.estimate.estimate import estimate
from bayeslmm.estimate.reweighting import fit_reweighted
from bayeslmm.likelihood import problem as problem_module
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects import cross_products, dense

FORMULAS = (
    "y ~ x + (1 | g) + (1 | h)",
    "y ~ x + (1 | g) + (1 | h) + (1 | k)",
    "y ~ x + (x | g) + (x | h)",
    "y ~ x + (x | g) + (1 | h) + (0 + x | h)",
    "y ~ x + (1 | g) + (x | h) + (1 | o)",
    "y ~ x + (x || g) + (1 | h) + (1 | o)",
)
"""`o` holds the levels of `h`, which are nested in it; `k` crosses both."""


def design(seed: int) -> tuple[str, pd.DataFrame, str | None]:
    """A formula, unbalanced rows and the name of weights or None."""
    rng = np.random.default_rng(seed)
    K, L, n = int(rng.integers(20, 60)), int(rng.integers(12, 40)), int(rng.integers(300, 900))
    g, h = (rng.choice(m, n, p=rng.dirichlet(np.full(m, 2.0))) for m in (K, L))
    k, o = rng.integers(5, size=n), h % 4
    x = rng.normal(size=n)
    sds = rng.uniform(0.2, 1.5, 6)
    y = 1 + x + rng.normal(size=n) + sds[4] * rng.normal(size=5)[k] + sds[5] * rng.normal(size=4)[o]
    for code, m, (one, other) in ((g, K, sds[:2]), (h, L, sds[2:4])):
        y = y + one * rng.normal(size=m)[code] + other * rng.normal(size=m)[code] * x
    codes = {name: np.char.add(name, code.astype(str)) for name, code in {"g": g, "h": h, "k": k, "o": o}.items()}
    data = pd.DataFrame({"y": y, "x": x, "w": rng.uniform(0.5, 2.0, n), **codes})
    return FORMULAS[seed % len(FORMULAS)], data, "w" if rng.random() < 0.4 else None


def built(monkeypatch: pytest.MonkeyPatch, seed: int, probes: int | None, data: pd.DataFrame | None = None) -> Problem:
    """The problem of a design by dense blocks, or iteratively from so many probes."""
    return model(monkeypatch, seed, probes, data).problem


def model(monkeypatch: pytest.MonkeyPatch, seed: int, probes: int | None, data: pd.DataFrame | None = None) -> blm.LMM:
    formula, frame, weights = design(seed)
    with monkeypatch.context() as patch:
        if probes is not None:
            patch.setattr(cross_products, "TUNING", replace(TUNING, component_columns=0, dense_all_factors=0, probes=probes))
            patch.setattr(dense, "TUNING", replace(TUNING, dense_all_factors=0))
            patch.setattr(problem_module, "TUNING", replace(TUNING, dense_speed=0.0))
        found = blm.LMM(formula, frame if data is None else data, weights=weights)
        assert (found.problem.criterion.kernel.cross.remaining is None) == (probes is None)
    return found


def points(problem: Problem, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [problem.start, rng.uniform(0.1, 1.5, problem.size), rng.normal(size=problem.size)]


@pytest.mark.parametrize("seed", range(6))
def test_with_every_direction_the_likelihood_is_exact(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, found = built(monkeypatch, seed, None), built(monkeypatch, seed, 10**6)
    for restricted in (True, False):
        for x in [*points(exact, seed), np.zeros(exact.size), np.append(np.zeros(exact.size - 1), 0.5)]:
            a, b = (problem.criterion.at(x, restricted) for problem in (exact, found))
            assert b.value == pytest.approx(a.value, abs=1e-10 * abs(a.value))
            np.testing.assert_allclose(b.gradient, a.gradient, rtol=1e-8, atol=1e-9 * max(1.0, np.abs(a.gradient).max()))
            np.testing.assert_allclose(b.hessian, a.hessian, rtol=1e-7, atol=1e-8 * np.abs(a.hessian).max())
            G = [point.state.sigma_gradients(restricted, point.sigma2) for point in (a, b)]
            for mine, other in zip(*G, strict=True):
                np.testing.assert_allclose(other, mine, rtol=1e-7, atol=1e-8 * max(np.abs(M).max() for M in G[0]))
    assert monte_carlo_shares(found, found.criterion.at(found.start, True))[0].criterion == 0.0


def errors_of(monkeypatch: pytest.MonkeyPatch, seeds: range) -> list[float]:
    """Differences of the criterion in units of its stated error, after every other law has been held to."""
    found = []
    for seed in seeds:
        exact, problem = built(monkeypatch, seed, None), built(monkeypatch, seed, TUNING.probes)
        for restricted in (True, False):
            for x in points(exact, seed):
                a, b = (p.criterion.at(x, restricted) for p in (exact, problem))
                error = b.state.monte_carlo()
                assert problem.criterion.values(x[None], restricted)[0] == pytest.approx(b.value, abs=1e-9 * abs(b.value))
                found.append((b.value - a.value) / (error.criterion + 1e-9 * abs(a.value)))
                slope = np.sqrt(np.diagonal(error.gradient)) + 1e-7 * max(1.0, np.abs(a.gradient).max())
                assert np.abs((b.gradient - a.gradient) / slope).max() < 12.0
        # the gradient is that of the criterion itself, with its error in it
        x = points(exact, seed)[1]
        near = [problem.criterion.at(x + h, True, 0).value - problem.criterion.at(x - h, True, 0).value for h in 1e-4 * np.eye(len(x))]
        gradient = problem.criterion.at(x, True).gradient
        np.testing.assert_allclose(np.array(near) / 2e-4, gradient, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(gradient).max()))
        for method in ("REML", "ML"):
            one, other = estimate(exact, method), estimate(problem, method)
            shares = monte_carlo_shares(problem, problem.criterion.at(other.x, method == "REML"))
            check = next(c for c in other.checks if c.name == "log_determinant")
            assert (check.verdict == "noted") == (max(shares[1:]) <= LARGEST_SHARE)
            assert other.converged
            np.testing.assert_allclose(other.sigma, one.sigma, rtol=2e-3)
            assert (np.abs(one.alpha - other.alpha) / np.sqrt(np.diagonal(one.vcov))).max() < 12.0 * shares[2] + 1e-6
    return found


def test_criterion_gradient_and_estimates_are_within_their_monte_carlo_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = np.array(errors_of(monkeypatch, range(5)))
    assert 0.3 < np.sqrt(np.mean(errors**2)) < 3.0
    assert np.abs(errors).max() < 12.0


@pytest.mark.slow
def test_over_many_designs(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = np.array(errors_of(monkeypatch, range(100, 300)))
    assert 0.5 < np.sqrt(np.mean(errors**2)) < 2.0
    assert np.abs(errors).max() < 12.0


def test_the_likelihood_is_one_function_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = design(2)[1]
    one, again = built(monkeypatch, 2, TUNING.probes), built(monkeypatch, 2, TUNING.probes)
    moved = built(monkeypatch, 2, TUNING.probes, data.sample(frac=1.0, random_state=1))
    thetas = [one.theta(x) for x in points(one, 2)[:2]]
    values = [p.criterion.values(np.array([p.x(theta) for theta in thetas]), True) for p in (one, again, moved)]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_allclose(values[2], values[0], rtol=1e-10)
    ends = [estimate(one, "REML", start=start).x for start in (one.start, 0.3 * one.start, 3.0 * one.start)]
    for end in ends[1:]:
        np.testing.assert_allclose(np.abs(end), np.abs(ends[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_follows_from_a_fit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = model(monkeypatch, seed, None).fit(), model(monkeypatch, seed, TUNING.probes).fit()
    assert other.model.describe().factorisation == "conjugate gradients"
    assert other.model.describe().probes == other.problem.criterion.kernel.cross.probes.count
    assert other.checks["log_determinant"].value < 1.0
    assert other.model.criterion(other.theta) == pytest.approx(other.criterion, abs=1e-8 * abs(other.criterion))
    np.testing.assert_allclose(other.model.gradient(other.theta), 0.0, atol=1e-2)
    a, b = one.tidy("fixed"), other.tidy("fixed")
    np.testing.assert_allclose(b[["estimate", "std_error"]], a[["estimate", "std_error"]], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(b["df"], a["df"], rtol=0.15)
    for group, (modes, sds) in one.ranef(se=True).items():
        mine, own = other.ranef(se=True)[group]
        np.testing.assert_allclose(mine, modes, atol=0.02 * float(modes.to_numpy().std()))
        np.testing.assert_allclose(own, sds, rtol=0.05)
    new = design(seed)[1].head(20)
    np.testing.assert_allclose(other.predict(new, interval="confidence"), one.predict(new, interval="confidence"), atol=0.02)
    np.testing.assert_allclose(other.anova()["statistic"], one.anova()["statistic"], rtol=0.02)
    np.testing.assert_allclose(other.confint(method="wald").iloc[:, 1:], one.confint(method="wald").iloc[:, 1:], rtol=0.05, atol=0.02)


def test_probes_are_made_more_until_the_error_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    few = built(monkeypatch, 9, TUNING.probes)
    shares = monte_carlo_shares(few, few.criterion.at(estimate(few, "REML").x, True))
    allowed = max(shares[1:]) / 1.2
    monkeypatch.setattr(checks, "LARGEST_SHARE", allowed)
    problem, found = fit_reweighted(few, "REML")
    before, after = (own.criterion.kernel.cross.probes for own in (few, problem))
    assert after.exact.shape[1] + after.count > before.exact.shape[1] + before.count
    assert max(monte_carlo_shares(problem, problem.criterion.at(found.x, True))[1:]) <= allowed
    assert next(check for check in found.checks if check.name == "log_determinant").verdict == "noted"


def test_points_and_responses_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = model(monkeypatch, 0, TUNING.probes).fit()
    x = np.array([fit.estimate.x, 1.1 * fit.estimate.x])
    criterion = fit.problem.criterion
    values, gradients = criterion.values_and_gradients(x, True)
    np.testing.assert_allclose(values, criterion.values(x, True), rtol=1e-10)
    np.testing.assert_allclose(gradients[1], criterion.at(x[1], True).gradient, rtol=1e-6)
    found = fit.confint(method="bootstrap", n=40, seed=1)
    assert np.isfinite(found.iloc[:, 1:].to_numpy()).all()
    with pytest.raises(InferenceError, match="one by one"):
        criterion.kernel.by_level(x, derivatives=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_that_never_met_are_no_entries(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    n, K, L = 700, 150, 90
    data = pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "g": rng.integers(K, size=n), "h": rng.integers(L, size=n)})
    formula = ("y ~ x + (1 | g) + (1 | h)", "y ~ x + (x | g) + (x | h)")[seed]
    found = blm.LMM(formula, data).problem
    monkeypatch.setattr(cross_products, "TUNING", replace(TUNING, table_pairs=0))
    sparse = blm.LMM(formula, data).problem
    met = len(data[["g", "h"]].drop_duplicates())
    for problem in (found, sparse):
        assert {E.nnz for E in problem.criterion.kernel.cross.coupling.columns} == {met * (1 + seed)}
    x = points(found, seed)[1]
    assert found.criterion.at(x, True).value == pytest.approx(sparse.criterion.at(x, True).value, rel=1e-12)


def test_a_dense_block_takes_over_where_so_many_probes_would_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    formula, data, weights = design(2)
    exact = built(monkeypatch, 2, None)
    monkeypatch.setattr(cross_products, "TUNING", replace(TUNING, component_columns=0, dense_all_factors=0))
    found = blm.LMM(formula, data, weights=weights).problem
    assert found.criterion.kernel.cross.remaining is None
    for x in points(exact, 2):
        for restricted in (True, False):
            a, b = (problem.criterion.at(x, restricted) for problem in (exact, found))
            assert b.value == pytest.approx(a.value, abs=1e-10 * abs(a.value))
            np.testing.assert_allclose(b.gradient, a.gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_a_posterior_is_that_of_dense_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (model(monkeypatch, 0, probes).sample(400, seed=3) for probes in (None, TUNING.probes))
    a, b = (post.tidy("all") for post in (one, other))
    np.testing.assert_allclose(b["estimate"], a["estimate"], atol=0.35 * float(a["std_error"].max()))
    np.testing.assert_allclose(b["std_error"], a["std_error"], rtol=0.35)
    for group, modes in one.ranef().items():
        np.testing.assert_allclose(other.ranef()[group], modes, atol=0.6 * float(modes.to_numpy().std()))


def test_what_needs_an_inverse_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = model(monkeypatch, 1, TUNING.probes).fit()
    with pytest.raises(InferenceError, match="crossed columns"):
        fit.tidy(df="kenward-roger")
