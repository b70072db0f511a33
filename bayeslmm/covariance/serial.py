"""Serial correlations: AR(1), ARMA(1, 1), antedependence and Toeplitz (`ar1`, `ar1h`, `arma`, `ad`, `adh`, `toep`, `toeph`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Parameter
from bayeslmm.covariance.correlation import LARGEST_CORRELATION, Correlation, lag_matrix, mean_or, sech2
from bayeslmm.covariance.linalg import cholesky, transpose

DENSE_PLACES = 4
"""Whole places for each row up to which the powers of all lags are fewer than pairs of rows."""


@dataclass(frozen=True, slots=True)
class Autoregressive(Correlation):
    """rho^|p_i - p_j|, rho = tanh(z), at whole places p. L[i, j] = rho^(p_i - p_j) sqrt(1 - rho^(2 gap_j)), first column rho^(p_i - p_0).

    positions : increasing places of the rows; empty for 0, 1, 2, ...
    """

    q: int
    positions: tuple[int, ...] = ()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("rho"),)

    def start(self) -> Array:
        return np.arctanh(np.array([0.3]))

    def natural(self, z: Array) -> Array:
        return np.tanh(z)

    def natural_jacobian(self, z: Array) -> Array:
        return sech2(z)[..., None]

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.arctanh(r)

    def innovation(self, r: Array) -> Array:
        return np.asarray((1.0 - r[..., 0]) * (1.0 + r[..., 0]))

    @property
    def definite(self) -> bool:
        return True

    def _lags(self) -> Array:
        places = np.array(self.positions or range(self.q), dtype=np.float64)
        return np.abs(np.subtract.outer(places, places))

    def _powers(self, r: Array, down: int = 0) -> Array:
        """rho^(lag - down), and 1 where that is below 0, of rho (..., 1): (..., q, q); each power is taken once where places are dense."""
        lag = self._lags()
        longest = int(lag.max(initial=0.0))
        if longest >= DENSE_PLACES * self.q:
            return np.asarray(r[..., None] ** np.maximum(lag - down, 0.0))
        powers = r ** np.maximum(np.arange(longest + 1.0) - down, 0.0)
        return np.take(powers, lag.astype(np.intp), axis=-1)  # in the order of C: sums over it are those of a copy

    def matrix(self, r: Array) -> Array:
        return self._powers(r)

    def first(self, r: Array) -> Array:
        return np.asarray(self._lags() * self._powers(r, 1)[..., None, :, :])

    def second(self, r: Array) -> Array:
        lag = self._lags()
        return np.asarray(lag * (lag - 1.0) * self._powers(r, 2)[..., None, None, :, :])

    def closest(self, matrix: Array) -> Array:
        lag = self._lags()
        odd = lag[lag % 2.0 == 1.0]  # an even power hides the sign
        near = float(odd.min() if odd.size else np.min(lag[lag > 0.0], initial=np.inf))
        power = mean_or(matrix[np.tril(lag) == near], 0.0)
        rho = np.sign(power) * np.abs(power) ** (1.0 / near)
        return np.array([np.clip(rho, -LARGEST_CORRELATION, LARGEST_CORRELATION)])

    def _innovations(self, z: Array) -> tuple[Array, Array]:
        """Variances 1 - rho^(2 gap) of the rows given those before, the first 1; and the gaps (q,), that of the first 0."""
        gap = np.diff(self.positions or range(self.q), prepend=(self.positions or (0,))[0]).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            longer = -np.expm1(gap * np.log1p(-sech2(z)))
        return np.where(gap == 0.0, 1.0, np.where(gap == 1.0, sech2(z), longer)), gap

    def factor(self, z: Array) -> Array:
        variance = self._innovations(z)[0]
        return np.asarray(np.tril(self._powers(np.tanh(z))) * np.sqrt(variance)[..., None, :])

    def factor_derivative(self, z: Array) -> Array:
        rho, speed = np.tanh(z), sech2(z)
        variance, gap = self._innovations(z)
        power = self._powers(rho)
        moved = (speed[..., None] * self._lags()) * self._powers(rho, 1)
        slowed = -gap * rho ** np.maximum(2.0 * gap - 1.0, 0.0) * np.sqrt(speed) * np.sqrt(speed / variance)
        result = np.tril(moved * np.sqrt(variance)[..., None, :] + power * slowed[..., None, :])
        return np.asarray(result[..., None, :, :])


@dataclass(frozen=True, slots=True)
class ARMA11(Correlation):
    """arma(1,1): C = gamma rho^(lag-1) off the diagonal.

    rho = tanh(z_1) and gamma = (rho + tanh(z_2)) / 2, the range (rho-1)/2 < gamma < (rho+1)/2 of a stationary invertible process.
    """

    q: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("rho"), Parameter("gamma"))

    def start(self) -> Array:
        return self.from_natural(np.array([0.5, 0.4]))

    def natural(self, z: Array) -> Array:
        rho, move = np.tanh(z[..., 0]), np.tanh(z[..., 1])
        return np.stack([rho, 0.5 * (rho + move)], axis=-1)

    def natural_jacobian(self, z: Array) -> Array:
        speed = sech2(z)
        jacobian = np.zeros((*z.shape, 2))
        jacobian[..., 0, 0], jacobian[..., 1, 0], jacobian[..., 1, 1] = speed[..., 0], 0.5 * speed[..., 0], 0.5 * speed[..., 1]
        return jacobian

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.arctanh(np.stack([r[..., 0], 2.0 * r[..., 1] - r[..., 0]], axis=-1))

    def innovation(self, r: Array) -> Array:
        # theta of the moving average is the root within 1 of (gamma - rho) (1 + theta^2) = (1 + rho^2 - 2 rho gamma) theta
        rho, away = r[..., 0], r[..., 1] - r[..., 0]
        middle = 1.0 + rho**2 - 2.0 * rho * r[..., 1]
        theta = 2.0 * away / (middle + np.sqrt(np.maximum(middle**2 - 4.0 * away**2, 0.0)))
        return np.asarray((1.0 - rho) * (1.0 + rho) / (1.0 + 2.0 * rho * theta + theta**2))

    def _powers(self, r: Array, down: int) -> Array:
        """d^down/drho^down of rho^(lag-1), 0 on the diagonal."""
        lag = lag_matrix(self.q)
        falling = np.prod([lag - 1.0 - step for step in range(down)], axis=0) if down else np.ones_like(lag)
        return np.asarray(np.where(lag > 0, falling * r[..., 0, None, None] ** np.maximum(lag - 1.0 - down, 0.0), 0.0))

    def matrix(self, r: Array) -> Array:
        return np.asarray(np.eye(self.q) + r[..., 1, None, None] * self._powers(r, 0))

    def first(self, r: Array) -> Array:
        return np.stack([r[..., 1, None, None] * self._powers(r, 1), self._powers(r, 0)], axis=-3)

    def second(self, r: Array) -> Array:
        mixed = self._powers(r, 1)
        rows = [[r[..., 1, None, None] * self._powers(r, 2), mixed], [mixed, np.zeros_like(mixed)]]
        return np.stack([np.stack(row, axis=-3) for row in rows], axis=-4)

    def closest(self, matrix: Array) -> Array:
        gamma, next_lag = mean_or(np.diagonal(matrix, -1), 0.0), mean_or(np.diagonal(matrix, -2), 0.0)
        rho = float(np.clip(next_lag / gamma if abs(gamma) > 1e-8 else 0.0, -LARGEST_CORRELATION, LARGEST_CORRELATION))
        move = float(np.clip(2.0 * gamma - rho, -LARGEST_CORRELATION, LARGEST_CORRELATION))
        return np.array([rho, 0.5 * (rho + move)])


@dataclass(frozen=True, slots=True)
class AnteDependent(Correlation):
    """C[i, j] = rho_j ... rho_(i-1): a free correlation, tanh(z), for each pair of neighbours.

    With P the lower triangle of C, L[:, j] = P[:, j] sqrt(1 - rho_(j-1)^2), and dP/drho_k = P[:, k+1] P[k, :].
    """

    q: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(Parameter("rho", (k + 1, k)) for k in range(self.q - 1))

    def start(self) -> Array:
        return np.full(self.q - 1, np.arctanh(0.3))

    def natural(self, z: Array) -> Array:
        return np.tanh(z)

    def natural_jacobian(self, z: Array) -> Array:
        return np.asarray(sech2(z)[..., None] * np.eye(self.q - 1))

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.arctanh(r)

    def _products(self, r: Array) -> Array:
        """P (..., q, q), lower triangular."""
        lower = np.zeros((*r.shape[:-1], self.q, self.q))
        lower[..., 0, 0] = 1.0
        for row in range(1, self.q):
            lower[..., row, :row] = lower[..., row - 1, :row] * r[..., row - 1, None]
            lower[..., row, row] = 1.0
        return lower

    def matrix(self, r: Array) -> Array:
        lower = self._products(r)
        return np.asarray(lower + transpose(lower) - np.eye(self.q))

    def first(self, r: Array) -> Array:
        lower = self._products(r)
        half = np.einsum("...ik,...kj->...kij", lower[..., 1:], lower[..., :-1, :])
        return np.asarray(half + transpose(half))

    def second(self, r: Array) -> Array:
        lower = self._products(r)
        # k < l: P[i, l+1] P[l, k+1] P[k, j]; the triangle of P makes the other orders vanish
        half = np.einsum("...il,...lk,...kj->...klij", lower[..., 1:], lower[..., :-1, 1:], lower[..., :-1, :])
        half = half + np.swapaxes(half, -4, -3)
        return np.asarray(half + transpose(half))

    def closest(self, matrix: Array) -> Array:
        return np.clip(np.nan_to_num(np.diagonal(matrix, -1)), -LARGEST_CORRELATION, LARGEST_CORRELATION)

    def _innovations(self, z: Array) -> Array:
        return np.concatenate([np.ones((*z.shape[:-1], 1)), np.sqrt(sech2(z))], axis=-1)

    def factor(self, z: Array) -> Array:
        return np.asarray(self._products(np.tanh(z)) * self._innovations(z)[..., None, :])

    def factor_derivative(self, z: Array) -> Array:
        rho, speed, innovation = np.tanh(z), sech2(z), self._innovations(z)
        lower = self._products(rho)
        moved = np.einsum("...ik,...kj->...kij", lower[..., 1:] * speed[..., None, :], lower[..., :-1, :])
        slowed = -(rho * np.sqrt(speed))[..., :, None] * np.eye(self.q)[1:]
        return np.asarray(moved * innovation[..., None, None, :] + lower[..., None, :, :] * slowed[..., None, :])


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
        reverse, dreverse = phi[..., ::-1], dphi[..., ::-1, :]
        dphi = dphi - k[..., None, None] * dreverse
        dphi[..., :, n] -= reverse
        last = np.zeros((*lead, 1, m))
        last[..., 0, n] = 1.0
        phi = np.concatenate([phi - k[..., None] * reverse, k[..., None]], axis=-1)
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
