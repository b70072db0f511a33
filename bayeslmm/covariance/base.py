"""The protocol of covariance structures for D and R, the names of their parameters, and structures given by Sigma itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.linalg import cholesky, factor_tangent, transpose


@dataclass(frozen=True, slots=True)
class Parameter:
    """One natural parameter: its kind, and the rows, the lag or the serial number it belongs to.

    kind : "sd", "var", "cov", "rho", "range", "nu", ...
    rows : positions (from 0) of the visits or columns concerned
    number : lag, or position in a list; 0 if the kind alone is enough
    """

    kind: str
    rows: tuple[int, ...] = ()
    number: int = 0

    @property
    def name(self) -> str:
        """`sd_1`, `cov_2_1`, `rho_1`, `rho`: positions counted from 1."""
        return "_".join([self.kind, *(str(row + 1) for row in self.rows), *([str(self.number)] if self.number else [])])

    def label(self, labels: Sequence[str]) -> str:
        """`sd[VIS1]`, `cov[VIS2,VIS1]`, `rho[lag 1]`, `rho`."""
        if self.rows:
            return f"{self.kind}[{','.join(str(labels[row]) for row in self.rows)}]"
        if self.number:
            lagged = self.kind.removeprefix("inner_") in ("rho", "cov")
            return f"{self.kind}[lag {self.number}]" if lagged else f"{self.kind}[{self.number}]"
        return self.kind


def per_row(kind: str, q: int) -> tuple[Parameter, ...]:
    """One parameter of a kind for every row."""
    return tuple(Parameter(kind, (row,)) for row in range(q))


Invariance = Literal["any", "diagonal", "scalar"]
Derivatives = tuple[Array, Array, Array]


class Covariance(ABC):
    """A family of q x q covariance matrices Sigma = T T', T lower triangular, over a free parameter vector x.

    x holds scales first (sign-free: 0 and negative values are allowed, Sigma does not see the sign), then shape parameters on
    unconstrained axes. `factor`, `factor_derivative`, `matrix`, `natural`, `from_natural` and `rescale` accept leading axes.
    A point where the structure is not positive semi-definite (only hf, lin, banded toep) has NaN in `factor`.

    Two readings of x in the units of the data:
    natural    : standard deviations, then correlations (us, un, hf, lin: the (co)variances), for reports and priors
    components : variances and covariances wherever Sigma is linear in them, else variances and correlations, as PROC MIXED
                 prints them; for Kenward-Roger, whose second-order term vanishes where `component_linear`
    """

    __slots__ = ()
    name: str
    q: int

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of free parameters, scales included."""

    @property
    @abstractmethod
    def scales(self) -> Codes:
        """Positions in x of the scales."""

    @property
    @abstractmethod
    def natural_parameters(self) -> tuple[Parameter, ...]:
        """What the natural parameters are about, in their order."""

    @property
    def invariance(self) -> Invariance:
        """Under which maps Sigma -> A Sigma A' the family is closed: any invertible A, positive diagonal ones, multiples of I."""
        return "scalar"

    @property
    def homogeneous(self) -> bool:
        """One variance for all rows."""
        return False

    @property
    def needs_order(self) -> bool:
        """The order of the rows matters."""
        return False

    @property
    def spatial(self) -> bool:
        """Sigma is a function of distances."""
        return False

    @property
    def degrees(self) -> Codes:
        """Power of a common scale c by which each entry of x grows when Sigma becomes c^2 Sigma."""
        degrees = np.zeros(self.size, dtype=np.int64)
        degrees[self.scales] = 1
        return degrees

    @property
    def linear(self) -> bool:
        """Sigma is linear in its natural parameters."""
        return False

    @property
    def component_linear(self) -> bool:
        """Sigma is linear in its components."""
        return self.linear

    @property
    def factor_linear(self) -> bool:
        """T is linear in x: dT/dx is the same everywhere."""
        return False

    @property
    def component_parameters(self) -> tuple[Parameter, ...]:
        """What the components are about, in their order."""
        return self.natural_parameters

    @abstractmethod
    def start(self) -> Array:
        """(size,) unit scales, correlations a little off 0 where 0 would be a saddle."""

    def other_starts(self) -> Array:
        """x (t, size), of unit scales, from which a search begins besides, where a likelihood often has several maxima."""
        return np.empty((0, self.size))

    @abstractmethod
    def factor(self, x: Array) -> Array:
        """T (..., q, q), lower triangular, of x (..., size)."""

    @abstractmethod
    def factor_derivative(self, x: Array) -> Array:
        """dT/dx (..., size, q, q), exact; perhaps a read-only view where it is constant."""

    @abstractmethod
    def from_matrix(self, sigma: Array) -> Array:
        """x (size,) of a positive semi-definite matrix (q, q): exact for members, a close member otherwise."""

    @abstractmethod
    def natural(self, x: Array) -> Array:
        """Natural parameters (..., size) of x."""

    @abstractmethod
    def from_natural(self, values: Array) -> Array:
        """x (..., size) of natural parameters; NaN outside their range."""

    @abstractmethod
    def natural_derivatives(self, values: Array) -> Derivatives:
        """Sigma (q, q), dSigma (size, q, q) and d2Sigma (size, size, q, q) at natural values (size,)."""

    def components(self, x: Array) -> Array:
        """Components (..., size) of x."""
        return self.natural(x)

    def from_components(self, values: Array) -> Array:
        """x (..., size) of components."""
        return self.from_natural(values)

    def component_derivatives(self, values: Array) -> Derivatives:
        """As `natural_derivatives`, in the components."""
        return self.natural_derivatives(values)

    def matrix(self, x: Array) -> Array:
        """Sigma = T T' (..., q, q)."""
        factor = self.factor(x)
        return np.asarray(factor @ transpose(factor))

    def matrix_derivative(self, x: Array) -> Array:
        """dSigma/dx = dT T' + T dT' (..., size, q, q)."""
        half = self.factor_derivative(x) @ transpose(self.factor(x))[..., None, :, :]
        return np.asarray(half + transpose(half))

    def rescale(self, x: Array, c: float) -> Array:
        """x of c^2 Sigma."""
        return np.asarray(x * float(c) ** self.degrees)

    @property
    def rows(self) -> Codes:
        """The row of Sigma that each entry of x scales, -1 where it is about no single row; see `rescale_rows`."""
        return np.full(self.size, -1)

    def rescale_rows(self, x: Array, c: Array) -> Array:
        """x of diag(c) Sigma diag(c), c (q,) positive; all c alike where `invariance` is "scalar"."""
        if self.invariance == "scalar":
            return self.rescale(x, float(c[0]))
        return np.asarray(x * np.where(self.rows >= 0, c[self.rows], 1.0))

    def map_rows(self, x: Array, A: Array) -> Array:
        """x (size,) of A Sigma A', for a map A (q, q) under which the family is closed (`invariance`)."""
        if self.invariance == "diagonal":
            return self.rescale_rows(x, np.diagonal(A))
        return self.rescale(x, float(A[0, 0]))

    def natural_jacobian(self, x: Array) -> Array:
        """d natural / dx (size, size) at one x (size,), through dSigma/dx = dSigma/dnatural dnatural/dx."""
        return self._jacobian(self.natural_derivatives(self.natural(x))[1], x)

    def component_jacobian(self, x: Array) -> Array:
        """d components / dx (size, size) at one x (size,)."""
        return self._jacobian(self.component_derivatives(self.components(x))[1], x)

    def _jacobian(self, derivative: Array, x: Array) -> Array:
        left = derivative.reshape(self.size, -1).T
        right = self.matrix_derivative(x).reshape(self.size, -1).T
        unit = np.linalg.norm(left, axis=0)
        unit = np.where(unit > 0.0, unit, 1.0)[:, None]
        return np.asarray(np.linalg.lstsq(left / unit.T, right, rcond=None)[0] / unit)

    @property
    def natural_names(self) -> tuple[str, ...]:
        """`sd_1`, `rho`, `cov_2_1`, ..."""
        return tuple(parameter.name for parameter in self.natural_parameters)

    def natural_names_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Names with the q visits or columns called by their labels: `sd[VIS1]`, `cov[VIS2,VIS1]`."""
        return tuple(parameter.label(labels) for parameter in self.natural_parameters)

    @property
    def component_names(self) -> tuple[str, ...]:
        """`var_1`, `cov_2_1`, `rho`, ..."""
        return tuple(parameter.name for parameter in self.component_parameters)

    def component_names_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Names of the components with the visits or columns called by their labels."""
        return tuple(parameter.label(labels) for parameter in self.component_parameters)

    def pin_scale(self) -> UnitScale:
        """The same family with its leading scale held at 1, for R = sigma^2 R0."""
        return UnitScale(self)


