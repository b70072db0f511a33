"""Leave-one-out predictive densities with the random effects integrated out: by observation, or by level of a grouping factor.

Importance weights are over the few covariance parameters only, since for each of them alpha and beta are integrated exactly; an
observation or a level whose weights cannot be trusted, or every level where that is cheap, is answered by a posterior given the rest.
Priors stay at the scale of the whole data.

For every draw of the covariance parameters  log p(y_out | y_in, phi) = log p(y | phi) - log p(y_in | phi),  both by the kernel, alpha and
beta integrated out; so no covariance matrix of rows is ever formed, and crossed factors are as easy as one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm._arrays import Array, Codes, seed_sequence
from bayeslmm._validation import require_flag, require_name, require_one_of
from bayeslmm.bayes.level_densities import DowndatedDensity, independent_level_densities
from bayeslmm.bayes.log_posterior.density import Density, arrange_density, with_solution
from bayeslmm.bayes.posterior.predict import log_likelihood
from bayeslmm.bayes.sampling.importance import limit_of_k, sample_importance, smooth_weights
from bayeslmm.bayes.sampling.mode import find_mode
from bayeslmm.data.design import Design
from bayeslmm.errors import InferenceError, SpecificationError, optional
from bayeslmm.likelihood.criterion import CriterionPoint, one_thread
from bayeslmm.likelihood.prediction import conditional_modes, row_variances
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel, BlockDiagonalState
from bayeslmm.results.render import progress_bar
from bayeslmm.results.response_scale import log_jacobian

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

    from bayeslmm._types import LeaveOut
    from bayeslmm.bayes.posterior.data import PosteriorData


COLLINEAR_CONDITION = 1e-10
"""Columns of X nearer to collinear than this are not told apart."""


def density_without(target: Density, out: Codes, label: str) -> Density:
    """The density given all rows but `out`.

    Raises InferenceError where the rows left do not determine alpha under a flat prior.
    """
    problem = target.problem
    design = problem.design.take(np.setdiff1d(np.arange(problem.design.nobs), out))
    _require_rank(target, design, label)
    kernel, fitted = problem.structured, None
    if kernel is not None and any(factor.covariate is None and factor.kind != "ident" for factor in problem.design.variance):
        whole = next(
            v for f, v in zip(kernel.variance.factors, kernel.variance.values, strict=True) if f.covariate is None and v is not None
        )
        fitted = np.delete(whole, out)
    try:
        less = build_problem(design, fitted)
    except np.linalg.LinAlgError:
        raise InferenceError(
            f"without {label} columns of X are collinear, and the rest cannot be sampled by itself",
            label,
            "leave the column out, use exact=False, or folds that keep every level of a factor",
        ) from None
    own = less.criterion.kernel
    if kernel is not None and isinstance(own, BlockDiagonalKernel):
        # a spatial structure measures ranges in steps of the whole data
        less = replace(less, criterion=replace(less.criterion, kernel=replace(own, structure=kernel.structure)))
    return on_other_problem(target, less)


def on_other_problem(target: Density, problem: Problem) -> Density:
    """The same axes and priors over another problem of the same columns, which are standardized in another way."""
    terms = tuple(replace(block, term=term) for block, term in zip(target.layout.terms, problem.random.terms, strict=True))
    found = arrange_density(problem, target.priors, replace(target.layout, terms=terms))
    # a prior of the intercept of centred columns stays that of the columns of all rows
    return replace(found, volume=target.volume, alpha=replace(target.alpha, problem=problem))


def _require_rank(target: Density, design: Design, label: str) -> None:
    loose = [i for i, prior in enumerate(target.alpha.priors) if prior.family == "flat"]
    if not loose:
        return
    X = design.X[:, loose]
    size = np.linalg.norm(X, axis=0)
    smallest = np.linalg.svd(X / np.where(size > 0, size, 1.0), compute_uv=False)[-1] if len(X) >= len(loose) else 0.0
    if smallest < COLLINEAR_CONDITION or np.any(size == 0):
        raise InferenceError(
            f"without {label} the coefficients are not determined, and under a flat prior nothing is predicted for it",
            label,
            'give alpha a proper prior: priors=Priors(alpha="normal")',
        )


@dataclass(frozen=True, slots=True)
class WithoutRows:
    """log p(y_out | y_in): by importance weights from the whole posterior, or exact, from a posterior given the rest.

    k : Pareto shape of the weights; exact : it was refitted
    """

    elpd: float
    k: float
    exact: bool


def predictive_densities(target: Density, less: Density, phi: Array, full: Array) -> Array:
    """log p(y_out | y_in, phi) of every phi; `full` is log p(y | phi)."""
    found = np.empty(len(phi))
    with one_thread(less.problem.criterion.width), np.errstate(invalid="ignore"):
        for begin in range(0, len(phi), target.batch):
            part = slice(begin, begin + target.batch)
            found[part] = full[part] - less.log_likelihood(phi[part])
    return found


def log_evidence_of(target: Density, begin: Array, draws: int, rng: np.random.Generator) -> tuple[float, bool]:
    """log of the integral of the density by importance weights, and whether they are trusted.

    The gap between that of the whole data and that of the rest is log p(y_out | y_in): unlike a mean of densities of y_out over draws given
    the rest, it is not at the mercy of the few draws that expect an outlying y_out.
    """
    found = sample_importance(target.values, find_mode(target, begin), draws, rng)
    return found.weights.evidence, found.trusted


def log_likelihoods(target: Density, phi: Array) -> Array:
    """log p(y | phi) of every phi, in batches."""
    with one_thread(target.problem.criterion.width):
        parts = [target.log_likelihood(phi[begin : begin + target.batch]) for begin in range(0, len(phi), target.batch)]
    return np.concatenate(parts)


@np.errstate(all="ignore")
def log_mean(values: Array, log_weights: Array) -> float:
    """log of a weighted mean of exponentials; weights sum to 1, and a value that does not exist counts 0."""
    terms = np.where(np.isfinite(values) & np.isfinite(log_weights), values + log_weights, -np.inf)
    top = float(terms.max())
    return top + float(np.log(np.exp(terms - top).sum())) if np.isfinite(top) else -np.inf


LOO_DRAWS, FEWEST_DRAWS = 1000, 250
"""Draws of the covariance parameters that weights are made from; fewer where very much is left out in turn."""

LEFT_OUT_ELEMENTS = 40_000_000
"""Draws x units whose densities are kept."""

REFIT_DRAWS = 2000
"""Weighted draws of a posterior given the rest."""

EXACT_LEVELS = 60
"""The only grouping factor of a model with independent errors is refitted level by level when it has no more levels than this."""

UNDETERMINED_LEVERAGE = 1e-9
"""A row with a leverage nearer to 1 than this fixes a coefficient by itself."""


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
        what = f"group is {group!r:.60}, and observations are left out one by one"
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


def held_out(post: PosteriorData, by: str, group: str | None) -> tuple[list[Codes], list[Any], str]:
    """Rows and labels of what is left out, one after the other, and what it is called."""
    require_one_of(by, ("observation", "group"), "by")
    if by == "group":
        return level_sets(post, group)
    if group is not None:
        raise SpecificationError("group does not apply to observations", "group", 'use by="group"')
    n = len(post.design.y)  # a posterior without rows says so here
    return [np.array([i]) for i in range(n)], list(range(n)), "obs"


def held_out_densities(post: PosteriorData, phi: Array, sets: list[Codes], names: list[str], advance: Callable[[int], None]) -> Array:
    """log p(y_out | y_in, phi) (S, sets) of levels of a grouping factor."""
    target, codes = post.density, np.empty(post.design.nobs, np.int64)
    for k, rows in enumerate(sets):
        codes[rows] = k
    found = independent_level_densities(target, phi, codes, len(sets), advance)
    if found is not None:
        values, deficient = found
        for k in deficient:
            _require_rank(target, post.design.take(np.setdiff1d(np.arange(post.design.nobs), sets[k])), names[k])
        return values
    values, full = np.empty((len(phi), len(sets))), log_likelihoods(target, phi)
    fast = DowndatedDensity(target, target.kernel) if isinstance(target.kernel, RandomEffectsKernel) else None
    for k, (rows, name) in enumerate(zip(sets, names, strict=True)):
        less = None if fast is None else fast.without(rows)
        values[:, k] = predictive_densities(target, density_without(target, rows, name) if less is None else less, phi, full)
        advance(1)
    return values


@np.errstate(all="ignore")
def conditional_log_means(post: PosteriorData) -> Array:
    """log of the mean density of every observation given its effects, over draws of the whole posterior, (n,)."""
    step, total = max(1, LEFT_OUT_ELEMENTS // (4 * post.design.nobs)), np.full(post.design.nobs, -np.inf)
    for begin in range(0, post.size, step):
        own = log_likelihood(post, np.arange(begin, min(begin + step, post.size)))
        total = np.logaddexp(total, np.logaddexp.reduce(own, axis=0))
    return np.asarray(total - np.log(post.size))


def mean_densities(values: Array) -> Array:
    """log of the mean over the first axis of exponentials (S, units)."""
    even = np.full(len(values), -np.log(len(values)))
    return np.array([log_mean(own, even) for own in values.T])


def level_sets(post: PosteriorData, group: str | None) -> tuple[list[Codes], list[Any], str]:
    """Rows and labels of the levels of a grouping factor."""
    factors = {term.group.name: term.group for term in post.design.terms}
    if post.design.residual is not None:
        factors.setdefault(post.design.residual.subject.name, post.design.residual.subject)
    if not factors:
        raise InferenceError("the model has no grouping factor", "loo", 'use by="observation"')
    if group is None and len(factors) > 1:
        raise SpecificationError("the model has several grouping factors", ", ".join(factors), f'say which: group="{next(iter(factors))}"')
    name = next(iter(factors)) if group is None else require_name(group, "group")
    if name not in factors:
        raise SpecificationError(f"there is no grouping factor {name!r}", "group", "use one of " + ", ".join(factors))
    factor = factors[name]
    order = np.argsort(factor.codes, kind="stable")
    sets = np.split(order, np.cumsum(np.bincount(factor.codes, minlength=factor.size))[:-1])
    return list(sets), list(factor.levels), name


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
    X, s = post.density.kernel_points(phi)
    out = np.empty((len(phi), post.design.nobs))
    with one_thread(post.problem.criterion.width):
        for i, (x, sigma) in enumerate(zip(X, s, strict=True)):
            out[i] = _at_draw(post, x, float(sigma), phi[i])
            advance(1)
    return out


def _at_draw(post: PosteriorData, x: Array, s: float, phi: Array) -> Array:
    problem = post.problem
    state = problem.criterion.kernel.evaluate(x[None], derivatives=False)
    found = post.density.integrate(state.solution, np.array([s**2]), phi[None])
    fixed = with_solution(state, found)
    point = CriterionPoint(x, np.nan, np.full(len(x), np.nan), None, s**2, fixed)
    precision, scores = _structured(post, fixed, s) if isinstance(fixed, BlockDiagonalState) else _independent(post, point)
    if np.any(precision[1] < UNDETERMINED_LEVERAGE):
        i = int(np.argmin(precision[1]))
        raise InferenceError(
            f"without row {i} the coefficients are not determined, and under a flat prior nothing is predicted for it",
            f"row {i}",
            'give alpha a proper prior: priors=Priors(alpha="normal")',
        )
    return np.asarray(0.5 * (np.log(precision[0]) - np.log(2.0 * np.pi) - scores**2 / precision[0]))


def _independent(post: PosteriorData, point: CriterionPoint) -> tuple[tuple[Array, Array], Array]:
    """P_ii with its share of the row's own precision, and (P y)_i."""
    problem, design = post.problem, post.design
    assert isinstance(point.state, RandomEffectsState)
    sigma2 = problem.sigma2(point.sigma2)
    w = np.ones(design.nobs) if design.weights is None else design.weights
    e = design.y - design.X @ problem.alpha(point.state.solution.alpha[0])
    if design.offset is not None:
        e = e - design.offset
    for term, beta in zip(design.terms, conditional_modes(problem, point), strict=True):
        e = e - np.einsum("nq,nq->n", term.Z, beta[term.group.codes])
    h = row_variances(problem, point, design.X, [t.Z for t in design.terms], [t.group.codes for t in design.terms])
    share = 1.0 - w * h / sigma2
    return (w / sigma2 * share, share), w * e / sigma2


