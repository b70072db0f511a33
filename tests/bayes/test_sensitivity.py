"""Sensitivity is that to all priors, alpha's included, as ArviZ says from the densities of the tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.posterior.datatree import joint_log_prior
from bayeslmm.bayes.posterior.hypotheses import sensitivity
from bayeslmm.specification.prior_families import log_density
from tests.bayes import designs

az = pytest.importorskip("arviz_stats")

DECIDES: dict[str, Any] = {
    "normal": {"Intercept": ("normal", 1, 5), "x": ("normal", -2, 0.15)},
    "student_t": {"Intercept": ("student_t", 4, 1, 5), "x": ("student_t", 4, -2, 0.15)},
    "laplace": {"x": ("laplace", -2, 0.08)},
}


@pytest.mark.parametrize("family", list(DECIDES))
def test_a_prior_of_a_coefficient_that_decides_is_seen(family: str) -> None:
    own = designs.model("intercepts", blm.Priors(alpha=DECIDES[family]))
    post = own.sample(draws=1000, seed=1)
    assert sensitivity(post).loc["x", "prior"] > 0.05
    free = designs.model("intercepts", blm.Priors(alpha={"x": ("normal", 0, 100)})).sample(draws=1000, seed=1)
    assert sensitivity(free).loc["x", "prior"] < 0.05


def test_the_group_of_log_priors_is_what_arviz_scales() -> None:
    post = designs.model("intercepts", blm.Priors(alpha=DECIDES["normal"])).sample(draws=1000, seed=1)
    theirs = az.psense_summary(post.tree, var_names=["alpha"])
    assert float(theirs.iloc[1]["prior"]) == pytest.approx(float(sensitivity(post).loc["x", "prior"]), rel=0.1, abs=0.02)


def test_log_priors_are_those_of_what_a_user_speaks_of() -> None:
    priors = blm.Priors(alpha={"x": ("student_t", 3, 0, 1)}, sd=("half_normal", 2), sigma=("exponential", 1))
    post = designs.model("intercepts", priors).sample(draws=50, seed=1)
    rows = {row.label: row.prior for row in post.density.priors.rows()}
    direct = log_density(rows["alpha x"], post.draws.alpha[:, 1])
    direct = direct + log_density(rows["sd g/Intercept"], post.parameters["sd_g"].values[:, 0])
    direct = direct + log_density(rows["sigma"], post.parameters["sigma"].values)
    np.testing.assert_allclose(joint_log_prior(post), direct, rtol=1e-10)


@pytest.mark.parametrize("name", ["slopes", "crossed", "weights and offset", "us errors", "variance function"])
def test_the_likelihood_given_alpha_is_that_of_the_definition(name: str) -> None:
    post = designs.model(name).sample(draws=5, chains=1, seed=1, method="importance")
    found = post.density.log_likelihood_given(post.draws.phi, post.draws.alpha)
    design = post.design
    for value, phi, alpha in zip(found, post.draws.phi, post.draws.alpha, strict=True):
        V = designs.dense_covariance(post.density, phi)
        e = design.y - design.X @ alpha - (0.0 if design.offset is None else design.offset)
        direct = -0.5 * (np.linalg.slogdet(V)[1] + e @ np.linalg.solve(V, e) + len(e) * np.log(2.0 * np.pi))
        assert value == pytest.approx(direct, rel=1e-9)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("held", ["sd", "sigma"])
def test_what_is_held_answers_to_nothing_and_changes_no_other_row(held: str) -> None:
    priors: dict[str, Any] = {"sd": {"g": ("fixed", 0.7)}} if held == "sd" else {"sigma": ("fixed", 0.9)}
    table = designs.model("intercepts", blm.Priors(alpha="normal", **priors)).sample(draws=200, seed=1).sensitivity()
    name = "sd__Intercept|g" if held == "sd" else "sd__Observation|Residual"
    assert table.loc[name].tolist() == [0.0, 0.0, "fine"]
    assert table.index.tolist() == ["Intercept", "x", "sd__Intercept|g", "sd__Observation|Residual"]
    assert (table.drop(index=name)["likelihood"] > 0).all()


def test_a_conflict_is_in_the_table_and_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    tight = blm.Priors(alpha={"x": ("normal", 8, 0.3)})
    table = designs.model("intercepts", tight).sample(draws=200, seed=1).sensitivity()
    assert "conflict" in table.loc["x", "diagnosis"]
    assert not caplog.records
