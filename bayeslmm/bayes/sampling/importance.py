"""Adaptive importance sampling of the covariance parameters: no chain, no warm-up, and the evidence for free.

A split t at the mode, two rounds of refitting to weighted draws, four where it follows the density badly, then one large sample whose
weights are Pareto-smoothed. A gate says whether the weights can be trusted; if not, mixtures fitted by EM and more draws are tried before
the caller turns to a Markov chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.special import gammaln

from bayeslmm._arrays import Array, Codes, Generator
from bayeslmm.bayes.sampling.mode import PosteriorMode

FALL_DISTANCE = 1.5
"""How many sds from the mode the fall of the density is measured."""

UPPER_DECILE = {5: 1.4759, 3: 1.6377}
"""90 % quantiles of t distributions."""


class Proposal(Protocol):
    def draws(self, n: int, rng: Generator) -> Array: ...

    def log_density(self, points: Array) -> Array: ...


@dataclass(frozen=True, slots=True, eq=False)
class SplitT:
    """Multivariate t whose scale along each axis differs by side.

    axes : (d, d) orthonormal columns; left, right : (d,) scales
    """

    centre: Array
    axes: Array
    left: Array
    right: Array
    df: float

    def draws(self, n: int, rng: Generator) -> Array:
        z = rng.standard_normal((n, len(self.centre))) * np.sqrt(self.df / rng.chisquare(self.df, n))[:, None]
        return np.asarray(self.centre + (np.where(z < 0, self.left, self.right) * z) @ self.axes.T)

    def log_density(self, points: Array) -> Array:
        d, df = len(self.centre), self.df
        v = (points - self.centre) @ self.axes
        scale = np.where(v < 0, self.left, self.right)
        constant = gammaln(0.5 * (df + d)) - gammaln(0.5 * df) - 0.5 * d * np.log(df * np.pi)
        return np.asarray(constant - 0.5 * (df + d) * np.log1p(np.sum((v / scale) ** 2, axis=1) / df) - np.log(scale).sum(1))

    def widen(self, factor: float, df: float) -> SplitT:
        return SplitT(self.centre, self.axes, factor * self.left, factor * self.right, df)


@dataclass(frozen=True, slots=True, eq=False)
class ProposalMixture:
    """A mixture; shares sum to 1."""

    parts: tuple[Proposal, ...]
    shares: Array

    def draws(self, n: int, rng: Generator) -> Array:
        counts = rng.multinomial(n, self.shares)
        points = np.concatenate([part.draws(int(count), rng) for part, count in zip(self.parts, counts, strict=True)])
        # in random order, so that the first of them are draws of the mixture too
        return points[rng.permutation(n)]

    def log_density(self, points: Array) -> Array:
        each = [np.log(share) + part.log_density(points) for part, share in zip(self.parts, self.shares, strict=True)]
        return np.asarray(np.logaddexp.reduce(each, axis=0))


def split_t_at_mode(mode: PosteriorMode, values: Callable[[Array], Array], df: float = 5.0) -> SplitT:
    """A split t at the mode: its scales from how far the density falls on either side of each axis of curvature."""
    curvature, axes = np.linalg.eigh(mode.precision)
    s = 1.0 / np.sqrt(np.maximum(np.abs(curvature), 0.05))
    steps = FALL_DISTANCE * (s * axes).T
    fall = mode.value - values(mode.phi + np.concatenate([-steps, steps]))
    scale = np.clip(FALL_DISTANCE / np.sqrt(2.0 * np.maximum(fall, 1e-3)), 0.4, 4.0).reshape(2, -1) * s
    return SplitT(mode.phi, axes, scale[0], scale[1], df)


def weighted_quantiles(values: Array, weights: Array, at: tuple[float, ...]) -> Array:
    """Weighted quantiles."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return np.asarray(np.interp(np.array(at) * total[-1], total, values[order]))


def refit_proposal(points: Array, weights: Array, df: float = 5.0) -> ProposalMixture:
    """85 % split t with the medians and deciles of weighted points along their principal axes, 15 % a wide t with 3 degrees of freedom."""
    mean = weights @ points
    away = points - mean
    variances, axes = np.linalg.eigh((away * weights[:, None]).T @ away)
    along = away @ axes
    s = np.sqrt(np.maximum(variances, 1e-12) * (df - 2.0) / df)
    low, middle, high = np.array([weighted_quantiles(column, weights, (0.1, 0.5, 0.9)) for column in along.T]).T
    left = np.maximum((middle - low) / UPPER_DECILE[5], 0.4 * s)
    right = np.maximum((high - middle) / UPPER_DECILE[5], 0.4 * s)
    core = SplitT(mean + axes @ middle, axes, left, right, df)
    return ProposalMixture((core, core.widen(1.8, 3.0)), np.array([0.85, 0.15]))


