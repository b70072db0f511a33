"""ARMA(p, q) correlations: autocovariances of e_t = sum phi_i e_(t-i) + a_t + sum theta_j a_(t-j), stationary and invertible.

The coefficients of each side are the last line of a Durbin-Levinson recursion over partial autocorrelations within (-1, 1), which reaches
every stationary (invertible) polynomial and no other (Barndorff-Nielsen and Schou 1973; Jones 1980). With the autocovariances alpha of
the autoregressive part, which solve the Yule-Walker equations,

    gamma_k = sum_m c_m alpha_(k + m),    c_m = sum_j theta_j theta_(j + |m|),  theta_0 = 1,  m = -q .. q,

so that derivatives in theta are those of a polynomial, and those in phi those of alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from bayeslmm._arrays import Array, freeze
from bayeslmm.covariance.base import Parameter
from bayeslmm.covariance.correlation import LARGEST_CORRELATION, Correlation, mean_or, sech2

_TRIED = 4  # points of the grid that fit goes on from
_LAGS = 40  # of a matrix of moments whose autocorrelations a start is fitted to
_FIRST = (-0.7, -0.2, 0.3, 0.8)  # first partial autocorrelations of either side from which searches begin
_SECOND = (-0.5, 0.5)  # and second ones, where there are any


def ar_coefficients(partial: Array) -> Array:
    """Autoregressive coefficients (..., m) of partial autocorrelations (..., m)."""
    phi = partial[..., :1]
    for n in range(1, partial.shape[-1]):
        k = partial[..., n : n + 1]
        phi = np.concatenate([phi - k * phi[..., ::-1], k], axis=-1)
    return phi


def ar_coefficient_slopes(partial: Array) -> Array:
    """Their derivatives in the partial autocorrelations, (..., m, m)."""
    m = partial.shape[-1]
    phi, dphi = partial[..., :0], np.zeros((*partial.shape[:-1], 0, m))
    for n in range(m):
        k = partial[..., n : n + 1]
        reverse = phi[..., ::-1]
        dphi = dphi - k[..., None] * dphi[..., ::-1, :]
        dphi[..., :, n] -= reverse
        last = np.broadcast_to(np.eye(m)[n], (*partial.shape[:-1], 1, m))
        phi = np.concatenate([phi - k * reverse, k], axis=-1)
        dphi = np.concatenate([dphi, last], axis=-2)
    return dphi


def partials(phi: Array) -> Array:
    """The inverse of `ar_coefficients`; outside (-1, 1), or NaN, where the polynomial is not stationary."""
    m = phi.shape[-1]
    found, left = np.empty_like(phi), phi
    for n in range(m - 1, -1, -1):
        k = left[..., n : n + 1]
        found[..., n] = k[..., 0]
        left = (left[..., :n] + k * left[..., :n][..., ::-1]) / (1.0 - k * k)
    return found


@lru_cache(maxsize=64)
def _reflections(p: int) -> Array:
    """S_i (p, p + 1, p + 1), which moves what stands at lag |k - i| to lag k."""
    k = np.arange(p + 1)
    return freeze(np.array([np.abs(k - i)[:, None] == k for i in range(1, p + 1)], dtype=np.float64).reshape(p, p + 1, p + 1))


def autoregressive_covariances(phi: Array, lags: int, order: int) -> tuple[Array, ...]:
    """Autocovariances at lags 0 .. lags - 1 for innovations of variance 1, (..., lags), and their derivatives in phi up to an order.

    (..., lags, p) and (..., lags, p, p). Over lags 0 .. p, M alpha = e_0 with M = I - sum phi_i S_i.
    """
    p, S = phi.shape[-1], _reflections(phi.shape[-1])
    padding = [(0, 0)] * (phi.ndim - 1) + [(0, max(lags - p - 1, 0))]
    inverse = np.linalg.inv(np.eye(p + 1) - (phi @ S.reshape(p, (p + 1) ** 2)).reshape(*phi.shape[:-1], p + 1, p + 1))
    value = _continue_recursion(phi, np.pad(inverse[..., 0], padding), None)
    found = [value[..., :lags]]
    if order > 0:
        near = inverse @ np.einsum("iab,...b->...ai", S, value[..., : p + 1])
        back = np.stack([_lag(value, i) for i in range(1, p + 1)], axis=-1) if p else np.zeros((*value.shape, 0))
        first = _continue_recursion(phi, np.pad(near, [*padding, (0, 0)]), back)
        found.append(first[..., :lags, :])
    if order > 1:
        twice = np.einsum("iab,...bj->...aij", S, near)
        near = np.einsum("...ab,...bij->...aij", inverse, twice + np.swapaxes(twice, -1, -2))
        mixed = np.stack([_lag(first, i, -2) for i in range(1, p + 1)], axis=-2) if p else np.zeros((*first.shape, 0))
        second = _continue_recursion(phi, np.pad(near, [*padding, (0, 0), (0, 0)]), mixed + np.swapaxes(mixed, -1, -2))
        found.append(second[..., :lags, :, :])
    return tuple(found)


def _lag(values: Array, by: int, axis: int = -1) -> Array:
    """What stands `by` lags before along an axis; 0 before the first."""
    out = np.zeros_like(values)
    along = np.moveaxis(out, axis, 0)
    along[by:] = np.moveaxis(values, axis, 0)[:-by]
    return out


def _continue_recursion(phi: Array, known: Array, added: Array | None) -> Array:
    """y_k = sum phi_i y_(k-i) + added_k for lags beyond p, those before known; (..., n) or with further axes behind the lags."""
    from scipy.signal import lfilter  # costs more than a fit: only where there is an ARMA process

    p, n = phi.shape[-1], known.shape[phi.ndim - 1]
    begin, width = p + 1, int(np.prod(known.shape[phi.ndim :]))
    if n <= begin or not p:
        return known
    out = known.reshape(-1, n, width).copy()
    if added is not None:
        out[:, begin:] = added.reshape(-1, n, width)[:, begin:]
    for own, result in zip(phi.reshape(-1, p), out, strict=True):
        for k in range(min(p, n - begin)):  # what the known lags add to the first ones
            result[begin + k] += own[k:] @ result[begin - 1 : begin + k - p - 1 : -1]
        result[begin:] = lfilter([1.0], np.concatenate([[1.0], -own]), result[begin:], axis=0)
    return np.asarray(out.reshape(known.shape))


@lru_cache(maxsize=64)
def _pairs(q: int) -> Array:
    """d2c_m / dtheta_i dtheta_j (2q + 1, q + 1, q + 1), theta_0 included."""
    second = np.zeros((2 * q + 1, q + 1, q + 1))
    for m in range(-q, q + 1):
        for j in range(q + 1 - abs(m)):
            second[m + q, j, j + abs(m)] += 1.0
            second[m + q, j + abs(m), j] += 1.0
    return freeze(second)


def moving_weights(theta: Array) -> tuple[Array, Array, Array]:
    """c_m (..., 2q + 1) for m = -q .. q, and its derivatives in theta, (..., 2q + 1, q) and (2q + 1, q, q)."""
    second = _pairs(theta.shape[-1])
    whole = np.concatenate([np.ones((*theta.shape[:-1], 1)), theta], axis=-1)
    first = np.einsum("mij,...j->...mi", second, whole)
    return 0.5 * (first @ whole[..., None])[..., 0], first[..., 1:], second[:, 1:, 1:]


@dataclass(frozen=True, slots=True)
class ARMA(Correlation):
    """Correlations of an ARMA(ar, ma) process. r = (phi_1 .. phi_ar, theta_1 .. theta_ma), those of nlme's corARMA.

    positions : increasing steps at which the rows stand; empty for 0, 1, 2, ...
    """

    q: int
    ar: int
    ma: int
    positions: tuple[int, ...] = ()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        sides = (("phi", self.ar), ("theta", self.ma))
        return tuple(Parameter(kind, (), number) for kind, count in sides for number in range(1, count + 1))

    @property
    def definite(self) -> bool:
        return True

    def start(self) -> Array:
        z = np.zeros(self.ar + self.ma)
        z[: min(self.ar, 1)] = np.arctanh(0.5)
        z[self.ar : self.ar + 1] = np.arctanh(-0.2)
        return z

    def other_starts(self) -> Array:
        sides = [values for count in (self.ar, self.ma) for values in (_FIRST, _SECOND)[: min(count, 2)]]
        at = [side for begin, count in ((0, self.ar), (self.ar, self.ma)) for side in range(begin, begin + min(count, 2))]
        grid = np.array(list(product(*sides)))
        z = np.zeros((len(grid), self.ar + self.ma))
        z[:, at] = np.arctanh(grid)
        return z

    def natural(self, z: Array) -> Array:
        partial = np.tanh(z)
        return np.concatenate([ar_coefficients(partial[..., : self.ar]), -ar_coefficients(partial[..., self.ar :])], axis=-1)

    def natural_jacobian(self, z: Array) -> Array:
        partial, ar = np.tanh(z), self.ar
        jacobian = np.zeros((*z.shape, z.shape[-1]))
        jacobian[..., :ar, :ar] = ar_coefficient_slopes(partial[..., :ar])
        jacobian[..., ar:, ar:] = -ar_coefficient_slopes(partial[..., ar:])
        return np.asarray(jacobian * sech2(z)[..., None, :])

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            partial = np.concatenate([partials(r[..., : self.ar]), partials(-r[..., self.ar :])], axis=-1)
            # a polynomial is stationary if all its partial autocorrelations are within, so that one outside spoils its side
            return np.where((np.abs(partial) <= 1.0).all(axis=-1, keepdims=True), np.arctanh(partial), np.nan)

    def autocorrelations(self, r: Array, lags: int, order: int) -> Array:
        """Lags 0 .. lags - 1 (..., lags), or the first or second derivatives in r, (..., lags, size), (..., lags, size, size)."""
        ar, ma = self.ar, self.ma
        alpha = autoregressive_covariances(r[..., :ar], lags + ma, order)
        c, dc, ddc = moving_weights(r[..., ar:])
        at = np.abs(np.arange(lags)[:, None] + np.arange(-ma, ma + 1))
        value = alpha[0][..., at]
        gamma = np.einsum("...m,...km->...k", c, value)
        whole = gamma[..., :1]
        rho = gamma / whole
        if order == 0:
            return np.asarray(rho)
        moved = alpha[1][..., at, :]
        first = np.concatenate([np.einsum("...m,...kmi->...ki", c, moved), value @ dc], axis=-1)
        dwhole = first[..., :1, :]
        drho = (first - rho[..., None] * dwhole) / whole[..., None]
        if order == 1:
            return np.asarray(drho)
        second = np.empty((*first.shape, ar + ma))
        second[..., :ar, :ar] = np.einsum("...m,...kmij->...kij", c, alpha[2][..., at, :, :])
        second[..., :ar, ar:] = np.einsum("...mj,...kmi->...kij", dc, moved)
        second[..., ar:, :ar] = np.swapaxes(second[..., :ar, ar:], -1, -2)
        second[..., ar:, ar:] = np.einsum("mij,...km->...kij", ddc, value)
        cross = drho[..., :, None] * dwhole[..., None, :]
        left = second - cross - np.swapaxes(cross, -1, -2) - rho[..., None, None] * second[..., :1, :, :]
        return np.asarray(left / whole[..., None, None])

    def innovation(self, r: Array) -> Array:
        ma = self.ma
        alpha = autoregressive_covariances(r[..., : self.ar], ma + 1, 0)[0]
        return np.asarray(1.0 / np.sum(moving_weights(r[..., self.ar :])[0] * alpha[..., np.abs(np.arange(-ma, ma + 1))], axis=-1))

    def _by_lag(self, r: Array, order: int) -> Array:
        """A derivative of the correlations, its lags in front, at the lags between the rows."""
        places = np.array(self.positions or range(self.q))
        lag = np.abs(np.subtract.outer(places, places))
        by_lag = np.moveaxis(self.autocorrelations(r, int(lag.max()) + 1, order), r.ndim - 1, -1)
        return np.asarray(by_lag[..., lag])

    def matrix(self, r: Array) -> Array:
        return self._by_lag(r, 0)

    def first(self, r: Array) -> Array:
        return self._by_lag(r, 1)

    def second(self, r: Array) -> Array:
        return self._by_lag(r, 2)

    def closest(self, matrix: Array) -> Array:
        from scipy.optimize import least_squares

        places = np.array(self.positions or range(self.q))
        apart = np.abs(np.subtract.outer(places, places))
        lags = min(int(apart.max()) + 1, max(_LAGS, 2 * (self.ar + self.ma) + 1))
        known = np.array([mean_or(matrix[apart == lag], np.nan) for lag in range(1, lags)])
        seen = np.isfinite(known)
        if not seen.any():
            return self.natural(self.start())
        far = np.arctanh(LARGEST_CORRELATION)

        def gap(z: Array) -> Array:
            return np.asarray(self.autocorrelations(self.natural(z), lags, 0)[1:][seen] - known[seen])

        def slope(z: Array) -> Array:
            return np.asarray(self.autocorrelations(self.natural(z), lags, 1)[1:][seen] @ self.natural_jacobian(z))

        grid = self.other_starts()
        best = np.argsort([float((gap(z) ** 2).sum()) for z in grid], kind="stable")[:_TRIED]
        ends = [least_squares(gap, grid[i], slope, bounds=(-far, far), xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=60) for i in best]
        return self.natural(min(ends, key=lambda found: float(found.cost)).x)
