"""Many BFGS searches side by side, and the points from which another minimum is looked for once one has ended.

A likelihood of few rows, of few levels, or of separate terms for one grouping factor may have several maxima, the boundary among them.
Looked at are every combination of small and large terms, single directions of unstructured terms, and the moments of each level's own
line, which know of correlations that separate terms leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes
from bayeslmm.estimate.newton import minimise_criterion
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.parameters import TermParameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.starting_values import levels_of, levels_of_rows, line_moments, separate
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure, SpatialStructure, VisitStructure

SUFFICIENT_DECREASE = 1e-4
"""Share of the decrease that the slope promises that a step has to bring."""

ROUNDING = 1e-11
"""Change of the criterion, relative to its size, that may be rounding."""

LENGTH_CUT = 0.3
"""What the length of a step is multiplied by after one that is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchValues:
    """The criterion of t searches, each at an x of its own: value (t,) and gradient (t, size). Who needs more of a point adds fields."""

    value: Array
    gradient: Array


@dataclass(frozen=True, slots=True)
class DescentRule:
    """When a search is done, and which steps it takes.

    decrease : predicted decrease of the criterion at which a search is done
    iterations : steps at most
    longest : longest step, in the norm of x
    relative : whether that is relative to the norm of x where it is larger than 1
    shortest : length, relative to the quasi-Newton step, below which a search has stalled
    gradient_decides : whether a step whose decrease would drown in rounding is judged by the gradient, and not simply allowed to rise by it
    """

    decrease: float = 1e-9
    iterations: int = 40
    longest: float = 2.0
    relative: bool = True
    shortest: float = 1e-6
    gradient_decides: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class BatchDescent[Point: BatchValues]:
    """Where B searches ended: x (B, size), the criterion there, done (B,) whether by the rule; inverse (B, size, size) Hessians."""

    x: Array
    point: Point
    done: NDArray[np.bool_]
    inverse: Array


@dataclass(frozen=True, slots=True, eq=False)
class BatchFits:
    """x (B, size), sigma^2 (B,) and alpha (B, p) on standardized columns, the criterion (B,); settled : (B,) to be believed."""

    x: Array
    sigma2: Array
    alpha: Array
    value: Array
    settled: NDArray[np.bool_]


def descend_together[Point: BatchValues](
    at: Callable[[Codes, Array], Point],
    start: Array,
    inverse: Array,
    rule: DescentRule,
    hopeless: Callable[[Point], NDArray[np.bool_]] | None = None,
) -> BatchDescent[Point]:
    """Minimise from every row of start (B, size).

    at : the criterion of the searches named at a point x (t, size) of each; inverse : (B, size, size) approximate inverse Hessians at the
    start, positive definite; hopeless : which points (B,) of the start nothing is to be searched from
    """
    B, size = start.shape
    x, inverse, length = start.copy(), inverse.copy(), np.ones(B)
    point = at(np.arange(B), x)
    point = _copy(point)
    value, gradient = point.value, point.gradient
    done, left_alone = np.full(B, size == 0), np.zeros(B, bool) if hopeless is None else hopeless(point)
    for _ in range(rule.iterations):
        step = -np.einsum("bij,bj->bi", inverse, gradient)
        predicted = -0.5 * np.einsum("bi,bi->b", step, gradient)
        done |= np.abs(predicted) < rule.decrease
        rows = np.flatnonzero(~done & ~left_alone & np.isfinite(value) & (length > rule.shortest))
        if len(rows) == 0:
            break
        move = step[rows] * length[rows, None]
        longest = rule.longest * np.maximum(1.0, np.linalg.norm(x[rows], axis=1)) if rule.relative else rule.longest
        move *= np.minimum(1.0, longest / np.maximum(np.linalg.norm(move, axis=1), 1e-300))[:, None]
        try:
            trial = at(rows, x[rows] + move)
        except np.linalg.LinAlgError:
            length[rows] *= 0.5
            continue
        better = _is_better(trial, value[rows], gradient[rows], move, rule)
        taken, refused = rows[better], rows[~better]
        update_inverses(inverse, taken, move[better], trial.gradient[better] - gradient[taken])
        x[taken] += move[better]
        for field in fields(point):
            getattr(point, field.name)[taken] = getattr(trial, field.name)[better]
        length[taken] = 1.0
        length[refused] *= LENGTH_CUT
    return BatchDescent(x, point, done & np.isfinite(value), inverse)


