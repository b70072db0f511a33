"""ODS tables of the fixed effects: SolutionF, CovB and its kin, Tests1 to Tests3, Coef."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, Mask, concatenate_fields
from bayeslmm.inference.fixed_effects.tests import FTest, TTests
from bayeslmm.sas.glm_coding import class_variables
from bayeslmm.sas.hypotheses import hypothesis
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas_results.run import ProgramRun

TableColumns = dict[str, Any]


def class_columns(names: Sequence[str], rows: Sequence[Mapping[str, str]], prefix: str = "") -> TableColumns:
    """A column for each class variable, blank where a row does not have it."""
    return {prefix + name: [row.get(name, "") for row in rows] for name in names}


def t_columns(tests: TTests, zero: Mask | None = None, error: str = "StdErr") -> TableColumns:
    """Estimate, StdErr, DF, tValue, Probt; rows where `zero` have the estimate 0 and no more."""
    gone = np.zeros(len(tests.estimate), dtype=np.bool_) if zero is None else np.asarray(zero, dtype=np.bool_)
    columns = {error: tests.std_error, "DF": tests.df, "tValue": tests.statistic, "Probt": tests.p_value}
    return {"Estimate": np.where(gone, 0.0, tests.estimate)} | {k: np.where(gone, np.nan, v) for k, v in columns.items()}


def limit_columns(columns: TableColumns, alpha: float, error: str = "StdErr", tail: str = "") -> TableColumns:
    """Alpha, Lower, Upper from the estimate, its standard error and its degrees of freedom."""
    estimate, se, df = (np.asarray(columns[name], float) for name in ("Estimate", error, "DF"))
    half = t_quantile(1.0 - alpha if tail else 1.0 - 0.5 * alpha, df) * se
    lower = np.full(len(se), -np.inf) if tail == "lower" else estimate - half
    upper = np.full(len(se), np.inf) if tail == "upper" else estimate + half
    known = np.isfinite(se)
    return {
        "Alpha": np.where(known, alpha, np.nan),
        "Lower": np.where(known, lower, np.nan),
        "Upper": np.where(known, upper, np.nan),
    }


def t_quantile(level: float, df: Array) -> Array:
    """Quantile of t; of the normal where df is infinite; NaN where it is not positive."""
    with np.errstate(invalid="ignore"):
        found = np.where(np.isinf(df), special.ndtri(level), special.stdtrit(np.where(np.isinf(df), 1.0, df), level))
    return np.asarray(found)


def where_known(known: Mask, tests: TTests) -> TTests:
    """The tests with NaN in the rows that are not known."""
    columns = (tests.estimate, tests.std_error, tests.df, tests.statistic, tests.p_value)
    return TTests(*(np.where(known, column, np.nan) for column in columns))


def f_row(test: FTest, chisq: bool) -> TableColumns:
    """NumDF, DenDF, [ChiSq,] FValue, [ProbChiSq,] ProbF of one test."""
    row: TableColumns = {"NumDF": test.num_df, "DenDF": test.den_df}
    if chisq:
        row["ChiSq"] = test.statistic * test.num_df
    row["FValue"] = test.statistic
    if chisq:
        row["ProbChiSq"] = float(special.chdtrc(test.num_df, test.statistic * test.num_df)) if test.num_df else np.nan
    return row | {"ProbF": test.p_value}


def matrix_columns(matrix: Array) -> TableColumns:
    """Col1, Col2, ..."""
    return {f"Col{j + 1}": matrix[:, j] for j in range(matrix.shape[1])}


def bind_columns(*parts: Mapping[str, Any]) -> pd.DataFrame:
    """Columns side by side."""
    whole: TableColumns = {}
    for part in parts:
        whole |= part
    return pd.DataFrame(whole)


def stack_frames(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames below one another; columns that some lack are blank (texts) or missing (numbers)."""
    shown = [frame for frame in frames if len(frame)]
    if len(shown) <= 1:
        return shown[0].reset_index(drop=True) if shown else (frames[0] if frames else pd.DataFrame())
    whole = pd.concat(shown, ignore_index=True)
    for name in whole.columns:
        if any(name not in frame for frame in shown) and any(pd.api.types.is_string_dtype(f[name].dtype) for f in shown if name in f):
            whole[name] = whole[name].astype(object).where(whole[name].notna(), "")
    return whole


def column_names(run: ProgramRun) -> tuple[list[str], list[dict[str, str]]]:
    """Effect of every column of X, and its levels by class variable."""
    layout = run.layout
    effects = [layout.effects[column.effect] for column in layout.columns]
    labels = [dict(zip(e.classes, column.labels, strict=True)) for e, column in zip(effects, layout.columns, strict=True)]
    return [e.name for e in effects], labels


def fixed_classes(run: ProgramRun) -> list[str]:
    """The class variables of the fixed effects, in the order of CLASS."""
    used = set(class_variables(run.layout.effects))
    return [name for name in run.program.class_names if name in used]


