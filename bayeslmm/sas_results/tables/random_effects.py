"""SolutionR, and the matrices G, R and V of chosen subjects with their correlations, inverses and Cholesky factors.

MMEQ and MMEQSOL are Henderson's mixed model equations on SAS's columns and their solution,

[ X'R^-1X    X'R^-1Z        ] [ b ]   [ X'R^-1y ]
[ Z'R^-1X    Z'R^-1Z + G^-1 ] [ u ] = [ Z'R^-1y ]

Where G is singular they are those of (b, t) with u = G t: [X'R^-1X, X'R^-1ZG; GZ'R^-1X, GZ'R^-1ZG + G].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import SizeError, SpecificationError
from bayeslmm.inference.fixed_effects.tests import TTests
from bayeslmm.likelihood.prediction import row_variances
from bayeslmm.likelihood.structured.residual_covariance import error_covariance, unit_covariances
from bayeslmm.sas.language.program import RandomStatement
from bayeslmm.sas_results.covariance_parameters import random_covariance, tau_of
from bayeslmm.sas_results.predictions import MAX_V_ROWS, PredictableFunctions
from bayeslmm.sas_results.random_columns import RandomColumn
from bayeslmm.sas_results.rows import class_of
from bayeslmm.sas_results.run import COUNTING, ProgramRun
from bayeslmm.sas_results.tables.fixed_effects import (
    TableColumns,
    bind_columns,
    class_columns,
    column_names,
    limit_columns,
    matrix_columns,
    stack_frames,
    t_columns,
)
from bayeslmm.sas_results.variance_components import MOST_ROWS


def blocks_of(run: ProgramRun, statement: RandomStatement) -> list[int]:
    """Positions of the covariance blocks of a RANDOM statement."""
    found, begin = [], 0
    for own in run.program.random:
        count = _block_count(run, own, begin)
        if own is statement:
            found = list(range(begin, begin + count))
        begin += count
    return found


def _block_count(run: ProgramRun, statement: RandomStatement, begin: int) -> int:
    """How many blocks a statement has: one for each effect with TYPE=VC, one otherwise; as often as GROUP= has levels."""
    if run.translation.blocks[begin].type.known:
        return len(statement.effects) * (statement.type.order or 1 if statement.type.name == "LIN" else 1)
    each = len(statement.effects) if statement.type.name == "VC" else 1
    if statement.group is None:
        return each
    levels = {block.level for block in run.translation.blocks[begin:] if block.group == statement.group.text}
    return each * len(levels)


def require_one_matrix(run: ProgramRun, what: str) -> None:
    """The effects of several matrices add up to one coefficient a level, which is not put together."""
    if any(block.type.name == "LIN" and (block.type.order or 1) > 1 for block in run.translation.blocks):
        raise SpecificationError(f"{what} is not supported beside TYPE=LIN(q) with q > 1", "RANDOM", "result.fit.ranef() has each part")


def random_classes(run: ProgramRun) -> list[str]:
    """The class variables of the random effects, in the order of CLASS."""
    used = {name for column in run.random for name in column.labels}
    return [name for name in run.program.class_names if name in used]


# -- the solution --------------------------------------------------------------------------------------------------------------------------


def random_solution(run: ProgramRun) -> pd.DataFrame:
    """Effect, classes, Subject, Estimate, StdErrPred, DF, tValue, Probt[, Alpha, Lower, Upper]."""
    require_one_matrix(run, "SOLUTION of RANDOM")
    frames = []
    for statement in run.program.random:
        if statement.solution:
            mine = [i for i, column in enumerate(run.random) if column.block in blocks_of(run, statement)]
            frames.append(_solution(run, statement, mine))
    return stack_frames(frames)


def _solution(run: ProgramRun, statement: RandomStatement, mine: Sequence[int]) -> pd.DataFrame:
    own = [run.random[i] for i in mine]
    tests = _tests(run, own, mine)
    columns = t_columns(tests, error="StdErrPred")
    head: TableColumns = {"Effect": [c.effect.name for c in own]} | class_columns(random_classes(run), [c.labels for c in own])
    if any(c.subject for c in own):
        head["Subject"] = [c.subject for c in own]
    more = limit_columns(columns, statement.alpha, "StdErrPred") if statement.cl else {}
    return bind_columns(head, columns, more)


def _tests(run: ProgramRun, own: Sequence[RandomColumn], mine: Sequence[int]) -> TTests:
    fit = run.fit
    estimate = np.array([fit.modes[c.term][c.level, c.column] for c in own])
    Zs, codes = [], []
    for t, term in enumerate(fit.design.terms):
        Z, code = np.zeros((len(own), term.Z.shape[1])), np.full(len(own), -1, dtype=np.int64)
        for i, c in enumerate(own):
            if c.term == t:
                Z[i, c.column], code[i] = 1.0, c.level
        Zs.append(Z)
        codes.append(code)
    variance = row_variances(fit.problem, fit.point, np.zeros((len(own), fit.design.X.shape[1])), Zs, codes)
    se = np.sqrt(np.maximum(variance, 0.0))
    df = np.full(len(own), run.counted.rest)
    if run.translation.df not in COUNTING and fit.nobs <= MAX_V_ROWS:
        M = np.zeros((len(own), len(run.random)))
        M[np.arange(len(own)), list(mine)] = 1.0
        df = PredictableFunctions(run).degrees(np.zeros((len(own), fit.design.X.shape[1])), M)
    with np.errstate(divide="ignore", invalid="ignore"):
        t_value = np.where(se > 0, estimate / se, np.nan)
    return TTests(estimate, np.where(se > 0, se, np.nan), df, t_value, np.asarray(2.0 * special.stdtr(df, -np.abs(t_value))))


# -- matrices ------------------------------------------------------------------------------------------------------------------------------


def _correlation(matrix: Array) -> Array:
    root = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.outer(root, root) > 0, matrix / np.outer(root, root), 0.0))


def _cholesky(matrix: Array) -> Array:
    try:
        return np.asarray(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)


def _row_units(matrix: Array) -> Array:
    """What the rows of a covariance matrix are measured in: a slope is no direction of length 0 for its unit."""
    root = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    return np.where(root > 0.0, root, 1.0)


def _inverse(matrix: Array) -> Array:
    units = np.outer(_row_units(matrix), _row_units(matrix))
    return np.asarray(np.linalg.pinv(matrix / units, hermitian=True) / units)


def _inverse_cholesky(matrix: Array) -> Array:
    root, units = _cholesky(matrix), _row_units(matrix)
    return np.linalg.pinv(root / units[:, None]) / units if np.isfinite(root).all() else root


MATRIX_FORMS: Mapping[str, Callable[[Array], Array]] = {
    "": lambda matrix: matrix,
    "Corr": _correlation,
    "Inv": _inverse,
    "Chol": _cholesky,
    "InvChol": _inverse_cholesky,
}


def form_of(table: str) -> tuple[str, str]:
    """The matrix and the form of a table: `RCorr` is R, "Corr"; `InvCholG` is G, "InvChol"."""
    matrix = table.replace("InvChol", "").replace("Chol", "").replace("Corr", "").replace("Inv", "")
    return matrix, table.replace(matrix, "", 1) if not table.startswith(matrix) else table[len(matrix) :]


def matrix_table(run: ProgramRun, table: str) -> pd.DataFrame:
    """One of the tables R, RCorr, ..., G, GCorr, ..., V, VCorr, ..."""
    matrix, form = form_of(table)
    if matrix == "R":
        assert run.program.repeated is not None
        return _r_table(run, run.program.repeated.blocks, MATRIX_FORMS[form])
    statements = [statement for statement in run.program.random if table in statement.displays]
    if matrix == "G":
        return stack_frames([_g_table(run, MATRIX_FORMS[form])])
    return stack_frames([_v_table(run, statement, MATRIX_FORMS[form]) for statement in statements[:1]])


def _r_table(run: ProgramRun, numbers: Sequence[int], form: Callable[[Array], Array]) -> pd.DataFrame:
    codes = _subject_codes(run, run.translation.within)
    frames = []
    for number in numbers:
        rows = _rows_of(codes, number)
        if len(rows):
            frames.append(_number_rows(number, form(error_covariance(run.fit.problem, run.fit.point, rows))))
    return _stack_subjects(frames, numbers)


def _v_table(run: ProgramRun, statement: RandomStatement, form: Callable[[Array], Array]) -> pd.DataFrame:
    names = run.translation.subject
    codes = _subject_codes(run, names)
    frames = []
    for number in statement.v_blocks:
        rows = _rows_of(codes, number)
        if len(rows) > MAX_V_ROWS:
            raise SpecificationError(f"V of {len(rows)} rows would be shown", statement.spot, "give SUBJECT=, or leave V out")
        if len(rows):
            frames.append(_number_rows(number, form(marginal_v(run, rows))))
    return _stack_subjects(frames, statement.v_blocks)


def _number_rows(number: int, matrix: Array) -> pd.DataFrame:
    return bind_columns({"Index": [number] * len(matrix), "Row": np.arange(1, len(matrix) + 1)}, matrix_columns(matrix))


def _stack_subjects(frames: list[pd.DataFrame], numbers: Sequence[int]) -> pd.DataFrame:
    if not frames:
        raise SpecificationError(f"no subject has the number {numbers[0]}", "R= or V=", "subjects are numbered from 1 as they are sorted")
    return stack_frames(frames)


def marginal_v(run: ProgramRun, rows: Codes) -> Array:
    """V over some rows."""
    fit = run.fit
    V = error_covariance(fit.problem, fit.point, rows)
    for term, D in zip(fit.design.terms, fit.covariances, strict=True):
        Z, codes = term.Z[rows], term.group.codes[rows]
        among = codes[:, None] == codes if term.relationship is None else term.relationship[np.ix_(codes, codes)]
        V = V + among * (Z @ D @ Z.T)
    return np.asarray(V)


def covariance_of(run: ProgramRun, columns: Sequence[RandomColumn]) -> Array:
    """G over some columns of Z: the covariance of their coefficients within a term, times what a known matrix has for their levels."""
    tau = tau_of(run.fit.estimate.x, run.fit.point.sigma2)
    D = [random_covariance(run.fit.problem, t, tau) for t in range(len(run.fit.design.terms))]
    G = np.zeros((len(columns), len(columns)))
    for i, one in enumerate(columns):
        for j, other in enumerate(columns):
            if one.term == other.term:
                known = run.fit.design.terms[one.term].relationship
                between = float(one.level == other.level) if known is None else known[one.level, other.level]
                G[i, j] = between * D[one.term][one.column, other.column]
    return G


def _subject_codes(run: ProgramRun, names: Sequence[str]) -> Codes:
    """The number of the subject of every row used, in the order of its levels; 0 where all rows are one."""
    if not names:
        return np.zeros(run.fit.nobs, dtype=np.int64)
    return np.asarray(class_of(run.rows, names).codes[run.fit.design.rows])


def _rows_of(codes: Codes, number: int) -> Codes:
    return np.flatnonzero(codes == number - 1)


def _g_table(run: ProgramRun, form: Callable[[Array], Array]) -> pd.DataFrame:
    """G of the first subject; of all columns of Z where a statement has none."""
    require_one_matrix(run, "G")
    shown: list[RandomColumn] = []
    for number, block in enumerate(run.translation.blocks):
        own = [column for column in run.random if column.block == number]
        if own and block.subject:
            own = [column for column in own if column.level == own[0].level]
        shown += own
    if len(shown) > MAX_V_ROWS:
        raise SpecificationError(f"G of {len(shown)} columns would be shown", "the option G", "give SUBJECT=, or leave G out")
    head: TableColumns = {"Row": np.arange(1, len(shown) + 1), "Effect": [c.effect.name for c in shown]}
    head |= class_columns(random_classes(run), [c.labels for c in shown])
    if any(c.subject for c in shown):
        head["Subject"] = [c.subject for c in shown]
    return bind_columns(head, matrix_columns(form(covariance_of(run, shown))))


SINGULAR_G = 1e-10
"""Smallest eigenvalue of the correlations of G that is not 0."""


@dataclass(frozen=True, slots=True, eq=False)
class HendersonEquations:
    """matrix : (P + m, P + m); right : (P + m,); back : (P + m, P + m) from what is solved for to (b, u); kept : columns that count."""

    matrix: Array
    right: Array
    back: Array
    kept: Array

    def solve(self) -> tuple[Array, Array]:
        """The inverse and the solution in terms of b and u; 0 for columns of X that depend on others."""
        size = len(self.right)
        inverse = np.zeros((size, size))
        matrix = self.matrix[np.ix_(self.kept, self.kept)]
        inverse[np.ix_(self.kept, self.kept)] = _inverse(matrix)
        solution = inverse @ self.right
        return self.back @ inverse @ self.back.T, self.back @ solution


def henderson_equations(run: ProgramRun) -> HendersonEquations:
    """The equations of a run."""
    require_one_matrix(run, "MMEQ")
    fit, problem, design = run.fit, run.fit.problem, run.fit.design
    n, m, P = design.nobs, len(run.random), len(run.layout.columns)
    if n > MOST_ROWS or P + m > MOST_ROWS:
        raise SizeError(
            f"the mixed model equations take dense matrices of {n:,} rows and {P + m:,} columns", "MMEQ", f"up to {MOST_ROWS:,}"
        )
    if run.components is not None and not (run.components.t > 0.0).all():
        raise SpecificationError("MMEQ is not there where a variance is not above 0", run.program.proc.spot, "leave NOBOUND out")
    R = problem.sigma2(fit.point.sigma2) * unit_covariances(problem, fit.estimate.x, np.arange(n)[None])[0]
    Z, G = np.zeros((n, m)), covariance_of(run, run.random)
    for i, one in enumerate(run.random):
        term = design.terms[one.term]
        Z[:, i] = np.where(term.group.codes == one.level, term.Z[:, one.column], 0.0)
    y = design.y if design.offset is None else design.y - design.offset
    columns = np.column_stack([run.layout.X, Z])
    weighted = np.linalg.solve(R, np.column_stack([columns, y]))
    back, own = np.eye(P + m), np.zeros((P + m, P + m))
    sd = np.sqrt(np.diagonal(G))
    # as correlations: the unit of a slope makes no matrix singular
    if not m or (sd.all() and np.linalg.eigvalsh(G / np.outer(sd, sd))[0] > SINGULAR_G):
        own[P:, P:] = np.linalg.inv(G)
    else:
        back[P:, P:], own[P:, P:] = G, G
    both = columns @ back
    matrix = both.T @ weighted[:, :-1] @ back + own
    kept = np.concatenate([run.space.kept, np.arange(P, P + m)])
    return HendersonEquations(0.5 * (matrix + matrix.T), both.T @ weighted[:, -1], back, kept)


def equations_table(run: ProgramRun, *, solved: bool) -> pd.DataFrame:
    """Row, Effect, classes, Subject, Col1, ...: coefficients and, last, the right side; or their inverse and the solution."""
    found = henderson_equations(run)
    matrix, last = found.solve() if solved else (found.matrix, found.right)
    names, labels = column_names(run)
    names = [*names, *(column.effect.name for column in run.random)]
    labels = [*labels, *(dict(column.labels) for column in run.random)]
    used = {name for label in labels for name in label}
    head: TableColumns = {"Row": np.arange(1, len(names) + 1), "Effect": names}
    head |= class_columns([name for name in run.program.class_names if name in used], labels)
    if any(column.subject for column in run.random):
        head["Subject"] = [*[""] * len(run.layout.columns), *(column.subject for column in run.random)]
    return bind_columns(head, matrix_columns(np.column_stack([matrix, last])))