def _copy[Point: BatchValues](point: Point) -> Point:
    """The same values, to be written over."""
    return type(point)(*(getattr(point, field.name).copy() for field in fields(point)))


def _is_better(trial: BatchValues, value: Array, gradient: Array, move: Array, rule: DescentRule) -> NDArray[np.bool_]:
    slope = np.einsum("bi,bi->b", gradient, move)
    rounding = ROUNDING * np.abs(value)
    with np.errstate(invalid="ignore"):
        if not rule.gradient_decides:
            return np.asarray(trial.value < value + SUFFICIENT_DECREASE * slope + rounding)
        falls = trial.value < value + SUFFICIENT_DECREASE * slope
        level = np.abs(trial.value - value) <= 4.0 * rounding
        level &= np.linalg.norm(trial.gradient, axis=1) < np.linalg.norm(gradient, axis=1)
        return np.where(np.abs(slope) < rounding, level, falls)


def update_inverses(inverse: Array, rows: Codes, s: Array, y: Array) -> None:
    """BFGS on the inverse matrices of some searches, left as they are where the curvature is not positive."""
    sy = np.einsum("bi,bi->b", s, y)
    Hy = np.einsum("bij,bj->bi", inverse[rows], y)
    yHy = np.einsum("bi,bi->b", y, Hy)
    good = sy > 1e-10 * np.sqrt(np.maximum(np.einsum("bi,bi->b", s, s) * np.einsum("bi,bi->b", y, y), 1e-300))
    rows, s, Hy, sy, yHy = rows[good], s[good], Hy[good], sy[good], yHy[good]
    outer = np.einsum("bi,bj->bij", s, Hy) / sy[:, None, None]
    inverse[rows] += (1.0 + yHy / sy)[:, None, None] * np.einsum("bi,bj->bij", s, s) / sy[:, None, None] - outer - outer.transpose(0, 2, 1)


def inverse_newton_matrix(criterion: Criterion, x: Array, restricted: bool, flattest: float = 1e-4) -> Array:
    """The inverse Newton matrix at x, made positive definite: no direction flatter than `flattest` of the steepest; or the identity."""
    hessian = criterion.at(x, restricted).hessian
    if hessian is None or not np.all(np.isfinite(hessian)) or not len(x):
        return np.eye(len(x))
    values, vectors = np.linalg.eigh(hessian)
    values = np.maximum(np.abs(values), flattest * float(np.abs(values).max(initial=1e-300)))
    return np.asarray((vectors / values) @ vectors.T)


CROWDED = 24
"""Rows for each covariance parameter below which a criterion often has several minima: the best of these points are searched from."""

SIZES = {1: (0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 5.0, 20.0), 2: (0.0, 0.3, 1.0, 6.0, 50.0), 3: (0.0, 0.5, 5.0)}
"""Relative standard deviations of one, two and three terms that are combined."""

ALONE = (0.0, 1.0, 5.0)
"""The same for more terms, one at a time and all together."""

DIRECTIONS = (0.5, 3.0)
"""The same for single columns of a term that has several."""


FEW = 6
"""How many those are."""

LEADING, EARLY, EARLY_STEPS, LATER = 24, 0.5, 12, 4
"""Where errors have parameters of their own, how many of them are searched from until no more than this is left to gain by the quadratic
model or so many steps are done, and how many of these to the end: the value at a start says little of where it leads."""

AWAY, ASIDE = 4.0, 4
"""Units of its axis by which a parameter of the errors is moved from where a search ended, and how many of these begin a search."""

WIDE = 40
"""How many searches begin far and wide besides, side by side, where parameters are more than a grid covers, and ..."""

BARE, SMALL = 10, 40
"""... rows for each covariance parameter are fewer than this, and columns of Z no more: they cost little then."""

