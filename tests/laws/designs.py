"""Random models to hold laws against: single, nested, crossed and merged factors, every structure of D and R, weights, relationship."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import bayeslmm as blm


@dataclass(frozen=True)
class Example:
    """A formula, its data, and the other arguments of LMM."""

    formula: str
    data: pd.DataFrame
    options: dict[str, Any] = field(default_factory=dict)

    def model(self, **changes: Any) -> blm.LMM:
        return blm.LMM(changes.pop("formula", self.formula), changes.pop("data", self.data), **(self.options | changes))


def frame(seed: int, n: int = 90) -> pd.DataFrame:
    """Rows of 12 subjects with up to 9 visits, in 4 sites, 6 items crossed with the subjects, one factor of three levels."""
    rng = np.random.default_rng(seed)
    subject = np.sort(rng.integers(0, 12, n))
    subject[:12] = np.arange(12)
    subject = np.sort(subject)
    visit = np.concatenate([rng.permutation(9)[:k] if k <= 9 else rng.integers(0, 9, k) for k in np.bincount(subject, minlength=12)])
    item = rng.integers(0, 6, n)
    item[:6] = np.arange(6)
    x, z = rng.normal(size=n) + 3, rng.normal(size=n)
    b = rng.normal(size=(12, 2))
    y = 10 + 2 * x + b[subject, 0] + b[subject, 1] * x * 0.5 + rng.normal(size=6)[item] + rng.normal(size=n)
    found = pd.DataFrame(
        {"y": y, "x": x, "z": z, "subject": subject, "visit": visit, "item": item, "site": subject // 3, "w": rng.uniform(0.5, 2.0, n)}
    )
    found["f"] = pd.Categorical(np.array(["a", "b", "c"])[rng.integers(0, 3, n)])
    for name in ("subject", "item", "site"):
        found[name] = pd.Categorical(found[name].astype(str))
    return found.drop_duplicates(["subject", "visit"]).reset_index(drop=True)


def with_visits(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(visit=pd.Categorical(data["visit"], categories=sorted(data["visit"].unique()), ordered=True))


def three_visits(seed: int) -> pd.DataFrame:
    """40 subjects of two arms at up to four visits."""
    rng = np.random.default_rng(seed)
    rows = [(s, v) for s in range(40) for v in range(4) if v == 0 or rng.random() > 0.2]
    subject, visit = np.array(rows).T
    L = np.array([[2.0, 0, 0, 0], [1.0, 1.5, 0, 0], [0.8, 0.7, 1.4, 0], [0.5, 0.6, 0.9, 1.2]])
    errors = (rng.normal(size=(40, 4)) @ L.T)[subject, visit]
    arm = np.array(["P", "T"])[subject % 2]
    x = rng.normal(size=40)[subject]
    data = pd.DataFrame(
        {
            "y": 5 + visit + x + (arm == "T") * visit * 0.5 + errors,
            "x": x,
            "arm": pd.Categorical(arm),
            "w": rng.uniform(0.5, 2, len(subject)),
        }
    )
    data["visit"] = pd.Categorical(visit, categories=range(4), ordered=True)
    data["time"] = visit.astype(float) + 0.25 * (visit > 1)
    data["subject"] = pd.Categorical([f"s{s:02d}" for s in subject])
    data["site"] = pd.Categorical([f"c{s // 5}" for s in subject])
    return data


MIXED = {
    "one factor": "y ~ x + (x | subject)",
    "intercept": "y ~ x + f + (1 | subject)",
    "uncorrelated": "y ~ x + (x || subject)",
    "three columns": "y ~ x + z + (x + z | subject)",
    "factor slope": "y ~ x + (0 + f | subject)",
    "crossed": "y ~ x + (x | subject) + (1 | item)",
    "crossed slopes": "y ~ x + (x | subject) + (z | item)",
    "nested": "y ~ x + (1 | site/subject)",
    "nested slopes": "y ~ x + (x | site) + (z | site:subject)",
    "three factors": "y ~ x + (1 | site) + (x | subject) + (1 | item)",
    "diag": "y ~ x + diag(x + z | subject)",
    "cs": "y ~ x + cs(0 + f | subject)",
    "csh": "y ~ x + csh(0 + f | subject)",
    "ar1": "y ~ x + ar1(0 + f | subject)",
    "toeph": "y ~ x + toeph(0 + f | subject)",
    "no intercept": "y ~ 0 + f + x + (1 | subject)",
}

RESIDUAL = [
    "us(visit | subject)", "cs(visit | subject)", "csh(visit | subject)", "ar1(visit | subject)", "ar1h(visit | subject)",
    "ad(visit | subject)",
    "adh(visit | subject)", "toep(visit | subject)", "toeph(visit | subject)", "arma(visit | subject)", "hf(visit | subject)",
    "toep(visit | subject, 2)", "fa(visit | subject, 1)", "sp_exp(time | subject)", "sp_gau(time | subject)", "sp_pow(time | subject)",
    "matern(time | subject)", "sp_exp(time, x | subject)", "ar1(visit | arm / subject)", "us(visit | arm / subject)",
    "sp_exp(time | subject) + local", "sp_exp(time | arm / subject)",
]  # fmt: skip


def mixed(name: str, seed: int = 0, weighted: bool = False) -> Example:
    return Example(MIXED[name], frame(seed), {"weights": "w"} if weighted else {})


def related(seed: int = 0) -> Example:
    """Random effects with a known relationship matrix beside an ordinary factor."""
    data = frame(seed)
    levels = list(data["subject"].cat.categories)
    root = np.tril(np.random.default_rng(seed).normal(size=(12, 12))) / 4 + np.eye(12)
    A = pd.DataFrame(root @ root.T, index=levels, columns=levels)
    return Example("y ~ x + (x | subject) + (1 | item)", data, {"relationship": {"subject": A}})


def structured(residual: str | None, seed: int = 0, random: str = "", weighted: bool = False, variance: str | None = None) -> Example:
    options: dict[str, Any] = {"residual": residual}
    if weighted:
        options["weights"] = "w"
    if variance:
        options["variance"] = variance
    return Example("y ~ x + arm * visit" + random, three_visits(seed), options)


def random_x(problem: Any, seed: int) -> np.ndarray:
    """A point near the start, scales and correlations moved; nearer where a structure (hf, banded) is not positive definite there."""
    rng = np.random.default_rng(seed)
    scale, move = rng.uniform(0.6, 1.3, problem.size), rng.normal(size=problem.size) * 0.1
    for size in (1.0, 0.3, 0.1, 0.0):
        x = problem.start * (1.0 + size * (scale - 1.0)) + size * move
        if np.isfinite(problem.criterion.at(x, True, order=0).value):
            return x
    raise AssertionError("the criterion does not exist at the start")
