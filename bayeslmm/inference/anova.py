"""F tests of the terms of the fixed effects."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayeslmm.errors import SpecificationError
from bayeslmm.inference.fitted import Fitted
from bayeslmm.inference.fixed_effects import choose, fixed_effects
from bayeslmm.inference.hypotheses import hypotheses

KINDS: dict[object, int] = {1: 1, 2: 2, 3: 3, "1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}


def anova(
    fit: Fitted,
    type: int | str = 3,  # noqa: A002
    df: str = "satterthwaite",
    vcov: str | None = None,
    information: str = "expected",
    cluster: str | None = None,
) -> pd.DataFrame:
    """F tests of the terms: `term, sum_sq, num_df, den_df, statistic, p_value`.

    type : 1 (sequential), 2 (beyond the terms that do not contain it) or 3 (SAS's; does not depend on the coding). A term contains
        another with the same covariates and fewer factors: `f:x` contains `x`, not `f`, whose test is where x is 0: centre x for its mean
    df : as everywhere. `sum_sq` is F sigma^2 num_df for "satterthwaite", NaN otherwise. Under "containment" and "residual" type 1 is
        sequential in the metric of the estimated V, as nlme's `anova`; else in that of least squares, as lmerTest's and SAS's

    >>> anova(fit)["num_df"].tolist()
    [1]
    """
    if type not in KINDS:
        raise SpecificationError(f"unknown type of F tests {type!r}", "type=", "1 (sequential), 2 or 3 (marginal)")
    choice = choose(df, vcov, information)
    effects = fixed_effects(fit, df, vcov, information, cluster)
    asked = hypotheses(fit.design, fit.problem.conditioning)
    metric = None
    if choice.df in ("containment", "residual") and fit.point.state is not None:
        metric = np.linalg.inv(fit.point.state.solution.information_inverse[0])
    terms = np.array(fit.design.coef_terms)[list(fit.design.kept)]
    rows = []
    for effect in asked.tested:
        L = asked.rows(effect, KINDS[type], metric if KINDS[type] == 1 else None)
        test = effects.f(L, own=terms == effect.name)
        sum_sq = test.statistic * fit.sigma**2 * test.num_df if choice.df == "satterthwaite" else np.nan
        rows.append((effect.name, sum_sq, test.num_df, test.den_df, test.statistic, test.p_value))
    return pd.DataFrame(rows, columns=["term", "sum_sq", "num_df", "den_df", "statistic", "p_value"])
