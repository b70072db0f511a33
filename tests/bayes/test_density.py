"""The collapsed density is the integral that it says it is, and its gradient is its derivative, for every kind of model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import density
from tests.bayes.designs import MODELS, dense_covariance, model, somewhere


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("alpha", ["flat", "normal"])
def test_the_gradient_is_the_derivative(name: str, alpha: str) -> None:
    target = density(model(name).problem, blm.Priors(alpha=alpha))
    phi, h = somewhere(target), 1e-5
    ends = phi + h * np.concatenate([np.eye(target.size), -np.eye(target.size)])
    values = target.values(ends)
    numeric = (values[: target.size] - values[target.size :]) / (2.0 * h)
    found = target.at(phi)
    assert found.value == pytest.approx(float(target.values(phi[None])[0]), abs=1e-9)
    # central differences of values near 100 are good to about 1e-8 of the largest slope
    assert np.allclose(found.gradient, numeric, atol=1e-5 * max(1.0, np.abs(numeric).max()))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sd", [None, ("uniform", 0.0, 100.0)])
def test_draws_made_elsewhere_come_back_as_they_are(name: str, sd: tuple[str, float, float] | None) -> None:
    """The axes of sds near the ends of a uniform prior and of correlations near 1 too: only where a search begins are they moved."""
    target = density(model(name).problem, None if sd is None else blm.Priors(sd=sd))
    phi = 1.5 * np.random.default_rng(1).standard_normal((60, target.size))
    for block in target.layout.matrices:
        own = phi[:, block.part]
        np.testing.assert_allclose(block.axes.inverse(block.axes.values(own), None), own, rtol=1e-6, atol=1e-6)
    if target.layout.sigma is not None:
        own = phi[:, target.layout.sigma_part]
        np.testing.assert_allclose(target.layout.sigma.inverse(target.layout.sigma.values(own), None), own, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_with_a_normal_prior_the_outcomes_are_normal(name: str) -> None:
    """y ~ N(X m + offset, V + X S X'), evaluated as one dense normal density."""
    built = model(name)
    target = density(built.problem, blm.Priors(alpha={"Intercept": ("normal", 0.5, 2.0), "x": ("normal", -0.3, 0.4)}))
    phi, design = somewhere(target), built.design
    V = dense_covariance(target, phi) + design.X @ np.diag([4.0, 0.16]) @ design.X.T
    mean = design.X @ [0.5, -0.3] + (0.0 if design.offset is None else design.offset)
    dense = stats.multivariate_normal(mean, V).logpdf(design.y)
    assert float(target.log_likelihood(phi[None])[0]) == pytest.approx(dense, abs=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_with_a_flat_prior_it_is_the_restricted_likelihood(name: str) -> None:
    built = model(name)
    target = density(built.problem, None)
    phi, X = somewhere(target), built.design.X
    V = dense_covariance(target, phi)
    y = built.design.y - (0.0 if built.design.offset is None else built.design.offset)
    W = np.linalg.inv(V)
    alpha = np.linalg.solve(X.T @ W @ X, X.T @ W @ y)
    r = y - X @ alpha
    logdets = np.linalg.slogdet(V)[1] + np.linalg.slogdet(X.T @ W @ X)[1]
    dense = -0.5 * (logdets + r @ W @ r + (len(y) - X.shape[1]) * np.log(2 * np.pi))
    assert float(target.log_likelihood(phi[None])[0]) == pytest.approx(dense, abs=1e-8)


def test_one_normal_and_one_flat_coefficient_lie_between() -> None:
    """A flat prior is the limit of a wide one, whose height is put back."""
    problem = model("slopes").problem
    mixed = density(problem, blm.Priors(alpha={"x": ("normal", 0.0, 1.0)}))
    wide = density(problem, blm.Priors(alpha={"x": ("normal", 0.0, 1.0), "Intercept": ("normal", 0.0, 1e5)}))
    phi = somewhere(mixed)[None]
    assert float(mixed.log_likelihood(phi)[0]) == pytest.approx(
        float(wide.log_likelihood(phi)[0] + np.log(1e5) + 0.5 * np.log(2 * np.pi)), abs=1e-6
    )


@pytest.mark.parametrize("name", MODELS)
def test_points_come_back_from_the_kernel(name: str) -> None:
    target = density(model(name).problem, None)
    phi = somewhere(target, spread=0.2)
    x, s = target.kernel_points(phi[None])
    back, again = target.kernel_points(target.phi_of(x[0], float(s[0]))[None])
    same = [term.covariance.matrix(x[0, term.part]) for term in target.problem.random.terms]
    found = [term.covariance.matrix(back[0, term.part]) for term in target.problem.random.terms]
    assert all(np.allclose(a, b, rtol=1e-8) for a, b in zip(same, found, strict=True))
    assert np.allclose(s, again, rtol=1e-10)


def test_many_points_are_each_of_them_alone() -> None:
    for name in ("slopes", "crossed", "nested", "us errors"):
        target = density(model(name).problem, None)
        phi = np.stack([somewhere(target, seed) for seed in range(7)])
        assert np.allclose(target.values(phi), [target.values(row[None])[0] for row in phi], atol=1e-9)


def test_points_that_are_no_model_have_no_density() -> None:
    target = density(model("slopes").problem, None)
    phi = somewhere(target)
    bad = np.stack([phi, np.full_like(phi, np.nan), np.where(np.arange(len(phi)) == 0, 800.0, phi)])
    values = target.values(bad)
    assert np.isfinite(values[0])
    assert values[1] == -np.inf
    assert values[2] == -np.inf
