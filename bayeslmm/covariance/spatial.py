"""Spatial covariances: functions of distance (exponential, Gaussian, power, spherical, linear, rational, Matern) times a variance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Covariance, Parameter, UnitScale
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.linalg import best_of, cholesky, factor_tangent
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.errors import SpecificationError

DistanceCurve = Callable[[Array], tuple[Array, Array, Array]]


def distance_matrix(coords: Array) -> Array:
    """Euclidean distances (..., k, k) between the rows of coordinates (..., k, d)."""
    gaps = coords[..., :, None, :] - coords[..., None, :, :]
    return np.asarray(np.sqrt((gaps * gaps).sum(-1)))


def typical_distance(distances: Array) -> float:
    """The median over points of the distance to the nearest other place; 1 if there is none."""
    apart = np.where(distances > 0, distances, np.inf).min(axis=-1)
    finite = apart[np.isfinite(apart)]
    return float(np.median(finite)) if finite.size else 1.0


def align_to_distances(values: Array, distances: Array) -> Array:
    """Parameter values (...,) with axes for the distances appended."""
    return values.reshape(values.shape + (1,) * distances.ndim)


RANGE_STARTS = (-2.0, 0.0, 2.0, 4.0)
"""Moves of the range on its free axis from which a search begins besides: from a fraction of the nearest distances to many of them."""

NUGGET_STARTS = (0.1, 0.5)
"""The same: shares of variance of a nugget."""


class Spatial(Correlation):
    """A correlation as a function of distances, which are given with each call or once for all.

    The `_at` methods take r (..., size) and distances (B, k, k) or (k, k) and return (..., B, k, k), after the parameter axes.
    """

    __slots__ = ()
    distances: Array
    reach: float

    @property
    def needs_order(self) -> bool:
        return False

    def other_starts(self) -> Array:
        z = np.tile(self.start(), (len(RANGE_STARTS), 1))
        z[:, 0] += RANGE_STARTS
        return z

    @abstractmethod
    def at(self, distances: Array) -> Spatial:
        """The same function over other places, distances (k, k)."""

    @abstractmethod
    def matrix_at(self, r: Array, distances: Array) -> Array:
        """C (..., B, k, k)."""

    @abstractmethod
    def first_at(self, r: Array, distances: Array) -> Array:
        """dC/dr (..., size, B, k, k)."""

    @abstractmethod
    def second_at(self, r: Array, distances: Array) -> Array:
        """d2C/dr2 (..., size, size, B, k, k)."""

    def matrix(self, r: Array) -> Array:
        return self.matrix_at(r, self.distances)

    def first(self, r: Array) -> Array:
        return self.first_at(r, self.distances)

    def second(self, r: Array) -> Array:
        return self.second_at(r, self.distances)

    def free_at(self, z: Array, distances: Array) -> Array:
        """C (..., B, k, k) of free parameters, which may say what is lost in r: powers of a rho that underflows."""
        return self.matrix_at(self.natural(z), distances)

    def standardize(self, z: Array, distances: Array) -> tuple[Array, Array]:
        """Free parameters and distances of the same C counted in typical distances, so that no number depends on their unit."""
        counted = z.copy()
        counted[..., 0] -= np.log(self.reach)
        return counted, distances / self.reach

    def factor(self, z: Array) -> Array:
        return cholesky(self.free_at(z, self.distances))

    def factor_derivative(self, z: Array) -> Array:
        return factor_tangent(self.factor(z), self.free_derivative_at(z, self.distances))

    def free_derivative_at(self, z: Array, distances: Array) -> Array:
        """dC/dz (..., size, B, k, k)."""
        first = self.first_at(self.natural(z), distances)
        jacobian = self.natural_jacobian(z)
        flat = first.reshape(*z.shape, -1)
        return (np.swapaxes(jacobian, -1, -2) @ flat).reshape(first.shape)

    def closest(self, matrix: Array) -> Array:
        rows, cols = np.tril_indices(self.q, -1)
        seen = np.isfinite(matrix[rows, cols])
        rows, cols = rows[seen], cols[seen]
        if not rows.size:
            return self.natural(self.start())

        def residual(z: Array) -> tuple[Array, Array]:
            r = self.natural(z)
            derivative = np.einsum("rz,rij->zij", self.natural_jacobian(z), self.first(r))
            return (self.matrix(r) - matrix)[rows, cols], derivative[:, rows, cols].T

        start = self.start()
        shifts = np.linspace(-4.0, 4.0, 9)[:, None] * (np.arange(self.size) == 0)
        z = best_of(residual, list(start + shifts), radius=8.0)
        for _ in range(60):
            if np.isfinite(cholesky(self.matrix(self.natural(z)))).all():
                break
            z = start + 0.8 * (z - start)
        return self.natural(z)


def _exponential(u: Array) -> tuple[Array, Array, Array]:
    f = np.exp(-u)
    return f, -f, f


def _gaussian(u: Array) -> tuple[Array, Array, Array]:
    f = np.exp(-u * u)
    return f, -2.0 * u * f, (4.0 * u * u - 2.0) * f


def _spherical(u: Array) -> tuple[Array, Array, Array]:
    near = u < 1.0
    return np.where(near, 1.0 - 1.5 * u + 0.5 * u**3, 0.0), np.where(near, 1.5 * (u * u - 1.0), 0.0), np.where(near, 3.0 * u, 0.0)


def _linear(u: Array) -> tuple[Array, Array, Array]:
    near = u < 1.0
    return np.where(near, 1.0 - u, 0.0), np.where(near, -1.0, 0.0), np.zeros_like(u)


def _rational(u: Array) -> tuple[Array, Array, Array]:
    f = 1.0 / (1.0 + u * u)
    return f, -2.0 * u * f**2, (6.0 * u * u - 2.0) * f**3


# name -> the curve with its two derivatives, and the starting range in typical distances
CURVES: dict[str, tuple[DistanceCurve, float]] = {
    "sp_exp": (_exponential, 1.0),
    "sp_gau": (_gaussian, 1.0),
    "sp_sph": (_spherical, 2.0),
    "sp_lin": (_linear, 2.0),
    "sp_ratio": (_rational, 1.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class IsotropicCorrelation(Spatial):
    """C = f(d / range), range = exp(z): exp(-d/range), exp(-(d/range)^2), spherical, linear, 1/(1 + (d/range)^2)."""

    q: int
    curve: str
    distances: Array
    reach: float
    _curve: DistanceCurve = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_curve", CURVES[self.curve][0])

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("range"),)

    def start(self) -> Array:
        return np.log(np.array([self.reach * CURVES[self.curve][1]]))

    def natural(self, z: Array) -> Array:
        return np.exp(z)

    def natural_jacobian(self, z: Array) -> Array:
        return np.exp(z)[..., None]

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(r)

    def at(self, distances: Array) -> IsotropicCorrelation:
        return replace(self, q=distances.shape[-1], distances=distances)

    def matrix_at(self, r: Array, distances: Array) -> Array:
        return self._curve(distances / align_to_distances(r[..., 0], distances))[0]

    def first_at(self, r: Array, distances: Array) -> Array:
        reach = align_to_distances(r, distances)
        u = distances / reach
        return np.asarray(-u * self._curve(u)[1] / reach)

    def second_at(self, r: Array, distances: Array) -> Array:
        reach = align_to_distances(r[..., None], distances)
        u = distances / reach
        _, slope, second_derivative = self._curve(u)
        return np.asarray((u * u * second_derivative + 2.0 * u * slope) / reach**2)


LARGEST_RATE = 700.0
"""-log rho beyond which a correlation is no number any more."""


@dataclass(frozen=True, slots=True, eq=False)
class PowerCorrelation(Spatial):
    """C = rho^d, 0 < rho < 1, rho = exp(-exp(-z)): the exponential model by its correlation at distance 1."""

    q: int
    distances: Array
    reach: float

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("rho"),)

    def start(self) -> Array:
        return np.log(np.array([self.reach]))

    def natural(self, z: Array) -> Array:
        # a correlation that underflows, where time has a small unit, is kept above 0, where its powers below 1 still have a derivative
        return np.exp(-np.minimum(np.exp(-z), LARGEST_RATE))

    def free_at(self, z: Array, distances: Array) -> Array:
        return np.asarray(np.exp(-align_to_distances(np.exp(-z[..., 0]), distances) * distances))

    def free_derivative_at(self, z: Array, distances: Array) -> Array:
        moved = align_to_distances(np.exp(-z), distances) * distances
        return np.asarray(moved * np.exp(-moved))

    def natural_jacobian(self, z: Array) -> Array:
        return (self.natural(z) * np.exp(-z))[..., None]

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return -np.log(-np.log(r))

    def at(self, distances: Array) -> PowerCorrelation:
        return replace(self, q=distances.shape[-1], distances=distances)

    def matrix_at(self, r: Array, distances: Array) -> Array:
        return np.asarray(align_to_distances(r[..., 0], distances) ** distances)

    def first_at(self, r: Array, distances: Array) -> Array:
        return _power_derivative(align_to_distances(r, distances), distances, 1)

    def second_at(self, r: Array, distances: Array) -> Array:
        return _power_derivative(align_to_distances(r[..., None], distances), distances, 2)


def _power_derivative(rho: Array, distances: Array, times: int) -> Array:
    """The first or second derivative of rho^d in rho; 0 at distance 0."""
    factor = distances if times == 1 else distances * (distances - 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(factor != 0.0, factor * rho ** (distances - times), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class SpatialCovariance(Homogeneous):
    """s^2 f(distances): the methods of every structure for one set of places, and `..._at` for any others.

    x (..., size), distances (B, k, k) or (k, k); results are (..., B, k, k), derivatives (..., size, B, k, k), the entry of the scale
    included (0 for a correlation).
    """

    @property
    def spatial(self) -> bool:
        return True

    @property
    def curve(self) -> Spatial:
        """The correlation function."""
        if not isinstance(self.correlation_, Spatial):
            raise SpecificationError(f"'{self.name}' is not a function of distances", self.name, "use one of the sp_ structures")
        return self.correlation_

    def at(self, distances: Array) -> SpatialCovariance:
        """The same structure for one other set of places, distances (k, k); its start stays."""
        return SpatialCovariance(self.name, distances.shape[-1], self.curve.at(distances))

    def correlation(self, x: Array, distances: Array) -> Array:
        """C (..., B, k, k)."""
        return self.curve.free_at(x[..., 1:], distances)

    def correlation_derivative(self, x: Array, distances: Array) -> Array:
        """dC/dx (..., size, B, k, k)."""
        inner = self.curve.free_derivative_at(x[..., 1:], distances)
        return np.concatenate([np.zeros_like(np.take(inner, [0], axis=-1 - distances.ndim)), inner], axis=-1 - distances.ndim)

    def matrix_at(self, x: Array, distances: Array) -> Array:
        """Sigma (..., B, k, k)."""
        variance = np.square(x[..., 0]).reshape(x.shape[:-1] + (1,) * distances.ndim)
        return np.asarray(variance * self.correlation(x, distances))

    def factor_at(self, x: Array, distances: Array) -> Array:
        """T (..., B, k, k), lower triangular; NaN for places where Sigma is not positive semi-definite."""
        scale = x[..., 0].reshape(x.shape[:-1] + (1,) * distances.ndim)
        return np.asarray(scale * cholesky(self.correlation(x, distances)))

    def factor_derivative_at(self, x: Array, distances: Array) -> Array:
        """dT/dx (..., size, B, k, k)."""
        axis = -1 - distances.ndim
        shape = cholesky(self.correlation(x, distances))
        scale = x[..., 0].reshape(x.shape[:-1] + (1,) * (distances.ndim + 1))
        moved = np.moveaxis(self.curve.free_derivative_at(x[..., 1:], distances), axis, -3)
        inner = np.moveaxis(factor_tangent(shape, moved), -3, axis)
        return np.concatenate([np.expand_dims(shape, axis), scale * inner], axis=axis)

    # a few places need not tell a range, a smoothness and a nugget apart, as `Covariance._jacobian` would have them do

    def natural_jacobian(self, x: Array) -> Array:
        """d (s, r) / dx (size, size) at one x (size,)."""
        out = np.eye(self.size)
        out[1:, 1:] = self.curve.natural_jacobian(x[1:])
        return out

    def component_jacobian(self, x: Array) -> Array:
        """d (s^2, r) / dx (size, size) at one x (size,)."""
        out = self.natural_jacobian(x)
        out[0, 0] = 2.0 * x[0]
        return out

    def pin_scale(self) -> PinnedLocated:
        """The correlation alone, its scale held at 1."""
        return PinnedLocated(self)


@dataclass(frozen=True, slots=True, eq=False)
class PinnedLocated(UnitScale):
    """A spatial structure whose scale is held at 1; x lacks the scale."""

    @property
    def located(self) -> SpatialCovariance:
        """The full structure."""
        full: Covariance = self.covariance
        assert isinstance(full, SpatialCovariance)
        return full

    def correlation(self, x: Array, distances: Array) -> Array:
        """C (..., B, k, k)."""
        return self.located.correlation(self.full_x(x), distances)

    def correlation_derivative(self, x: Array, distances: Array) -> Array:
        """dC/dx (..., size, B, k, k)."""
        return self.located.curve.free_derivative_at(x, distances)

    def factor_at(self, x: Array, distances: Array) -> Array:
        """T0 (..., B, k, k)."""
        return self.located.factor_at(self.full_x(x), distances)

    def factor_derivative_at(self, x: Array, distances: Array) -> Array:
        """dT0/dx (..., size, B, k, k)."""
        full = self.located.factor_derivative_at(self.full_x(x), distances)
        return np.take(full, np.arange(1, full.shape[-1 - distances.ndim]), axis=-1 - distances.ndim)


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

    def spread(self, where: Codes) -> MaternCurve:
        """The curve at the points with these numbers, an array of any shape."""
        return MaternCurve(*(part[..., where] for part in astuple(self)))


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
        """Distances in ranges, ranges and the curve there, which takes an integral for each distance that occurs: all do twice or more."""
        occurring, where = np.unique(distances, return_inverse=True)
        reach = align_to_distances(r[..., 0], occurring)
        nu = np.full_like(reach, self.smoothness) if self.smoothness is not None else align_to_distances(r[..., 1], occurring)
        curve = matern_curve(occurring / reach, nu)
        reach = align_to_distances(r[..., 0], distances)
        return distances / reach, reach, curve.spread(where)

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
