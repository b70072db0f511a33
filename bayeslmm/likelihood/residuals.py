"""What the rows' errors look like: their standard deviations, their whitening, their covariance, and draws of them."""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.design import ResidualDesign
from bayeslmm.likelihood.criterion import Point
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.residual_structure import Grouped, VisitStructure
from bayeslmm.likelihood.subjects_rows import block_of, ordered_rows

Generator = np.random.Generator


def unit_sds(problem: Problem, x: Array) -> Array:
    """sd of every error in units of sigma, (n,): 1 / sqrt(w) with weights, times the variance function and the structure's own."""
    design = problem.design
    if problem.structured is None:
        return np.ones(design.nobs) if design.weights is None else 1.0 / np.sqrt(design.weights)
    return np.sqrt(unit_covariances(problem, x, np.arange(design.nobs)[:, None])[:, 0, 0])


def unit_covariances(problem: Problem, x: Array, rows: Codes) -> Array:
    """R / sigma^2 over blocks of rows (B, k): (B, k, k)."""
    design, kernel = problem.design, problem.structured
    if kernel is None:
        out = np.zeros((*rows.shape, rows.shape[1]))
        k = np.arange(rows.shape[1])
        out[:, k, k] = unit_sds(problem, x)[rows] ** 2
        return out
    R = kernel.structure.matrices(x[kernel.residual_part], block_of(design, rows))
    log_scale = kernel.log_scale(x)[0]
    if log_scale is None:
        return R
    s = np.exp(log_scale[rows]) / np.sqrt(problem.conditioning.weight_mean)
    return np.asarray(R * s[:, :, None] * s[:, None, :])


def residual_sds(problem: Problem, point: Point) -> Array:
    """The fitted residual sd of every row, (n,)."""
    return _sigma(problem, point) * unit_sds(problem, point.x)


def error_covariances(problem: Problem, point: Point, rows: Codes) -> Array:
    """R over blocks of rows (B, k): (B, k, k)."""
    return problem.sigma2(point.sigma2) * unit_covariances(problem, point.x, rows)


def error_covariance(problem: Problem, point: Point, rows: Codes) -> Array:
    """R over some rows, (k, k)."""
    return np.asarray(error_covariances(problem, point, np.asarray(rows)[None])[0])


def whitened(problem: Problem, point: Point, errors: Array) -> Array:
    """L^-1 e with L the lower Cholesky factor of each subject's R, its rows in the order of the visits, (n,)."""
    if problem.design.residual is None:
        return np.asarray(errors / residual_sds(problem, point))
    out = np.empty_like(errors)
    for rows in _by_subject(problem):
        L = np.linalg.cholesky(error_covariances(problem, point, rows))
        out[rows] = np.linalg.solve(L, errors[rows][..., None])[..., 0]
    return out


def draw_errors(problem: Problem, x: Array, sigma: float, rng: Generator) -> Array:
    """A draw of the errors of all rows at the parameters x, (n,)."""
    z = rng.standard_normal(problem.design.nobs)
    if problem.design.residual is None:
        return sigma * unit_sds(problem, x) * z
    out = np.empty_like(z)
    for rows in _by_subject(problem):
        L = np.linalg.cholesky(unit_covariances(problem, x, rows))
        out[rows] = sigma * (L @ z[rows][..., None])[..., 0]
    return out


def _by_subject(problem: Problem) -> list[Codes]:
    """(B, k) rows of the subjects of each size, in the order of the visits."""
    assert problem.design.residual is not None
    return ordered_rows(problem.design, problem.design.residual.subject.codes)


def _sigma(problem: Problem, point: Point) -> float:
    return float(np.sqrt(problem.sigma2(point.sigma2)))


# -- the parameters of R -----------------------------------------------------------------------------------------------------------------


def one_sigma(problem: Problem) -> bool:
    """Whether R has one standard deviation (up to weights and a variance function), which sigma then is."""
    kernel = problem.structured
    if kernel is None or not isinstance(kernel.structure, Grouped):
        return True
    return kernel.structure.groups == 1 and kernel.structure.covariance.homogeneous


def visit_covariances(problem: Problem, x: Array, sigma: float) -> list[Array] | None:
    """R over the visits, (m, m), for every group of parameters; None without a structure over visits."""
    kernel = problem.structured
    if kernel is None or not isinstance(kernel.structure, VisitStructure):
        return None
    full = kernel.structure.padded(x[kernel.residual_part])
    return [sigma**2 * kernel.structure.covariance.matrix(own) for own in full]


def residual_parameters(problem: Problem, x: Array, sigma: float) -> list[tuple[str, float]]:
    """Name and value of the parameters of R and of the variance function, natural and on the user's scale."""
    kernel = problem.structured
    if kernel is None:
        return []
    found: list[tuple[str, float]] = []
    structure, residual = kernel.structure, problem.design.residual
    if isinstance(structure, Grouped) and residual is not None:
        names = structure.covariance.natural_names_for(_labels(residual))
        groups = [""] if residual.group is None else [f" | {level}" for level in residual.group.levels]
        for group, own in zip(groups, structure.padded(x[kernel.residual_part]), strict=True):
            values = structure.covariance.natural(structure.covariance.rescale(own, sigma))
            found += [(name + group, float(value)) for name, value in zip(names, values, strict=True)]
    values = kernel.variance.natural(x[kernel.variance_part])
    return found + [(name, float(value)) for name, value in zip(kernel.variance.names, values, strict=True)]


def _labels(residual: ResidualDesign) -> list[str]:
    """Names of the rows of R: visits, for a Kronecker structure those of its two factors, for places their number."""
    if "@" in residual.name:
        outer, inner = residual.shape[:2]
        pairs = [str(level).split(":", 1) for level in residual.visit_levels]
        return [pairs[i * inner][0] for i in range(outer)] + [pairs[j][1] for j in range(inner)]
    return [str(level) for level in residual.visit_levels] or ["1", "2"]
