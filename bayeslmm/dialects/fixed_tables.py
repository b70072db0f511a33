"""SolutionF, CovB and its kin, Tests1 to Tests3, Coef."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array, chained
from bayeslmm.dialects.frames import bound, class_columns, f_row, limits, matrix_columns, stacked, t_columns
from bayeslmm.dialects.run import Run
from bayeslmm.inference.fixed_effects import FTest
from bayeslmm.spec.sas.effects import GLMEffect
from bayeslmm.spec.sas.glm import class_variables
from bayeslmm.spec.sas.hypotheses import hypothesis


def column_names(run: Run) -> tuple[list[str], list[dict[str, str]]]:
    """Effect of every column of X, and its levels by class variable."""
    layout = run.layout
    effects = [layout.effects[column.effect] for column in layout.columns]
    labels = [dict(zip(e.classes, column.labels, strict=True)) for e, column in zip(effects, layout.columns, strict=True)]
    return [e.name for e in effects], labels


def fixed_classes(run: Run) -> list[str]:
    """The class variables of the fixed effects, in the order of CLASS."""
    used = set(class_variables(run.layout.effects))
    return [name for name in run.program.class_names if name in used]


def solution(run: Run) -> pd.DataFrame:
    """Effect, classes, Estimate, StdErr, DF, tValue, Probt[, Alpha, Lower, Upper]; columns that depend on others are 0."""
    names, labels = column_names(run)
    parts = []
    for k, block in enumerate(run.layout.blocks):
        L = np.eye(len(names))[block]
        parts.append(run.effects(k).t(run.ours(L)))
    gone = ~np.isin(np.arange(len(names)), run.space.kept)
    columns = t_columns(chained(parts), gone)
    more = limits(columns, run.program.model.alpha) if run.program.model.cl else {}
    return bound({"Effect": names}, class_columns(fixed_classes(run), labels), columns, more)


def coefficient_covariance(run: Run) -> Array:
    """The covariance of SAS's coefficients, (P, P), 0 where a coefficient is 0."""
    L = np.eye(len(run.layout.columns))
    own = run.ours(L)
    found = own @ run.base.vcov @ own.T
    kept = np.isin(np.arange(len(L)), run.space.kept)
    return np.where(np.outer(kept, kept), found, 0.0)


def covariance_frame(run: Run, kind: str) -> pd.DataFrame:
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
    return bound(head, class_columns(fixed_classes(run), labels), matrix_columns(matrix))


# -- tests of the effects ------------------------------------------------------------------------------------------------------------------


def tested(run: Run) -> Iterator[tuple[int, GLMEffect]]:
    """The effects of the tables of tests: position in the layout, effect."""
    for k, effect in enumerate(run.layout.effects):
        if effect != GLMEffect() or run.program.model.intercept:
            yield k, effect


def tests(run: Run, kind: int) -> pd.DataFrame:
    """Effect, NumDF, DenDF, [ChiSq,] FValue, [ProbChiSq,] ProbF of the type 1, 2 or 3 hypotheses."""
    rows = []
    for k, effect in tested(run):
        L = hypothesis(run.layout, run.space, k, kind)
        test = run.effects(k).f(run.ours(L)) if len(L) else FTest(0, np.nan, np.nan, np.nan)
        rows.append({"Effect": effect.name} | f_row(test, run.program.model.chisq))
    names = ["Effect", *f_row(FTest(0, np.nan, np.nan, np.nan), run.program.model.chisq)]
    return pd.DataFrame(rows, columns=names)


def coefficients(run: Run, title: str, L: Array) -> pd.DataFrame:
    """LMatrix, Effect, classes, Row1, Row2, ...: the rows of a hypothesis, column by column of X."""
    names, labels = column_names(run)
    rows = {f"Row{i + 1}": row for i, row in enumerate(np.atleast_2d(L))}
    return bound({"LMatrix": [title] * len(names), "Effect": names}, class_columns(fixed_classes(run), labels), rows)


def model_coefficients(run: Run) -> list[pd.DataFrame]:
    """What the E options of MODEL ask for: the general form of estimable functions is its basis, the rows of C."""
    found = []
    for kind in run.program.model.e:
        if kind == 0:
            found.append(coefficients(run, "Estimable Functions", run.space.C))
            continue
        for k, effect in tested(run):
            found.append(coefficients(run, f"Type {kind} {effect.name}", hypothesis(run.layout, run.space, k, kind)))
    return found


def coefficient_table(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The Coef table."""
    return stacked(frames)
