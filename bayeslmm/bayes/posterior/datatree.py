"""The ArviZ `DataTree` of a posterior: named dimensions, labelled coordinates, and how the draws were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm._arrays import Array, generator
from bayeslmm._validation import require_count
from bayeslmm.bayes.log_posterior.priors import improper_priors
from bayeslmm.bayes.posterior.data import Variable, group_columns, plain_name, tree_names
from bayeslmm.bayes.posterior.predict import draw_posterior_errors, linear_predictor, log_likelihood
from bayeslmm.errors import optional
from bayeslmm.results.random_effects import terms_by_group

if TYPE_CHECKING:
    import xarray

    from bayeslmm.bayes.posterior.data import PosteriorData


POINTWISE_ELEMENTS = 100_000_000
"""Draws x observations above which pointwise log likelihoods are not kept in the tree."""


def build_tree(post: PosteriorData) -> xarray.DataTree:
    """Groups posterior, sample_stats, log_prior, log_likelihood, observed_data, constant_data; the last three need rows."""
    groups = {
        "posterior": draws_dataset(post, posterior_variables(post)),
        "sample_stats": draws_dataset(post, {name: Variable(v, (), {}) for name, v in _statistics(post).items()}),
        "log_prior": draws_dataset(post, log_priors(post)),
    }
    if post.design.in_memory:
        groups |= {"observed_data": observed_dataset(post), "constant_data": constant_dataset(post)}
    if post.design.in_memory and post.draws.size * post.design.nobs <= POINTWISE_ELEMENTS:
        rows = Variable(log_likelihood(post), ("obs",), {"obs": list(range(post.design.nobs))})
        groups["log_likelihood"] = draws_dataset(post, {response_label(post): rows})
    tree: xarray.DataTree = optional("xarray").DataTree.from_dict(groups)
    tree.attrs.update(tree_attributes(post))
    for name in ("posterior", "sample_stats"):
        tree[name].attrs.update(tree_attributes(post))
    return tree


def parameter_tree(post: PosteriorData) -> xarray.DataTree:
    """The group `posterior` alone: what a table of parameters needs, without a density of every observation."""
    tree: xarray.DataTree = optional("xarray").DataTree.from_dict({"posterior": draws_dataset(post, posterior_variables(post))})
    return tree


def response_label(post: PosteriorData) -> str:
    """The left side of the formula."""
    return tree_names(post.problem).response


def log_priors(post: PosteriorData) -> dict[str, Variable]:
    """Log prior densities of the coefficients (0 where flat) and of the covariance parameters, each of what a user speaks of."""
    found = {"alpha": Variable(post.density.alpha.log_density(post.draws.alpha), ("coef",), {"coef": post.coef_names})}
    called = tree_names(post.problem).groups
    parts = post.density.without_volume().log_priors(post.draws.phi)
    for group, own in parts.items():
        found[f"covariance_{called.get(group, group)}"] = Variable(own, (), {})
    return found


def joint_log_prior(post: PosteriorData) -> Array:
    """log p(alpha, covariance parameters) of every draw, (S,), up to a constant where a prior is flat."""
    return np.asarray(sum(v.values if v.values.ndim == 1 else v.values.sum(axis=1) for v in log_priors(post).values()))


def posterior_variables(post: PosteriorData) -> dict[str, Variable]:
    """alpha, the covariance parameters, and beta of every grouping factor."""
    found = {"alpha": Variable(post.draws.alpha, ("coef",), {"coef": post.coef_names}), **post.parameters}
    found |= dict(correlation_pairs(post.parameters))
    found |= {name: variable for _, name, variable in random_effect_variables(post)}
    return found


def correlation_pairs(parameters: Mapping[str, Variable]) -> Iterator[tuple[str, Variable]]:
    """`cor_<group>`, each correlation of `corr_<group>` once, as figures show them: neither the diagonal nor the other half."""
    for name, variable in parameters.items():
        if name.startswith("corr_"):
            labels = list(variable.coords[variable.dims[0]])
            a, b = np.triu_indices(len(labels), 1)
            dim = f"{variable.dims[0].removesuffix('_term')}_pair"
            pairs = [f"{labels[i]}.{labels[j]}" for i, j in zip(a, b, strict=True)]
            yield f"cor_{name.removeprefix('corr_')}", Variable(variable.values[:, a, b], (dim,), {dim: pairs})


def random_effect_variables(post: PosteriorData) -> Iterator[tuple[str, str, Variable]]:
    """Grouping factor, `beta_<group>` and its draws (S, levels, columns), the terms of a factor side by side."""
    terms, columns, called = post.design.terms, group_columns(post.density), tree_names(post.problem).groups
    for group, members in terms_by_group(terms).items():
        values = np.concatenate([post.draws.beta[i] for i in members], axis=2)
        label = called[group]
        coords: dict[str, list[Any]] = {label: terms[members[0]].group.levels.tolist(), f"{label}_term": columns[group]}
        yield group, f"beta_{label}", Variable(values, (label, f"{label}_term"), coords)


def draws_dataset(post: PosteriorData, variables: Mapping[str, Variable]) -> Any:
    """A dataset over chains and draws."""
    coords: dict[str, Any] = {"chain": np.arange(post.chains), "draw": np.arange(post.draws.size // post.chains)}
    data = {}
    for name, variable in variables.items():
        coords.update({dim: [_coordinate(label) for label in labels] for dim, labels in variable.coords.items()})
        # not to be written to: the tree shows the posterior's own draws
        values = post.reshape_draws(variable.values).view()
        values.flags.writeable = False
        data[plain_name(name)] = (("chain", "draw", *variable.dims), values)
    return optional("xarray").Dataset(data, coords=coords)


def _coordinate(label: Any) -> Any:
    """A label that any store can hold: an interval, a tuple or a list as its text."""
    return label if isinstance(label, str | int | float | np.generic) else str(label)


def _statistics(post: PosteriorData) -> dict[str, Array]:
    found = {"lp": post.draws.log_density}
    return found | {name: values for name, values in post.statistics.items() if np.ndim(values) and len(values) == post.draws.size}


def observed_dataset(post: PosteriorData) -> Any:
    y = post.design.y
    return optional("xarray").Dataset({response_label(post): (("obs",), np.array(y))}, coords={"obs": np.arange(len(y))})


def constant_dataset(post: PosteriorData) -> Any:
    design, called = post.design, tree_names(post.problem).groups
    data: dict[str, Any] = {"X": (("obs", "coef"), np.array(design.X))}
    if design.offset is not None:
        data["offset"] = (("obs",), np.array(design.offset))
    if design.weights is not None:
        data["weights"] = (("obs",), design.weights * design.weight_scale)
    for term in design.terms:
        data[f"index_{called[term.group.name]}"] = (("obs",), np.array(term.group.codes))
    return optional("xarray").Dataset(data, coords={"obs": np.arange(design.nobs), "coef": post.coef_names})


def tree_attributes(post: PosteriorData) -> dict[str, Any]:
    """How the draws were made."""
    found: dict[str, Any] = {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "bayeslmm",
        "inference_library": "bayeslmm",
        "inference_method": post.method,
        "sampling_time": float(post.elapsed),
        "formula": post.formula,
        "interrupted": int(post.interrupted),
    }
    try:
        found["creation_library_version"] = version("bayeslmm")
    except PackageNotFoundError:
        found["creation_library_version"] = "unknown"
    found |= {name: float(post.checks[name].value) for name in ("pareto_k", "importance_ess") if name in post.checks}
    if post.evidence is not None and not improper_priors(post.density.priors):
        found["log_evidence"] = float(post.evidence)
    return found


def predictive_draws(post: PosteriorData, draws: int | None, seed: int | None) -> Array:
    """y (chains, draws, n) drawn given alpha, beta and the covariance parameters of some draws of each chain, all by default."""
    rng, each = generator(seed), post.size // post.chains
    kept = each if draws is None else min(require_count(draws, "draws"), each)
    chosen = (np.arange(post.chains)[:, None] * each + np.linspace(0, each - 1, kept).astype(int)).ravel()
    y = linear_predictor(post, chosen) + draw_posterior_errors(post, chosen, rng)
    return np.asarray(y.reshape(post.chains, kept, -1))


def add_predictive(post: PosteriorData, tree: xarray.DataTree, draws: int | None, seed: int | None) -> xarray.DataTree:
    """The tree with responses drawn from the posterior as its group `posterior_predictive`."""
    values = predictive_draws(post, draws, seed)
    coords = {"chain": np.arange(post.chains), "draw": np.arange(values.shape[1]), "obs": np.arange(post.design.nobs)}
    found = optional("xarray").Dataset({response_label(post): (("chain", "draw", "obs"), values)}, coords=coords)
    tree["posterior_predictive"] = optional("xarray").DataTree(found)
    return tree
