"""Covariance parameters by name (`sd__Intercept|Subject`, `rho`, ...) as functions of tau, each on its own scale.

Each is a function of tau = (x, nu), nu = log sigma on standardized columns, and says on which scale its estimate is nearest to normal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy.special import expit, logit

from bayeslmm._arrays import Array
from bayeslmm.data.design import Design
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import ParameterSet, innovating_sets, parameter_units, residual_sets, sigma_name
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure
from bayeslmm.results.random_effects import terms_by_group, told_columns, told_pairs

Scale = Literal["log", "logit", "loglog", "fisher", "plain"]

TAU_STEP = 1e-6
"""Step of the central differences of a parameter in tau: parameters are smooth and cost no evaluation of the criterion."""

SCALE_BY_KIND: dict[str, Scale] = {
    "sd": "log",
    "var": "log",
    "unique": "log",
    "range": "log",
    "nu": "log",
    "rho": "fisher",
    "gamma": "fisher",
    "nugget": "logit",
}

POWERS_OF_DISTANCE = {"car1", "sp_pow"}
"""Structures whose correlation is rho^distance: log(-log(rho)) moves by a constant where distances have another unit."""


def own_kind(kind: str) -> str:
    """The kind of a parameter in its own structure, of which a product says that it is an inner one."""
    return own_kind(kind.removeprefix("inner_")) if kind.startswith("inner_") else kind


def _scale_of(structure: str, kind: str) -> Scale:
    factor = structure.split("@")[kind.count("inner_")]
    return "loglog" if factor in POWERS_OF_DISTANCE and own_kind(kind) == "rho" else SCALE_BY_KIND.get(own_kind(kind), "plain")


class CovarianceParameter(Protocol):
    """A covariance parameter of a model."""

    @property
    def term(self) -> str: ...
    @property
    def scale(self) -> Scale: ...
    def values(self, problem: Problem, tau: Array) -> Array:
        """(t,) in the units of the data, at many tau (t, size + 1)."""
        ...


@dataclass(frozen=True, slots=True)
class RandomSd:
    """The standard deviation of column a of a random term."""

    term: str
    position: int
    column: int
    scale: Scale = "log"

    def values(self, problem: Problem, tau: Array) -> Array:
        D = _covariances(problem, self.position, tau)
        return np.sqrt(np.maximum(D[:, self.column, self.column], 0.0))


@dataclass(frozen=True, slots=True)
class RandomCorrelation:
    """The correlation of columns a and b of a random term; NaN where an sd is 0."""

    term: str
    position: int
    columns: tuple[int, int]
    scale: Scale = "fisher"

    def values(self, problem: Problem, tau: Array) -> Array:
        D = _covariances(problem, self.position, tau)
        a, b = self.columns
        size = np.sqrt(np.maximum(D[:, a, a], 0.0)) * np.sqrt(np.maximum(D[:, b, b], 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(size > 0, np.clip(D[:, a, b] / size, -1.0, 1.0), np.nan)


@dataclass(frozen=True, slots=True)
class ErrorSd:
    """sigma: the standard deviation of the errors, up to weights and a variance function."""

    term: str = "sd__Observation"
    scale: Scale = "log"

    def values(self, problem: Problem, tau: Array) -> Array:
        return sigma_of_tau(problem, tau)


@dataclass(frozen=True, slots=True)
class StructureParameter:
    """A natural parameter of the residual structure: number k of parameter set `group`."""

    term: str
    group: int
    k: int
    scale: Scale

    def values(self, problem: Problem, tau: Array) -> Array:
        return np.asarray(_natural_of_set(problem, tau, self.group)[:, self.k])


@dataclass(frozen=True, slots=True)
class InnovationSd:
    """The standard deviation of an error given those of its series before it: no parameter of its own, but a function of those of R."""

    own: ParameterSet
    group: int
    scale: Scale = "log"

    @property
    def term(self) -> str:
        return self.own.innovation_name

    def values(self, problem: Problem, tau: Array) -> Array:
        found = self.own.innovation_sd(_natural_of_set(problem, tau, self.group))
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class VarianceParameter:
    """Parameter k of the variance function."""

    term: str
    k: int
    scale: Scale

    def values(self, problem: Problem, tau: Array) -> Array:
        kernel = problem.structured
        assert kernel is not None
        return np.array([kernel.variance.natural(row)[self.k] for row in tau[:, :-1][:, kernel.variance_part]])


@dataclass(frozen=True, slots=True)
class ParameterOnScale:
    """A parameter on its scale."""

    inner: CovarianceParameter
    scale: Scale = "plain"

    @property
    def term(self) -> str:
        return self.inner.term

    def values(self, problem: Problem, tau: Array) -> Array:
        return np.asarray(_TO_SCALE[self.inner.scale](self.inner.values(problem, tau)))


def sigma_of_tau(problem: Problem, tau: Array) -> Array:
    """sigma in the units of the data, as a fit reports it, (t,)."""
    unit = np.sqrt(problem.sigma2(1.0) * problem.design.weight_scale)
    return np.asarray(unit * np.exp(tau[:, -1]))


def _covariances(problem: Problem, position: int, tau: Array) -> Array:
    term = problem.random.terms[position]
    root = term.map.whole @ term.covariance.factor(tau[:, :-1][:, term.part])
    scale = (np.exp(tau[:, -1]) * problem.standardization.y_scale) ** 2
    return np.asarray(scale[:, None, None] * (root @ root.swapaxes(-1, -2)))


def _natural_of_set(problem: Problem, tau: Array, group: int) -> Array:
    """Natural parameters of one parameter set of R in the units of the data, (t, size)."""
    kernel = problem.structured
    assert kernel is not None and isinstance(kernel.structure, GroupedStructure)
    covariance = kernel.structure.covariance
    phi = tau[:, :-1][:, kernel.residual_part]
    sets = np.concatenate([np.ones((len(tau), 1)), phi], axis=1).reshape(len(tau), kernel.structure.groups, covariance.size)
    return np.asarray(covariance.natural(sets[:, group] * sigma_of_tau(problem, tau)[:, None] ** covariance.degrees))


def parameter_value(parameter: CovarianceParameter, problem: Problem, tau: Array) -> float:
    """The parameter at one tau."""
    return float(parameter.values(problem, tau[None])[0])


def parameter_unit(parameter: CovarianceParameter, problem: Problem, tau: Array) -> float:
    """A large value of a parameter in its own units: its size, or an sd or a variance of the errors where it is one; 1 of a correlation."""
    if parameter.scale in ("fisher", "logit"):
        return 1.0
    # a parameter is a power of the unit of the outcome: twice the sigma tells which
    value, doubled = np.abs(parameter.values(problem, tau + np.outer([0.0, np.log(2.0)], np.arange(len(tau)) == len(tau) - 1)))
    degree = round(float(np.log2(doubled / value))) if 0.0 < value < np.inf else 1
    spread = float(sigma_of_tau(problem, tau[None])[0]) ** degree if degree else 0.0
    return (max(float(value), spread) if np.isfinite(value) else 0.0) or 1.0


def parameter_gradient(parameter: CovarianceParameter, problem: Problem, tau: Array) -> Array:
    """d(parameter on its scale)/d tau by central differences."""
    steps = np.diag(TAU_STEP * np.maximum(np.append(parameter_units(problem, tau[:-1]), 1.0), np.abs(tau)))
    values = parameter.values(problem, np.concatenate([tau + steps, tau - steps]))
    with np.errstate(divide="ignore", invalid="ignore"):
        on_scale = _TO_SCALE[parameter.scale](values)
        return np.asarray((on_scale[: len(tau)] - on_scale[len(tau) :]) / (2.0 * np.diagonal(steps)))


_TO_SCALE: dict[Scale, Callable[[Array], Array]] = {
    "log": np.log,
    "logit": logit,
    "loglog": lambda values: -np.log(-np.log(values)),
    "fisher": np.arctanh,
    "plain": np.asarray,
}
_FROM_SCALE: dict[Scale, Callable[[float], float]] = {
    "log": np.exp,
    "logit": expit,
    "loglog": lambda value: np.exp(-np.exp(-value)),
    "fisher": np.tanh,
    "plain": float,
}


def to_scale(scale: Scale, value: float) -> float:
    """A parameter on the scale on which its estimate is nearest to normal; infinite at the ends of its range."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(_TO_SCALE[scale](np.asarray(value)))


