"""Covariance parameters that a design does not identify: the rank of the derivatives of V, for D, R and the variance function together.

Parameters can be moved together without anything to be seen where the derivatives of the elements of V in them are linearly dependent over
the pairs of rows that occur: `V_ij = z_i' D z_j [same level] + R_ij [same subject]`. Pairs that share no level and no subject say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import Check
from bayeslmm.likelihood.problem import Problem
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
    rows = occurring_pairs(_factors(problem), design.nobs)
    scale = _parameter_scale(problem)
    tau = np.append(problem.start, 0.0) + 0.1 * scale * np.random.default_rng(0).uniform(0.5, 1.5, problem.size + 1)
    steps = TAU_DIFFERENCE * np.diag(scale)
    moves = [_elements(problem, tau + h, rows) - _elements(problem, tau - h, rows) for h in steps]
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
    names = _moved(problem, tau, flat * scale)
    value = f"{', '.join(names)}: {len(flat)} of {len(tau)} parameters cannot be told from the others"
    remedy = (
        "only what these parameters add up to in V is identified, and their own values are one of many with the same likelihood; fixed "
        "effects and their standard errors are right: give a prior, or leave out the term or the strata that repeat another"
    )
    return [Check("repeated_parameters", "noted", value, remedy=remedy)]


def _parameter_scale(problem: Problem) -> Array:
    """(size + 1,) what a move of about 1 is for each parameter: those of a variance function are in the units of its covariate."""
    kernel, scale = problem.structured, np.ones(problem.size + 1)
    if kernel is not None and problem.design.variance:
        slopes = kernel.variance.log_multiplier(problem.start[kernel.variance_part])[1]
        largest = np.abs(slopes).max(axis=1)
        scale[:-1][kernel.variance_part] = 1.0 / np.where(largest > 0.0, largest, 1.0)
    return scale


def _factors(problem: Problem) -> list[Codes]:
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


def _elements(problem: Problem, tau: Array, rows: Codes) -> Array:
    """V over pairs of rows, (N,), on the user's columns and in units of the response's scale."""
    x, design = tau[:-1], problem.design
    R = unit_covariances(problem, x, rows)
    V = np.where(rows[:, 0] == rows[:, 1], R[:, 0, 0], R[:, 0, 1])
    for term, D in zip(design.terms, problem.relative_covariances(x), strict=True):
        a, b = term.group.codes[rows[:, 0]], term.group.codes[rows[:, 1]]
        together = (a == b) if term.relationship is None else term.relationship[a, b]
        V += together * np.einsum("na,ab,nb->n", term.Z[rows[:, 0]], D, term.Z[rows[:, 1]])
    return np.asarray(np.exp(2.0 * tau[-1]) * V)


def _moved(problem: Problem, tau: Array, directions: Array) -> list[str]:
    """The parameters that change along directions of tau."""
    names = [name for name, _ in _named(problem, tau)]
    moved = np.zeros(len(names))
    for direction in directions:
        step = TAU_DIFFERENCE * direction / np.abs(direction).max()
        change = np.array([(b - a) for (_, a), (_, b) in zip(_named(problem, tau - step), _named(problem, tau + step), strict=True)])
        moved = np.maximum(moved, np.abs(change) / max(float(np.abs(change).max()), 1e-300))
    return [name for name, size in zip(names, moved, strict=True) if size > MOVED]


def _named(problem: Problem, tau: Array) -> list[tuple[str, float]]:
    """Standard deviations and correlations of D, then the parameters of the errors."""
    sigma, found = float(np.exp(tau[-1])), []
    for term, D in zip(problem.design.terms, problem.relative_covariances(tau[:-1]), strict=True):
        sd = sigma * np.sqrt(np.diagonal(D))
        found += [(f"sd__{name}|{term.group.name}", float(value)) for name, value in zip(term.columns, sd, strict=True)]
        corr = sigma**2 * D / (sd[:, None] * sd)
        pairs = [(a, b) for a in range(len(sd)) for b in range(a + 1, len(sd))]
        found += [(f"cor__{term.columns[a]}.{term.columns[b]}|{term.group.name}", float(corr[a, b])) for a, b in pairs]
    errors = residual_parameters(problem, tau[:-1], sigma)
    return [*found, *(errors or [(sigma_name(problem), sigma)])]
