"""`varcorr`, D by grouping factor, conditional modes and coefficients by level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.covariance.products import axis_sizes
from bayeslmm.data.design import RandomTerm
from bayeslmm.data.frame import text_array
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import one_sigma, residual_parameters, residual_sets, visit_covariances

DIAGONAL_STRUCTURES = frozenset({"diag", "id"})
"""Structures whose covariances are 0 by construction."""


@dataclass(frozen=True, slots=True)
class VarCorrRow:
    """A variance (`second` is None) or a covariance of a term, with its sd or its correlation."""

    group: str
    first: str
    second: str | None
    variance: float
    sd: float
    corr: float


def terms_by_group(terms: Sequence[RandomTerm]) -> dict[str, list[int]]:
    """Grouping factor -> positions of its terms, in the order of the formula."""
    found: dict[str, list[int]] = {}
    for i, term in enumerate(terms):
        found.setdefault(term.group.name, []).append(i)
    return found


def merge_covariances(terms: Sequence[RandomTerm], matrices: Sequence[Array]) -> dict[str, pd.DataFrame]:
    """Grouping factor -> the block-diagonal covariance of the columns of all its terms."""
    frames = {}
    for group, members in terms_by_group(terms).items():
        names = [name for i in members for name in terms[i].columns]
        whole, begin = np.zeros((len(names), len(names))), 0
        for i in members:
            end = begin + len(matrices[i])
            whole[begin:end, begin:end] = matrices[i]
            begin = end
        frames[group] = pd.DataFrame(whole, index=names, columns=names)
    return frames


def varcorr_rows(terms: Sequence[RandomTerm], matrices: Sequence[Array]) -> Iterator[VarCorrRow]:
    """Variances of a term, then its covariances column by column, term after term, grouping factors in the order of the formula."""
    for group, members in terms_by_group(terms).items():
        for i in members:
            yield from _of_term(group, terms[i], matrices[i])


def _of_term(group: str, term: RandomTerm, matrix: Array) -> Iterator[VarCorrRow]:
    sds = np.sqrt(np.diagonal(matrix))
    for a in told_columns(term):
        yield VarCorrRow(group, term.columns[a], None, float(sds[a] ** 2), float(sds[a]), np.nan)
    for a, b in told_pairs(term):
        scale = float(sds[a] * sds[b])
        corr = float(np.clip(matrix[a, b] / scale, -1.0, 1.0)) if scale > 0 else np.nan
        yield VarCorrRow(group, term.columns[a], term.columns[b], float(matrix[a, b]), np.nan, corr)


def told_columns(term: RandomTerm) -> list[int]:
    """The columns of a term whose sds are reported: all, but of a product of structures those that tell the others."""
    axes = axis_sizes(term.covariance)
    if axes and term.covariance.homogeneous:
        return [0]
    return sorted({row for along in _along(axes) for row in along}) if axes else list(range(len(term.columns)))


def told_pairs(term: RandomTerm) -> list[tuple[int, int]]:
    """The pairs of columns whose correlations are reported: all, but of a product those along each of its factors, or one step of it."""
    if term.covariance.name in DIAGONAL_STRUCTURES:
        return []
    axes = axis_sizes(term.covariance)
    if not axes:
        return list(combinations(range(len(term.columns)), 2))
    lines = [along[:2] if one else along for along, (_, one) in zip(_along(axes), axes, strict=True)]
    return [pair for line in lines for pair in combinations(line, 2)]


def _along(axes: tuple[tuple[int, bool], ...]) -> list[list[int]]:
    """The rows of a product along each factor, the others at their first level."""
    sizes = [size for size, _ in axes]
    return [[level * prod(sizes[k + 1 :]) for level in range(size)] for k, size in enumerate(sizes)]


def residual_rows(problem: Problem, x: Array, sigma: Array) -> Iterator[VarCorrRow]:
    """Variances of the errors, means over draws of x (S, size) and sigma (S,): one, one of each group, or those of visits and pairs."""
    if one_sigma(problem):
        yield VarCorrRow("Residual", "", None, float((sigma**2).mean()), float(sigma.mean()), np.nan)
        return
    sets = residual_sets(problem)
    if sets[0].covariance.homogeneous:
        named = [dict(residual_parameters(problem, *draw)) for draw in zip(x, sigma, strict=True)]
        for own in sets:
            sd = np.array([values[own.names[0]] for values in named])
            yield VarCorrRow(f"Residual{own.suffix}", "", None, float((sd**2).mean()), float(sd.mean()), np.nan)
        return
    assert problem.design.residual is not None
    visits = list(map(str, problem.design.residual.visit_levels))
    R = np.array([visit_covariances(problem, *draw) for draw in zip(x, sigma, strict=True)])  # (S, groups, m, m)
    sds = np.sqrt(np.diagonal(R, axis1=-2, axis2=-1))
    scale = sds[..., :, None] * sds[..., None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = np.clip(np.where(scale > 0.0, R / scale, np.nan), -1.0, 1.0).mean(0)
    for own, variance, sd, correlation in zip(sets, R.mean(0), sds.mean(0), correlations, strict=True):
        group = f"Residual{own.suffix}"
        for a, visit in enumerate(visits):
            yield VarCorrRow(group, visit, None, float(variance[a, a]), float(sd[a]), np.nan)
        for a, b in combinations(range(len(visits)), 2):
            yield VarCorrRow(group, visits[a], visits[b], float(variance[a, b]), np.nan, float(correlation[a, b]))


def varcorr_frame(rows: Sequence[VarCorrRow]) -> pd.DataFrame:
    """`group, term1, term2, variance, sd, corr`."""
    return pd.DataFrame(
        {
            "group": [row.group for row in rows],
            "term1": [row.first or None for row in rows],
            "term2": text_array([row.second for row in rows]),
            "variance": [row.variance for row in rows],
            "sd": [row.sd for row in rows],
            "corr": [row.corr for row in rows],
        }
    )
