"""Axes that a posterior is explored on: standard deviations on a log (or logit) axis, correlations through partial correlations.

For each covariance matrix, D of a random term or R of a group, `phi` is unconstrained and `x` is the structure's own parameter vector on
the user's columns and in the user's units. Priors are stated for standard deviations and correlations; `volume=True` adds the log Jacobian,
which makes the density one of phi (for sampling); without it the mode is that of the density of the parameters a user speaks of (for MAP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.covariance.banded import band_positions
from bayeslmm.estimate.prior_density import (
    draw,
    lkj_draw,
    lkj_log_constant,
    lkj_shapes,
    log_density,
    partial_positions,
    slope,
)
from bayeslmm.spec.families import Prior

Generator = np.random.Generator

SMALLEST = 0.05
"""An sd of 0 starts at this fraction of a typical one: far down the log axis a density is a plain slope."""


class Axes(Protocol):
    """One covariance matrix: phi (..., size) to the structure's x (..., size), and the prior of both."""

    @property
    def size(self) -> int: ...

    def values(self, phi: Array) -> Array:
        """x (t, size) of phi (t, size)."""
        ...

    def jacobian(self, phi: Array) -> Array:
        """dx/dphi (size, size) at one phi (size,)."""
        ...

    def log_prior(self, phi: Array, volume: bool) -> Array:
        """(t,) log prior at phi (t, size)."""
        ...

    def prior_gradient(self, phi: Array, volume: bool) -> Array:
        """(size,) its derivative at one phi."""
        ...

    def inverse(self, x: Array, typical: float) -> Array:
        """phi (size,) of x (size,); an sd of 0 is lifted to a small fraction of `typical`."""
        ...

    def draws(self, rng: Generator, n: int) -> Array:
        """phi (n, size) drawn from the prior."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PositiveAxes:
    """Positive numbers on log axes; between the two ends of a uniform prior on logit axes.

    priors : one for each; low, high : (k,) ends, high infinite for a log axis
    """

    priors: tuple[Prior, ...]
    low: Array
    high: Array

    @property
    def size(self) -> int:
        return len(self.priors)

    @property
    def _between(self) -> Array:
        return np.isfinite(self.high)

    def _share(self, u: Array) -> Array:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * u)))

    def values(self, u: Array) -> Array:
        if not self._between.any():
            return np.exp(u)
        width = np.where(self._between, self.high - self.low, 1.0)
        return np.where(self._between, self.low + width * self._share(u), np.exp(np.where(self._between, 0.0, u)))

    def speed(self, u: Array) -> Array:
        """d value / du."""
        if not self._between.any():
            return np.exp(u)
        s = self._share(u)
        width = np.where(self._between, self.high - self.low, 1.0)
        return np.where(self._between, width * s * (1.0 - s), np.exp(np.where(self._between, 0.0, u)))

    def log_speed(self, u: Array) -> Array:
        if not self._between.any():
            return u
        width = np.where(self._between, self.high - self.low, 1.0)
        return np.where(self._between, np.log(width) - 2.0 * np.log(2.0 * np.cosh(np.clip(0.5 * u, -350.0, 350.0))), u)

    def log_prior(self, u: Array, volume: bool) -> Array:
        v = self.values(u)
        total = np.zeros(u.shape[:-1])
        for j, prior in enumerate(self.priors):
            total = total + log_density(prior, v[..., j])
        return total + self.log_speed(u).sum(-1) if volume else total

    def prior_gradient(self, u: Array, volume: bool) -> Array:
        v = self.values(u)
        own = np.array([float(slope(prior, v[j])) for j, prior in enumerate(self.priors)])
        out = np.zeros(self.size)
        if self.size:
            speed = self.speed(u)
            out = np.where(speed == 0.0, 0.0, own * np.where(speed == 0.0, 1.0, speed))
        if volume:
            out = out + np.where(self._between, 1.0 - 2.0 * self._share(u), 1.0)
        return np.asarray(out)

    def inverse(self, v: Array, typical: float) -> Array:
        v = np.maximum(v, SMALLEST * typical)
        if not self._between.any():
            return np.log(v)
        share = np.clip((v - self.low) / np.where(self._between, self.high - self.low, 1.0), 0.02, 0.98)
        return np.where(self._between, np.log(share) - np.log1p(-share), np.log(v))

    def draws(self, rng: Generator, n: int) -> Array:
        v = np.stack([draw(prior, rng, n) for prior in self.priors], axis=1) if self.priors else np.zeros((n, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (v - self.low) / np.where(self._between, self.high - self.low, 1.0)
            return np.where(self._between, np.log(share) - np.log1p(-share), np.log(np.maximum(v, 1e-300)))


def positive_axes(priors: tuple[Prior, ...]) -> PositiveAxes:
    """Axes of positive numbers with these priors."""
    low, high, found = np.zeros(len(priors)), np.full(len(priors), np.inf), []
    for j, prior in enumerate(priors):
        if prior.family == "uniform":
            low[j], high[j] = max(prior.parameters[0], 0.0), prior.parameters[1]
            prior = Prior("uniform", (float(low[j]), float(high[j])))
        found.append(prior)
    return PositiveAxes(tuple(found), low, high)


FEW, ONCE = 3, 10
"""A factor is written entry by entry where it has few rows, or where there are many of them: the calls, not the numbers, take the time."""


def partial_factor(z: Array, q: int) -> Array:
    """L (..., q, q) of a correlation matrix from the tanh of partial correlations' axes z (..., q (q - 1) / 2), row by row."""
    rows, columns = partial_positions(q)
    tanh, root = np.tanh(z), 1.0 / np.cosh(np.clip(z, -300.0, 300.0))
    if z.size < ONCE * q * q and q > FEW:
        entries, shrink = np.zeros((*z.shape[:-1], q, q)), np.ones((*z.shape[:-1], q, q + 1))
        entries[..., rows, columns], shrink[..., rows, columns + 1] = tanh, root
        entries[..., np.arange(q), np.arange(q)] = 1.0
        return np.asarray(entries * np.cumprod(shrink, axis=-1)[..., :-1])
    L = np.zeros((*z.shape[:-1], q, q))
    left = np.ones((*z.shape[:-1], q))
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        L[..., i, j] = tanh[..., k] * left[..., i]
        left[..., i] = left[..., i] * root[..., k]
    for i in range(q):
        L[..., i, i] = left[..., i]
    return L