def from_scale(scale: Scale, value: float) -> float:
    """The inverse of `to_scale`; infinite where the number would be too large."""
    with np.errstate(over="ignore"):
        return float(_FROM_SCALE[scale](value))


def scale_speed(scale: Scale, value: float) -> float:
    """d(parameter) / d(parameter on its scale)."""
    if scale == "loglog":
        return -value * float(np.log(value)) if value > 0 else 0.0
    speeds = {"log": value, "logit": value * (1.0 - value), "fisher": 1.0 - value**2, "plain": 1.0}
    return speeds[scale]


def covariance_parameters(problem: Problem) -> tuple[CovarianceParameter, ...]:
    """All of a model's, in the order of `tidy("ran_pars")`: standard deviations and correlations by term, then the errors."""
    return (*_random(problem.design), *_errors(problem))


def estimated_parameters(problem: Problem) -> tuple[CovarianceParameter, ...]:
    """Those of them that are estimated: without a sigma that is held."""
    return tuple(one for one in covariance_parameters(problem) if problem.criterion.held is None or not isinstance(one, ErrorSd))


def innovation_sds(problem: Problem) -> tuple[InnovationSd, ...]:
    """One for each parameter set of R. SpecificationError where R is no stationary series."""
    return tuple(InnovationSd(own, g) for g, own in innovating_sets(problem))


