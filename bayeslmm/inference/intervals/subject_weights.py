"""The parameters of a model of visits refitted without each subject, or to subjects that count more or less than once.

Structures over visits are refitted side by side from sums; structures over places, whose blocks are all different, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, concatenate_fields
from bayeslmm.errors import BayesLMMError
from bayeslmm.estimate.estimate import search
from bayeslmm.inference.intervals.batch_structured import (
    ReplicateSums,
    SubjectGroup,
    descend,
    parts,
    poolable,
    subject_groups,
    weighted,
    without_each,
)
from bayeslmm.inference.intervals.resampling import resample_design
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.structured.pooled import many_matrices
from bayeslmm.likelihood.structured.residual_structure import BlockRows


@dataclass(frozen=True, slots=True, eq=False)
class VisitParameters:
    """B sets of parameters on the user's scale.

    alpha : (B, p) of the columns kept; R : (B, G, m, m) covariance over the visits by group of parameters
    settled : (B,) whether each fit is to be believed
    """

    alpha: Array
    R: Array
    settled: NDArray[np.bool_]

    @property
    def size(self) -> int:
        return len(self.alpha)

    def take(self, which: Codes | NDArray[np.bool_]) -> VisitParameters:
        """Some sets, in an order."""
        return VisitParameters(self.alpha[which], self.R[which], self.settled[which])


def visit_parameters(problem: Problem, x: Array, sigma2: Array, alpha: Array, settled: NDArray[np.bool_] | None = None) -> VisitParameters:
    """Parameters on the user's scale from x (B, size), sigma^2 and alpha on conditioned columns."""
    kernel, residual = problem.structured, problem.design.residual
    assert kernel is not None and residual is not None
    R0 = many_matrices(kernel.structure, x[:, kernel.residual_part], visit_block(problem))
    scale = np.array([problem.sigma2(float(s)) for s in sigma2])
    return VisitParameters(problem.alpha(alpha), scale[:, None, None, None] * R0, np.ones(len(x), bool) if settled is None else settled)


def visit_block(problem: Problem) -> BlockRows:
    """Every group of parameters over all visits."""
    residual = problem.design.residual
    assert residual is not None
    groups = 1 if residual.group is None else residual.group.size
    if residual.visit is not None:
        m = len(residual.visit_levels)
        return BlockRows(np.tile(np.arange(m), (groups, 1)), None, np.repeat(np.arange(groups)[:, None], m, axis=1), None)
    assert residual.coords is not None
    places = np.unique(residual.coords, axis=0)
    distances = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1))
    m = len(places)
    return BlockRows(None, np.tile(distances, (groups, 1, 1)), np.repeat(np.arange(groups)[:, None], m, axis=1), None)


def refit_without_each(problem: Problem, start: Array, restricted: bool, progress: Callable[[int], None] | None = None) -> VisitParameters:
    """The fit without each subject of the design, in the order of its levels."""
    residual = problem.design.residual
    assert residual is not None
    N = residual.subject.size
    if not poolable(problem):
        return _one_by_one(problem, start, restricted, 1.0 - np.eye(N), progress)
    groups = subject_groups(problem)
    return _in_parts(problem, groups, N, lambda part: without_each(groups, part), start, restricted, progress)


def reweighted(
    problem: Problem, start: Array, restricted: bool, weights: Array, progress: Callable[[int], None] | None = None
) -> VisitParameters:
    """The fits in which subject i counts weights[b, i] times."""
    if not poolable(problem):
        return _one_by_one(problem, start, restricted, weights, progress)
    groups = subject_groups(problem)
    return _in_parts(problem, groups, len(weights), lambda part: weighted(groups, weights[part]), start, restricted, progress)


def _in_parts(
    problem: Problem,
    groups: tuple[SubjectGroup, ...],
    B: int,
    sums: Callable[[Codes], ReplicateSums],
    start: Array,
    restricted: bool,
    progress: Callable[[int], None] | None,
) -> VisitParameters:
    found = []
    with one_thread():
        for part in parts(B, sum(group.cells for group in groups)):
            fits = descend(problem, sums(part), start, restricted)
            found.append(visit_parameters(problem, fits.x, fits.sigma2, fits.alpha, fits.settled))
            if progress is not None:
                progress(int(part[-1]) + 1)
    return concatenate_fields(found)


def _one_by_one(
    problem: Problem, start: Array, restricted: bool, weights: Array, progress: Callable[[int], None] | None
) -> VisitParameters:
    design = problem.design
    assert design.residual is not None
    found = []
    for b, own in enumerate(weights):
        drawn = np.repeat(np.arange(len(own)), own.astype(np.int64))
        try:
            other = build_problem(resample_design(design, design.residual.subject, drawn))
            outcome, _ = search(other, restricted, start)
            point = outcome.point
            assert point.state is not None
            one = visit_parameters(
                problem, point.x[None], np.array([other.sigma2(point.sigma2) / problem.sigma2(1.0)]), point.state.solution.alpha
            )
            found.append(VisitParameters(other.alpha(point.state.solution.alpha), one.R, np.array([outcome.converged])))
        except (BayesLMMError, np.linalg.LinAlgError, AssertionError):
            lost = visit_parameters(problem, start[None], np.ones(1), np.zeros((1, problem.criterion.p)))
            found.append(VisitParameters(np.full_like(lost.alpha, np.nan), np.full_like(lost.R, np.nan), np.zeros(1, bool)))
        if progress is not None:
            progress(b + 1)
    return concatenate_fields(found)
