"""What a design identifies: covariance parameters by the rank of the derivatives of V, functions of the coefficients by the rank of X.

Parameters can be moved together without anything to be seen where the derivatives of the elements of V in them are linearly dependent over
the pairs of rows that occur: `V_ij = z_i' D z_j [same level] + R_ij [same subject]`. Pairs that share no level and no subject say nothing.

Everything is decided on standardized columns, so that neither the unit nor the origin of a covariate counts. An aliased column is, over the
rows, a combination X~ a of standardized columns; a function of all coefficients is estimable just when its part on that column is a too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.design import Design
from bayeslmm.data.identifiability import column_rank
from bayeslmm.errors import Check
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.standardize import Standardization, standardize_columns
from bayeslmm.likelihood.structured.residual_covariance import residual_parameters, sigma_name, unit_covariances

TAU_DIFFERENCE = 1e-5
"""Step of central differences at parameters of size 1."""

DEPENDENT = 1e-7
"""Smallest singular value, relative, of derivatives that differ: differences are known to about 1e-10."""

MOVED = 1e-4
"""Share of the largest move of a parameter along a direction that nothing shows, below which it does not take part."""

MAX_PARAMETERS, MAX_PAIRS = 60, 20_000
"""Beyond these many parameters the comparison would cost more than it tells; of more pairs a part is looked at."""


def undetermined_parameters(problem: Problem) -> list[Check]:
    """A note that names the parameters of D, R and the variance function which the design cannot tell apart; empty where it can."""
    design = problem.design
    parts = bool(design.terms) + (design.residual is not None) + len(design.variance)
    if problem.structured is None or parts < 2 or problem.size >= MAX_PARAMETERS or not design.in_memory:
        return []
    rows = occurring_pairs(shared_factors(problem), design.nobs)
    scale = np.append(problem.axis_units, 1.0)
    tau = np.append(problem.start, 0.0) + 0.1 * scale * np.random.default_rng(0).uniform(0.5, 1.5, problem.size + 1)
    steps = TAU_DIFFERENCE * np.diag(scale)
    moves = [covariance_elements(problem, tau + h, rows) - covariance_elements(problem, tau - h, rows) for h in steps]
    derivative = np.stack(moves, axis=1) / (2.0 * TAU_DIFFERENCE)
    if not np.isfinite(derivative).all():
        return []
    size = np.linalg.norm(derivative, axis=0)
    scaled = np.linalg.qr(derivative / np.where(size > 0.0, size, 1.0), mode="r")
    _, values, right = np.linalg.svd(scaled)
    values = np.append(values, np.zeros(len(right) - len(values)))
    flat = right[values <= DEPENDENT * values[0]] / np.where(size > 0.0, size, 1.0)
    if not len(flat):
        return []
    names = _changing_parameters(problem, tau, flat * scale)
    value = f"{', '.join(names)}: {len(flat)} of {len(tau)} parameters cannot be told from the others"
    remedy = (
        "only what these parameters add up to in V is identified, and their own values are one of many with the same likelihood; fixed "
        "effects and their standard errors are right: give a prior, or leave out the term or the strata that repeat another"
    )
    return [Check("repeated_parameters", "noted", value, remedy=remedy)]


def shared_factors(problem: Problem) -> list[Codes]:
    """What rows may share: levels of grouping factors, subjects."""
    design = problem.design
    found = {term.group.name: term.group.codes for term in design.terms}
    return [*found.values(), *([] if design.residual is None else [design.residual.subject.codes])]


def occurring_pairs(factors: Sequence[Codes], n: int) -> Codes:
    """(N, 2) pairs of rows that share a level of a factor, every row with itself; of many, near and far ones in the order of all factors.

    Rows that share as much as may be stand beside each other, so that the levels of an inner factor come whole.
    """
    rows = np.arange(n)
    found = [np.column_stack([rows, rows])]
    share = max(1, MAX_PAIRS // (1 + len(factors)))
    for k, codes in enumerate(factors):
        others = sorted((other for i, other in enumerate(factors) if i != k), key=lambda other: int(other.max()))
        order = np.lexsort((*others, codes))
        sizes = np.bincount(codes)
        shift, taken = 1, 0
        while shift < sizes.max(initial=0) and taken < share:
            same = codes[order[shift:]] == codes[order[:-shift]]
            found.append(np.column_stack([order[shift:][same], order[:-shift][same]]))
            shift, taken = shift + (1 if shift < 8 else shift // 2), taken + len(found[-1])
    whole = np.concatenate(found)
    if len(whole) <= MAX_PAIRS:
        return whole
    return whole[np.random.default_rng(0).choice(len(whole), MAX_PAIRS, replace=False)]


def covariance_elements(problem: Problem, tau: Array, rows: Codes) -> Array:
    """V over pairs of rows, (N,), in units of the response's scale.

    By standardized columns: on the user's own, what a far origin adds to D would leave nothing of D's other digits.
    """
    x, design = tau[:-1], problem.design
    R = unit_covariances(problem, x, rows)
    V = np.where(rows[:, 0] == rows[:, 1], R[:, 0, 0], R[:, 0, 1])
    weight_mean = problem.standardization.weight_mean
    for term, own in zip(design.terms, problem.random.terms, strict=True):
        a, b = term.group.codes[rows[:, 0]], term.group.codes[rows[:, 1]]
        together = (a == b) if term.relationship is None else term.relationship[a, b]
        Z = own.map.columns(term.Z)
        V += together * np.einsum("an,ab,bn->n", Z[:, rows[:, 0]], own.standardized_covariance(x, weight_mean), Z[:, rows[:, 1]])
    return np.asarray(np.exp(2.0 * tau[-1]) * V)


def _changing_parameters(problem: Problem, tau: Array, directions: Array) -> list[str]:
    """The parameters that change along directions of tau."""
    named = _parameters_of(problem, tau)
    moved = np.zeros(len(named))
    # all but correlations in units of themselves: sds of slopes, ranges and exponents are in units of covariates
    size = np.array([1.0 if name.startswith(("cor", "rho")) or not value else abs(value) for name, value in named])
    for direction in directions:
        step = TAU_DIFFERENCE * direction / np.abs(direction).max()
        sides = [np.array([value for _, value in _parameters_of(problem, at)]) for at in (tau - step, tau + step)]
        change = (sides[1] - sides[0]) / size
        moved = np.maximum(moved, np.abs(change) / max(float(np.abs(change).max()), 1e-300))
    return [name for (name, _), share in zip(named, moved, strict=True) if share > MOVED]


def _parameters_of(problem: Problem, tau: Array) -> list[tuple[str, float]]:
    """Standard deviations and correlations of D, then the parameters of the errors; of D where each covariate has its mean."""
    sigma, found = float(np.exp(tau[-1])), []
    for term, own in zip(problem.design.terms, problem.random.terms, strict=True):
        root = own.map.matrix @ own.covariance.factor(tau[:-1][own.part])
        D = root @ root.T
        sd = sigma * np.sqrt(np.diagonal(D))
        found += [(f"sd__{name}|{term.group.name}", float(value)) for name, value in zip(term.columns, sd, strict=True)]
        corr = sigma**2 * D / (sd[:, None] * sd)
        pairs = [(a, b) for a in range(len(sd)) for b in range(a + 1, len(sd))]
        found += [(f"cor__{term.columns[a]}.{term.columns[b]}|{term.group.name}", float(corr[a, b])) for a, b in pairs]
    errors = residual_parameters(problem, tau[:-1], sigma)
    return [*found, *(errors or [(sigma_name(problem), sigma)])]


DEPENDENT_ROWS = 1e-8
"""Relative size of a direction of unit rows below which it is a combination of the others."""

ROUNDED = 1e-12
"""Share of a column that is left of it by rounding when the others explain it."""

EPSILON = float(np.finfo(float).eps)


def full_rank(X: Array) -> bool:
    """Whether columns are independent, wherever they start and whatever their units; False where rows are as few as columns."""
    n, p = X.shape
    constant = p > 0 and n > 0 and X[0, 0] != 0.0 and bool((X[:, 0] == X[0, 0]).all())
    return bool(n > p and len(column_rank(X, intercept=constant).kept) == p)


def left_null_space(M: Array, size: Array) -> Array:
    """Rows a (orthonormal) with a M = 0, (r, len(M)).

    size : (columns,) how long the columns of M were before something was taken off them: what is left by rounding is 0
    """
    length = np.linalg.norm(M, axis=0)
    own = M[:, length > ROUNDED * size] / length[length > ROUNDED * size]
    if own.shape[1] == 0:
        return np.eye(len(M))
    left, values, _ = np.linalg.svd(own)
    return np.asarray(left[:, int((values > ROUNDED * values.max()).sum()) :].T)


def basis(L: Array) -> tuple[Array, Array]:
    """An orthonormal basis (q, p) of the rows of L, and what makes it of rows of length 1: basis = (q, r) @ unit rows.

    L : (r, p) on standardized columns
    """
    left, values, _ = np.linalg.svd(L, full_matrices=False)
    independent = int((values > DEPENDENT_ROWS * values.max(initial=0.0)).sum()) if values.size else 0
    turn = left[:, :independent].T
    return np.asarray(turn @ L), turn


@dataclass(frozen=True, slots=True, eq=False)
class Aliases:
    """Aliased columns over the rows of the design, less their means where a constant is among the columns kept.

    gone : (a,) their positions among all coefficients; center : (a,) means; weights : (p, a) of standardized columns; size : (a,) rms
    constant : position of the constant among the columns kept, None without one
    moves : (all, all) what takes the columns about the origins of far covariates, if any; change : those kept to standardized ones then
    """

    gone: tuple[int, ...]
    center: Array
    weights: Array
    size: Array
    constant: int | None
    moves: Array | None = None
    change: Array | None = None

    @classmethod
    def of(cls, design: Design, standardization: Standardization) -> Aliases:
        """Those of a design."""
        kept = list(design.kept)
        gone = tuple(i for i in range(len(design.coef_names)) if i not in set(kept))
        rows = design.moments
        every = rows.columns if design.near_all is None else design.near_all.columns
        columns = every[:, list(gone)]
        flat = [j for j, i in enumerate(kept) if every[0, i] == 1.0 and bool((every[:, i] == 1.0).all())]
        constant = flat[0] if flat else None
        center = columns.mean(axis=0) if constant is not None else np.zeros(len(gone))
        columns = columns - center
        moves = change = None
        if design.near_all is not None:
            moves, change = design.near_all.moves, standardize_columns(every[:, kept])
            X = every[:, kept] @ change
        else:
            X = standardization.design_rows(design) if design.in_memory else standardization.rows(rows.X)
        size = np.sqrt(np.mean(columns**2, axis=0))
        # an empty cell has a column of zeros: the other columns of its term say how large it would be
        terms = [design.coef_terms[i] for i in range(len(design.coef_names))]
        rms = np.sqrt(np.mean(every**2, axis=0))
        typical = np.array([max((rms[i] for i, term in enumerate(terms) if term == terms[g]), default=0.0) for g in gone])
        nothing = size <= 64 * EPSILON * np.abs(center)
        size = np.where(nothing, np.where(typical > 0, typical, 1.0), size)
        return cls(gone, center, np.linalg.solve(X.T @ X, X.T @ columns), size, constant, moves, change)

    def estimable(self, L: Array, own: Array) -> NDArray[np.bool_]:
        """(r,) which rows are.

        L : (r, all coefficients); own : (r, p) the part on the columns kept, as functions of standardized coefficients
        """
        moved = np.zeros((len(L), len(self.gone)))
        if self.moves is not None and self.change is not None:
            # the row itself holds no more digits of a product than floating point does
            lost = 8 * EPSILON * (np.abs(L) @ np.abs(self.moves))
            through = np.delete(lost, self.gone, axis=1) @ np.abs(self.change) @ np.abs(self.weights)
            moved = (lost[:, list(self.gone)] + through) / self.size
            L = L @ self.moves
            own = np.delete(L, self.gone, axis=1) @ self.change
        lost = L[:, list(self.gone)]
        start = np.zeros(len(L)) if self.constant is None else L[:, self._all_constant(L)]
        shift = start[:, None] * self.center
        part = (lost - shift) / self.size
        gap = np.abs(part - own @ (self.weights / self.size))
        large = np.maximum(np.abs(own).max(axis=1, initial=0.0)[:, None], np.abs(part))
        rounding = 64 * EPSILON * (np.abs(lost) + np.abs(shift)) / self.size + moved
        return np.asarray((gap <= DEPENDENT_ROWS * large + rounding).all(axis=1))

    def _all_constant(self, L: Array) -> int:
        """The constant's position among all coefficients."""
        assert self.constant is not None
        kept = np.setdiff1d(np.arange(L.shape[1]), self.gone)
        return int(kept[self.constant])


def pivoted_root(S: Array, tolerance: float) -> tuple[Array, Codes]:
    """R (s, rank) with R R' = S positive semi-definite, by Cholesky's factor with pivots; and the rows of R that are lower triangular.

    tolerance : the largest pivot that is rounding
    """
    factor, order, rank, _ = lapack.dpstrf(S, lower=1, tol=tolerance)
    R = np.empty((len(S), rank))
    R[order - 1] = np.tril(factor)[:, :rank]
    return R, (order[:rank] - 1).astype(np.int64)
