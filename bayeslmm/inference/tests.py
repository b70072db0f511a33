"""t tests of the coefficients, and the covariance of the fixed effects under any adjustment."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayeslmm.inference.fitted import Fitted
from bayeslmm.inference.fixed_effects import Inference, choose, fixed_effects


def coefficient_table(
    fit: Fitted, df: str = "satterthwaite", vcov: str | None = None, information: str = "expected", cluster: str | None = None
) -> pd.DataFrame:
    """t tests of all coefficients: `term, estimate, std_error, df, statistic, p_value`; NaN in the rows of aliased ones.

    df, vcov, information : as everywhere; cluster : the grouping factor that a robust covariance clusters by
    """
    effects = fixed_effects(fit, df, vcov, information, cluster)
    tests = effects.t(np.eye(len(effects.alpha)))
    columns = {
        "estimate": tests.estimate,
        "std_error": tests.std_error,
        "df": tests.df,
        "statistic": tests.statistic,
        "p_value": tests.p_value,
    }
    kept = list(effects.kept)
    table: dict[str, object] = {"term": list(effects.names)}
    for name, values in columns.items():
        whole = np.full(len(effects.names), np.nan)
        whole[kept] = values
        table[name] = whole
    return pd.DataFrame(table)


def covariance(fit: Fitted, vcov: str = "asymptotic", information: str = "expected", cluster: str | None = None) -> pd.DataFrame:
    """The covariance of the fixed effects under an adjustment; rows and columns of aliased coefficients are NaN.

    vcov : "asymptotic", "kenward-roger", "kenward-roger-linear", "CR0" to "CR3"
    """
    choice = choose(df="asymptotic", vcov=vcov, information=information)
    names, kept = fit.design.coef_names, list(fit.design.kept)
    whole = np.full((len(names), len(names)), np.nan)
    whole[np.ix_(kept, kept)] = Inference(fit, cluster).covariance(choice)
    return pd.DataFrame(whole, index=list(names), columns=list(names))
