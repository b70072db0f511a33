"""LSMESTIMATE and SLICE: combinations of least-squares means, and the means of an interaction within the levels of its parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.fixed_effects.tests import FTest, TTests
from bayeslmm.sas.glm_coding import estimable
from bayeslmm.sas.hypotheses import slice_groups
from bayeslmm.sas.language.effects import GLMEffect, glm_effect
from bayeslmm.sas.language.program import LSMEstimateRow, LSMEstimateStatement, SliceStatement
from bayeslmm.sas_results.run import ProgramRun
from bayeslmm.sas_results.tables.fixed_effects import (
    TableColumns,
    bind_columns,
    class_columns,
    f_row,
    l_matrix,
    limit_columns,
    stack_frames,
    t_columns,
)
from bayeslmm.sas_results.tables.requests import (
    LSMeansFamily,
    adjust_family,
    adjustment_df,
    check_adjustment,
    correlation_of,
    means_of,
    one_sided,
    row_tests,
    slice_test,
)

_OF_PAIRS = {"tukey": "all differences", "dunnett": "differences from a control"}

# -- LSMESTIMATE ---------------------------------------------------------------------------------------------------------------------------


def estimate_rows(run: ProgramRun, statement: LSMEstimateStatement) -> tuple[LSMeansFamily, Array]:
    """The means of the statement, and its rows on SAS's columns."""
    family = next(means_of(run, statement.means))
    weights = np.stack([_weights(run, family, row) for row in statement.rows])
    return family, weights @ family.L


def _weights(run: ProgramRun, family: LSMeansFamily, row: LSMEstimateRow) -> Array:
    """A coefficient for each mean; those that are not given are 0."""
    spot, m = family.statement.spot, len(family.labels)
    if len(row.values) > m:
        what = f"LSMESTIMATE gives {len(row.values)} coefficients for the {m} means of {family.effect.name}"
        raise SpecificationError(what, spot, "one for each mean, in the order of the LSMEANS table")
    found = np.zeros(m)
    found[: len(row.values)] = row.values
    written = [name for name in family.statement.effects[0].variables if name in family.effect.classes]
    known = {name: list(run.rows.classes[name].levels) for name in written}
    for coefficient in row.levels:
        if len(coefficient.levels) != len(written) or any(k > len(known[n]) for n, k in zip(written, coefficient.levels, strict=True)):
            sizes = ", ".join(f"{name} from 1 to {len(known[name])}" for name in written)
            raise SpecificationError(f"LSMESTIMATE: there is no mean [{' '.join(map(str, coefficient.levels))}]", spot, f"levels: {sizes}")
        at = {name: known[name][k - 1] for name, k in zip(written, coefficient.levels, strict=True)}
        label = tuple(at[name] for name in family.effect.classes)
        if label not in family.labels:
            raise SpecificationError(f"LSMESTIMATE: {' '.join(label)} does not occur", spot, "name levels that the data have together")
        found[family.labels.index(label)] += coefficient.value
    return found / row.divisor


def lsm_estimates(run: ProgramRun) -> pd.DataFrame:
    """Effect, Label, [TestValue,] Estimate, StdErr, DF, tValue, Probt[, Adjustment, Adjp][, Alpha, Lower, Upper[, AdjLower, AdjUpper]]."""
    return stack_frames([_estimates(run, statement) for statement in run.program.lsmestimates])


def _estimates(run: ProgramRun, statement: LSMEstimateStatement) -> pd.DataFrame:
    family, L = estimate_rows(run, statement)
    means, r = statement.means, len(L)
    rhs = np.array([*statement.testvalue, *[0.0] * (r - len(statement.testvalue))])
    tests = row_tests(run, family, L, estimable(run.space, L), rhs)
    columns = t_columns(tests)
    if statement.tail:
        columns["Probt"] = one_sided(tests, statement.tail)
    head: TableColumns = {"Effect": [family.effect.name] * r, "Label": [row.label or f"Row {i}" for i, row in enumerate(statement.rows, 1)]}
    if statement.testvalue:
        head["TestValue"] = rhs
    if means.adjust in _OF_PAIRS:
        remedy = "adjust=bon, sidak, scheffe, smm or simulate"
        raise SpecificationError(f"ADJUST={means.adjust.upper()} is for {_OF_PAIRS[means.adjust]}", means.spot, remedy)
    return bind_columns(head, columns, _adjustment(run, family, L, tests, columns, r, statement.tail))


def _adjustment(
    run: ProgramRun, family: LSMeansFamily, L: Array, tests: TTests, columns: TableColumns, count: int, tail: str = ""
) -> TableColumns:
    """Adjusted p values and limits of a family of rows."""
    statement, more = family.statement, TableColumns()
    if statement.adjust != "none":
        found = adjust_family(
            statement.adjust, tests, adjustment_df(run, family, tests), correlation_of(run, L), count, statement.alpha, tail
        )
        more = {"Adjustment": [found.name] * len(L), "Adjp": found.p}
    if statement.cl:
        more |= limit_columns(columns, statement.alpha, tail=tail)
        if statement.adjust != "none":
            more |= {"AdjLower": tests.estimate - found.lower, "AdjUpper": tests.estimate + found.upper}
    return more


