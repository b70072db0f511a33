"""The base class of correlation structures, the identity, and compound symmetry (`cs`, `csh`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Parameter
from bayeslmm.covariance.linalg import cholesky, factor_tangent

# a correlation estimated at its limit is taken this far inside, where its unconstrained image is finite
LARGEST_CORRELATION = 1.0 - 1e-9


def sech2(z: Array) -> Array:
    """d tanh(z) / dz, without cancellation."""
    return np.asarray(1.0 / np.cosh(np.clip(z, -300.0, 300.0)) ** 2)


def mean_or(values: Array, otherwise: float) -> float:
    """The mean of the finite values, or a default if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else otherwise


class Correlation(ABC):
    """A family of correlation matrices C(r), natural parameters r(z), z unconstrained. All but `closest` accept leading axes."""

    __slots__ = ()
    q: int

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """What each entry of r is about."""

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.parameters)

    @property
    def needs_order(self) -> bool:
        """The order of the rows matters."""
        return True

    @property
    def linear(self) -> bool:
        """C is linear in r."""
        return False

    @property
    def definite(self) -> bool:
        """C is positive definite at every z, and less is to compute for it than for its factor."""
        return False

    @abstractmethod
    def start(self) -> Array:
        """z (size,)."""

    def other_starts(self) -> Array:
        """z (t, size) from which a search begins besides, where a likelihood often has several maxima in these parameters."""
        return np.empty((0, self.size))

    @abstractmethod
    def natural(self, z: Array) -> Array:
        """r (..., size)."""

    @abstractmethod
    def natural_jacobian(self, z: Array) -> Array:
        """dr/dz (..., size of r, size of z)."""

    @abstractmethod
    def from_natural(self, r: Array) -> Array:
        """z (..., size)."""

    @abstractmethod
    def matrix(self, r: Array) -> Array:
        """C (..., q, q)."""

    @abstractmethod
    def first(self, r: Array) -> Array:
        """dC/dr (..., size, q, q)."""

    @abstractmethod
    def second(self, r: Array) -> Array:
        """d2C/dr2 (..., size, size, q, q)."""

    @abstractmethod
    def closest(self, matrix: Array) -> Array:
        """r of a correlation matrix (q, q), NaN where nothing is known: exact for members."""

    def innovation(self, r: Array) -> Array | None:
        """Variance (...,) of a row given all of a stationary series before it, where its own is 1; None where there is no such series."""
        del r
        return None

    def factor(self, z: Array) -> Array:
        """L (..., q, q), lower triangular, C = L L'."""
        return cholesky(self.matrix(self.natural(z)))

    def factor_derivative(self, z: Array) -> Array:
        """dL/dz (..., size, q, q)."""
        r = self.natural(z)
        derivative = np.einsum("...rz,...rij->...zij", self.natural_jacobian(z), self.first(r))
        return factor_tangent(cholesky(self.matrix(r)), derivative)


def lag_matrix(q: int) -> Array:
    """|i - j| (q, q)."""
    return np.abs(np.subtract.outer(np.arange(q), np.arange(q))).astype(np.float64)


@dataclass(frozen=True, slots=True)
class IdentityCorrelation(Correlation):
    """C = I."""

    q: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return ()

    @property
    def needs_order(self) -> bool:
        return False

    @property
    def linear(self) -> bool:
        return True

    def start(self) -> Array:
        return np.empty(0)

    def natural(self, z: Array) -> Array:
        return z

    def natural_jacobian(self, z: Array) -> Array:
        return np.empty((*z.shape, 0))

    def from_natural(self, r: Array) -> Array:
        return r

    def matrix(self, r: Array) -> Array:
        return np.broadcast_to(np.eye(self.q), (*r.shape[:-1], self.q, self.q))

    def first(self, r: Array) -> Array:
        return np.empty((*r.shape, self.q, self.q))

    def second(self, r: Array) -> Array:
        return np.empty((*r.shape, 0, self.q, self.q))

    def closest(self, matrix: Array) -> Array:
        return np.empty((*matrix.shape[:-2], 0))

    def factor(self, z: Array) -> Array:
        return self.matrix(z)

    def factor_derivative(self, z: Array) -> Array:
        return self.first(z)


