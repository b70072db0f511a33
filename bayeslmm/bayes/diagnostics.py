"""R-hat and effective sample size of Markov chains (Vehtari, Gelman, Simpson, Carpenter and Buerkner), for the verdict on a run."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from bayeslmm.arrays import Array


def split(chains: Array) -> Array:
    """Each chain in two halves: (2 c, n // 2) of (c, n)."""
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def rank_normalised(chains: Array) -> Array:
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
    halves = split(chains)
    return max(_plain_r_hat(rank_normalised(halves)), _plain_r_hat(rank_normalised(np.abs(halves - np.median(halves)))))


def ess(chains: Array) -> float:
    """Bulk effective sample size of (c, n) draws, by Geyer's initial monotone sequence."""
    if chains.shape[1] < 8:
        return float(chains.size)
    z = rank_normalised(split(chains))
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
