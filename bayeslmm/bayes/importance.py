"""Adaptive importance sampling of the covariance parameters: no chain, no warm-up, and the evidence for free.

A split t at the mode, two rounds of refitting to weighted draws, then one large sample whose weights are Pareto-smoothed. A gate says
whether the weights can be trusted; if not, a mixture fitted by EM and more draws are tried before the caller turns to a Markov chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.bayes.mode import Mode
from bayeslmm.bayes.pareto import Weights, smooth
from bayeslmm.bayes.proposals import Proposal, at_mode, clustered, refitted

Generator = np.random.Generator
Values = Callable[[Array], Array]

ROUND = 500
"""Draws of a round of adaptation, more with more dimensions."""

ENOUGH = 0.5
BOUNDED = 0.01
"""Weights whose effective share is above ENOUGH and of which none exceeds BOUNDED are trusted whatever their tail index says: on axes of
log sds the weights are bounded, and the fitted shape raises false alarms."""

PIECE = 4096
"""Draws between which Ctrl-C is heeded with nothing lost."""

LEAST = 100
"""Fewer draws than this are not worth keeping."""

LEAST_EFFICIENCY = 0.05
"""Below it, adapting further pays more than drawing further."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Weighted draws of phi.

    points : (N, d); values : (N,) log density; weights : theirs; attempts : how many samples were taken; trusted : the verdict of the gate
    evaluations : of the density in all
    """

    points: Array
    values: Array
    weights: Weights
    trusted: bool
    attempts: int
    evaluations: int
    interrupted: bool = False


def limit_of_k(n: int) -> float:
    """The largest Pareto k at which n weighted draws can be trusted."""
    return float(min(1.0 - 1.0 / np.log10(n), 0.7))


def gate(weights: Weights) -> bool:
    """Whether weighted draws can be trusted."""
    n = len(weights.log)
    return bool(weights.k <= limit_of_k(n) or (weights.efficiency > ENOUGH and weights.largest < BOUNDED))


def weighted(values: Values, proposal: Proposal, n: int, rng: Generator) -> tuple[Array, Array, Weights, bool]:
    """n draws of a proposal, the density there, smoothed weights; fewer, and True, after Ctrl-C."""
    points = proposal.draws(n, rng)
    found, interrupted = [], False
    try:
        for begin in range(0, n, PIECE):
            found.append(values(points[begin : begin + PIECE]))  # noqa: PERF401 what is there stays after Ctrl-C
    except KeyboardInterrupt:
        interrupted = True
    done = sum(map(len, found))
    if done < LEAST:
        raise KeyboardInterrupt
    known = np.concatenate(found)
    return points[:done], known, smooth(known - proposal.log_density(points[:done])), interrupted


def sample_importance(values: Values, mode: Mode, n: int, rng: Generator, attempts: int = 2) -> Sampled:
    """n weighted draws; when the gate stays shut, again with a better proposal and more draws."""
    d = len(mode.phi)
    size = ROUND * max(1, -(-d // 4))
    proposal: Proposal = at_mode(mode, values)
    evaluations = 2 * d
    for _ in range(2):
        points, known, weights, stopped = weighted(values, proposal, size, rng)
        evaluations += size
        if stopped:
            return Sampled(points, known, weights, gate(weights), 0, evaluations, True)
        proposal = refitted(points, np.exp(weights.log))
    points, known, weights, stopped = weighted(values, proposal, n, rng)
    evaluations += n
    best, done = Sampled(points, known, weights, gate(weights), 1, evaluations, stopped), 1
    while not best.interrupted and not (best.trusted and best.weights.efficiency > LEAST_EFFICIENCY) and done < attempts:
        done += 1
        try:
            proposal = clustered(points, np.exp(weights.log), proposal, rng, max(2, d))
            more = 2 * n
            points, known, weights, stopped = weighted(values, proposal, more, rng)
        except np.linalg.LinAlgError:
            break
        evaluations += more
        better = weights.ess > best.weights.ess or (gate(weights) and not best.trusted)
        kept = (points, known, weights, gate(weights)) if better else (best.points, best.values, best.weights, best.trusted)
        best = Sampled(*kept, done, evaluations, stopped)
    return best
