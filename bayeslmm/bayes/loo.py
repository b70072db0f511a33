"""Leave-one-out and K-fold predictive densities with the random effects integrated out: by observation, or by level of a factor.

Importance weights are over the few covariance parameters only, since for each of them alpha and beta are integrated exactly; an
observation or a level whose weights cannot be trusted, or every level where that is cheap, is answered by a posterior given the rest.
Priors stay at the scale of the whole data.

For every draw of the covariance parameters  log p(y_out | y_in, phi) = log p(y | phi) - log p(y_in | phi),  both by the kernel, alpha and
beta integrated out; so no covariance matrix of rows is ever formed, and crossed factors are as easy as one.

K-fold: the units of a fold (rows, or levels of a grouping factor with all their rows) are predicted one by one, so that as many folds as
units are leave-one-out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm._arrays import Array, Codes, seed_sequence
from bayeslmm._validation import require_count, require_flag, require_name
from bayeslmm.bayes.held_out import (
    LEFT_OUT_ELEMENTS,
    DowndatedDensity,
    conditional_log_means,
    density_without,
    held_out,
    held_out_densities,
    log_likelihoods,
    log_mean,
    mean_densities,
    predictive_densities,
    require_determined,
)
from bayeslmm.bayes.log_posterior.density import BATCH_ELEMENTS, Density, with_solution
from bayeslmm.bayes.sampling.importance import limit_of_k, resample_systematically, sample_importance, smooth_weights
from bayeslmm.bayes.sampling.mode import find_mode
from bayeslmm.errors import InferenceError, SamplingError, SpecificationError, optional, show_value
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.prediction import conditional_modes, linear_predictors, row_variances
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.structured.pooled import PooledSubjectsKernel
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.results.render import progress_bar
from bayeslmm.results.response_scale import log_jacobian

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

    from bayeslmm._types import LeaveOut
    from bayeslmm.bayes.posterior.data import PosteriorData


@dataclass(frozen=True, slots=True)
class WithoutRows:
    """log p(y_out | y_in): by importance weights from the whole posterior, or exact, from a posterior given the rest.

    k : Pareto shape of the weights; exact : it was refitted
    """

    elpd: float
    k: float
    exact: bool


def log_evidence_of(target: Density, begin: Array, draws: int, rng: np.random.Generator) -> tuple[float, bool]:
    """log of the integral of the density by importance weights, and whether they are trusted.

    The gap between that of the whole data and that of the rest is log p(y_out | y_in): unlike a mean of densities of y_out over draws given
    the rest, it is not at the mercy of the few draws that expect an outlying y_out.
    """
    found = sample_importance(target.values, find_mode(target, begin), draws, rng)
    return found.weights.evidence, found.trusted


LOO_DRAWS, FEWEST_DRAWS = 1000, 250
"""Draws of the covariance parameters that weights are made from; fewer where very much is left out in turn."""


REFIT_DRAWS = 2000
"""Weighted draws of a posterior given the rest."""

EXACT_LEVELS = 60
"""The only grouping factor of a model with independent errors is refitted level by level when it has no more levels than this."""

NEARLY_ALONE = 1e-6
"""A row whose leverage is nearer to 1 than this may fix a coefficient by itself."""

LOST_SHARE = 1e-9
"""Share of a row's own precision below which what all others leave of it is lost in rounding."""


