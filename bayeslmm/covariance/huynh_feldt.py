"""Sums of known matrices: Huynh-Feldt, lin, and one known matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Derivatives, MatrixCovariance, Parameter, per_row
from bayeslmm.covariance.correlation import Correlation, IdentityCorrelation
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.covariance.unstructured import linear_derivatives


class Combination(MatrixCovariance):
    """Sigma = sum_k theta_k A_k, theta_k = x_k^2 (a scale) or x_k (free). Natural parameters: theta, linear.

    The matrix is indefinite for some x: the factor is NaN there.
    """

    __slots__ = ()
    basis: Array  # (size, q, q)

    @property
    def squared(self) -> Codes:
        """Which theta are squares: 1 or 0 (size,)."""
        return np.ones(self.size, dtype=np.int64)

    @property
    def size(self) -> int:
        return int(self.basis.shape[0])

    @property
    def scales(self) -> Codes:
        return np.flatnonzero(self.squared)

    @property
    def degrees(self) -> Codes:
        return np.where(self.squared == 1, 1, 2).astype(np.int64)

    @property
    def linear(self) -> bool:
        return True

    def natural(self, x: Array) -> Array:
        return np.where(self.squared == 1, np.square(x), x)

    def from_natural(self, values: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.where(self.squared == 1, np.sqrt(values), values)

    def sigma(self, x: Array) -> Array:
        return np.asarray(np.einsum("...k,kij->...ij", self.natural(x), self.basis))

    def sigma_derivative(self, x: Array) -> Array:
        return np.asarray(np.where(self.squared == 1, 2.0 * x, 1.0)[..., None, None] * self.basis)

    def natural_derivatives(self, values: Array) -> Derivatives:
        return linear_derivatives(values, self.basis)


@dataclass(frozen=True, slots=True, eq=False)
class HuynhFeldt(Combination):
    """hf: Sigma[i, j] = (v_i + v_j) / 2 - lambda off the diagonal v. x = (s_1..s_q, l), v = s^2, lambda = l^2."""

    name: str
    q: int
    basis: Array

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        return (*per_row("var", self.q), Parameter("lambda"))

    def start(self) -> Array:
        return np.append(np.ones(self.q), np.sqrt(0.7))

    def from_matrix(self, sigma: Array) -> Array:
        variances = np.clip(np.diag(sigma), 0.0, None)
        pairs = np.tril_indices(self.q, -1)
        spread = float(np.mean((0.5 * np.add.outer(variances, variances) - sigma)[pairs]))
        x, mean = np.empty(self.size), variances.mean()
        # lambda of a positive definite member lies in (0, mean variance * q / (q-1)) once the variances are equal
        limited = float(np.clip(spread, 1e-6 * mean, (1.0 - 1e-6) * mean * self.q / (self.q - 1)))
        for even, value in ((0.0, spread), *((even, limited) for even in np.linspace(0.0, 1.0, 21))):
            x = self.from_natural(np.append((1.0 - even) * variances + even * mean, value))
            if np.isfinite(self.factor(x)).all():
                break
        return x


def huynh_feldt(name: str, q: int) -> HuynhFeldt:
    """Build hf with its matrices: dSigma/dv_a and dSigma/dlambda."""
    unit = np.eye(q)
    rows = 0.5 * (unit[:, :, None] + unit[:, None, :])
    return HuynhFeldt(name, q, np.concatenate([rows, unit[None] - 1.0]))


@dataclass(frozen=True, slots=True, eq=False)
class Linear(Combination):
    """lin: Sigma = sum theta_k A_k over given matrices; theta_k = x_k^2 for a positive semi-definite A_k, free for an indefinite one."""

    name: str
    q: int
    basis: Array

    @property
    def squared(self) -> Codes:
        return np.array([np.isfinite(cholesky(matrix)).all() for matrix in self.basis], dtype=np.int64)

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        return tuple(Parameter("theta", (), k + 1) for k in range(self.size))

    def start(self) -> Array:
        return np.where(self.squared == 1, 1.0, 0.0)

    def from_matrix(self, sigma: Array) -> Array:
        design = self.basis.reshape(self.size, -1).T
        theta = np.linalg.lstsq(design, sigma.reshape(-1), rcond=None)[0]
        squared = self.squared == 1
        theta[squared] = np.clip(theta[squared], 0.0, None)
        for _ in range(60):
            if np.isfinite(self.factor(self.from_natural(theta))).all():
                break
            theta[~squared] *= 0.5
        return self.from_natural(theta)


@dataclass(frozen=True, slots=True, eq=False)
class Given(IdentityCorrelation):
    """A matrix that is known entirely, and its factor; not necessarily with a unit diagonal."""

    known: Array
    root: Array

    def matrix(self, r: Array) -> Array:
        return np.broadcast_to(self.known, (*r.shape[:-1], self.q, self.q))

    def factor(self, z: Array) -> Array:
        return np.broadcast_to(self.root, (*z.shape[:-1], self.q, self.q))


@dataclass(frozen=True, slots=True, eq=False)
class Known(Homogeneous):
    """known: one given matrix times a variance."""

    @property
    def homogeneous(self) -> bool:
        return False

    def from_matrix(self, sigma: Array) -> Array:
        given: Correlation = self.correlation_
        trace = float(np.trace(given.matrix(np.empty(0))))
        return np.array([np.sqrt(max(float(np.trace(sigma)), 0.0) / trace)])

    def component_derivatives(self, values: Array) -> Derivatives:
        return linear_derivatives(values, self.correlation_.matrix(np.empty(0))[None])
