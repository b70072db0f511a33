"""Resampled designs: levels of a grouping factor, or rows, drawn anew; models of visits refitted to subjects that count more or less.

A level that is drawn twice becomes two levels, and so do the levels of every factor nested in it; factors that cross it keep theirs.

Structures over visits are refitted side by side from sums; structures over places, whose blocks are all different, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, concatenate_fields
from bayeslmm._validation import require_name
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import BayesLMMError, InferenceError
from bayeslmm.estimate.batch_descent import BatchFits
from bayeslmm.estimate.estimate import search
from bayeslmm.inference.fixed_effects.degrees_of_freedom import grouping_factors, is_nested, top_factor
from bayeslmm.inference.intervals.batch_structured import (
    ReplicateSums,
    descend,
    evaluate,
    parts,
    poolable,
    subject_groups,
    weighted,
    whole_sample,
    without_each,
)
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.structured.pooled import many_matrices
from bayeslmm.likelihood.structured.residual_structure import BlockRows


def resampling_factor(design: Design, group: str | None) -> GroupingFactor | None:
    """The factor whose levels are drawn: the one named, the top one, or None where the model has no groups (rows are drawn then)."""
    factors = {factor.name: factor for factor in grouping_factors(design)}
    if group is not None:
        if require_name(group, "group") not in factors:
            remedy = "use one of " + ", ".join(map(repr, factors)) if factors else "leave it out: rows are drawn"
            raise InferenceError(f"the model has no grouping factor {group!r}", "group", remedy)
        return factors[group]
    if not factors:
        return None
    try:
        return top_factor(design, "the case bootstrap")
    except InferenceError as error:
        raise InferenceError(error.what, error.where, "say which factor to draw from: group=" + " or ".join(map(repr, factors))) from None


def resample_design(design: Design, factor: GroupingFactor | None, drawn: Codes) -> Design:
    """The design of levels `drawn` of a factor (of rows, without a factor), each as often as it occurs there."""
    if any(term.relationship is not None for term in design.terms):
        raise InferenceError(
            "levels with a known relationship matrix cannot be drawn anew",
            "the case bootstrap",
            "use kind='parametric', which draws from the model",
        )
    codes = np.arange(design.nobs) if factor is None else factor.codes
    rows, copy = _rows_of(codes, drawn)

    def keys(own: GroupingFactor) -> Codes:
        """Levels are told apart by draw where their factor lies within the one drawn from."""
        return own.codes[rows] + copy * (int(own.codes.max()) + 1) if is_nested(own.codes, codes) else own.codes[rows]

    return design.take(rows, keys)


def without(design: Design, rows: NDArray[np.bool_]) -> Design:
    """The design without some rows; levels that lose all of theirs are gone."""
    return design.take(np.flatnonzero(~rows))


def _rows_of(codes: Codes, drawn: Codes) -> tuple[Codes, Codes]:
    """Rows of the levels drawn, one draw after the other, and which draw each row belongs to."""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(int(codes.max()) + 2))
    counts = starts[drawn + 1] - starts[drawn]
    copy = np.repeat(np.arange(len(drawn)), counts)
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[starts[drawn][copy] + inside], copy


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
    whole, cells = whole_sample(groups), sum(group.matrix_cells for group in groups)
    return _in_parts(problem, cells, N, lambda part: without_each(groups, whole, part, np.arange(N)), start, restricted, progress)


def fits_without_each(problem: Problem, level_of: Codes, size: int, start: Array, restricted: bool) -> Iterator[tuple[BatchFits, Array]]:
    """The fits without each of the levels 0 .. size - 1, in parts, with their (X' V0^-1 X)^-1 (b, p, p), on conditioned columns.

    level_of : (subjects,) the level of each subject of a problem that is `poolable`
    """
    groups = subject_groups(problem)
    whole = whole_sample(groups)
    for part in parts(size, sum(group.matrix_cells for group in groups)):
        with one_thread():
            sums = without_each(groups, whole, part, level_of)
            fits = descend(problem, sums, start, restricted)
            C = evaluate(problem, sums, fits.x, restricted).C
        yield fits, C


def reweighted(
    problem: Problem, start: Array, restricted: bool, weights: Array, progress: Callable[[int], None] | None = None
) -> VisitParameters:
    """The fits in which subject i counts weights[b, i] times."""
    if not poolable(problem):
        return _one_by_one(problem, start, restricted, weights, progress)
    groups = subject_groups(problem)
    cells = sum(group.cells for group in groups)
    return _in_parts(problem, cells, len(weights), lambda part: weighted(groups, weights[part]), start, restricted, progress)


def _in_parts(
    problem: Problem,
    cells: int,
    B: int,
    sums: Callable[[Codes], ReplicateSums],
    start: Array,
    restricted: bool,
    progress: Callable[[int], None] | None,
) -> VisitParameters:
    found = []
    with one_thread():
        for part in parts(B, cells):
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
