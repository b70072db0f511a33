"""The law of a subject's outcomes after an intercurrent event: mean and covariance over the visits under each strategy.

With t the first visit affected, mu and S the law of the subject's own arm, mu_ref and S_ref that of the reference arm:

    MAR   mu, S: as if nothing had happened
    JR    mu before t, mu_ref from t on (jump to reference)
    CR    mu_ref throughout (copy reference)
    CIR   mu before t, then mu[t-1] plus the increments of mu_ref (copy increments in reference)
    LMCF  mu before t, then mu[t-1] (last mean carried forward)

JR and CIR keep the subject's own covariance before t and the reference's regression of later visits on earlier ones: with
B = R21 R11^-1, S21 = B S11 and S22 = R22 - B (R11 - S11) B'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.errors import SpecificationError

StrategyName = Literal["MAR", "JR", "CR", "CIR", "LMCF"]
StrategyFunction = Callable[[Array, Array, Array, Array, int], tuple[Array, Array]]
Strategy = StrategyName | StrategyFunction

STRATEGIES: tuple[str, ...] = ("MAR", "JR", "CR", "CIR", "LMCF")
REFERENCE_BASED = frozenset({"JR", "CR", "CIR"})
"""Strategies that need to know the reference arm."""

LONG_NAMES = {
    "MAR": "missing at random",
    "JR": "jump to reference",
    "CR": "copy reference",
    "CIR": "copy increments in reference",
    "LMCF": "last mean carried forward",
}


def strategy_mean(name: str, mean: Array, reference: Array, first: int) -> Array:
    """The mean over the visits (..., m) under a strategy, from the subject's own mean and the reference's.

    first : position of the first visit affected

    >>> strategy_mean("CIR", np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.5, 0.7]), 2).round(1).tolist()
    [1.0, 2.0, 2.2]
    """
    if name == "MAR":
        return mean
    if name == "CR":
        return reference
    before, after = mean[..., :first], reference[..., first:]
    if name == "CIR" and first:
        after = after + mean[..., first - 1 : first] - reference[..., first - 1 : first]
    elif name == "LMCF":
        after = np.broadcast_to(mean[..., first - 1 : first], after.shape)
    return np.concatenate([before, after], axis=-1)


def strategy_covariance(name: str, own: Array, reference: Array, first: int) -> Array:
    """The covariance over the visits (..., m, m) under a strategy.

    >>> strategy_covariance("JR", np.eye(2), 4.0 * np.eye(2), 1).tolist()
    [[1.0, 0.0], [0.0, 4.0]]
    """
    if name in ("MAR", "LMCF"):
        return own
    if name == "CR" or first == 0:
        return reference
    S11, R11 = own[..., :first, :first], reference[..., :first, :first]
    B = np.linalg.solve(R11, reference[..., :first, first:]).swapaxes(-1, -2)
    S21 = B @ S11
    S22 = reference[..., first:, first:] - B @ (R11 - S11) @ B.swapaxes(-1, -2)
    return np.concatenate([np.concatenate([S11, S21.swapaxes(-1, -2)], axis=-1), np.concatenate([S21, S22], axis=-1)], axis=-2)


def own_law(strategy: StrategyFunction, law: tuple[Array, Array, Array, Array], first: int) -> tuple[Array, Array]:
    """What a user's strategy makes of one subject's law (mean, covariance, reference mean, reference covariance), checked.

    Errors: `SpecificationError` where it does not return a mean and a covariance of the visits.
    """
    name, m = getattr(strategy, "__name__", "strategy"), len(law[0])
    own_mean, own_covariance, other_mean, other_covariance = (part.copy() for part in law)
    found: Any = strategy(own_mean, own_covariance, other_mean, other_covariance, first)
    remedy = "return (mean, covariance): the mean of every visit, and their covariance matrix"
    if not (isinstance(found, tuple) and len(found) == 2):
        raise SpecificationError(f"the strategy {name} returned {type(found).__name__}", "strategy", remedy)
    try:
        mean, covariance = (np.array(part, dtype=np.float64) for part in found)
    except (TypeError, ValueError):
        raise SpecificationError(f"the strategy {name} did not return numbers", "strategy", remedy) from None
    if mean.shape != (m,) or covariance.shape != (m, m):
        where = f"mean of shape {mean.shape}, covariance of shape {covariance.shape}, {m} visits"
        raise SpecificationError(f"the strategy {name} returned the wrong shapes", where, remedy)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise SpecificationError(f"the strategy {name} returned values that are not finite", "strategy", remedy)
    if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance)[0] <= 0:
        raise SpecificationError(f"the strategy {name} returned a matrix that is no covariance", "strategy", remedy)
    return mean, 0.5 * (covariance + covariance.T)