HEATS = ((40, 16), (16, 16), (4, 16))
"""How many of these go on for how many steps."""

NEAR = 1e-6
"""Difference, relative to 1 and to the value, within which a search has come to an end that is known."""

SCOUTED, SCOUTED_STEPS = 1e-6, 40
"""Predicted decrease at which the end of such a search is compared with what is known already, and steps after which its last point is."""

SPREAD = (-1.3, 1.5)
"""Powers of ten of the sizes of the latter."""


SCATTERED_POINTS = 48
"""How many points of every parameter far and wide are tried where errors have parameters of their own."""

NEAR_AND_FAR = (0.3, 1.0, 2.0)
"""How far those of the errors are from the start, on their axes."""

BLOCK_WORK = 2e6
"""Sum of the cubes of the sizes of blocks of rows up to which an evaluation costs little."""


def is_crowded(problem: Problem) -> bool:
    """Whether rows are so few beside covariance parameters that several searches are called for; they cost little then.

    Errors without random effects or a variance function beside them seldom have a second maximum, unstructured ones hardly ever.
    """
    kernel, n = problem.structured, problem.criterion.n
    if kernel is None:
        return n < CROWDED * problem.random.size
    if _is_unstructured_alone(problem, kernel):
        return False
    alone = not (problem.random.size or kernel.variance.size)
    return n < (BARE if alone else CROWDED) * problem.size and _block_work(kernel) <= BLOCK_WORK


def _is_unstructured_alone(problem: Problem, kernel: BlockDiagonalKernel) -> bool:
    """Whether unstructured errors stand beside neither random effects nor a variance function."""
    structure = kernel.structure
    unstructured = isinstance(structure, GroupedStructure) and structure.covariance.name == "us"
    return unstructured and not (problem.random.size or kernel.variance.size)


def _block_work(kernel: BlockDiagonalKernel) -> float:
    """What an evaluation costs: the sum of the cubes of the sizes of blocks of rows."""
    return float(sum(float(batch.rows.shape[0]) * batch.rows.shape[1] ** 3 for batch in kernel.data.rows))


def _is_bare(problem: Problem) -> bool:
    """Whether searches begin far and wide besides."""
    columns = sum(len(t.group.levels) * t.covariance.q for t in problem.design.terms)
    return problem.structured is None and columns <= SMALL and problem.size > 2 and problem.criterion.n < BARE * problem.size


def plain_points(problem: Problem, x: Array) -> Array:
    """Points (t, size) that any search is compared with at its end, x: no random effects, and the moments of lines."""
    zero = x.copy()
    zero[: problem.random.size] = 0.0
    return np.array([zero, *_level_line_moments(problem)])


SCANNED = tuple(10.0 ** (0.5 * k) for k in range(-3, 6))
"""Sizes of random effects in units of the errors, .03 to 300, at which the criterion is looked at beside the end of a search."""

HEAVY_ENTRIES, HEAVIEST_ENTRIES = 1 << 14, 1 << 17
"""Entries of the Schur complement of crossed factors from which every other of these sizes has to do, and from which none is looked at:
there a few values cost what the whole search does."""


@dataclass(frozen=True, slots=True, eq=False)
class ScaledLine:
    """Points (t, size) on a line along the sd of some columns of a term's effects.

    columns : none of errors, of which the line is along the sd of what the visits of a subject share, or along one parameter
    sizes : (t,) their sds, or the parameter; own : that of the point which the line goes through
    """

    term: TermParameters | None
    columns: Array
    own: float
    sizes: Array
    points: Array

    def other_valleys(self, values: Array, value: float) -> list[int]:
        """Which points lie in another valley than the one the line goes through; values : (t,) theirs; value : that one's."""
        place = int(np.searchsorted(self.sizes, self.own))
        low = np.flatnonzero(_are_valleys(np.insert(values, place, value)[None])[0])
        return [int(i - (i > place)) for i in low if i != place]


