"""Structures made of others or of known matrices: nuggets, selected rows, CAR(1), Huynh-Feldt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Covariance, Derivatives, MatrixCovariance, Parameter, Request, Structure, per_row
from bayeslmm.covariance.correlation import Correlation, IdentityCorrelation
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.covariance.spatial import NUGGET_STARTS, PowerCorrelation, Spatial, SpatialCovariance, typical_distance
from bayeslmm.covariance.unstructured import linear_derivatives
from bayeslmm.errors import SpecificationError

_FEW_ROWS = 30


@dataclass(frozen=True, slots=True, eq=False)
class WithNugget(Spatial):
    """(1 - w) C + w I, w = 1 / (1 + exp(-z)): `+ local` of PROC MIXED, the nugget of nlme. r = (those of C, w).

    Around a serial correlation only the methods without distances are of use.
    """

    q: int
    inner: Correlation
    distances: Array
    reach: float

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (*self.inner.parameters, Parameter("nugget"))

    @property
    def needs_order(self) -> bool:
        return self.inner.needs_order

    @property
    def definite(self) -> bool:
        return self.inner.definite

    def start(self) -> Array:
        return np.append(self.inner.start(), np.log(0.2 / 0.8))

    def other_starts(self) -> Array:
        inner, shares = self.inner.other_starts(), np.array(NUGGET_STARTS)
        logits = np.log(shares / (1.0 - shares))
        return np.column_stack([np.repeat(inner, len(shares), axis=0), np.tile(logits, len(inner))])

    def natural(self, z: Array) -> Array:
        share = 0.5 * (1.0 + np.tanh(0.5 * z[..., -1:]))
        return np.concatenate([self.inner.natural(z[..., :-1]), share], axis=-1)

    def natural_jacobian(self, z: Array) -> Array:
        jacobian = np.zeros((*z.shape, self.size))
        jacobian[..., :-1, :-1] = self.inner.natural_jacobian(z[..., :-1])
        jacobian[..., -1, -1] = 0.25 / np.cosh(np.clip(0.5 * z[..., -1], -300.0, 300.0)) ** 2
        return jacobian

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            free = np.log(r[..., -1:]) - np.log1p(-r[..., -1:])
        return np.concatenate([self.inner.from_natural(r[..., :-1]), free], axis=-1)

    def _mix(self, share: Array, base: Array, axes: int) -> Array:
        kept = (1.0 - share).reshape(share.shape + (1,) * axes)
        return np.asarray(kept * base + (1.0 - kept) * np.eye(base.shape[-1]))

    def _first(self, share: Array, base: Array, d1: Array, axes: int) -> Array:
        kept = (1.0 - share).reshape(share.shape + (1,) * (axes + 1))
        last = np.expand_dims(np.eye(base.shape[-1]) - base, -1 - axes)
        return np.concatenate([kept * d1, last], axis=-1 - axes)

    def _second(self, share: Array, d1: Array, d2: Array, axes: int) -> Array:
        kept = (1.0 - share).reshape(share.shape + (1,) * (axes + 2))
        # C is linear in w: its column and row of second derivatives are -dC/dr, the corner is 0
        upper = np.concatenate([kept * d2, np.expand_dims(-d1, -1 - axes)], axis=-1 - axes)
        corner = np.zeros_like(np.take(d1, [0], axis=-1 - axes))
        below = np.concatenate([-d1, corner], axis=-1 - axes)
        return np.concatenate([upper, np.expand_dims(below, -2 - axes)], axis=-2 - axes)

    def matrix(self, r: Array) -> Array:
        return self._mix(r[..., -1], self.inner.matrix(r[..., :-1]), 2)

    def first(self, r: Array) -> Array:
        inner = r[..., :-1]
        return self._first(r[..., -1], self.inner.matrix(inner), self.inner.first(inner), 2)

    def second(self, r: Array) -> Array:
        inner = r[..., :-1]
        return self._second(r[..., -1], self.inner.first(inner), self.inner.second(inner), 2)

    def closest(self, matrix: Array) -> Array:
        if isinstance(self.inner, Spatial) or self.q <= _FEW_ROWS:
            return super(WithNugget, self).closest(matrix)
        # the closest C of a share is at hand, so that over many rows the share alone is searched
        apart = np.isfinite(matrix) & ~np.eye(self.q, dtype=bool)

        def member(share: float) -> tuple[float, Array]:
            r = np.append(self.inner.closest(np.where(apart, matrix / (1.0 - share), np.eye(self.q))), share)
            return float(np.square(self.matrix(r) - matrix)[apart].sum()), r

        shares = np.linspace(0.0, 0.96, 25)
        best = int(np.argmin([member(share)[0] for share in shares.tolist()]))
        low, high = float(shares[max(best - 1, 0)]), float(shares[min(best + 1, len(shares) - 1)])
        for _ in range(40):
            third = (high - low) / 3.0
            low, high = (low, high - third) if member(low + third)[0] <= member(high - third)[0] else (low + third, high)
        return member(max(0.5 * (low + high), 1e-4))[1]

    def _spatial(self) -> Spatial:
        if not isinstance(self.inner, Spatial):
            raise SpecificationError("this structure is not a function of distances", remedy="use a spatial structure such as sp_exp")
        return self.inner

    def free_at(self, z: Array, distances: Array) -> Array:
        share = 0.5 * (1.0 + np.tanh(0.5 * z[..., -1]))
        return self._mix(share, self._spatial().free_at(z[..., :-1], distances), distances.ndim)

    def free_derivative_at(self, z: Array, distances: Array) -> Array:
        inner, spatial = z[..., :-1], self._spatial()
        share, slope = self.natural(z)[..., -1], self.natural_jacobian(z)[..., -1, -1]
        out = self._first(share, spatial.free_at(inner, distances), spatial.free_derivative_at(inner, distances), distances.ndim)
        np.moveaxis(out, -1 - distances.ndim, 0)[-1] *= slope.reshape(slope.shape + (1,) * distances.ndim)
        return out

    def factor(self, z: Array) -> Array:
        return super(WithNugget, self).factor(z) if isinstance(self.inner, Spatial) else Correlation.factor(self, z)

    def factor_derivative(self, z: Array) -> Array:
        spatial = isinstance(self.inner, Spatial)
        return super(WithNugget, self).factor_derivative(z) if spatial else Correlation.factor_derivative(self, z)

    def at(self, distances: Array) -> WithNugget:
        return replace(self, q=distances.shape[-1], distances=distances, inner=self._spatial().at(distances))

    def matrix_at(self, r: Array, distances: Array) -> Array:
        return self._mix(r[..., -1], self._spatial().matrix_at(r[..., :-1], distances), distances.ndim)

    def first_at(self, r: Array, distances: Array) -> Array:
        inner, spatial = r[..., :-1], self._spatial()
        return self._first(r[..., -1], spatial.matrix_at(inner, distances), spatial.first_at(inner, distances), distances.ndim)

    def second_at(self, r: Array, distances: Array) -> Array:
        inner, spatial = r[..., :-1], self._spatial()
        return self._second(r[..., -1], spatial.first_at(inner, distances), spatial.second_at(inner, distances), distances.ndim)


@dataclass(frozen=True, slots=True)
class SelectedRows(Correlation):
    """The rows and columns `positions` (q of them) of a correlation matrix of more rows; its parameters are the same."""

    q: int
    inner: Correlation
    positions: tuple[int, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.inner.parameters

    @property
    def needs_order(self) -> bool:
        return self.inner.needs_order

    @property
    def linear(self) -> bool:
        return self.inner.linear

    def start(self) -> Array:
        return self.inner.start()

    def natural(self, z: Array) -> Array:
        return self.inner.natural(z)

    def natural_jacobian(self, z: Array) -> Array:
        return self.inner.natural_jacobian(z)

    def from_natural(self, r: Array) -> Array:
        return self.inner.from_natural(r)

    def _select(self, matrices: Array) -> Array:
        at = np.array(self.positions)
        return np.asarray(matrices[..., at[:, None], at])

    def matrix(self, r: Array) -> Array:
        return self._select(self.inner.matrix(r))

    def first(self, r: Array) -> Array:
        return self._select(self.inner.first(r))

    def second(self, r: Array) -> Array:
        return self._select(self.inner.second(r))

    def closest(self, matrix: Array) -> Array:
        whole = np.full((*matrix.shape[:-2], self.inner.q, self.inner.q), np.nan)
        at = np.array(self.positions)
        whole[..., at[:, None], at] = matrix
        return self.inner.closest(whole)


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
        correlation: Correlation = self.correlation_
        trace = float(np.trace(correlation.matrix(np.empty(0))))
        return np.array([np.sqrt(max(float(np.trace(sigma)), 0.0) / trace)])

    def component_derivatives(self, values: Array) -> Derivatives:
        return linear_derivatives(values, self.correlation_.matrix(np.empty(0))[None])


def continuous_autoregressive(request: Request) -> Covariance:
    """s^2 rho^|t_i - t_j|, 0 < rho < 1, with a nugget where one is asked for: nlme's corCAR1, and SAS's SP(POW) in one dimension.

    As R it is a function of the distances between the times of a subject's rows; as D its rows stand at given times, by default 0, 1, ....
    """
    times = np.asarray(request.positions or range(request.q), dtype=np.float64)
    distances = np.abs(np.subtract.outer(times, times)) if request.distances is None else request.distances
    reach = request.reach or typical_distance(distances)
    inner: Spatial = PowerCorrelation(request.q, distances, reach)
    if request.nugget:
        inner = WithNugget(request.q, inner, distances, reach)
    return SpatialCovariance(request.name, request.q, inner)


CAR1 = Structure(
    "car1",
    "continuous-time autoregressive: one variance, correlation rho^|t_i - t_j|",
    "2",
    continuous_autoregressive,
    takes="times",
    homogeneous=True,
    series=True,
    sas="SP(POW)",
    sas_row="SP(POW)",
)