def solution_table(run: ProgramRun) -> pd.DataFrame:
    """Effect, classes, Estimate, StdErr, DF, tValue, Probt[, Alpha, Lower, Upper]; columns that depend on others are 0."""
    names, labels = column_names(run)
    parts = []
    for k, block in enumerate(run.layout.blocks):
        L = np.eye(len(names))[block]
        parts.append(run.effects(k).t(run.ours(L)))
    gone = ~np.isin(np.arange(len(names)), run.space.kept)
    columns = t_columns(concatenate_fields(parts), gone)
    more = limit_columns(columns, run.program.model.alpha) if run.program.model.cl else {}
    return bind_columns({"Effect": names}, class_columns(fixed_classes(run), labels), columns, more)


def coefficient_covariance(run: ProgramRun) -> Array:
    """The covariance of SAS's coefficients, (P, P), 0 where a coefficient is 0."""
    L = np.eye(len(run.layout.columns))
    own = run.ours(L)
    found = run.base.covariance(own)
    kept = np.isin(np.arange(len(L)), run.space.kept)
    return np.where(np.outer(kept, kept), found, 0.0)


def covariance_frame(run: ProgramRun, kind: str) -> pd.DataFrame:
    """CovB, CorrB or InvCovB: Row, Effect, classes, Col1, ..."""
    matrix, kept = coefficient_covariance(run), run.space.kept
    if kind == "CorrB":
        root = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            matrix = np.where(np.outer(root, root) > 0, matrix / np.outer(root, root), 0.0)
    if kind == "InvCovB":
        inverse = np.zeros_like(matrix)
        inverse[np.ix_(kept, kept)] = np.linalg.inv(matrix[np.ix_(kept, kept)])
        matrix = inverse
    names, labels = column_names(run)
    head = {"Row": np.arange(1, len(names) + 1), "Effect": names}
    return bind_columns(head, class_columns(fixed_classes(run), labels), matrix_columns(matrix))


# -- tests of the effects ------------------------------------------------------------------------------------------------------------------


def tested_effects(run: ProgramRun) -> Iterator[tuple[int, GLMEffect]]:
    """The effects of the tables of tests: position in the layout, effect."""
    for k, effect in enumerate(run.layout.effects):
        if effect != GLMEffect() or run.program.model.intercept:
            yield k, effect


def effect_test(run: ProgramRun, position: int, kind: int) -> FTest:
    """The F test of one effect of the layout; NaN where nothing is left to test."""
    L = hypothesis(run.layout, run.space, position, kind)
    return run.effects(position).joint(run.ours(L)) if len(L) else FTest(0, np.nan, np.nan, np.nan)


def tests_table(run: ProgramRun, kind: int) -> pd.DataFrame:
    """Effect, NumDF, DenDF, [ChiSq,] FValue, [ProbChiSq,] ProbF of the type 1, 2 or 3 hypotheses."""
    rows = []
    for k, effect in tested_effects(run):
        rows.append({"Effect": effect.name} | f_row(effect_test(run, k, kind), run.program.model.chisq))
    names = ["Effect", *f_row(FTest(0, np.nan, np.nan, np.nan), run.program.model.chisq)]
    return pd.DataFrame(rows, columns=names)


def component_table(run: ProgramRun) -> pd.DataFrame:
    """Effect, Type, Index, Estimate, StdErr, DF, tValue, Probt: each row of the hypotheses of the tests of effects by itself."""
    frames = []
    for kind in sorted(run.program.model.htype):
        for k, effect in tested_effects(run):
            L = hypothesis(run.layout, run.space, k, kind)
            if len(L):
                head = {"Effect": [effect.name] * len(L), "Type": [kind] * len(L), "Index": np.arange(1, len(L) + 1)}
                frames.append(bind_columns(head, t_columns(run.effects(k).t(run.ours(L)))))
    return stack_frames(frames)


def l_matrix(run: ProgramRun, title: str, L: Array) -> pd.DataFrame:
    """LMatrix, Effect, classes, Row1, Row2, ...: the rows of a hypothesis, column by column of X."""
    names, labels = column_names(run)
    rows = {f"Row{i + 1}": row for i, row in enumerate(np.atleast_2d(L))}
    return bind_columns({"LMatrix": [title] * len(names), "Effect": names}, class_columns(fixed_classes(run), labels), rows)


def model_coefficients(run: ProgramRun) -> list[pd.DataFrame]:
    """What the E options of MODEL ask for: the general form of estimable functions is its basis, the rows of C."""
    found = []
    for kind in run.program.model.e:
        if kind == 0:
            found.append(l_matrix(run, "Estimable Functions", run.space.C))
            continue
        for k, effect in tested_effects(run):
            found.append(l_matrix(run, f"Type {kind} {effect.name}", hypothesis(run.layout, run.space, k, kind)))
    return found


def coef_table(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The Coef table."""
    return stack_frames(frames)
