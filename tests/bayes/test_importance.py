"""Weights, the gate that judges them, resampling by them, and the evidence they give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.bayes.sampling.importance import (
    FINE_EFFICIENCY,
    SplitT,
    Weights,
    draw_weighted,
    fit_pareto,
    is_trusted,
    resample_systematically,
    sample_importance,
    smooth_weights,
)
from bayeslmm.bayes.sampling.mode import PosteriorMode, find_mode
from bayeslmm.bayes.sampling.nuts import ess, r_hat, sample_nuts
from tests.bayes.designs import grouped, model


@pytest.mark.parametrize("k", [0.2, 0.5, 0.8])
def test_the_shape_of_a_pareto_tail_is_found(k: float) -> None:
    excess = stats.genpareto(k, scale=2.0).rvs(4000, random_state=np.random.default_rng(1))
    found, scale = fit_pareto(np.sort(excess))
    assert found == pytest.approx(k, abs=0.06)
    assert scale == pytest.approx(2.0, rel=0.1)


def test_the_gate_trips_on_a_proposal_that_is_too_narrow() -> None:
    """Drawn from a normal of a third of the posterior's width: the tail of the weights has k near 1 and above."""
    target = density(model("slopes").problem, blm.Priors(alpha="normal"))
    mode = find_mode(target)
    values, axes = np.linalg.eigh(mode.precision)
    narrow = SplitT(mode.phi, axes, 0.3 / np.sqrt(values), 0.3 / np.sqrt(values), 1e6)
    _, _, weights, _ = draw_weighted(target.values, narrow, 8000, np.random.default_rng(0))
    assert weights.k > 0.7
    assert not is_trusted(weights)


def test_the_gate_trips_on_a_proposal_in_the_wrong_place() -> None:
    target = density(model("slopes").problem, blm.Priors(alpha="normal"))
    mode = find_mode(target)
    axes = np.eye(target.size)
    away = SplitT(mode.phi + 3.0, axes, np.full(target.size, 0.5), np.full(target.size, 0.5), 30.0)
    _, _, weights, _ = draw_weighted(target.values, away, 8000, np.random.default_rng(0))
    assert not is_trusted(weights)


def test_a_refused_sample_is_sampled_by_nuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayeslmm.bayes.sampling.importance.is_trusted", lambda weights: False)
    post = model("intercepts").sample(draws=50, chains=2, seed=1)
    assert post.method == "nuts"
    assert "not trusted" in post.checks["method"].value


@pytest.mark.slow
def test_a_bad_proposal_planted_in_the_sampler_never_reaches_a_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round is drawn from a third of the posterior's width: the gate refuses the weights, and a chain gives the right posterior."""
    built = model("intercepts", blm.Priors(alpha="normal"))
    right = built.sample(seed=1)
    mode = find_mode(density(built.problem, built.spec.priors))
    values, axes = np.linalg.eigh(mode.precision)
    narrow = SplitT(mode.phi, axes, 0.3 / np.sqrt(values), 0.3 / np.sqrt(values), 1e6)
    for name in ("split_t_at_mode", "refit_proposal", "cluster_proposal"):
        monkeypatch.setattr(f"bayeslmm.bayes.sampling.importance.{name}", lambda *_: narrow)
    forced = built.sample(draws=300, seed=1, method="importance")
    assert forced.checks["pareto_k"].verdict == "failed"
    post = built.sample(draws=400, chains=1, seed=1)
    assert post.method == "nuts"
    assert "not trusted" in post.checks["method"].value
    sd, wrong, own = (np.log(one.parameters["sd_g"].values[:, 0]) for one in (right, forced, post))
    assert np.std(wrong) < 0.6 * np.std(sd)
    assert np.std(own) > 0.75 * np.std(sd)


def test_the_gate_opens_for_the_adapted_proposal() -> None:
    for name in ("intercepts", "slopes", "crossed", "nested"):
        target = density(model(name).problem, blm.Priors(alpha="normal"))
        found = sample_importance(target.values, find_mode(target), 8000, np.random.default_rng(0))
        assert found.trusted
        assert found.weights.efficiency > 0.4


def test_systematic_resampling_keeps_expectations() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(4000)
    weights = smooth_weights(0.8 * x)
    expected = float(np.exp(weights.log) @ x)
    found = [x[resample_systematically(weights, 1000, np.random.default_rng(i))].mean() for i in range(40)]
    assert np.mean(found) == pytest.approx(expected, abs=4.0 * np.std(found) / np.sqrt(40) + 1e-3)


def test_no_point_is_drawn_twice_while_no_weight_is_large() -> None:
    log = np.log(np.random.default_rng(0).uniform(0.5, 1.5, 4000))
    weights = Weights(log - np.log(np.exp(log).sum()), 0.0, 0.0, 0.0)
    assert len(np.unique(resample_systematically(weights, 1000, np.random.default_rng(1)))) == 1000


def grid_posterior(target: object) -> tuple[Array, Array, Array, float]:
    """Posterior of (log sd, log sigma) on a fine grid: the axes, the weights, the log evidence."""
    from bayeslmm.bayes.log_posterior.density import Density

    assert isinstance(target, Density)
    mode = find_mode(target)
    s = 1.0 / np.sqrt(np.diagonal(mode.precision))
    a, b = (np.linspace(mode.phi[i] - 9.0 * s[i] - (3.0 if i == 0 else 0.0), mode.phi[i] + 9.0 * s[i], 400) for i in (0, 1))
    points = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    values = target.values(points)
    top = values.max()
    cell = (a[1] - a[0]) * (b[1] - b[0])
    weights = np.exp(values - top)
    return points, weights / weights.sum(), values, float(top + np.log(weights.sum() * cell))


