"""MMEQ and MMEQSOL: Henderson's mixed model equations on SAS's columns, and their solution.

    [ X'R^-1X    X'R^-1Z        ] [ b ]   [ X'R^-1y ]
    [ Z'R^-1X    Z'R^-1Z + G^-1 ] [ u ] = [ Z'R^-1y ]

Where G is singular they are those of (b, t) with u = G t: [X'R^-1X, X'R^-1ZG; GZ'R^-1X, GZ'R^-1ZG + G].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.errors import SizeError, SpecificationError
from bayeslmm.likelihood.structured.residual_covariance import unit_covariances
from bayeslmm.sas_results.covariance_parameters import random_covariance, tau_of
from bayeslmm.sas_results.run import ProgramRun
from bayeslmm.sas_results.tables.fixed_effects import TableColumns, bind_columns, class_columns, column_names, matrix_columns
from bayeslmm.sas_results.variance_components import MOST_ROWS

SINGULAR_G = 1e-10
"""Smallest eigenvalue of G, relative to the largest, that is not 0."""


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
        inverse[np.ix_(self.kept, self.kept)] = np.linalg.pinv(self.matrix[np.ix_(self.kept, self.kept)], hermitian=True)
        solution = inverse @ self.right
        return self.back @ inverse @ self.back.T, self.back @ solution


def henderson_equations(run: ProgramRun) -> HendersonEquations:
    """The equations of a run."""
    fit, problem, design = run.fit, run.fit.problem, run.fit.design
    n, m, P = design.nobs, len(run.random), len(run.layout.columns)
    if n > MOST_ROWS or P + m > MOST_ROWS:
        raise SizeError(
            f"the mixed model equations take dense matrices of {n:,} rows and {P + m:,} columns", "MMEQ", f"up to {MOST_ROWS:,}"
        )
    if run.components is not None and not (run.components.t > 0.0).all():
        raise SpecificationError("MMEQ is not there where a variance is not above 0", run.program.proc.spot, "leave NOBOUND out")
    tau = tau_of(fit.estimate.x, fit.point.sigma2)
    R = problem.sigma2(fit.point.sigma2) * unit_covariances(problem, fit.estimate.x, np.arange(n)[None])[0]
    Z, G = np.zeros((n, m)), np.zeros((m, m))
    D = [random_covariance(problem, t, tau) for t in range(len(design.terms))]
    for i, one in enumerate(run.random):
        term = design.terms[one.term]
        Z[:, i] = np.where(term.group.codes == one.level, term.Z[:, one.column], 0.0)
        for j, other in enumerate(run.random):
            if one.term == other.term and one.level == other.level:
                G[i, j] = D[one.term][one.column, other.column]
    y = design.y if design.offset is None else design.y - design.offset
    columns = np.column_stack([run.layout.X, Z])
    weighted = np.linalg.solve(R, np.column_stack([columns, y]))
    back, own = np.eye(P + m), np.zeros((P + m, P + m))
    values = np.linalg.eigvalsh(G) if m else np.ones(1)
    if values.min() > SINGULAR_G * values.max():
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
