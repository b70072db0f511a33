"""Densities of rows held out given all others and phi, alpha and beta integrated out: whole levels, or any rows.

Where V is block diagonal by level, log |V0| and [X y]'V0^-1 [X y] are sums over levels, so what is left without one is a difference: an
r x r matrix for each level and draw, and no other design, density or row is looked at. Where levels are tied together (crossed and nested
factors, relationship matrices) cross-products less those of the level give the density of the rest, one level at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import LeaveOut
from bayeslmm._validation import require_name, require_one_of
from bayeslmm.bayes.log_posterior.density import Density, arrange_density, repeat_solution
from bayeslmm.bayes.posterior.predict import log_likelihood
from bayeslmm.data.design import Design
from bayeslmm.errors import InferenceError, SpecificationError
from bayeslmm.likelihood.case_deletion import COLLINEAR_EIGENVALUE, DowndatedSums
from bayeslmm.likelihood.kernel import TUNING, Solution, solve_Xy
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, pool_levels
from bayeslmm.likelihood.random_effects.level_blocks import factor_unrolled
from bayeslmm.likelihood.structured.blocks import RowBatch
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel
from bayeslmm.likelihood.structured.pooled import IdenticalSubjects, PooledSubjectsKernel, multiply_by_kind
from bayeslmm.likelihood.threads import one_thread

if TYPE_CHECKING:
    from bayeslmm.bayes.posterior.data import PosteriorData


PIECE_ELEMENTS = 1_000_000
"""Draws x levels x r^2 worked on at once."""


@dataclass(frozen=True, slots=True, eq=False)
class LevelShares:
    """What some levels add at some draws: log |V0| (t, k) and [X y]'V0^-1 [X y] (t, k, r, r)."""

    draws: slice
    levels: slice
    logdet: Array
    Xy: Array


@dataclass(frozen=True, slots=True, eq=False)
class LevelRows:
    """The rows by level.

    order : positions of the rows, sorted by level; bounds : (K + 1,) where each level begins; Xy : (n, r) standardized, in that order
    weights : (n,) in that order, or None
    """

    codes: Codes
    order: Codes
    bounds: Codes
    Xy: Array
    weights: Array | None

    @classmethod
    def of(cls, target: Density, codes: Codes, size: int) -> LevelRows:
        design, c = target.problem.design, target.problem.standardization
        order = np.argsort(codes, kind="stable")
        everything = slice(0, design.nobs)
        weights = c.weights(design, everything)
        bounds = np.searchsorted(codes[order], np.arange(size + 1))
        return cls(codes, order, bounds, c.Xy(design, everything)[order], None if weights is None else weights[order])

    @property
    def size(self) -> int:
        return len(self.bounds) - 1

    def squares(self, levels: slice) -> Array:
        """[X y]'W[X y] of some levels, (k, r, r)."""
        begin, end = self.bounds[levels.start], self.bounds[levels.stop]
        rows = self.Xy[begin:end]
        left = rows if self.weights is None else rows * self.weights[begin:end, None]
        r = rows.shape[1]
        starts = self.bounds[levels.start : levels.stop] - begin
        return np.asarray(np.add.reduceat((left[:, :, None] * rows[:, None, :]).reshape(-1, r * r), starts).reshape(-1, r, r))

    def log_weights(self) -> Array:
        """Sum of log weights of every level, (K,)."""
        return np.zeros(self.size) if self.weights is None else np.add.reduceat(np.log(self.weights), self.bounds[:-1])


def level_pieces(target: Density, rows: LevelRows, x: Array) -> Iterator[LevelShares] | None:
    """What every level adds at x (t, size), piece by piece; None where levels are not independent."""
    kernel = target.kernel
    if isinstance(kernel, RandomEffectsKernel):
        cross = kernel.cross
        if cross.first is None or cross.rest is not None or cross.first.C.ndim != 3 or cross.factors[0].root is not None:
            return None
        codes = target.problem.design.terms[cross.factors[0].terms[0]].group.codes
        if cross.first.q > TUNING.unrolled_columns or not np.array_equal(codes, rows.codes):
            return None
        return _independent_pieces(kernel, rows, x)
    assert isinstance(target.pooled, PooledSubjectsKernel)
    blocks = target.pooled.all_rows()
    if any((rows.codes[batch.rows] != rows.codes[batch.rows[:, :1]]).any() for batch, _ in blocks):
        return None
    return _structured_pieces(target.pooled, blocks, rows, x)


