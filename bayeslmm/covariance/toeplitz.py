"""Toeplitz correlations: one for each lag, up to a number of bands (`toep`, `toeph`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Parameter
from bayeslmm.covariance.correlation import LARGEST_CORRELATION, Correlation, lag_matrix, mean_or, sech2
from bayeslmm.covariance.linalg import cholesky


def autocorrelations(partial: Array) -> tuple[Array, Array]:
    """Durbin-Levinson: autocorrelations r (..., m) of partial autocorrelations (..., m), and dr/dpartial (..., m, m).

    r_n = k_n v + sum_j phi_j r_(n-j), then phi <- (phi - k_n reversed phi, k_n), v <- v (1 - k_n^2); each line is differentiated as it
    is computed. Any |k| < 1 gives a positive definite Toeplitz matrix, and every one of them is reached.
    """
    lead, m = partial.shape[:-1], partial.shape[-1]
    r, dr = np.zeros((*lead, m)), np.zeros((*lead, m, m))
    phi, dphi = np.zeros((*lead, 0)), np.zeros((*lead, 0, m))
    v, dv = np.ones(lead), np.zeros((*lead, m))
    for n in range(m):
        k = partial[..., n]
        past, dpast = r[..., :n][..., ::-1], dr[..., :n, :][..., ::-1, :]
        r[..., n] = k * v + (phi * past).sum(-1)
        dr[..., n, :] = k[..., None] * dv + (dphi * past[..., None] + phi[..., None] * dpast).sum(-2)
        dr[..., n, n] += v
        turned, dturned = phi[..., ::-1], dphi[..., ::-1, :]
        dphi = dphi - k[..., None, None] * dturned
        dphi[..., :, n] -= turned
        last = np.zeros((*lead, 1, m))
        last[..., 0, n] = 1.0
        phi = np.concatenate([phi - k[..., None] * turned, k[..., None]], axis=-1)
        dphi = np.concatenate([dphi, last], axis=-2)
        dv = dv * (1.0 - k * k)[..., None]
        dv[..., n] -= 2.0 * k * v
        v = v * (1.0 - k * k)
    return r, dr


def partial_autocorrelations(r: Array, edge: float = np.inf) -> Array:
    """The inverse of `autocorrelations`; each |k| is cut at `edge` on the way, which yields a nearby positive definite sequence."""
    partial, known = np.zeros_like(r), np.array(r, dtype=np.float64)
    phi, v = np.zeros((*r.shape[:-1], 0)), np.ones(r.shape[:-1])
    for n in range(r.shape[-1]):
        expected = (phi * known[..., :n][..., ::-1]).sum(-1)
        k = np.clip((r[..., n] - expected) / v, -edge, edge)
        partial[..., n], known[..., n] = k, k * v + expected
        phi = np.concatenate([phi - k[..., None] * phi[..., ::-1], k[..., None]], axis=-1)
        v = v * (1.0 - k * k)
    return partial


@dataclass(frozen=True, slots=True)
class Toeplitz(Correlation):
    """A correlation for each lag up to `bands`, 0 beyond. r = limit * Durbin-Levinson(tanh z), linear in r.

    All lags free: positive definite for every z. Fewer: may leave the positive definite matrices (the factor is NaN there), save for
    a single band, where the limit 1 / (2 cos(pi / (q + 1))) is known.
    """

    q: int
    bands: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(Parameter("rho", (), lag) for lag in range(1, self.bands + 1))

    @property
    def linear(self) -> bool:
        return True

    @property
    def _limit(self) -> float:
        return 0.5 / float(np.cos(np.pi / (self.q + 1))) if self.bands == 1 else 1.0

    def start(self) -> Array:
        return np.concatenate([np.full(1, 0.2), np.zeros(self.bands - 1)])

    def natural(self, z: Array) -> Array:
        return self._limit * autocorrelations(np.tanh(z))[0]

    def natural_jacobian(self, z: Array) -> Array:
        return np.asarray(self._limit * autocorrelations(np.tanh(z))[1] * sech2(z)[..., None, :])

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.arctanh(partial_autocorrelations(r / self._limit))

    def matrix(self, r: Array) -> Array:
        lead = r.shape[:-1]
        by_lag = np.concatenate([np.ones((*lead, 1)), r, np.zeros((*lead, self.q - 1 - self.bands))], axis=-1)
        return np.asarray(by_lag[..., lag_matrix(self.q).astype(np.int64)])

    def first(self, r: Array) -> Array:
        unit = (lag_matrix(self.q) == np.arange(1, self.bands + 1)[:, None, None]).astype(np.float64)
        return np.broadcast_to(unit, (*r.shape, self.q, self.q))

    def second(self, r: Array) -> Array:
        return np.zeros((*r.shape, self.bands, self.q, self.q))

    def closest(self, matrix: Array) -> Array:
        r = np.array([mean_or(np.diagonal(matrix, -lag), 0.0) for lag in range(1, self.bands + 1)])
        inside = self._limit * autocorrelations(partial_autocorrelations(r / self._limit, LARGEST_CORRELATION))[0]
        for _ in range(80):
            if np.isfinite(cholesky(self.matrix(inside))).all():
                return inside
            inside = 0.9 * inside
        return np.zeros(self.bands)
