"""The fit without each level of a grouping factor: its cross-products are taken off, and the search goes on from the estimate.

A factor that stands alone loses one column of blocks, and nothing is read again. Where factors meet, the reduced design is built anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array
from bayeslmm.data.design import GroupingFactor
from bayeslmm.errors import BayesLMMError, InferenceError
from bayeslmm.estimate.estimate import search
from bayeslmm.inference.many import off_boundary
from bayeslmm.inference.resampling import without
from bayeslmm.inference.tables import parameter_table
from bayeslmm.likelihood.crossproducts import CrossProducts
from bayeslmm.likelihood.kernel import RandomEffectsKernel
from bayeslmm.likelihood.levels import LevelBlock
from bayeslmm.likelihood.problem import Problem, build
from bayeslmm.results.fit import Fit


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """The fit without one level; NaN where the rest does not identify the model.

    alpha : (p,), vcov : (p, p) on the user's scale; parameters : all of `confint`'s
    """

    alpha: Array
    vcov: Array
    parameters: Array


def demand_likelihood(fit: Fit, what: str) -> None:
    """Refits here are by REML or ML: a posterior mode would lose its priors on the way."""
    if fit.method == "MAP":
        raise InferenceError(f"{what} refits by REML or ML, and this fit is a posterior mode", "fit('MAP')", "use fit('REML'), or sample()")


def deletions(fit: Fit, factor: GroupingFactor | None, refit: bool) -> Iterator[Deletion]:
    """One by one for the levels of a factor (for rows, without one).

    refit : estimate all parameters again; otherwise covariance parameters are held at those of the fit
    """
    start = off_boundary(fit.problem.random, fit.estimate.x) if fit.singular else fit.estimate.x
    for problem in _problems(fit, factor):
        yield _nothing(fit) if problem is None else _fitted(fit, problem, start, refit)


def _fitted(fit: Fit, problem: Problem, start: Array, refit: bool) -> Deletion:
    try:
        found = search(problem, fit.restricted, start)[0].point if refit else None
        point = problem.criterion.at(fit.estimate.x, fit.restricted, order=0) if found is None else found
    except (BayesLMMError, np.linalg.LinAlgError):
        return _nothing(fit)
    if point.state is None or not np.isfinite(point.value):
        return _nothing(fit)
    solution, c = point.state.solution, problem.conditioning
    vcov = point.sigma2 * c.y_scale**2 * (c.back @ solution.information_inverse[0] @ c.back.T)
    values = parameter_table(problem, point.x[None], np.array([point.sigma2]), solution.alpha)[0]
    return Deletion(problem.alpha(solution.alpha[0]), vcov, values)


def _nothing(fit: Fit) -> Deletion:
    p = len(fit.fixef_kept)
    found = parameter_table(fit.problem, fit.estimate.x[None], np.array([fit.point.sigma2]), np.zeros((1, p)))
    return Deletion(np.full(p, np.nan), np.full((p, p), np.nan), np.full(found.shape[1], np.nan))


def _problems(fit: Fit, factor: GroupingFactor | None) -> Iterator[Problem | None]:
    kernel = fit.problem.criterion.kernel
    if isinstance(kernel, RandomEffectsKernel) and factor is not None and _alone(kernel.cross, factor):
        yield from _downdated(fit.problem, kernel, factor)
        return
    codes = np.arange(fit.nobs) if factor is None else factor.codes
    for level in range(fit.nobs if factor is None else factor.size):
        yield _rebuilt(fit, codes == level)


def _rebuilt(fit: Fit, rows: NDArray[np.bool_]) -> Problem | None:
    design = without(fit.design, rows)
    if design.nobs <= design.X.shape[1] or np.linalg.matrix_rank(design.X) < design.X.shape[1]:
        return None
    return build(design)


def _alone(cross: CrossProducts, factor: GroupingFactor) -> bool:
    return cross.rest is None and cross.first is not None and cross.factors[0].name == factor.name


def _downdated(problem: Problem, kernel: RandomEffectsKernel, factor: GroupingFactor) -> Iterator[Problem | None]:
    """The problem less one level after the other of its only factor."""
    criterion, cross = problem.criterion, kernel.cross
    first = cross.first
    assert first is not None
    counts = np.bincount(factor.codes, minlength=factor.size)
    for level, border in enumerate(_borders(problem, factor)):
        block = LevelBlock(np.delete(first.A, level, axis=2), np.delete(first.C, level, axis=2))
        rest = cross.border - border
        if counts[level] >= criterion.n - criterion.p or _collinear(rest[:-1, :-1]):
            yield None
            continue
        fewer = (replace(cross.factors[0], K=factor.size - 1),)
        moved = replace(kernel, cross=replace(cross, n=cross.n - int(counts[level]), border=rest, factors=fewer, first=block))
        yield replace(problem, criterion=replace(criterion, n=criterion.n - int(counts[level]), kernel=moved))


def _collinear(XX: Array) -> bool:
    """Whether columns that were orthonormal with all rows are dependent without some."""
    return len(XX) > 0 and float(np.linalg.eigvalsh(XX)[0]) < 1e-10 * float(np.trace(XX)) / len(XX)


def _borders(problem: Problem, factor: GroupingFactor) -> Iterator[Array]:
    """[X y]' W [X y] of the rows of every level."""
    design, c = problem.design, problem.conditioning
    everything = slice(0, design.nobs)
    border, w = c.border(design, everything), c.weights(design, everything)
    order = np.argsort(factor.codes, kind="stable")
    bounds = np.searchsorted(factor.codes[order], np.arange(factor.size + 1))
    for level in range(factor.size):
        rows = order[bounds[level] : bounds[level + 1]]
        own = border[rows]
        yield own.T @ (own if w is None else own * w[rows][:, None])
