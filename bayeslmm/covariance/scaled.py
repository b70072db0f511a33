"""Structures of the form S C S: scales around a correlation matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Covariance, Derivatives, Invariance, Parameter, per_row
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.linalg import correlations
from bayeslmm.covariance.unstructured import linear_derivatives


@dataclass(frozen=True, slots=True)
class Homogeneous(Covariance):
    """s^2 C(z): id, cs, ar1, ad, toep, arma, spatial. x = (s, z). Natural: sd, correlations.

    Components: the variance and the covariances where C is linear in its correlations (cs, toep), else variance and correlations.
    """

    name: str
    q: int
    correlation_: Correlation

    @property
    def size(self) -> int:
        return 1 + self.correlation_.size

    @property
    def scales(self) -> Codes:
        return np.zeros(1, dtype=np.int64)

    @property
    def homogeneous(self) -> bool:
        return True

    @property
    def nugget(self) -> bool:
        """The last parameter is a nugget."""
        return bool(self.correlation_.parameters) and self.correlation_.parameters[-1].kind == "nugget"

    @property
    def needs_order(self) -> bool:
        return self.correlation_.needs_order

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("sd"), *self.correlation_.parameters)

    @property
    def factor_linear(self) -> bool:
        return self.correlation_.size == 0

    @property
    def component_linear(self) -> bool:
        return self.correlation_.linear

    @property
    def component_parameters(self) -> tuple[Parameter, ...]:
        inner = self.correlation_.parameters
        if self.correlation_.linear:
            inner = tuple(Parameter("cov", parameter.rows, parameter.number) for parameter in inner)
        return (Parameter("var"), *inner)

    def innovation_sd(self, natural: Array) -> Array | None:
        """Standard deviation (...,) of a row given all of its series before it; None where the structure is no stationary series."""
        part = self.correlation_.innovation(natural[..., 1:])
        return None if part is None else np.asarray(natural[..., 0] * np.sqrt(part))

    def start(self) -> Array:
        return np.concatenate([[1.0], self.correlation_.start()])

    def other_starts(self) -> Array:
        z = self.correlation_.other_starts()
        return np.concatenate([np.ones((len(z), 1)), z], axis=1)

    def factor(self, x: Array) -> Array:
        return np.asarray(x[..., :1, None] * self.correlation_.factor(x[..., 1:]))

    def factor_derivative(self, x: Array) -> Array:
        z = x[..., 1:]
        scale = self.correlation_.factor(z)[..., None, :, :]
        shape = x[..., :1, None, None] * self.correlation_.factor_derivative(z)
        return np.concatenate([scale, shape], axis=-3)

    def matrix(self, x: Array) -> Array:
        if not self.correlation_.definite:
            return super(Homogeneous, self).matrix(x)
        return np.asarray(x[..., :1, None] ** 2 * self.correlation_.matrix(self.correlation_.natural(x[..., 1:])))

    def matrix_derivative(self, x: Array) -> Array:
        if not self.correlation_.definite:
            return super(Homogeneous, self).matrix_derivative(x)
        sd, z = x[..., :1, None, None], x[..., 1:]
        r = self.correlation_.natural(z)
        moved = np.einsum("...rz,...rij->...zij", self.correlation_.natural_jacobian(z), self.correlation_.first(r))
        return np.concatenate([2.0 * sd * self.correlation_.matrix(r)[..., None, :, :], sd**2 * moved], axis=-3)

    def from_matrix(self, sigma: Array) -> Array:
        variance = max(float(np.trace(sigma)) / self.q, 0.0)
        known = correlations(sigma) if variance > 0 else np.full_like(sigma, np.nan)
        return np.concatenate([[np.sqrt(variance)], self.correlation_.from_natural(self.correlation_.closest(known))])

    def natural(self, x: Array) -> Array:
        return np.concatenate([np.abs(x[..., :1]), self.correlation_.natural(x[..., 1:])], axis=-1)

    def from_natural(self, values: Array) -> Array:
        return np.concatenate([values[..., :1], self.correlation_.from_natural(values[..., 1:])], axis=-1)

    def natural_derivatives(self, values: Array) -> Derivatives:
        sd = float(values[0])
        return self._derivatives(values[1:], sd * sd, 2.0 * sd, 2.0)

    def _derivatives(self, r: Array, variance: float, first: float, second: float) -> Derivatives:
        """Derivatives of v(t) C(r) in (t, r), given v and its two derivatives."""
        k = self.size
        base, d1 = self.correlation_.matrix(r), self.correlation_.first(r)
        gradient = np.concatenate([first * base[None], variance * d1])
        hessian = np.empty((k, k, self.q, self.q))
        hessian[0, 0] = second * base
        hessian[0, 1:] = hessian[1:, 0] = first * d1
        hessian[1:, 1:] = variance * self.correlation_.second(r)
        return variance * base, gradient, hessian

    def components(self, x: Array) -> Array:
        variance, r = np.square(x[..., :1]), self.correlation_.natural(x[..., 1:])
        return np.concatenate([variance, variance * r if self.correlation_.linear else r], axis=-1)

    def from_components(self, values: Array) -> Array:
        variance, inner = values[..., :1], values[..., 1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            r = inner / variance if self.correlation_.linear else inner
            return np.concatenate([np.sqrt(variance), self.correlation_.from_natural(r)], axis=-1)

    def component_derivatives(self, values: Array) -> Derivatives:
        if not self.correlation_.linear:
            return self._derivatives(values[1:], float(values[0]), 1.0, 0.0)
        lagged = self.correlation_.first(np.zeros(self.size - 1))
        return linear_derivatives(values, np.concatenate([np.eye(self.q)[None], lagged]))


@dataclass(frozen=True, slots=True)
class Heterogeneous(Covariance):
    """S C(z) S, S = diag(|s|): csh, ar1h, adh, toeph. x = (s_1..s_q, z). Natural: sds, correlations; components: variances instead.

    The sign of s is dropped, since a flipped row would leave the family (all its correlations change sign).
    """

    name: str
    q: int
    correlation_: Correlation

    @property
    def size(self) -> int:
        return self.q + self.correlation_.size

    @property
    def scales(self) -> Codes:
        return np.arange(self.q)

    @property
    def rows(self) -> Codes:
        return np.concatenate([np.arange(self.q), np.full(self.correlation_.size, -1)])

    @property
    def invariance(self) -> Invariance:
        return "diagonal"

    @property
    def needs_order(self) -> bool:
        return self.correlation_.needs_order

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        return (*per_row("sd", self.q), *self.correlation_.parameters)

    @property
    def component_parameters(self) -> tuple[Parameter, ...]:
        return (*per_row("var", self.q), *self.correlation_.parameters)

    def start(self) -> Array:
        return np.concatenate([np.ones(self.q), self.correlation_.start()])

    def factor(self, x: Array) -> Array:
        return np.asarray(np.abs(x[..., : self.q, None]) * self.correlation_.factor(x[..., self.q :]))

    def factor_derivative(self, x: Array) -> Array:
        s, z = x[..., : self.q], x[..., self.q :]
        sign = np.where(s < 0, -1.0, 1.0)
        rows = np.eye(self.q)[:, :, None] * (sign[..., None] * self.correlation_.factor(z))[..., None, :, :]
        return np.concatenate([rows, np.abs(s)[..., None, :, None] * self.correlation_.factor_derivative(z)], axis=-3)

    def from_matrix(self, sigma: Array) -> Array:
        sd = np.sqrt(np.clip(np.diag(sigma), 0.0, None))
        return np.concatenate([sd, self.correlation_.from_natural(self.correlation_.closest(correlations(sigma)))])

    def natural(self, x: Array) -> Array:
        return np.concatenate([np.abs(x[..., : self.q]), self.correlation_.natural(x[..., self.q :])], axis=-1)

    def from_natural(self, values: Array) -> Array:
        return np.concatenate([values[..., : self.q], self.correlation_.from_natural(values[..., self.q :])], axis=-1)

    def natural_derivatives(self, values: Array) -> Derivatives:
        q, k, s, r = self.q, self.size, values[: self.q], values[self.q :]
        base, d1, d2 = self.correlation_.matrix(r), self.correlation_.first(r), self.correlation_.second(r)
        unit, both = np.eye(q), np.outer(s, s)
        # d(s_i s_j)/ds_a = [i = a] s_j + [j = a] s_i
        edge = unit[:, :, None] * s + unit[:, None, :] * s[:, None]
        corner = unit[:, None, :, None] * unit[None, :, None, :]
        corner = corner + np.swapaxes(corner, -1, -2)
        hessian = np.empty((k, k, q, q))
        hessian[:q, :q] = corner * base
        hessian[:q, q:] = edge[:, None] * d1
        hessian[q:, :q] = np.swapaxes(hessian[:q, q:], 0, 1)
        hessian[q:, q:] = both * d2
        return both * base, np.concatenate([edge * base, both * d1]), hessian

    def components(self, x: Array) -> Array:
        return np.concatenate([np.square(x[..., : self.q]), self.correlation_.natural(x[..., self.q :])], axis=-1)

    def from_components(self, values: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return self.from_natural(np.concatenate([np.sqrt(values[..., : self.q]), values[..., self.q :]], axis=-1))

    def component_derivatives(self, values: Array) -> Derivatives:
        q = self.q
        sd = np.sqrt(values[:q])
        sigma, gradient, hessian = self.natural_derivatives(np.concatenate([sd, values[q:]]))
        speed, rows = np.ones(self.size), np.arange(q)
        with np.errstate(divide="ignore", invalid="ignore"):
            speed[:q] = 0.5 / sd  # infinite where a variance is 0: there the family is not smooth in it
            second_derivative = -0.25 / sd**3
            moved = hessian * speed[:, None, None, None] * speed[None, :, None, None]
            moved[rows, rows] += second_derivative[:, None, None] * gradient[:q]
            return sigma, gradient * speed[:, None, None], moved
