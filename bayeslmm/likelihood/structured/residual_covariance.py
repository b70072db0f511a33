"""The residual covariance R: standard deviations, whitening, matrices, draws, its parameters by name; and V as one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from bayeslmm._arrays import Array, Codes, Generator
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.errors import SpecificationError
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.blocks import block_of, order_rows
from bayeslmm.likelihood.structured.pooled import find_row_kinds, many_matrices
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure, VisitStructure


def unit_sds(problem: Problem, x: Array) -> Array:
    """sd of every error in units of sigma, (n,): 1 / sqrt(w) with weights, times the variance function and the structure's own."""
    design = problem.design
    if problem.structured is None:
        return np.ones(design.nobs) if design.weights is None else 1.0 / np.sqrt(design.weights)
    return np.asarray(many_unit_sds(problem, x[None])[0])


def many_unit_sds(problem: Problem, x: Array, rows: Codes | None = None) -> Array:
    """sd of every error, or of some rows', in units of sigma at many x (t, size) of a model with structured errors, (t, n)."""
    kernel, design = problem.structured, problem.design
    assert kernel is not None
    own = np.arange(design.nobs) if rows is None else rows
    R = many_matrices(kernel.structure, x[:, kernel.residual_part], block_of(design, own[:, None]))
    return np.sqrt(R[..., 0, 0]) * many_scales(problem, x, own)


def many_scales(problem: Problem, x: Array, rows: Codes | None = None) -> Array:
    """S at many x (t, size): what the variance function and 1 / sqrt(w) multiply sds by, (t, n) or (1, 1) where that is nothing."""
    kernel = problem.structured
    assert kernel is not None
    own = np.arange(kernel.data.n) if rows is None else rows
    log_scale = np.zeros((1, 1)) if kernel.data.log_weight_scale is None else kernel.data.log_weight_scale[None, own]
    if kernel.variance.size:
        log_scale = log_scale + kernel.variance.log_multipliers(x[:, kernel.variance_part], own)
    return np.asarray(np.exp(log_scale) / np.sqrt(problem.standardization.weight_mean))


def mean_unit_variance(problem: Problem, x: Array) -> float:
    """The mean variance of the errors over the rows in units of sigma^2; from patterns of visits where there are no rows."""
    kernel = problem.structured
    if problem.design.in_memory or kernel is None:
        return float(np.mean(unit_sds(problem, x) ** 2))
    phi = x[kernel.residual_part]
    whole = kernel.structure.set_matrices(phi)
    found = [(batch.count, kernel.structure.matrices(phi, batch.block, whole)) for batch in kernel.data.pooled]
    return float(sum(count @ np.einsum("bkk->b", R) for count, R in found)) / problem.criterion.n


def typical_sd(problem: Problem, x: Array) -> float:
    """The size of the errors in units of sigma: far from 1 where the covariate of a variance function lies far from 0."""
    if problem.structured is None or not problem.design.variance:
        return 1.0
    return float(np.sqrt(mean_unit_variance(problem, x) * problem.standardization.weight_mean))


def parameter_units(problem: Problem, x: Array) -> Array:
    """(size,) what a move of about 1 is for each parameter near x: `axis_units`, those of random effects times the size of the errors.

    sigma is the sd of an error only where the covariate of a variance function is 0, or 1: in another unit of that covariate the relative
    standard deviations of random effects are other numbers, of any size.
    """
    if problem.structured is None or not problem.design.variance:
        return problem.axis_units
    units, sd = np.array(problem.axis_units), typical_sd(problem, x)
    for term in problem.random.terms:
        units[term.part] *= sd**term.covariance.degrees
    return units


VARIANCES_AT_ONCE = 4_000_000
"""Variances of errors at many points that are made at once."""