def cluster_proposal(points: Array, weights: Array, base: Proposal, rng: Generator, parts: int, df: float = 6.0) -> ProposalMixture:
    """90 % a mixture of t distributions fitted to weighted points by EM, 10 % `base`: for shapes that one split t does not follow."""
    n, d = points.shape
    mean = weights @ points
    away = points - mean
    spread = (away * weights[:, None]).T @ away + 1e-9 * np.eye(d)
    centres = [0.5 * points[i] + 0.5 * mean for i in rng.choice(n, parts, p=weights)]
    covariances, shares = [0.6 * spread] * parts, np.full(parts, 1.0 / parts)
    for _ in range(8):
        log, distance = np.empty((n, parts)), np.empty((n, parts))
        for k in range(parts):
            L = np.linalg.cholesky(covariances[k])
            z = np.linalg.solve(L, (points - centres[k]).T)
            distance[:, k] = np.sum(z**2, axis=0)
            log[:, k] = np.log(shares[k]) - np.log(np.diagonal(L)).sum() - 0.5 * (df + d) * np.log1p(distance[:, k] / df)
        member = np.exp(log - np.logaddexp.reduce(log, axis=1)[:, None]) * weights[:, None]
        pull = member * (df + d) / (df + distance)
        for k in range(parts):
            shares[k] = max(float(member[:, k].sum()), 1e-3)
            centres[k] = pull[:, k] @ points / pull[:, k].sum()
            gap = points - centres[k]
            covariances[k] = (gap * pull[:, k : k + 1]).T @ gap / member[:, k].sum() + 1e-5 * spread
        shares = shares / shares.sum()
    found: list[Proposal] = []
    for centre, covariance in zip(centres, covariances, strict=True):
        values, axes = np.linalg.eigh(covariance)
        s = np.sqrt(np.maximum(values, 1e-12))
        found.append(SplitT(centre, axes, s, s, df))
    return ProposalMixture((*found, base), np.append(0.9 * shares, 0.1))


LEAST_SHARE = 0.05
"""Of the draws around any of several modes, however little of the posterior it holds: its share is what they are there to find."""

DRAWS_OF_A_MODE = 50
"""Draws around a mode from which a proposal is fitted to them."""


def proposal_at_modes(mode: PosteriorMode, values: Callable[[Array], Array]) -> Proposal:
    """A split t at the mode, or one at each of several."""
    if not mode.others:
        return split_t_at_mode(mode, values)
    modes = (mode, *mode.others)
    mass = np.array([own.log_mass for own in modes])
    return ProposalMixture(tuple(split_t_at_mode(own, values) for own in modes), _shares(np.exp(mass - mass.max())))


def refit_at_modes(mode: PosteriorMode, points: Array, weights: Array, before: Proposal) -> Proposal:
    """A proposal refitted to weighted points, to those around each of several modes by themselves."""
    if not mode.others or not isinstance(before, ProposalMixture):
        return refit_proposal(points, weights)
    nearest = np.argmax([part.log_density(points) for part in before.parts], axis=0)
    parts, shares = [], np.zeros(len(before.parts))
    for k, part in enumerate(before.parts):
        own = nearest == k
        shares[k] = weights[own].sum()
        used = own & (weights > 0.0)
        parts.append(refit_proposal(points[used], weights[used] / shares[k]) if used.sum() >= DRAWS_OF_A_MODE else part)
    return ProposalMixture(tuple(parts), _shares(shares))


def _shares(mass: Array) -> Array:
    shares = np.maximum(mass / mass.sum(), LEAST_SHARE)
    return np.asarray(shares / shares.sum())


