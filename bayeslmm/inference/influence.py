"""Leverage, Cook's distance, and the fit without each row or each level of a grouping factor.

The conditional fit is linear in y at fixed covariance parameters, y^ = H y, and H has the diagonal

    h_i = w_i var(x'(alpha^ - alpha) + z'(beta^ - beta)) / sigma^2

as lme4's hatvalues. With structured errors H = I - R V^-1 (I - X (X' V^-1 X)^-1 X' V^-1).

Held covariance parameters need no search, and no criterion either: what a deletion changes follows from the inverse at the estimate.
Refits of a model of one grouping factor without each of its many levels come from polynomials of the criteria, all at once; those of a
model of visits without each subject go side by side, from sums less the subject's; other structured errors are laid out anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import InfluenceValues
from bayeslmm._validation import require_flag, require_one_of
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, InferenceError, warn_user
from bayeslmm.estimate.batch_descent import is_crowded
from bayeslmm.estimate.estimate import search
from bayeslmm.estimate.reweighting import fit_reweighted
from bayeslmm.inference.fixed_effects.degrees_of_freedom import is_nested
from bayeslmm.inference.intervals.batch_refit import lift_off_boundary
from bayeslmm.inference.intervals.batch_structured import poolable
from bayeslmm.inference.intervals.parameters import parameter_names, parameter_values
from bayeslmm.inference.intervals.resampling import fits_without_each, resampling_factor, without
from bayeslmm.likelihood.case_deletion import DeletedProfile, DowndatedSums, delete_block_levels, delete_levels
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.identification import full_rank
from bayeslmm.likelihood.level_optima import LevelOptima, level_optima, points_of
from bayeslmm.likelihood.prediction import row_variances
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.structured.kernel import BlockDiagonalState, StructuredBlockFactor
from bayeslmm.likelihood.structured.low_rank import LowRankState
from bayeslmm.likelihood.structured.residual_covariance import unit_sds
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import residuals
from bayeslmm.results.render import bar_shown, progress_bar

ROWS_SHOWN = 20_000
"""Rows beyond which a figure of leverage shows as many drawn at random."""

EVERY_ROW = slice(None)

DETERMINED = 1e-10
"""One less the leverage, below which a row is all that tells some coefficient: what is left of its residual is rounding."""


def leverage(fit: Estimates, rows: Codes | slice = EVERY_ROW) -> Array:
    """The diagonal of the map from y to conditional fitted values, of all rows or of some."""
    design, problem = fit.design, fit.problem
    if problem.structured is not None:
        return _structured_leverage(fit)[rows]
    Zs, codes = [term.Z[rows] for term in design.terms], [term.group.codes[rows] for term in design.terms]
    variance = row_variances(problem, fit.point, design.X[rows], Zs, codes)
    return np.asarray(variance / (fit.estimate.sigma * unit_sds(problem, fit.point.x)[rows]) ** 2)


def sampled_rows(fit: Estimates) -> Codes | slice:
    """Rows that a figure of leverage shows: all, or beyond some size as many drawn at random."""
    if fit.nobs <= ROWS_SHOWN:
        return EVERY_ROW
    return np.sort(np.random.default_rng(0).choice(fit.nobs, ROWS_SHOWN, replace=False))


def _structured_leverage(fit: Estimates) -> Array:
    """1 - diag(R V^-1) + diag(R V^-1 X C X' V^-1), block by block."""
    state = fit.point.state
    assert isinstance(state, BlockDiagonalState)
    C, p = state.solution.information_inverse[0], fit.problem.criterion.p
    out = np.empty(fit.nobs)
    if isinstance(state, LowRankState):  # R is 1
        for rows, own, ViU in row_inverses(state):
            out[rows] = 1.0 - own + ((ViU[..., :p] @ C) * ViU[..., :p]).sum(-1)
        return out
    for part in state.row_states:
        out[part.batch.rows] = _block_leverage(part, C, p)
    return out


def _structured_distances(fit: Estimates) -> Array:
    """d' vcov^-1 d / p for d, the change of alpha without one row of a subject, V held: (Py)_i^2 / P_ii^2 (V^-1 - P)_ii / (p sigma^2).

    A leverage beside correlated errors may be negative; this never is.
    """
    state = fit.point.state
    assert isinstance(state, BlockDiagonalState)
    C, p = state.solution.information_inverse[0], fit.problem.criterion.p
    out = np.empty(fit.nobs)
    for rows, own, ViU in row_inverses(state):
        ViX, Py = ViU[..., :p], ViU @ state.v  # V^-1 (y - X alpha)
        explained = ((ViX @ C) * ViX).sum(-1)
        P = own - explained
        apart = DETERMINED * own < P
        out[rows] = np.where(apart, (Py / np.where(apart, P, 1.0)) ** 2 * explained / (p * fit.point.sigma2), np.nan)
    return out


def row_inverses(state: BlockDiagonalState) -> Iterator[tuple[Codes, Array, Array]]:
    """Rows (B, k) of every batch, the diagonal of V^-1 and V^-1 [X y] (B, k, r)."""
    if isinstance(state, LowRankState):
        yield from ((block.batch.rows, *block.row_inverses()) for block in state.blocks)
        return
    for part in state.row_states:
        yield part.batch.rows, np.diagonal(part.inverse, axis1=1, axis2=2), part.inverse @ part.U


def _block_leverage(part: StructuredBlockFactor, C: Array, p: int) -> Array:
    ViX = part.inverse @ part.U[..., :p]
    RVi, RViX = part.R @ part.inverse, part.R @ ViX
    own = np.diagonal(RVi, axis1=1, axis2=2)
    return np.asarray(1.0 - own + ((RViX @ C) * ViX).sum(-1))


@dataclass(frozen=True, slots=True, eq=False)
class CaseDeletion:
    """The fit without one level; NaN where the rest does not identify the model.

    x, and on the problem's standardized columns: sigma2, solved (p,) the coefficients, inverse (p, p) of X' V0^-1 X
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
        c = self.problem.standardization
        return np.asarray(self.sigma2 * c.y_scale**2 * (c.back @ self.inverse @ c.back.T))

    @property
    def parameters(self) -> Array:
        """All of `confint`'s."""
        if not np.isfinite(self.sigma2):
            return np.full(len(parameter_names(self.problem)), np.nan)
        return np.asarray(parameter_values(self.problem, self.x[None], np.array([self.sigma2]), self.solved[None])[0])


def require_likelihood(fit: Estimates, what: str) -> None:
    """Refits here are by REML or ML: a posterior mode would lose its priors on the way."""
    if fit.method == "MAP":
        raise InferenceError(f"{what} refits by REML or ML, and this fit is a posterior mode", "fit('MAP')", "use fit('REML'), or sample()")


def case_deletions(fit: Estimates, factor: GroupingFactor | None, refit: bool) -> Iterator[CaseDeletion]:
    """One by one for the levels of a factor (for rows, without one).

    refit : estimate all parameters again; otherwise covariance parameters are held at those of the fit
    """
    codes, size = (np.arange(fit.nobs), fit.nobs) if factor is None else (factor.codes, factor.size)
    if fit.problem.structured is not None:
        yield from (_structured_refits if refit else _hold_structured)(fit, codes, size)
    elif refit:
        yield from _refit_from_sums(fit, codes, size)
    else:
        yield from _hold_parameters(fit, codes, size)


def _rows_by_level(codes: Codes, size: int) -> Iterator[Codes]:
    """Rows of every level."""
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(size + 1))
    for level in range(size):
        yield order[bounds[level] : bounds[level + 1]]


