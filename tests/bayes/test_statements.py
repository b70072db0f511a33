"""Statements about coefficients, regions of equivalence, and the verbs that a posterior shares with a fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from tests.bayes import designs


@pytest.fixture(scope="module")
def known() -> blm.Posterior:
    """sigma held and one normal prior: the posterior of the coefficients is normal, in closed form."""
    priors = blm.Priors(alpha={"Intercept": ("normal", 0, 3), "x": ("normal", 0, 1)}, sigma=("fixed", 2.0))
    return blm.LMM("y ~ x", designs.grouped(), priors=priors).sample(draws=4000, seed=1)


def exact(post: blm.Posterior) -> tuple[float, float]:
    X, y = post.design.X, post.design.y
    precision = X.T @ X / 4.0 + np.diag([1 / 9.0, 1.0])
    inverse = np.linalg.inv(precision)
    return float((inverse @ X.T @ y / 4.0)[1]), float(np.sqrt(inverse[1, 1]))


def test_bayes_factors_are_those_in_closed_form(known: blm.Posterior) -> None:
    mean, sd = exact(known)
    table = known.hypothesis(["x > 0.2", "x = 0", "2 * x < 1"]).set_index("hypothesis")
    above = stats.norm.sf(0.2, mean, sd)
    prior = stats.norm.sf(0.2)
    assert table.loc["x > 0.2", "probability"] == pytest.approx(above, abs=0.02)
    assert table.loc["x > 0.2", "bayes_factor"] == pytest.approx(above / (1 - above) * (1 - prior) / prior, rel=0.1)
    ratio = stats.norm.pdf(0.0, mean, sd) / stats.norm.pdf(0.0)
    assert table.loc["x = 0", "bayes_factor"] == pytest.approx(ratio, rel=1e-6)
    assert table.loc["x = 0", "probability"] == pytest.approx(ratio / (1 + ratio), rel=1e-6)
    assert table.loc["2 * x < 1", "probability"] == pytest.approx(stats.norm.cdf(0.5, mean, sd), abs=0.02)


def test_under_a_flat_prior_there_is_no_bayes_factor() -> None:
    post = designs.model("intercepts").sample(draws=200, seed=1)
    table = post.hypothesis("x > 0")
    assert np.isnan(table["bayes_factor"]).all()
    assert 0.0 <= table["probability"].item() <= 1.0


def test_what_is_no_statement_is_refused(known: blm.Posterior) -> None:
    for text in ("x", "x > 0 > 1", "z > 0"):
        with pytest.raises(SpecificationError):
            known.hypothesis(text)
    with pytest.raises(SpecificationError):
        known.rope(1, -1)
    with pytest.raises(SpecificationError, match="low is 'x'") as caught:
        known.rope("x", (-0.1, 0.1))
    assert "rope(-1, 1" in caught.value.remedy
    with pytest.raises(SpecificationError) as caught:
        known.ranef("g")
    assert 'ranef()["g"]' in caught.value.remedy
    with pytest.raises(SpecificationError):
        known.rope(-1, 1, "z")


def test_shares_of_a_region_are_those_of_the_draws(known: blm.Posterior) -> None:
    mean, sd = exact(known)
    table = known.rope(-0.1, 0.3, "x")
    assert table["probability"].item() == pytest.approx(stats.norm.cdf(0.3, mean, sd) - stats.norm.cdf(-0.1, mean, sd), abs=0.02)


def test_verbs_of_a_fit_say_the_same_of_draws() -> None:
    own = designs.model("slopes")
    fit, post = own.fit(), own.sample(draws=1000, seed=1)
    assert post.coef()["g"].columns.tolist() == fit.coef()["g"].columns.tolist()
    np.testing.assert_allclose(post.coef()["g"], fit.coef()["g"], atol=0.2)
    assert post.emtrends("x").frame["estimate"].item() == pytest.approx(post.fixef["x"], rel=1e-9)
    assert post.icc()["estimate"].tolist() == pytest.approx(fit.icc().to_numpy()[0].tolist(), abs=0.1)
    assert post.update(". ~ . - (x | g) + (1 | g)", draws=50, seed=1).formula == "y ~ 1 + x + (1 | g)"


def test_shares_of_variance_are_those_of_the_rows() -> None:
    post = designs.model("slopes").sample(draws=100, seed=1)
    fixed = (post.draws.alpha @ post.design.X.T).var(axis=1)
    random = sum(
        np.einsum("na,sab,nb->s", t.Z, b.covariance(post.draws.phi), t.Z) / post.design.nobs
        for b, t in zip(post.density.layout.terms, post.design.terms, strict=True)
    )
    total = fixed + random + post.parameters["sigma"].values ** 2
    assert post.r2().loc["marginal", "estimate"] == pytest.approx((fixed / total).mean(), rel=1e-10)


@pytest.mark.parametrize("statement", ["sigma < 1", "sd_g[Intercept] > 0.2", "sd_g > x", "cor_g = 0"])
def test_covariance_parameters_are_asked_of_their_draws(known: blm.Posterior, statement: str) -> None:
    with pytest.raises(SpecificationError, match="covariance parameter") as caught:
        known.hypothesis(statement)
    assert "post.tree.posterior" in caught.value.remedy


def test_draws_print_their_shapes_and_not_themselves(known: blm.Posterior) -> None:
    size = known.draws.size
    assert repr(known.draws) == f"PosteriorDraws(phi ({size}, 0), alpha ({size}, 2))"
