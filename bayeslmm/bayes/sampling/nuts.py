"""NUTS on the collapsed density, with R-hat and effective sample sizes (Vehtari, Gelman, Simpson, Carpenter and Buerkner).

phi = mode + L z with L L' the inverse curvature at the mode makes the target nearly standard normal, so only the step size is adapted.
Written here in full because one gradient of the kernel costs more than a step of the sampler: nothing would be won by compiling it, and
importing a sampler costs seconds. Every chain has a random stream of its own, so draws do not depend on how chains are run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from bayeslmm._arrays import Array, Generator
from bayeslmm.bayes.sampling.mode import PosteriorMode

LogDensity = Callable[[Array], tuple[float, Array]]

NUTS_WARM_UP = 300
TARGET_ACCEPTANCE = 0.85
MAX_TREE_DEPTH = 9
DIVERGENT_ENERGY = 1000.0


@dataclass(slots=True, eq=False)
class PhasePoint:
    """A point of phase space with value and gradient."""

    z: Array
    momentum: Array
    value: float
    gradient: Array

    @property
    def energy(self) -> float:
        return self.value - 0.5 * float(self.momentum @ self.momentum)


@dataclass(slots=True, eq=False)
class NutsTree:
    """A trajectory: its two ends, the point chosen from it, its log weight, and how it went."""

    left: PhasePoint
    right: PhasePoint
    chosen: PhasePoint
    log_weight: float
    turning: bool
    diverged: bool
    accepted: float
    steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """points : (chains, draws, d) phi; values : (chains, draws); diverged likewise; depth reached; steps a draw."""

    points: Array
    values: Array
    diverged: Array
    depth: Array
    energy: Array
    interrupted: bool


def leapfrog(function: LogDensity, state: PhasePoint, step: float) -> PhasePoint:
    momentum = state.momentum + 0.5 * step * state.gradient
    z = state.z + step * momentum
    value, gradient = function(z)
    return PhasePoint(z, momentum + 0.5 * step * gradient, value, gradient)


def _is_turning(left: PhasePoint, right: PhasePoint) -> bool:
    gap = right.z - left.z
    return bool(gap @ left.momentum < 0 or gap @ right.momentum < 0)


def grow_tree(function: LogDensity, state: PhasePoint, depth: int, step: float, start: float, rng: Generator) -> NutsTree:
    """A subtree of 2^depth leapfrog steps."""
    if depth == 0:
        new = leapfrog(function, state, step)
        gain = new.energy - start if np.isfinite(new.value) and np.isfinite(new.gradient).all() else -np.inf
        return NutsTree(new, new, new, gain, False, gain < -DIVERGENT_ENERGY, min(1.0, float(np.exp(min(gain, 0.0)))), 1)
    first = grow_tree(function, state, depth - 1, step, start, rng)
    if first.turning or first.diverged:
        return first
    second = grow_tree(function, first.right if step > 0 else first.left, depth - 1, step, start, rng)
    return _join_trees(first, second, step > 0, rng, biased=False)


def _join_trees(first: NutsTree, second: NutsTree, forward: bool, rng: Generator, *, biased: bool) -> NutsTree:
    """Two trajectories end to end; the new half is preferred in the outermost doubling (biased)."""
    left, right = (first.left, second.right) if forward else (second.left, first.right)
    total = float(np.logaddexp(first.log_weight, second.log_weight))
    against = first.log_weight if biased else total
    take = not (second.turning or second.diverged) and np.log(rng.uniform()) < second.log_weight - against
    chosen = second.chosen if take else first.chosen
    broken = second.turning or _is_turning(left, right)
    return NutsTree(left, right, chosen, total, broken, second.diverged, first.accepted + second.accepted, first.steps + second.steps)


def transition(function: LogDensity, state: PhasePoint, step: float, rng: Generator) -> tuple[PhasePoint, NutsTree, int]:
    """One draw, the tree it came from, and its depth."""
    begin = PhasePoint(state.z, rng.standard_normal(len(state.z)), state.value, state.gradient)
    tree, depth = NutsTree(begin, begin, begin, 0.0, False, False, 0.0, 0), 0
    while depth < MAX_TREE_DEPTH and not (tree.turning or tree.diverged):
        forward = bool(rng.uniform() < 0.5)
        end = tree.right if forward else tree.left
        new = grow_tree(function, end, depth, step if forward else -step, begin.energy, rng)
        tree = _join_trees(tree, new, forward, rng, biased=True)
        depth += 1
    # the energy at which the draw left is that of its own momentum
    return tree.chosen, tree, depth


class StepSize:
    """Dual averaging towards a mean acceptance."""

    def __init__(self, step: float) -> None:
        self.log, self.mean, self.centre = np.log(step), 0.0, np.log(10.0 * step)
        self.gap, self.count = 0.0, 0

    def update(self, acceptance: float) -> None:
        self.count += 1
        share = 1.0 / (self.count + 10.0)
        self.gap = (1.0 - share) * self.gap + share * (TARGET_ACCEPTANCE - acceptance)
        self.log = self.centre - np.sqrt(self.count) / 0.05 * self.gap
        weight = self.count**-0.75
        self.mean = weight * self.log + (1.0 - weight) * self.mean

    @property
    def now(self) -> float:
        return float(np.exp(self.log))

    @property
    def final(self) -> float:
        return float(np.exp(self.mean))


def mode_whitening(mode: PosteriorMode) -> Array:
    """L with L L' the inverse of the curvature at the mode, weak directions held."""
    values, vectors = np.linalg.eigh(mode.precision)
    return np.asarray(vectors / np.sqrt(np.maximum(np.abs(values), 0.1)))


