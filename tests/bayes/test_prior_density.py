"""Priors are densities: they integrate to 1, their slopes are derivatives, draws follow them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from bayeslmm.specification.prior_families import (
    FAMILIES,
    Prior,
    draw_prior,
    is_mixture,
    is_proper,
    lkj_draw,
    lkj_log_constant,
    lkj_shapes,
    log_density,
    log_density_slope,
)

PROPER = [
    Prior("half_t", (3.0, 2.0)),
    Prior("half_normal", (2.0,)),
    Prior("half_cauchy", (1.5,)),
    Prior("exponential", (0.7,)),
    Prior("gamma", (2.5, 1.2)),
    Prior("inverse_gamma", (3.0, 2.0)),
    Prior("uniform", (0.5, 4.0)),
    Prior("normal", (1.0, 2.0)),
    Prior("lognormal", (0.3, 0.8)),
    Prior("truncated_normal", (-0.5, 1.5)),
    Prior("student_t", (4.0, 0.5, 1.5)),
    Prior("cauchy", (0.5, 1.5)),
    Prior("laplace", (0.5, 1.5)),
]
REFERENCE = {
    "half_t": lambda p: stats.t(p[0], scale=p[1]),
    "half_normal": lambda p: stats.halfnorm(scale=p[0]),
    "half_cauchy": lambda p: stats.halfcauchy(scale=p[0]),
    "exponential": lambda p: stats.expon(scale=1.0 / p[0]),
    "gamma": lambda p: stats.gamma(p[0], scale=1.0 / p[1]),
    "inverse_gamma": lambda p: stats.invgamma(p[0], scale=p[1]),
    "uniform": lambda p: stats.uniform(p[0], p[1] - p[0]),
    "normal": lambda p: stats.norm(p[0], p[1]),
    "lognormal": lambda p: stats.lognorm(p[1], scale=np.exp(p[0])),
    "truncated_normal": lambda p: stats.truncnorm(-p[0] / p[1], np.inf, p[0], p[1]),
    "student_t": lambda p: stats.t(p[0], p[1], p[2]),
    "cauchy": lambda p: stats.cauchy(p[0], p[1]),
    "laplace": lambda p: stats.laplace(p[0], p[1]),
}


@pytest.mark.parametrize("prior", PROPER, ids=lambda prior: prior.family)
def test_a_density_is_that_of_scipy(prior: Prior) -> None:
    v = np.array([0.6, 1.0, 2.5, 3.9])
    extra = np.log(2.0) if prior.family == "half_t" else 0.0
    assert np.allclose(log_density(prior, v), REFERENCE[prior.family](prior.parameters).logpdf(v) + extra, atol=1e-12)


@pytest.mark.parametrize("prior", PROPER, ids=lambda prior: prior.family)
def test_a_slope_is_the_derivative(prior: Prior) -> None:
    v, h = np.array([0.8, 1.7, 3.0]), 1e-6
    assert np.allclose(log_density_slope(prior, v), (log_density(prior, v + h) - log_density(prior, v - h)) / (2 * h), atol=1e-7)


@pytest.mark.parametrize("prior", PROPER, ids=lambda prior: prior.family)
def test_draws_follow_the_density(prior: Prior) -> None:
    reference = REFERENCE[prior.family](prior.parameters)
    values = draw_prior(prior, np.random.default_rng(5), 4000)
    cdf = (lambda v: 2.0 * reference.cdf(v) - 1.0) if prior.family == "half_t" else reference.cdf
    assert stats.kstest(values, cdf).pvalue > 1e-3


def test_what_is_outside_the_support_has_no_density() -> None:
    assert log_density(Prior("uniform", (1.0, 2.0)), np.array([0.9, 2.1])).tolist() == [-np.inf, -np.inf]
    assert log_density(Prior("half_t", (3.0, 1.0)), np.array(-0.1)) == -np.inf


def test_flat_and_rate_0_are_improper() -> None:
    assert not is_proper(Prior("flat"))
    assert not is_proper(Prior("gamma", (2.5, 0.0)))


@pytest.mark.parametrize("eta", [1.0, 2.0, 3.5])
def test_lkj_of_two_columns_is_a_beta(eta: float) -> None:
    total, _ = integrate.quad(lambda z: np.exp((eta - 1.0) * np.log1p(-z * z) - lkj_log_constant(2, eta)), -1.0, 1.0)
    assert total == pytest.approx(1.0, abs=1e-8)


def test_lkj_1_is_uniform_over_correlation_matrices() -> None:
    """The volume of 3 x 3 correlation matrices is pi^2 / 2."""
    assert np.exp(lkj_log_constant(3, 1.0)) == pytest.approx(np.pi**2 / 2, rel=1e-10)
    z = lkj_draw(3, 1.0, np.random.default_rng(1), 20_000)
    assert np.allclose(z.var(0), 1.0 / (2.0 * lkj_shapes(3, 1.0) + 1.0), atol=0.01)


def test_every_family_that_can_be_drawn_from_is_held_to_scipy() -> None:
    held = {prior.family for prior in PROPER}
    assert held == set(FAMILIES) - {"flat", "flat_log", "fixed", "lkj"}


@pytest.mark.parametrize("prior", [p for p in PROPER if is_mixture(p)], ids=lambda prior: prior.family)
def test_a_mixture_of_normals_is_the_density(prior: Prior) -> None:
    mixture = FAMILIES[prior.family].mixture
    assert mixture is not None

    def given(u: float, v: float) -> float:
        variance, _ = mixture(*prior.parameters, np.array(u))
        return float(stats.norm.pdf(u) * stats.norm.pdf(v, prior.location, np.sqrt(variance)))

    for v in (-2.0, 0.6, 4.0):
        total = integrate.quad(given, -9.0, 9.0, args=(v,), limit=400)[0]
        assert np.log(total) == pytest.approx(float(log_density(prior, np.array(v))), abs=1e-6)
    u, h = np.array([-6.0, -1.0, 0.3, 2.0, 6.0]), 1e-5
    ahead, behind = (np.log(mixture(*prior.parameters, u + s * h)[0]) for s in (1, -1))
    np.testing.assert_allclose(mixture(*prior.parameters, u)[1], (ahead - behind) / (2 * h), rtol=1e-6)
