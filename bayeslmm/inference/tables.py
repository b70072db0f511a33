"""All parameters of many fits of one model: a column for each, named as `confint` names them."""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.inference.parameters import ErrorSd, Parameter, RandomCorrelation, RandomSd, covariance_parameters, sigma_of
from bayeslmm.likelihood.problem import Problem


def parameter_names(problem: Problem) -> list[str]:
    """Covariance parameters, then the coefficients kept."""
    design = problem.design
    return [*(parameter.term for parameter in covariance_parameters(problem)), *(design.coef_names[k] for k in design.kept)]


def parameter_table(problem: Problem, x: Array, sigma2: Array, alpha: Array) -> Array:
    """(B, parameters) from x (B, size), sigma^2 (B,) and alpha (B, p) on conditioned columns."""
    B = len(x)
    tau = np.column_stack([x, 0.5 * np.log(sigma2)])
    covariances: dict[int, Array] = {}

    def D(position: int) -> Array:
        if position not in covariances:
            term = problem.random.terms[position]
            root = term.map.whole @ term.covariance.factor(x[:, term.part])
            scale = (np.exp(tau[:, -1]) * problem.conditioning.y_scale) ** 2
            covariances[position] = scale[:, None, None] * (root @ root.swapaxes(-1, -2))
        return covariances[position]

    def column(parameter: Parameter) -> Array:
        if isinstance(parameter, RandomSd):
            return np.sqrt(np.maximum(D(parameter.position)[:, parameter.column, parameter.column], 0.0))
        if isinstance(parameter, RandomCorrelation):
            a, b = parameter.columns
            S = D(parameter.position)
            size = np.sqrt(np.maximum(S[:, a, a] * S[:, b, b], 0.0))
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(size > 0, np.clip(S[:, a, b] / size, -1.0, 1.0), np.nan)
        if isinstance(parameter, ErrorSd):
            unit = sigma_of(problem, np.zeros(tau.shape[1]))
            return np.asarray(unit * np.exp(tau[:, -1]))
        return np.array([parameter.value(problem, row) for row in tau])

    columns = [column(parameter) for parameter in covariance_parameters(problem)]
    return np.column_stack([*columns, problem.alpha(alpha)]) if columns else np.asarray(problem.alpha(alpha)).reshape(B, -1)
