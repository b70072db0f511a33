"""Estimates at assumed parameters: a response is made whose estimates, given the assumed covariance, are the assumed ones exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, is_counted, is_covariance, numbers_of, seed_sequence
from bayeslmm._validation import MAX_SIZE, require_number
from bayeslmm.errors import DesignError, SpecificationError, show_value
from bayeslmm.estimate.estimate import Estimate
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.kernel import State
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure, VisitStructure, residual_natural
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import simulate_responses

type Numbers = float | Sequence[float] | Mapping[str, float] | Array
"""One number, several in order, or by name."""

type Matrix = Array | Sequence[Sequence[float]] | pd.DataFrame
"""A covariance matrix."""

SEED = 20_261_130
"""Of the one response that is made; no result depends on it."""


def assumed_response(problem: Problem, alpha: Array, theta: Array, sigma: float, restricted: bool) -> Array:
    """(n,) a response whose generalised least squares at theta give alpha and sigma.

    It is drawn without random effects: beside large ones nothing would be left of sigma but rounding.
    """
    design, structured = problem.design, problem.structured
    errors = np.array(theta)
    errors[: len(theta) if structured is None else structured.variance_part.start - structured.structure.size] = 0.0
    y = simulate_responses(problem, alpha, errors, sigma, seed_sequence(SEED).spawn(1))[:, 0]
    mean = design.X @ alpha + (0.0 if design.offset is None else design.offset)
    own = _at_means(build_problem(replace(design, y=y)), alpha)
    point, state = _point_at(own, theta, restricted)
    found = own.alpha(state.solution.alpha[0])
    size = sigma / float(np.sqrt(own.sigma2(point.sigma2)))
    return np.asarray(mean + size * (y - mean - design.X @ (found - alpha)))


def _at_means(problem: Problem, alpha: Array) -> Problem:
    """The problem whose variances are those of the assumed means, where they depend on the fitted value."""
    return problem if problem.held_fitted is None else problem.with_fitted(problem.design.X @ alpha)


def _point_at(problem: Problem, theta: Array, restricted: bool) -> tuple[CriterionPoint, State]:
    """The criterion at covariance parameters, and what it was computed from. Errors: DesignError where there is none."""
    point = problem.criterion.at(problem.x(theta), restricted)
    if point.state is None or not np.isfinite(point.value):
        raise DesignError("the likelihood does not exist at the assumed parameters", "assume", "give variances above 0")
    return point, point.state


def estimate_at(problem: Problem, theta: Array, method: str) -> Estimate:
    """The estimate that a problem has where its covariance parameters are held at theta."""
    point, state = _point_at(problem, theta, method != "ML")
    solution, c = state.solution, problem.standardization
    vcov = point.sigma2 * c.y_scale**2 * (c.back @ solution.information_inverse[0] @ c.back.T)
    return Estimate(
        method="ML" if method == "ML" else "REML",
        x=point.x,
        theta=np.asarray(theta),
        sigma=float(np.sqrt(problem.sigma2(point.sigma2))),
        alpha=problem.alpha(solution.alpha[0]),
        vcov=0.5 * (vcov + vcov.T),
        criterion=float("nan"),
        gradient=np.full(len(point.x), np.nan),
        path=(),
        converged=True,
        interrupted=False,
        singular=False,
        checks=(),
        elapsed=0.0,
    )


def assumed_estimates(model: Any, alpha: Array, theta: Array, sigma: float, method: str) -> Estimates:
    """Estimates of a model at parameters on the user's scale; the response of the model is replaced."""
    scale = float(np.sqrt(model.design.weight_scale))
    y = assumed_response(model.problem, alpha, theta * scale, sigma / scale, method != "ML")
    own = model.with_response(y)
    problem = _at_means(own.problem, alpha)
    return Estimates(own, problem, estimate_at(problem, theta * scale, method), 0.0)


