"""The fit without each level of a grouping factor: its cross-products are taken off, and the search goes on from the estimate.

Held covariance parameters need no search, and no criterion either: what a deletion changes follows from the inverse at the estimate.
Structured errors are the exception. Their rows are laid out anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.design import GroupingFactor
from bayeslmm.errors import BayesLMMError, InferenceError
from bayeslmm.estimate.estimate import search
from bayeslmm.inference.many import off_boundary
from bayeslmm.inference.resampling import without
from bayeslmm.inference.tables import parameter_names, parameter_table
from bayeslmm.likelihood.criterion import Point, one_thread
from bayeslmm.likelihood.deleted import Deleted, deleted
from bayeslmm.likelihood.left_out import Sums
from bayeslmm.likelihood.problem import Problem, build
from bayeslmm.results.fit import Fit


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """The fit without one level; NaN where the rest does not identify the model.

    x, and on the problem's conditioned columns: sigma2, solved (p,) the coefficients, inverse (p, p) of X' V0^-1 X
    """

    problem: Problem
    x: Array
    sigma2: float
    solved: Array
    inverse: Array

    @property
    def alpha(self) -> Array:
        """(p,) coefficients on the user's scale."""
        return self.problem.alpha(self.solved)

    @property
    def vcov(self) -> Array:
        """(p, p) their covariance."""
        c = self.problem.conditioning
        return np.asarray(self.sigma2 * c.y_scale**2 * (c.back @ self.inverse @ c.back.T))

    @property
    def parameters(self) -> Array:
        """All of `confint`'s."""
        if not np.isfinite(self.sigma2):
            return np.full(len(parameter_names(self.problem)), np.nan)
        return np.asarray(parameter_table(self.problem, self.x[None], np.array([self.sigma2]), self.solved[None])[0])


def demand_likelihood(fit: Fit, what: str) -> None:
    """Refits here are by REML or ML: a posterior mode would lose its priors on the way."""
    if fit.method == "MAP":
        raise InferenceError(f"{what} refits by REML or ML, and this fit is a posterior mode", "fit('MAP')", "use fit('REML'), or sample()")


def deletions(fit: Fit, factor: GroupingFactor | None, refit: bool) -> Iterator[Deletion]:
    """One by one for the levels of a factor (for rows, without one).

    refit : estimate all parameters again; otherwise covariance parameters are held at those of the fit
    Raises KeyboardInterrupt where a search was interrupted.
    """
    codes, size = (np.arange(fit.nobs), fit.nobs) if factor is None else (factor.codes, factor.size)
    if fit.problem.structured is not None:
        yield from _rebuilt(fit, codes, size, refit)
    elif refit:
        start = off_boundary(fit.problem.random, fit.estimate.x) if fit.singular else fit.estimate.x
        sums = Sums.of(fit.problem)
        for rows in _rows(codes, size):
            yield _searched(fit, sums.without(rows), start)
    else:
        yield from _held(fit, codes, size)


def _rows(codes: Codes, size: int) -> Iterator[Codes]:
    """Rows of every level."""
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(size + 1))
    for level in range(size):
        yield order[bounds[level] : bounds[level + 1]]


def _searched(fit: Fit, problem: Problem | None, start: Array) -> Deletion:
    if problem is None:
        return _nothing(fit)
    try:
        outcome = search(problem, fit.restricted, start)[0]
    except (BayesLMMError, np.linalg.LinAlgError):
        return _nothing(fit)
    if outcome.interrupted:
        raise KeyboardInterrupt
    return _of_point(fit, problem, outcome.point)


def _of_point(fit: Fit, problem: Problem, point: Point) -> Deletion:
    if point.state is None or not np.isfinite(point.value):
        return _nothing(fit)
    solution = point.state.solution
    return Deletion(problem, point.x, point.sigma2, solution.alpha[0], solution.information_inverse[0])


def _nothing(fit: Fit) -> Deletion:
    p = len(fit.fixef_kept)
    return Deletion(fit.problem, fit.estimate.x, np.nan, np.full(p, np.nan), np.full((p, p), np.nan))


# -- held covariance parameters ----------------------------------------------------------------------------------------------------------


def _held(fit: Fit, codes: Codes, size: int) -> Iterator[Deletion]:
    """From the inverse at the estimate; where that would be slow or lose digits, from the criterion of what is left."""
    problem, point, sums = fit.problem, fit.point, Sums.of(fit.problem)
    with one_thread():
        for rows, found in zip(_rows(codes, size), deleted(problem, point, codes, size), strict=True):
            n = fit.nobs - len(rows)
            if found is not None and n > problem.criterion.p and sums.identified(rows):
                yield _of_profile(fit, found, n)
                continue
            left = sums.without(rows)
            yield _nothing(fit) if left is None else _of_point(fit, left, left.criterion.at(fit.estimate.x, fit.restricted, order=0))


def _of_profile(fit: Fit, found: Deleted, n: int) -> Deletion:
    df = n - len(found.alpha) if fit.restricted else n
    return Deletion(fit.problem, fit.estimate.x, found.r2 / df, found.alpha, found.inverse)


# -- structured errors -------------------------------------------------------------------------------------------------------------------


def _rebuilt(fit: Fit, codes: Codes, size: int, refit: bool) -> Iterator[Deletion]:
    theta = fit.problem.theta(fit.estimate.x)
    start = off_boundary(fit.problem.random, fit.estimate.x) if fit.singular else fit.estimate.x
    for level in range(size):
        problem = _laid_out(fit, codes == level)
        if problem is None or refit:
            yield _searched(fit, problem, start)
        else:
            yield _of_point(fit, problem, problem.criterion.at(problem.x(theta), fit.restricted, order=0))


def _laid_out(fit: Fit, rows: NDArray[np.bool_]) -> Problem | None:
    design = without(fit.design, rows)
    if design.nobs <= design.X.shape[1] or np.linalg.matrix_rank(design.X) < design.X.shape[1]:
        return None
    return build(design)
