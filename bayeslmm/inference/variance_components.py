"""Variance components: the variance of an observation in its parts, their shares with intervals, and the table of components.

Components: the covariance of the covariance parameters is twice the inverse of the observed information of the fit's own criterion. Limits
are normal on the scale on which an estimate is nearest to it: logarithms of variances and sds, logits of shares, Fisher's z of
correlations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtri

from bayeslmm._arrays import Array, seed_sequence
from bayeslmm._types import VarianceScale
from bayeslmm._validation import require_count, require_flag, require_level, require_names, require_one_of
from bayeslmm.data.columns import Columns
from bayeslmm.data.frame import nearest_names, read_table
from bayeslmm.data.origins import written_powers
from bayeslmm.data.variables import NumericVariable
from bayeslmm.errors import SpecificationError, show_value
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.tests import Inference
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.intervals.parameters import (
    CovarianceParameter,
    ErrorSd,
    RandomCorrelation,
    RandomSd,
    Scale,
    covariance_parameters,
    from_scale,
    parameter_value,
    scale_speed,
    to_scale,
)
from bayeslmm.inference.intervals.profile import standard_error
from bayeslmm.likelihood.structured.residual_covariance import mean_unit_variance, parameter_units
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.render import add_notes

if TYPE_CHECKING:
    from bayeslmm._types import Names, VarianceFunctionOf
    from bayeslmm.likelihood.problem import Problem


LOG_VARIANCE_STEP = 1e-5
"""Step of the central differences of the log variance in the covariance parameters."""


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Variance of the fixed part over the rows, mean variance of the random part, mean variance of the errors."""

    fixed: float
    random: float
    error: float

    @property
    def total(self) -> float:
        return self.fixed + self.random + self.error


def variance_parts(fit: Estimates) -> VarianceParts:
    """What a new row's variance is made of: `var(X alpha)`, the mean of `z' D z`, the mean of `R_ii`."""
    fixed = fit.design.moments.X @ fit.fixef_kept
    random, error = unit_variances(fit, fit.point.x) * fit.problem.sigma2(fit.point.sigma2)
    return VarianceParts(float(np.var(fixed)) * fit.nobs / (fit.nobs - 1), float(random), float(error))


def unit_variances(fit: Fitted, x: Array) -> Array:
    """Mean variance of the random part and of the errors over the rows, in units of sigma^2, at parameters x."""
    design = fit.problem.design
    error = design.mean_inverse_weight if fit.problem.structured is None else mean_unit_variance(fit.problem, x)
    return np.array([sum(term_variances(fit, x)), error])


def term_variances(fit: Fitted, x: Array) -> list[float]:
    """The mean over the rows of `z' D z` of each random term, in units of sigma^2."""
    found = []
    for term, parameters in zip(fit.design.terms, fit.problem.random.terms, strict=True):
        root = parameters.root(x, term.moment_rows, fit.problem.standardization.weight_mean)
        own = np.einsum("nq,nq->n", root, root)
        related = None if term.relationship is None else np.diagonal(term.relationship)
        if related is not None and not (related == related[0]).all():
            own = own * related[term.group.codes]
        elif related is not None:
            own = own * related[0]
        found.append(float(own.mean()))
    return found


@dataclass(frozen=True, slots=True)
class EstimatedSd:
    """A standard deviation and the variance of its logarithm."""

    value: float
    log_variance: float


def residual_sd(fit: Fitted) -> EstimatedSd:
    """The sd of an observation around its own group."""
    return _estimated_sd(fit, np.array([0.0, 1.0]))


def total_sd(fit: Fitted) -> EstimatedSd:
    """The sd of an observation around the population: random effects and errors."""
    return _estimated_sd(fit, np.ones(2))


def _estimated_sd(fit: Fitted, weights: Array) -> EstimatedSd:
    x, sigma2 = fit.point.x, fit.problem.sigma2(fit.point.sigma2)
    slopes, units = np.zeros(len(x) + 1), parameter_units(fit.problem, x)
    slopes[-1] = 0.0 if fit.problem.criterion.held is not None else 1.0
    for k in range(len(x)):
        step = np.zeros(len(x))
        step[k] = LOG_VARIANCE_STEP * units[k]
        up, down = (float(np.log(weights @ unit_variances(fit, x + move))) for move in (step, -step))
        slopes[k] = 0.25 * (up - down) / step[k]
    covariance = Inference(fit).curvature.covariance
    return EstimatedSd(float(np.sqrt(sigma2 * (weights @ unit_variances(fit, x)))), float(slopes @ covariance @ slopes))