def estimates_with(
    fit: Estimates,
    *,
    alpha: Numbers | None = None,
    sd: Numbers | Mapping[str, Numbers] | None = None,
    corr: float | Array | Mapping[str, float | Array] | None = None,
    sigma: float | None = None,
    R: Matrix | Mapping[str, Matrix] | None = None,
) -> Estimates:
    """Estimates of the same model at other parameters; what is not given stays."""
    model: Any = fit.model
    coefficients: Any = fit.fixef_kept
    if isinstance(alpha, Mapping):
        unknown = [name for name in alpha if name not in fit.design.coef_names]
        if unknown:
            raise SpecificationError(f"{unknown[0]!r} is no coefficient", "alpha", "use one of " + ", ".join(fit.design.coef_names))
        coefficients = fit.fixef.to_dict() | dict(alpha)
    elif alpha is not None:
        coefficients = alpha
    sds, corrs = _current(fit, sd, corr)
    structured, theta = fit.problem.structured, np.asarray(fit.theta)
    variance = None if structured is None else theta[structured.variance_part]
    if R is not None:
        known = fit.R if isinstance(R, Mapping) and isinstance(fit.R, Mapping) else {}
        errors = read_errors(fit.problem, sigma, {**known, **R} if isinstance(R, Mapping) else R)
    else:
        begin = 0 if structured is None else structured.variance_part.start
        size = 0 if structured is None else structured.structure.size
        errors = theta[begin - size : begin], fit._sigma if sigma is None else _residual_sd(sigma)
    return estimates_of(model, coefficients, sds, corrs, errors, fit.method, variance)


def _current(fit: Estimates, sd: Any, corr: Any) -> tuple[Any, Any]:
    """Standard deviations and correlations of the terms, those of the fit where not given."""
    terms = fit.design.terms
    sds = [np.sqrt(np.diagonal(D)) for D in fit.covariances]
    corrs = []
    for D, own in zip(fit.covariances, sds, strict=True):
        scale = np.where(own > 0, own, 1.0)
        C = np.clip(D / scale / scale[:, None], -1.0, 1.0)  # a correlation of 1 is not beyond it by rounding
        np.fill_diagonal(C, 1.0)
        corrs.append(C)
    given_sd = [_of_term(sd, term, i, terms, "sd") for i, term in enumerate(terms)]
    for term, own, assumed in zip(terms, sds, given_sd, strict=True):
        if isinstance(assumed, dict):
            assumed |= {name: value for name, value in zip(term.columns, own, strict=True) if assumed.get(name) is None}
    given_corr = [_of_term(corr, term, i, terms, "corr") for i, term in enumerate(terms)]
    return (
        [own if assumed is None else assumed for own, assumed in zip(sds, given_sd, strict=True)],
        [own if assumed is None else assumed for own, assumed in zip(corrs, given_corr, strict=True)],
    )


def _of_term(value: Any, term: Any, i: int, terms: Sequence[Any], what: str) -> Any:
    """What was given for one random term."""
    if value is None:
        return None
    value = value.to_dict() if isinstance(value, pd.Series) and not is_counted(value.index) else value
    if isinstance(value, Mapping) and not set(value) <= set(term.columns):
        allowed = dict.fromkeys(t.group.name for t in terms)
        if what == "sd":
            allowed |= dict.fromkeys(f"{t.group.name}/{column}" for t in terms for column in t.columns)
        unknown = [name for name in value if name not in allowed]
        if unknown:
            raise SpecificationError(f"{what} names {unknown[0]!r:.40}", what, "use one of " + ", ".join(allowed))
        own, whole = {column: f"{term.group.name}/{column}" for column in term.columns}, value.get(term.group.name)
        # as in Priors: what is given for the group is that of the columns without a value of their own
        return {column: value.get(key, whole) for column, key in own.items()} if set(own.values()) & set(value) else whole
    count = len(terms)
    if count == 1 and isinstance(value, Mapping):
        return dict(value)
    if count > 1 and not isinstance(value, list):
        raise SpecificationError(f"{what} is one value, and there are {count} random terms", what, f"give {{{term.group.name!r}: ...}}")
    return value[i] if count > 1 else value


