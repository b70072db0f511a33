"""The dense definition: V as one n x n matrix on the user's columns, by which every kernel is judged.

-2 l = log |V0| [+ log |X' V0^-1 X|] + d (1 + log(2 pi r2 / d)),   V0 = Z (D / sigma^2) Z' + R0
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import marginal_covariance


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """The criterion at one x, and what it was made of.

    V0 : (n, n) V / sigma^2; alpha : (p,); r2 : generalised residual sum of squares; sigma2 : r2 / d
    """

    value: float
    V0: Array
    alpha: Array
    r2: float
    sigma2: float


def define(problem: Problem, x: Array, restricted: bool) -> Definition:
    """Evaluate the definition at x."""
    design = problem.design
    V0 = marginal_covariance(problem, x)
    X, y = design.X, design.y if design.offset is None else design.y - design.offset
    n, p = X.shape
    inverse = np.linalg.inv(V0)
    information = X.T @ inverse @ X
    alpha = np.linalg.solve(information, X.T @ inverse @ y)
    residual = y - X @ alpha
    r2 = float(residual @ inverse @ residual)
    d = n - p if restricted else n
    value = np.linalg.slogdet(V0)[1] + d * (1.0 + np.log(2.0 * np.pi * r2 / d))
    if restricted:
        value += np.linalg.slogdet(information)[1]
    return Definition(float(value), V0, alpha, r2, r2 / d)
