"""Both PyMC graphs are the kernel: their density, their mode, and what they draw."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.bayes.log_posterior.transforms import GeneralTransform
from bayeslmm.bayes.posterior.data import named_parameters
from bayeslmm.bayes.pymc_model import model as graph_effects
from bayeslmm.bayes.pymc_model import model as graph_model
from bayeslmm.bayes.sampling.nuts import ess
from bayeslmm.errors import SpecificationError
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.prediction import conditional_covariances, conditional_modes
from bayeslmm.specification.prior_families import FAMILIES, Family
from tests.bayes import designs

PLAIN = "FAST_COMPILE"
"""Graphs run node by node: nothing is compiled."""


@cache
def model(name: str) -> Any:
    return designs.model(name)


def points(name: str, count: int = 3) -> list[tuple[Any, np.ndarray, CriterionPoint]]:
    """(density, phi, the ML criterion's point there) around the start, sigma and alpha profiled."""
    own, rng = model(name), np.random.default_rng(3)
    problem, target, found = own.problem, density(own.problem, own.spec.priors), []
    while len(found) < count:
        x = problem.start + 0.2 * rng.standard_normal(problem.size)
        x[: problem.random.size] = np.abs(x[: problem.random.size])
        # once there and back: axes of correlations hold what they can
        x = target.kernel_points(target.phi_of(x, 1.0)[None])[0][0]
        point = problem.criterion.at(x, False, 1)
        if np.isfinite(point.value):
            phi = target.phi_of(x, float(np.sqrt(point.sigma2)))
            assert target.kernel_points(phi[None])[0][0] == pytest.approx(x, rel=1e-11, abs=1e-11)
            found.append((target, phi, point))
    return found


def at(graph: pm.Model, target: Any, phi: np.ndarray, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The point of a graph where its variables have the values that phi stands for."""
    known = {name: v.values[0] for name, v in named_parameters(target, phi[None]).items()} | given | axes_of(target, phi)
    known |= {f"{name}[all]": np.ravel(value)[0] for name, value in known.items() if name.startswith("sd_")}
    found = {}
    for variable in graph.free_RVs:
        value, transform = known[variable.name], graph.rvs_to_transforms[variable]
        if transform is not None:
            value = transform.forward(pt.as_tensor_variable(np.asarray(value, float)), *variable.owner.inputs).eval(mode=PLAIN)
        found[graph.rvs_to_values[variable].name] = np.asarray(value, float)
    return found


def axes_of(target: Any, phi: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for block, term in zip(target.layout.terms, target.problem.design.terms, strict=True):
        own = phi[block.part]
        found[f"axis | {term.group.name}"] = own if isinstance(block.axes, GeneralTransform) else own[block.axes.sds.size :]
    for block in target.layout.sets:
        own = phi[block.part]
        found["axis_residual"] = own if isinstance(block.axes, GeneralTransform) else own[block.axes.sds.size :]
    return found


def alpha_hat(target: Any, point: CriterionPoint) -> np.ndarray:
    assert point.state is not None
    return np.asarray(target.problem.alpha(point.state.solution.alpha[0]))


SIMPLER = ("intercepts", "independent slopes", "toep errors")
"""Models whose terms and errors others have as well."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SIMPLER else ()) for n in designs.MODELS])
def test_the_marginal_graph_has_the_density_of_the_kernel(name: str) -> None:
    graph = model(name).to_pymc("marginal")
    seen = graph.compile_logp(vars=graph.observed_RVs, mode=PLAIN)
    every = graph.compile_logp(mode=PLAIN)
    gaps = []
    for target, phi, point in points(name):
        here = at(graph, target, phi, {"alpha": alpha_hat(target, point)})
        assert seen(here) == pytest.approx(-0.5 * point.value, abs=1e-8)
        gaps.append(float(every(here)) + 0.5 * point.value - float(target.log_prior(phi[None])[0]))
    # the axes of alpha, and of the one correlation of ar1, have other units: a constant
    assert np.ptp(gaps) < 1e-7


def test_away_from_the_profile_the_marginal_density_falls_as_the_information_says() -> None:
    name = "slopes"
    graph = model(name).to_pymc()
    seen, slope = graph.compile_logp(vars=graph.observed_RVs, mode=PLAIN), graph.compile_dlogp(mode=PLAIN)
    target, phi, point = points(name, 1)[0]
    assert point.state is not None
    c = target.problem.standardization
    away = np.array([0.3, -0.2])
    alpha = alpha_hat(target, point) + c.y_scale * c.back @ away
    fall = 0.5 * away @ point.state.solution.Xy[0, :2, :2] @ away / point.sigma2
    here = at(graph, target, phi, {"alpha": alpha})
    assert seen(here) == pytest.approx(-0.5 * point.value - fall, abs=1e-8)
    whole, flat = graph.compile_logp(mode=PLAIN), np.concatenate([np.ravel(v) for v in here.values()])

    def moved(vector: np.ndarray) -> float:
        begin, out = 0, {}
        for key, value in here.items():
            out[key] = vector[begin : begin + value.size].reshape(value.shape)
            begin += value.size
        return float(whole(out))

    numeric = [(moved(flat + e) - moved(flat - e)) / 2e-5 for e in 1e-5 * np.eye(len(flat))]
    np.testing.assert_allclose(slope(here), numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", ["slopes", "ar1 errors", "variance function"])
def test_the_hierarchical_graph_with_beta_integrated_is_the_kernel(name: str, centred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """log p(y) = log p(y, beta) - log p(beta | y) at any beta; here at the conditional modes, where the last is known from the kernel."""
    monkeypatch.setattr(graph_model, "choose_centred", lambda target, phi: [centred] * len(target.layout.terms))
    graph = model(name).to_pymc("hierarchical")
    seen = graph.compile_logp(vars=graph.observed_RVs, mode=PLAIN)
    effects = next(rv for rv in graph.free_RVs if rv.name.startswith("beta_"))
    own = graph.compile_logp(vars=[effects], mode=PLAIN)
    for target, phi, point in points(name, 2):
        beta, C = conditional_modes(target.problem, point)[0], conditional_covariances(target.problem, point)[0]
        T = np.linalg.cholesky(target.layout.terms[0].covariance(phi[None])[0])
        given = {"alpha": alpha_hat(target, point), "beta_g": beta, "beta_g (standard)": np.linalg.solve(T, beta.T).T}
        here = at(graph, target, phi, given)
        volume = 0.0 if centred else -len(beta) * float(np.log(np.diagonal(T)).sum())
        after = -0.5 * float(np.linalg.slogdet(2.0 * np.pi * C)[1].sum())
        assert seen(here) + own(here) + volume - after == pytest.approx(-0.5 * point.value, abs=1e-8)


def test_terms_are_centred_where_the_data_inform_their_effects() -> None:
    strong = blm.LMM("y ~ x + (1 | g)", designs.grouped(each=40, sd=(3.0, 0.1)))
    weak = blm.LMM("y ~ x + (1 | g)", designs.grouped(each=2, sd=(0.1, 0.1), sigma=3.0), check="warn")
    for own, expected in ((strong, True), (weak, False)):
        target = density(own.problem, None)
        assert graph_effects.choose_centred(target, graph_model.mode_start(target)) == [expected]


@pytest.mark.filterwarnings("ignore:.*find_MAP.*:FutureWarning")
def test_the_mode_of_the_flat_marginal_graph_is_the_ml_estimate() -> None:
    own = designs.model("slopes", blm.Priors(preset="reml"))
    with pytensor.config.change_flags(mode=PLAIN):
        mode = pm.find_MAP(model=own.to_pymc(), progressbar=False, return_inferencedata=False, jitter=False)
    fit = own.fit("ML")
    np.testing.assert_allclose(mode["sigma"], fit.sigma, rtol=1e-3)
    np.testing.assert_allclose(mode["sd_g"], np.sqrt(np.diag(fit.D["g"])), rtol=3e-3)
    np.testing.assert_allclose(mode["alpha"], fit.fixef, rtol=1e-4)


@pytest.mark.parametrize("form", ["marginal", "hierarchical"])
@pytest.mark.parametrize("name", ["slopes", "us errors"])
def test_priors_and_responses_are_drawn(name: str, form: str) -> None:
    own = designs.model(name, blm.Priors(alpha="normal"))
    with pytensor.config.change_flags(mode=PLAIN):
        tree = pm.sample_prior_predictive(4, model=own.to_pymc(form), random_seed=1)
    assert tree["prior_predictive"]["y"].shape == (1, 4, 48)
    prior = tree["prior"]
    assert prior["alpha"].dims == ("chain", "draw", "coef")
    corr = np.asarray(prior["corr_g" if name == "slopes" else "corr_residual"])
    np.testing.assert_allclose(np.diagonal(corr, axis1=-2, axis2=-1), 1.0)
    assert np.ptp(corr[0, :, 1, 0]) > 0


def test_names_dims_and_coords_are_those_of_a_posterior() -> None:
    graph = model("independent slopes").to_pymc("hierarchical")
    assert [rv.name for rv in graph.observed_RVs] == ["y"]
    assert {"alpha", "sigma", "sd_g", "beta_g"} <= set(graph.named_vars)
    assert graph.coords["coef"] == ("Intercept", "x")
    assert graph.coords["g_term"] == ("Intercept", "x")
    assert graph.coords["g"][:2] == ("g0", "g1")


def test_another_response_is_another_likelihood() -> None:
    """The response is an input of the node: another one is answered for, and the first one again afterwards."""
    own = model("slopes")
    target, phi, point = points("slopes", 1)[0]
    function = graph_model.MarginalFunction(own.problem)
    x = np.concatenate([block.axes.values(phi[None, block.part])[0] for block in target.layout.terms])
    here = np.append(x, np.log(target.sigma(phi[None])))
    alpha, other = alpha_hat(target, point), own.y[::-1] * 2.0
    elsewhere = graph_model.MarginalFunction(own.with_response(other).problem)(here, alpha, other)
    first = function(here, alpha, own.y)[0]
    np.testing.assert_allclose(function(here, alpha, other)[0], elsewhere[0], rtol=1e-12)
    assert function(here, alpha, own.y)[0] == pytest.approx(first, rel=1e-12)


def test_a_form_that_is_not_there_is_refused() -> None:
    with pytest.raises(blm.errors.SpecificationError) as caught:
        model("crossed").to_pymc("bayesian")
    assert "'marginal', 'hierarchical'" in caught.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize("form", ["marginal", "hierarchical"])
@pytest.mark.parametrize(("name", "sampler"), [("slopes", "pymc"), ("slopes", "nutpie"), ("ar1 errors", "pymc")])
def test_both_graphs_are_sampled_by_pymc_and_by_nutpie(name: str, sampler: str, form: str) -> None:
    """By chains in processes of their own, as `pm.sample` does: every mean is that of the collapsed posterior."""
    options = {"tune": 500, "chains": 2, "cores": 2, "random_seed": 1, "progressbar": False, "compute_convergence_checks": False}
    tree = pm.sample(500, model=model(name).to_pymc(form), nuts_sampler=sampler, **options)
    assert sampler in (tree["posterior"].attrs.get("inference_library"), tree.attrs.get("inference_library"))
    posterior, collapsed = tree["posterior"], model(name).sample(seed=1).tree["posterior"]
    for variable in ("alpha", "sigma", "sd_g", *(("rho",) if "rho" in collapsed else ("corr_g",))):
        draws, exact = np.asarray(posterior[variable]), np.asarray(collapsed[variable])
        for index in np.ndindex(draws.shape[2:]):
            own, theirs = draws[(..., *index)], exact[(..., *index)]
            if theirs.std() < 1e-9:  # the diagonal of a correlation matrix
                continue
            error = theirs.std() * np.sqrt(1.0 / min(ess(own), own.size) + 2.0 / theirs.size)
            assert abs(own.mean() - theirs.mean()) < 5.0 * error, (variable, index)


SD_FAMILIES = [family for family in FAMILIES.values() if family.support in ("positive", "interval", "point")]


@pytest.mark.parametrize("family", SD_FAMILIES, ids=[family.name for family in SD_FAMILIES])
def test_every_family_of_sds_has_a_graph_or_is_refused(family: Family) -> None:
    rng = np.random.default_rng(7)
    data = pd.DataFrame({"g": np.repeat(np.arange(6), 4), "x": rng.normal(size=24), "y": rng.normal(size=24)})
    values = (0.5, 3.0)[: len(family.parameters)] if family.support == "interval" else (2.0,) * len(family.parameters)
    graph = blm.LMM("y ~ x + (1 | g)", data, priors=blm.Priors(sd=(family.name, *values))).to_pymc()
    assert graph["sd_g"].type.ndim == 1


def test_bambi_refuses_an_sd_that_is_held() -> None:
    data = {"g": list("aabbcc") * 2, "y": [1.0, 2.0, 4.0, 3.5, 2.0, 5.0, 1.5, 2.5, 3.0, 4.5, 2.2, 4.1]}
    with pytest.raises(SpecificationError, match="held"):
        blm.LMM("y ~ 1 + (1 | g)", data, priors=blm.Priors(sd=("fixed", 2.0))).to_bambi()
