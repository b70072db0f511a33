"""Frames with ODS columns: class columns of effects, t and F tests, confidence limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bayeslmm.arrays import Array
from bayeslmm.inference.fixed_effects import FTest, TTests

Columns = dict[str, Any]
Mask = NDArray[np.bool_]


def class_columns(names: Sequence[str], rows: Sequence[Mapping[str, str]], prefix: str = "") -> Columns:
    """A column for each class variable, blank where a row does not have it."""
    return {prefix + name: [row.get(name, "") for row in rows] for name in names}


def t_columns(tests: TTests, zero: Mask | None = None, error: str = "StdErr") -> Columns:
    """Estimate, StdErr, DF, tValue, Probt; rows where `zero` have the estimate 0 and no more."""
    gone = np.zeros(len(tests.estimate), dtype=np.bool_) if zero is None else np.asarray(zero, dtype=np.bool_)
    columns = {error: tests.std_error, "DF": tests.df, "tValue": tests.statistic, "Probt": tests.p_value}
    return {"Estimate": np.where(gone, 0.0, tests.estimate)} | {k: np.where(gone, np.nan, v) for k, v in columns.items()}


def limits(columns: Columns, alpha: float, error: str = "StdErr", tail: str = "") -> Columns:
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
        found = np.where(np.isinf(df), stats.norm.ppf(level), stats.t.ppf(level, np.where(np.isinf(df), 1.0, df)))
    return np.asarray(found)


def where_known(known: Mask, tests: TTests) -> TTests:
    """The tests with NaN in the rows that are not known."""
    columns = (tests.estimate, tests.std_error, tests.df, tests.statistic, tests.p_value)
    return TTests(*(np.where(known, column, np.nan) for column in columns))


def f_row(test: FTest, chisq: bool) -> Columns:
    """NumDF, DenDF, [ChiSq,] FValue, [ProbChiSq,] ProbF of one test."""
    row: Columns = {"NumDF": test.num_df, "DenDF": test.den_df}
    if chisq:
        row["ChiSq"] = test.statistic * test.num_df
    row["FValue"] = test.statistic
    if chisq:
        row["ProbChiSq"] = float(stats.chi2.sf(test.statistic * test.num_df, test.num_df)) if test.num_df else np.nan
    return row | {"ProbF": test.p_value}


def matrix_columns(matrix: Array) -> Columns:
    """Col1, Col2, ..."""
    return {f"Col{j + 1}": matrix[:, j] for j in range(matrix.shape[1])}


def bound(*parts: Mapping[str, Any]) -> pd.DataFrame:
    """Columns side by side."""
    whole: Columns = {}
    for part in parts:
        whole |= part
    return pd.DataFrame(whole)


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames below one another; columns that some lack are blank (texts) or missing (numbers)."""
    shown = [frame for frame in frames if len(frame)]
    if len(shown) <= 1:
        return shown[0].reset_index(drop=True) if shown else (frames[0] if frames else pd.DataFrame())
    whole = pd.concat(shown, ignore_index=True)
    for name in whole.columns:
        if any(name not in frame for frame in shown) and any(pd.api.types.is_string_dtype(f[name].dtype) for f in shown if name in f):
            whole[name] = whole[name].astype(object).where(whole[name].notna(), "")
    return whole