def mean_unit_variances(problem: Problem, x: Array) -> Array:
    """The same at many x (t, size) of a model with structured errors in memory, (t,): rows of one variance are counted, not repeated."""
    assert problem.structured is not None
    rows, count = find_row_kinds(problem.structured, problem.design)
    total, step = np.zeros(len(x)), max(1, VARIANCES_AT_ONCE // len(x))
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        total += many_unit_sds(problem, x, rows[part]) ** 2 @ count[part]
    return total / problem.design.nobs


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
    s = np.exp(log_scale[rows]) / np.sqrt(problem.standardization.weight_mean)
    return np.asarray(R * s[:, :, None] * s[:, None, :])


def is_lost_in_rounding(problem: Problem, x: Array) -> bool:
    """Whether the correlations of some subject's errors are singular but for rounding: a likelihood there is rounding too."""
    kernel = problem.structured
    if kernel is None or problem.design.residual is None:
        return False
    phi = x[kernel.residual_part]
    whole = kernel.structure.set_matrices(phi)
    for rows in _by_subject(problem):
        R = kernel.structure.matrices(phi, block_of(problem.design, rows), whole)
        sds = np.sqrt(np.diagonal(R, axis1=1, axis2=2))
        if (sds > 0.0).all() and np.isfinite(R).all():
            smallest = np.linalg.eigvalsh(R / (sds[:, :, None] * sds[:, None, :]))[:, 0]
            if (smallest < rows.shape[1] * np.finfo(float).eps).any():
                return True
    return False


def residual_sds(problem: Problem, point: CriterionPoint) -> Array:
    """The fitted residual sd of every row, (n,)."""
    return float(np.sqrt(problem.sigma2(point.sigma2))) * unit_sds(problem, point.x)


def error_covariances(problem: Problem, point: CriterionPoint, rows: Codes) -> Array:
    """R over blocks of rows (B, k): (B, k, k)."""
    return problem.sigma2(point.sigma2) * unit_covariances(problem, point.x, rows)


def error_covariance(problem: Problem, point: CriterionPoint, rows: Codes) -> Array:
    """R over some rows, (k, k)."""
    return np.asarray(error_covariances(problem, point, np.asarray(rows)[None])[0])


def whiten_errors(problem: Problem, point: CriterionPoint, errors: Array) -> Array:
    """L^-1 e with L the lower Cholesky factor of each subject's R, its rows in the order of the visits, (n,)."""
    if problem.design.residual is None:
        return np.asarray(errors / residual_sds(problem, point))
    out = np.empty_like(errors)
    for rows in _by_subject(problem):
        L = np.linalg.cholesky(error_covariances(problem, point, rows))
        out[rows] = np.linalg.solve(L, errors[rows][..., None])[..., 0]
    return out


@dataclass(frozen=True, slots=True, eq=False)
class ErrorDraws:
    """Draws of the errors of n rows: their sds (n,) in units of sigma where they are independent, else L (B, k, k) of blocks of rows."""

    sds: Array | None
    blocks: tuple[tuple[Codes, Array], ...]
    n: int

    @classmethod
    def at(cls, problem: Problem, x: Array) -> ErrorDraws:
        """At the parameters x."""
        n = problem.design.nobs
        if problem.design.residual is None:
            return cls(unit_sds(problem, x), (), n)
        blocks = tuple((rows, cholesky(unit_covariances(problem, x, rows))) for rows in _by_subject(problem))
        return cls(None, blocks, n)

    def draw(self, sigma: float, rng: Generator) -> Array:
        """One of them, (n,)."""
        z = rng.standard_normal(self.n)
        if self.sds is not None:
            return sigma * self.sds * z
        out = np.empty_like(z)
        for rows, L in self.blocks:
            out[rows] = sigma * (L @ z[rows][..., None])[..., 0]
        return out


def _by_subject(problem: Problem) -> list[Codes]:
    """(B, k) rows of the subjects of each size, in the order of the visits."""
    assert problem.design.residual is not None
    return order_rows(problem.design, problem.design.residual.subject.codes)


def _parameter_sets(problem: Problem, x: Array, sigma: float) -> tuple[GroupedStructure, Array] | None:
    """The structure and its own parameters of R in the units of the data, (G, size)."""
    kernel = problem.structured
    if kernel is None or not isinstance(kernel.structure, GroupedStructure):
        return None
    covariance = kernel.structure.covariance
    return kernel.structure, np.stack([covariance.rescale(own, sigma) for own in kernel.structure.split_groups(x[kernel.residual_part])])


def visit_covariances(problem: Problem, x: Array, sigma: float) -> Array | None:
    """R over visits of every group, (G, m, m), at weight 1 and the reference of the variance function; None for other structures."""
    found = _parameter_sets(problem, x, sigma)
    if found is None or not isinstance(found[0], VisitStructure):
        return None
    return found[0].covariance.matrix(found[1])


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """One parameter set of R: its structure, the labels in its names, and the ending of its names, `|A` for the set of group A.

    labels : of the visits; of a Kronecker structure those of its outcomes, then those of its visits
    by_visit : whether they are the labels of the rows of R
    """

    covariance: Covariance
    labels: tuple[str, ...]
    suffix: str
    by_visit: bool

    @property
    def names(self) -> tuple[str, ...]:
        """What its natural parameters are called: `sd`, `rho|A`, `var[dbp]`."""
        return tuple(name + self.suffix for name in self.covariance.natural_names_for(self.labels))

    @property
    def innovation_name(self) -> str:
        """What the standard deviation of its innovations is called."""
        return f"sd_innovation{self.suffix}"

    def innovation_sd(self, natural: Array) -> Array | None:
        """It, (...,), of natural parameters (..., size); None where R is no stationary series of steps."""
        return self.covariance.innovation_sd(natural) if isinstance(self.covariance, Homogeneous) else None


def residual_sets(problem: Problem) -> tuple[ParameterSet, ...]:
    """The parameter sets of R, one for each group; empty where the errors are independent."""
    kernel, residual = problem.structured, problem.design.residual
    if kernel is None or residual is None or not isinstance(kernel.structure, GroupedStructure):
        return ()
    labels = tuple(map(str, chain.from_iterable(residual.axes)))
    suffixes = [""] if residual.group is None else [f"|{level}" for level in residual.group.levels]
    by_visit = len(residual.axes) == 1
    return tuple(ParameterSet(kernel.structure.covariance, labels, suffix, by_visit) for suffix in suffixes)


def innovating_sets(problem: Problem) -> tuple[tuple[int, ParameterSet], ...]:
    """Number and set of those whose errors are a stationary series, as of `ar1` and `arma`. SpecificationError where there are none."""
    sets = enumerate(residual_sets(problem))
    found = tuple((g, own) for g, own in sets if own.innovation_sd(own.covariance.natural(own.covariance.start())) is not None)
    if not found:
        raise SpecificationError(
            "the errors of this model have no innovations",
            "innovation=True",
            'leave it out: errors of residual="ar1(...)" and "arma(...)" have them',
        )
    return found


def variance_names(problem: Problem) -> tuple[str, ...]:
    """Names of the parameters of the variance function."""
    return () if problem.structured is None else problem.structured.variance.names


def sigma_name(problem: Problem) -> str:
    """What sigma is called among the parameters of the errors; "" where R has an sd for each visit or each group."""
    sets = residual_sets(problem)
    if not sets:
        return "sigma" if variance_names(problem) else "sd__Observation"
    return sets[0].names[0] if len(sets) == 1 and sets[0].covariance.homogeneous else ""


def residual_names(problem: Problem) -> tuple[str, ...]:
    """Names of the parameters of the errors: those of R, group by group, then of the variance function; empty if sigma alone is."""
    sets, variance = residual_sets(problem), variance_names(problem)
    own = tuple(name for one in sets for name in one.names)
    return (*own, *variance) if sets or not variance else (sigma_name(problem), *variance)


def residual_parameters(problem: Problem, x: Array, sigma: float) -> list[tuple[str, float]]:
    """The parameters of the errors by `residual_names`, on the natural scale."""
    kernel, found = problem.structured, _parameter_sets(problem, x, sigma)
    values: list[float] = []
    if found is not None:
        values += found[0].covariance.natural(found[1]).ravel().tolist()
    if kernel is not None and kernel.variance.size:
        values += [] if found is not None else [sigma]
        values += kernel.variance.natural(x[kernel.variance_part]).tolist()
    return list(zip(residual_names(problem), values, strict=True))


def one_sigma(problem: Problem) -> bool:
    """Whether the errors have one standard deviation, up to weights and the variance function."""
    found = problem.structured
    if found is None or not isinstance(found.structure, GroupedStructure):
        return True
    return found.structure.groups == 1 and found.structure.covariance.homogeneous


def marginal_covariance(problem: Problem, x: Array) -> Array:
    """V / sigma^2, (n, n)."""
    design, n = problem.design, len(problem.design.y)
    V = unit_covariances(problem, x, np.arange(n)[None])[0]
    for term, D in zip(design.terms, problem.relative_covariances(x), strict=True):
        codes = term.group.codes
        link = (codes[:, None] == codes).astype(float) if term.relationship is None else term.relationship[np.ix_(codes, codes)]
        V = V + link * (term.Z @ D @ term.Z.T)
    return np.asarray(V)
