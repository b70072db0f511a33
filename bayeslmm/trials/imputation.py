"""Multiple imputation of a trial's missing outcomes under estimands: conditional means and random draws under each subject's strategy.

Gibbs steps under inverse Wishart priors: given the covariances, alpha (flat) and the residuals of the visits not seen are normal; given
all residuals of a subject, each group's covariance is inverse Wishart. What a subject has not seen needs no columns: only residuals are
drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bayeslmm._arrays import Array, Codes, Generator, concatenate_fields, generator, seed_sequence
from bayeslmm._types import LikelihoodKind
from bayeslmm._validation import require_count, require_function, require_memory, require_one_of
from bayeslmm.covariance.registry import is_unstructured
from bayeslmm.errors import BayesLMMWarning, ConvergenceError, SpecificationError, show_value, warn_user
from bayeslmm.inference.intervals.batch_structured import Kinds, SubjectGroup, poolable, subject_groups, whole_sample
from bayeslmm.inference.intervals.resampling import VisitParameters, fit_reweighted_subjects, refit_without_each, visit_parameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_structure import VisitStructure
from bayeslmm.results.foreign_names import answers_keywords
from bayeslmm.trials.imputations import Imputations
from bayeslmm.trials.layout import Layout, Strategy
from bayeslmm.trials.pooling import Replication
from bayeslmm.trials.trial_model import TrialModel, VisitModel, read_imputation_model

if TYPE_CHECKING:
    from bayeslmm._types import Frame


ImputationMethod = Literal["conditional-mean", "bayes", "approximate-bayes", "bootstrap-mi"]
Resampling = Literal["jackknife", "bootstrap"]
ImputationPrior = Literal["model", "jeffreys", "inverse-wishart"]
DEFAULT_N: dict[str, int] = {"bootstrap": 200, "bayes": 100, "approximate-bayes": 100}
THIN = 4
"""Draws of a Markov chain for each one kept."""


@answers_keywords
def impute(
    model: VisitModel,
    *,
    treatment: str,
    reference: Mapping[Hashable, Hashable] | None = None,
    events: Frame | None = None,
    strategy: Strategy = "MAR",
    method: ImputationMethod = "conditional-mean",
    resampling: Resampling | None = "jackknife",
    criterion: LikelihoodKind = "REML",
    n: int | tuple[int, int] | None = None,
    seed: int | None = None,
    progress: Callable[[int], None] | None = None,
    prior: ImputationPrior = "model",
) -> Imputations:
    """Impute the missing outcomes of a trial under the strategies of its estimand.

    The model of the visits is fitted to all outcomes but those after an intercurrent event that is not handled as missing at random. What
    is missing is then imputed given all outcomes of the subject, from the law that the subject's strategy says.

    Parameters
    ----------
    model : LMM or Fit
        An `LMM` whose residual structure goes over visits, `us(VISIT | PATIENT)` or, with a covariance for each arm,
        `us(VISIT | ARM / PATIENT)`. Its data have one row per subject and visit, the outcome missing where it is.
    treatment : str
        Column of the arms.
    reference : Mapping of Hashable to Hashable, optional
        Arm -> its reference arm; a reference arm maps to itself. Needed by JR, CR and CIR.
    events : DataFrame or Mapping, optional
        Intercurrent events: a frame with the subject column, the visit column (first visit affected) and perhaps `strategy`; at most one
        row a subject. Subjects without a row are missing at random.
    strategy : str or callable, default "MAR"
        Of events without one of their own: "MAR", "JR", "CR", "CIR", "LMCF" (or what they stand for, "jump to reference", or "J2R"), or a
        function `(mean, covariance, reference_mean, reference_covariance, first) -> (mean, covariance)`, `first` the position of the first
        visit affected.
    method : str, default "conditional-mean"
        "conditional-mean"; "bayes", parameters from the posterior; "approximate-bayes", from fits to bootstrap samples; "bootstrap-mi",
        `n=(B, D)`: D imputations of each of B bootstrap samples.
    resampling : {"jackknife", "bootstrap"} or None, default "jackknife"
        Of conditional means: "jackknife", "bootstrap", or None (point estimates only).
    criterion : {"REML", "ML"}, default "REML"
        "REML" or "ML", of every fit.
    n : int or tuple of int, int, optional
        Number of imputations or bootstrap samples.
    seed : int, optional
        Same seed, same imputations.
    progress : callable, optional
        Called with the number of refits done.
    prior : {"model", "jeffreys", "inverse-wishart"}, default "model"
        Of `method="bayes"`: "model", the priors of the model; for an unstructured covariance also "jeffreys", |R|^(-(m + 1) / 2) over m
        visits, as SAS's PROC MI has it, and "inverse-wishart" with m + 2 degrees of freedom and the REML estimate as its mean, as rbmi has
        it. Fixed effects are flat under both.

    Returns
    -------
    Imputations
        Completed data sets, to be analysed and pooled.

    Raises
    ------
    BayesLMMError
        For data, events, references, strategies and options that cannot be used, each with what, where and remedy.

    Examples
    --------
    >>> imp = blm.impute(trial_model, treatment="arm", reference={"drug": "placebo"}, events=trial_events, strategy="JR")
    >>> imp.analyse("change ~ arm + base").pool().columns.tolist()[:5]
    ['visit', 'parameter', 'arm', 'estimate', 'std_error']
    """
    require_one_of(method, get_args(ImputationMethod), "method")
    require_one_of(prior, get_args(ImputationPrior), "prior")
    if prior != "model" and method != "bayes":
        what = f"prior is {prior!r}, and method {method!r} has no priors"
        raise SpecificationError(what, "prior", 'leave it out, or use method="bayes"')
    require_one_of(criterion, get_args(LikelihoodKind), "criterion")
    if resampling is not None:
        require_one_of(resampling, get_args(Resampling), "resampling")
    number = _number(method, resampling, n)
    seed_sequence(seed)
    if progress is not None:
        require_function(progress, "progress")
    trial = read_imputation_model(model, treatment, reference, events, strategy, criterion)
    _require_memory(trial.layout, method, resampling, number)
    if method == "conditional-mean":
        return _conditional_means(trial, resampling, number[0], seed, progress)
    if method == "bayes":
        return _bayes(trial, number[0], seed) if prior == "model" else _bayes_by_gibbs(trial, prior, number[0], seed)
    return _draw_from_bootstraps(trial, method, number, seed, progress)


def _number(method: str, resampling: str | None, n: Any) -> tuple[int, int]:
    """How many samples, and imputations of each."""
    if method == "bootstrap-mi":
        pair = (100, 2) if n is None else n
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise SpecificationError(f"n is {n!r}", "n", 'give n=(B, D) with method="bootstrap-mi": bootstrap samples, imputations of each')
        B, D = require_count(pair[0], "n"), require_count(pair[1], "n")
        if B < 2 or D < 2:
            raise SpecificationError(
                f"n is {show_value(n)}", "n", "give two or more of both: variances between and within samples are needed"
            )
        return B, D
    if method == "conditional-mean" and resampling != "bootstrap":
        if n is not None:
            raise SpecificationError(f"n is {show_value(n)}, and nothing is drawn", "n", 'leave it out, or use resampling="bootstrap"')
        return 1, 1
    found = DEFAULT_N["bootstrap" if method == "conditional-mean" else method] if n is None else require_count(n, "n")
    if found < 2:
        raise SpecificationError(f"n is {n}", "n", "give 2 or more: a variance between imputations is needed")
    return found, 1


def _require_memory(layout: Layout, method: str, resampling: str | None, number: tuple[int, int]) -> None:
    """Refuse more completed data sets, with how often each subject counts in them, than there is memory for."""
    N, m = layout.size
    count = 1 + N if (method, resampling) == ("conditional-mean", "jackknife") else number[0] * number[1]
    remedy = 'use resampling="bootstrap", or method="bayes"' if count == 1 + N else "ask for fewer"
    require_memory("imputations", 2.0 * count * N * (m + 1) + count * m**2, f"{count:,} completed data sets of {N:,} subjects", remedy)


# -- methods -------------------------------------------------------------------------------------------------------------------------------


def _conditional_means(
    trial: TrialModel, resampling: Resampling | None, n: int, seed: Any, progress: Callable[[int], None] | None
) -> Imputations:
    whole, fit, N = trial.whole, trial.fit, len(trial.layout.subjects)
    start, restricted = fit.estimate.x, fit.restricted
    if resampling is None:
        return Imputations(trial.layout, trial.complete(whole), Replication("single"), trial, whole, seed=seed)
    if resampling == "jackknife":
        out = refit_without_each(fit.problem, start, restricted, progress)
        order = np.where(trial.fitted_subject >= 0, 1 + trial.fitted_subject, 0)
        every = concatenate_fields([whole, out]).take(order)
        weights = 1.0 - np.eye(N)
        names = tuple(f"without {label}" for label in trial.layout.subjects)
    else:
        weights = bootstrap_counts(trial.layout, n, generator(seed))
        every = _refit_weighted(trial, weights, progress)
        names = tuple(f"sample {b + 1}" for b in range(n))
    every, weights, failed = _keep_settled(every, weights, names)
    both = concatenate_fields([whole, every])
    weights = np.concatenate([np.ones((1, N)), weights])
    return Imputations(trial.layout, trial.complete(both), Replication(resampling, weights), trial, both, failed, seed=seed)


def bootstrap_counts(layout: Layout, n: int, rng: Generator) -> Array:
    """How often each subject occurs in n bootstrap samples drawn within the arms, (n, N)."""
    weights = np.zeros((n, len(layout.subjects)))
    for code in range(len(layout.arms)):
        members = np.flatnonzero(layout.arm == code)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1.0 / len(members)), n)
    return weights


def _refit_weighted(trial: TrialModel, weights: Array, progress: Callable[[int], None] | None) -> VisitParameters:
    inside = trial.fitted_subject >= 0
    own = np.zeros((len(weights), int(inside.sum())))
    own[:, trial.fitted_subject[inside]] = weights[:, inside]
    return fit_reweighted_subjects(trial.fit.problem, trial.fit.estimate.x, trial.fit.restricted, own, progress)


def _keep_settled(every: VisitParameters, weights: Array, names: tuple[str, ...]) -> tuple[VisitParameters, Array, tuple[str, ...]]:
    """Sets of parameters whose refit settled; the others are named, with a warning."""
    good = every.settled & np.isfinite(every.alpha).all(axis=1)
    failed = tuple(names[b] for b in np.flatnonzero(~good))
    if good.sum() < 2:
        what = f"{len(failed)} of {len(names)} refits failed"
        raise ConvergenceError(what, "the imputation model", "use a structure with fewer parameters, or drop covariates")
    if failed:
        shown = ", ".join(failed[:5]) + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
        what = f"{len(failed)} of {len(names)} refits failed and are left out: {shown}"
        warn_user(BayesLMMWarning(what, "the imputation model", "see `imputations.failed`"))
    return every.take(good), weights[good], failed


def _bayes(trial: TrialModel, n: int, seed: Any) -> Imputations:
    seeds = seed_sequence(seed).spawn(2)
    chains = 4
    post = trial.fit.model.sample(draws=-(-n // chains) * THIN, chains=chains, seed=seeds[0])
    step = max(1, post.draws.size // n)
    pick = np.arange(0, step * n, step)
    x, s = post.density.kernel_points(post.draws.phi[pick])
    parameters = visit_parameters(trial.fit.problem, x, s**2, np.zeros((n, trial.fit.problem.criterion.p)))
    parameters = VisitParameters(post.draws.alpha[pick], parameters.R, parameters.settled)
    values = trial.complete(parameters, generator(seeds[1]))
    return Imputations(trial.layout, values, Replication("rubin"), trial, parameters, method="bayes", seed=seed)


def _bayes_by_gibbs(trial: TrialModel, prior: str, n: int, seed: Any) -> Imputations:
    seeds = seed_sequence(seed).spawn(2)
    parameters = draw_visit_parameters(trial.fit, prior, n, generator(seeds[0]))
    values = trial.complete(parameters, generator(seeds[1]))
    return Imputations(trial.layout, values, Replication("rubin"), trial, parameters, method="bayes", seed=seed)


def _draw_from_bootstraps(
    trial: TrialModel, method: str, number: tuple[int, int], seed: Any, progress: Callable[[int], None] | None
) -> Imputations:
    (B, D), rng = number, generator(seed)
    weights = bootstrap_counts(trial.layout, B, rng)
    every, weights, failed = _keep_settled(_refit_weighted(trial, weights, progress), weights, tuple(f"sample {b + 1}" for b in range(B)))
    if method == "approximate-bayes":
        values = trial.complete(every, rng)
        return Imputations(trial.layout, values, Replication("rubin"), trial, every, failed, method=method, seed=seed)
    each = every.take(np.repeat(np.arange(every.size), D))
    replication = Replication("bootstrap-mi", np.repeat(weights, D, axis=0), D)
    return Imputations(trial.layout, trial.complete(each, rng), replication, trial, each, failed, method=method, seed=seed)


CHAINS, BURN_IN, THINNING = 25, 50, 2
"""Chains side by side from the estimate; steps of each that are forgotten; steps for each set of parameters kept."""


# -- draws of alpha and of the covariances, many chains side by side -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class WishartPrior:
    """|R|^(-(df + m + 1) / 2) exp(-tr(scale R^-1) / 2) for each group; scale (G, m, m). df 0 and scale 0 are Jeffreys'."""

    df: float
    scale: Array


