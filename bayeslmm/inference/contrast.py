"""Tests of linear functions of the coefficients: one by one, and together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bayeslmm.inference.fitted import Fitted
from bayeslmm.inference.fixed_effects import fixed_effects
from bayeslmm.inference.linear import demand_estimable, linear_functions


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """What the data say of linear functions of the coefficients.

    frame : one row per contrast, `term, estimate, std_error, df, statistic, p_value`
    joint : one row, `num_df, den_df, statistic, p_value`

    `estimate` is the left side minus the right side.
    """

    frame: pd.DataFrame
    joint: pd.DataFrame

    def __repr__(self) -> str:
        return f"{self.frame.to_string(index=False)}\n\njointly:\n{self.joint.to_string(index=False)}"

    def _repr_html_(self) -> str:
        return f"{self.frame.to_html(index=False)}\n{self.joint.to_html(index=False)}"


def contrast(
    fit: Fitted,
    L: Any,
    rhs: Any = 0,
    df: str = "satterthwaite",
    vcov: str | None = None,
    information: str = "expected",
    cluster: str | None = None,
) -> Contrast:
    """Test linear functions of the coefficients.

    L : an array with one weight per coefficient, a dict {coefficient: weight}, an equation "ARMCD[T.TRT] - 2 * x = 0",
        or a list or dict of these
    rhs : what the rows of L are compared with, unless an equation says it

    >>> contrast(fit, "Days = 10").frame["estimate"].round(2).tolist()
    [0.47]
    """
    functions = linear_functions(L, fit.design.coef_names, rhs)
    rows = demand_estimable(functions, fit.design)
    effects = fixed_effects(fit, df, vcov, information, cluster)
    single, joint = effects.t(rows, functions.rhs), effects.f(rows, functions.rhs)
    frame = pd.DataFrame(
        {
            "term": list(functions.labels),
            "estimate": single.estimate - functions.rhs,
            "std_error": single.std_error,
            "df": single.df,
            "statistic": single.statistic,
            "p_value": single.p_value,
        }
    )
    together = {"num_df": joint.num_df, "den_df": joint.den_df, "statistic": joint.statistic, "p_value": joint.p_value}
    return Contrast(frame, pd.DataFrame([together]))