RESIDUAL, TOTAL = "Residual", "total"


@dataclass(frozen=True, slots=True)
class Squared:
    """A variance, from its standard deviation."""

    sd: CovarianceParameter
    scale: Scale = "log"

    @property
    def term(self) -> str:
        """`var` in place of `sd`."""
        return "var" + self.sd.term.removeprefix("sd")

    def values(self, problem: Problem, tau: Array) -> Array:
        """(t,) at many tau."""
        return np.asarray(self.sd.values(problem, tau) ** 2)


@dataclass(frozen=True, slots=True)
class RandomCovariance:
    """A covariance, from the correlation and the two sds."""

    correlation: RandomCorrelation
    scale: Scale = "plain"

    @property
    def term(self) -> str:
        """`cov` in place of `cor`."""
        return "cov" + self.correlation.term.removeprefix("cor")

    def values(self, problem: Problem, tau: Array) -> Array:
        """(t,) at many tau."""
        position, found = self.correlation.position, self.correlation.values(problem, tau)
        for column in self.correlation.columns:
            found = found * RandomSd("", position, column).values(problem, tau)
        return np.nan_to_num(found)


def _on_variance_scale(parameter: CovarianceParameter) -> CovarianceParameter:
    if isinstance(parameter, RandomCorrelation):
        return RandomCovariance(parameter)
    is_sd = isinstance(parameter, RandomSd | ErrorSd) or parameter.term.partition("[")[0].partition("|")[0] == "sd"
    return Squared(parameter) if is_sd else parameter


def varcomp(fit: Estimates, scale: VarianceScale, se: bool, conf_int: bool, conf_level: float) -> pd.DataFrame:
    """`group, term, estimate[, std_error][, conf_low, conf_high]`: variances and covariances, or sds and correlations; then the errors'.

    >>> varcomp(fit, "variance", True, False, 0.95)["term"].tolist()
    ['var__Intercept', 'var__Days', 'cov__Intercept.Days', 'var__Observation']
    """
    require_one_of(scale, get_args(VarianceScale), "scale")
    parameters = covariance_parameters(fit.problem)
    if scale == "variance":
        parameters = tuple(map(_on_variance_scale, parameters))
    groups = {term.group.name for term in fit.design.terms}
    table = _delta_table(fit, parameters, require_level(conf_level))
    split = [term.rpartition("|") if term.rpartition("|")[2] in groups and "__" in term else (term, "", RESIDUAL) for term in table["term"]]
    out = table.assign(term=[name for name, _, _ in split])
    out.insert(0, "group", [group for _, _, group in split])
    columns = [
        *(("std_error",) if require_flag(se, "se") else ()),
        *(("conf_low", "conf_high") if require_flag(conf_int, "conf_int") else ()),
    ]
    return add_notes(out[["group", "term", "estimate", *columns]], table.attrs["notes"] if columns else ())


def _delta_table(fit: Estimates, parameters: Sequence[CovarianceParameter], level: float) -> pd.DataFrame:
    """`term, estimate, std_error, conf_low, conf_high`; NaN, and a note, at the end of a range."""
    quantile = float(ndtri(0.5 * (1.0 + level)))
    tau, covariance = np.append(fit.estimate.x, 0.5 * np.log(fit.point.sigma2)), Inference(fit).curvature.covariance
    rows, notes = [], []
    for parameter in parameters:
        value, error = parameter_value(parameter, fit.problem, tau), standard_error(parameter, fit.problem, tau, covariance)
        low = high = speed = np.nan
        if error > 0:
            middle, speed = to_scale(parameter.scale, value), scale_speed(parameter.scale, value)
            low, high = (from_scale(parameter.scale, middle + sign * quantile * error) for sign in (-1.0, 1.0))
        else:
            why = "is held" if fit.problem.criterion.held is not None and np.isfinite(error) else "is at the end of its range"
            notes.append(f"{parameter.term} {why}: it has no standard error")
        rows.append((parameter.term, value, speed * error, low, high))
    out = pd.DataFrame(rows, columns=["term", "estimate", "std_error", "conf_low", "conf_high"])
    out.attrs["notes"] = tuple(notes)
    return out