def estimates_of(
    model: Any, alpha: Any, sd: Any, corr: Any, errors: tuple[Array, float], method: str, variance: Array | None = None
) -> Estimates:
    """Estimates of a model at parameters that are all given.

    errors : natural parameters of R relative to sigma, and sigma; variance : parameters of the variance function
    """
    problem, design = model.problem, model.design
    if design.variance and variance is None:
        what = "the parameters of a variance function cannot be assumed"
        raise SpecificationError(what, "variance=", "fit the model to data, and change the other parameters by fit.with_params(...)")
    if isinstance(alpha, Mapping | pd.Series):
        unknown = [name for name in alpha.keys() if name not in design.coef_names]  # noqa: SIM118
        missing = [name for name in design.coef_names if name not in alpha]
        if unknown or missing:
            what = f"alpha names {unknown[0]!r}" if unknown else f"alpha lacks {missing[0]!r}"
            raise SpecificationError(what, "alpha", "coefficients: " + ", ".join(design.coef_names))
        alpha = [alpha[design.coef_names[i]] for i in design.kept]
    coefficients = _numbers(alpha, len(design.kept), "alpha", [design.coef_names[i] for i in design.kept])
    phi, scale = errors
    theta = []
    terms = design.terms
    for i, (term, own) in enumerate(zip(terms, problem.random.terms, strict=True)):
        several = isinstance(sd, list) and isinstance(corr, list) and len(sd) == len(terms)
        sds, rho = (sd[i], corr[i]) if several else (_of_term(sd, term, i, terms, "sd"), _of_term(corr, term, i, terms, "corr"))
        if sds is None:
            raise SpecificationError(f"the sds of {term.group.name} are not given", "sd", f"give sd={{{term.group.name!r}: ...}}")
        if isinstance(sds, Mapping):
            sds = [sds.get(name) for name in term.columns]
        D = _covariance(_numbers(sds, len(term.columns), "sd"), _in_order(rho, term.columns)) / scale**2
        x = own.covariance.from_matrix(D)
        theta.append(_lower(D) if own.covariance.name == "us" else own.covariance.natural(x))
    whole = np.concatenate([*theta, phi, np.zeros(0) if variance is None else variance])
    return assumed_estimates(model, coefficients, whole, scale, method)


def _lower(D: Array) -> Array:
    """The lower triangle of a root of D, column by column; D may be singular."""
    values, vectors = np.linalg.eigh(D)
    T = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T)[1].T
    T = T * np.where(np.diagonal(T) < 0, -1.0, 1.0)
    columns, rows = np.triu_indices(len(D))
    return np.asarray(T[rows, columns])


def _covariance(sd: Array, corr: Any) -> Array:
    q = len(sd)
    if np.any(sd < 0):
        raise SpecificationError("a standard deviation is negative", "sd", "give numbers of 0 or more")
    C = np.eye(q) if corr is None else numbers_of(corr, "corr")
    if not np.all(np.abs(C) <= 1.0):
        raise SpecificationError(f"corr is {show_value(corr)}", "corr", "give numbers from -1 to 1")
    if C.ndim == 0:
        C = np.where(np.eye(q) > 0, 1.0, float(C))
    if C.shape != (q, q) or not np.isfinite(C).all() or not np.allclose(C, C.T) or np.linalg.eigvalsh(C)[0] < -1e-10:
        raise SpecificationError("corr is no correlation matrix of the term", "corr", f"give one number, or a {q} x {q} matrix")
    return np.asarray(sd[:, None] * C * sd)