def sample_nuts(
    density: LogDensity, mode: PosteriorMode, draws: int, chains: int, seeds: list[np.random.SeedSequence], warm_up: int = NUTS_WARM_UP
) -> Chains:
    """Chains of draws, each from its own place around the mode. Ctrl-C keeps the chains that are whole, or what the first one has."""
    L = mode_whitening(mode)
    shape = (chains, draws)
    points, values = np.empty((*shape, len(mode.phi))), np.empty(shape)
    diverged, depth, energy = np.zeros(shape, bool), np.zeros(shape), np.empty(shape)

    def function(z: Array) -> tuple[float, Array]:
        value, gradient = density(mode.phi + L @ z)
        return value, L.T @ gradient

    whole, drawn = 0, 0
    try:
        for chain in range(chains):
            drawn = 0
            rng = np.random.default_rng(seeds[chain])
            state, step = _warm_up(function, len(mode.phi), rng, warm_up)
            for i in range(draws):
                state, tree, reached = transition(function, state, step, rng)
                points[chain, i], values[chain, i] = mode.phi + L @ state.z, state.value
                diverged[chain, i], depth[chain, i], energy[chain, i] = tree.diverged, reached, -state.energy
                drawn = i + 1
            whole = chain + 1
    except KeyboardInterrupt:
        if whole == 0 and drawn < 10:
            raise
        c, n = (whole, draws) if whole else (1, drawn)
        return Chains(points[:c, :n], values[:c, :n], diverged[:c, :n], depth[:c, :n], energy[:c, :n], True)
    return Chains(points, values, diverged, depth, energy, False)


def _warm_up(function: LogDensity, d: int, rng: Generator, warm_up: int) -> tuple[PhasePoint, float]:
    """A start near the mode, and the step size after warm-up."""
    z = np.zeros(d)
    for _ in range(20):
        z = rng.standard_normal(d)
        value, gradient = function(z)
        if np.isfinite(value):
            break
        z = np.zeros(d)
    value, gradient = function(z)
    state, adapt = PhasePoint(z, np.zeros(d), value, gradient), StepSize(0.5 / max(1.0, d**0.25))
    for _ in range(warm_up):
        state, tree, _ = transition(function, state, adapt.now, rng)
        adapt.update(tree.accepted / max(tree.steps, 1))
    return state, adapt.final


def split_chains(chains: Array) -> Array:
    """Each chain in two halves: (2 c, n // 2) of (c, n)."""
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def rank_normalize(chains: Array) -> Array:
    """Normal scores of the ranks, ties sharing the mean of theirs."""
    _, place, count = np.unique(chains, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - 0.5 * (count - 1.0))[place].reshape(chains.shape)
    return np.asarray(ndtri((ranks - 0.375) / (chains.size + 0.25)))


def _plain_r_hat(chains: Array) -> float:
    n = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean()
    between = n * chains.mean(axis=1).var(ddof=1)
    return float(np.sqrt((between / within + n - 1.0) / n)) if within > 0 else np.nan


def r_hat(chains: Array) -> float:
    """The larger of the bulk and the tail R-hat of (c, n) draws; NaN for chains too short to say."""
    if chains.shape[1] < 4:
        return np.nan
    halves = split_chains(chains)
    return max(_plain_r_hat(rank_normalize(halves)), _plain_r_hat(rank_normalize(np.abs(halves - np.median(halves)))))


def ess(chains: Array) -> float:
    """Bulk effective sample size of (c, n) draws, by Geyer's initial monotone sequence."""
    if chains.shape[1] < 8:
        return float(chains.size)
    z = rank_normalize(split_chains(chains))
    c, n = z.shape
    away = z - z.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(away, 2 * n, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, axis=1)[:, :n] / n
    within = covariance[:, 0].mean() * n / (n - 1.0)
    total = within * (n - 1.0) / n + (z.mean(axis=1).var(ddof=1) if c > 1 else 0.0)
    rho = 1.0 - (within - covariance.mean(axis=0) * n / (n - 1.0)) / total
    rho[0] = 1.0
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    pairs = np.minimum.accumulate(pairs[: negative[0] if len(negative) else len(pairs)])
    tau = max(-1.0 + 2.0 * float(pairs.sum()), 1.0 / np.log10(c * n))
    return float(c * n / tau)


def bfmi(energy: Array) -> float:
    """The smallest Bayesian fraction of missing information over chains of energies (c, n)."""
    spread = energy.var(axis=1)
    return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.where(spread > 0, spread, 1.0)))
