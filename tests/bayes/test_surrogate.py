"""Polynomials in place of the kernel, and random effects by conjugate gradients: the same posterior as without either."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.bayes.sampling import surrogate
from bayeslmm.bayes.sampling.importance import resample_systematically, sample_importance
from bayeslmm.bayes.sampling.mode import find_mode
from bayeslmm.bayes.sampling.random_effects import draw_alpha, draw_beta_given_alpha
from bayeslmm.bayes.sampling.sample import draw_given_phi
from bayeslmm.bayes.sampling.surrogate import (
    SUFFICIENT_ERROR,
    build_surrogate,
    designs,
    likelihood_ingredients,
    monomials,
    phi_of_psi,
    relative_map,
    scale_axis,
)
from tests.bayes.designs import grouped, model, somewhere
from tests.bayes.test_draws import closed_form


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | g)", "y ~ x + (x | g)"])
def test_polynomials_follow_the_density(formula: str) -> None:
    target = density(blm.LMM(formula, grouped(groups=400)).problem, None)
    mode = find_mode(target)
    M = relative_map(target)
    assert M is not None
    found = build_surrogate(target, mode, M)
    assert found is not None
    spread = np.linalg.cholesky(np.linalg.inv(mode.precision))
    phi = mode.phi + np.random.default_rng(5).standard_normal((200, target.size)) @ spread.T
    assert found.error < 0.05
    assert np.quantile(np.abs(found.values(phi) - target.values(phi)), 0.9) < 0.05


def visits(seed: int, subjects: int, times: int) -> pd.DataFrame:
    """Serial errors of subjects in two arms, a tenth of the visits missing, at places of their own."""
    rng = np.random.default_rng(seed)
    g, t = np.divmod(np.arange(subjects * times), times)
    root = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(times), np.arange(times))))
    errors = (rng.normal(size=(subjects, times)) @ root.T) * (1.0 + 0.2 * np.arange(times))
    frame = pd.DataFrame(
        {"g": g, "t": t, "arm": np.array(["a", "b"])[g % 2], "w": rng.uniform(0.5, 2.0, len(g)), "x": rng.normal(size=len(g))}
    )
    frame["u"], frame["y"] = t + 0.3 * rng.uniform(size=len(g)), 1.0 + 0.5 * frame["x"] + errors.ravel()
    return frame[rng.random(len(g)) < 0.9].reset_index(drop=True)


STRUCTURED: dict[str, dict[str, Any]] = {
    "ar1": {"residual": "ar1(t | g)"},
    "ar1h, weights": {"residual": "ar1h(t | g)", "weights": "w"},
    "us": {"residual": "us(t | g)"},
    "toep": {"residual": "toep(t | g)", "priors": blm.Priors(alpha="normal")},
    "cs of two arms": {"residual": "cs(t | arm / g)"},
    "spatial": {"residual": "sp_exp(u | g)", "priors": blm.Priors(alpha={"x": ("normal", 0, 1)}, sigma=("half_normal", 5))},
}


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STRUCTURED)
def test_polynomials_of_structured_errors_follow_the_density(name: str, seed: int) -> None:
    built = blm.LMM("y ~ x", visits(seed, 60, 3), **STRUCTURED[name])
    target = density(built.problem, built.spec.priors)
    mode, M = find_mode(target), relative_map(target)
    assert M is not None
    # [X y] relative to sigma is the same at any sigma, psi held: the premise of it all
    scale = scale_axis(target)
    moved = mode.phi.copy()
    moved[scale] += 0.7
    (moved,) = phi_of_psi(moved, M, (M @ mode.phi)[None], scale)
    assert moved[scale] != mode.phi[scale]
    np.testing.assert_allclose(likelihood_ingredients(target, moved[None]), likelihood_ingredients(target, mode.phi[None]), rtol=1e-9)
    found = build_surrogate(target, mode, M)
    assert found is not None
    phi = mode.phi + np.random.default_rng(5).standard_normal((200, target.size)) @ np.linalg.cholesky(np.linalg.inv(mode.precision)).T
    assert found.misses(phi) < 0.05


@pytest.mark.parametrize("name", ["ar1", "spatial"])
def test_a_sample_of_structured_errors_by_polynomials_is_that_of_the_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = blm.LMM("y ~ x", visits(4, 40, 5), **STRUCTURED[name])
    exact = built.sample(draws=1000, seed=2, method="importance")
    monkeypatch.setattr(surrogate, "SEVERAL_MULTIPLICATIONS", 0.0)
    fast = built.sample(draws=1000, seed=1)
    assert fast.method == "surrogate"
    assert fast.checks["surrogate"].verdict == "passed"
    one, other = fast.tidy("all"), exact.tidy("all")
    assert ((one["estimate"] - other["estimate"]).abs() < 0.12 * other["std_error"]).all()
    np.testing.assert_allclose(one["std_error"], other["std_error"], rtol=0.1)


def test_there_are_no_polynomials_for_effects_under_structured_errors_or_many_parameters() -> None:
    assert relative_map(density(model("ar1 errors").problem, None)) is None
    assert relative_map(density(blm.LMM("y ~ x", visits(1, 40, 5), residual="us(t | g)").problem, None)) is None
    rng = np.random.default_rng(0)
    wide = grouped(groups=30).assign(**{f"z{i}": rng.normal(size=len(grouped(groups=30))) for i in range(4)})
    assert relative_map(density(blm.LMM("y ~ x + (z0 + z1 + z2 + z3 | g)", wide, check="warn").problem, None)) is None
    assert relative_map(density(model("slopes").problem, blm.Priors(sigma=("uniform", 0, 5)))) is None


def test_monomials_are_products_of_powers() -> None:
    z = np.random.default_rng(1).normal(size=(5, 3))
    for _, powers in designs(3):
        np.testing.assert_allclose(monomials(z, powers), np.prod(z[:, None, :] ** powers, axis=2), rtol=1e-13)


def test_polynomials_of_crossed_slopes_follow_the_density() -> None:
    """Six relative parameters: what is missed among draws of the posterior's width, and a density that has fallen where they end."""
    rng = np.random.default_rng(3)
    s, i = np.divmod(np.arange(40 * 30), 30)
    x = rng.normal(size=1200)
    y = 0.5 * rng.normal(size=40)[s] + 0.4 * rng.normal(size=30)[i] + (1 + 0.5 * rng.normal(size=40)[s] + 0.4 * rng.normal(size=30)[i]) * x
    built = blm.LMM("y ~ x + (x | s) + (x | i)", {"y": y + rng.normal(size=1200), "x": x, "s": s.astype(str), "i": i.astype(str)})
    target = density(built.problem, None)
    mode, M = find_mode(target), relative_map(target)
    assert M is not None
    found = build_surrogate(target, mode, M)
    assert found is not None
    phi = mode.phi + rng.standard_normal((60, target.size)) @ np.linalg.cholesky(np.linalg.inv(mode.precision)).T
    assert found.misses(phi) < SUFFICIENT_ERROR


