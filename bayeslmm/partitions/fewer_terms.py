"""Problems with fewer columns of random effects: of rows in memory, or from the sums of a larger one, where no row is read again.

Columns Z A of a term have the cross-products A' Z'Z A. Between standardized columns A is well conditioned; it is found from rows that stand
for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes, freeze, freeze_codes
from bayeslmm.data.design import Design, OwnFrame, RandomTerm
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.likelihood.problem import Problem, build_problem, problem_from_sums
from bayeslmm.likelihood.random_effects.cross_products import Accumulator, Factor, PairSums, factors_of
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.partitions.design import PartitionedDesign, copy_without, drop_row_arrays
from bayeslmm.partitions.sums import standardization_of


def standing_rows(design: Design) -> Design:
    """The design whose columns are chosen: itself, or where rows were added up one of a few rows that stand for all."""
    if not isinstance(design, PartitionedDesign):
        return design
    moments = design.summed.moments
    columns, width = moments.columns.rows(), len(design.coef_names)
    y = columns[:, width] - columns[:, width + 1 :].sum(axis=1)
    terms = tuple(
        RandomTerm(
            GroupingFactor(term.group.name, term.group.levels, freeze_codes(np.zeros(0, np.int64)), term.group.columns),
            freeze(block.rows()),
            term.columns,
            term.spec,
            term.covariance,
            term.relationship,
        )
        for term, block in zip(design.terms, moments.blocks, strict=True)
    )
    known: dict[str, Any] = {
        "y": y,
        "X": columns[:, list(design.kept)],
        "weights": None,
        "offset": None,
        "terms": terms,
        "rows": np.arange(len(y)),
        "index": pd.RangeIndex(len(y)),
        "own_frame": OwnFrame(pd.DataFrame(), ()),
    }
    return cast(Design, copy_without(Design, design, set(), known))


def problem_with_terms(design: Design, smaller: Design) -> Problem:
    """The problem of a design made of the `standing_rows` of another, its terms combinations of columns of terms there."""
    if not isinstance(design, PartitionedDesign):
        return build_problem(smaller)
    rows = design.summed
    with one_thread():
        large = standing_rows(design)
        before, after = (standardization_of(own, rows.survey, rows.scale) for own in (large, smaller))
        place = {id(term.spec): i for i, term in enumerate(large.terms)}
        source = [place[id(term.spec)] for term in smaller.terms]
        changes = [
            _change(before.maps[i].apply(large.terms[i].Z), after.maps[j].apply(term.Z))
            for j, (i, term) in enumerate(zip(source, smaller.terms, strict=True))
        ]
        factors = factors_of(smaller)
        total = Accumulator.empty(factors, rows.sums.sums.r, after.maps)
        _fill(total, rows.sums.sums, [_by_factor(factor, rows.sums.factors, source, changes) for factor in factors])
        Zs = [design.summary.Zs[i] @ _change(large.terms[i].Z, term.Z) for i, term in zip(source, smaller.terms, strict=True)]
        known = {"weights": None} if design.spec.weights is None else {}
        rowless = drop_row_arrays(smaller, replace(design.summary, Zs=tuple(Zs)), known)
        return problem_from_sums(rowless, after, total.finish(), total)


def _change(columns: Array, wanted: Array) -> Array:
    """A with columns A = wanted."""
    return np.asarray(np.linalg.lstsq(columns, wanted, rcond=None)[0])


def _by_factor(factor: Factor, before: Sequence[Factor], source: Sequence[int], changes: Sequence[Array]) -> tuple[int, Array]:
    """The factor of the larger problem that a factor was, and how its columns (q before, q) come of those."""
    number = next(f for f, own in enumerate(before) if source[factor.terms[0]] in own.terms)
    known = before[number]
    A = np.zeros((known.q, factor.q))
    for j, own in zip(factor.terms, factor.slices, strict=True):
        A[known.slices[known.terms.index(source[j])], own] = changes[j]
    return number, A


def _fill(total: Accumulator, sums: Accumulator, changes: Sequence[tuple[int, Array]]) -> None:
    """Sums of changed columns. changes : for every factor, which it was and how its columns come of those"""
    total.n, total.Xy = sums.n, sums.Xy.copy()
    for f, (g, A) in enumerate(changes):
        lower = sums.diagonal[g]
        symmetric = np.array([[lower[max(a, b), min(a, b)] for b in range(len(lower))] for a in range(len(lower))])
        with_Xy = sums.with_Xy[g].copy()
        for j, b in sums.shared[g].items():
            with_Xy[:, j] = symmetric[:, b]
        total.diagonal[f] = np.einsum("ai,abk,bj->ijk", A, symmetric, A, optimize=True)
        total.with_Xy[f] = np.einsum("ai,ark->irk", A, with_Xy)
    for (f, g), lines in total.pairs.items():
        (one, A), (other, B) = changes[f], changes[g]
        transposed = one > other
        known = sums.pairs[(other, one) if transposed else (one, other)]
        entries = [[_entries(pairs, transposed) for pairs in line] for line in known]
        for a, line in enumerate(lines):
            for b, target in enumerate(line):
                row, column, _ = entries[0][0]
                values = np.zeros(len(row))
                for i in range(len(A)):
                    for j in range(len(B)):
                        values += A[i, a] * B[j, b] * (entries[j][i] if transposed else entries[i][j])[2]
                target.add(row, column, values)


def _entries(pairs: PairSums, transposed: bool) -> tuple[Codes, Codes, Array]:
    row, column, values = pairs.entries()
    return (column, row, values) if transposed else (row, column, values)