def partial_factor_derivative(z: Array, q: int) -> Array:
    """dL/dz (q (q - 1) / 2, q, q) at one z."""
    rows, columns = partial_positions(q)
    L, tanh = partial_factor(z, q), np.tanh(z)
    square = 1.0 / np.cosh(np.clip(z, -300.0, 300.0)) ** 2
    root = np.sqrt(square)
    out = np.zeros((len(z), q, q))
    first = 0
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        if j == 0:
            first = k
        before = float(np.prod(root[first:k]))
        out[k, i, j] = square[k] * before
        out[k, i, j + 1 : i + 1] = -tanh[k] * L[i, j + 1 : i + 1]
    return out


def partial_axes(L: Array) -> Array:
    """z of the factor L of a correlation matrix; correlations of size 1 are drawn in a little."""
    q = len(L)
    rows, columns = partial_positions(q)
    left, out = np.ones(q), np.empty(len(rows))
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        z = np.clip(L[i, j] / left[i], -0.995, 0.995) if left[i] > 0 else 0.0
        out[k] = np.arctanh(z)
        left[i] *= np.sqrt(1.0 - z * z)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class UnstructuredAxes:
    """us: log standard deviations, then partial correlations; LKJ(eta). x is the column-wise lower triangle of T = diag(sd) L."""

    sds: PositiveAxes
    eta: float

    @property
    def q(self) -> int:
        return self.sds.size

    @property
    def size(self) -> int:
        return self.q * (self.q + 1) // 2

    def values(self, phi: Array) -> Array:
        q = self.q
        T = self.sds.values(phi[..., :q])[..., None] * partial_factor(phi[..., q:], q)
        rows, columns = band_positions(q, q)
        return np.asarray(T[..., rows, columns])

    def jacobian(self, phi: Array) -> Array:
        q = self.q
        L, sd = partial_factor(phi[q:], q), self.sds.values(phi[:q])
        own = np.eye(q)[:, :, None] * (self.sds.speed(phi[:q])[:, None] * L)[None]
        shape = sd[:, None] * partial_factor_derivative(phi[q:], q)
        rows, columns = band_positions(q, q)
        return np.concatenate([own, shape])[:, rows, columns].T

    def log_prior(self, phi: Array, volume: bool) -> Array:
        q = self.q
        b = lkj_shapes(q, self.eta) if volume else np.full(self.size - q, self.eta - 1.0)
        log_left = -2.0 * np.log(np.cosh(np.clip(phi[..., q:], -300.0, 300.0)))
        return np.asarray(self.sds.log_prior(phi[..., :q], volume) + log_left @ b - lkj_log_constant(q, self.eta))

    def prior_gradient(self, phi: Array, volume: bool) -> Array:
        q = self.q
        b = lkj_shapes(q, self.eta) if volume else np.full(self.size - q, self.eta - 1.0)
        return np.concatenate([self.sds.prior_gradient(phi[:q], volume), -2.0 * b * np.tanh(phi[q:])])

    def inverse(self, x: Array, typical: float) -> Array:
        q = self.q
        T = np.zeros((q, q))
        T[band_positions(q, q)] = x
        sd = np.linalg.norm(T, axis=1)
        safe = np.where(sd > 0, sd, 1.0)
        L = T / safe[:, None]
        L[sd == 0] = np.eye(q)[sd == 0]
        L = L * np.where(np.diagonal(L) < 0, -1.0, 1.0)
        return np.concatenate([self.sds.inverse(sd, typical), partial_axes(L)])

    def draws(self, rng: Generator, n: int) -> Array:
        return np.concatenate([self.sds.draws(rng, n), np.arctanh(lkj_draw(self.q, self.eta, rng, n))], axis=1)
