"""Prior families with their densities, slopes and draws; `Priors`, the priors that a user gives; LKJ.

Densities are on the scale that a user speaks of: standard deviations, correlations, coefficients. Axes and Jacobians are the business of
whoever calls. An improper family has density 1 (flat) or a power (gamma with rate 0), known up to a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import gammaln

from bayeslmm._arrays import Array, Codes, Generator, readonly
from bayeslmm.errors import PriorError

# Parameters that must be > 0 are marked "+", those that must be >= 0 with "0", the rest may be any finite number.
# A trailing "?" is a scale that may be left out: it is then taken from the data.
FAMILY_PARAMETERS: dict[str, tuple[str, ...]] = {
    "half_t": ("df+", "scale+?"),
    "half_normal": ("scale+?",),
    "half_cauchy": ("scale+?",),
    "exponential": ("rate+?",),
    "gamma": ("shape+", "rate0"),
    "inverse_gamma": ("shape+", "scale+"),
    "uniform": ("lower", "upper"),
    "flat": (),
    "normal": ("mean", "sd+"),
    "lkj": ("eta+",),
}
SCALE_FAMILIES = ("half_t", "half_normal", "half_cauchy", "exponential", "gamma", "inverse_gamma", "uniform", "flat")
COEFFICIENT_FAMILIES = ("normal", "flat")
CORRELATION_FAMILIES = ("lkj", "flat")
SHAPE_FAMILIES = (*SCALE_FAMILIES, "normal")


@dataclass(frozen=True, slots=True)
class Prior:
    """A family and its parameters: `Prior("half_t", (3.0, 10.0))`.

    half_t(df, scale), half_normal(scale), half_cauchy(scale), exponential(rate), gamma(shape, rate), inverse_gamma(shape, scale),
    uniform(lower, upper), normal(mean, sd), lkj(eta), flat(). A scale (or rate) left out is taken from the data.
    """

    family: str
    parameters: tuple[float, ...] = ()

    @property
    def autoscaled(self) -> bool:
        """Whether the last parameter was left to the data."""
        return len(self.parameters) < len(FAMILY_PARAMETERS[self.family])

    def scaled(self, scale: float) -> Prior:
        """The same prior with the scale filled in where it was left to the data (the rate of an exponential is 1/scale).

        >>> Prior("half_t", (3.0,)).scaled(2.5)
        Prior(family='half_t', parameters=(3.0, 2.5))
        """
        if not self.autoscaled:
            return self
        return Prior(self.family, (*self.parameters, 1.0 / scale if self.family == "exponential" else scale))

    def as_dict(self) -> list[str | float]:
        """The form that a user types: ["half_t", 3.0, 10.0]."""
        return [self.family, *self.parameters]


def read_prior(given: Any, allowed: Sequence[str], name: str) -> Prior:
    """A prior from `(family, *parameters)`, a family's name or a `Prior`; `name` is what the error calls the parameter."""
    if isinstance(given, Prior):
        given = given.as_dict()
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, Sequence) or not given or not isinstance(given[0], str):
        raise PriorError(
            f"the prior of {name} is not (family, *parameters)", f"{name}: {given!r:.80}", 'write it as ("half_t", 3, 10) or as "flat"'
        )
    family = given[0]
    if family not in allowed:
        raise PriorError(f"the prior family {family!r} cannot be used for {name}", name, "use one of " + ", ".join(allowed))
    numbers = _numbers(given[1:], family, name)
    if family == "half_t" and len(numbers) == 3 and numbers[1] == 0.0:
        numbers = (numbers[0], numbers[2])  # the way it is written in books: half-t(3, 0, scale)
    _require_valid(family, numbers, name)
    return Prior(family, numbers)


def _numbers(given: Sequence[Any], family: str, name: str) -> tuple[float, ...]:
    for value in given:
        if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
            raise PriorError(f"the prior of {name} has a parameter that is not a finite number", f"{family}: {value!r:.80}", _usage(family))
    return tuple(float(value) for value in given)