def beyond_reach(name: str) -> blm.LMM:
    """Few levels, an sd that may be near 0, crossed factors of few levels: up to 2 % of these posteriors lie where polynomials end."""
    if name == "crossed":
        rng = np.random.default_rng(3)
        s, i = np.divmod(np.arange(100), 5)
        x, u, v = rng.normal(size=100), rng.normal(size=20), rng.normal(size=5)
        y = 0.5 * u[s] + 0.4 * v[i] + x + rng.normal(size=100)
        return blm.LMM("y ~ x + (1 | s) + (1 | i)", {"y": y, "x": x, "s": s.astype(str), "i": i.astype(str)}, check="warn")
    if name == "columns":
        frame = grouped(0, groups=8)
        frame = frame.assign(**{f"z{k}": column for k, column in enumerate(np.random.default_rng(0).normal(size=(6, len(frame))))})
        formula = f"y ~ {' + '.join(f'z{k}' for k in range(6))} + (1 | g)"
        return blm.LMM(formula, frame, priors=blm.Priors(alpha="normal"), check="warn")
    if name == "corner":
        return blm.LMM("y ~ x + (x | g)", grouped(18, groups=8, each=40))
    if name == "slopes":
        return blm.LMM("y ~ x + (x | g)", grouped(0, groups=60))
    return blm.LMM("y ~ x + (1 | g)", grouped(0, groups=5, each=40))


@pytest.mark.parametrize("name", ["slopes", "levels", "crossed", "columns", "corner"])
def test_polynomials_have_the_moments_of_the_density_that_reaches_beyond_them(name: str) -> None:
    """Draws of the density itself, weighted as the stand-in would: no Monte Carlo error lies between the two."""
    target = density(beyond_reach(name).problem, beyond_reach(name).spec.priors)
    mode, M = find_mode(target), relative_map(target)
    assert M is not None
    found = build_surrogate(target, mode, M)
    assert found is not None
    drawn = sample_importance(target.values, mode, 12_000, np.random.default_rng(1))
    phi = drawn.points[resample_systematically(drawn.weights, 4000, np.random.default_rng(2))]
    assert not found.reaches(phi).all()
    weights = np.exp(found.values(phi) - target.values(phi))
    weights /= weights.sum()
    for values in (phi, np.exp(phi)):
        mean, sd = values.mean(0), values.std(0)
        assert np.all(np.abs(weights @ values - mean) < 0.01 * sd)
        np.testing.assert_allclose(np.sqrt(weights @ (values - weights @ values) ** 2), sd, rtol=0.02)