@dataclass(frozen=True, slots=True)
class UnitScale:
    """A structure whose leading scale is held at 1: R0 in R = sigma^2 R0.

    The leading scale is the sd of the first row (heterogeneous structures) or of all rows (homogeneous ones), so that R0[0, 0] = 1
    and sigma is that sd. x lacks the leading entry of the full x; everything else is as in `Covariance`.
    """

    covariance: Covariance

    @property
    def name(self) -> str:
        """The structure's name."""
        return self.covariance.name

    @property
    def q(self) -> int:
        """Dimension."""
        return self.covariance.q

    @property
    def size(self) -> int:
        """Number of free parameters."""
        return self.covariance.size - 1

    @property
    def scales(self) -> Codes:
        """Positions in x of the remaining scales."""
        return self.covariance.scales[1:] - 1

    def full_x(self, x: Array) -> Array:
        """The full x with its leading scale 1."""
        return np.concatenate([np.ones((*np.shape(x)[:-1], 1)), x], axis=-1)

    def full(self, sigma: float, x: Array) -> Array:
        """The structure's own x of sigma^2 R0(x)."""
        return self.covariance.rescale(self.full_x(x), sigma)

    def split(self, full: Array) -> tuple[float, Array]:
        """sigma and x of the structure's own x; NaN where the leading scale is 0, since R0 has no such member."""
        sigma = abs(float(full[0])) ** (1.0 / float(self.covariance.degrees[0]))
        x = self.covariance.rescale(full, np.copysign(1.0, full[0]) / sigma if sigma else np.nan)
        return sigma, x[1:]

    def start(self) -> Array:
        """(size,) start."""
        return self.split(self.covariance.start())[1]

    def factor(self, x: Array) -> Array:
        """T0 (..., q, q) of R0 = T0 T0'."""
        return self.covariance.factor(self.full_x(x))

    def factor_derivative(self, x: Array) -> Array:
        """dT0/dx (..., size, q, q)."""
        return self.covariance.factor_derivative(self.full_x(x))[..., 1:, :, :]

    def matrix(self, x: Array) -> Array:
        """R0 (..., q, q)."""
        return self.covariance.matrix(self.full_x(x))

    def matrix_derivative(self, x: Array) -> Array:
        """dR0/dx (..., size, q, q)."""
        return self.covariance.matrix_derivative(self.full_x(x))[..., 1:, :, :]

    def from_matrix(self, sigma: Array) -> tuple[float, Array]:
        """sigma and x with sigma^2 R0(x) the closest member to a positive definite matrix (q, q)."""
        return self.split(self.covariance.from_matrix(sigma))


