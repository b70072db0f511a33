"""Proposal densities of importance sampling: t distributions with their own width on either side of every axis, and mixtures of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import gammaln

from bayeslmm.arrays import Array
from bayeslmm.bayes.mode import Mode

Generator = np.random.Generator

REACH = 1.5
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

    def widened(self, factor: float, df: float) -> SplitT:
        return SplitT(self.centre, self.axes, factor * self.left, factor * self.right, df)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
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


def at_mode(mode: Mode, values: Callable[[Array], Array], df: float = 5.0) -> SplitT:
    """A split t at the mode: its scales from how far the density falls on either side of each axis of curvature."""
    curvature, axes = np.linalg.eigh(mode.precision)
    s = 1.0 / np.sqrt(np.maximum(np.abs(curvature), 0.05))
    steps = REACH * (s * axes).T
    fall = mode.value - values(mode.phi + np.concatenate([-steps, steps]))
    scale = np.clip(REACH / np.sqrt(2.0 * np.maximum(fall, 1e-3)), 0.4, 4.0).reshape(2, -1) * s
    return SplitT(mode.phi, axes, scale[0], scale[1], df)


def quantiles(values: Array, weights: Array, at: tuple[float, ...]) -> Array:
    """Weighted quantiles."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return np.asarray(np.interp(np.array(at) * total[-1], total, values[order]))


def refitted(points: Array, weights: Array, df: float = 5.0) -> Mixture:
    """85 % split t with the medians and deciles of weighted points along their principal axes, 15 % a wide t with 3 degrees of freedom."""
    mean = weights @ points
    away = points - mean
    variances, axes = np.linalg.eigh((away * weights[:, None]).T @ away)
    along = away @ axes
    s = np.sqrt(np.maximum(variances, 1e-12) * (df - 2.0) / df)
    low, middle, high = np.array([quantiles(column, weights, (0.1, 0.5, 0.9)) for column in along.T]).T
    left = np.maximum((middle - low) / UPPER_DECILE[5], 0.4 * s)
    right = np.maximum((high - middle) / UPPER_DECILE[5], 0.4 * s)
    core = SplitT(mean + axes @ middle, axes, left, right, df)
    return Mixture((core, core.widened(1.8, 3.0)), np.array([0.85, 0.15]))


def clustered(points: Array, weights: Array, base: Proposal, rng: Generator, parts: int, df: float = 6.0) -> Mixture:
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
    return Mixture((*found, base), np.append(0.9 * shares, 0.1))