def read_wishart_prior(name: str, estimate: Array) -> WishartPrior:
    """A preset by its name; estimate : (G, m, m) R as estimated."""
    m = estimate.shape[-1]
    if name == "jeffreys":
        return WishartPrior(0.0, np.zeros_like(estimate))
    # m + 2 degrees of freedom, and the estimate as its mean
    return WishartPrior(m + 2.0, estimate)


def draw_visit_parameters(fit: Any, prior: str, n: int, rng: Generator) -> VisitParameters:
    """n sets of parameters given the outcomes of a fit.

    Raises SpecificationError for models that are not of unstructured covariances over visits, or with fewer subjects than these ask for.
    """
    problem: Problem = fit.problem
    kernel = problem.structured
    assert problem.design.residual is not None
    structure = None if kernel is None or not poolable(problem) else kernel.structure
    if not isinstance(structure, VisitStructure) or not is_unstructured(problem.design.residual.name, problem.design.residual.order):
        what = f"prior={prior!r} is one of an unstructured covariance over visits"
        raise SpecificationError(what, "prior", 'use residual="us(visit | subject)", or prior="model" with priors of the model')
    unit = problem.sigma2(1.0)
    whole = visit_parameters(problem, fit.estimate.x[None], np.array([fit.point.sigma2]), fit.point.state.solution.alpha)
    law = read_wishart_prior(prior, whole.R[0] / unit)
    groups = subject_groups(problem)
    counts = np.zeros(len(law.scale))
    for group in groups:
        np.add.at(counts, group.block.group[group.kind, 0], 1.0)
    m = law.scale.shape[-1]
    if (counts + law.df < m).any():
        what = f"a group of {int(counts.min())} subjects leaves no posterior of {m} visits under prior={prior!r}"
        raise SpecificationError(what, "prior", 'use prior="inverse-wishart", one covariance for all arms, or priors of the model')
    chains = min(CHAINS, n)
    steps = -(-n // chains)
    R, kept = np.repeat(whole.R / unit, chains, axis=0), []
    kinds = whole_sample(groups).kinds
    for step in range(BURN_IN + THINNING * steps):
        alpha = _draw_alpha(kinds, R, problem.criterion.p, rng)
        R = _draw_covariances(law, counts, _squares(groups, R, alpha, rng), rng)
        if step >= BURN_IN and (step - BURN_IN) % THINNING == 0:
            kept.append((alpha, R))
    alpha, R = (np.concatenate(parts)[:n] for parts in zip(*kept, strict=True))
    return VisitParameters(problem.alpha(alpha), unit * R, np.ones(n, bool))


def _places(kind: Kinds | SubjectGroup) -> list[tuple[Codes, int]]:
    assert kind.block.place is not None
    return [(place, int(group)) for place, group in zip(kind.block.place, kind.block.group[:, 0], strict=True)]


def _draw_alpha(kinds: tuple[Kinds, ...], R: Array, p: int, rng: Generator) -> Array:
    """alpha (B, p) given R (B, G, m, m) and what was observed."""
    B = len(R)
    information, right = np.zeros((B, p, p)), np.zeros((B, p))
    for kind in kinds:
        for c, (place, group) in enumerate(_places(kind)):
            W = np.linalg.inv(R[:, group][:, place[:, None], place]).reshape(B, -1)
            information += (W @ kind.XX[0, c]).reshape(B, p, p)
            right += W @ kind.XY[0, c]
    L = np.linalg.cholesky(0.5 * (information + information.swapaxes(-1, -2)))
    half = np.linalg.solve(L, right[..., None]) + rng.standard_normal((B, p, 1))
    return np.asarray(np.linalg.solve(L.swapaxes(-1, -2), half)[..., 0])


def _squares(groups: tuple[SubjectGroup, ...], R: Array, alpha: Array, rng: Generator) -> Array:
    """Sums of e e' over the subjects of each group (B, G, m, m), residuals of visits not seen drawn."""
    out = np.zeros_like(R)
    B, m = len(R), R.shape[-1]
    for own in groups:
        for c, (place, group) in enumerate(_places(own)):
            Xy = own.Xy[own.kind == c]
            e = np.empty((B, len(Xy), m))
            e[..., place] = Xy[..., -1] - np.tensordot(alpha, Xy[..., :-1], (1, 2))
            lost = np.setdiff1d(np.arange(m), place)
            if len(lost):
                S = R[:, group]
                A = np.linalg.solve(S[:, place[:, None], place], S[:, place[:, None], lost]).swapaxes(-1, -2)
                left = S[:, lost[:, None], lost] - A @ S[:, place[:, None], lost]
                root = np.linalg.cholesky(0.5 * (left + left.swapaxes(-1, -2)))
                noise = rng.standard_normal((B, len(Xy), len(lost)))
                e[..., lost] = e[..., place] @ A.swapaxes(-1, -2) + noise @ root.swapaxes(-1, -2)
            out[:, group] += e.swapaxes(-1, -2) @ e
    return out


def _draw_covariances(prior: WishartPrior, counts: Array, squares: Array, rng: Generator) -> Array:
    """R (B, G, m, m) from the inverse Wishart laws of the residuals: C A^-T A^-1 C' with C C' the scale and A A' Wishart (Bartlett)."""
    B, G, m, _ = squares.shape
    C = np.linalg.cholesky(squares + prior.scale)
    df = prior.df + counts
    A = np.tril(rng.standard_normal((B, G, m, m)), -1)
    places = np.arange(m)
    A[..., places, places] = np.sqrt(2.0 * rng.standard_gamma(0.5 * (df[:, None] - places), (B, G, m)))
    half = np.linalg.solve(A, C.swapaxes(-1, -2))
    return np.asarray(half.swapaxes(-1, -2) @ half)