class MatrixCovariance(Covariance):
    """A structure that says Sigma(x) and dSigma/dx; T is the Cholesky factor, its derivative exact where Sigma is definite."""

    __slots__ = ()

    @abstractmethod
    def sigma(self, x: Array) -> Array:
        """Sigma (..., q, q), definite or not."""

    @abstractmethod
    def sigma_derivative(self, x: Array) -> Array:
        """dSigma/dx (..., size, q, q)."""

    def factor(self, x: Array) -> Array:
        return cholesky(self.sigma(x))

    def factor_derivative(self, x: Array) -> Array:
        return factor_tangent(self.factor(x), self.sigma_derivative(x))


StructureOrder = int | tuple[int, int]
"""The number of bands or factors of a structure, or the two orders of arma(p, q)."""


def order_text(order: StructureOrder | None) -> str:
    """An order as it follows in the brackets: `, 2`, `, 2, 1`, or nothing."""
    if order is None:
        return ""
    return "".join(f", {number}" for number in (order if isinstance(order, tuple) else (order,)))


@dataclass(frozen=True, slots=True)
class Request:
    """What `make` was asked for, checked; see there."""

    name: str
    q: int
    order: int | None
    distances: Array | None
    reach: float | None
    dims: tuple[int, ...] | None
    matrices: Array | None
    nu: float | None
    nugget: bool
    positions: tuple[float, ...] = ()
    lags: tuple[int, int] | None = None
    places: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Structure:
    """One row of the registry: all that formulas, data checks, D, R, SAS and PyMC know of a structure by its name.

    count : number of parameters in terms of the dimension t and the order q, as PROC MIXED's manual writes it
    build : the structure of a request
    takes : "" or which extra argument of `make` it takes: "order", "orders" (two of them), "places", "times", "dims", "matrices"
    needs_order : whether the order of the rows matters, so that visits that are text without an order are refused
    serial : whether it counts the steps between rows, so that a visit which no row has may not be dropped
    homogeneous : whether all rows have one variance, so that a nugget may be added
    minimum : smallest dimension at which its parameters can be told apart
    formula : where a formula may name it: "both" for D and R, "R" for R alone, "" for none
    has_nugget : whether a nugget beside it is not identified, since its diagonal is free
    inner : whether it may be a factor of a product behind the first, where its leading scale is held at 1
    series : whether one series of rows can tell its parameters, whose number does not grow with the rows
    sas : TYPE= of PROC MIXED, "" where it has none; sas_row : what CovParms calls what is not a variance, {} being a number
    """

    name: str
    description: str
    count: str
    build: Callable[[Request], Covariance]
    takes: str = ""
    needs_order: bool = False
    serial: bool = False
    homogeneous: bool = False
    minimum: int = 1
    formula: str = "both"
    has_nugget: bool = False
    inner: bool = True
    series: bool = False
    sas: str = ""
    sas_row: str = ""

    @property
    def spatial(self) -> bool:
        """A function of distances between coordinates."""
        return self.takes == "places"

    @property
    def by_distance(self) -> bool:
        """R is a function of distances between the rows, whose places or times may be any numbers."""
        return self.takes in ("places", "times")