def _independent_pieces(kernel: RandomEffectsKernel, rows: LevelRows, x: Array) -> Iterator[LevelShares]:
    first = kernel.cross.first
    assert first is not None
    r = rows.Xy.shape[1]
    width = max(1, PIECE_ELEMENTS // (r * r * len(x)))
    T = kernel.parameters.blocks(x)[0]
    for begin in range(0, rows.size, width):
        levels = slice(begin, min(begin + width, rows.size))
        squares = rows.squares(levels)
        step = max(1, PIECE_ELEMENTS // (r * r * (levels.stop - levels.start)))
        for at in range(0, len(x), step):
            draws = slice(at, min(at + step, len(x)))
            det, W = factor_unrolled(first.A[..., levels], T[draws])
            Y = [sum(W[a][b][:, None] * first.C[b, :, levels] for b in range(first.q)) for a in range(first.q)]
            lost = sum(np.einsum("trk,tsk->tkrs", own, own) for own in Y)
            yield LevelShares(draws, levels, np.log(det), squares - lost)


def _structured_pieces(
    patterns: PooledSubjectsKernel, blocks: list[tuple[RowBatch, IdenticalSubjects]], rows: LevelRows, x: Array
) -> Iterator[LevelShares]:
    r, log_scale = rows.Xy.shape[1], patterns.kernel.data.log_weight_scale
    step = max(1, PIECE_ELEMENTS // (r * r * rows.size + 2 * len(rows.codes) * r))
    for begin in range(0, len(x), step):
        draws = slice(begin, min(begin + step, len(x)))
        t = draws.stop - begin
        logdet, Xy = np.zeros((rows.size, t)), np.zeros((rows.size, t, r, r))
        for part in patterns.invert_blocks(blocks, x[draws]):
            own = -np.linalg.slogdet(part.inverse)[1][:, part.kind]
            if log_scale is not None:
                own = own + 2.0 * log_scale[part.rows].sum(-1)
            products = part.U.swapaxes(-1, -2) @ multiply_by_kind(part.inverse, part.U[None], part.kind)
            level = rows.codes[part.rows[:, 0]]
            np.add.at(logdet, level, own.T)
            np.add.at(Xy, level, products.swapaxes(0, 1))
        yield LevelShares(draws, slice(0, rows.size), logdet.T, Xy.swapaxes(0, 1))


def independent_level_densities(
    target: Density, phi: Array, codes: Codes, size: int, done: Callable[[int], None]
) -> tuple[Array, Codes] | None:
    """(S, K), and the levels without which columns of X are collinear; None where levels are tied together.

    Where every coefficient is flat nothing is predicted for those levels: NaN. done : told how many more are finished
    """
    rows = LevelRows.of(target, codes, size)
    problem, (x, s) = target.problem, target.kernel_points(phi)
    pieces = level_pieces(target, rows, x)
    if pieces is None:
        return None
    whole = _profile_all(target, x)
    before = target.integrate(whole, s**2, phi).value
    deficient = _deficient(rows)
    c, counted = problem.standardization, isinstance(target.kernel, BlockDiagonalKernel)
    each = np.diff(rows.bounds) * (np.log(2.0 * np.pi) + 2.0 * np.log(c.y_scale)) - (0.0 if counted else rows.log_weights())
    fine = np.setdiff1d(np.arange(size), deficient) if target.alpha.flat else np.arange(size)
    found, finished = np.full((len(phi), size), np.nan), 0.0
    with one_thread(problem.criterion.width), np.errstate(all="ignore"):
        for piece in pieces:
            kept = np.flatnonzero(np.isin(np.arange(piece.levels.start, piece.levels.stop), fine))
            t, k, r = len(piece.logdet), len(kept), rows.Xy.shape[1]
            if k:
                logdet = (whole.logdet[piece.draws, None] - piece.logdet[:, kept]).ravel()
                Xy = (whole.Xy[piece.draws, None] - piece.Xy[:, kept]).reshape(t * k, r, r)
                # a prior makes up for columns that are collinear without the level, and only the sums are looked at
                rest = solve_Xy(logdet, Xy) if target.alpha.flat else Solution(logdet, Xy, Xy[:, :0, :0], logdet, Xy[:, :0, 0], logdet)
                s2 = np.repeat(s[piece.draws] ** 2, k)
                after = target.integrate(rest, s2, np.repeat(phi[piece.draws], k, axis=0)).value.reshape(t, k)
                at = piece.levels.start + kept
                own = each[at] + np.diff(rows.bounds)[at] * np.log(s[piece.draws, None] ** 2)
                found[piece.draws, at] = -0.5 * (before[piece.draws, None] - after + own)
            more = len(piece.logdet) * piece.logdet.shape[1] / len(phi)
            done(int(finished + more) - int(finished))
            finished += more
    return found, deficient


def _profile_all(target: Density, x: Array) -> Solution:
    """The profile at all x, in batches."""
    step, parts = target.value_batch, []
    with one_thread(target.problem.criterion.width):
        for begin in range(0, len(x), step):
            own = x[begin : begin + step]
            parts.append(repeat_solution(target.kernel.solve(own) if target.pooled is None else target.pooled.solve(own), len(own)))
    logdets, products = [part.logdet for part in parts], [part.Xy for part in parts]
    return solve_Xy(np.concatenate(logdets), np.concatenate(products))


def _deficient(rows: LevelRows) -> Codes:
    """Levels without which the columns of X are not independent."""
    p, r = rows.Xy.shape[1] - 1, rows.Xy.shape[1]
    left = rows.Xy if rows.weights is None else rows.Xy * rows.weights[:, None]
    total, found = left[:, :p].T @ rows.Xy[:, :p], []
    step = max(1, PIECE_ELEMENTS // (r * r))
    for begin in range(0, rows.size if p else 0, step):
        levels = slice(begin, min(begin + step, rows.size))
        rest = total - rows.squares(levels)[:, :p, :p]
        smallest = np.linalg.eigvalsh(rest)[:, 0]
        found.append(begin + np.flatnonzero(smallest < COLLINEAR_EIGENVALUE * np.trace(rest, axis1=1, axis2=2) / p))
    return np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64)


class DowndatedDensity:
    """The density of all rows but some, from sums over all rows less theirs; made once for many sets of rows."""

    def __init__(self, target: Density, kernel: RandomEffectsKernel) -> None:
        problem = target.problem
        self.target = target
        self.sums = DowndatedSums.of(replace(problem, criterion=replace(problem.criterion, kernel=kernel)))

    def without(self, out: Codes) -> Density | None:
        """None where the rest does not tell the columns of X apart."""
        problem = self.sums.without(out)
        if problem is None:
            return None
        taken = 0.0 if self.sums.weights is None else float(np.log(self.sums.weights[out]).sum())
        criterion = replace(problem.criterion, fixed_logdet=problem.criterion.fixed_logdet + taken)
        less = replace(problem, criterion=criterion)
        kernel = criterion.kernel
        assert isinstance(kernel, RandomEffectsKernel)
        return replace(self.target, problem=less, alpha=replace(self.target.alpha, problem=less), many=None, pooled=pool_levels(kernel))


COLLINEAR_CONDITION = 1e-10
"""Columns of X nearer to collinear than this are not told apart."""


def density_without(target: Density, out: Codes, label: str) -> Density:
    """The density given all rows but `out`.

    Raises InferenceError where the rows left do not determine alpha under a flat prior.
    """
    problem = target.problem
    design = problem.design.take(np.setdiff1d(np.arange(problem.design.nobs), out))
    require_determined(target, design, label)
    kernel, held = problem.structured, problem.held_fitted
    try:
        less = build_problem(design, None if held is None else np.delete(held, out))
    except np.linalg.LinAlgError:
        raise InferenceError(
            f"without {label} columns of X are collinear, and the rest cannot be sampled by itself",
            label,
            "leave the column out, use exact=False, or folds that keep every level of a factor",
        ) from None
    own = less.criterion.kernel
    if kernel is not None and isinstance(own, BlockDiagonalKernel):
        # a spatial structure measures ranges in steps of the whole data
        less = replace(less, criterion=replace(less.criterion, kernel=replace(own, structure=kernel.structure)))
    return on_other_problem(target, less)


def on_other_problem(target: Density, problem: Problem) -> Density:
    """The same axes and priors over another problem of the same columns, which are standardized in another way."""
    terms = tuple(replace(block, term=term) for block, term in zip(target.layout.terms, problem.random.terms, strict=True))
    found = arrange_density(problem, target.priors, replace(target.layout, terms=terms))
    # a prior of the intercept of centred columns stays that of the columns of all rows
    return replace(found, volume=target.volume, alpha=replace(target.alpha, problem=problem))


def require_determined(target: Density, design: Design, label: str) -> None:
    """Raise InferenceError where the rows left, `design`, do not determine alpha under its flat priors; label : what was left out."""
    loose = [i for i, prior in enumerate(target.alpha.priors) if prior.family == "flat"]
    if not loose:
        return
    X = design.X[:, loose]
    size = np.linalg.norm(X, axis=0)
    smallest = np.linalg.svd(X / np.where(size > 0, size, 1.0), compute_uv=False)[-1] if len(X) >= len(loose) else 0.0
    if smallest < COLLINEAR_CONDITION or np.any(size == 0):
        raise InferenceError(
            f"without {label} the coefficients are not determined, and under a flat prior nothing is predicted for it",
            label,
            'give alpha a proper prior: priors=Priors(alpha="normal")',
        )


def predictive_densities(target: Density, less: Density, phi: Array, full: Array) -> Array:
    """log p(y_out | y_in, phi) of every phi; `full` is log p(y | phi)."""
    found = np.empty(len(phi))
    with one_thread(less.problem.criterion.width), np.errstate(invalid="ignore"):
        for begin in range(0, len(phi), target.batch):
            part = slice(begin, begin + target.batch)
            found[part] = full[part] - less.log_likelihood(phi[part])
    return found


def log_likelihoods(target: Density, phi: Array) -> Array:
    """log p(y | phi) of every phi, in batches."""
    with one_thread(target.problem.criterion.width):
        parts = [target.log_likelihood(phi[begin : begin + target.batch]) for begin in range(0, len(phi), target.batch)]
    return np.concatenate(parts)


@np.errstate(all="ignore")
def log_mean(values: Array, log_weights: Array) -> float:
    """log of a weighted mean of exponentials; weights sum to 1, and a value that does not exist counts 0."""
    terms = np.where(np.isfinite(values) & np.isfinite(log_weights), values + log_weights, -np.inf)
    top = float(terms.max())
    return top + float(np.log(np.exp(terms - top).sum())) if np.isfinite(top) else -np.inf


LEFT_OUT_ELEMENTS = 40_000_000
"""Draws x units whose densities are kept."""


def held_out(post: PosteriorData, by: str, group: str | None) -> tuple[list[Codes], list[Any], str]:
    """Rows and labels of what is left out, one after the other, and what it is called."""
    require_one_of(by, get_args(LeaveOut), "by")
    if by == "group":
        return level_sets(post, group)
    if group is not None:
        raise SpecificationError("group does not apply to observations", "group", 'use by="group"')
    n = len(post.design.y)  # a posterior without rows says so here
    return [np.array([i]) for i in range(n)], list(range(n)), "obs"


def held_out_densities(post: PosteriorData, phi: Array, sets: list[Codes], names: list[str], advance: Callable[[int], None]) -> Array:
    """log p(y_out | y_in, phi) (S, sets) of levels of a grouping factor."""
    target, codes = post.density, np.empty(post.design.nobs, np.int64)
    for k, rows in enumerate(sets):
        codes[rows] = k
    found = independent_level_densities(target, phi, codes, len(sets), advance)
    if found is not None:
        values, deficient = found
        for k in deficient:
            require_determined(target, post.design.take(np.setdiff1d(np.arange(post.design.nobs), sets[k])), names[k])
        return values
    values, full = np.empty((len(phi), len(sets))), log_likelihoods(target, phi)
    fast = DowndatedDensity(target, target.kernel) if isinstance(target.kernel, RandomEffectsKernel) else None
    for k, (rows, name) in enumerate(zip(sets, names, strict=True)):
        less = None if fast is None else fast.without(rows)
        values[:, k] = predictive_densities(target, density_without(target, rows, name) if less is None else less, phi, full)
        advance(1)
    return values


@np.errstate(all="ignore")
def conditional_log_means(post: PosteriorData) -> Array:
    """log of the mean density of every observation given its effects, over draws of the whole posterior, (n,)."""
    step, total = max(1, LEFT_OUT_ELEMENTS // (4 * post.design.nobs)), np.full(post.design.nobs, -np.inf)
    for begin in range(0, post.size, step):
        own = log_likelihood(post, np.arange(begin, min(begin + step, post.size)))
        total = np.logaddexp(total, np.logaddexp.reduce(own, axis=0))
    return np.asarray(total - np.log(post.size))


def mean_densities(values: Array) -> Array:
    """log of the mean over the first axis of exponentials (S, units)."""
    even = np.full(len(values), -np.log(len(values)))
    return np.array([log_mean(own, even) for own in values.T])


def level_sets(post: PosteriorData, group: str | None) -> tuple[list[Codes], list[Any], str]:
    """Rows and labels of the levels of a grouping factor."""
    factors = {term.group.name: term.group for term in post.design.terms}
    if post.design.residual is not None:
        factors.setdefault(post.design.residual.subject.name, post.design.residual.subject)
    if not factors:
        raise InferenceError("the model has no grouping factor", "loo", 'use by="observation"')
    if group is None and len(factors) > 1:
        raise SpecificationError("the model has several grouping factors", ", ".join(factors), f'say which: group="{next(iter(factors))}"')
    name = next(iter(factors)) if group is None else require_name(group, "group")
    if name not in factors:
        raise SpecificationError(f"there is no grouping factor {name!r}", "group", "use one of " + ", ".join(factors))
    factor = factors[name]
    order = np.argsort(factor.codes, kind="stable")
    sets = np.split(order, np.cumsum(np.bincount(factor.codes, minlength=factor.size))[:-1])
    return list(sets), list(factor.levels), name