def _require_valid(family: str, numbers: tuple[float, ...], name: str) -> None:
    declared = FAMILY_PARAMETERS[family]
    required = sum(not parameter.endswith("?") for parameter in declared)
    if not required <= len(numbers) <= len(declared):
        raise PriorError(f"the prior of {name} has {len(numbers)} parameters", f"{name}: {family}{numbers}", _usage(family))
    for parameter, value in zip(declared, numbers, strict=False):
        if ("+" in parameter and value <= 0) or ("0" in parameter and value < 0):
            word = parameter.strip("+0?")
            raise PriorError(f"the {word} of the prior of {name} is {value:g}", f"{name}: {family}{numbers}", f"give a {word} above 0")
    if family == "uniform" and numbers[0] >= numbers[1]:
        raise PriorError(
            f"the uniform prior of {name} is empty", f"{name}: lower {numbers[0]:g}, upper {numbers[1]:g}", "give lower below upper"
        )


def _usage(family: str) -> str:
    names = [parameter.strip("+0?") for parameter in FAMILY_PARAMETERS[family]]
    return f"write {family}({', '.join(names)})"


PRESETS = ("brms", "bambi", "blme", "reml")
Named = tuple[tuple[str, Prior], ...]


@dataclass(frozen=True, slots=True, init=False)
class Priors:
    """Priors of a model; what is not said is scaled from the data.

    alpha : "flat"; "normal" (N(mean(y), 2.5 sd(y)) for the intercept, N(0, 2.5 sd(y)/sd(x)) for the others); or
        {coefficient: ("normal", mean, sd)}
    sd : `(family, *parameters)` for every random-effect sd, or {"Subject": ..., "Subject/Days": ...}
    corr : ("lkj", eta), or {"Subject": ("lkj", eta)}
    sigma : `(family, *parameters)`, or by name where the residual structure has several sds
    residual : parameters of the residual structure or variance function by name: {"rho": ("uniform", 0, 1)}; plain names may be given
        as keywords, `Priors(rho=("uniform", 0, 1))`
    preset : "brms", "bambi", "blme" or "reml": the defaults of that package for all that is not said

    Raises PriorError, which names the parameter.

    >>> Priors(sd={"Subject/Days": ("half_normal", 10)}, corr=("lkj", 2)).sd_of("Subject", "Days")
    Prior(family='half_normal', parameters=(10.0,))
    """

    alpha: str | Named
    sd: Prior | Named | None
    corr: Prior | Named | None
    sigma: Prior | Named | None
    residual: Named
    preset: str | None

    def __init__(
        self,
        alpha: str | Mapping[str, Any] | Named | None = None,
        sd: Any = None,
        corr: Any = None,
        sigma: Any = None,
        preset: str | None = None,
        *,
        residual: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> None:
        if preset is not None and preset not in PRESETS:
            raise PriorError(f"there is no preset {preset!r}", "preset", "use one of " + ", ".join(PRESETS))
        put = object.__setattr__
        put(self, "alpha", _read_alpha(alpha, preset))
        put(self, "sd", _read(sd, SCALE_FAMILIES, "sd"))
        put(self, "corr", _read(corr, CORRELATION_FAMILIES, "corr"))
        put(self, "sigma", _read(sigma, SCALE_FAMILIES, "sigma"))
        put(self, "residual", _named({**dict(residual or {}), **named}, SHAPE_FAMILIES, "residual"))
        put(self, "preset", preset)

    def alpha_of(self, coefficient: str) -> Prior | None:
        """The prior said for one coefficient; None where only "flat" or "normal" was said for all."""
        return None if isinstance(self.alpha, str) else dict(self.alpha).get(coefficient)

    def sd_of(self, group: str, term: str) -> Prior | None:
        """The prior said for the sd of a term of a group: `group/term` before `group` before the one for all; None if nothing was said."""
        return _lookup(self.sd, (f"{group}/{term}", group))

    def corr_of(self, group: str) -> Prior | None:
        """The prior said for the correlation matrix of a group; None if nothing was said."""
        return _lookup(self.corr, (group,))

    def sigma_of(self, name: str = "sigma") -> Prior | None:
        """The prior said for a residual sd; None if nothing was said."""
        return _lookup(self.sigma, (name,))

    def residual_of(self, name: str) -> Prior | None:
        """The prior said for a parameter of the residual structure or variance function; None if nothing was said."""
        return dict(self.residual).get(name)

    def require_known(self, coefficients: Iterable[str], terms: Mapping[str, Sequence[str]], residual: Iterable[str] = ()) -> None:
        """Raise PriorError for a name that the model does not have; `terms` maps group -> its terms, `residual` names R's parameters."""
        groups = list(terms)
        parameters = list(residual)
        _require_known("alpha", self.alpha, list(coefficients))
        _require_known("sd", self.sd, [*groups, *(f"{group}/{term}" for group in groups for term in terms[group])])
        _require_known("corr", self.corr, groups)
        _require_known("sigma", self.sigma, ["sigma", *parameters])
        _require_known("residual", self.residual, parameters)

    def as_dict(self) -> dict[str, Any]:
        """What was said, as plain values: `Priors(**priors.told()) == priors`."""
        alpha: Any = self.alpha if isinstance(self.alpha, str) else _plain(self.alpha)
        said = {"sd": self.sd, "corr": self.corr, "sigma": self.sigma, "residual": self.residual}
        out: dict[str, Any] = {} if alpha == _default_alpha(self.preset) else {"alpha": alpha}
        out.update({key: _plain(value) for key, value in said.items() if value})
        if self.preset is not None:
            out["preset"] = self.preset
        return out


def _default_alpha(preset: str | None) -> str:
    return "normal" if preset == "bambi" else "flat"


def _read_alpha(given: Any, preset: str | None) -> str | Named:
    if given is None:
        return _default_alpha(preset)
    if isinstance(given, str) and given in COEFFICIENT_FAMILIES:
        return given
    if isinstance(given, Mapping) or _is_named(given):
        return _named(dict(given), COEFFICIENT_FAMILIES, "alpha")
    raise PriorError(
        "the prior of alpha cannot be read", f"alpha: {given!r:.80}", 'write "flat", "normal" or {coefficient: ("normal", mean, sd)}'
    )


def _read(given: Any, allowed: Sequence[str], name: str) -> Prior | Named | None:
    if given is None:
        return None
    if isinstance(given, Mapping) or _is_named(given):
        return _named(dict(given), allowed, name)
    return read_prior(given, allowed, name)


def _is_named(given: Any) -> bool:
    """Whether it is the stored form of a mapping: pairs (name, Prior)."""
    return isinstance(given, tuple) and bool(given) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in given)


