"""Pareto-smoothed importance weights (Vehtari, Simpson, Gelman, Yao and Gabry), and resampling by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array, Codes

SMALLEST_TAIL = 5


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


def smooth(raw: Array) -> Weights:
    """Smooth the largest weights by the order statistics of a generalised Pareto distribution fitted to them."""
    n = len(raw)
    log = np.where(np.isfinite(raw), raw, -np.inf)
    top = float(log.max(initial=-np.inf))
    if not np.isfinite(top):
        return Weights(np.full(n, -np.log(n)), np.inf, 0.0, -np.inf)
    evidence = top + float(np.log(np.exp(log - top).mean()))
    log, k = log - top, np.inf
    tail = int(np.ceil(min(0.2 * n, 3.0 * np.sqrt(n))))
    if tail >= SMALLEST_TAIL:
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


def systematic(weights: Weights, draws: int, rng: np.random.Generator) -> Codes:
    """Indices of `draws` points, each expected draws * w times: one only, as long as no weight exceeds 1/draws.

    Points are taken in random order at equal steps of the cumulated weights. Unlike sampling without replacement one by one, which prefers
    light points as heavy ones run out, this keeps every expectation.
    """
    order = rng.permutation(len(weights.log))
    total = np.cumsum(np.exp(weights.log[order]))
    places = (np.arange(draws) + rng.uniform()) / draws * total[-1]
    chosen = order[np.minimum(np.searchsorted(total, places), len(order) - 1)]
    return np.asarray(rng.permutation(chosen), np.int64)
