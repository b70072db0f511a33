"""Polynomials in place of the kernel, and random effects by conjugate gradients: the same posterior as without either."""

from __future__ import annotations

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.bayes.sampling.mode import find_mode
from bayeslmm.bayes.sampling.random_effects import draw_alpha, draw_beta_by_cg
from bayeslmm.bayes.sampling.surrogate import build_surrogate, relative_map
from tests.bayes.designs import grouped, model, somewhere
from tests.bayes.test_draws import closed_form


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | g)", "y ~ x + (x | g)"])
def test_polynomials_follow_the_density(formula: str) -> None:
    target = density(blm.LMM(formula, grouped(groups=400)).problem, None)
    mode = find_mode(target)
    M = relative_map(target)
    assert M is not None
    found = build_surrogate(target, mode, M)
    spread = np.linalg.cholesky(np.linalg.inv(mode.precision))
    phi = mode.phi + np.random.default_rng(5).standard_normal((200, target.size)) @ spread.T
    assert found.error < 0.05
    assert np.quantile(np.abs(found.values(phi) - target.values(phi)), 0.9) < 0.05


def test_there_are_no_polynomials_for_structured_errors_or_many_parameters() -> None:
    assert relative_map(density(model("ar1 errors").problem, None)) is None
    assert relative_map(density(model("ar1h").problem, None)) is None
    assert relative_map(density(model("slopes").problem, blm.Priors(sigma=("uniform", 0, 5)))) is None


@pytest.mark.parametrize("name", ["crossed", "nested", "related"])
def test_draws_by_conjugate_gradients_follow_the_closed_form(name: str) -> None:
    target = density(model(name).problem, None)
    mode = find_mode(target)
    phi, count = somewhere(target), 6000
    rng = np.random.default_rng(3)
    x, s = target.kernel_points(np.tile(phi, (count, 1)))
    a = draw_alpha(target.alpha.integrate(target.kernel.solve(x[:1]), s**2), s, rng)
    beta = draw_beta_by_cg(target, mode, np.tile(phi, (count, 1)), a, rng)
    c = target.problem.standardization
    alpha = c.alpha0 + c.y_scale * a @ c.back.T
    drawn = np.hstack([alpha, *(block.reshape(count, -1) for block in beta)])
    mean, cover = closed_form(target, phi, np.zeros(2))
    sd = np.sqrt(np.diagonal(cover))
    assert np.abs((drawn.mean(0) - mean) / sd).max() < 5.0 / np.sqrt(count)
    assert np.abs((np.cov(drawn, rowvar=False) - cover) / np.outer(sd, sd)).max() < 7.0 / np.sqrt(count)


def test_a_crossing_of_middle_size_has_the_posterior_of_its_own_density() -> None:
    rng = np.random.default_rng(2)
    s, i = rng.integers(0, 90, 2500), rng.integers(0, 90, 2500)
    y = rng.normal(size=90)[s] + 0.7 * rng.normal(size=90)[i] + rng.normal(size=2500)
    built = blm.LMM("y ~ 1 + (1 | s) + (1 | i)", {"y": y, "s": [f"s{k}" for k in s], "i": [f"i{k}" for k in i]})
    quick, plain = built.sample(seed=1), built.sample(draws=250, seed=1, method="importance")
    assert quick.method == "surrogate"
    assert plain.method == "importance"
    for name in ("sigma", "sd_s", "sd_i"):
        own, other = quick.parameters[name].values, plain.parameters[name].values
        # standard errors of a mean of 1000 independent draws
        assert abs(own.mean() - other.mean()) < 4.5 * other.std() / np.sqrt(1000)
        assert own.std() == pytest.approx(other.std(), rel=0.12)


def test_a_model_taken_for_expensive_has_the_same_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    built = blm.LMM("y ~ x + (1 | g) + (1 | h)", grouped(groups=40), priors=blm.Priors(alpha="normal"))
    plain = built.sample(seed=1)
    monkeypatch.setattr("bayeslmm.bayes.sampling.sample.is_expensive", lambda density: True)
    quick = built.sample(seed=1)
    assert quick.method == "surrogate"
    for name in ("sigma", "sd_g"):
        a, b = plain.parameters[name].values.ravel(), quick.parameters[name].values.ravel()
        assert b.mean() == pytest.approx(a.mean(), abs=0.1 * a.std())
        assert b.std() == pytest.approx(a.std(), rel=0.1)
    gap = (plain.draws.beta[0].mean(0) - quick.draws.beta[0].mean(0)) / plain.draws.beta[0].std(0)
    assert np.abs(gap).max() < 0.12
