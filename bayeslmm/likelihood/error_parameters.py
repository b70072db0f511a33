"""The parameters of the errors as a person reads them: by name, and as matrices over visits."""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.covariance.located import Located
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.residual_structure import Grouped, VisitStructure


def _sets(problem: Problem, x: Array, sigma: float) -> tuple[Grouped, Array] | None:
    """The structure and its own parameters of R in the units of the data, (G, size)."""
    kernel = problem.structured
    if kernel is None or not isinstance(kernel.structure, Grouped):
        return None
    covariance = kernel.structure.covariance
    return kernel.structure, np.stack([covariance.rescale(own, sigma) for own in kernel.structure.padded(x[kernel.residual_part])])


def visit_covariances(problem: Problem, x: Array, sigma: float) -> Array | None:
    """R over visits of every group, (G, m, m), at weight 1 and the reference of the variance function; None for other structures."""
    found = _sets(problem, x, sigma)
    if found is None or not isinstance(found[0], VisitStructure):
        return None
    return found[0].covariance.matrix(found[1])


def residual_parameters(problem: Problem, x: Array, sigma: float) -> list[tuple[str, float]]:
    """Natural parameters of R, by group where there are several, then those of the variance function."""
    kernel, residual = problem.structured, problem.design.residual
    rows: list[tuple[str, float]] = []
    found = _sets(problem, x, sigma)
    if found is not None and residual is not None:
        covariance = found[0].covariance
        labels = [str(label) for label in residual.visit_levels]
        names = covariance.natural_names if isinstance(covariance, Located) else covariance.natural_names_for(labels)
        groups = [""] if residual.group is None else [f"|{label}" for label in residual.group.levels]
        for group, own in zip(groups, covariance.natural(found[1]), strict=True):
            rows += [(f"{name}{group}", float(value)) for name, value in zip(names, own, strict=True)]
    if kernel is not None and kernel.variance.size:
        if found is None:
            rows.append(("sigma", sigma))
        rows += list(zip(kernel.variance.names, map(float, kernel.variance.natural(x[kernel.variance_part])), strict=True))
    return rows


def one_sigma(problem: Problem) -> bool:
    """Whether the errors have one standard deviation, up to weights and the variance function."""
    found = problem.structured
    if found is None or not isinstance(found.structure, Grouped):
        return True
    return found.structure.groups == 1 and found.structure.covariance.homogeneous