def _refit_from_sums(fit: Estimates, codes: Codes, size: int) -> Iterator[CaseDeletion]:
    """All levels at once where they are many and share no random effect; the others by a search on the sums that are left."""
    start = lift_off_boundary(fit.problem, fit.estimate.x) if fit.singular else fit.estimate.x
    sums = DowndatedSums.of(fit.problem)
    found = _together(fit, sums, codes, size)
    for level, rows in enumerate(_rows_by_level(codes, size)):
        if found is not None and found.found[level]:
            yield CaseDeletion(fit.problem, found.x[level], float(found.sigma2[level]), found.alpha[level], found.inverse[level])
        else:
            yield _search_each(fit, sums.without(rows), start)


def _together(fit: Estimates, sums: DowndatedSums, codes: Codes, size: int) -> LevelOptima | None:
    """All optima at once; None where searches cost less, or where the criterion has no curvature to measure x by."""
    cross, x = sums.kernel.cross, fit.estimate.x
    separate = (
        cross.first is not None
        and cross.first.C.ndim == 3
        and cross.remaining is None
        and all(factor.root is None and is_nested(own, codes) for factor, own in zip(cross.factors, sums.codes, strict=True))
    )
    if not separate or fit.singular or is_crowded(fit.problem) or not len(x) or size < 2 * points_of(len(x)):
        return None
    hessian = fit.point.hessian
    if hessian is None or not np.isfinite(hessian).all() or np.linalg.eigvalsh(hessian)[0] <= 0:
        return None
    errors = np.sqrt(2.0 * np.diagonal(np.linalg.inv(hessian)))
    with one_thread():
        return level_optima(sums, codes, size, x, errors, fit.restricted)


