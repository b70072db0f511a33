"""`proc_mixed`: a SAS PROC MIXED program, run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from bayeslmm.dialects import covariance_tables, fixed_tables, head_tables, random_tables, requests
from bayeslmm.dialects.listing import ListedRun
from bayeslmm.dialects.predictions import predictions
from bayeslmm.dialects.result import MixedResult
from bayeslmm.dialects.rows import by_groups, prepare, selected, whole_table
from bayeslmm.dialects.run import Run
from bayeslmm.errors import SpecificationError
from bayeslmm.spec.sas import parse_program, translate
from bayeslmm.spec.sas.glm import class_levels
from bayeslmm.spec.sas.program import MixedProgram
from bayeslmm.spec.sas.translation import Translation


def proc_mixed(program: str, data: Any) -> MixedResult:
    """Run a SAS PROC MIXED program on any frame.

    program : the step as SAS has it; columns may be written in any case, and what is not supported is refused by name
    data : pandas, polars or pyarrow frame, or a mapping of columns; what DATA= says is a name for the listing

    Returns a mapping: ODS name -> frame with SAS's columns; `listing` the printed text, `model` and `fit` the objects, `notes` what was
    done in a slightly different way. With BY the by-variables lead the columns, and `model` and `fit` are dicts by their values.
    Raises FormulaError and SpecificationError with the spot of the program, DataError for what the data do not have.

    >>> result = blm.proc_mixed("proc mixed; class Subject; model Reaction = Days / s; random int / sub=Subject; run;", sleepstudy)
    >>> result["SolutionF"]["Estimate"].round(4).tolist()
    [251.4051, 10.4673]
    """
    if not isinstance(program, str):
        raise SpecificationError(f"the program is a {type(program).__name__}", "proc_mixed", "give the text of the PROC MIXED step")
    frame = whole_table(data)
    parsed = parse_program(program, tuple(map(str, frame.columns)))
    # every column named must be there, before its values are looked at
    _translated(parsed, frame)
    runs = [_run(parsed, values, rows) for values, rows in by_groups(selected(frame, parsed), parsed.by)]
    return MixedResult(tuple(runs))


def _translated(program: MixedProgram, rows: pd.DataFrame) -> Translation:
    """With the levels of the classes, which GROUP= in RANDOM needs."""
    known = {c.name: c for c in program.classes if c.name in rows.columns}
    groups = {name for random in program.random if random.group is not None for name in random.group.variables if name in known}
    levels = {name: class_levels(known[name], rows[name].astype(object).tolist(), program.proc.order).levels for name in groups}
    return translate(program, tuple(map(str, rows.columns)), levels)


def _run(program: MixedProgram, values: Mapping[str, Any], data: pd.DataFrame) -> ListedRun:
    translation = _translated(program, data)
    run = Run(translation, prepare(data, translation))
    tables = {name: _table(run, name) for name in translation.tables}
    if program.model.outp:
        tables["OutP"] = predictions(run, conditional=True)
    if program.model.outpm:
        tables["OutPM"] = predictions(run, conditional=False)
    return ListedRun(dict(values), run.model, run.fit, translation, tables, _notes(run))


def _table(run: Run, name: str) -> pd.DataFrame:
    if name in _TABLES:
        return _TABLES[name](run)
    return random_tables.matrix_table(run, name)


def _coefficients(run: Run) -> pd.DataFrame:
    return fixed_tables.coefficient_table([*fixed_tables.model_coefficients(run), *requests.row_coefficients(run)])


_TABLES: Mapping[str, Callable[[Run], pd.DataFrame]] = {
    "ModelInfo": head_tables.model_info,
    "ClassLevels": head_tables.class_level_table,
    "Dimensions": head_tables.dimensions,
    "NObs": head_tables.number_of_observations,
    "ParmSearch": head_tables.parameter_search,
    "IterHistory": head_tables.iteration_history,
    "ConvergenceStatus": head_tables.convergence_status,
    "CovParms": covariance_tables.cov_parms_frame,
    "AsyCov": lambda run: covariance_tables.asymptotic_frame(run, correlation=False),
    "AsyCorr": lambda run: covariance_tables.asymptotic_frame(run, correlation=True),
    "FitStatistics": covariance_tables.fit_statistics,
    "InfoCrit": covariance_tables.information_criteria,
    "LRT": covariance_tables.null_test,
    "SolutionF": fixed_tables.solution,
    "CovB": lambda run: fixed_tables.covariance_frame(run, "CovB"),
    "CorrB": lambda run: fixed_tables.covariance_frame(run, "CorrB"),
    "InvCovB": lambda run: fixed_tables.covariance_frame(run, "InvCovB"),
    "SolutionR": random_tables.random_solution,
    "Tests1": lambda run: fixed_tables.tests(run, 1),
    "Tests2": lambda run: fixed_tables.tests(run, 2),
    "Tests3": lambda run: fixed_tables.tests(run, 3),
    "Coef": _coefficients,
    "Estimates": requests.estimates,
    "Contrasts": requests.contrasts,
    "LSMeans": requests.least_squares_means,
    "Diffs": requests.mean_differences,
    "Slices": requests.slices,
}


def _notes(run: Run) -> tuple[str, ...]:
    told = [f"{check.name}: {check.remedy}" for check in run.fit.checks.values() if check.verdict == "failed"]
    if run.fit.singular:
        told.append("Estimated G matrix is not positive definite.")
    return (*run.translation.notes, *told)
