"""Prior families: for each its parameters, its support, its density, slope and draws, and what PyMC and Bambi call it.

Densities are on the scale that a user speaks of: standard deviations, correlations, coefficients. Axes and Jacobians are the business of
whoever calls. An improper family has density 1 (flat), 1/v (flat_log) or a power (gamma with rate 0), known up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import gammainccinv, gammaincinv, gammaln, log_ndtr, ndtr, ndtri

from bayeslmm._arrays import Array, Codes, Generator, readonly

Support = Literal["real", "positive", "interval", "point", "correlation"]


@dataclass(frozen=True, slots=True)
class Family:
    """One prior family.

    parameters : in the order they are given; "+" must be above 0, "0" not below; "?" is a scale that may be left to the data
    log_density, slope, draw : log p(v), its derivative, n draws; each takes the parameters first
    graph : the name of the distribution in PyMC and Bambi, and of its parameters there; "" where neither has it
    mixture : for a scale mixture of normals: the squared scale of the normal, and d log of it / du, at standard normal quantiles u
    """

    name: str
    parameters: tuple[str, ...]
    support: Support
    log_density: Callable[..., Array]
    slope: Callable[..., Array]
    draw: Callable[..., Array]
    graph: tuple[str, tuple[str, ...]] = ("", ())
    mixture: Callable[..., tuple[Array, Array]] | None = None

    @property
    def names(self) -> list[str]:
        """What the parameters are called."""
        return [parameter.strip("+0?") for parameter in self.parameters]


def _t(df: float, location: float, scale: float, v: Array) -> Array:
    constant = gammaln(0.5 * (df + 1.0)) - gammaln(0.5 * df) - 0.5 * np.log(df * np.pi) - np.log(scale)
    return np.asarray(constant - 0.5 * (df + 1.0) * np.log1p(((v - location) / scale) ** 2 / df))


def _t_slope(df: float, location: float, scale: float, v: Array) -> Array:
    away = v - location
    return -(df + 1.0) * away / (df * scale**2 + away**2)


def _normal(mean: float, sd: float, v: Array) -> Array:
    return np.asarray(-0.5 * np.log(2.0 * np.pi) - np.log(sd) - 0.5 * ((v - mean) / sd) ** 2)


def _normal_slope(mean: float, sd: float, v: Array) -> Array:
    return -(v - mean) / sd**2


def _gamma(shape: float, rate: float, v: Array) -> Array:
    constant = shape * np.log(rate) - gammaln(shape) if rate > 0 else 0.0
    return np.asarray(constant + (shape - 1.0) * np.log(v) - rate * v)


def _inverse_gamma(shape: float, scale: float, v: Array) -> Array:
    return np.asarray(shape * np.log(scale) - gammaln(shape) - (shape + 1.0) * np.log(v) - scale / v)


def _above_zero(mean: float, sd: float, rng: Generator, n: int) -> Array:
    """A normal above 0, by the inverse of its distribution function from the upper tail."""
    return np.asarray(mean - sd * ndtri(rng.uniform(size=n) * ndtr(mean / sd)))


def _none(*arguments: object) -> Array:
    return np.full(int(str(arguments[-1])), np.nan)


def _t_mixture(df: float, location: float, scale: float, u: Array) -> tuple[Array, Array]:  # noqa: ARG001
    """scale^2 / g with g ~ Gamma(df/2, rate df/2), at the u-quantile of 1/g; g by whichever tail keeps its digits."""
    a = 0.5 * df
    g = np.where(u > 0, gammaincinv(a, ndtr(-u)), gammainccinv(a, ndtr(u)))
    g = np.maximum(g, 1e-300)
    # d log(1/g) / du = phi(u) / (density of g at g times g)
    log_density = a * np.log(g) - g - gammaln(a)
    slope = np.exp(-0.5 * u**2 - 0.5 * np.log(2.0 * np.pi) - log_density)
    return scale**2 * a / g, slope


def _laplace_mixture(location: float, scale: float, u: Array) -> tuple[Array, Array]:  # noqa: ARG001
    """2 scale^2 e with e ~ Exponential(1) at its u-quantile."""
    e = -log_ndtr(-u)
    slope = np.exp(-0.5 * u**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(-u)) / e
    return 2.0 * scale**2 * e, slope


def _zero(*arguments: Array | float) -> Array:
    return np.zeros_like(arguments[-1])


_TABLE = (
    Family(
        "half_t",
        ("df+", "scale+?"),
        "positive",
        lambda df, s, v: np.log(2.0) + _t(df, 0.0, s, v),
        lambda df, s, v: _t_slope(df, 0.0, s, v),
        lambda df, s, rng, n: np.abs(s * rng.standard_t(df, n)),
        ("HalfStudentT", ("nu", "sigma")),
    ),
    Family(
        "half_normal",
        ("scale+?",),
        "positive",
        lambda s, v: np.log(2.0) + _normal(0.0, s, v),
        lambda s, v: -v / s**2,
        lambda s, rng, n: np.abs(s * rng.standard_normal(n)),
        ("HalfNormal", ("sigma",)),
    ),
    Family(
        "half_cauchy",
        ("scale+?",),
        "positive",
        lambda s, v: np.log(2.0) + _t(1.0, 0.0, s, v),
        lambda s, v: _t_slope(1.0, 0.0, s, v),
        lambda s, rng, n: np.abs(s * rng.standard_cauchy(n)),
        ("HalfCauchy", ("beta",)),
    ),
    Family(
        "exponential",
        ("rate+?",),
        "positive",
        lambda r, v: np.log(r) - r * v,
        lambda r, v: np.full_like(v, -r),
        lambda r, rng, n: rng.exponential(1.0 / r, n),
        ("Exponential", ("lam",)),
    ),
    Family(
        "gamma",
        ("shape+", "rate0"),
        "positive",
        _gamma,
        lambda a, r, v: (a - 1.0) / v - r,
        lambda a, r, rng, n: rng.gamma(a, 1.0 / r, n),
        ("Gamma", ("alpha", "beta")),
    ),
    Family(
        "inverse_gamma",
        ("shape+", "scale+"),
        "positive",
        _inverse_gamma,
        lambda a, s, v: -(a + 1.0) / v + s / v**2,
        lambda a, s, rng, n: s / rng.gamma(a, 1.0, n),
        ("InverseGamma", ("alpha", "beta")),
    ),
    Family(
        "lognormal",
        ("meanlog", "sdlog+"),
        "positive",
        lambda m, s, v: _normal(m, s, np.log(v)) - np.log(v),
        lambda m, s, v: (_normal_slope(m, s, np.log(v)) - 1.0) / v,
        lambda m, s, rng, n: np.exp(rng.normal(m, s, n)),
        ("LogNormal", ("mu", "sigma")),
    ),
    Family(
        "truncated_normal",
        ("mean", "sd+"),
        "positive",
        lambda m, s, v: _normal(m, s, v) - log_ndtr(m / s),
        _normal_slope,
        _above_zero,
        ("TruncatedNormal", ("mu", "sigma")),
    ),
    Family(
        "uniform",
        ("lower", "upper"),
        "interval",
        lambda a, b, v: np.full_like(v, -np.log(b - a)),
        _zero,
        lambda a, b, rng, n: rng.uniform(a, b, n),
        ("Uniform", ("lower", "upper")),
    ),
    Family("flat", (), "real", _zero, _zero, _none, ("Flat", ())),
    Family("flat_log", (), "positive", lambda v: -np.log(v), lambda v: -1.0 / v, _none),
    Family("fixed", ("value+",), "point", _zero, _zero, lambda value, rng, n: np.full(n, value)),
    Family(
        "normal",
        ("mean", "sd+"),
        "real",
        _normal,
        _normal_slope,
        lambda m, s, rng, n: rng.normal(m, s, n),
        ("Normal", ("mu", "sigma")),
    ),
    Family(
        "student_t",
        ("df+", "location", "scale+"),
        "real",
        _t,
        _t_slope,
        lambda df, m, s, rng, n: m + s * rng.standard_t(df, n),
        ("StudentT", ("nu", "mu", "sigma")),
        _t_mixture,
    ),
    Family(
        "cauchy",
        ("location", "scale+"),
        "real",
        lambda m, s, v: _t(1.0, m, s, v),
        lambda m, s, v: _t_slope(1.0, m, s, v),
        lambda m, s, rng, n: m + s * rng.standard_cauchy(n),
        ("Cauchy", ("alpha", "beta")),
        lambda m, s, u: _t_mixture(1.0, m, s, u),
    ),
    Family(
        "laplace",
        ("location", "scale+"),
        "real",
        lambda m, s, v: -np.log(2.0 * s) - np.abs(v - m) / s,
        lambda m, s, v: -np.sign(v - m) / s,
        lambda m, s, rng, n: rng.laplace(m, s, n),
        ("Laplace", ("mu", "b")),
        _laplace_mixture,
    ),
    Family("lkj", ("eta+",), "correlation", _zero, _zero, _none),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _TABLE}

SCALE_FAMILIES = tuple(f.name for f in _TABLE if f.support in ("positive", "interval", "point") or f.name == "flat")
COEFFICIENT_FAMILIES = ("normal", "student_t", "cauchy", "laplace", "flat")
CORRELATION_FAMILIES = ("lkj", "flat")
SHAPE_FAMILIES = tuple(f.name for f in _TABLE if f.support in ("positive", "interval", "real"))


@dataclass(frozen=True, slots=True)
class Prior:
    """A family and its parameters: `Prior("half_t", (3.0, 10.0))`.

    half_t(df, scale), half_normal(scale), half_cauchy(scale), exponential(rate), gamma(shape, rate), inverse_gamma(shape, scale),
    lognormal(meanlog, sdlog), truncated_normal(mean, sd), uniform(lower, upper), normal(mean, sd), student_t(df, location, scale),
    cauchy(location, scale), laplace(location, scale), lkj(eta), flat(), flat_log() (flat on the logarithm), fixed(value). A scale (or
    rate) of a half family that is left out is taken from the data.
    """

    family: str
    parameters: tuple[float, ...] = ()

    @property
    def autoscaled(self) -> bool:
        """Whether the last parameter was left to the data."""
        return len(self.parameters) < len(FAMILIES[self.family].parameters)

    def fill_scale(self, scale: float) -> Prior:
        """The same prior with the scale filled in where it was left to the data (the rate of an exponential is 1/scale).

        >>> Prior("half_t", (3.0,)).fill_scale(2.5)
        Prior(family='half_t', parameters=(3.0, 2.5))
        """
        if not self.autoscaled:
            return self
        return Prior(self.family, (*self.parameters, 1.0 / scale if self.family == "exponential" else scale))

    def as_dict(self) -> list[str | float]:
        """The form that a user types: ["half_t", 3.0, 10.0]."""
        return [self.family, *self.parameters]

    @property
    def location(self) -> float:
        """Where a prior of a coefficient is centred; 0 for a flat one."""
        found = dict(zip(FAMILIES[self.family].names, self.parameters, strict=True))
        return found.get("location", found.get("mean", 0.0))


def log_density(prior: Prior, values: Array) -> Array:
    """log p(v), -inf outside the support; values of any shape.

    >>> float(log_density(Prior("exponential", (2.0,)), np.array(0.0)).round(4))
    0.6931
    """
    v = np.asarray(values, float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out = FAMILIES[prior.family].log_density(*prior.parameters, v)
    return np.where(in_support(prior, v), out, -np.inf)


def log_density_slope(prior: Prior, values: Array) -> Array:
    """d log p / dv."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(FAMILIES[prior.family].slope(*prior.parameters, np.asarray(values, float)))