def test_evidence_means_and_quantiles_are_those_of_quadrature() -> None:
    """One-way layout: two covariance parameters, so a grid gives the posterior to many digits."""
    built = model("intercepts", blm.Priors(alpha="normal"))
    points, weights, _, evidence = grid_posterior(density(built.problem, built.spec.priors))
    post = built.sample(draws=4000, seed=7)
    # the standard error of the evidence at this size is about 0.005
    assert post.log_evidence == pytest.approx(evidence, abs=0.03)
    sd, sigma = np.exp(points[:, 0]), np.exp(points[:, 1])
    drawn = post.parameters["sd_g"].values[:, 0], post.parameters["sigma"].values
    for exact, found in zip((sd, sigma), drawn, strict=True):
        spread = float(np.sqrt(weights @ (exact - weights @ exact) ** 2))
        assert found.mean() == pytest.approx(float(weights @ exact), abs=5 * spread / np.sqrt(16_000))
        order = np.argsort(exact)
        for p in (0.05, 0.5, 0.95):
            quantile = exact[order][np.searchsorted(np.cumsum(weights[order]), p)]
            assert np.mean(found < quantile) == pytest.approx(p, abs=0.015)


@pytest.mark.slow
def test_nuts_and_importance_sampling_agree() -> None:
    built = model("slopes", blm.Priors(alpha="normal"))
    target = density(built.problem, built.spec.priors)

    def function(phi: Array) -> tuple[float, Array]:
        found = target.at(phi)
        return found.value, found.gradient

    chains = sample_nuts(function, find_mode(target), 500, 2, np.random.SeedSequence(1).spawn(2), 150)
    found = sample_importance(target.values, find_mode(target), 16_000, np.random.default_rng(0))
    weights = np.exp(found.weights.log)
    for j in range(target.size):
        own = chains.points[..., j]
        assert r_hat(own) < 1.03
        mean = float(weights @ found.points[:, j])
        assert own.mean() == pytest.approx(mean, abs=4.5 * own.std() / np.sqrt(ess(own)))


@pytest.mark.parametrize("rows", [8, 20, 30])
def test_what_the_likelihood_cannot_tell_apart_needs_no_chain(rows: int) -> None:
    """One row a level: the density has two arms, along which one of the sds goes to 0."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"x": rng.normal(size=rows), "y": rng.normal(size=rows), "row": [f"r{i}" for i in range(rows)]})
        post = blm.LMM("y ~ x + (1 | row)", frame, check="warn").sample(draws=20, seed=seed)
        assert post.method == "importance", post.checks["method"]


def test_a_proposal_follows_a_density_that_is_skew_in_many_dimensions() -> None:
    """Log gamma variables, mixed: no axis of a split t is one of theirs. The evidence and the means are known."""
    d, shape = 8, 1.0
    A = np.linspace(0.3, 1.5, d) * np.random.default_rng(2).normal(size=(d, d))
    inverse, constant = np.linalg.inv(A), np.linalg.slogdet(A)[1] + d * special.gammaln(shape)

    def values(phi: Array) -> Array:
        u = phi @ inverse.T
        with np.errstate(over="ignore"):
            return np.asarray((shape * u - np.exp(u)).sum(axis=1) - constant)

    centre = A @ np.full(d, np.log(shape))
    mode = PosteriorMode(centre, float(values(centre[None])[0]), np.zeros(d), shape * inverse.T @ inverse, True, 0.0, ())
    found = sample_importance(values, mode, 16_000, np.random.default_rng(1))
    assert found.trusted
    assert found.weights.efficiency > FINE_EFFICIENCY
    assert found.weights.evidence == pytest.approx(0.0, abs=4.0 / np.sqrt(found.weights.ess))
    expected, spread = A @ np.full(d, special.digamma(shape)), np.sqrt(special.polygamma(1, shape) * (A**2).sum(1))
    np.testing.assert_allclose(np.exp(found.weights.log) @ found.points, expected, atol=5.0 * spread.max() / np.sqrt(found.weights.ess))


def test_ess_of_independent_draws_is_their_number() -> None:
    draws = np.random.default_rng(0).standard_normal((4, 1000))
    assert ess(draws) == pytest.approx(4000, rel=0.1)
    assert r_hat(draws) < 1.01
    assert r_hat(draws + 2.0 * np.arange(4)[:, None]) > 1.5


def test_ess_of_a_slow_chain_is_that_of_theory() -> None:
    rng, rho = np.random.default_rng(1), 0.9
    x = np.empty((4, 5000))
    x[:, 0] = rng.standard_normal(4)
    for i in range(1, 5000):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * rng.standard_normal(4)
    assert ess(x) == pytest.approx(20_000 * (1 - rho) / (1 + rho), rel=0.2)


def test_more_groups_make_the_posterior_normal_and_the_weights_even() -> None:
    wide = blm.LMM("y ~ x + (x | g)", grouped(groups=60)).sample(seed=1)
    assert wide.checks["importance_ess"].value > 0.6 * 16_000
