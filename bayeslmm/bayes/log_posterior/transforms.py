"""Transforms of covariance matrices to unconstrained parameters: log sds, partial correlations; with priors and Jacobians.

For each covariance matrix, D of a random term or R of a group, `phi` is unconstrained and `x` is the structure's own parameter vector on
the user's columns and in the user's units. Priors are stated for standard deviations and correlations; `volume=True` adds the log Jacobian,
which makes the density one of phi (for sampling); without it the mode is that of the density of the parameters a user speaks of (for MAP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bayeslmm._arrays import Array, Codes, Generator
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.unstructured import band_positions
from bayeslmm.specification.prior_families import (
    Prior,
    draw_prior,
    lkj_draw,
    lkj_log_constant,
    lkj_shapes,
    log_density,
    log_density_slope,
    partial_positions,
)

SMALLEST_SD = 0.05
"""An sd of 0 starts at this fraction of a typical one: far down the log axis a density is a plain slope."""


class Transform(Protocol):
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

    def inverse(self, x: Array, typical: float | None) -> Array:
        """phi (.., size) of x (.., size).

        typical : a place to begin at is meant, off the ends of its range: an sd of 0 is lifted to a small fraction of it; None is exact
        """
        ...

    def draws(self, rng: Generator, n: int) -> Array:
        """phi (n, size) drawn from the prior."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PositiveTransform:
    """Positive numbers on log axes; between the two ends of a uniform prior on logit axes; those with a fixed value on none.

    priors : one for each free one; low, high : their ends, high infinite for a log axis
    held : (count,) every number, NaN where it is free; free : positions of the free ones
    """

    priors: tuple[Prior, ...]
    low: Array
    high: Array
    held: Array
    free: Codes

    @property
    def size(self) -> int:
        return len(self.priors)

    @property
    def count(self) -> int:
        """How many numbers there are, fixed ones included."""
        return len(self.held)

    @property
    def _between(self) -> Array:
        return np.isfinite(self.high)

    def _share(self, u: Array) -> Array:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * u)))

    def values(self, u: Array) -> Array:
        """All numbers (..., count) of u (..., size)."""
        free = self._free_values(u)
        if self.count == self.size:
            return free
        out = np.broadcast_to(self.held, (*u.shape[:-1], self.count)).copy()
        out[..., self.free] = free
        return out

    def _free_values(self, u: Array) -> Array:
        if not self._between.any():
            return np.exp(u)
        width = np.where(self._between, self.high - self.low, 1.0)
        return np.where(self._between, self.low + width * self._share(u), np.exp(np.where(self._between, 0.0, u)))

    def jacobian(self, u: Array) -> Array:
        """d value / du of the free ones."""
        if not self._between.any():
            return np.exp(u)
        s = self._share(u)
        width = np.where(self._between, self.high - self.low, 1.0)
        return np.where(self._between, width * s * (1.0 - s), np.exp(np.where(self._between, 0.0, u)))

    def log_jacobian(self, u: Array) -> Array:
        if not self._between.any():
            return u
        width = np.where(self._between, self.high - self.low, 1.0)
        return np.where(self._between, np.log(width) - 2.0 * np.log(2.0 * np.cosh(np.clip(0.5 * u, -350.0, 350.0))), u)

    def log_prior(self, u: Array, volume: bool) -> Array:
        v = self._free_values(u)
        total = np.zeros(u.shape[:-1])
        for j, prior in enumerate(self.priors):
            total = total + log_density(prior, v[..., j])
        return total + self.log_jacobian(u).sum(-1) if volume else total

    def prior_gradient(self, u: Array, volume: bool) -> Array:
        v = self._free_values(u)
        own = np.array([float(log_density_slope(prior, v[j])) for j, prior in enumerate(self.priors)])
        out = np.zeros(self.size)
        if self.size:
            speed = self.jacobian(u)
            out = np.where(speed == 0.0, 0.0, own * np.where(speed == 0.0, 1.0, speed))
        if volume:
            out = out + np.where(self._between, 1.0 - 2.0 * self._share(u), 1.0)
        return np.asarray(out)

    def inverse(self, v: Array, typical: float | None) -> Array:
        """u (.., size) of all numbers (.., count)."""
        v = v[..., self.free] if typical is None else np.maximum(v[..., self.free], SMALLEST_SD * typical)
        with np.errstate(divide="ignore", invalid="ignore"):
            if not self._between.any():
                return np.log(v)
            share = (v - self.low) / np.where(self._between, self.high - self.low, 1.0)
            if typical is not None:
                share = np.clip(share, 0.02, 0.98)
            return np.where(self._between, np.log(share) - np.log1p(-share), np.log(v))

    def draws(self, rng: Generator, n: int) -> Array:
        v = np.stack([draw_prior(prior, rng, n) for prior in self.priors], axis=1) if self.priors else np.zeros((n, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (v - self.low) / np.where(self._between, self.high - self.low, 1.0)
            return np.where(self._between, np.log(share) - np.log1p(-share), np.log(np.maximum(v, 1e-300)))


def positive_transform(priors: tuple[Prior, ...]) -> PositiveTransform:
    """Axes of positive numbers with these priors."""
    held = np.array([prior.parameters[0] if prior.family == "fixed" else np.nan for prior in priors])
    free = np.flatnonzero(np.isnan(held))
    low, high, found = np.zeros(len(free)), np.full(len(free), np.inf), []
    for j, position in enumerate(free):
        prior = priors[position]
        if prior.family == "uniform":
            low[j], high[j] = max(prior.parameters[0], 0.0), prior.parameters[1]
            prior = Prior("uniform", (float(low[j]), float(high[j])))
        found.append(prior)
    return PositiveTransform(tuple(found), low, high, held, free)


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


LARGEST_START, LARGEST_PARTIAL = 0.995, 1.0 - 2.0**-53
"""Partial correlations that a search begins at, and that are told from 1, are no larger."""


def partial_correlation_z(L: Array, largest: float) -> Array:
    """z (.., m) of factors L (.., q, q) of correlation matrices; partial correlations beyond `largest` are drawn in to it."""
    rows, columns = partial_positions(L.shape[-1])
    left, out = np.ones(L.shape[:-1]), np.empty((*L.shape[:-2], len(rows)))
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        some = left[..., i] > 0
        z = np.where(some, np.clip(L[..., i, j] / np.where(some, left[..., i], 1.0), -largest, largest), 0.0)
        out[..., k] = np.arctanh(z)
        left[..., i] *= np.sqrt((1.0 - z) * (1.0 + z))
    return out


@dataclass(frozen=True, slots=True, eq=False)
class UnstructuredTransform:
    """us: log standard deviations, then partial correlations; LKJ(eta). x is the column-wise lower triangle of T = diag(sd) L."""

    sds: PositiveTransform
    eta: float

    @property
    def q(self) -> int:
        return self.sds.count

    @property
    def size(self) -> int:
        return self.sds.size + self.q * (self.q - 1) // 2

    def values(self, phi: Array) -> Array:
        q, k = self.q, self.sds.size
        T = self.sds.values(phi[..., :k])[..., None] * partial_factor(phi[..., k:], q)
        rows, columns = band_positions(q, q)
        return np.asarray(T[..., rows, columns])

    def jacobian(self, phi: Array) -> Array:
        q, k = self.q, self.sds.size
        L, sd = partial_factor(phi[k:], q), self.sds.values(phi[:k])
        own = np.eye(q)[self.sds.free][:, :, None] * L * self.sds.jacobian(phi[:k])[:, None, None]
        shape = sd[:, None] * partial_factor_derivative(phi[k:], q)
        rows, columns = band_positions(q, q)
        return np.concatenate([own, shape])[:, rows, columns].T

    def log_prior(self, phi: Array, volume: bool) -> Array:
        q, k = self.q, self.sds.size
        b = lkj_shapes(q, self.eta) if volume else np.full(self.size - k, self.eta - 1.0)
        log_left = -2.0 * np.log(np.cosh(np.clip(phi[..., k:], -300.0, 300.0)))
        return np.asarray(self.sds.log_prior(phi[..., :k], volume) + log_left @ b - lkj_log_constant(q, self.eta))

    def prior_gradient(self, phi: Array, volume: bool) -> Array:
        k = self.sds.size
        b = lkj_shapes(self.q, self.eta) if volume else np.full(self.size - k, self.eta - 1.0)
        return np.concatenate([self.sds.prior_gradient(phi[:k], volume), -2.0 * b * np.tanh(phi[k:])])

    def inverse(self, x: Array, typical: float | None) -> Array:
        q = self.q
        T = np.zeros((*x.shape[:-1], q, q))
        T[(..., *band_positions(q, q))] = x
        sd = np.linalg.norm(T, axis=-1)
        L = np.where((sd > 0)[..., None], T / np.where(sd > 0, sd, 1.0)[..., None], np.eye(q))
        L = L * np.where(np.diagonal(L, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[..., None, :]
        z = partial_correlation_z(L, LARGEST_PARTIAL if typical is None else LARGEST_START)
        return np.concatenate([self.sds.inverse(sd, typical), z], axis=-1)

    def draws(self, rng: Generator, n: int) -> Array:
        return np.concatenate([self.sds.draws(rng, n), np.arctanh(lkj_draw(self.q, self.eta, rng, n))], axis=1)


PRIOR_STEP = 1e-5
"""Of central differences of a log prior."""

REJECTION_ROUNDS = 200
"""Rounds of rejection when parameters drawn one by one must together be a valid matrix."""


def numeric_gradient(phi: Array, function: object, step: float = PRIOR_STEP) -> Array:
    """Central differences of a vectorised function at one phi."""
    assert callable(function)
    moved = phi + step * np.concatenate([np.eye(len(phi)), -np.eye(len(phi))])
    values = np.asarray(function(moved))
    return (values[: len(phi)] - values[len(phi) :]) / (2.0 * step)


@dataclass(frozen=True, slots=True, eq=False)
class ScaledTransform:
    """S C(z) S: diag, id, cs, csh, ar1, toep, spatial, ...: sds of one row or of all, then z; priors on the natural correlations r(z).

    shapes : one prior for each entry of r
    """

    sds: PositiveTransform
    correlation: Correlation
    shapes: tuple[Prior, ...]

    @property
    def size(self) -> int:
        return self.sds.size + self.correlation.size

    def values(self, phi: Array) -> Array:
        k = self.sds.size
        return np.concatenate([self.sds.values(phi[..., :k]), phi[..., k:]], axis=-1)

    def jacobian(self, phi: Array) -> Array:
        k, count = self.sds.size, self.sds.count
        out = np.zeros((count + self.correlation.size, self.size))
        out[self.sds.free, np.arange(k)] = self.sds.jacobian(phi[:k])
        out[count:, k:] = np.eye(self.correlation.size)
        return out

    def _shape_prior(self, z: Array, volume: bool) -> Array:
        total = np.zeros(z.shape[:-1])
        if not self.correlation.size:
            return total
        r = self.correlation.natural(z)
        for j, prior in enumerate(self.shapes):
            total = total + log_density(prior, r[..., j])
        if volume:
            with np.errstate(divide="ignore"):
                total = total + np.linalg.slogdet(self.correlation.natural_jacobian(z))[1]
        return np.asarray(total)

    def log_prior(self, phi: Array, volume: bool) -> Array:
        k = self.sds.size
        return np.asarray(self.sds.log_prior(phi[..., :k], volume) + self._shape_prior(phi[..., k:], volume))

    def prior_gradient(self, phi: Array, volume: bool) -> Array:
        k = self.sds.size
        shape = numeric_gradient(phi[k:], lambda z: self._shape_prior(z, volume)) if self.correlation.size else np.zeros(0)
        return np.concatenate([self.sds.prior_gradient(phi[:k], volume), shape])

    def inverse(self, x: Array, typical: float | None) -> Array:
        k = self.sds.count
        z = x[..., k:] if typical is None else np.clip(np.nan_to_num(x[..., k:]), -4.0, 4.0)
        return np.concatenate([self.sds.inverse(np.abs(x[..., :k]), typical), z], axis=-1)

    def draws(self, rng: Generator, n: int) -> Array:
        return np.concatenate([self.sds.draws(rng, n), self._drawn_shapes(rng, n)], axis=1)

    def _drawn_shapes(self, rng: Generator, n: int) -> Array:
        z = np.full((n, self.correlation.size), np.nan)
        for _ in range(REJECTION_ROUNDS):
            wrong = ~np.isfinite(z).all(axis=1)
            if not wrong.any():
                break
            r = np.stack([draw_prior(prior, rng, int(wrong.sum())) for prior in self.shapes], axis=1)
            with np.errstate(all="ignore"):
                z[wrong] = self.correlation.from_natural(r)
        return z


@dataclass(frozen=True, slots=True, eq=False)
class GeneralTransform:
    """Any other structure: its scales on log axes, the rest as it is; priors on its natural parameters, variances taken as sds.

    A covariance among the natural parameters is taken as a correlation. Jacobians are numerical.
    """

    covariance: Covariance
    priors: tuple[Prior, ...]

    @property
    def size(self) -> int:
        return self.covariance.size

    @property
    def _scales(self) -> Codes:
        return self.covariance.scales

    def values(self, phi: Array) -> Array:
        x = np.array(phi, float)
        x[..., self._scales] = np.exp(x[..., self._scales])
        return x

    def jacobian(self, phi: Array) -> Array:
        speed = np.ones(self.size)
        speed[self._scales] = np.exp(phi[self._scales])
        return np.diag(speed)

    def natural_draws(self, phi: Array) -> Array:
        """sds for variances, correlations for covariances, other natural parameters as they are; (t, size)."""
        values = np.array(self.covariance.natural(self.values(phi)), float)
        parameters = self.covariance.natural_parameters
        variance = {p.rows[0]: j for j, p in enumerate(parameters) if p.kind == "var"}
        raw = values.copy()
        for j, parameter in enumerate(parameters):
            if parameter.kind in ("var", "unique"):
                values[..., j] = np.sqrt(np.maximum(raw[..., j], 0.0))
            elif parameter.kind == "cov" and len(parameter.rows) == 2 and set(parameter.rows) <= set(variance):
                a, b = (raw[..., variance[row]] for row in parameter.rows)
                values[..., j] = raw[..., j] / np.sqrt(a * b)
        return values

    def log_prior(self, phi: Array, volume: bool) -> Array:
        with np.errstate(all="ignore"):
            values = self.natural_draws(phi)
            total = np.zeros(phi.shape[:-1])
            for j, prior in enumerate(self.priors):
                total = total + log_density(prior, values[..., j])
            if volume:
                total = total + np.linalg.slogdet(self._reported_jacobian(phi))[1]
            valid = np.isfinite(self.covariance.factor(self.values(phi))).all(axis=(-1, -2))
        return np.where(valid & np.isfinite(total), total, -np.inf)

    def _reported_jacobian(self, phi: Array) -> Array:
        step = PRIOR_STEP * np.eye(self.size)
        forward = self.natural_draws(phi[..., None, :] + step)
        back = self.natural_draws(phi[..., None, :] - step)
        return np.asarray((forward - back) / (2.0 * PRIOR_STEP))

    def prior_gradient(self, phi: Array, volume: bool) -> Array:
        # a wider step: with volume, log_prior holds a numerical Jacobian itself
        return numeric_gradient(phi, lambda u: self.log_prior(u, volume), 1e-4)

    def inverse(self, x: Array, typical: float | None) -> Array:
        phi = np.array(x, float)
        phi[..., self._scales] = np.log(np.maximum(np.abs(phi[..., self._scales]), SMALLEST_SD * (typical or 0.0)))
        return phi

    def draws(self, rng: Generator, n: int) -> Array:
        phi = np.full((n, self.size), np.nan)
        for _ in range(REJECTION_ROUNDS):
            wrong = ~np.isfinite(phi).all(axis=1)
            if not wrong.any():
                break
            phi[wrong] = self._first_finite(rng, int(wrong.sum()))
        return phi

    def _first_finite(self, rng: Generator, n: int) -> Array:
        values = np.stack([draw_prior(prior, rng, n) for prior in self.priors], axis=1)
        parameters = self.covariance.natural_parameters
        variance = {p.rows[0]: j for j, p in enumerate(parameters) if p.kind == "var"}
        natural = values.copy()
        for j, parameter in enumerate(parameters):
            if parameter.kind in ("var", "unique"):
                natural[:, j] = values[:, j] ** 2
            elif parameter.kind == "cov" and len(parameter.rows) == 2 and set(parameter.rows) <= set(variance):
                a, b = (values[:, variance[row]] for row in parameter.rows)
                natural[:, j] = values[:, j] * a * b
        with np.errstate(all="ignore"):
            x = np.stack([self._valid(row) for row in natural])
            x[:, self._scales] = np.log(np.abs(x[:, self._scales]))
        return x

    def _valid(self, natural: Array) -> Array:
        x = self.covariance.from_natural(natural)
        return x if np.isfinite(self.covariance.factor(x)).all() else np.full(self.size, np.nan)
