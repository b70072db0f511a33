"""Values as a person reads them, safe in HTML."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array
from bayeslmm.results.layout import digits, p_text, signed
from bayeslmm.results.text import visible

HEADINGS = {
    "std_error": "std. error",
    "p_value": "p",
    "conf_low": "lower",
    "conf_high": "upper",
    "num_df": "df",
    "den_df": "denominator df",
    "corr": "correlation",
    "sd": "std. deviation",
    "term1": "term",
    "term2": "with",
}
"""Columns of tables by the words of a report."""

BESIDE_ERROR = ("estimate", "std_error", "conf_low", "conf_high")
"""Columns whose decimals go by the standard error of their row."""

WIDE = frozenset({"remedy", "value"})


def safe(value: Any) -> str:
    """Text for HTML: escaped, control characters shown as escapes."""
    return escape(visible(str(value)))


def cells(frame: pd.DataFrame) -> list[list[str]]:
    """The rows of a table as text."""
    columns = [_column(frame, str(name)) for name in frame.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _column(frame: pd.DataFrame, name: str) -> list[str]:
    values = frame[name]
    if values.dtype.kind != "f":
        return ["" if value is None or value is pd.NA or value != value else _exact(value) for value in values.tolist()]
    if name == "p_value":
        return ["" if np.isnan(p) else p_text(p) for p in values]
    if name in ("df", "den_df", "num_df"):
        return [
            "" if np.isnan(df) else "∞" if np.isinf(df) or df > 1e5 else f"{df:.0f}" if float(df).is_integer() else f"{df:.1f}"
            for df in values
        ]
    if name in ("statistic", "corr", "gap", "pull"):
        return ["" if np.isnan(value) else signed(value) for value in values]
    numbers = values.to_numpy(float)
    if name in BESIDE_ERROR and "std_error" in frame:
        return [_beside(value, error) for value, error in zip(numbers, _errors(frame), strict=True)]
    shown = iter(digits(numbers[np.isfinite(numbers)]))
    return [next(shown) if np.isfinite(value) else "" for value in numbers]


def _errors(frame: pd.DataFrame) -> Array:
    """The standard error of every row; in a comparison, a row without one has that of another source of the same parameter."""
    errors = frame["std_error"].astype(float)
    if {"source", "group", "term"} <= set(frame.columns):
        errors = errors.fillna(errors.groupby([frame["group"].fillna(""), frame["term"]]).transform("max"))
    return np.asarray(errors.to_numpy(float))


def _beside(value: float, error: float) -> str:
    """A number with the decimals that show three digits of its standard error."""
    if np.isnan(value):
        return ""
    if not np.isfinite(error) or error <= 0.0 or not 1e-5 < error < 1e5:
        return digits([value])[0]
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(error))))}f}"


def _exact(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000 else str(value)


def number(value: float) -> str:
    """One number to five digits."""
    return "–" if not np.isfinite(value) else digits([value])[0]


def heading(name: str) -> str:
    """A column's heading."""
    return HEADINGS.get(name, name)