SMALLEST_TAIL_DRAWS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Normalised importance weights.

    log : (N,) log weights, summing to 1; k : Pareto shape of their tail; ess : (sum w)^2 / sum w^2
    evidence : log mean of the raw weights
    """

    log: Array
    k: float
    ess: float
    evidence: float

    @property
    def efficiency(self) -> float:
        return self.ess / len(self.log)

    @property
    def largest(self) -> float:
        return float(np.exp(self.log.max()))


@np.errstate(all="ignore")
def smooth_weights(raw: Array) -> Weights:
    """Smooth the largest weights by the order statistics of a generalised Pareto distribution fitted to them."""
    n = len(raw)
    log = np.where(np.isfinite(raw), raw, -np.inf)
    top = float(log.max(initial=-np.inf))
    if not np.isfinite(top):
        return Weights(np.full(n, -np.log(n)), np.inf, 0.0, -np.inf)
    evidence = top + float(np.log(np.exp(log - top).mean()))
    log, k = log - top, np.inf
    tail = int(np.ceil(min(0.2 * n, 3.0 * np.sqrt(n))))
    if tail >= SMALLEST_TAIL_DRAWS:
        order = np.argsort(log)
        largest = order[-tail:]
        cutoff = max(float(log[order[-tail - 1]]), np.log(np.finfo(float).tiny))
        if log[largest[-1]] - cutoff > 1e-12:
            k, scale = fit_pareto(np.exp(log[largest]) - np.exp(cutoff))
            if np.isfinite(k):
                p = (np.arange(tail) + 0.5) / tail
                log = log.copy()
                log[largest] = np.minimum(np.log(pareto_quantile(p, k, scale) + np.exp(cutoff)), 0.0)
        else:
            k = -np.inf
    log = log - np.log(np.exp(log).sum())
    return Weights(log, k, float(1.0 / np.exp(2.0 * log).sum()), evidence)


def pareto_quantile(p: Array, k: float, scale: float) -> Array:
    if abs(k) < 1e-12:
        return np.asarray(-scale * np.log1p(-p))
    return np.asarray(scale * np.expm1(-k * np.log1p(-p)) / k)


def fit_pareto(excess: Array) -> tuple[float, float]:
    """Shape and scale by the empirical Bayes estimate of Zhang and Stephens, the shape drawn a little to 0.5; excess sorted, > 0."""
    n = len(excess)
    x = np.maximum(np.sort(excess), np.finfo(float).tiny)
    m = 30 + int(np.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1.0 / x[-1] + (1.0 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3.0 * quartile)
    with np.errstate(all="ignore"):
        shapes = np.log1p(-b[:, None] * x).mean(axis=1)
        score = n * (np.log(-b / shapes) - shapes - 1.0)
        weight = 1.0 / np.exp(score - score[:, None]).sum(axis=1)
    fine = np.isfinite(weight) & (weight > 10 * np.finfo(float).eps)
    if not fine.any():
        return np.inf, np.nan
    centre = float((b[fine] * weight[fine]).sum() / weight[fine].sum())
    k = float(np.log1p(-centre * x).mean())
    scale = -k / centre
    return (n * k + 10 * 0.5) / (n + 10), float(scale)


def resample_systematically(weights: Weights, draws: int, rng: np.random.Generator) -> Codes:
    """Indices of `draws` points, each expected draws * w times: one only, as long as no weight exceeds 1/draws.

    Points are taken in random order at equal steps of the cumulated weights. Unlike sampling without replacement one by one, which prefers
    light points as heavy ones run out, this keeps every expectation.
    """
    order = rng.permutation(len(weights.log))
    total = np.cumsum(np.exp(weights.log[order]))
    places = (np.arange(draws) + rng.uniform()) / draws * total[-1]
    chosen = order[np.minimum(np.searchsorted(total, places), len(order) - 1)]
    return np.asarray(rng.permutation(chosen), np.int64)


LogDensityValues = Callable[[Array], Array]

ROUND_DRAWS = 500
"""Draws of a round of adaptation, more with more dimensions."""

TRUSTED_EFFICIENCY = 0.5
LARGEST_WEIGHT = 0.01
"""Weights whose effective share is above ENOUGH and of which none exceeds BOUNDED are trusted whatever their tail index says: on axes of
log sds the weights are bounded, and the fitted shape raises false alarms."""

DRAWS_BETWEEN_CHECKS = 4096
"""Draws between which Ctrl-C is heeded with nothing lost."""

LEAST_DRAWS = 100
"""Fewer draws than this are not worth keeping."""

LEAST_EFFICIENCY = 0.05
"""Below it, adapting further pays more than drawing further."""

FINE_EFFICIENCY = 0.2
"""Effective share of the draws of a refitted proposal below which two more rounds pay, where a large sample follows."""

MIXTURE_PARTS, MIXTURE_DF, MIXTURE_ROUND = 3, 12.0, 4
"""Parts of the mixture fitted in the last of them, their degrees of freedom, and how many rounds' draws it is fitted to."""

