"""K-fold cross-validation: every fold predicted by the posterior given the others, alpha and random effects integrated out.

The units of a fold (rows, or levels of a grouping factor with all their rows) are predicted one by one, so that as many folds as units are
leave-one-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm._arrays import Array, Codes, seed_sequence
from bayeslmm._validation import require_count, require_flag, require_name
from bayeslmm.bayes.log_posterior.density import Density
from bayeslmm.bayes.loo import (
    REFIT_DRAWS,
    conditional_log_means,
    density_without,
    held_out,
    held_out_densities,
    log_likelihoods,
    log_mean,
    mean_densities,
)
from bayeslmm.bayes.sampling.importance import resample_systematically, sample_importance
from bayeslmm.bayes.sampling.mode import find_mode
from bayeslmm.errors import SamplingError, SpecificationError, optional
from bayeslmm.results.render import progress_bar
from bayeslmm.results.response_scale import log_jacobian

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

    from bayeslmm.bayes.posterior.data import PosteriorData

INSIDE_DRAWS = 500
"""Draws of the whole posterior that a level's density is averaged over."""


WORTH_OF_BATCH, FEWER_DRAWS = 16, 250
"""Where fewer points than this are evaluated at once, a unit's density is averaged over fewer draws."""


def cross_validate(
    post: PosteriorData, k: int, by: str, group: str | None, seed: int, *, jacobian: bool = False, progress: bool | None = None
) -> ELPDData:
    """Expected log predictive density of units in k random folds of about one size, an ArviZ `ELPDData`.

    by : "observation", "group", or the name of a grouping factor

    Raises SpecificationError for more folds than units, InferenceError where the other folds do not determine alpha under its flat prior,
    SamplingError where the posterior given them cannot be sampled.
    """
    named = require_name(by, "by") not in ("observation", "group")
    sets, labels, dim = held_out(post, "group" if named else by, by if named else group)
    count = require_count(k, "k")
    if not 2 <= count <= len(sets):
        raise SpecificationError(f"{count} folds of {len(sets)} units", "k", f"give a number from 2 to {len(sets)}")
    shift = log_jacobian(post.design) if require_flag(jacobian, "jacobian") else np.zeros(post.design.nobs)
    streams = seed_sequence(seed).spawn(count + 1)
    folds = np.array_split(np.random.default_rng(streams[0]).permutation(len(sets)), count)
    begin = post.draws.phi[int(np.argmax(post.draws.log_density))]
    elpd = np.empty(len(sets))
    with progress_bar("cross-validating", len(sets), progress) as advance:
        for number, (fold, stream) in enumerate(zip(folds, streams[1:], strict=True), 1):
            out = np.sort(np.concatenate([sets[unit] for unit in fold]))
            label = f"fold {number}"
            less = density_without(post.density, out, label)
            phi, weights = _weighted_given(less, begin, label, np.random.default_rng(stream))
            # given the other folds and phi, a unit has the density by which it raises theirs
            rest = log_likelihoods(less, phi)
            for unit in fold:
                with_unit = density_without(post.density, np.setdiff1d(out, sets[unit]), label) if len(fold) > 1 else post.density
                elpd[unit] = log_mean(log_likelihoods(with_unit, phi) - rest, weights)
                advance(1)
    moved = np.array([shift[rows].sum() for rows in sets])
    return _as_elpd(post, elpd + moved, _inside(post, sets, dim, labels) + moved, (dim, labels), count)


def _inside(post: PosteriorData, sets: list[Codes], dim: str, labels: list[object]) -> Array:
    """log mean density of every unit by the posterior that has seen it."""
    if dim == "obs":
        return conditional_log_means(post)
    chosen = np.unique(np.linspace(0, post.size - 1, min(post.size, INSIDE_DRAWS)).astype(int))
    names = [f"{dim} {label}" for label in labels]
    return mean_densities(held_out_densities(post, post.draws.phi[chosen], sets, names, lambda _: None))


def _weighted_given(less: Density, begin: Array, label: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draws of phi given the other folds, and their log weights."""
    found = sample_importance(less.values, find_mode(less, begin), REFIT_DRAWS, rng)
    if not found.trusted:
        raise SamplingError(
            f"the posterior without {label} could not be sampled by importance weights", label, "use loo(), or fewer covariance parameters"
        )
    if less.value_batch >= WORTH_OF_BATCH:
        return found.points, found.weights.log
    points = found.points[resample_systematically(found.weights, FEWER_DRAWS, rng)]
    return points, np.full(FEWER_DRAWS, -np.log(FEWER_DRAWS))


def _as_elpd(post: PosteriorData, elpd: Array, inside: Array, dim: tuple[str, list[object]], folds: int) -> ELPDData:
    utils, xarray = optional("arviz_stats.utils"), optional("xarray")
    coords = {dim[0]: dim[1]}
    name = str(post.design.spec.formula.response)
    made: ELPDData = utils.ELPDDataLOOKFold(
        elpd=float(elpd.sum()),
        se=float(np.sqrt(len(elpd) * elpd.var())),
        p=float(inside.sum() - elpd.sum()),
        n_samples=REFIT_DRAWS,
        n_data_points=len(elpd),
        scale="log",
        warning=False,
        good_k=None,
        elpd_i=xarray.DataArray(elpd, dims=dim[:1], coords=coords, name=name),
        n_folds=folds,
        p_kfold_i=xarray.DataArray(inside - elpd, dims=dim[:1], coords=coords, name=name),
    )
    return made