def scaled_lines(problem: Problem, x: Array, unit: float, *, sparse: bool = False) -> list[ScaledLine]:
    """Lines through x along the size of each term's effects, and of each of its columns.

    A covariate whose slope between levels is another than within them has a minimum for each: effects small beside the errors, where the
    levels tell of the slope, or large, where the rows do. How many rows and levels there are does not matter.
    unit : the size of the errors in units of sigma; sparse : every other size of single columns
    """
    kernel = problem.criterion.kernel
    rest = kernel.cross.rest if isinstance(kernel, RandomEffectsKernel) else None
    entries = 0 if rest is None else rest.flat
    if problem.is_iterative or entries > HEAVIEST_ENTRIES:
        return []
    heavy = entries > HEAVY_ENTRIES
    every, some = np.array(SCANNED) * unit, np.array(SCANNED[1::2]) * unit
    lines = []
    for term in problem.random.terms:
        q, T = term.covariance.q, term.covariance.factor(x[term.part])
        D = T @ T.T
        for columns in [np.arange(q), *(np.array([j]) for j in range(q if q > 1 else 0))]:
            own = float(np.sqrt(np.trace(D[np.ix_(columns, columns)]) / len(columns)))
            sizes = some if heavy or (sparse and len(columns) == 1) else every
            points = np.tile(x, (len(sizes), 1))
            for moved, size in zip(points, sizes, strict=True):
                scales = np.ones(q)
                scales[columns] = size / own if own > 0.0 else 0.0
                there = scales[:, None] * D * scales
                if own == 0.0:
                    there[columns, columns] = size**2
                moved[term.part] = term.covariance.from_matrix(there)
            lines.append(ScaledLine(term, columns, own, sizes, points))
    return lines


def shared_line(problem: Problem, x: Array) -> list[ScaledLine]:
    """The line along the sd of what the visits of a subject share, beside errors of variance 1 that they do not; empty where none is.

    It passes by x, whose structure need not have such members: the nearest ones stand for them, with the sds of x.
    """
    kernel = problem.structured
    structure = None if kernel is None else kernel.structure
    if kernel is None or not isinstance(structure, VisitStructure) or problem.random.size or structure.covariance.name == "us":
        return []  # effects beside errors have lines of their own, and unstructured errors hardly ever a second minimum
    covariance = structure.covariance
    R = covariance.matrix(structure.split_groups(x[kernel.residual_part]))
    sds, m = np.sqrt(np.einsum("gii->gi", R)), covariance.q
    if m < 2 or not (sds > 0.0).all():
        return []
    C = R / (sds[:, :, None] * sds[:, None, :])
    shared = min(max(float((C.sum(axis=(1, 2)) - m).mean()) / (m * (m - 1)), 0.0), 1.0 - 1e-12)
    sizes = np.array(SCANNED[1::2])
    points = np.tile(x, (len(sizes), 1))
    for moved, size in zip(points, sizes, strict=True):
        member = (np.eye(m) + size**2) / (1.0 + size**2)
        sets = np.array([covariance.from_matrix(own[:, None] * member * own) for own in sds])
        moved[kernel.residual_part] = structure.join_groups(sets)[1]
    return [ScaledLine(None, np.empty(0), float(np.sqrt(shared / (1.0 - shared))), sizes, points)]