def _structured(post: PosteriorData, state: BlockDiagonalState, s: float) -> tuple[tuple[Array, Array], Array]:
    p, y_scale = post.problem.criterion.p, post.problem.standardization.y_scale
    Q = state.solution.information_inverse[0]
    precision, share, scores = (np.empty(post.design.nobs) for _ in range(3))
    for rows, e in zip(state.row_states, state.residual_scores, strict=True):
        own = np.diagonal(rows.inverse, axis1=-2, axis2=-1)
        ViX = rows.inverse @ rows.U[..., :p]
        left = own - np.einsum("bkp,pq,bkq->bk", ViX, Q, ViX)
        scale = s * y_scale * rows.scale
        precision[rows.batch.rows] = left / scale**2
        share[rows.batch.rows] = left / own
        scores[rows.batch.rows] = e / (s * scale)
    return (precision, share), scores


def with_jacobian(elpd: ELPDData, log_jacobian: Array) -> ELPDData:
    """Predictive densities on the scale of the outcome; log_jacobian : (units,), summed over the rows of each that was left out."""
    pointwise = elpd.elpd_i + log_jacobian
    found: ELPDData = replace(elpd, elpd=float(pointwise.sum()), se=float(np.sqrt(pointwise.size * pointwise.var())), elpd_i=pointwise)
    return found