def _search_each(fit: Estimates, problem: Problem | None, start: Array) -> CaseDeletion:
    if problem is None:
        return _failed_deletion(fit)
    try:
        if problem.held_fitted is not None:
            problem, found = fit_reweighted(problem, "REML" if fit.restricted else "ML", start=start)
            return _of_point(fit, problem, problem.criterion.at(found.x, fit.restricted, order=0))
        outcome = search(problem, fit.restricted, start)[0]
    except (BayesLMMError, np.linalg.LinAlgError):
        return _failed_deletion(fit)
    return _of_point(fit, problem, outcome.point)


def _of_point(fit: Estimates, problem: Problem, point: CriterionPoint) -> CaseDeletion:
    if point.state is None or not np.isfinite(point.value):
        return _failed_deletion(fit)
    solution = point.state.solution
    return CaseDeletion(problem, point.x, point.sigma2, solution.alpha[0], solution.information_inverse[0])


def _failed_deletion(fit: Estimates) -> CaseDeletion:
    p = len(fit.fixef_kept)
    return CaseDeletion(fit.problem, fit.estimate.x, np.nan, np.full(p, np.nan), np.full((p, p), np.nan))


# -- held covariance parameters ----------------------------------------------------------------------------------------------------------


def _hold_parameters(fit: Estimates, codes: Codes, size: int) -> Iterator[CaseDeletion]:
    """From the inverse at the estimate; where that would be slow or lose digits, from the criterion of what is left."""
    problem, point, sums = fit.problem, fit.point, DowndatedSums.of(fit.problem)
    with one_thread():
        for rows, found in zip(_rows_by_level(codes, size), delete_levels(problem, point, codes, size), strict=True):
            n = fit.nobs - len(rows)
            if found is not None and n > problem.criterion.p and sums.has_full_rank(rows):
                yield _of_profile(fit, found, n)
                continue
            left = sums.without(rows)
            yield (
                _failed_deletion(fit) if left is None else _of_point(fit, left, left.criterion.at(fit.estimate.x, fit.restricted, order=0))
            )


def _of_profile(fit: Estimates, found: DeletedProfile, n: int) -> CaseDeletion:
    df = n - len(found.alpha) if fit.restricted else n
    sigma2 = float(fit.problem.criterion.sigma2_of(np.array(found.r2), df))
    return CaseDeletion(fit.problem, fit.estimate.x, sigma2, found.alpha, found.inverse)


# -- structured errors -------------------------------------------------------------------------------------------------------------------


def _hold_structured(fit: Estimates, codes: Codes, size: int) -> Iterator[CaseDeletion]:
    """From the sums at the estimate less the level's; where they would lose digits, from what is left laid out anew."""
    problem, counts = fit.problem, np.bincount(codes, minlength=size)
    theta = problem.theta(fit.estimate.x)
    with one_thread():
        for level, found in enumerate(delete_block_levels(fit.point, codes, size)):
            n = fit.nobs - int(counts[level])
            if found is not None and n > problem.criterion.p:
                yield _of_profile(fit, found, n)
                continue
            left = _laid_out(fit, codes == level)
            yield _failed_deletion(fit) if left is None else _of_point(fit, left, left.criterion.at(left.x(theta), fit.restricted, order=0))


def _structured_refits(fit: Estimates, codes: Codes, size: int) -> Iterator[CaseDeletion]:
    """Side by side where levels are whole subjects of a model of visits; one by one otherwise."""
    start = lift_off_boundary(fit.problem, fit.estimate.x) if fit.singular else fit.estimate.x
    subject = None if fit.design.residual is None else fit.design.residual.subject
    if subject is None or not poolable(fit.problem) or not is_nested(subject.codes, codes):
        for level in range(size):
            yield _search_each(fit, _laid_out(fit, codes == level), start)
        return
    level_of = np.zeros(subject.size, np.int64)
    level_of[subject.codes] = codes
    level = 0
    for fits, inverse in fits_without_each(fit.problem, level_of, size, start, fit.restricted):
        for b, settled in enumerate(fits.settled):
            if settled:
                yield CaseDeletion(fit.problem, fits.x[b], float(fits.sigma2[b]), fits.alpha[b], inverse[b])
            else:
                yield _search_each(fit, _laid_out(fit, codes == level), start)
            level += 1


def _laid_out(fit: Estimates, rows: NDArray[np.bool_]) -> Problem | None:
    design, held = without(fit.design, rows), fit.problem.held_fitted
    return build_problem(design, None if held is None else held[~rows]) if full_rank(design.near_X) else None


SURE, LONG = 3.0, 60.0
"""Seconds after which a run without a bar knows how long it will be, and from which it says so."""