@dataclass(frozen=True, slots=True)
class Exchangeable(Correlation):
    """One correlation for every pair, -1/(q-1) < rho < 1.

    z = log sqrt((1 + (q-1) rho) / (1 - rho)), half the log ratio of the two eigenvalues: 0 at rho = 0, atanh(rho) for q = 2.
    The factor is written out, since it stays finite at both ends: with a_j = 1 + j rho,
    L[j, j]^2 = (1 - rho) a_j / a_(j-1) and L[i, j]^2 = rho^2 (1 - rho) / (a_(j-1) a_j).
    """

    q: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("rho"),)

    @property
    def needs_order(self) -> bool:
        return False

    @property
    def linear(self) -> bool:
        return True

    def start(self) -> Array:
        return self.from_natural(np.array([0.1]))

    def _eigenvalues(self, z: Array) -> tuple[Array, Array]:
        """1 - rho and 1 + (q-1) rho, each without cancellation."""
        odds = np.exp(np.clip(2.0 * z, -600.0, 600.0))
        total = odds + (self.q - 1)
        return self.q / total, self.q * (odds / total)

    def natural(self, z: Array) -> Array:
        small, large = self._eigenvalues(z)
        return (large - small) / self.q

    def natural_jacobian(self, z: Array) -> Array:
        small, large = self._eigenvalues(z)
        return (2.0 / self.q * small * large)[..., None]

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(0.5 * np.log((1.0 + (self.q - 1) * r) / (1.0 - r)))

    def matrix(self, r: Array) -> Array:
        eye = np.eye(self.q)
        return eye + r[..., None] * (1.0 - eye)

    def first(self, r: Array) -> Array:
        return np.broadcast_to(1.0 - np.eye(self.q), (*r.shape, self.q, self.q))

    def second(self, r: Array) -> Array:
        return np.zeros((*r.shape, 1, self.q, self.q))

    def closest(self, matrix: Array) -> Array:
        rho = mean_or(matrix[np.tril_indices(self.q, -1)], 0.0)
        return np.array([np.clip(rho, -LARGEST_CORRELATION / (self.q - 1), LARGEST_CORRELATION)])

    def _columns(self, z: Array) -> tuple[Array, Array, Array, Array]:
        """rho, 1 - rho, a_(j-1) and a_j by column (..., q)."""
        small, large = self._eigenvalues(z)
        rho, j = (large - small) / self.q, np.arange(self.q)
        # a_(-1) and a_(q-1) are the eigenvalues, known without cancellation
        return rho, small, np.where(j == 0, small, 1.0 + (j - 1) * rho), np.where(j == self.q - 1, large, 1.0 + j * rho)

    def factor(self, z: Array) -> Array:
        rho, small, before, now = self._columns(z)
        diagonal = np.sqrt(small * now / before)
        below = rho * np.sqrt(small / (before * np.where(now > 0, now, 1.0)))
        strict = np.tri(self.q, k=-1)
        return np.asarray(strict * below[..., None, :] + np.eye(self.q) * diagonal[..., None, :])

    def factor_derivative(self, z: Array) -> Array:
        rho, small, before, now = self._columns(z)
        large = now[..., -1:]
        speed = 2.0 / self.q * small * large
        j = np.arange(self.q)
        # d log of each factor times d rho / dz, the last a_j being the eigenvalue that cancels with the speed
        log_small = -2.0 / self.q * large
        log_now = np.where(j == self.q - 1, (self.q - 1) * 2.0 / self.q * small, j * speed / np.where(now > 0, now, 1.0))
        log_before = (j - 1) * speed / before
        diagonal = np.sqrt(small * now / before) * 0.5 * (log_small + log_now - log_before)
        root = np.sqrt(small / (before * np.where(now > 0, now, 1.0)))
        below = root * (speed + 0.5 * rho * (log_small - log_now - log_before))
        result = np.tri(self.q, k=-1) * below[..., None, :] + np.eye(self.q) * diagonal[..., None, :]
        return np.asarray(result[..., None, :, :])
