"""Many fits of one model of visits side by side: to weighted subjects (jackknife, bootstrap) or to other responses (simulation).

Subjects with the same visits are added up once, so a replicate is a few small sums: a leave-one-out is the whole sample's less one
subject's, a bootstrap sample a weighted sum. All replicates start at the estimate of the whole sample and go on together by BFGS; what
does not settle is fitted by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, concatenate_fields, equal_rows
from bayeslmm.errors import BayesLMMError
from bayeslmm.estimate.batch_descent import BatchFits, BatchValues, DescentRule, descend_together, inverse_newton_matrix, lowest_ends
from bayeslmm.estimate.estimate import search
from bayeslmm.likelihood.kernel import solve_Xy
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.blocks import PooledBatch, sum_by_pattern
from bayeslmm.likelihood.structured.pooled import many_matrices
from bayeslmm.likelihood.structured.residual_structure import BlockRows, VisitStructure

ELEMENTS = 4_000_000
"""Sums held at once."""

EXACT_DECREASE = 1e-17
"""Predicted decrease of the criterion at which a replicate is done: a parameter is then known to 1e-8 of its standard error."""

RULE = DescentRule(EXACT_DECREASE, iterations=100, longest=1.0, relative=False, shortest=1e-4, gradient_decides=True)

FLATTEST = 1e-6
"""Curvature of a direction at the start, relative to the steepest, below which it counts as this."""

SINGULAR = 1e-11
"""Ratio of the eigenvalues of (X' V0^-1 X)^-1 below which the columns count as dependent: they were orthonormal in the whole sample."""


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """Subjects that replicates do without: replicate (m,), kind (m,), Xy (m, k, r)."""

    replicate: Codes
    kind: Codes
    Xy: Array

    def part(self, which: Codes, size: int) -> LeftOut:
        """Those of some of `size` replicates."""
        place = np.full(size, -1)
        place[which] = np.arange(len(which))
        own = place[self.replicate] >= 0
        return LeftOut(place[self.replicate[own]], self.kind[own], self.Xy[own])


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Subjects with the same visits and group of parameters: C kinds of k visits.

    count : (B, C) subjects; XX : (B, C, k k, p p); XY : (B, C, k k, p); YY : (B, C, k k); the sums (1, ...) where replicates share them
    left_out : what shared sums have too much
    """

    block: BlockRows
    count: Array
    XX: Array
    XY: Array
    YY: Array
    left_out: LeftOut | None = None

    def part(self, which: Codes) -> Kinds:
        """Some replicates."""
        XX, XY, YY = (own if len(own) == 1 else own[which] for own in (self.XX, self.XY, self.YY))
        left_out = None if self.left_out is None else self.left_out.part(which, len(self.count))
        return Kinds(self.block, self.count[which], XX, XY, YY, left_out)

    def without_deletions(self) -> Kinds:
        """The same of one replicate with nothing left to take off."""
        if self.left_out is None:
            return self
        out, block = self.left_out, self.block.part(self.left_out.kind)
        taken = _split(block, np.ones((1, len(out.kind))), _products(out.Xy)[None])
        XX, XY, YY = (own.copy() for own in (self.XX, self.XY, self.YY))
        for left, own in zip((XX, XY, YY), (taken.XX, taken.XY, taken.YY), strict=True):
            np.subtract.at(left, (out.replicate, out.kind), own[0])
        return Kinds(self.block, self.count, XX, XY, YY)


@dataclass(frozen=True, slots=True, eq=False)
class ReplicateSums:
    """The sums of B replicates and their numbers of rows (B,)."""

    kinds: tuple[Kinds, ...]
    rows: Array

    @property
    def size(self) -> int:
        return len(self.rows)

    def part(self, which: Codes) -> ReplicateSums:
        """Some of them."""
        if len(which) == self.size and np.array_equal(which, np.arange(self.size)):
            return self
        return ReplicateSums(tuple(kind.part(which) for kind in self.kinds), self.rows[which])


@dataclass(frozen=True, slots=True, eq=False)
class Points(BatchValues):
    """The criterion of replicates, each at an x of its own; C : (B, p, p) (X' V0^-1 X)^-1 on conditioned columns.

    logdet : (B, size) and r2 : (B, size) parts of the gradient
    """

    sigma2: Array
    alpha: Array
    C: Array
    r2_gradient: Array
    r2: Array


@dataclass(frozen=True, slots=True, eq=False)
class SubjectGroup:
    """Subjects of k visits by kind: subjects (n,), kind (n,), Xy (n, k, r), block of the C kinds."""

    subjects: Codes
    kind: Codes
    Xy: Array
    block: BlockRows

    @property
    def cells(self) -> int:
        """Array elements of one replicate's sums."""
        C, k = self.block.shape
        return int(C * (k * self.Xy.shape[2]) ** 2)

    @property
    def matrix_cells(self) -> int:
        """Array elements of one replicate whose sums are shared: a few matrices of each kind."""
        C, k = self.block.shape
        return int(8 * C * k * k)


def poolable(problem: Problem) -> bool:
    """Whether V depends on the visits seen alone, and is a structure over visits."""
    kernel = problem.structured
    if kernel is None or not isinstance(kernel.structure, VisitStructure):
        return False
    return not problem.design.terms and not kernel.variance.size and kernel.data.log_weight_scale is None


def subject_groups(problem: Problem) -> tuple[SubjectGroup, ...]:
    """The subjects of a problem, by number of visits and by kind."""
    kernel, residual = problem.structured, problem.design.residual
    assert kernel is not None and residual is not None and residual.visit is not None
    found = []
    for batch in (*kernel.data.rows, *kernel.data.pooled_rows):
        key = np.column_stack([residual.visit[batch.rows], batch.block.group[:, 0]])
        first, kind = equal_rows(key)
        subjects = residual.subject.codes[batch.rows[:, 0]]
        found.append(SubjectGroup(subjects, kind, kernel.data.Xy[batch.rows], batch.block.part(first)))
    return tuple(found)


def _products(Xy: Array) -> Array:
    """x_a x_b' of every subject (n, k k, r r)."""
    n, k, r = Xy.shape
    flat = Xy.reshape(n, k * r)
    return np.asarray((flat[:, :, None] * flat[:, None, :]).reshape(n, k, r, k, r).transpose(0, 1, 3, 2, 4).reshape(n, k * k, r * r))


def _split(block: BlockRows, count: Array, G: Array) -> Kinds:
    """Sums of [X y] (B, C, k k, r r) taken apart."""
    B, C, K, rr = G.shape
    r, k = round(rr**0.5), block.shape[1]
    whole = G.reshape(B, C, K, r, r)
    XY = whole[..., :-1, -1].reshape(B, C, k, k, r - 1)
    XY = 0.5 * (XY + XY.swapaxes(2, 3)).reshape(B, C, K, r - 1)
    XX = np.ascontiguousarray(whole[..., :-1, :-1]).reshape(B, C, K, (r - 1) ** 2)
    return Kinds(block, count, XX, XY, np.ascontiguousarray(whole[..., -1, -1]))


def weigh_subjects(groups: tuple[SubjectGroup, ...], weights: Array) -> ReplicateSums:
    """Sums of replicates in which subject i counts weights[b, i] times; weights (B, subjects)."""
    kinds, rows = [], np.zeros(len(weights))
    for group in groups:
        C, k = group.block.shape
        own, G = weights[:, group.subjects], []
        count = np.zeros((len(weights), C))
        for c in range(C):
            members = np.flatnonzero(group.kind == c)
            flat = _products(group.Xy[members]).reshape(len(members), -1)
            G.append((own[:, members] @ flat).reshape(len(weights), k * k, -1))
            count[:, c] = own[:, members].sum(axis=1)
        kinds.append(_split(group.block, count, np.stack(G, axis=1)))
        rows += k * own.sum(axis=1)
    return ReplicateSums(tuple(kinds), rows)


def whole_sample(groups: tuple[SubjectGroup, ...]) -> ReplicateSums:
    """Sums of all subjects once, as one replicate."""
    kinds = []
    for group in groups:
        C = len(group.block.group)
        count = np.bincount(group.kind, minlength=C).astype(float)
        kinds.append(_split(group.block, count[None], sum_by_pattern(group.Xy, group.kind, C)[None]))
    return ReplicateSums(tuple(kinds), np.array([float(sum(group.Xy.shape[0] * group.Xy.shape[1] for group in groups))]))


def without_each(groups: tuple[SubjectGroup, ...], whole: ReplicateSums, levels: Codes, level_of: Codes) -> ReplicateSums:
    """Sums without each of some levels of subjects: the whole sample's less their own. level_of : (subjects,) the level of each."""
    B, kinds, rows = len(levels), [], np.full(len(levels), whole.rows[0])
    replicate = np.full(1 + max(int(level_of.max()), int(levels.max())), -1)
    replicate[levels] = np.arange(B)
    place = replicate[level_of]
    for group, total in zip(groups, whole.kinds, strict=True):
        members = np.flatnonzero(place[group.subjects] >= 0)
        out = LeftOut(place[group.subjects[members]], group.kind[members], group.Xy[members])
        count = np.repeat(total.count, B, axis=0)
        np.subtract.at(count, (out.replicate, out.kind), 1.0)
        np.subtract.at(rows, out.replicate, group.block.shape[1])
        kinds.append(replace(total, count=count, left_out=out))
    return ReplicateSums(tuple(kinds), rows)


# -- the criterion -------------------------------------------------------------------------------------------------------------------------


def evaluate(problem: Problem, replicates: ReplicateSums, x: Array, restricted: bool) -> Points:
    """Value and gradient of the criterion of each replicate at its x (B, size); the value is inf where it does not exist."""
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return _evaluate(problem, replicates, x, restricted)
    except np.linalg.LinAlgError:
        B, size, p = len(x), x.shape[1], problem.criterion.p
        if B == 1:
            nan = np.full(1, np.nan)
            lost = np.full((1, size), np.nan)
            return Points(np.full(1, np.inf), lost, nan, np.full((1, p), np.nan), np.full((1, p, p), np.nan), lost, nan)
        half = np.arange(B // 2), np.arange(B // 2, B)
        return concatenate_fields([evaluate(problem, replicates.part(part), x[part], restricted) for part in half])


def points_of_sums(problem: Problem, replicates: ReplicateSums, restricted: bool) -> Callable[[Array], Points]:
    """The criterion of every replicate at an x of its own, as a function of x (B, size)."""
    return partial(evaluate, problem, replicates, restricted=restricted)


def _evaluate(problem: Problem, replicates: ReplicateSums, x: Array, restricted: bool) -> Points:
    kernel, p, B = problem.structured, problem.criterion.p, len(x)
    assert kernel is not None and isinstance(kernel.structure, VisitStructure)
    structure = kernel.structure
    logdet, Xy, inverses = np.zeros(B), np.zeros((B, p + 1, p + 1)), []
    for kind in replicates.kinds:
        C, k = kind.block.shape
        L = np.linalg.cholesky(many_matrices(structure, x, kind.block))
        Li = np.linalg.inv(L)
        W = Li.swapaxes(-1, -2) @ Li
        inverses.append(W)
        logdet += 2.0 * (kind.count * np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(-1)).sum(-1)
        flat = W.reshape(B, C, k * k)
        Xy[:, :p, :p] += _over_cells(flat, kind.XX).reshape(B, p, p)
        Xy[:, p, :p] += _over_cells(flat, kind.XY)
        Xy[:, p, p] += _over_cells(flat, kind.YY[..., None])[:, 0]
        if kind.left_out is not None:
            out = kind.left_out
            own = out.Xy.swapaxes(-1, -2) @ W[out.replicate, out.kind] @ out.Xy
            np.subtract.at(Xy, out.replicate, own)
    Xy[:, :p, p] = Xy[:, p, :p]
    solution = solve_Xy(logdet, Xy)
    df = replicates.rows - (p if restricted else 0)
    sigma2, C_x = problem.criterion.sigma2_of(solution.r2, df), solution.information_inverse
    value = logdet + problem.criterion.of_errors(solution.r2, df) + (solution.logdet_X if restricted else 0.0)
    value = np.where(np.isfinite(value) & (solution.r2 > 0), value, np.inf)
    G, m, size = structure.groups, structure.covariance.q, structure.covariance.size
    logdets, squares = np.zeros((B, G, m, m)), np.zeros((B, G, m, m))
    alpha = solution.alpha
    outer = (alpha[:, :, None] * alpha[:, None, :]).reshape(B, p * p)
    for kind, W in zip(replicates.kinds, inverses, strict=True):
        C, k = kind.block.shape
        h = (_over_columns(outer, kind.XX) - 2.0 * _over_columns(alpha, kind.XY) + kind.YY).reshape(B, C, k, k)
        g = _over_columns(C_x.reshape(B, p * p), kind.XX).reshape(B, C, k, k) if restricted else None
        if kind.left_out is not None:
            out = kind.left_out
            X, at = out.Xy[..., :p], (out.replicate, out.kind)
            e = out.Xy[..., p] - (X @ alpha[out.replicate][..., None])[..., 0]
            np.subtract.at(h, at, e[:, :, None] * e[:, None, :])
            if g is not None:
                np.subtract.at(g, at, X @ C_x[out.replicate] @ X.swapaxes(-1, -2))
        square = W @ h @ W
        own = kind.count[:, :, None, None] * W
        if g is not None:
            own -= W @ g @ W
        assert kind.block.place is not None
        for c, (place, group) in enumerate(zip(kind.block.place, kind.block.group[:, 0], strict=True)):
            where = np.ix_(np.arange(B), [group], place, place)
            logdets[where] += own[:, c][:, None]
            squares[where] += square[:, c][:, None]
    sets = np.concatenate([np.ones((B, 1)), x], axis=1).reshape(B, G, size)
    dR = structure.covariance.matrix_derivative(sets)
    slopes = [(dR * part[:, :, None]).sum((-1, -2)).reshape(B, G * size)[:, 1:] for part in (logdets, squares)]
    return Points(value, slopes[0] - slopes[1] / sigma2[:, None], sigma2, alpha, C_x, -slopes[1], solution.r2)


def _over_cells(W: Array, XX: Array) -> Array:
    """sum over kinds and cells of W (B, C, K) times XX (B or 1, C, K, z): (B, z)."""
    if len(XX) == 1:
        return np.asarray(W.reshape(len(W), -1) @ XX.reshape(-1, XX.shape[-1]))
    return np.asarray((W[:, :, None] @ XX).sum((1, 2)))


def _over_columns(Q: Array, XX: Array) -> Array:
    """XX (B or 1, C, K, z) times Q (B, z): (B, C, K)."""
    if len(XX) == 1:
        return np.asarray((Q @ XX.reshape(-1, XX.shape[-1]).T).reshape(len(Q), *XX.shape[1:3]))
    return np.asarray((XX @ Q[:, None, :, None])[..., 0])


# -- the search ----------------------------------------------------------------------------------------------------------------------------


def descend(problem: Problem, replicates: ReplicateSums, start: Array, restricted: bool, tolerance: float = EXACT_DECREASE) -> BatchFits:
    """Fit all replicates from x = start; those that do not settle are fitted by themselves."""
    B = replicates.size
    x = np.tile(start, (B, 1))
    inverse = np.tile(inverse_newton_matrix(problem.criterion, start, restricted, FLATTEST), (B, 1, 1))
    lost = np.zeros(B, bool)

    def at(rows: Codes, where: Array) -> Points:
        return evaluate(problem, replicates.part(rows), where, restricted)

    def hopeless(point: Points) -> NDArray[np.bool_]:
        lost[:] = _without_rank(point.C)
        return lost

    rule = replace(RULE, decrease=tolerance)
    ends = lowest_ends(problem, restricted, at, descend_together(at, x, inverse, rule, hopeless), rule)
    point = ends.point
    # what has stalled, or used up its steps, is believed where next to nothing can be gained
    step = np.einsum("bij,bj->bi", ends.inverse, point.gradient)
    with np.errstate(invalid="ignore"):
        settled = ends.done | (np.isfinite(point.value) & (np.einsum("bi,bi->b", step, point.gradient) < 1e4 * tolerance))
    found = BatchFits(ends.x, point.sigma2, point.alpha, point.value, settled & ~lost)
    return _fit_unsettled(problem, replicates, found, np.flatnonzero(~found.settled & ~lost), start, restricted)


def _without_rank(C: Array) -> NDArray[np.bool_]:
    """Replicates whose columns are not independent: what is left of a direction is the rounding of sums that were taken away."""
    if not C.shape[-1]:
        return np.zeros(len(C), bool)
    finite = np.isfinite(C).all((1, 2))
    values = np.linalg.eigvalsh(np.where(finite[:, None, None], C, np.eye(C.shape[-1])))
    return ~finite | (values[:, 0] <= SINGULAR * values[:, -1])


def _fit_unsettled(problem: Problem, replicates: ReplicateSums, found: BatchFits, rows: Codes, start: Array, restricted: bool) -> BatchFits:
    """ReplicateSums that have not settled, by Newton's method each."""
    x, sigma2, alpha, value, settled = found.x, found.sigma2, found.alpha, found.value, found.settled
    for b in rows:
        try:
            outcome, _ = search(problem_of_replicate(problem, replicates.part(np.array([b]))), restricted, start)
        except (BayesLMMError, np.linalg.LinAlgError):
            continue
        point = outcome.point
        if outcome.converged and point.state is not None and np.isfinite(point.value):
            x[b], sigma2[b], alpha[b], value[b], settled[b] = point.x, point.sigma2, point.state.solution.alpha[0], point.value, True
    return BatchFits(x, sigma2, alpha, value, settled)


def problem_of_replicate(problem: Problem, one: ReplicateSums) -> Problem:
    """The problem of a single replicate."""
    kernel, p = problem.structured, problem.criterion.p
    assert kernel is not None
    pooled = []
    for kind in (kind.without_deletions() for kind in one.kinds):
        C, k = kind.block.shape
        G = np.empty((C, k * k, p + 1, p + 1))
        G[..., :p, :p] = kind.XX[0].reshape(C, k * k, p, p)
        G[..., p, :p] = G[..., :p, p] = kind.XY[0]
        G[..., p, p] = kind.YY[0]
        pooled.append(PooledBatch(kind.count[0], G.reshape(C, k * k, -1), kind.block))
    data = replace(kernel.data, rows=(), pooled=tuple(pooled), pooled_rows=())
    criterion = replace(problem.criterion, n=round(float(one.rows[0])), kernel=replace(kernel, data=data))
    return replace(problem, criterion=criterion)


def parts(B: int, cells: int) -> Iterator[Codes]:
    """ReplicateSums in parts that fit in memory together."""
    step = max(1, ELEMENTS // max(1, cells))
    for begin in range(0, B, step):
        yield np.arange(begin, min(begin + step, B))
