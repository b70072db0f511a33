"""Axes of structures other than the unstructured one: a few scales, and shape parameters on the structure's own unconstrained axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array, Codes
from bayeslmm.bayes.axes import SMALLEST, Generator, PositiveAxes
from bayeslmm.covariance import Covariance
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.estimate.prior_density import draw, log_density
from bayeslmm.spec.families import Prior

STEP = 1e-5
"""Of central differences of a log prior."""

TRIES = 200
"""Rounds of rejection when parameters drawn one by one must together be a valid matrix."""


def numeric_gradient(phi: Array, function: object, step: float = STEP) -> Array:
    """Central differences of a vectorised function at one phi."""
    assert callable(function)
    moved = phi + step * np.concatenate([np.eye(len(phi)), -np.eye(len(phi))])
    values = np.asarray(function(moved))
    return (values[: len(phi)] - values[len(phi) :]) / (2.0 * step)


@dataclass(frozen=True, slots=True, eq=False)
class ScaledAxes:
    """S C(z) S: diag, id, cs, csh, ar1, toep, spatial, ...: sds of one row or of all, then z; priors on the natural correlations r(z).

    shapes : one prior for each entry of r
    """

    sds: PositiveAxes
    correlation: Correlation
    shapes: tuple[Prior, ...]

    @property
    def size(self) -> int:
        return self.sds.size + self.correlation.size

    def values(self, phi: Array) -> Array:
        k = self.sds.size
        return np.concatenate([self.sds.values(phi[..., :k]), phi[..., k:]], axis=-1)

    def jacobian(self, phi: Array) -> Array:
        out = np.eye(self.size)
        k = self.sds.size
        out[np.arange(k), np.arange(k)] = self.sds.speed(phi[:k])
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

    def inverse(self, x: Array, typical: float) -> Array:
        k = self.sds.size
        z = np.clip(np.nan_to_num(x[k:]), -4.0, 4.0)
        return np.concatenate([self.sds.inverse(np.abs(x[:k]), typical), z])

    def draws(self, rng: Generator, n: int) -> Array:
        return np.concatenate([self.sds.draws(rng, n), self._drawn_shapes(rng, n)], axis=1)

    def _drawn_shapes(self, rng: Generator, n: int) -> Array:
        z = np.full((n, self.correlation.size), np.nan)
        for _ in range(TRIES):
            wrong = ~np.isfinite(z).all(axis=1)
            if not wrong.any():
                break
            r = np.stack([draw(prior, rng, int(wrong.sum())) for prior in self.shapes], axis=1)
            with np.errstate(all="ignore"):
                z[wrong] = self.correlation.from_natural(r)
        return z


@dataclass(frozen=True, slots=True, eq=False)
class GeneralAxes:
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

    def reported(self, phi: Array) -> Array:
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
            values = self.reported(phi)
            total = np.zeros(phi.shape[:-1])
            for j, prior in enumerate(self.priors):
                total = total + log_density(prior, values[..., j])
            if volume:
                total = total + np.linalg.slogdet(self._reported_jacobian(phi))[1]
            valid = np.isfinite(self.covariance.factor(self.values(phi))).all(axis=(-1, -2))
        return np.where(valid & np.isfinite(total), total, -np.inf)

    def _reported_jacobian(self, phi: Array) -> Array:
        step = STEP * np.eye(self.size)
        ahead = self.reported(phi[..., None, :] + step)
        behind = self.reported(phi[..., None, :] - step)
        return np.asarray((ahead - behind) / (2.0 * STEP))

    def prior_gradient(self, phi: Array, volume: bool) -> Array:
        # a wider step: with volume, log_prior holds a numerical Jacobian itself
        return numeric_gradient(phi, lambda u: self.log_prior(u, volume), 1e-4)

    def inverse(self, x: Array, typical: float) -> Array:
        phi = np.array(x, float)
        phi[self._scales] = np.log(np.maximum(np.abs(phi[self._scales]), SMALLEST * typical))
        return phi

    def draws(self, rng: Generator, n: int) -> Array:
        phi = np.full((n, self.size), np.nan)
        for _ in range(TRIES):
            wrong = ~np.isfinite(phi).all(axis=1)
            if not wrong.any():
                break
            phi[wrong] = self._tried(rng, int(wrong.sum()))
        return phi

    def _tried(self, rng: Generator, n: int) -> Array:
        values = np.stack([draw(prior, rng, n) for prior in self.priors], axis=1)
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