def in_support(prior: Prior, values: Array) -> Array:
    """Where the density is positive."""
    support = FAMILIES[prior.family].support
    if support == "interval":
        return np.asarray((values >= prior.parameters[0]) & (values <= prior.parameters[1]))
    if support == "positive":
        return np.asarray(values >= 0.0)
    return np.ones(np.shape(values), bool)


def draw_prior(prior: Prior, rng: Generator, n: int) -> Array:
    """n draws; NaN from an improper prior."""
    if not is_proper(prior):
        return np.full(n, np.nan)
    return np.asarray(FAMILIES[prior.family].draw(*prior.parameters, rng, n))


def is_proper(prior: Prior) -> bool:
    """Whether the density integrates to 1."""
    return prior.family not in ("flat", "flat_log") and not (prior.family == "gamma" and prior.parameters[1] == 0.0)


def is_mixture(prior: Prior) -> bool:
    """Whether a prior of a coefficient is normal only given a scale of its own."""
    return FAMILIES[prior.family].mixture is not None


# -- LKJ ---------------------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def partial_positions(q: int) -> tuple[Codes, Codes]:
    """Row and column of every canonical partial correlation, row by row."""
    rows, columns = np.tril_indices(q, -1)
    return readonly(rows), readonly(columns)


def lkj_shapes(q: int, eta: float) -> Array:
    """b of every partial correlation z, (z + 1)/2 ~ Beta(b, b), when the correlation matrix is LKJ(eta)."""
    return np.asarray(eta + 0.5 * (q - 2 - partial_positions(q)[1]))


def lkj_log_constant(q: int, eta: float) -> float:
    """Minus the log normalising constant of LKJ in terms of its partial correlations on (-1, 1)."""
    b = lkj_shapes(q, eta)
    return float(np.sum(2.0 * gammaln(b) - gammaln(2.0 * b) + (2.0 * b - 1.0) * np.log(2.0)))


def lkj_draw(q: int, eta: float, rng: Generator, n: int) -> Array:
    """Partial correlations of n draws, (n, q (q - 1) / 2)."""
    b = lkj_shapes(q, eta)
    return np.asarray(2.0 * rng.beta(b, b, (n, len(b))) - 1.0)