@pytest.mark.parametrize("name", ["slopes", "levels", "crossed", "columns"])
def test_what_lies_beyond_the_polynomials_of_an_expensive_density_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = beyond_reach(name)
    target = density(model.problem, model.spec.priors)
    mode = find_mode(target)
    exact = sample_importance(target.values, mode, 40_000, np.random.default_rng(1))
    for place in ("sample", "surrogate"):
        monkeypatch.setattr(f"bayeslmm.bayes.sampling.{place}.is_expensive", lambda density: True)
    found = model.sample(seed=1)
    M = relative_map(target)
    assert M is not None
    stand_in = build_surrogate(target, mode, M)
    assert stand_in is not None
    share = float(np.exp(exact.weights.log) @ ~stand_in.reaches(exact.points))
    check = found.checks["beyond_surrogate"]
    # some dozens of weights are summed
    assert 0.4 * share < check.value < 2.5 * share
    assert (check.verdict == "failed") == (check.value >= check.limit)


def test_effects_of_draws_beyond_the_polynomials_are_those_of_the_kernel() -> None:
    target = density(beyond_reach("slopes").problem, None)
    mode, M = find_mode(target), relative_map(target)
    assert M is not None
    found = build_surrogate(target, mode, M)
    assert found is not None
    far = mode.phi - 6.0 * np.linalg.cholesky(np.linalg.inv(mode.precision))[:, 0]
    phi = np.tile(far, (4000, 1))
    assert not found.reaches(phi[:1]).any()
    by_stand_in = draw_given_phi(found, mode, phi, np.random.default_rng(1))
    mean, cover = closed_form(target, far, np.zeros(2))
    drawn = np.hstack([by_stand_in.alpha, by_stand_in.beta[0].reshape(len(phi), -1)])
    sd = np.sqrt(np.diagonal(cover))
    assert np.abs((drawn.mean(0) - mean) / sd).max() < 5.0 / np.sqrt(len(phi))
    assert np.abs((np.cov(drawn, rowvar=False) - cover) / np.outer(sd, sd)).max() < 7.0 / np.sqrt(len(phi))


def test_a_density_that_is_high_where_polynomials_end_has_none() -> None:
    """Two groups say little of their variance: much of the posterior lies beyond."""
    target = density(blm.LMM("y ~ x + (1 | g)", grouped(groups=2), check="warn").problem, None)
    M = relative_map(target)
    assert M is not None
    assert build_surrogate(target, find_mode(target), M) is None


@pytest.mark.parametrize("prior", ["flat", "normal"])
def test_many_columns_have_the_same_profile_by_polynomials(prior: str) -> None:
    rng = np.random.default_rng(4)
    frame = grouped(groups=60)
    names = [f"z{i}" for i in range(30)]
    frame = frame.assign(**{name: rng.normal(size=len(frame)) for name in names})
    target = density(blm.LMM(f"y ~ {' + '.join(names)} + (1 | g)", frame, priors=blm.Priors(alpha=prior)).problem, blm.Priors(alpha=prior))
    mode, M = find_mode(target), relative_map(target)
    assert M is not None
    found = build_surrogate(target, mode, M)
    assert found is not None
    phi = mode.phi + 0.5 * rng.standard_normal((20, target.size)) @ np.linalg.cholesky(np.linalg.inv(mode.precision)).T
    x, s = target.kernel_points(phi)
    own = target.integrate(target.solve(x), s**2, phi)
    by_polynomials = target.integrate(found.solution(phi), s**2, phi)
    np.testing.assert_allclose(by_polynomials.value, own.value, atol=SUFFICIENT_ERROR)
    np.testing.assert_allclose(found.values(phi), target.values(phi), atol=SUFFICIENT_ERROR)
    sd = s[:, None] * np.sqrt(np.diagonal(own.solution.information_inverse, axis1=1, axis2=2))
    assert np.abs((by_polynomials.solution.alpha - own.solution.alpha) / sd).max() < SUFFICIENT_ERROR


@pytest.mark.parametrize("name", ["crossed", "nested", "related", "slopes", "ar1h"])
def test_draws_given_alpha_follow_the_closed_form(name: str) -> None:
    target = density(model(name).problem, None)
    mode = find_mode(target)
    phi, count = somewhere(target), 6000
    rng = np.random.default_rng(3)
    x, s = target.kernel_points(np.tile(phi, (count, 1)))
    a = draw_alpha(target.alpha.integrate(target.kernel.solve(x[:1]), s**2), s, rng)
    beta = draw_beta_given_alpha(target, mode, np.tile(phi, (count, 1)), a, rng)
    c = target.problem.standardization
    alpha = c.alpha0 + c.y_scale * a @ c.back.T
    drawn = np.hstack([alpha, *(block.reshape(count, -1) for block in beta)])
    mean, cover = closed_form(target, phi, np.zeros(2))
    sd = np.sqrt(np.diagonal(cover))
    assert np.abs((drawn.mean(0) - mean) / sd).max() < 5.0 / np.sqrt(count)
    assert np.abs((np.cov(drawn, rowvar=False) - cover) / np.outer(sd, sd)).max() < 7.0 / np.sqrt(count)


@pytest.mark.slow
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
