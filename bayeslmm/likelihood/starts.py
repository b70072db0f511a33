"""Where the search for a residual structure starts: the moments of the least-squares residuals."""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.covariance.located import Located
from bayeslmm.data.design import Design
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.residual_structure import Grouped, ResidualStructure, SpatialStructure, VisitStructure
from bayeslmm.likelihood.subjects import SubjectsKernel

SHRINK = 0.9
"""Correlations of the moment matrix are drawn towards 0 by this factor, which keeps the start inside the structure."""


def moments(residual: Array, subject: Array, visit: Array, m: int, subjects: int) -> Array:
    """Mean products of the residuals over the subjects who have both visits, made positive definite; (m, m)."""
    table = np.full((subjects, m), np.nan)
    table[subject, visit] = residual
    seen = np.isfinite(table).astype(float)
    filled = np.nan_to_num(table)
    count = seen.T @ seen
    overall = max(float(np.mean(residual**2)), 1e-300)
    S = np.where(count > 0, filled.T @ filled / np.maximum(count, 1.0), 0.0)
    sd = np.sqrt(np.where(np.diagonal(count) > 1, np.maximum(np.diagonal(S), 1e-3 * overall), overall))
    C = (
        np.clip(S / np.outer(np.sqrt(np.maximum(np.diagonal(S), 1e-300)), np.sqrt(np.maximum(np.diagonal(S), 1e-300))), -0.99, 0.99)
        * SHRINK
    )
    np.fill_diagonal(C, 1.0)
    values, vectors = np.linalg.eigh(C)
    C = (vectors * np.maximum(values, 0.05)) @ vectors.T
    scale = np.sqrt(np.diagonal(C))
    return np.asarray(C / np.outer(scale, scale) * np.outer(sd, sd))


def residual_start(design: Design, structure: ResidualStructure, residual: Array, mixed: bool) -> Array:
    """phi at the start. residual : (n,) least squares, divided by what weights scale rows by; mixed : there are random effects too."""
    if not isinstance(structure, Grouped):
        return np.zeros(structure.size)
    plain = np.tile(structure.covariance.start(), (structure.groups, 1))
    if mixed or isinstance(structure.covariance, Located) or not isinstance(structure, VisitStructure):
        return structure.unpadded(plain)[1]
    term = design.residual
    assert term is not None and term.visit is not None
    sets = np.zeros(len(residual), np.int64) if term.group is None else term.group.codes
    full = []
    for g in range(structure.groups):
        rows = sets == g
        S = moments(residual[rows], term.subject.codes[rows], term.visit[rows], structure.covariance.q, len(term.subject.levels))
        x = structure.covariance.from_matrix(S)
        full.append(x if _inside(structure, x) else plain[g])
    return structure.unpadded(np.stack(full))[1]


def _inside(structure: Grouped, x: Array) -> bool:
    """Whether a start is a positive definite matrix."""
    T = structure.covariance.factor(x)
    return bool(np.all(np.isfinite(T)) and np.abs(np.diagonal(T)).min() > 1e-6 * np.abs(np.diagonal(T)).max())


RANGES = np.linspace(-2.0, 4.0, 9)
"""Moves of the range of a spatial structure tried for a start, on its free axis: a criterion may have several minima in a range.

Beside random effects only the shorter ones: errors that are alike over a whole subject would stand for its random intercept.
"""


def ranged_start(criterion: Criterion, kernel: SubjectsKernel, start: Array) -> Array:
    """The start with the best of some ranges, where the structure is a function of distances."""
    if not isinstance(kernel.structure, SpatialStructure):
        return start
    size = kernel.structure.covariance.size
    places = kernel.residual_part.start + np.arange(kernel.structure.groups) * size
    moves = RANGES[RANGES <= 0.5] if kernel.random.terms else RANGES
    tried = np.tile(start, (len(moves), 1))
    tried[:, places] += moves[:, None]
    return np.asarray(tried[np.argmin(criterion.values(tried, restricted=True))])