# -- ratios ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class VarianceComponents:
    """The variances of a model by name: single ones, `Intercept|Subject`, those of grouping factors, of the errors, and in total.

    singles : name -> position of the term and its column; groups : name -> positions of its terms
    """

    fit: Estimates
    singles: Mapping[str, tuple[int, int]]
    groups: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, fit: Estimates) -> VarianceComponents:
        """Those of a fit."""
        singles: dict[str, tuple[int, int]] = {}
        groups: dict[str, tuple[int, ...]] = {}
        for i, term in enumerate(fit.design.terms):
            groups[term.group.name] = (*groups.get(term.group.name, ()), i)
            singles |= {f"{name}|{term.group.name}": (i, a) for a, name in enumerate(term.columns)}
        return cls(fit, singles, groups)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.groups, *self.singles, RESIDUAL, TOTAL)

    def resolve(self, text: str) -> tuple[str, ...]:
        """The parts that a name stands for, each once. Errors: SpecificationError for a name that is none."""
        name = text.strip().replace("(Intercept)", "Intercept")
        for prefix in ("sd__", "var__"):
            name = name.removeprefix(prefix)
        if name in ("Observation", "sigma"):
            name = RESIDUAL
        if name == TOTAL:
            return (*self.groups, RESIDUAL)
        if name in self.singles:
            # a grouping factor with an intercept alone has no other variance
            group = name.partition("|")[2]
            alone = name.startswith("Intercept|") and sum(key.endswith(f"|{group}") for key in self.singles) == 1
            return (group,) if alone else (name,)
        if name not in self.names:
            near = nearest_names(name, self.names)
            remedy = f"did you mean {near[0]!r}?" if near else "use some of " + ", ".join(map(repr, self.names))
            raise SpecificationError(f"the model has no variance {show_value(text)}", "ratio", remedy)
        return (name,)

    def at(self, tau: Array) -> dict[str, float]:
        """Every variance at one tau."""
        fit, x = self.fit, tau[:-1]
        sigma2 = fit.problem.sigma2(float(np.exp(2.0 * tau[-1])))
        by_term = term_variances(fit, x)
        found = {group: sigma2 * sum(by_term[i] for i in members) for group, members in self.groups.items()}
        found |= {name: float(RandomSd("", *place).values(fit.problem, tau[None])[0] ** 2) for name, place in self.singles.items()}
        found[RESIDUAL] = sigma2 * float(unit_variances(fit, x)[1])
        return found | {TOTAL: sum(found[name] for name in (*self.groups, RESIDUAL))}


@dataclass(frozen=True, slots=True, eq=False)
class OfComponents:
    """A function of the variances."""

    term: str
    components: VarianceComponents
    function: Callable[[Mapping[str, float]], float]
    scale: Scale

    def values(self, problem: Problem, tau: Array) -> Array:
        """(t,) at many tau."""
        return np.array([self.function(self.components.at(row)) for row in tau])


def ratio(fit: Estimates, numerator: Names | VarianceFunctionOf, of: Names, conf_level: float) -> pd.DataFrame:
    """One row, `term, estimate, std_error, conf_low, conf_high`: a sum of variances over another, or a function of them.

    >>> ratio(fit, "Subject", "total", 0.95)["estimate"].round(3).item() == fit.icc()["adjusted"].round(3).item()
    True
    """
    level, components = require_level(conf_level), VarianceComponents.of(fit)
    if callable(numerator):
        if not (isinstance(of, str) and of == TOTAL):
            raise SpecificationError("a function of the variances is no numerator", "of", "leave of= out, and divide in the function")
        asked = OfComponents(_name(numerator), components, _check_function(numerator), "plain")
    else:
        asked = _ratio_of(components, require_names(numerator, "numerator"), require_names(of, "of"))
    table = _delta_table(fit, [asked], level)
    return add_notes(table, table.attrs["notes"])


