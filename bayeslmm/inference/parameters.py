"""Covariance parameters as a report names them: `sd__Intercept|Subject`, `cor__Intercept.Days|Subject`, `sd__Observation`, `rho`.

Each is a function of tau = (x, nu), nu = log sigma on conditioned columns, and says on which scale its estimate is nearest to normal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.data.design import Design
from bayeslmm.likelihood.error_parameters import residual_parameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.residual_structure import Grouped
from bayeslmm.results.variances import INDEPENDENT, by_group

Scale = Literal["log", "fisher", "plain"]

STEP = 1e-6
"""Step of the central differences of a parameter in tau: parameters are smooth and cost no evaluation of the criterion."""

BY_KIND: dict[str, Scale] = {
    "sd": "log",
    "var": "log",
    "unique": "log",
    "range": "log",
    "nu": "log",
    "ratio": "log",
    "const": "log",
    "sigma": "log",
    "rho": "fisher",
    "gamma": "fisher",
}


class Parameter(Protocol):
    """A covariance parameter of a model."""

    @property
    def term(self) -> str: ...
    @property
    def scale(self) -> Scale: ...
    def value(self, problem: Problem, tau: Array) -> float:
        """In the units of the data."""
        ...


@dataclass(frozen=True, slots=True)
class RandomSd:
    """The standard deviation of column a of a random term."""

    term: str
    position: int
    column: int
    scale: Scale = "log"

    def value(self, problem: Problem, tau: Array) -> float:
        D = _covariance(problem, self.position, tau)
        return float(np.sqrt(max(D[self.column, self.column], 0.0)))


@dataclass(frozen=True, slots=True)
class RandomCorrelation:
    """The correlation of columns a and b of a random term."""

    term: str
    position: int
    columns: tuple[int, int]
    scale: Scale = "fisher"

    def value(self, problem: Problem, tau: Array) -> float:
        D = _covariance(problem, self.position, tau)
        a, b = self.columns
        size = np.sqrt(max(D[a, a], 0.0)) * np.sqrt(max(D[b, b], 0.0))
        return float(np.clip(D[a, b] / size, -1.0, 1.0)) if size > 0 else np.nan


@dataclass(frozen=True, slots=True)
class ErrorSd:
    """sigma, the standard deviation of independent errors."""

    term: str = "sd__Observation"
    scale: Scale = "log"

    def value(self, problem: Problem, tau: Array) -> float:
        return sigma_of(problem, tau)


@dataclass(frozen=True, slots=True)
class ErrorParameter:
    """A parameter of the residual structure or of the variance function, by its place in `fit.residual_params`."""

    term: str
    number: int
    scale: Scale

    def value(self, problem: Problem, tau: Array) -> float:
        return residual_parameters(problem, tau[:-1], sigma_of(problem, tau))[self.number][1]


def sigma_of(problem: Problem, tau: Array) -> float:
    """sigma in the units of the data, as a fit reports it."""
    return float(np.sqrt(problem.sigma2(np.exp(2.0 * tau[-1])) * problem.design.weight_scale))


def _covariance(problem: Problem, position: int, tau: Array) -> Array:
    term = problem.random.terms[position]
    root = term.map.whole @ term.covariance.factor(tau[term.part])
    return np.asarray((np.exp(tau[-1]) * problem.conditioning.y_scale) ** 2 * (root @ root.T))


def gradient(parameter: Parameter, problem: Problem, tau: Array) -> Array:
    """d(parameter on its scale)/d tau by central differences."""
    out = np.empty(len(tau))
    for i in range(len(tau)):
        step = STEP * max(1.0, abs(tau[i]))
        values = []
        for sign in (1.0, -1.0):
            moved = tau.copy()
            moved[i] += sign * step
            values.append(to_scale(parameter.scale, parameter.value(problem, moved)))
        out[i] = (values[0] - values[1]) / (2.0 * step)
    return out


def to_scale(scale: Scale, value: float) -> float:
    """A parameter on the scale on which its estimate is nearest to normal; infinite at the ends of its range."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "log":
            return float(np.log(value))
        return float(np.arctanh(value)) if scale == "fisher" else float(value)


def from_scale(scale: Scale, value: float) -> float:
    """The inverse of `to_scale`."""
    if scale == "log":
        return float(np.exp(value))
    return float(np.tanh(value)) if scale == "fisher" else float(value)


def covariance_parameters(problem: Problem) -> tuple[Parameter, ...]:
    """All of a model's, in the order of `tidy("ran_pars")`: standard deviations and correlations by term, then the errors."""
    return (*_random(problem.design), *_errors(problem))


def _random(design: Design) -> Iterator[Parameter]:
    for group, members in by_group(design.terms).items():
        for i in members:
            term = design.terms[i]
            for a, name in enumerate(term.columns):
                yield RandomSd(f"sd__{name}|{group}", i, a)
            if term.covariance.name in INDEPENDENT:
                continue
            for a in range(len(term.columns)):
                for b in range(a + 1, len(term.columns)):
                    yield RandomCorrelation(f"cor__{term.columns[a]}.{term.columns[b]}|{group}", i, (a, b))


def _errors(problem: Problem) -> Iterator[Parameter]:
    found = residual_parameters(problem, problem.start, 1.0)
    if not found:
        yield ErrorSd()
        return
    kinds = _error_kinds(problem, [name for name, _ in found])
    for number, ((name, _), kind) in enumerate(zip(found, kinds, strict=True)):
        yield ErrorParameter(name, number, BY_KIND.get(kind, "plain"))


def _error_kinds(problem: Problem, names: Sequence[str]) -> list[str]:
    """What each parameter of the errors is: the structure knows its own, the variance function's are told by their names."""
    kernel = problem.structured
    assert kernel is not None
    structure, own = kernel.structure, []
    if isinstance(structure, Grouped):
        own = [parameter.kind for parameter in structure.covariance.natural_parameters] * structure.groups
    return own + [name.partition("[")[0] for name in names[len(own) :]]
