"""`proc_mixed`: a SAS PROC MIXED program, run; its tables by ODS name, its listing, its model and fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from bayeslmm._types import CheckMode
from bayeslmm._validation import require_one_of
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, SpecificationError, show_value, spell_out, warn_user
from bayeslmm.results.foreign_names import RESULT_ATTRIBUTES, answers_keywords, known_arguments
from bayeslmm.sas.glm_coding import class_levels, format_level
from bayeslmm.sas.language.program import MixedProgram
from bayeslmm.sas.language.statements import parse_programs
from bayeslmm.sas.translate import translate
from bayeslmm.sas.translation import Translation
from bayeslmm.sas_results.listing import ListedRun, listing_text
from bayeslmm.sas_results.mean_squares import variance_table
from bayeslmm.sas_results.predictions import predictions_table
from bayeslmm.sas_results.random_columns import named_data_sets
from bayeslmm.sas_results.rows import (
    by_groups,
    kept_columns,
    prepare_rows,
    select_columns,
    select_rows,
    whole_frame_of,
    without_transport_zeros,
)
from bayeslmm.sas_results.run import ProgramRun
from bayeslmm.sas_results.tables import fixed_effects, means_statements, model_information, random_effects, requests
from bayeslmm.sas_results.tables.influence import influence_table
from bayeslmm.sas_results.tables.random_effects import equations_table

if TYPE_CHECKING:
    from bayeslmm._types import Frame


class MissingTableError(SpecificationError, KeyError):
    """A table that the program did not ask for."""

    __str__ = SpecificationError.__str__


class MixedResult(Mapping[str, pd.DataFrame]):
    """The tables of a PROC MIXED program: ODS name -> frame, in the order of the listing; names in any case.

    OUTP= and OUTPM= are "OutP" and "OutPM", and go by the names that the program gives them too.

    Examples
    --------
    >>> result = blm.proc_mixed("proc mixed; class Subject; model Reaction = Days / s; random int / sub=Subject; run;", sleepstudy)
    >>> result["CovParms"]["Estimate"].round(2).tolist()
    [1378.18, 960.46]
    """

    def __init__(self, runs: tuple[ListedRun, ...], failures: tuple[FailedGroup, ...] = ()) -> None:
        self.runs, self.failures = runs, failures
        self._names = {name.lower(): name for run in runs for name in run.tables}
        model = runs[0].translation.program.model
        for request, name in ((model.outp, "OutP"), (model.outpm, "OutPM")):
            if request:
                self._names.setdefault(request.lower(), name)
        for name, table in runs[0].translation.program.ods_names.items():
            if table.lower() in self._names:
                self._names.setdefault(name, self._names[table.lower()])

    def __getitem__(self, name: str) -> pd.DataFrame:
        found = self._names.get(name.lower()) if isinstance(name, str) else None
        if found is None:
            near = get_close_matches(spell_out(name).lower(), self._names, 3, 0.5)
            near_names = [self._names[n] for n in near] or list(self)
            what = f"the program prints no table {show_value(name)}"
            raise MissingTableError(what, "", f"tables: {', '.join(near_names)}; options of the program ask for more")
        frames = []
        for run in self.runs:
            if found in run.tables:
                frame = run.tables[found].copy()
                if found not in ("OutP", "OutPM"):
                    for position, (variable, value) in enumerate(run.by.items()):
                        frame.insert(position, variable, [value] * len(frame))
                frames.append(frame)
        return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for run in self.runs for name in run.tables))

    def __len__(self) -> int:
        return len(list(iter(self)))

    @property
    def model(self) -> Any:
        """The `LMM`; with BY a dict by the values of the by-variables."""
        return self._each({run.key: run.model for run in self.runs})

    @property
    def fit(self) -> Any:
        """The `Fit`; with BY a dict by the values of the by-variables."""
        return self._each({run.key: run.fit for run in self.runs})

    def _each(self, found: dict[Any, Any]) -> Any:
        return found if self.runs[0].by else next(iter(found.values()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done in a slightly different way, and what the log of SAS would say."""
        every = (note for run in self.runs for note in run.notes)
        asked = self.runs[0].translation.program.ods_names.values()
        absent = (
            f"ODS OUTPUT asks for table {name}, which the program does not print" for name in asked if name.lower() not in self._names
        )
        return tuple(dict.fromkeys((*every, *absent, *(failure.text for failure in self.failures))))

    @property
    def title(self) -> str:
        """The first title line of the step; "" where it has none."""
        return next(iter(self.runs[0].translation.program.titles), "")

    @property
    def listing(self) -> str:
        """The printed tables as one text."""
        return listing_text(self.runs, [failure.text for failure in self.failures])

    def __repr__(self) -> str:
        return f"MixedResult({', '.join(self)})"

    def __str__(self) -> str:
        return self.listing

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.listing)}</pre>"


