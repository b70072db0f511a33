"""The marginal posterior mode: REML under flat priors, off the boundary under blme's, refused where there is none."""

from __future__ import annotations

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.bayes.sampling.mode import find_mode
from bayeslmm.errors import PriorError
from tests.bayes.designs import MODELS, grouped, model

FLAT = {"cs": {"rho | g": "flat"}, "ar1h": {"rho | g": "flat"}, "ar1 errors": {"rho": "flat"}, "variance function": {"expon": "flat"}}


@pytest.mark.parametrize("name", ["intercepts", "slopes", "independent slopes", "crossed", "nested", "weights and offset", "related"])
def test_the_mode_under_flat_priors_is_the_reml_estimate(name: str) -> None:
    built = model(name, blm.Priors(preset="reml"))
    mode, reml = built.fit("MAP"), built.fit("REML")
    assert np.allclose(mode.theta, reml.theta, atol=1e-6)
    assert mode.sigma == pytest.approx(reml.sigma, rel=1e-6)
    assert np.allclose(mode.fixef, reml.fixef, atol=1e-6)
    assert np.allclose(mode.vcov, reml.vcov, rtol=1e-5)


@pytest.mark.parametrize("name", list(FLAT))
def test_so_it_is_for_structures_with_flat_shapes(name: str) -> None:
    built = model(name, blm.Priors(preset="reml", residual=FLAT[name]))
    mode, reml = built.fit("MAP"), built.fit("REML")
    assert np.allclose(mode.theta, reml.theta, atol=2e-5)
    assert mode.sigma == pytest.approx(reml.sigma, rel=1e-5)


def test_it_climbs_to_the_same_mode_from_elsewhere() -> None:
    """Not only because it starts there."""
    target = density(model("slopes", None).problem, blm.Priors(preset="reml")).without_volume()
    best = find_mode(target)
    again = find_mode(target, best.phi + np.random.default_rng(0).normal(0.0, 0.7, target.size))
    assert again.value == pytest.approx(best.value, abs=1e-7)
    assert np.allclose(again.phi, best.phi, atol=1e-3)


def test_a_variance_of_0_leaves_the_boundary_under_the_preset_of_blme() -> None:
    data = blm.load_dataset("Dyestuff2")
    plain = blm.LMM("Yield ~ 1 + (1 | Batch)", data, priors=blm.Priors(preset="reml")).fit("MAP")
    kept = blm.LMM("Yield ~ 1 + (1 | Batch)", data, priors=blm.Priors(preset="blme")).fit("MAP")
    assert plain.theta[0] == 0.0
    assert plain.singular
    assert kept.theta[0] > 0.2
    assert not kept.singular


def test_the_wishart_of_blme_is_sd_and_lkj() -> None:
    """|D|^0.75 = prod sd^1.5 |C|^0.75: gamma(2.5, 0) on sds and LKJ(1.75)."""
    built = model("slopes", blm.Priors(preset="blme"))
    flat, wishart = (density(built.problem, blm.Priors(preset=p)).without_volume() for p in ("reml", "blme"))
    phi = np.random.default_rng(0).normal(size=(5, 4))
    D = flat.layout.terms[0].covariance(phi)
    gap = wishart.log_prior(phi) - flat.log_prior(phi)
    assert np.allclose(np.diff(gap), np.diff(0.75 * np.linalg.slogdet(D)[1]), atol=1e-9)


def test_a_design_that_data_do_not_identify_has_a_mode_under_priors() -> None:
    data = grouped(groups=30, each=2)
    fit = blm.LMM("y ~ 1 + (x | g)", data, check="error", priors=blm.Priors(preset="blme", sigma=("half_t", 3, 1))).fit("MAP")
    assert np.isfinite(fit.criterion)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"preset": "blme"}, "fit\\('MAP'\\)"),
        ({"sd": {"g": ("gamma", 2.5, 0)}}, "sd g/Intercept"),
    ],
)
def test_an_improper_posterior_is_refused_with_the_reason(said: dict[str, object], reason: str) -> None:
    with pytest.raises(PriorError, match=reason):
        model("slopes", blm.Priors(**said)).sample(draws=100)


def test_a_flat_sd_with_two_groups_is_refused() -> None:
    data = grouped(groups=2, each=10)
    with pytest.raises(PriorError, match="2 levels"):
        blm.LMM("y ~ x + (1 | g)", data, priors=blm.Priors(sd="flat")).sample(draws=100)


def test_a_flat_range_is_refused() -> None:
    with pytest.raises(PriorError, match="range"):
        model("spatial errors", blm.Priors(range="flat")).sample(draws=100)


def test_priors_of_parameters_that_are_not_there_are_named() -> None:
    with pytest.raises(PriorError, match="nope"):
        model("slopes", blm.Priors(sd={"nope": ("half_t", 3, 1)}))


def test_the_table_of_priors_has_every_parameter() -> None:
    table = model("slopes").priors.frame
    assert table["parameter"].tolist() == ["alpha", "alpha", "sd", "sd", "corr", "sigma"]
    assert table["source"].unique().tolist() == ["default"]
    assert len(MODELS) == sum(len(model(name).priors.frame) > 2 for name in MODELS)


def test_default_scales_follow_the_unit_of_y() -> None:
    """Equivariant: sds of the prior in units of y are those of y times 10."""
    data = grouped()
    one = blm.LMM("y ~ x + (x | g)", data).priors.priors.terms[0].sds[1].prior.parameters[1]
    ten = blm.LMM("y ~ x + (x | g)", data.assign(y=10 * data["y"])).priors.priors.terms[0].sds[1].prior.parameters[1]
    assert ten == pytest.approx(10 * one)


def rows_alone(seed: int) -> blm.LMM:
    """A row to each level of two factors with slopes: the likelihood has no bound as sigma falls, the posterior is proper."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=20), rng.normal(size=20)
    y = 1000.0 + 200.0 * (1.0 + 0.5 * x + y + 0.3 * rng.normal(size=20))
    levels = {factor: [f"{factor}{k}" for k in range(20)] for factor in "ab"}
    return blm.LMM("y ~ x + (x | a) + (x | b)", {"y": y, "x": x + 50.0 * (seed % 2), **levels})


@pytest.mark.parametrize("seed", [2, 3])
def test_no_point_is_higher_than_the_mode_where_a_likelihood_has_no_bound(seed: int) -> None:
    """Sums of squares are lost in rounding far out: a value that is only that would be a peak, and draw a sampler to it."""
    own = rows_alone(seed)
    target = density(own.problem, own.spec.priors)
    mode = find_mode(target)
    assert mode.converged
    assert (np.linalg.eigvalsh(mode.precision) > 0.0).all()
    rng = np.random.default_rng(1)
    far = mode.phi + rng.standard_t(3, (400, target.size)) * 3.0
    assert target.values(far).max() <= mode.value
    assert max(target.at(phi).value for phi in far[:20]) <= mode.value


def test_rows_alone_are_sampled() -> None:
    post = rows_alone(3).sample(draws=50, chains=2, seed=1)
    assert post.method == "importance"
    assert post.checks["pareto_k"].verdict == "passed"
