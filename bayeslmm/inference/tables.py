"""All parameters of many fits of one model: a column for each, named as `confint` names them."""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.inference.parameters import covariance_parameters
from bayeslmm.likelihood.problem import Problem


def parameter_names(problem: Problem) -> list[str]:
    """Covariance parameters, then the coefficients kept."""
    design = problem.design
    return [*(parameter.term for parameter in covariance_parameters(problem)), *(design.coef_names[k] for k in design.kept)]


def parameter_table(problem: Problem, x: Array, sigma2: Array, alpha: Array) -> Array:
    """(B, parameters) from x (B, size), sigma^2 (B,) and alpha (B, p) on conditioned columns."""
    tau = np.column_stack([x, 0.5 * np.log(sigma2)])
    return np.column_stack([*(parameter.values(problem, tau) for parameter in covariance_parameters(problem)), problem.alpha(alpha)])
