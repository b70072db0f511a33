"""Random models of 20 to 300 rows with structured errors or variance functions: every structure of R and of D, by group, by ML and REML."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayeslmm.covariance.registry import STRUCTURES, names

Array = np.ndarray

RANDOM = ("", "", "", "(1 | g)", "(1 | g)", "(x | g)", "(x || g)", "(1 | h)", "(1 | g) + (1 | h)", "structured")

VARIANCE = ("ident(f)", "ident(f)", "ident(f) * ident(arm)", "power(p)", "exp(x)", "const_power(p)", "ident(arm) * exp(x)", "exp(x | arm)")

PRODUCTS = ("us@ar1", "us@cs", "us@us")


@dataclass(frozen=True)
class StructuredDesign:
    """What LMM is given; kind is the structure of R, or the variance function."""

    seed: int
    kind: str
    formula: str
    data: pd.DataFrame
    residual: str | None
    variance: str | None
    weights: str | None
    reml: bool

    @property
    def options(self) -> dict[str, str | None]:
        """The other arguments of LMM."""
        return {"residual": self.residual, "variance": self.variance, "weights": self.weights}


def structured_design(seed: int) -> StructuredDesign:
    """The design of a seed, always the same."""
    r = np.random.default_rng(500_000 + seed)
    data = _rows(r)
    structured = r.random() < 0.8
    residual = _residual(r, data.visit.nunique()) if structured else None
    variance = str(r.choice(VARIANCE)) if not structured or r.random() < 0.2 else None
    # a factor that crosses the subjects ties all rows into one block
    random = str(r.choice([term for term in RANDOM if "h" not in term or len(data) < 100]))
    if random == "structured":
        random = f"{r.choice([name for name in names('D') if name not in ('car1', 'arma')])}(0 + f | g)"
    fixed = ["1", *(term for term, share in (("x", 0.6), ("f", 0.5), ("arm", 0.4), ("z", 0.2)) if r.random() < share)]
    if {"f", "arm"} <= set(fixed) and r.random() < 0.3:
        fixed.append("f:arm")
    formula = "y ~ " + " + ".join([*fixed, *([random] if random else [])])
    weights = "w" if r.random() < 0.15 else None
    kind = residual.partition("(")[0] if residual else str(variance).partition("(")[0]
    return StructuredDesign(seed, kind, formula, data, residual, variance, weights, bool(r.random() < 0.5))


def _rows(r: np.random.Generator) -> pd.DataFrame:
    """Subjects with up to m visits, of two arms and a factor crossed with them; errors that resemble some structure or none."""
    n, m = int(20 * 15 ** (r.random() ** 1.5)), int(r.integers(2, 7))
    subjects = max(4, round(n / (m * 0.85)))
    seen = r.random((subjects, m)) < r.choice([1.0, 0.9, 0.7])
    seen[:, 0] |= ~seen.any(axis=1)
    s, v = np.nonzero(seen)
    x, z = r.normal(size=len(s)), r.normal(size=subjects)[s]
    arm, f, h = s % 2, r.integers(0, int(r.integers(2, 4)), len(s)), r.integers(0, int(r.integers(4, 9)), len(s))
    rho, sds = r.choice([-0.5, 0.0, 0.3, 0.7, 0.95]), 10.0 ** (r.choice([0.0, 0.3, 0.6]) * r.normal(size=m))
    R = rho ** np.abs(np.subtract.outer(np.arange(m), np.arange(m))) if r.random() < 0.6 else np.cov(r.normal(size=(m, m + 2)))
    errors = (r.normal(size=(subjects, m)) @ np.linalg.cholesky(R + 1e-6 * np.eye(m)).T * sds)[s, v]
    errors = errors * np.exp(r.choice([0.0, 0.4]) * x + r.choice([0.0, 0.7]) * arm + r.choice([0.0, 0.5]) * f)
    size = r.choice([0.0, 0.3, 1.0, 5.0], 3)
    y = errors + size[0] * r.normal(size=subjects)[s] + size[1] * r.normal(size=subjects)[s] * x + size[2] * r.normal(size=9)[h] + x
    data = pd.DataFrame({"y": y, "x": x, "z": z, "p": np.exp(x), "w": r.uniform(0.3, 3.0, len(s)), "a": r.normal(size=len(s)), "b": v + x})
    for name, codes in (("g", s), ("h", h), ("f", f), ("arm", arm), ("visit", v), ("o", v % 2), ("k", v // 2)):
        data[name] = pd.Categorical([f"{name}{code:02d}" for code in codes])
    return data


def _residual(r: np.random.Generator, visits: int) -> str:
    name = str(r.choice([*names(), *PRODUCTS]))
    by = "arm / g" if r.random() < 0.2 else "g"
    if "@" in name:
        return f"{name}(o, k | {by})"
    row = STRUCTURES[name]
    if row.takes == "times":
        return f"{name}(b | {by})"
    if row.spatial:
        name = "sp_exp" if name == "matern" else name  # its smoothness costs seconds a start
        return f"{name}(a, b | {by})" + (" + local" if r.random() < 0.2 else "")
    name = "ar1" if name == "arma" and visits < 3 else name
    order = f", {r.integers(1, 3)}" if row.takes == "order" and r.random() < 0.5 else ""
    return f"{name}(visit | {by}{order})" + (" + local" if row.homogeneous and name not in ("id",) and r.random() < 0.1 else "")
