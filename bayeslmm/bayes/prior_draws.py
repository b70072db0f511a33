"""Parameters, random effects and responses drawn from the priors."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.bayes import tree
from bayeslmm.bayes.density import Density, density
from bayeslmm.bayes.doors import optional
from bayeslmm.bayes.posterior import Draws, Posterior
from bayeslmm.bayes.posterior_rows import errors_drawn, linear_predictor
from bayeslmm.bayes.propriety import improper
from bayeslmm.covariance.triangle import cholesky
from bayeslmm.errors import PriorError
from bayeslmm.results.rows import demand_count
from bayeslmm.seeds import generator

Generator = np.random.Generator


def prior_predictive(model: Any, draws: int = 500, seed: int | None = None) -> Any:
    """A `DataTree` with groups prior, prior_predictive, observed_data, constant_data; one chain.

    Raises PriorError where a prior is improper: nothing can be drawn from it.
    """
    found, errors = drawn(model, draws, seed)
    whole = optional("xarray").DataTree
    name = tree.response_name(found)
    coords = {"chain": [0], "draw": np.arange(draws), "obs": np.arange(model.design.nobs)}
    y = linear_predictor(found) + errors
    predictive = optional("xarray").Dataset({name: (("chain", "draw", "obs"), y[None])}, coords=coords)
    groups = {"prior": tree.dataset(found, tree.posterior_variables(found)), "prior_predictive": predictive}
    return whole.from_dict(groups | {"observed_data": tree.observed(found), "constant_data": tree.constant(found)})


def drawn(model: Any, draws: int, seed: int | None) -> tuple[Posterior, Array]:
    """Draws of all parameters from the priors, and of the errors given them, (draws, n)."""
    demand_count(draws, "draws")
    target = density(model.problem, model.spec.priors)
    loose = improper(target.priors)
    if loose:
        names = ", ".join(row.label for row in loose[:6])
        raise PriorError(
            f"nothing can be drawn from improper priors: {names}", names, 'use Priors(alpha="normal") and defaults for the rest'
        )
    rng = generator(seed)
    phi = phi_drawn(target, rng, draws)
    alpha = rng.normal(
        [row.prior.parameters[0] for row in target.priors.alpha],
        [row.prior.parameters[1] for row in target.priors.alpha],
        (draws, len(target.priors.alpha)),
    )
    found = Draws(phi, alpha, beta_drawn(target, phi, rng), target.log_prior(phi))
    post = Posterior(model, target, found, chains=1, method="prior", checks={}, elapsed=0.0)
    return post, errors_drawn(post, np.arange(draws), rng)


def phi_drawn(target: Density, rng: Generator, draws: int) -> Array:
    """Covariance parameters (draws, d) from their priors."""
    layout = target.layout
    parts = [block.axes.draws(rng, draws) for block in layout.matrices]
    if layout.variance is not None:
        parts.append(layout.variance.draws(rng, draws))
    if layout.sigma is not None:
        parts.append(layout.sigma.draws(rng, draws))
    return np.concatenate(parts, axis=1)


def beta_drawn(target: Density, phi: Array, rng: Generator) -> tuple[Array, ...]:
    """Random effects of every term, (draws, K, q), given covariance parameters."""
    found = []
    for block, term in zip(target.layout.terms, target.problem.design.terms, strict=True):
        root = cholesky(block.covariance(phi))
        z = rng.standard_normal((len(phi), term.group.size, term.Z.shape[1])) @ root.swapaxes(-1, -2)
        found.append(z if term.relationship is None else np.einsum("kl,slq->skq", cholesky(term.relationship), z))
    return tuple(found)