known_arguments(MixedResult, attributes=RESULT_ATTRIBUTES)


@answers_keywords
def proc_mixed(
    program: str, data: Frame, *, check: CheckMode = "error", data_sets: Mapping[str, Frame] | None = None
) -> MixedResult | list[MixedResult]:
    """Run a SAS PROC MIXED program on any frame.

    Parameters
    ----------
    program : str
        The step as SAS has it; columns may be written in any case, and what is not supported is refused by name. Several steps are run one
        after another, `%let` is read, and what stands around the steps is left out with a note.
    data : DataFrame or Mapping
        Pandas, polars or pyarrow frame, or a mapping of columns; what DATA= says is a name for the listing.
    check : {"error", "warn"}, default "error"
        "warn" fits what the data do not identify, as SAS does; "error" refuses it.
    data_sets : Mapping of str to DataFrame, optional
        The data sets that GDATA= and LDATA= name: `row, col, value` or `row, col1, col2, ...`, and for LDATA= `parm` beside.

    Returns
    -------
    MixedResult or list of MixedResult
        A mapping: ODS name -> frame with SAS's columns; `listing` the printed text, `model` and `fit` the objects, `notes` what was done in
        a slightly different way. With BY the by-variables lead the columns, and `model` and `fit` are dicts by their values; a group that
        cannot be fitted is named in `notes` and left out, the others are there. Several steps give a list, each with its `title`.

    Raises
    ------
    FormulaError
        With the spot of the program.
    SpecificationError
        With the spot of the program.
    DataError
        For what the data do not have.

    Examples
    --------
    >>> result = blm.proc_mixed("proc mixed; class Subject; model Reaction = Days / s; random int / sub=Subject; run;", sleepstudy)
    >>> result["SolutionF"]["Estimate"].round(4).tolist()
    [251.4051, 10.4673]
    """
    if not isinstance(program, str):
        raise SpecificationError(f"the program is a {type(program).__name__}", "proc_mixed", "give the text of the PROC MIXED step")
    require_one_of(check, get_args(CheckMode), "check")
    frame = whole_frame_of(data)
    frame, zeros = without_transport_zeros(frame)
    notes = (f"5.397605e-79, which is how readers of SAS transport files give its 0, is 0 in {', '.join(zeros)}",) if zeros else ()
    named = named_data_sets(data_sets)
    steps = parse_programs(program, tuple(map(str, frame.columns)))
    results = [_run_step(replace(step, notes=(*step.notes, *notes)), frame, check, named) for step in steps]
    return results[0] if len(results) == 1 else results


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """A BY group that could not be fitted, and why."""

    by: Mapping[str, Any]
    error: BayesLMMError

    @property
    def name(self) -> str:
        """`site=3`"""
        return " ".join(f"{name}={format_level(value)}" for name, value in self.by.items())

    @property
    def text(self) -> str:
        """For the log."""
        return f"{self.name} is left out: {self.error.what}"


def _run_step(program: MixedProgram, frame: pd.DataFrame, check: CheckMode, data_sets: Mapping[str, pd.DataFrame]) -> MixedResult:
    """One step, its BY groups one after another: a group that fails loses only itself."""
    frame = select_columns(frame, program.proc.data_options)
    # every column named must be there, before its values are looked at
    _translate(program, frame)
    runs: list[ListedRun] = []
    failures: list[FailedGroup] = []
    for values, rows in by_groups(select_rows(frame, program), program.by):
        try:
            runs.append(_run(program, values, rows, check, data_sets))
        except BayesLMMError as error:
            if not program.by:
                raise
            failures.append(FailedGroup(dict(values), error))
    if not runs:
        first = failures[0]
        where = f"BY {first.name}" + (f": {first.error.where}" if first.error.where else "")
        raise type(first.error)(first.error.what, where, first.error.remedy)
    if failures:
        total = len(runs) + len(failures)
        what = f"{len(failures)} of {total} BY groups could not be fitted: {'; '.join(failure.name for failure in failures[:6])}"
        warn_user(BayesLMMWarning(what, "BY", "see result.notes"))
    return MixedResult(tuple(runs), tuple(failures))


