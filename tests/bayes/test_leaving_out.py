"""Leaving out observations and groups: against the definition, and against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.held_out import density_without, log_likelihoods, predictive_densities
from bayeslmm.bayes.loo import conditional_densities
from bayeslmm.bayes.posterior.predict import error_variance
from bayeslmm.errors import InferenceError
from tests.bayes import designs

CHEAP = ["slopes", "crossed", "weights and offset", "related", "us errors", "ar1 errors", "spatial errors", "variance function"]


def posterior(name: str, priors: Any = None, draws: int = 100) -> Any:
    return designs.model(name, priors).sample(draws=draws, seed=1, method="importance")


@pytest.mark.parametrize("alpha", ["flat", "normal"])
@pytest.mark.parametrize("name", CHEAP)
def test_one_observation_in_closed_form_is_the_gap_between_two_likelihoods(name: str, alpha: str) -> None:
    """log p(y_i | the others, phi) = log p(y | phi) - log p(the others | phi), by two ways that share nothing but the kernel."""
    own = designs.model(name, blm.Priors(alpha=alpha))
    post = own.sample(draws=5, chains=1, seed=1, method="importance")
    target, phi = post.density, post.draws.phi[:3]
    whole, closed = log_likelihoods(target, phi), conditional_densities(post, phi)
    for i in (0, 19, 47):
        less = density_without(target, np.array([i]), f"row {i}")
        np.testing.assert_allclose(closed[:, i], predictive_densities(target, less, phi, whole), atol=1e-8)


def test_a_group_left_out_is_what_the_dense_definition_says() -> None:
    post = posterior("weights and offset")
    target, design = post.density, post.design
    phi, out = post.draws.phi[:2], np.flatnonzero(design.terms[0].group.codes == 3)
    found = predictive_densities(target, density_without(target, out, "g3"), phi, log_likelihoods(target, phi))
    kept = np.setdiff1d(np.arange(design.nobs), out)
    for value, own in zip(found, phi, strict=True):
        V = designs.dense_covariance(target, own)
        gap = restricted(design.y - design.offset, design.X, V) - restricted(
            (design.y - design.offset)[kept], design.X[kept], V[np.ix_(kept, kept)]
        )
        assert value == pytest.approx(gap, abs=1e-8)


def restricted(y: np.ndarray, X: np.ndarray, V: np.ndarray) -> float:
    """log of the integral of N(y | X alpha, V) over alpha."""
    A = X.T @ np.linalg.solve(V, X)
    e = y - X @ np.linalg.solve(A, X.T @ np.linalg.solve(V, y))
    quadratic = e @ np.linalg.solve(V, e)
    p = X.shape[1]
    return float(-0.5 * (np.linalg.slogdet(V)[1] + np.linalg.slogdet(A)[1] + quadratic + (len(y) - p) * np.log(2.0 * np.pi)))


def test_weights_and_refits_agree_by_group() -> None:
    post = posterior("slopes", draws=500)
    exact, weights = post.loo("group", exact=True), post.loo("group", exact=False)
    assert exact.n_data_points == 8
    assert np.all(np.asarray(exact.pareto_k) == 0.0)
    # standard error of a level by weights, 1000 draws with k below .7, is a few hundredths
    np.testing.assert_allclose(exact.elpd_i, weights.elpd_i, atol=0.25)
    assert exact.elpd == pytest.approx(weights.elpd, abs=0.4)


def test_groups_add_up_to_the_evidence_in_turn() -> None:
    """p(y) = p(first groups) p(the last | the first): the gap of two evidences is what leaving the last one out gives."""
    own = designs.model("intercepts", blm.Priors(alpha="normal"))
    post = own.sample(draws=1000, seed=1)
    last = designs.grouped().query("g != 'g7'")
    scale = {row.label: row.prior for row in post.density.priors.rows()}
    priors = blm.Priors(
        alpha={"Intercept": told(scale["alpha Intercept"]), "x": told(scale["alpha x"])},
        sd=told(scale["sd g/Intercept"]),
        sigma=told(scale["sigma"]),
    )
    fewer = blm.LMM("y ~ x + (1 | g)", last, priors=priors).sample(draws=1000, seed=2)
    elpd = post.loo("group", exact=True)
    assert float(elpd.elpd_i[7]) == pytest.approx(post.log_evidence - fewer.log_evidence, abs=0.05)


def told(prior: Any) -> list[Any]:
    return list(prior.as_dict())


def test_the_result_is_one_that_arviz_compares() -> None:
    stats = pytest.importorskip("arviz_stats")
    first, second = posterior("slopes").loo(), posterior("intercepts").loo()
    assert first.elpd_i.dims == ("obs",)
    table = stats.compare({"slopes": first, "intercepts": second})
    assert set(table.index) == {"slopes", "intercepts"}


def test_what_the_rest_does_not_determine_is_refused() -> None:
    frame = designs.grouped().assign(only=lambda d: (d["g"] == "g0").astype(float))
    post = blm.LMM("y ~ x + only + (1 | g)", frame).sample(draws=50, seed=1)
    with pytest.raises(blm.errors.InferenceError) as caught:
        post.loo("group")
    assert "g0" in caught.value.where
    assert "normal" in caught.value.remedy


def test_several_factors_ask_which() -> None:
    post = posterior("crossed")
    with pytest.raises(blm.errors.SpecificationError) as caught:
        post.loo("group")
    assert "g" in caught.value.remedy
    assert post.loo("group", group="h").n_data_points == 4


@pytest.mark.parametrize("name", CHEAP)
def test_a_density_over_other_rows_is_one_in_its_values_and_at_each_point(name: str) -> None:
    """What is laid out for many points belongs to the rows that are left."""
    post = posterior(name, draws=5)
    less = density_without(post.density, np.arange(3), "rows")
    for phi in post.draws.phi[:2]:
        assert float(less.values(phi[None])[0]) == pytest.approx(less.at(phi).value, abs=1e-7)


@pytest.mark.parametrize("variance", [None, "ident(arm)"])
def test_a_row_alone_in_its_level_is_predicted_however_large_the_effects_are(variance: str | None) -> None:
    """sd of g 100,000 times sigma: rows that only their level says something of are not without a prediction."""
    rng = np.random.default_rng(4)
    g = np.r_[np.repeat(np.arange(6), 5), 6:10]
    frame = pd.DataFrame({"g": [f"g{k}" for k in g], "x": rng.normal(size=len(g)), "arm": np.where(rng.random(len(g)) < 0.5, "a", "b")})
    frame["y"] = frame["x"] + 1e5 * rng.normal(size=10)[g] + rng.normal(size=len(g))
    priors = blm.Priors(sd=("fixed", 1e5), sigma=("half_normal", 2.0))
    post = blm.LMM("y ~ x + (1 | g)", frame, priors=priors, variance=variance, check="warn").sample(draws=8, chains=1, seed=1)
    X, y, found = post.design.X, post.design.y, conditional_densities(post, post.draws.phi)
    sds = np.sqrt(np.broadcast_to(error_variance(post), (post.size, len(y))))
    for sd, own in zip(sds, found, strict=True):
        for i in range(30, 34):
            rest = np.flatnonzero(np.arange(len(y)) != i)
            # deviations from the means of levels and the means, each by its own variance: nothing is lost in V
            columns, means = np.column_stack([X, y])[rest] / sd[rest, None] ** 2, []
            for k in np.unique(g[rest]):
                mine = g[rest] == k
                weight = (sd[rest][mine] ** -2.0).sum()
                mean = columns[mine].sum(axis=0) / weight
                columns[mine] = (np.column_stack([X, y])[rest][mine] - mean) / sd[rest][mine, None]
                means.append(mean / np.sqrt(1e10 + 1.0 / weight))
            rows = np.concatenate([columns, means])
            root, alpha = np.linalg.qr(rows[:, :-1])[1], np.linalg.lstsq(rows[:, :-1], rows[:, -1])[0]
            spread = np.linalg.norm(np.linalg.solve(root.T, X[i])) ** 2 + 1e10 + sd[i] ** 2
            assert own[i] == pytest.approx(stats.norm(X[i] @ alpha, np.sqrt(spread)).logpdf(y[i]), abs=1e-4)


@pytest.mark.parametrize("residual", [None, "ar1(1 | g)"])
def test_a_row_that_fixes_a_coefficient_is_named(residual: str | None) -> None:
    frame = designs.grouped().assign(once=(np.arange(48) == 17).astype(float))
    model = {"formula": "y ~ x + once", "residual": residual} if residual else {"formula": "y ~ x + once + (1 | g)"}
    post = blm.LMM(data=frame, check="warn", **model).sample(draws=8, chains=1, seed=1)
    with pytest.raises(InferenceError, match="row 17"):
        post.loo()