NEAR_EFFICIENCY = 0.1
"""Effective share from which a shut gate is tried a third and a fourth time: what is missed is a tail, and a chain costs far more."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightedDraws:
    """Weighted draws of phi.

    points : (N, d); values : (N,) log density; weights : theirs; attempts : how many samples were taken; trusted : the verdict of the gate
    evaluations : of the density in all; proposal : what the points were drawn from, none where nothing was left to explore
    """

    points: Array
    values: Array
    weights: Weights
    trusted: bool
    attempts: int
    evaluations: int
    interrupted: bool = False
    proposal: Proposal | None = None


def limit_of_k(n: int) -> float:
    """The largest Pareto k at which n weighted draws can be trusted."""
    return float(min(1.0 - 1.0 / np.log10(n), 0.7))


def is_trusted(weights: Weights) -> bool:
    """Whether weighted draws can be trusted."""
    n = len(weights.log)
    return bool(weights.k <= limit_of_k(n) or (weights.efficiency > TRUSTED_EFFICIENCY and weights.largest < LARGEST_WEIGHT))


def draw_weighted(values: LogDensityValues, proposal: Proposal, n: int, rng: Generator) -> tuple[Array, Array, Weights, bool]:
    """n draws of a proposal, the density there, smoothed weights; fewer, and True, after Ctrl-C."""
    points = proposal.draws(n, rng)
    found, interrupted = [], False
    try:
        for begin in range(0, n, DRAWS_BETWEEN_CHECKS):
            found.append(values(points[begin : begin + DRAWS_BETWEEN_CHECKS]))  # noqa: PERF401 what is there stays after Ctrl-C
    except KeyboardInterrupt:
        interrupted = True
    done = sum(map(len, found))
    if done < LEAST_DRAWS:
        raise KeyboardInterrupt
    known = np.concatenate(found)
    return points[:done], known, smooth_weights(known - proposal.log_density(points[:done])), interrupted


def sample_importance(
    values: LogDensityValues, mode: PosteriorMode, n: int, rng: Generator, attempts: int = 4, adaptation: int = 1
) -> WeightedDraws:
    """n weighted draws; when the gate stays shut, again with a better proposal and more draws; `adaptation` times the draws of rounds."""
    d = len(mode.phi)
    if d == 0:
        # nothing is left to explore: every draw is the same point
        whole = Weights(np.full(n, -np.log(n)), -np.inf, float(n), mode.value)
        return WeightedDraws(np.zeros((n, 0)), np.full(n, mode.value), whole, True, 0, 1)
    size = adaptation * ROUND_DRAWS * max(1, -(-d // 4))
    proposal = proposal_at_modes(mode, values)
    evaluations = 2 * d
    for number in range(4):
        points, known, weights, stopped = draw_weighted(values, proposal, size if number < 3 else MIXTURE_ROUND * size, rng)
        evaluations += len(points)
        if stopped:
            return WeightedDraws(points, known, weights, is_trusted(weights), 0, evaluations, True, proposal)
        if number == 3 and not mode.others:
            proposal = cluster_proposal(points, np.exp(weights.log), proposal, rng, MIXTURE_PARTS, MIXTURE_DF)
            break
        proposal = refit_at_modes(mode, points, np.exp(weights.log), proposal)
        if number == 1 and (weights.efficiency > FINE_EFFICIENCY or n < 2 * MIXTURE_ROUND * size):
            break
    points, known, weights, stopped = draw_weighted(values, proposal, n, rng)
    evaluations += n
    best, done = WeightedDraws(points, known, weights, is_trusted(weights), 1, evaluations, stopped, proposal), 1
    while not best.interrupted and not (best.trusted and best.weights.efficiency > LEAST_EFFICIENCY) and done < attempts:
        if done >= 2 and best.weights.efficiency < NEAR_EFFICIENCY:
            break
        done += 1
        try:
            proposal = cluster_proposal(points, np.exp(weights.log), proposal, rng, max(2, d))
            more = 2 * n
            points, known, weights, stopped = draw_weighted(values, proposal, more, rng)
        except np.linalg.LinAlgError:
            break
        evaluations += more
        better = weights.ess > best.weights.ess or (is_trusted(weights) and not best.trusted)
        found = WeightedDraws(points, known, weights, is_trusted(weights), done, evaluations, stopped, proposal)
        best = found if better else replace(best, attempts=done, evaluations=evaluations, interrupted=stopped)
    return best