def _random(design: Design) -> Iterator[CovarianceParameter]:
    for group, members in terms_by_group(design.terms).items():
        for i in members:
            term = design.terms[i]
            for a in told_columns(term):
                yield RandomSd(f"sd__{term.columns[a]}|{group}", i, a)
            for a, b in told_pairs(term):
                yield RandomCorrelation(f"cor__{term.columns[a]}.{term.columns[b]}|{group}", i, (a, b))


def _errors(problem: Problem) -> Iterator[CovarianceParameter]:
    """Those of `residual_parameters`, in its order; sigma where there are none."""
    kernel, sets = problem.structured, residual_sets(problem)
    for g, own in enumerate(sets):
        for k, (name, parameter) in enumerate(zip(own.names, own.covariance.natural_parameters, strict=True)):
            yield StructureParameter(name, g, k, _scale_of(own.covariance.name, parameter.kind))
    if not sets:
        yield ErrorSd(sigma_name(problem))
    if kernel is not None:
        for k, (name, positive) in enumerate(zip(kernel.variance.names, kernel.variance.positive().tolist(), strict=True)):
            yield VarianceParameter(name, k, "log" if positive else "plain")


def parameter_names(problem: Problem) -> list[str]:
    """Covariance parameters, then the coefficients kept."""
    design = problem.design
    return [*(parameter.term for parameter in covariance_parameters(problem)), *(design.coef_names[k] for k in design.kept)]


def parameter_values(problem: Problem, x: Array, sigma2: Array, alpha: Array) -> Array:
    """(B, parameters) from x (B, size), sigma^2 (B,) and alpha (B, p) on standardized columns."""
    tau = np.column_stack([x, 0.5 * np.log(sigma2)])
    return np.column_stack([*(parameter.values(problem, tau) for parameter in covariance_parameters(problem)), problem.alpha(alpha)])