def _named(given: Mapping[Any, Any], allowed: Sequence[str], room: str) -> Named:
    for key in given:
        if not isinstance(key, str) or not key:
            raise PriorError(f"a prior of {room} has no name", f"{room}: {key!r:.80}", "name the parameter by a string")
    # Sorted, so that two sets of priors that say the same are equal.
    return tuple(sorted(((key, read_prior(value, allowed, f"{room} {key!r}")) for key, value in given.items()), key=lambda pair: pair[0]))


def _lookup(said: Prior | Named | None, names: Sequence[str]) -> Prior | None:
    if said is None or isinstance(said, Prior):
        return said
    table = dict(said)
    return next((table[name] for name in names if name in table), None)


def _require_known(room: str, said: str | Prior | Named | None, known: list[str]) -> None:
    if said is None or isinstance(said, str | Prior):
        return
    for name, _ in said:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.5) or known[:10]
            remedy = "the model has " + ", ".join(near) if near else f"leave it out: the model has no such parameters of {room}"
            raise PriorError(f"the model has no parameter {name!r} for a prior of {room}", f"{room}: {name}", remedy)


def _plain(said: Prior | Named | None) -> Any:
    if isinstance(said, Prior):
        return said.as_dict()
    return {name: prior.as_dict() for name, prior in said or ()}


HALF_FAMILIES = frozenset({"half_t", "half_normal", "half_cauchy", "exponential", "gamma", "inverse_gamma"})
"""Families of positive numbers."""


def _student(df: float, scale: float, v: Array) -> Array:
    constant = gammaln(0.5 * (df + 1.0)) - gammaln(0.5 * df) - 0.5 * np.log(df * np.pi) - np.log(scale)
    return np.asarray(constant - 0.5 * (df + 1.0) * np.log1p((v / scale) ** 2 / df))


def _student_slope(df: float, scale: float, v: Array) -> Array:
    return -(df + 1.0) * v / (df * scale**2 + v**2)