def leave_one_out(
    post: PosteriorData,
    by: LeaveOut = "observation",
    group: str | None = None,
    exact: bool | None = None,
    seed: int = 0,
    *,
    jacobian: bool = False,
    progress: bool | None = None,
) -> ELPDData:
    """Expected log predictive density by leaving out, an ArviZ `ELPDData` with `elpd_i` and `pareto_k`.

    by : "observation", or "group": one level of a grouping factor with all its rows (the subjects of R where there are no random effects)
    group : which grouping factor, where there are several
    exact : True refits for each; None refits for each of at most 60 levels of the only factor of a model with independent errors, and,
        as False does, where weights are not to be trusted
    jacobian : of the outcome rather than of its transformation: log |dg/dy| of a response g(y) is added

    Raises InferenceError where the rest would not determine alpha under its flat prior.

    >>> post.loo(by="group").n_data_points
    18
    """
    sets, labels, dim = held_out(post, by, group)
    if exact is not None:
        require_flag(exact, "exact")
    shift = log_jacobian(post.design) if require_flag(jacobian, "jacobian") else None
    alone = by == "observation"
    if alone and group is not None:
        what = f"group is {show_value(group)}, and observations are left out one by one"
        raise SpecificationError(what, "group", 'leave it out, or use by="group"')
    names = [f"row {i}" for i in labels] if alone else [f"{dim} {label}" for label in labels]
    most = max(FEWEST_DRAWS, min(LOO_DRAWS, LEFT_OUT_ELEMENTS // len(sets)))
    chosen = np.unique(np.linspace(0, post.draws.size - 1, min(post.draws.size, most)).astype(int))
    phi = post.draws.phi[chosen]
    with progress_bar("leaving out", len(phi) if alone else len(sets), progress) as advance:
        values = conditional_densities(post, phi, advance) if alone else held_out_densities(post, phi, sets, names, advance)
    cheap = not alone and len(post.design.terms) == 1 and post.problem.structured is None
    every = cheap and len(sets) <= EXACT_LEVELS if exact is None else exact
    with progress_bar("sampling without each", len(sets), progress if every else False) as advance:
        found = _by_weights(post, values, sets, names, every, seed, advance)
    inside = conditional_log_means(post) if alone else mean_densities(values)
    elpd = _elpd(post, found, (dim, labels), inside, len(phi))
    return elpd if shift is None else with_jacobian(elpd, np.array([shift[rows].sum() for rows in sets]))


# -- weights -------------------------------------------------------------------------------------------------------------------------------


def _by_weights(
    post: PosteriorData,
    values: Array,
    sets: list[Codes],
    labels: list[str],
    every: bool,
    seed: int,
    advance: Callable[[int], None],
) -> list[WithoutRows]:
    """From log p(y_out | y_in, phi) (S, sets) of draws of the whole posterior; refitted where that cannot be trusted, or for every set."""
    limit, found = min(limit_of_k(len(values)), 0.7), []
    begin = post.draws.phi[int(np.argmax(post.draws.log_density))]
    streams = seed_sequence(seed).spawn(len(sets) + 1)
    whole: tuple[float, bool] | None = None
    for own, out, label, stream in zip(values.T, sets, labels, streams[1:], strict=True):
        weights = smooth_weights(-own)
        one = WithoutRows(log_mean(own, weights.log), weights.k, False)
        advance(1)
        if every or not weights.k <= limit:
            if whole is None:
                whole = log_evidence_of(post.density, begin, 4 * REFIT_DRAWS, np.random.default_rng(streams[0]))
            try:
                rest = log_evidence_of(density_without(post.density, out, label), begin, REFIT_DRAWS, np.random.default_rng(stream))
            except InferenceError:
                # its density is known by weights alone, and k says how well
                rest = np.nan, False
            if whole[1] and rest[1]:
                one = WithoutRows(whole[0] - rest[0], 0.0, True)
        found.append(one)
    return found


def _elpd(post: PosteriorData, found: list[WithoutRows], dim: tuple[str, list[Any]], inside: Array, draws: int) -> ELPDData:
    utils, xarray = optional("arviz_stats.utils"), optional("xarray")
    elpd, k = np.array([one.elpd for one in found]), np.array([one.k for one in found])
    limit = min(limit_of_k(draws), 0.7)
    coords = {dim[0]: dim[1]}
    made: ELPDData = utils.ELPDDataLOO(
        elpd=float(elpd.sum()),
        se=float(np.sqrt(len(elpd) * elpd.var())),
        p=float(inside.sum() - elpd.sum()),
        n_samples=draws,
        n_data_points=len(elpd),
        scale="log",
        warning=bool(np.any(~(k <= limit))),
        good_k=limit,
        elpd_i=xarray.DataArray(elpd, dims=dim[:1], coords=coords, name=str(post.design.spec.formula.response)),
        pareto_k=xarray.DataArray(k, dims=dim[:1], coords=coords),
    )
    return made


# -- one observation, in closed form -------------------------------------------------------------------------------------------------------


def conditional_densities(post: PosteriorData, phi: Array, advance: Callable[[int], None] = lambda _: None) -> Array:
    """log p(y_i | all other y, phi), alpha and beta integrated out, (S, n).

    With P = V^-1 - V^-1 X (X'V^-1 X + prior)^-1 X'V^-1 the density is normal with precision P_ii and error (P y)_i / P_ii; for independent
    errors P_ii = w_i (1 - w_i h_i) / sigma^2 with h_i the variance of the i-th prediction over sigma^2, so nothing of size n x n is formed.
    """
    _require_every_row_determined(post)
    structured = post.problem.structured is not None
    out = _structured_densities(post, phi, advance) if structured else _independent_densities(post, phi, advance)
    lost = np.flatnonzero(np.isnan(out).any(axis=0))
    full = log_likelihoods(post.density, phi) if len(lost) else np.zeros(0)
    for i in lost:
        row = np.array([i])
        out[:, i] = predictive_densities(post.density, density_without(post.density, row, f"row {i}"), phi, full)
    return out


def _require_every_row_determined(post: PosteriorData) -> None:
    """Raise InferenceError for a row without which coefficients under a flat prior are not determined, whatever V is."""
    loose = [i for i, prior in enumerate(post.density.alpha.priors) if prior.family == "flat"]
    X = post.design.X[:, loose]
    size = np.linalg.norm(X, axis=0)
    leverage = (np.linalg.qr(X / np.where(size > 0, size, 1.0))[0] ** 2).sum(axis=1)
    for i in np.flatnonzero(1.0 - leverage < NEARLY_ALONE):
        require_determined(post.density, post.design.take(np.delete(np.arange(post.design.nobs), i)), f"row {i}")


def _independent_densities(post: PosteriorData, phi: Array, advance: Callable[[int], None]) -> Array:
    """As `conditional_densities`, NaN where digits are lost."""
    X, s = post.density.kernel_points(phi)
    out = np.empty((len(phi), post.design.nobs))
    with one_thread(post.problem.criterion.width):
        for i, (x, sigma) in enumerate(zip(X, s, strict=True)):
            out[i] = _densities_at_draw(post, x, float(sigma), phi[i])
            advance(1)
    return out


def _densities_at_draw(post: PosteriorData, x: Array, s: float, phi: Array) -> Array:
    return _one_row_densities(*_independent_scores(post, _point_at_draw(post.density, x, s, phi)))


def _point_at_draw(target: Density, x: Array, s: float, phi: Array) -> CriterionPoint:
    """The criterion at a draw, its coefficients given their prior."""
    state = target.problem.criterion.kernel.evaluate(x[None], derivatives=False)
    found = target.integrate(state.solution, np.array([s**2]), phi[None])
    return CriterionPoint(x, np.nan, np.full(len(x), np.nan), None, s**2, with_solution(state, found))


def _one_row_densities(precision: Array, share: Array, scores: Array) -> Array:
    """log p(y_i | all other y) of P_ii, its share of the row's own precision, and (P y)_i, (..., n); NaN where the share is lost."""
    kept = share > LOST_SHARE
    safe = np.where(kept, precision, 1.0)
    return np.where(kept, 0.5 * (np.log(safe) - np.log(2.0 * np.pi) - scores**2 / safe), np.nan)


def _independent_scores(post: PosteriorData, point: CriterionPoint) -> tuple[Array, Array, Array]:
    """P_ii with its share of the row's own precision, and (P y)_i."""
    problem, design = post.problem, post.design
    assert isinstance(point.state, RandomEffectsState)
    sigma2 = problem.sigma2(point.sigma2)
    w = np.ones(design.nobs) if design.weights is None else design.weights
    e = _errors_of_rows(problem, point, slice(None))
    h = row_variances(problem, point, design.X, [t.Z for t in design.terms], [t.group.codes for t in design.terms])
    share = 1.0 - w * h / sigma2
    return w / sigma2 * share, share, w * e / sigma2


def _errors_of_rows(problem: Problem, point: CriterionPoint, rows: Codes | slice) -> Array:
    """y - X alpha - offset - Z beta of some rows, (n,), at the conditional modes of the point."""
    design = problem.design
    assert isinstance(point.state, RandomEffectsState)
    e = design.y[rows] - linear_predictors(problem, point, design.X[rows], problem.alpha(point.state.solution.alpha[0]))
    if design.offset is not None:
        e -= design.offset[rows]
    for term, beta in zip(design.terms, conditional_modes(problem, point), strict=True):
        e -= np.einsum("nq,nq->n", term.Z[rows], beta[term.group.codes[rows]])
    return e


def _structured_densities(post: PosteriorData, phi: Array, advance: Callable[[int], None]) -> Array:
    """As `conditional_densities`, NaN where digits are lost: V^-1 in blocks, one for each kind of subject, at many draws at once."""
    target, patterns, c = post.density, post.density.pooled, post.problem.standardization
    assert isinstance(patterns, PooledSubjectsKernel)
    (X, s), p, n = target.kernel_points(phi), post.problem.criterion.p, post.design.nobs
    blocks, parts = patterns.all_rows(), []
    step = max(1, BATCH_ELEMENTS // (n * (2 * p + 4)))
    with one_thread(post.problem.criterion.width):
        for begin in range(0, len(phi), step):
            x, unit = X[begin : begin + step], s[begin : begin + step]
            found = target.integrate(patterns.solve(x), unit**2, phi[begin : begin + step]).solution
            v = np.concatenate([-found.alpha, np.ones((len(x), 1))], axis=1)
            precision, share, scores = (np.empty((len(x), n)) for _ in range(3))
            for part in patterns.row_inverses(blocks, x):
                flat = part.products[..., :p].reshape(len(x), -1, p)
                left = part.diagonal - ((flat @ found.information_inverse) * flat).sum(-1).reshape(part.diagonal.shape)
                scale = c.y_scale * part.scale
                precision[:, part.rows], share[:, part.rows] = left / (unit[:, None, None] * scale) ** 2, left / part.diagonal
                scores[:, part.rows] = (part.products @ v[:, None, :, None])[..., 0] / (unit[:, None, None] ** 2 * scale)
            parts.append(_one_row_densities(precision, share, scores))
            advance(len(x))
    return np.concatenate(parts)


def with_jacobian(elpd: ELPDData, log_jacobian: Array) -> ELPDData:
    """Predictive densities on the scale of the outcome; log_jacobian : (units,), summed over the rows of each that was left out."""
    pointwise = elpd.elpd_i + log_jacobian
    found: ELPDData = replace(elpd, elpd=float(pointwise.sum()), se=float(np.sqrt(pointwise.size * pointwise.var())), elpd_i=pointwise)
    return found


# -- folds ---------------------------------------------------------------------------------------------------------------------------------

INSIDE_DRAWS = 500
"""Draws of the whole posterior that a level's density is averaged over."""


WORTH_OF_BATCH, MANY_PREDICTED, FEWER_DRAWS = 16, 500, 250
"""Where fewer points than this are evaluated at once, or more rows predicted at each, densities are averaged over fewer draws."""

MANY_ROWS = 100
"""Rows of a fold from which all are predicted at each draw, rather than all draws for each row."""


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
    kernel = post.density.kernel
    fast = DowndatedDensity(post.density, kernel) if by == "observation" and isinstance(kernel, RandomEffectsKernel) else None
    elpd = np.empty(len(sets))
    with progress_bar("cross-validating", len(sets), progress) as advance:
        for number, (fold, stream) in enumerate(zip(folds, streams[1:], strict=True), 1):
            out = np.sort(np.concatenate([sets[unit] for unit in fold]))
            label = f"fold {number}"
            less = density_without(post.density, out, label)
            phi, weights = _weighted_given(less, begin, label, np.random.default_rng(stream), len(out) if fast is not None else 0)
            rest = fast.without(out) if fast is not None and len(out) > MANY_ROWS else None
            if rest is not None:
                elpd[fold] = _rows_given_rest(rest, np.concatenate([sets[unit] for unit in fold]), phi, weights, advance)
                continue
            # given the other folds and phi, a unit has the density by which it raises theirs
            before = log_likelihoods(less, phi)
            for unit in fold:
                with_unit = density_without(post.density, np.setdiff1d(out, sets[unit]), label) if len(fold) > 1 else post.density
                elpd[unit] = log_mean(log_likelihoods(with_unit, phi) - before, weights)
                advance(1)
    moved = np.array([shift[rows].sum() for rows in sets])
    return _as_elpd(post, elpd + moved, _inside(post, sets, dim, labels) + moved, (dim, labels), count)


def _rows_given_rest(rest: Density, out: Codes, phi: Array, weights: Array, advance: Callable[[int], None]) -> Array:
    """log mean density of every row (out,) given the rest, over weighted draws: each has a normal predictor, and the error beside it.

    rest : the density of the rows that are left, with the levels of all
    """
    problem, design, total = rest.problem, rest.problem.design, np.full(len(out), -np.inf)
    X, Zs, codes = design.X[out], [term.Z[out] for term in design.terms], [term.group.codes[out] for term in design.terms]
    w, done = np.ones(len(out)) if design.weights is None else design.weights[out], 0
    with one_thread(problem.criterion.width):
        for number, (x, s, own) in enumerate(zip(*rest.kernel_points(phi), phi, strict=True), 1):
            point = _point_at_draw(rest, x, float(s), own)
            e = _errors_of_rows(problem, point, out)
            variance = row_variances(problem, point, X, Zs, codes) + problem.sigma2(point.sigma2) / w
            total = np.logaddexp(total, weights[number - 1] - 0.5 * (np.log(2.0 * np.pi * variance) + e**2 / variance))
            advance(number * len(out) // len(phi) - done)
            done = number * len(out) // len(phi)
    return total


def _inside(post: PosteriorData, sets: list[Codes], dim: str, labels: list[object]) -> Array:
    """log mean density of every unit by the posterior that has seen it."""
    if dim == "obs":
        return conditional_log_means(post)
    chosen = np.unique(np.linspace(0, post.size - 1, min(post.size, INSIDE_DRAWS)).astype(int))
    names = [f"{dim} {label}" for label in labels]
    return mean_densities(held_out_densities(post, post.draws.phi[chosen], sets, names, lambda _: None))


def _weighted_given(less: Density, begin: Array, label: str, rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Draws of phi given the other folds, and their log weights; rows : how many are predicted at each draw."""
    found = sample_importance(less.values, find_mode(less, begin), REFIT_DRAWS, rng)
    if not found.trusted:
        raise SamplingError(
            f"the posterior without {label} could not be sampled by importance weights", label, "use loo(), or fewer covariance parameters"
        )
    if less.value_batch >= WORTH_OF_BATCH and rows <= MANY_PREDICTED:
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