def influence(
    fit: Estimates, group: str | None = None, *, values: InfluenceValues = "estimates", refit: bool = True, progress: bool | None = None
) -> pd.DataFrame:
    """How much the fit rests on single observations, or on the levels of a grouping factor.

    Without `group`: `hat` (leverage) and `cooks_distance` of every row, `h / (1 - h)^2 r^2 / p` with the Pearson residual r, as lme4;
    beside structured errors, where a leverage may be negative, `d' vcov^-1 d / p` for the change d of the coefficients without the row.
    With it: `level`, one column per coefficient, `cooks_distance`, `(K - p) / K (a - a_k)' vcov^-1 (a - a_k) / p` for the coefficients a_k
    without level k of K, as lme4.

    values : "estimates", the coefficients without the level; "dfbetas", (a - a_k) in standard errors of the fit without it
    refit : estimate covariance parameters again without each level; False holds them, which is quick and usually near
    progress : a bar on the terminal; by default where there is one. A long run without a bar warns of how long it will be

    Levels without which the model is not identified have NaN. Ctrl-C raises KeyboardInterrupt.

    >>> fit.influence("Subject").columns.tolist()
    ['level', 'Intercept', 'Days', 'cooks_distance']
    """
    require_one_of(values, get_args(InfluenceValues), "values")
    require_flag(refit, "refit")
    if group is None:
        return influence_of_rows(fit)
    require_likelihood(fit, "influence of groups")
    factor = resampling_factor(fit.design, group)
    assert factor is not None
    alpha, errors = _gather(fit, factor, refit, progress)
    change = fit.fixef_kept - alpha
    shown = alpha if values == "estimates" else change / errors
    p = len(fit.fixef_kept)
    assert fit.point.state is not None
    c = fit.problem.standardization
    moved = c.coefficients(change) / (np.sqrt(fit.point.sigma2) * c.y_scale)
    inverse = np.linalg.inv(fit.point.state.solution.information_inverse[0])
    distance = ((moved @ inverse) * moved).sum(1) * _share(factor.size, p)
    columns = np.full((len(alpha), len(fit.design.coef_names)), np.nan)
    columns[:, list(fit.design.kept)] = shown
    frame = pd.DataFrame(columns, columns=list(fit.design.coef_names))
    frame.insert(0, "level", factor.levels[: len(alpha)].tolist())
    return frame.assign(cooks_distance=distance)


def _gather(fit: Estimates, factor: GroupingFactor, refit: bool, progress: bool | None) -> tuple[Array, Array]:
    """Coefficients without each level and their standard errors, (K, p) each."""
    alpha, errors = np.empty((2, factor.size, len(fit.fixef_kept)))
    source = case_deletions(fit, factor, refit)
    with progress_bar("influence", factor.size, progress) as advance:
        for k, deletion in enumerate(source if bar_shown(progress) else _estimated_duration(source, factor.size, refit)):
            alpha[k], errors[k] = deletion.alpha, np.sqrt(np.diagonal(deletion.vcov))
            advance(1)
    return alpha, errors


def _estimated_duration(source: Iterator[CaseDeletion], size: int, refit: bool) -> Iterator[CaseDeletion]:
    """The same, with a warning once it is clear that all of them will take long."""
    begin, warned = time.perf_counter(), False
    for done, deletion in enumerate(source, start=1):
        elapsed = time.perf_counter() - begin
        if not warned and elapsed > SURE:
            warned, total = True, elapsed / done * size
            if total > LONG:
                what = f"leaving out each of {size:,} levels will take about {_duration(total)}"
                remedy = "refit=False holds covariance parameters and is quick; " if refit else ""
                warn_user(BayesLMMWarning(what, "influence", f"{remedy}progress=True shows a bar"))
        yield deletion


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _share(K: int, p: int) -> float:
    return (K - p) / (K * p) if p else float("nan")


def influence_of_rows(fit: Estimates, rows: Codes | slice = EVERY_ROW) -> pd.DataFrame:
    """`hat, cooks_distance` of all rows, or of some; NaN for a row without which a coefficient is not determined."""
    hat, p = leverage(fit, rows), len(fit.fixef_kept)
    if p == 0:
        raise InferenceError(
            "a model without fixed effects has no Cook's distance", "influence", "name a grouping factor: influence('group')"
        )
    if fit.problem.structured is not None:
        cooks = _structured_distances(fit)[rows]
    else:
        pearson = residuals(fit, "pearson")[rows]
        left = 1.0 - hat
        apart = left > DETERMINED
        cooks = np.where(apart, (pearson / np.where(apart, left, 1.0)) ** 2 * hat / p, np.nan)
    return pd.DataFrame({"hat": hat, "cooks_distance": cooks}, index=fit.design.index[rows])