def lsm_joint_tests(run: ProgramRun) -> pd.DataFrame:
    """Effect, NumDF, DenDF, [ChiSq,] FValue, [ProbChiSq,] ProbF: all rows of an LSMESTIMATE at once."""
    rows = []
    for statement in run.program.lsmestimates:
        if statement.joint:
            family, L = estimate_rows(run, statement)
            fine = bool(estimable(run.space, L).all())
            rhs = np.array([*statement.testvalue, *[0.0] * (len(L) - len(statement.testvalue))])
            effects = run.effects(family.position, statement.means.df)
            test = effects.joint(run.ours(L), rhs) if fine else FTest(0, np.nan, np.nan, np.nan)
            rows.append({"Effect": family.effect.name} | f_row(test, statement.chisq))
    return pd.DataFrame(rows)


# -- SLICE ---------------------------------------------------------------------------------------------------------------------------------


def _slices(run: ProgramRun, statement: SliceStatement) -> Iterator[tuple[LSMeansFamily, str, list[int]]]:
    """The means of each slice; SLICEBY= not given, by each variable of the effect in turn."""
    family = next(means_of(run, statement.means))
    names = run.program.class_names
    by = [glm_effect(effect, names) for effect in statement.by] or [GLMEffect(crossed=(name,)) for name in family.effect.classes]
    for part in by:
        for label, members in slice_groups(family.effect, family.labels, part):
            yield family, " ".join(f"{name} {level}" for name, level in zip(part.classes, label, strict=True)), list(members)


def slice_f_tests(run: ProgramRun) -> pd.DataFrame:
    """Effect, Slice, NumDF, DenDF, FValue, ProbF."""
    rows = []
    for statement in run.program.slices:
        if not statement.nof:
            for family, name, members in _slices(run, statement):
                rows.append({"Effect": family.effect.name, "Slice": name} | f_row(slice_test(run, family, members), chisq=False))
    return pd.DataFrame(rows)


def slice_means(run: ProgramRun) -> pd.DataFrame:
    """Effect, Slice, classes, Estimate, StdErr, DF, tValue, Probt[, Alpha, Lower, Upper]."""
    frames = []
    for statement in run.program.slices:
        for family, name, members in _slices(run, statement) if statement.means_shown else ():
            columns = t_columns(row_tests(run, family, family.L[members], family.fine[members]))
            more = limit_columns(columns, statement.means.alpha) if statement.means.cl else {}
            frames.append(bind_columns(_head(family, name, members), columns, more))
    return stack_frames(frames)


def slice_differences(run: ProgramRun) -> pd.DataFrame:
    """Effect, Slice, classes, _classes, Estimate, ..., as Diffs has it; each slice is a family of its own for ADJUST=."""
    frames = []
    for statement in run.program.slices:
        diff, means = statement.means.diff, statement.means
        for family, name, members in _slices(run, statement) if diff else ():
            pairs = _pairs(family, members, means.controls, diff or "all")
            L = np.array([family.L[i] - family.L[j] for i, j in pairs]).reshape(-1, family.L.shape[1])
            if not pairs:
                continue
            tests = row_tests(run, family, L, estimable(run.space, L))
            columns, tail = t_columns(tests), {"controll": "lower", "controlu": "upper"}.get(diff or "", "")
            if tail:
                columns["Probt"] = one_sided(tests, tail)
            if means.adjust != "none":
                check_adjustment(means.adjust, diff or "all")
            right = class_columns(family.effect.classes, [family.class_values(j) for _, j in pairs], "_")
            more = _adjustment(run, family, L, tests, columns, len(members), tail)
            frames.append(bind_columns(_head(family, name, [i for i, _ in pairs]), right, columns, more))
    return stack_frames(frames)


def _pairs(family: LSMeansFamily, members: Sequence[int], controls: Sequence[str], diff: str) -> list[tuple[int, int]]:
    """Positions of the means subtracted, within one slice."""
    if diff == "all":
        return [(i, j) for a, i in enumerate(members) for j in members[a + 1 :]]
    wanted = tuple(c.strip() for c in controls)
    target = next((k for k in members if not wanted or family.labels[k] == wanted or set(wanted) <= set(family.labels[k])), None)
    if target is None:
        raise SpecificationError(
            f"DIFF=CONTROL: {' '.join(wanted)} is not a level of the slice", family.statement.spot, "name a level of it"
        )
    return [(i, target) for i in members if i != target]


def _head(family: LSMeansFamily, name: str, members: Sequence[int]) -> TableColumns:
    m = len(members)
    own = class_columns(family.effect.classes, [family.class_values(i) for i in members])
    return {"Effect": [family.effect.name] * m, "Slice": [name] * m} | own


def statement_coefficients(run: ProgramRun) -> Iterator[pd.DataFrame]:
    """What the E options of LSMESTIMATE and SLICE ask for."""
    for statement in run.program.lsmestimates:
        if statement.means.e:
            family, L = estimate_rows(run, statement)
            yield l_matrix(run, f"{family.effect.name} Least Squares Means Estimates", L)
    for sliced in run.program.slices:
        for family, name, members in _slices(run, sliced) if sliced.means.e else ():
            yield l_matrix(run, f"{family.effect.name} Least Squares Means, {name}", family.L[members])
