"""Small models that the tests of this folder share, each with what makes it hard."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

import bayeslmm as blm
from bayeslmm.model.fit import Fit


def subjects(seed: int = 4, groups: int = 15, visits: int = 6, slope: float = 0.6) -> pd.DataFrame:
    """Growth of subjects in two arms, a few rows missing."""
    rng = np.random.default_rng(seed)
    subject, time = np.repeat(np.arange(groups), visits), np.tile(np.arange(visits), groups)
    beta = rng.normal(size=(groups, 2)) @ np.array([[2.0, 0.3], [0.0, slope]])
    arm = (np.arange(groups) % 2)[subject]
    y = 10 + 1.5 * time + arm + beta[subject, 0] + beta[subject, 1] * time + rng.normal(size=len(time))
    frame = pd.DataFrame({"y": y, "time": time.astype(float), "arm": arm.astype(float), "id": subject.astype(str)})
    frame["w"] = rng.uniform(0.5, 2.0, len(frame))
    frame["visit"] = pd.Categorical(frame["time"].astype(int).astype(str))
    return frame.drop(index=rng.choice(len(frame), 7, replace=False)).reset_index(drop=True)


def crossed(seed: int = 2) -> pd.DataFrame:
    """Raters who see every sample, twice."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame([(f"r{a}", f"s{b}", x) for a in range(8) for b in range(6) for x in (0.0, 1.0)], columns=["rater", "sample", "x"])
    a, b = rng.normal(size=8), rng.normal(size=6)
    codes = frame["rater"].str[1:].astype(int), frame["sample"].str[1:].astype(int)
    frame["occasion"] = pd.Categorical(np.where(frame["x"] > 0, "second", "first"))
    frame["y"] = 3 + 0.5 * frame["x"] + a[codes[0]] + 0.7 * b[codes[1]] + rng.normal(size=len(frame)) * 0.5
    return frame


def nested(seed: int = 3) -> pd.DataFrame:
    """Casks within batches."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame([(f"b{a}", f"c{b}", k) for a in range(8) for b in range(3) for k in range(3)], columns=["batch", "cask", "k"])
    outer, inner = rng.normal(size=8), rng.normal(size=24)
    code = frame["batch"].str[1:].astype(int)
    cask = code * 3 + frame["cask"].str[1:].astype(int)
    frame["y"] = 50 + outer[code] + 0.8 * inner[cask] + rng.normal(size=len(frame)) * 0.6
    return frame


FORMULAS: dict[str, tuple[str, str, dict[str, str]]] = {
    "slope": ("y ~ time + arm + (time | id)", "subjects", {}),
    "uncorrelated": ("y ~ time + (time || id)", "subjects", {}),
    "weighted": ("y ~ time + (1 | id)", "subjects", {"weights": "w"}),
    "crossed": ("y ~ x + (1 | rater) + (1 | sample)", "crossed", {}),
    "crossed_slope": ("y ~ x + (x | rater) + (1 | sample)", "crossed", {}),
    "nested": ("y ~ 1 + (1 | batch / cask)", "nested", {}),
    "exchangeable": ("y ~ x + cs(0 + occasion | rater) + (1 | sample)", "crossed", {}),
    "serial": ("y ~ time + arm", "subjects", {"residual": "ar1(visit | id)"}),
    "visits": ("y ~ visit", "subjects", {"residual": "us(visit | id)"}),
    "mixed_serial": ("y ~ time + (1 | id)", "subjects", {"residual": "ar1(visit | id)"}),
    "plain": ("y ~ time + arm", "subjects", {}),
}

DATA = {"subjects": subjects, "crossed": crossed, "nested": nested}


@cache
def fitted(name: str, method: str = "REML") -> Fit:
    """A fit of one of the models by name."""
    formula, data, options = FORMULAS[name]
    return blm.LMM(formula, DATA[data](), **options).fit(method)  # type: ignore[arg-type]