STEPS_OF_ERRORS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Units of its axis, to either side, at which a parameter of the errors is looked at beside the end of a search."""


def error_lines(problem: Problem, x: Array) -> list[ScaledLine]:
    """Lines through x along each parameter of the errors; empty where they seldom have a second minimum, or values cost much.

    A range or the growth of a variance may have two minima however many the rows: a few rows of small errors tell of one, the rest of
    another.
    """
    kernel = problem.structured
    if kernel is None or _is_unstructured_alone(problem, kernel) or _block_work(kernel) > BLOCK_WORK:
        return []
    steps = np.array([*(-step for step in reversed(STEPS_OF_ERRORS)), *STEPS_OF_ERRORS])
    lines = []
    for k in range(problem.random.size, problem.size):
        sizes = x[k] + steps * problem.axis_units[k]
        points = np.tile(x, (len(sizes), 1))
        points[:, k] = sizes
        lines.append(ScaledLine(None, np.empty(0), float(x[k]), sizes, points))
    return lines


def valleys_aside(problem: Problem, restricted: bool, x: Array, value: float, unit: float) -> list[Array]:
    """Points of lines through the end of a search, x with its value, that lie in another valley than it does."""
    sizes, errors = scaled_lines(problem, x, unit) + shared_line(problem, x), error_lines(problem, x)
    lines = sizes + errors
    if not lines:
        return []
    values = problem.criterion.values(np.concatenate([line.points for line in lines]), restricted)
    found: list[Array] = []
    aside: list[tuple[float, Array]] = []
    for k, (line, own) in enumerate(zip(lines, np.split(values, _ends_of(lines)), strict=True)):
        others = line.other_valleys(own, value)
        if k < len(sizes):
            found += [line.points[i] for i in others]
        else:
            aside += [(float(own[i]), line.points[i]) for i in others]
    # a line of errors that levels off has a valley at its end that leads nowhere: the lowest of all lines are tried
    return found + [point for _, point in sorted(aside, key=lambda valley: valley[0])[:ASIDE]]


def _ends_of(lines: Sequence[ScaledLine]) -> list[int]:
    """Where the values of all but the last line end."""
    return np.cumsum([len(line.sizes) for line in lines[:-1]]).astype(int).tolist()


def _are_valleys(values: Array) -> NDArray[np.bool_]:
    """Which of the values (B, t) along a line are lower than both of their neighbours."""
    walls = np.full((len(values), 1), np.inf)
    line = np.concatenate([walls, np.where(np.isfinite(values), values, np.inf), walls], axis=1)
    return np.asarray((line[:, 1:-1] < line[:, :-2]) & (line[:, 1:-1] < line[:, 2:]))


def _other_valleys(lines: Sequence[ScaledLine], values: Array, x: Array) -> NDArray[np.bool_]:
    """Which points of lines lie in another valley than the ends x (B, size) of searches; values : (B, points of all lines)."""
    found = []
    for line, own in zip(lines, np.split(values, _ends_of(lines), axis=1), strict=True):
        assert line.term is not None
        T = line.term.covariance.factor(x[:, line.term.part])
        sd = np.sqrt((T[:, line.columns] ** 2).sum(axis=(1, 2)) / len(line.columns))
        steps = np.abs(np.log(line.sizes) - np.log(np.maximum(sd, line.sizes[0]))[:, None])
        valleys = _are_valleys(own)
        nearest = np.argmin(np.where(valleys, steps, np.inf), axis=1)
        valleys[np.arange(len(x)), nearest] = False
        found.append(valleys)
    return np.concatenate(found, axis=1)


def residual_points(problem: Problem, x: Array) -> Array:
    """Points (t, size) of errors whose likelihood often has several maxima, x otherwise: every set of parameters at the same one."""
    kernel = problem.structured
    structure = None if kernel is None else kernel.structure
    if kernel is None or not isinstance(structure, GroupedStructure):
        return np.empty((0, problem.size))
    if isinstance(structure, SpatialStructure) and not (problem.random.size or len(problem.nuggets)):
        return np.empty((0, problem.size))  # the start is the best of many ranges
    shapes = structure.covariance.other_starts()
    found = np.tile(x, (len(shapes), 1))
    for moved, shape in zip(found, shapes, strict=True):
        sets = structure.split_groups(x[kernel.residual_part]).copy()
        sets[:, 1:] = shape[1:]
        moved[kernel.residual_part] = sets.ravel()[1:]
    return found


def trial_points(problem: Problem, x: Array, unit: float) -> Array:
    """More of them where rows are few, (t, size); unit : the size of the errors in units of sigma."""
    terms = problem.random.terms
    found = [problem.start, *_level_line_moments(problem)]
    if problem.structured is not None:
        found += list(_scatter(problem, unit))
    count = len(terms)
    sizes = product(SIZES[count], repeat=count) if count in SIZES else _large_term_patterns(count) if count else ()
    for own in sizes:
        moved = x.copy()
        for term, size in zip(terms, own, strict=True):
            moved[term.part] = term.covariance.from_matrix((unit * size) ** 2 * np.eye(term.covariance.q))
        found.append(moved)
    for term in terms:
        q = term.covariance.q
        for column, size in product(range(q if q > 1 else 0), DIRECTIONS):
            moved = x.copy()
            D = np.zeros((q, q))
            D[column, column] = (unit * size) ** 2
            moved[term.part] = term.covariance.from_matrix(D)
            found.append(moved)
    return np.array(found)


def points_aside(problem: Problem, restricted: bool, x: Array) -> Array:
    """Points (t, size) beside the end of a search, x: one parameter of the errors far from it, those of the lowest criterion."""
    moves = (AWAY * problem.axis_units * np.eye(problem.size))[problem.random.size :]
    if not len(moves):
        return moves
    found = np.concatenate([x - moves, x + moves])
    values = problem.criterion.values(found, restricted)
    return found[[i for i in np.argsort(values, kind="stable")[:ASIDE] if np.isfinite(values[i])]]


def _scatter(problem: Problem, unit: float) -> Array:
    """(SCATTERED_POINTS, size): random effects of any size, and errors near the start and far."""
    rng, errors = np.random.default_rng(0), slice(problem.random.size, problem.size)
    found = rng.normal(size=(SCATTERED_POINTS, problem.size)) * unit * 10.0 ** rng.uniform(*SPREAD, (SCATTERED_POINTS, problem.size))
    away = rng.choice(NEAR_AND_FAR, (SCATTERED_POINTS, 1)) * rng.normal(size=(SCATTERED_POINTS, problem.size)) * problem.axis_units
    found[:, errors] = (problem.start + away)[:, errors]
    return found


CONTINUED_ENDS = 3
"""How many lower points than the end of a search are gone on from."""


def lowest_ends[Point: BatchValues](
    problem: Problem,
    restricted: bool,
    at: Callable[[Codes, Array], Point],
    ends: BatchDescent[Point],
    rule: DescentRule,
    values_at: Callable[[Codes, Array], Array] | None = None,
) -> BatchDescent[Point]:
    """Where searches side by side have ended, or lower: compared with other points as a search alone is, and begun from the best of them.

    problem : of the design of all, with any response; at, rule : those of the searches; values_at : values alone, where these cost less
    None is done where starts far and wide are called for: these cost no less side by side than alone.
    """
    if _is_bare(problem):
        return replace(ends, done=np.zeros_like(ends.done))
    B, known = len(ends.x), ends.point.value
    crowded, begin = is_crowded(problem), problem.start
    trial = trial_points(problem, begin, 1.0) if crowded else plain_points(problem, begin)
    lines = scaled_lines(problem, begin, 1.0, sparse=True)
    trial = np.concatenate([trial, residual_points(problem, begin), *(line.points for line in lines)])
    every = np.arange(B)
    each = (np.tile(x, (B, 1)) for x in trial)
    values = np.stack([at(every, x).value if values_at is None else values_at(every, x) for x in each], axis=1)
    values[~np.isfinite(values)] = np.inf
    if not crowded:
        worth = _is_lower(values, known[:, None])
        if lines:
            scanned = sum(len(line.sizes) for line in lines)
            worth[:, -scanned:] |= _other_valleys(lines, values[:, -scanned:], ends.x)
        values[~worth] = np.inf
    best = np.argsort(values, axis=1, kind="stable")[:, : FEW if crowded else CONTINUED_ENDS]
    inverses: dict[int, Array] = {}
    x, point, done, inverse = ends.x.copy(), _copy(ends.point), ends.done.copy(), ends.inverse.copy()
    for chosen in best.T:
        value = values[np.arange(B), chosen]
        rows = np.flatnonzero(np.isfinite(value))
        if not len(rows):
            break
        for k in np.setdiff1d(chosen[rows], list(inverses)).tolist():
            inverses[k] = inverse_newton_matrix(problem.criterion, trial[k], restricted)
        found = descend_together(_of_some(at, rows), trial[chosen[rows]], np.array([inverses[int(k)] for k in chosen[rows]]), rule)
        lower = _is_lower(found.point.value, point.value[rows])
        moved = rows[lower]
        x[moved], done[moved], inverse[moved] = found.x[lower], found.done[lower], found.inverse[lower]
        for field in fields(point):
            getattr(point, field.name)[moved] = getattr(found.point, field.name)[lower]
    return BatchDescent(x, point, done, inverse)


def _is_lower(value: Array, known: Array) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(value < known - ROUNDING * np.maximum(1.0, np.abs(known)))


def _of_some[Point: BatchValues](at: Callable[[Codes, Array], Point], rows: Codes) -> Callable[[Codes, Array], Point]:
    return lambda own, x: at(rows[own], x)


def search_ends(problem: Problem, restricted: bool, known: float, trial: Array, values: Array) -> tuple[Array, Array]:
    """Where searches from the best trial points, and from far and wide, end: x (t, size), values (t,); known : the lowest so far."""
    several = problem.structured is not None
    starts = [trial[i] for i in np.argsort(values)[: LEADING if several else FEW] if np.isfinite(values[i])]
    if several:
        early = [minimise_criterion(problem, restricted, x, EARLY, EARLY_STEPS).point for x in starts]
        starts = [point.x for point in sorted(early, key=lambda point: point.value)[:LATER]]
    points = [minimise_criterion(problem, restricted, x, SCOUTED, SCOUTED_STEPS).point for x in starts]
    found, lowest = [point.x for point in points], [point.value for point in points]
    if _is_bare(problem):
        ends = _descend_from_far(problem, restricted, known)
        found, lowest = [*found, *ends.x], [*lowest, *ends.point.value]
    return np.array(found), np.array(lowest)


def _descend_from_far(problem: Problem, restricted: bool, known: float) -> BatchDescent[BatchValues]:
    rng, size = np.random.default_rng(0), problem.size
    start = rng.normal(size=(WIDE, size)) * 10.0 ** rng.uniform(*SPREAD, (WIDE, size))

    def at(_: Codes, x: Array) -> BatchValues:
        return BatchValues(*problem.criterion.values_and_gradients(x, restricted))

    # a step in proportion to the point: far out the criterion is nearly level
    inverse = np.einsum("bi,ij->bij", (0.05 + start**2) / problem.criterion.n, np.eye(size))
    ends = BatchDescent(start, BatchValues(np.zeros(WIDE), np.zeros_like(start)), np.zeros(WIDE, bool), inverse)
    for count, steps in HEATS:
        # what has come to where the search ended already goes no further
        apart = np.flatnonzero((np.abs(ends.point.value - known) > NEAR * max(1.0, abs(known))) & ~ends.done)
        leading = apart[np.argsort(ends.point.value[apart], kind="stable")[:count]]
        if not len(leading):
            break
        ends = descend_together(at, ends.x[leading], ends.inverse[leading], DescentRule(iterations=steps))
    return ends


def _large_term_patterns(count: int) -> Iterator[tuple[float, ...]]:
    for size in ALONE:
        yield (size,) * count
        for i in range(count):
            yield tuple(size if i == j else 0.3 for j in range(count))


def _level_line_moments(problem: Problem) -> list[Array]:
    """x of the moments of each level's own line, where the terms of a factor leave correlations of its columns out."""
    found, kernel = [], problem.criterion.kernel
    for f in separate(problem.random):
        factor = problem.random.factors[f]
        if isinstance(kernel, RandomEffectsKernel):
            levels, squares = levels_of(kernel.cross, f), float(kernel.cross.Xy[-1, -1])
        else:
            assert isinstance(kernel, BlockDiagonalKernel)
            data = kernel.data
            levels, squares = levels_of_rows(data, factor.terms), float(data.Xy[:, -1] @ data.Xy[:, -1])
        for D in line_moments(levels, squares, problem.criterion.df(restricted=True)):
            x = problem.start.copy()
            for i, columns in zip(factor.terms, factor.slices, strict=True):
                term = problem.random.terms[i]
                x[term.part] = term.covariance.from_matrix(D[columns, columns])
            if np.isfinite(x).all():
                found.append(x)
    return found