def _ratio_of(components: VarianceComponents, numerator: Sequence[str], of: Sequence[str]) -> OfComponents:
    above, below = (tuple(dict.fromkeys(part for name in names for part in components.resolve(name))) for names in (numerator, of))
    if not above or not below:
        raise SpecificationError("a ratio has a variance above and below", "ratio", "name them: " + ", ".join(map(repr, components.names)))
    label = " / ".join(" + ".join(names) if len(names) == 1 else f"({' + '.join(names)})" for names in (numerator, of))

    def function(found: Mapping[str, float]) -> float:
        return sum(found[name] for name in above) / sum(found[name] for name in below)

    return OfComponents(label, components, function, "logit" if set(above) < set(below) else "log")


def _check_function(function: Callable[[Mapping[str, float]], object]) -> Callable[[Mapping[str, float]], float]:
    """The function, held to its promise of a number."""

    def value_of(found: Mapping[str, float]) -> float:
        try:
            value = function(found)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            what = f"the function of the variances raises {type(error).__name__}: {error}"
            raise SpecificationError(what, "numerator", "it is given a mapping of " + ", ".join(map(repr, found))) from error
        if not isinstance(value, Real | np.number) or isinstance(value, bool):
            raise SpecificationError(f"the function of the variances gives {show_value(value)}", "numerator", "return one number")
        return float(value)

    return value_of


def _name(function: object) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "function" if name == "<lambda>" else str(name)


def shares_table(
    fit: Estimates, table: Callable[[Estimates], pd.DataFrame], conf_int: bool, conf_level: float, n: int, seed: int | None
) -> pd.DataFrame:
    """A table of shares; with limits `estimate, std_error, conf_low, conf_high`: percentiles of parametric replicates."""
    level, count = require_level(conf_level), require_count(n, "n")
    seed_sequence(seed)
    if not require_flag(conf_int, "conf_int"):
        return table(fit)

    def shares(one: Estimates) -> dict[str, float]:
        frame = table(one)
        if "group" not in frame:
            return {str(name): float(frame[name].iloc[0]) for name in frame}
        rows = frame.set_index("group")
        return {f"{group}: {name}": float(value) for name in rows for group, value in rows[str(name)].items()}

    found = bootstrap(fit, count, seed, statistic=shares)
    low, high = np.nanquantile(found.frame.to_numpy(float), [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
    columns = {"estimate": found.estimate.to_numpy(float), "std_error": found.frame.std(ddof=1).to_numpy(float)}
    return pd.DataFrame(columns | {"conf_low": low, "conf_high": high}, index=list(found.frame.columns))


def icc_by_factor(fit: Estimates) -> pd.DataFrame:
    """`group, adjusted, unadjusted`: the share of each grouping factor in the variance, without and with that of the fixed part."""
    parts, sigma2 = variance_parts(fit), fit.problem.sigma2(fit.point.sigma2)
    own: dict[str, float] = {}
    for term, variance in zip(fit.design.terms, term_variances(fit, fit.point.x), strict=True):
        own[term.group.name] = own.get(term.group.name, 0.0) + variance * sigma2
    values = np.array(list(own.values()))
    return pd.DataFrame({"group": list(own), "adjusted": values / (parts.random + parts.error), "unadjusted": values / parts.total})


def standardized_data(fit: Estimates) -> tuple[pd.DataFrame, Array]:
    """The data with every covariate that stands by itself over its sd, about its mean; and the response, as the model has it, likewise.

    Its written powers and products follow it. What a function such as log(x) reads stays: it may have no value there.
    """
    design = fit.design
    if design.weights is not None or design.offset is not None:
        raise SpecificationError(
            "a model with weights or an offset has no standardized coefficients", "standardized()", "scale the columns"
        )
    block = design.encoding.fixed_block
    alone = {atom.name for atom in block.atoms.values() if isinstance(atom, NumericVariable)}
    frame = design.frame.copy()
    source = Columns(read_table(frame, block.columns))
    within = {name for atom in block.atoms.values() if written_powers(atom, source) is None for name in atom.columns}
    for name in alone - within:
        values = frame[name].to_numpy(float)
        frame[name] = (values - values.mean()) / values.std(ddof=1)
    return frame, (design.y - design.y.mean()) / design.y.std(ddof=1)
