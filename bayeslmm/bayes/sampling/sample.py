"""`sample`: the choice of a sampling method, its draws and their checks.

"collapsed": the random effects and alpha are integrated out, the few covariance parameters are sampled, and alpha and beta are then drawn
exactly. Importance sampling from the mode as long as its gate is passed and there are few dimensions; NUTS on the same density otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from bayeslmm._arrays import Array, seed_sequence
from bayeslmm._types import SamplingMethod
from bayeslmm._validation import require_count, require_mapping, require_one_of
from bayeslmm.bayes.log_posterior.density import Density, density, require_room_for_draws
from bayeslmm.bayes.log_posterior.priors import require_proper_posterior
from bayeslmm.bayes.posterior.data import PosteriorDraws
from bayeslmm.bayes.posterior.posterior import Posterior
from bayeslmm.bayes.sampling.hierarchical import HIERARCHICAL_WARM_UP, limit_check, sample_hierarchical
from bayeslmm.bayes.sampling.importance import (
    LARGEST_WEIGHT,
    TRUSTED_EFFICIENCY,
    WeightedDraws,
    limit_of_k,
    resample_systematically,
    sample_importance,
)
from bayeslmm.bayes.sampling.mode import MODE_TOLERANCE, PosteriorMode, find_mode
from bayeslmm.bayes.sampling.nuts import MAX_TREE_DEPTH, Chains, bfmi, ess, r_hat, sample_nuts
from bayeslmm.bayes.sampling.random_effects import JointDraws, draw_alpha, draw_beta_given_alpha, joint_draws
from bayeslmm.bayes.sampling.surrogate import (
    MOST_BEYOND,
    SUFFICIENT_ERROR,
    TEST_POINTS,
    Surrogate,
    build_surrogate,
    is_expensive,
    is_worth_polynomials,
    relative_map,
)
from bayeslmm.errors import BayesLMMWarning, Check, SpecificationError, warn_user
from bayeslmm.estimate.estimate import check_not_exact
from bayeslmm.estimate.newton import limit_of_convergence
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel

if TYPE_CHECKING:
    from bayeslmm._types import Sampler


IMPORTANCE_PARAMETERS = 16
"""Most covariance parameters for which importance sampling is tried."""

OVERSAMPLE = 4
"""Weighted draws for each draw wanted: with weights up to 4 times their mean, each is used once at most."""

OVERSAMPLE_STRUCTURED = 2
"""Where a batch costs as much as its points."""

POLYNOMIAL_ROUNDS = 4
"""Times as many draws in a round of adaptation, where they cost next to nothing."""

FEW_EFFECTIVE_DRAWS = 400


@dataclass(frozen=True, slots=True, eq=False)
class SamplingRun:
    """Draws of phi (S, d), ordered by chain, their log density, and what was found on the way."""

    phi: Array
    values: Array
    chains: int
    method: str
    checks: tuple[Check, ...]
    statistics: dict[str, Array]
    evidence: float | None
    interrupted: bool


def sample(
    model: Any,
    draws: int = 1000,
    chains: int = 4,
    seed: int | None = None,
    method: SamplingMethod = "auto",
    *,
    sampler: Sampler | None = None,
    tune: int | None = None,
    sampler_options: Mapping[str, object] | None = None,
) -> Posterior:
    """The posterior of a model under its priors.

    draws : for each of the `chains`; draws of importance sampling are independent; chains are then for display only
    seed : same seed, same draws, whatever the number of cores
    method : "auto" or "collapsed"; "importance" and "nuts" insist on one way; "hierarchical" samples every random effect
    sampler, tune, sampler_options : of "hierarchical": "nutpie" or "pymc", warm-up draws, and options of that sampler by name

    Raises PriorError for an improper posterior, SpecificationError for arguments, SamplingError where nothing usable was drawn.
    """
    post = _sample(model, draws, chains, seed, method, sampler, tune, sampler_options)
    if post.interrupted:
        stopped = post.checks["interrupted"]
        warn_user(BayesLMMWarning(f"interrupted after {stopped.value:,} draws", f"sample of {model.spec.formula.text}", stopped.remedy))
    return post


def _sample(
    model: Any,
    draws: int,
    chains: int,
    seed: int | None,
    method: SamplingMethod,
    sampler: Sampler | None,
    tune: int | None,
    sampler_options: Mapping[str, object] | None,
) -> Posterior:
    begin = time.perf_counter()
    draws, chains = require_count(draws, "draws"), require_count(chains, "chains")
    require_one_of(method, get_args(SamplingMethod), "method")
    if method == "hierarchical":
        return sample_hierarchical(
            model,
            draws,
            chains,
            seed,
            sampler="auto" if sampler is None else sampler,
            tune=HIERARCHICAL_WARM_UP if tune is None else require_count(tune, "tune"),
            options=require_mapping(sampler_options, "sampler_options", "{'target_accept': 0.95}"),
        )
    named = [name for name, value in {"sampler": sampler, "tune": tune, "sampler_options": sampler_options}.items() if value is not None]
    if named:
        remedy = 'the collapsed sampler takes draws, chains, seed, method; use method="hierarchical"'
        raise SpecificationError(f"options of the hierarchical sampler: {', '.join(named)}", method, remedy)
    problem = model.problem
    check_not_exact(problem)
    target = density(problem, model.spec.priors)
    require_room_for_draws(target, float(draws) * chains, f"{draws:,} draws of {chains:,} chains")
    require_proper_posterior(problem, target.priors)
    seeds = seed_sequence(seed).spawn(3)
    mode = find_mode(target)
    rng = np.random.default_rng(seeds[2])
    needed = method != "nuts" and is_expensive(target)
    # polynomials stand around one mode
    worth = needed or (not mode.others and method in ("auto", "collapsed") and is_worth_polynomials(target, OVERSAMPLE * draws * chains))
    by_polynomials = sample_by_polynomials(target, mode, draws, chains, np.random.default_rng(seeds[0]), rng, needed) if worth else None
    if by_polynomials is not None:
        run, joint = by_polynomials
    else:
        run = _run(target, mode, draws, chains, seeds, method)
        joint = joint_draws(target, run.phi, rng)
    drawn = PosteriorDraws(run.phi, joint.alpha, joint.beta, run.values)
    checks = {check.name: check for check in (*_mode_checks(mode, run.method), *run.checks, *problem.design.notes)}
    return Posterior(
        model,
        target,
        drawn,
        chains=run.chains,
        method=run.method,
        checks=checks,
        elapsed=time.perf_counter() - begin,
        evidence=run.evidence,
        interrupted=run.interrupted,
        statistics=run.statistics,
    )


def sample_by_polynomials(
    target: Density, mode: PosteriorMode, draws: int, chains: int, rng: np.random.Generator, effects: np.random.Generator, needed: bool
) -> tuple[SamplingRun, JointDraws] | None:
    """Draws with polynomials in place of a density that is expensive; None where they are not fine, unless they are `needed`."""
    relative = relative_map(target)
    stand_in = None if relative is None else build_surrogate(target, mode, relative)
    if stand_in is None or not (needed or stand_in.error < SUFFICIENT_ERROR):
        return None
    run = _surrogate(stand_in, mode, draws, chains, rng, needed)
    return None if run is None else (run, draw_given_phi(stand_in, mode, run.phi, effects))


def _run(target: Density, mode: PosteriorMode, draws: int, chains: int, seeds: list[np.random.SeedSequence], method: str) -> SamplingRun:
    if target.size == 0:
        return _exact(target, draws, chains)
    if method == "nuts":
        return _markov(target, mode, draws, chains, seeds[1], "asked for")
    if target.size > IMPORTANCE_PARAMETERS and method != "importance":
        return _markov(target, mode, draws, chains, seeds[1], f"{target.size} covariance parameters, more than {IMPORTANCE_PARAMETERS}")
    rng = np.random.default_rng(seeds[0])
    structured = isinstance(target.problem.criterion.kernel, BlockDiagonalKernel)
    n = max((OVERSAMPLE_STRUCTURED if structured else OVERSAMPLE) * draws * chains, 1000)
    found = sample_importance(target.values, mode, n, rng)
    if not found.trusted and method != "importance" and not found.interrupted:
        reason = f"importance weights not trusted: k {found.weights.k:.2f}, efficiency {found.weights.efficiency:.2f}"
        return _markov(target, mode, draws, chains, seeds[1], reason)
    return _resample(target, found, draws, chains, rng)


def _exact(target: Density, draws: int, chains: int) -> SamplingRun:
    """Every covariance parameter is held: nothing is left to explore, and alpha and beta are drawn exactly."""
    phi = np.zeros((draws * chains, 0))
    values = np.repeat(target.values(phi[:1]), len(phi))
    checks = (Check("method", "passed", "exact: every covariance parameter is held"), *_common(len(phi), interrupted=False))
    return SamplingRun(phi, values, chains, "exact", checks, {}, float(values[0]), False)


# -- importance sampling -------------------------------------------------------------------------------------------------------------------


def _resample(target: Density, found: WeightedDraws, draws: int, chains: int, rng: np.random.Generator) -> SamplingRun:
    if found.interrupted:
        draws = int(np.clip(found.weights.ess / chains, 1, draws))
    chosen = resample_systematically(found.weights, draws * chains, rng)
    phi = found.points[chosen]
    k, limit = found.weights.k, limit_of_k(len(found.points))
    distinct = len(np.unique(chosen))
    checks = (
        Check("method", "passed", f"importance sampling, {target.size} covariance parameters, attempt {max(found.attempts, 1)}"),
        Check(
            "pareto_k",
            "passed" if found.trusted else "failed",
            k,
            limit,
            "" if found.trusted else 'the proposal misses a part of the posterior: use method="nuts"',
        ),
        Check(
            "importance_ess",
            "passed" if found.weights.efficiency > 0.1 else "noted",
            found.weights.ess,
            TRUSTED_EFFICIENCY * len(found.points),
        ),
        Check("largest_weight", "passed" if found.weights.largest < LARGEST_WEIGHT else "noted", found.weights.largest, LARGEST_WEIGHT),
        Check("distinct_draws", "passed" if distinct > 0.8 * len(chosen) else "noted", distinct, len(chosen)),
        *_common(draws * chains, found.interrupted),
    )
    statistics = {"log_weight": found.weights.log[chosen], "evaluations": np.array(float(found.evaluations))}
    return SamplingRun(phi, found.values[chosen], chains, "importance", checks, statistics, found.weights.evidence, found.interrupted)


def _surrogate(
    stand_in: Surrogate, mode: PosteriorMode, draws: int, chains: int, rng: np.random.Generator, needed: bool
) -> SamplingRun | None:
    """Importance sampling of the polynomials, whose error among the draws is a check; None where it fails and is not needed."""
    target = stand_in.density
    found = sample_importance(stand_in.values, mode, OVERSAMPLE * draws * chains, rng, adaptation=POLYNOMIAL_ROUNDS)
    run = _resample(target, found, draws, chains, rng)
    error = stand_in.misses(run.phi[:: max(1, len(run.phi) // TEST_POINTS)])
    fine = error < SUFFICIENT_ERROR
    if not needed and not found.interrupted and not (fine and found.trusted):
        return None
    beyond = stand_in.share_beyond(found)
    remedy = "" if beyond < MOST_BEYOND else 'much of the posterior is far from the mode, as where an sd may be 0: use method="nuts"'
    reason = "an evaluation is expensive: importance sampling of polynomials around the mode, random effects given it"
    own = (
        Check("method", "passed", reason),
        Check("surrogate", "passed" if fine else "failed", error, SUFFICIENT_ERROR, "" if fine else 'use method="nuts"'),
        Check("beyond_surrogate", "passed" if beyond < MOST_BEYOND else "failed", beyond, MOST_BEYOND, remedy),
    )
    return replace(run, method="surrogate", checks=(*own, *(check for check in run.checks if check.name != "method")))


def draw_given_phi(stand_in: Surrogate, mode: PosteriorMode, phi: Array, rng: np.random.Generator) -> JointDraws:
    """alpha from the moments of the density that phi was drawn from, beta given it exactly."""
    target, c = stand_in.density, stand_in.density.problem.standardization
    alpha, near = np.empty((len(phi), target.problem.criterion.p)), stand_in.reaches(phi)
    for rows, step in ((np.flatnonzero(near), stand_in.step), (np.flatnonzero(~near), target.value_batch)):
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step]
            own = phi[part]
            x, s = target.kernel_points(own)
            solution = stand_in.solution(own) if near[part[0]] else target.solve(x)
            alpha[part] = draw_alpha(target.integrate(solution, s**2, own), s, rng)
    beta = draw_beta_given_alpha(target, mode, phi, alpha, rng)
    return JointDraws(c.alpha0 + c.y_scale * alpha @ c.back.T, beta)


# -- NUTS ----------------------------------------------------------------------------------------------------------------------------------


def _markov(target: Density, mode: PosteriorMode, draws: int, chains: int, seed: np.random.SeedSequence, reason: str) -> SamplingRun:
    found = sample_nuts(_with_gradient(target), mode, draws, chains, seed.spawn(chains))
    c, n, d = found.points.shape
    statistics = {"diverging": found.diverged.ravel(), "tree_depth": found.depth.ravel(), "energy": found.energy.ravel()}
    checks = (
        Check("method", "passed", f"NUTS on the collapsed density: {reason}"),
        *_chain_checks(found),
        *_common(c * n, found.interrupted),
    )
    return SamplingRun(found.points.reshape(c * n, d), found.values.ravel(), c, "nuts", checks, statistics, None, found.interrupted)


def _with_gradient(target: Density) -> Callable[[Array], tuple[float, Array]]:
    def function(phi: Array) -> tuple[float, Array]:
        found = target.at(phi)
        return found.value, found.gradient

    return function


def _chain_checks(found: Chains) -> tuple[Check, ...]:
    d = found.points.shape[2]
    worst = max((r_hat(found.points[..., j]) for j in range(d)), default=np.nan)
    least = min((ess(found.points[..., j]) for j in range(d)), default=np.nan)
    more = "draw more"
    divergences, deepest = int(found.diverged.sum()), float(np.mean(found.depth >= MAX_TREE_DEPTH))
    fraction = bfmi(found.energy) if found.energy.shape[1] > 2 else np.nan
    return (
        limit_check("r_hat", worst, 1.01, worst < 1.01, more),
        limit_check("ess", least, 400.0, least >= 400, more),
        limit_check("divergences", divergences, 0, divergences == 0, "give tighter priors to sds that the data hardly inform"),
        limit_check("tree_depth", deepest, 0.01, deepest <= 0.01, more),
        limit_check("bfmi", fraction, 0.3, not fraction < 0.3, more),
    )


# -- checks of any run ---------------------------------------------------------------------------------------------------------------------


def _common(draws: int, interrupted: bool) -> tuple[Check, ...]:
    found = [] if draws >= FEW_EFFECTIVE_DRAWS else [Check("draws", "noted", draws, FEW_EFFECTIVE_DRAWS, "few draws: quantiles are rough")]
    if interrupted:
        found.append(Check("interrupted", "failed", draws, None, "the draws so far are kept; sample again for the rest"))
    return tuple(found)


def _mode_checks(mode: PosteriorMode, method: str) -> list[Check]:
    fine = mode.converged
    remedy = "" if fine else "the climb to the mode stopped early; the gate decides"
    limit = limit_of_convergence(mode.predicted, MODE_TOLERANCE) if fine else MODE_TOLERANCE
    found = [Check("mode", "passed" if fine else "noted", mode.predicted, limit, remedy)]
    if mode.others:
        shares = np.exp([own.log_mass for own in mode.others] - np.logaddexp.reduce([own.log_mass for own in (mode, *mode.others)]))
        covered = method == "importance"
        remedy = "a lower mode holds this share: a covariate may have another slope between levels than within them, add its level means"
        remedy += "" if covered else "; chains seldom cross from mode to mode, and polynomials stand around one"
        found.append(Check("modes", "noted" if covered else "failed", float(shares.max()), None, remedy))
    return found
