"""The printed output of PROC MIXED: titles, headings and number formats of SAS, tables in the order in which they are computed."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import escape_control
from bayeslmm.sas.glm_coding import format_level
from bayeslmm.sas.translation import Translation

if TYPE_CHECKING:
    from bayeslmm.model.fit import Fit
    from bayeslmm.model.lmm import LMM


LISTING_WIDTH = 120

LISTING_TITLES = {
    "ModelInfo": "Model Information",
    "ClassLevels": "Class Level Information",
    "Dimensions": "Dimensions",
    "NObs": "Number of Observations",
    "ParmSearch": "Parameter Search",
    "IterHistory": "Iteration History",
    "Type1": "Type 1 Analysis of Variance",
    "Type2": "Type 2 Analysis of Variance",
    "Type3": "Type 3 Analysis of Variance",
    "CovParms": "Covariance Parameter Estimates",
    "AsyCov": "Asymptotic Covariance Matrix of Estimates",
    "AsyCorr": "Asymptotic Correlation Matrix of Estimates",
    "FitStatistics": "Fit Statistics",
    "InfoCrit": "Information Criteria",
    "LRT": "Null Model Likelihood Ratio Test",
    "MMEq": "Mixed Model Equations",
    "MMEqSol": "Mixed Model Equations Solution",
    "SolutionF": "Solution for Fixed Effects",
    "CovB": "Covariance Matrix for Fixed Effects",
    "CorrB": "Correlation Matrix for Fixed Effects",
    "InvCovB": "Inverse of Covariance Matrix for Fixed Effects",
    "SolutionR": "Solution for Random Effects",
    "Tests1": "Type 1 Tests of Fixed Effects",
    "Tests2": "Type 2 Tests of Fixed Effects",
    "Tests3": "Type 3 Tests of Fixed Effects",
    "Coef": "Coefficients",
    "Estimates": "Estimates",
    "Contrasts": "Contrasts",
    "LSMeans": "Least Squares Means",
    "Diffs": "Differences of Least Squares Means",
    "Slices": "Tests of Effect Slices",
    "Influence": "Influence Diagnostics",
    "LComponents": "L Components",
    "LSMEstimates": "Least Squares Means Estimates",
    "LSMFtest": "F Test for Least Squares Means Estimates",
    "SliceLSMeans": "Least Squares Means of Slices",
    "SliceTests": "F Tests for Least Squares Means Slices",
    "SliceDiffs": "Simple Differences of Least Squares Means",
}
"""ODS name -> title; matrices have titles of their own, and the output data sets are not printed."""

LISTING_HEADINGS = {
    "CovParm": "Cov Parm",
    "StdErr": "Standard Error",
    "StdErrPred": "Std Err Pred",
    "tValue": "t Value",
    "Probt": "Pr > |t|",
    "NumDF": "Num DF",
    "DenDF": "Den DF",
    "FValue": "F Value",
    "ProbF": "Pr > F",
    "ZValue": "Z Value",
    "ProbZ": "Pr > Z",
    "ChiSq": "Chi-Square",
    "SS": "Sum of Squares",
    "MS": "Mean Square",
    "EMS": "Expected Mean Square",
    "ErrorTerm": "Error Term",
    "ErrorDF": "Error DF",
    "ProbChiSq": "Pr > ChiSq",
    "Adjp": "Adj P",
    "AdjLower": "Adj Lower",
    "AdjUpper": "Adj Upper",
    "M2ResLogLike": "-2 Res Log Like",
    "M2LogLike": "-2 Log Like",
    "ResLogLike": "Res Log Like",
    "Neg2LogLike": "Neg2LogLike",
    "Descr": "",
    "Value": "",
    "Label": "Label",
    "N": "",
}


@dataclass(frozen=True, slots=True, eq=False)
class ListedRun:
    """One run with its tables; `by` are the values of the by-variables."""

    by: Mapping[str, Any]
    model: LMM
    fit: Fit
    translation: Translation
    tables: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...]

    @property
    def key(self) -> Any:
        """The value of the by-variable; a tuple where there are several."""
        values = tuple(self.by.values())
        return values[0] if len(values) == 1 else values


def listing_text(runs: Sequence[ListedRun], failures: Sequence[str] = ()) -> str:
    """The whole listing; failures : what is said of BY groups that are not in it."""
    program = runs[0].translation.program
    lines = [_centre(title) for title in program.titles] + [_centre("The Mixed Procedure")]
    for run in runs:
        if run.by:
            lines += ["", _centre(" ".join(f"{name}={format_level(value)}" for name, value in run.by.items()), "-")]
        for name in run.translation.tables:
            lines += ["", *_table(run, name)]
        lines += [line for note in run.notes for line in ("", *textwrap.wrap(f"NOTE: {note}", LISTING_WIDTH))]
    lines += [line for text in failures for line in ("", *textwrap.wrap(f"ERROR: {text}", LISTING_WIDTH))]
    lines += ["", *(_centre(footnote) for footnote in program.footnotes)] if program.footnotes else []
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _centre(text: str, fill: str = " ") -> str:
    shown = escape_control(text)
    return f" {shown} ".center(LISTING_WIDTH, fill) if fill != " " else shown.center(LISTING_WIDTH)


def _table(run: ListedRun, name: str) -> list[str]:
    frame = run.tables[name]
    if name == "ConvergenceStatus":
        return [_centre(str(frame["Reason"].iloc[0]))]
    lines = [_centre(LISTING_TITLES.get(name) or _matrix_title(name)), ""]
    hidden = name not in LISTING_TITLES and "Index" in frame and frame["Index"].nunique() == 1
    if hidden:
        lines[0] = _centre(f"{_matrix_title(name)} for Subject {frame['Index'].iloc[0]}")
    return lines + _grid(name, frame.drop(columns="Index") if hidden else frame)


def _matrix_title(name: str) -> str:
    for ending, word in (("Corr", "Correlation Matrix"),):
        if name.endswith(ending):
            return f"Estimated {name.removesuffix(ending)} {word}"
    for start, word in (("InvChol", "Inverse Cholesky of "), ("Chol", "Cholesky of "), ("Inv", "Inverse of ")):
        if name.startswith(start):
            return f"{word}Estimated {name.removeprefix(start)} Matrix"
    return f"Estimated {name} Matrix"


def _grid(name: str, frame: pd.DataFrame) -> list[str]:
    columns = [_column(name, str(column), frame[column]) for column in frame.columns]
    lines: list[str] = []
    for block in _blocks(columns):
        widths = [max(map(len, column.cells), default=0) for column in block]
        heads = [_split_heading(column.head, width) for column, width in zip(block, widths, strict=True)]
        widths = [max(width, *(len(line) for line in head)) for width, head in zip(widths, heads, strict=True)]
        height = max(len(head) for head in heads)
        rows = [[*[""] * (height - len(head)), *head, *column.cells] for column, head in zip(block, heads, strict=True)]
        joined = ["   ".join(_cell(row[i], w, c.left) for row, w, c in zip(rows, widths, block, strict=True)) for i in range(len(rows[0]))]
        lines += ([""] if lines else []) + [_indent_rest(line, max(map(len, joined))) for line in joined if line.strip()]
    return lines


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    cells: list[str]
    left: bool


def _blocks(columns: list[_Column]) -> list[list[_Column]]:
    """Columns that do not fit go into further blocks, with the leading texts again."""
    lead = []
    for column in columns:
        if not column.left:
            break
        lead.append(column)
    blocks, block = [], list(columns[:1])
    for column in columns[1:]:
        if _width([*block, column]) > LISTING_WIDTH and len(block) > len(lead):
            blocks.append(block)
            block = list(lead)
        block.append(column)
    return [*blocks, block]


def _width(columns: Sequence[_Column]) -> int:
    return sum(max([*map(len, column.cells), *(len(word) for word in column.head.split())], default=0) + 3 for column in columns)


def _cell(cell: str, width: int, left: bool) -> str:
    return f"{cell:<{width}}" if left else f"{cell:>{width}}"


def _indent_rest(line: str, longest: int) -> str:
    return " " * max(0, (LISTING_WIDTH - longest) // 2) + line


def _split_heading(head: str, width: int) -> list[str]:
    """Over two lines where SAS does, and where it is longer than the column."""
    if len(head) <= width or head not in _BROKEN:
        return [head]
    return textwrap.wrap(head, max(width, *(len(word) for word in head.split()), 1)) or [""]


# -- numbers -------------------------------------------------------------------------------------------------------------------------------


def _column(table: str, name: str, series: pd.Series[Any]) -> _Column:
    head = LISTING_HEADINGS.get(name, name)
    if table == "CovParms" and name == "ProbZ" and (series > 0.5).any():
        head = "Pr Z"
    if not pd.api.types.is_numeric_dtype(series):
        # the values of a class may be many
        return _Column(head, [escape_control(_short(str(value))) if pd.notna(value) else "" for value in series], left=True)
    return _Column(head, [_number(table, name, float(value)) for value in series], left=False)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _number(table: str, name: str, value: float) -> str:
    if np.isnan(value):
        return "Non-est" if name == "Estimate" else "" if table in _BLANK else "."
    formats: Mapping[str, Callable[[float], str]] = {"DF": _degrees, "DenDF": _degrees, "tValue": _two, "ZValue": _two, "FValue": _two}
    if name in formats:
        return formats[name](value)
    if name.startswith("Prob") or name == "Adjp":
        return sas_p_text(value)
    if name in _WHOLE or (float(value).is_integer() and name == "Value" and table != "FitStatistics"):
        return f"{int(value)}"
    if table in ("FitStatistics", "InfoCrit"):
        return f"{value:.1f}"
    if name.startswith("M2") or name.endswith("LogLike"):
        return f"{value:.8f}"
    return f"{value:.2f}" if name in ("ChiSq", "Alpha") else estimate_text(value)


_BROKEN = frozenset({"Standard Error", "Std Err Pred", "Num DF", "Den DF", "-2 Res Log Like", "-2 Log Like", "Res Log Like"})
_WHOLE = frozenset({"Levels", "N", "Row", "Index", "NumDF", "Iteration", "Evaluations", "Parms", "Status"})
_BLANK = frozenset({"G", "GCorr", "Coef"})


def _two(value: float) -> str:
    return f"{value:.2f}"


def _degrees(value: float) -> str:
    """Three digits, whole from 100 on."""
    if np.isinf(value):
        return "Infty"
    return f"{value:.0f}" if value >= 100 or abs(value - round(value)) < 1e-6 else f"{value:.3g}"


def sas_p_text(value: float) -> str:
    """`<.0001`, or four decimals."""
    return "<.0001" if value < 0.0001 else f"{value:.4f}"


def estimate_text(value: float) -> str:
    """As SAS prints estimates: four decimals, fewer for large numbers, four digits below 0.1."""
    size = abs(value)
    if np.isinf(value):
        return "Infty" if value > 0 else "-Infty"
    if size == 0:
        return "0"
    if size >= 1e7 or size < 1e-4:
        return f"{value:.3E}".replace("E+0", "E").replace("E-0", "E-").replace("E+", "E")
    if size < 0.1:
        return f"{value:.{3 - int(np.floor(np.log10(size)))}f}"
    return f"{value:.4f}" if size < 100 else f"{value:.2f}" if size < 1e5 else f"{value:.0f}"
