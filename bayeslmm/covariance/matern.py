"""The Matern correlation with its derivatives, also in the smoothness, from one integral."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Parameter
from bayeslmm.covariance.spatial import Spatial, align_to_distances

_NODES = np.linspace(0.0, 1.0, 257)
# the integrand is even in t, so the trapezoidal rule converges geometrically; half a weight at 0
_WEIGHTS = np.where(_NODES == 0.0, 0.5, 1.0) / 256.0
# closer than this (in ranges) two places are treated as this close, which only a smoothness below 0.1 could notice
_NEAREST = 1e-8


@dataclass(frozen=True, slots=True)
class MaternCurve:
    """f(u, nu) = 2^(1-nu) / Gamma(nu) u^nu K_nu(u) and its derivatives, arrays of the shape of u."""

    value: Array
    u: Array
    nu: Array
    uu: Array
    u_nu: Array
    nu_nu: Array


def matern_curve(u: Array, nu: Array) -> MaternCurve:
    """The curve at u >= 0 and smoothness nu > 0 (broadcast), from K_nu(u) = integral exp(-u cosh t) cosh(nu t) dt, t > 0.

    Derivatives in u and nu bring down -cosh t and t tanh(nu t) under the integral; nothing is differenced.
    """
    u, nu = np.broadcast_arrays(np.asarray(u, dtype=np.float64), np.asarray(nu, dtype=np.float64))
    at_zero, near = u == 0.0, np.maximum(u, _NEAREST)
    end = np.arcsinh(60.0 / near)
    for _ in range(3):
        end = np.arcsinh((60.0 + nu * (end + 1.0)) / near)
    t = end[..., None] * _NODES
    cosh, fade = np.cosh(t), np.exp(-2.0 * nu[..., None] * t)
    norm = (1.0 - nu) * np.log(2.0) - gammaln(nu) + nu * np.log(near)
    weight = 0.5 * end[..., None] * _WEIGHTS * np.exp(norm[..., None] + nu[..., None] * t - near[..., None] * cosh)
    even, odd = weight * (1.0 + fade), weight * t * (1.0 - fade)
    k, k_u, k_uu = even.sum(-1), -(even * cosh).sum(-1), (even * cosh**2).sum(-1)
    k_n, k_un, k_nn = odd.sum(-1), -(odd * cosh).sum(-1), (even * t * t).sum(-1)
    # the factor in front, exp(a): a = nu log u + (1 - nu) log 2 - log Gamma(nu)
    a_u, a_n = nu / near, np.log(near) - np.log(2.0) - digamma(nu)
    a_uu, a_un, a_nn = -nu / near**2, 1.0 / near, -polygamma(1, nu)
    zero = np.zeros_like(near)
    return MaternCurve(
        value=np.where(at_zero, 1.0, k),
        u=np.where(at_zero, zero, a_u * k + k_u),
        nu=np.where(at_zero, zero, a_n * k + k_n),
        uu=np.where(at_zero, zero, (a_uu + a_u**2) * k + 2.0 * a_u * k_u + k_uu),
        u_nu=np.where(at_zero, zero, (a_un + a_u * a_n) * k + a_u * k_n + a_n * k_u + k_un),
        nu_nu=np.where(at_zero, zero, (a_nn + a_n**2) * k + 2.0 * a_n * k_n + k_nn),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Matern(Spatial):
    """C = f(d / range, nu), range = exp(z_1), nu = exp(z_2) unless it is given."""

    q: int
    distances: Array
    reach: float
    smoothness: float | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("range"),) if self.smoothness is not None else (Parameter("range"), Parameter("nu"))

    def start(self) -> Array:
        return np.log(np.array([self.reach, 1.0]))[: self.size]

    def natural(self, z: Array) -> Array:
        return np.exp(z)

    def natural_jacobian(self, z: Array) -> Array:
        return np.asarray(np.exp(z)[..., None] * np.eye(self.size))

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(r)

    def _curve(self, r: Array, distances: Array) -> tuple[Array, Array, MaternCurve]:
        reach = align_to_distances(r[..., 0], distances)
        nu = np.full_like(reach, self.smoothness) if self.smoothness is not None else align_to_distances(r[..., 1], distances)
        u = distances / reach
        return u, reach, matern_curve(u, nu)

    def at(self, distances: Array) -> Matern:
        return replace(self, q=distances.shape[-1], distances=distances)

    def matrix_at(self, r: Array, distances: Array) -> Array:
        return self._curve(r, distances)[2].value

    def first_at(self, r: Array, distances: Array) -> Array:
        u, reach, f = self._curve(r, distances)
        return np.stack([-u * f.u / reach, f.nu][: self.size], axis=-1 - distances.ndim)

    def second_at(self, r: Array, distances: Array) -> Array:
        u, reach, f = self._curve(r, distances)
        mixed = -u * f.u_nu / reach
        rows = [[(u * u * f.uu + 2.0 * u * f.u) / reach**2, mixed], [mixed, f.nu_nu]]
        inner = [np.stack(row[: self.size], axis=-1 - distances.ndim) for row in rows[: self.size]]
        return np.stack(inner, axis=-2 - distances.ndim)