def _normal(mean: float, sd: float, v: Array) -> Array:
    return np.asarray(-0.5 * np.log(2.0 * np.pi) - np.log(sd) - 0.5 * ((v - mean) / sd) ** 2)


def _gamma(shape: float, rate: float, v: Array) -> Array:
    constant = shape * np.log(rate) - gammaln(shape) if rate > 0 else 0.0
    return np.asarray(constant + (shape - 1.0) * np.log(v) - rate * v)


def _inverse_gamma(shape: float, scale: float, v: Array) -> Array:
    return np.asarray(shape * np.log(scale) - gammaln(shape) - (shape + 1.0) * np.log(v) - scale / v)


@dataclass(frozen=True, slots=True)
class FamilyFunctions:
    """log p(v), its derivative, and draws; each takes the parameters first."""

    log_density: Callable[..., Array]
    slope: Callable[..., Array]
    draw: Callable[..., Array]


DENSITIES: dict[str, FamilyFunctions] = {
    "half_t": FamilyFunctions(
        lambda df, s, v: np.log(2.0) + _student(df, s, v),
        _student_slope,
        lambda df, s, rng, n: np.abs(s * rng.standard_t(df, n)),
    ),
    "half_cauchy": FamilyFunctions(
        lambda s, v: np.log(2.0) + _student(1.0, s, v),
        lambda s, v: _student_slope(1.0, s, v),
        lambda s, rng, n: np.abs(s * rng.standard_cauchy(n)),
    ),
    "half_normal": FamilyFunctions(
        lambda s, v: np.log(2.0) + _normal(0.0, s, v),
        lambda s, v: -v / s**2,
        lambda s, rng, n: np.abs(s * rng.standard_normal(n)),
    ),
    "exponential": FamilyFunctions(
        lambda r, v: np.log(r) - r * v, lambda r, v: np.full_like(v, -r), lambda r, rng, n: rng.exponential(1.0 / r, n)
    ),
    "gamma": FamilyFunctions(_gamma, lambda a, r, v: (a - 1.0) / v - r, lambda a, r, rng, n: rng.gamma(a, 1.0 / r, n)),
    "inverse_gamma": FamilyFunctions(
        _inverse_gamma,
        lambda a, s, v: -(a + 1.0) / v + s / v**2,
        lambda a, s, rng, n: s / rng.gamma(a, 1.0, n),
    ),
    "uniform": FamilyFunctions(
        lambda a, b, v: np.full_like(v, -np.log(b - a)),
        lambda a, b, v: np.zeros_like(v),
        lambda a, b, rng, n: rng.uniform(a, b, n),
    ),
    "flat": FamilyFunctions(lambda v: np.zeros_like(v), lambda v: np.zeros_like(v), lambda rng, n: np.full(n, np.nan)),
    "normal": FamilyFunctions(_normal, lambda m, s, v: -(v - m) / s**2, lambda m, s, rng, n: rng.normal(m, s, n)),
}


def log_density(prior: Prior, values: Array) -> Array:
    """log p(v), -inf outside the support; values of any shape.

    >>> float(log_density(Prior("exponential", (2.0,)), np.array(0.0)).round(4))
    0.6931
    """
    v = np.asarray(values, float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out = DENSITIES[prior.family].log_density(*prior.parameters, v)
    return np.where(in_support(prior, v), out, -np.inf)


def log_density_slope(prior: Prior, values: Array) -> Array:
    """d log p / dv."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(DENSITIES[prior.family].slope(*prior.parameters, np.asarray(values, float)))


def in_support(prior: Prior, values: Array) -> Array:
    """Where the density is positive."""
    if prior.family == "uniform":
        return np.asarray((values >= prior.parameters[0]) & (values <= prior.parameters[1]))
    if prior.family in HALF_FAMILIES:
        return np.asarray(values >= 0.0)
    return np.ones(np.shape(values), bool)


def draw_prior(prior: Prior, rng: Generator, n: int) -> Array:
    """n draws; NaN from an improper prior."""
    if not is_proper(prior):
        return np.full(n, np.nan)
    return np.asarray(DENSITIES[prior.family].draw(*prior.parameters, rng, n))


def is_proper(prior: Prior) -> bool:
    """Whether the density integrates to 1."""
    return prior.family != "flat" and not (prior.family == "gamma" and prior.parameters[1] == 0.0)


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