def _translate(program: MixedProgram, rows: pd.DataFrame) -> Translation:
    """With the levels of the classes, which GROUP= in RANDOM needs."""
    known = {c.name: c for c in program.classes if c.name in rows.columns}
    groups = {name for random in program.random if random.group is not None for name in random.group.variables if name in known}
    levels = {name: class_levels(known[name], rows[name].astype(object).tolist(), program.proc.order).levels for name in groups}
    return translate(program, tuple(map(str, rows.columns)), levels)


def _run(
    program: MixedProgram,
    values: Mapping[str, Any],
    data: pd.DataFrame,
    check: CheckMode,
    data_sets: Mapping[str, pd.DataFrame],
) -> ListedRun:
    translation = _translate(program, data)
    run = ProgramRun(translation, prepare_rows(data, translation), check, data_sets)
    tables = {name: _table(run, name) for name in translation.tables}
    if program.model.outp:
        tables["OutP"] = kept_columns(predictions_table(run, conditional=True), program.model.outp_keep, program.model.outp_drop)
    if program.model.outpm:
        tables["OutPM"] = kept_columns(predictions_table(run, conditional=False), program.model.outpm_keep, program.model.outpm_drop)
    return ListedRun(dict(values), run.model, run.fit, translation, tables, _notes(run))


def _table(run: ProgramRun, name: str) -> pd.DataFrame:
    if name in _TABLES:
        return _TABLES[name](run)
    return random_effects.matrix_table(run, name)


def _coefficients(run: ProgramRun) -> pd.DataFrame:
    asked = (*fixed_effects.model_coefficients(run), *requests.row_coefficients(run), *means_statements.statement_coefficients(run))
    return fixed_effects.coef_table(asked)


def _variance_table(run: ProgramRun, kind: int) -> pd.DataFrame:
    return variance_table(run.translation, run.rows, kind)


_TABLES: Mapping[str, Callable[[ProgramRun], pd.DataFrame]] = {
    "ModelInfo": model_information.model_info,
    "ClassLevels": model_information.class_level_table,
    "Dimensions": model_information.dimensions,
    "NObs": model_information.number_of_observations,
    "ParmSearch": model_information.parameter_search,
    "IterHistory": model_information.iteration_history,
    "ConvergenceStatus": model_information.convergence_status,
    **{f"Type{kind}": partial(_variance_table, kind=kind) for kind in (1, 2, 3)},
    "CovParms": model_information.cov_parms_frame,
    "AsyCov": lambda run: model_information.asymptotic_frame(run, correlation=False),
    "AsyCorr": lambda run: model_information.asymptotic_frame(run, correlation=True),
    "FitStatistics": model_information.fit_statistics,
    "InfoCrit": model_information.information_criteria,
    "LRT": model_information.null_test,
    "MMEq": partial(equations_table, solved=False),
    "MMEqSol": partial(equations_table, solved=True),
    "SolutionF": fixed_effects.solution_table,
    "CovB": lambda run: fixed_effects.covariance_frame(run, "CovB"),
    "CorrB": lambda run: fixed_effects.covariance_frame(run, "CorrB"),
    "InvCovB": lambda run: fixed_effects.covariance_frame(run, "InvCovB"),
    "SolutionR": random_effects.random_solution,
    "Tests1": lambda run: fixed_effects.tests_table(run, 1),
    "Tests2": lambda run: fixed_effects.tests_table(run, 2),
    "Tests3": lambda run: fixed_effects.tests_table(run, 3),
    "Coef": _coefficients,
    "Estimates": requests.estimates_table,
    "Contrasts": requests.contrasts_table,
    "LSMeans": requests.least_squares_means,
    "Diffs": requests.mean_differences,
    "Slices": requests.slice_tests,
    "Influence": influence_table,
    "LComponents": fixed_effects.component_table,
    "LSMEstimates": means_statements.lsm_estimates,
    "LSMFtest": means_statements.lsm_joint_tests,
    "SliceLSMeans": means_statements.slice_means,
    "SliceTests": means_statements.slice_f_tests,
    "SliceDiffs": means_statements.slice_differences,
}


def _notes(run: ProgramRun) -> tuple[str, ...]:
    found = [f"{check.name}: {check.remedy}" for check in run.fit.checks.values() if check.verdict == "failed"]
    found += [f"{check.value}; {check.remedy}" for check in run.fit.checks.values() if check.name == "repeated_parameters"]
    if not model_information.definite_g(run):
        found.append("Estimated G matrix is not positive definite.")
    return (*run.translation.notes, *requests.excess_coefficients(run), *found)
