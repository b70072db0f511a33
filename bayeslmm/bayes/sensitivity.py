"""Sensitivity of a posterior to its priors and to the data: power-scaling, and other priors by reweighting draws.

The draws are joint ones of alpha and the covariance parameters, beta integrated out: a power of the priors is one of all of them, alpha's
included, and a power of the likelihood is one of p(y | alpha, covariance parameters).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._lazy import optional
from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.bayes.posterior.datatree import joint_log_prior
from bayeslmm.bayes.posterior.tables import parameter_draws
from bayeslmm.bayes.sampling.importance import Weights, smooth_weights
from bayeslmm.errors import SamplingError

if TYPE_CHECKING:
    from bayeslmm.bayes.posterior.data import PosteriorData
    from bayeslmm.specification.priors import Priors


TRUSTED_K = 0.7
"""Pareto k above which reweighting is refused."""


def sensitivity(post: PosteriorData, threshold: float = 0.05) -> pd.DataFrame:
    """`az.psense_summary` of the coefficients and covariance parameters: change of the posterior with a power of prior or likelihood.

    Prior: of alpha and the covariance parameters. Likelihood: of y given both, beta integrated out. Columns `prior, likelihood, diagnosis`.

    >>> sensitivity(post).columns.tolist()
    ['prior', 'likelihood', 'diagnosis']
    """
    xarray = optional("xarray")
    dims, coords = ("chain", "draw"), {"chain": np.arange(post.chains), "draw": np.arange(post.draws.size // post.chains)}
    prior = joint_log_prior(post)
    likelihood = post.density.log_likelihood_given(post.draws.phi, post.draws.alpha)
    values = dict(zip(post.coef_names, post.draws.alpha.T, strict=True))
    values |= {f"{name}|{group}": draws for group, name, draws in parameter_draws(post)}
    groups = {
        "posterior": xarray.Dataset({name: (dims, post.shaped(v)) for name, v in values.items()}, coords=coords),
        "log_prior": xarray.Dataset({"priors": (dims, post.shaped(prior))}, coords=coords),
        "log_likelihood": xarray.Dataset({"y": (dims, post.shaped(likelihood))}, coords=coords),
    }
    table: pd.DataFrame = optional("arviz_stats").psense_summary(xarray.DataTree.from_dict(groups), threshold=threshold)
    return table


@dataclass(frozen=True, slots=True, eq=False)
class ReweightedParameters:
    """Parameters under other priors.

    frame : `effect, group, term, estimate, std_error, shift`, the shift in sds of the posterior that was drawn
    k : Pareto shape of the weights; ess : their effective number
    """

    frame: pd.DataFrame
    k: float
    ess: float


def reweight(post: PosteriorData, priors: Priors) -> ReweightedParameters:
    """The posterior under other priors of the covariance parameters, by importance weights on the draws at hand.

    Raises SamplingError where the weights are not to be trusted: sample again then. Priors of alpha stay as they are.
    """
    other = density(post.problem, priors)
    if not np.allclose(other.kernel_points(post.draws.phi)[0], post.kernel_points[0]):
        raise SamplingError("the other priors bound a parameter that was free", "priors", "sample the model with these priors")
    weights = smooth_weights(other.log_prior(post.draws.phi) - post.density.log_prior(post.draws.phi))
    if not weights.k <= TRUSTED_K:
        raise SamplingError(f"the weights of the other priors have k {weights.k:.2f}", "priors", "sample the model with these priors")
    rows: list[tuple[Any, ...]] = [("fixed", None, name, v) for name, v in zip(post.coef_names, post.draws.alpha.T, strict=True)]
    rows += [("ran_pars", group, name, v) for group, name, v in parameter_draws(post)]
    found = [(*row[:3], *_moments(row[3], weights)) for row in rows]
    return ReweightedParameters(
        pd.DataFrame(found, columns=["effect", "group", "term", "estimate", "std_error", "shift"]), weights.k, weights.ess
    )


def _moments(values: Array, weights: Weights) -> tuple[float, float, float]:
    w = np.exp(weights.log)
    mean = float(w @ values)
    sd = float(np.sqrt(w @ (values - mean) ** 2))
    own = float(values.std())
    return mean, sd, (mean - float(values.mean())) / own if own > 0 else np.nan
