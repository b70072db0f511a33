"""Priors of the coefficients of every family: the density with alpha integrated out, its gradient, and the draws."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.errors import PriorError
from bayeslmm.specification.prior_families import FAMILIES, Prior, log_density
from bayeslmm.specification.priors import read_prior
from tests.bayes import designs

ALPHA: dict[str, Any] = {
    "student_t": {"x": ("student_t", 4, 0.1, 0.3)},
    "cauchy": {"slopes": ("cauchy", 0, 0.2)},
    "laplace": {"x": ("laplace", 0, 0.2)},
    "all kinds": {"Intercept": ("student_t", 3, 1, 2), "x": ("laplace", 0.2, 0.3)},
    "normal and mixed": {"Intercept": ("normal", 1, 2), "x": ("cauchy", 0.2, 0.3)},
}


@pytest.mark.parametrize("alpha", list(ALPHA))
@pytest.mark.parametrize("name", ["slopes", "weights and offset", "us errors", "variance function"])
def test_the_gradient_is_that_of_the_density(name: str, alpha: str) -> None:
    target = density(designs.model(name).problem, blm.Priors(alpha=ALPHA[alpha]))
    phi = designs.somewhere(target)
    h = 1e-5
    steps = h * np.eye(target.size)
    slopes = (target.values(phi + steps) - target.values(phi - steps)) / (2.0 * h)
    np.testing.assert_allclose(target.at(phi).gradient, slopes, rtol=1e-5, atol=1e-6)
    assert target.at(phi).value == pytest.approx(float(target.values(phi[None])[0]), rel=1e-10)


@pytest.mark.parametrize("alpha", ["student_t", "laplace"])
def test_the_scale_integrates_out_to_the_prior_that_was_stated(alpha: str) -> None:
    """integral of p(y | scale) p(scale) = integral of N(y | X alpha, V) p(alpha), the latter by quadrature over one coefficient."""
    model = blm.LMM("y ~ 0 + x + (1 | g)", designs.grouped())
    target = density(model.problem, blm.Priors(alpha={"x": ALPHA[alpha]["x"]}))
    phi = designs.somewhere(target)
    (part,) = range(target.size)[target.layout.mixing.part]  # type: ignore[union-attr]

    def collapsed(u: float) -> float:
        at = phi.copy()
        at[part] = u
        return float(np.exp(target.log_likelihood(at[None])[0] + 150.0) * stats.norm.pdf(u))

    V, y, x = designs.dense_covariance(target, phi), model.design.y, model.design.X[:, 0]
    normal, prior = stats.multivariate_normal(np.zeros(len(y)), V), Prior(ALPHA[alpha]["x"][0], tuple(map(float, ALPHA[alpha]["x"][1:])))

    def stated(value: float) -> float:
        return float(np.exp(normal.logpdf(y - x * value) + 150.0 + log_density(prior, np.array(value))))

    centre = float(x @ np.linalg.solve(V, y) / (x @ np.linalg.solve(V, x)))
    kink = prior.location
    direct = sum(integrate.quad(stated, a, b, limit=200)[0] for a, b in ((centre - 8, kink), (kink, max(kink, centre) + 8)))
    assert integrate.quad(collapsed, -9, 9, limit=200)[0] == pytest.approx(direct, rel=1e-6)


@pytest.mark.parametrize("method", ["importance", pytest.param("nuts", marks=pytest.mark.slow)])
@pytest.mark.parametrize("alpha", ["student_t", "cauchy", "laplace"])
def test_draws_follow_the_prior_that_decides(alpha: str, method: str) -> None:
    """One coefficient under a prior narrower than the data: its posterior by reweighting that of a normal prior on a fine grid."""
    model = blm.LMM("y ~ x", designs.grouped(), priors=blm.Priors(alpha=ALPHA[alpha], sigma=("fixed", 1.5)))
    post = model.sample(draws=2000, seed=3, method=method)
    design = model.design
    value = ALPHA[alpha].get("x") or ALPHA[alpha]["slopes"]
    prior = Prior(value[0], tuple(map(float, value[1:])))
    x = design.X[:, 1] - design.X[:, 1].mean()
    grid = np.linspace(-4, 4, 20001)
    size = x @ x / 1.5**2
    log = -0.5 * size * (grid - x @ design.y / (x @ x)) ** 2 + log_density(prior, grid)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ grid
    sd = np.sqrt(weight @ (grid - mean) ** 2)
    draws = post.draws.alpha[:, 1]
    assert draws.mean() == pytest.approx(mean, abs=0.08 * sd)
    assert draws.std() == pytest.approx(sd, rel=0.06)


@pytest.mark.parametrize("preset", ["brms", "rstanarm", "bambi"])
def test_an_intercept_of_centred_columns_is_the_same_model_with_centred_columns(preset: str) -> None:
    frame = designs.grouped().assign(x=lambda d: d["x"] + 3.0)
    moved = frame.assign(x=frame["x"] - frame["x"].mean())
    targets = [density(blm.LMM("y ~ x + (1 | g)", data).problem, blm.Priors(preset=preset)) for data in (frame, moved)]
    if preset == "bambi":  # Bambi widens the intercept's prior by the means of the columns, though it centres them
        assert targets[0].priors.alpha[0].prior.parameters[1] > targets[1].priors.alpha[0].prior.parameters[1]
        return
    for one, other in zip(*(target.priors.rows() for target in targets), strict=True):
        assert one.prior.family == other.prior.family
        np.testing.assert_allclose(one.prior.parameters, other.prior.parameters, rtol=1e-12)
    phi = designs.somewhere(targets[1])[None]
    assert targets[0].values(phi)[0] == pytest.approx(targets[1].values(phi)[0], rel=1e-9)


def test_what_is_not_said_keeps_the_preset() -> None:
    said = blm.Priors(preset="bambi", alpha={"x": ("normal", 0, 1)})
    rows = {row.label: row for row in density(designs.model("slopes").problem, said).priors.rows()}
    default = {row.label: row for row in density(designs.model("slopes").problem, blm.Priors(preset="bambi")).priors.rows()}
    assert rows.pop("alpha x").prior == Prior("normal", (0.0, 1.0))
    default.pop("alpha x")
    assert {label: row.prior for label, row in rows.items()} == {label: row.prior for label, row in default.items()}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ar1 errors", {"rho": ("uniform", 2, 3)}),
        ("ar1 errors", {"rho": ("fixed", 0.5)}),
        ("ratio", {"ratio[i1]": ("uniform", -2, -1)}),
        ("spatial errors", {"range": ("uniform", -2, 0)}),
    ],
)
def test_a_prior_without_a_possible_value_is_refused_before_anything_runs(name: str, said: dict[str, Any]) -> None:
    with pytest.raises(PriorError) as caught:
        density(designs.model(name).problem, blm.Priors(residual=said))
    assert caught.value.remedy


NO_NUMBERS = [
    *(np.nan, np.inf, -np.inf, 10**400, 1e308, Fraction(10**400, 3), Decimal("nan"), 1j, True, "1", b"1", None, pd.NA, [1.0]),
    *(np.ones(2), np.ones(1), pd.Series([1.0]), np.datetime64("2020-01-01")),
]
SAME_NUMBERS = [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), Fraction(2), Decimal(2)]
USUAL = {"df": 3.0, "scale": 2.0, "rate": 2.0, "shape": 2.0, "meanlog": 2.0, "mean": 2.0, "lower": 0.0, "upper": 2.0, "location": 2.0}


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_finite_numbers_whose_squares_are_too(family: str) -> None:
    names = FAMILIES[family].names
    usual = [USUAL.get(name, 2.0) for name in names]
    for j, name in enumerate(names):
        for given in NO_NUMBERS:
            with pytest.raises(PriorError) as caught:
                read_prior((family, *usual[:j], given, *usual[j + 1 :]), list(FAMILIES), "alpha 'x'")
            assert caught.value.remedy
        if usual[j] == 2.0:
            read = {read_prior((family, *usual[:j], given, *usual[j + 1 :]), list(FAMILIES), name) for given in SAME_NUMBERS}
            assert read == {Prior(family, tuple(usual))}
    scales = [j for j, parameter in enumerate(FAMILIES[family].parameters) if "+" in parameter]
    for j in scales:
        for given in (0.0, -1.0, 1e-320):
            with pytest.raises(PriorError, match="give one above"):
                read_prior((family, *usual[:j], given, *usual[j + 1 :]), list(FAMILIES), "sigma")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("normal(0, 2.5)", ("half_normal", 2.5)),
        ("student_t(3,0,2.5)", ("half_t", 3, 2.5)),
        ("cauchy( 0 , 2 )", ("half_cauchy", 2)),
        ("normal(1, 2)", ("truncated_normal", 1, 2)),
        ("exponential(0.5)", ("exponential", 0.5)),
        ("half_t(3)", ("half_t", 3)),
        ("half_normal()", "half_normal"),
        (("inv_gamma", 2, 1), ("inverse_gamma", 2, 1)),
        (("constant", 1), ("fixed", 1)),
        (("HalfNormal", 2), ("half_normal", 2)),
        (("HalfStudentT", 3, 2), ("half_t", 3, 2)),
        (("StudentT", 3, 0, 2), ("half_t", 3, 2)),
        ("Gamma(2, 0.1)", ("gamma", 2, 0.1)),
    ],
)
def test_words_of_other_packages_for_an_sd(theirs: Any, ours: Any) -> None:
    for place in ("sd", "sigma"):
        assert blm.Priors(**{place: theirs}) == blm.Priors(**{place: ours})
    assert blm.Priors(sd={"g/x": theirs}) == blm.Priors(sd={"g/x": ours})


@pytest.mark.parametrize(("theirs", "ours"), [("double_exponential(0, 1)", ("laplace", 0, 1)), ("Normal(1, 2)", ("normal", 1, 2))])
def test_words_of_other_packages_for_a_coefficient(theirs: Any, ours: Any) -> None:
    assert blm.Priors(alpha={"x": theirs}) == blm.Priors(alpha={"x": ours})
    assert blm.Priors(corr="lkj(2)") == blm.Priors(corr=("lkj_corr_cholesky", 2)) == blm.Priors(corr=("lkj", 2))


@pytest.mark.parametrize("words", ["normal(0, x)", "normal(0, 1", "normal(0, 1))", "normal(0, nan)", "()", "f(1)(2)", "__import__('os')"])
def test_a_call_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(PriorError):
        blm.Priors(sigma=words)


def test_the_prior_of_sigma_has_its_own_argument() -> None:
    """The table of residual parameters has sigma too: who copies its names is told."""
    priors = blm.Priors(residual={"sigma": ("half_normal", 1.0)})
    with pytest.raises(PriorError) as caught:
        blm.LMM("y ~ x + (1 | g)", designs.grouped(), variance="exp(x)", priors=priors).sample(draws=25, seed=1)
    assert "Priors(sigma=" in caught.value.remedy


def test_held_sds_stay_where_they_are_held() -> None:
    own = designs.model("crossed", blm.Priors(sd={"g/Intercept": ("fixed", 0.9), "h": ("fixed", 0.4)}, sigma=("fixed", 0.8)))
    post = own.sample(draws=100, seed=1)
    assert np.all(post.parameters["sd_g"].values[:, 0] == pytest.approx(0.9))
    assert np.all(post.parameters["sd_h"].values == pytest.approx(0.4))
    assert np.all(post.parameters["sigma"].values == 0.8)
    assert post.parameters["sd_g"].values[:, 1].std() > 0.01
    target = post.density
    phi = designs.somewhere(target)
    steps = 1e-5 * np.eye(target.size)
    slopes = (target.values(phi + steps) - target.values(phi - steps)) / 2e-5
    np.testing.assert_allclose(target.at(phi).gradient, slopes, rtol=1e-5, atol=1e-6)