def _numbers(values: Any, count: int, name: str, meaning: Sequence[str] = ()) -> Array:
    out = np.atleast_1d(numbers_of(values, name))
    if out.shape != (count,) or not np.isfinite(out).all():
        what = f"{name} has shape {out.shape}" if out.shape != (count,) else f"{name} has values that are missing or infinite"
        raise SpecificationError(what, name, f"give {count} finite numbers" + (f": {', '.join(meaning)}" if meaning else ""))
    return out


def _residual_sd(sigma: Any) -> float:
    """An assumed sigma, whose square is a number."""
    return require_number(sigma, "sigma", above=MAX_SIZE**-0.5, below=MAX_SIZE**0.5)


def read_errors(problem: Problem, sigma: Any, R: Any) -> tuple[Array, float]:
    """Natural parameters of R relative to sigma, and sigma: from one matrix for all groups, or one for each.

    Errors: `SpecificationError` for matrices that are no covariances, or not of the structure, and for groups that have none.
    """
    kernel, residual = problem.structured, problem.design.residual
    if kernel is None or residual is None or not isinstance(kernel.structure, GroupedStructure):
        if R is not None:
            raise SpecificationError("R is given, and the model has no residual structure", "R", "give residual=, or leave R out")
        return np.zeros(0), _residual_sd(sigma)
    structure = kernel.structure
    if not isinstance(structure, VisitStructure):
        remedy = "fit the model to data, and change other parameters by fit.with_params(...)"
        raise SpecificationError(f"{structure.covariance.name!r} has no matrix over visits that could be assumed", "residual", remedy)
    labels = [""] if residual.group is None else [str(label) for label in residual.group.levels]
    if R is None:
        what = f"the covariance of the errors is not given for {structure.covariance.name!r}"
        each = "" if residual.group is None else f", or one for each of {', '.join(labels)}"
        raise SpecificationError(what, "R", f"give R, a {structure.covariance.q} x {structure.covariance.q} matrix over the visits{each}")
    if isinstance(R, Mapping):
        matrices = {str(label): matrix for label, matrix in R.items()}
        if residual.group is None:
            raise SpecificationError("R is a mapping, and the structure has no groups", "R", "give one matrix")
        wrong = sorted(set(matrices) ^ set(labels))
        if wrong:
            what = f"R {'lacks' if wrong[0] in labels else 'names'} {wrong[0]!r}"
            raise SpecificationError(what, f"groups: {', '.join(labels)}", "give one matrix for all, or one for each group")
    else:
        matrices = dict.fromkeys(labels, R)
    full = np.stack([_visit_parameters(structure, _in_order(matrices[label], residual.visit_levels)) for label in labels])
    scale, phi = structure.join_groups(full)
    return residual_natural(structure, phi), scale


def _in_order(matrix: Any, labels: Sequence[Any]) -> Any:
    """A matrix in the order of these labels, visits or terms, where its rows and columns name them; anything else as it is."""
    if isinstance(matrix, pd.DataFrame):
        for names, own in ((list(labels), matrix), ([str(v) for v in labels], matrix.rename(index=str, columns=str))):
            if set(own.index) == set(own.columns) == set(names):
                return own.loc[names, names].to_numpy()
    return matrix


def _visit_parameters(structure: VisitStructure, R: Any) -> Array:
    """Free parameters of one covariance matrix over the visits."""
    matrix, q = numbers_of(R, "R"), structure.covariance.q
    if matrix.shape != (q, q) or not is_covariance(matrix):
        raise SpecificationError("R is no covariance matrix of the visits", "R", f"give a positive definite {q} x {q} matrix")
    found = structure.covariance.from_matrix(matrix)
    if not np.allclose(structure.covariance.matrix(found), matrix, rtol=1e-6, atol=1e-9 * float(matrix.max())):
        what = f"R is not of the structure {structure.covariance.name!r}"
        raise SpecificationError(what, "R", "give a matrix of this structure, or residual='us(...)'")
    return np.asarray(found)
