"""Random Gaussian mixed models of 12 to 2,000 rows: nested, crossed, unbalanced, weighted, of large and tiny units, singular and not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

Array = np.ndarray

TERMS = {
    "int": ["(1|g)"],
    "slope": ["(x1|g)"],
    "slopebar": ["(x1||g)"],
    "slope0": ["(0+x1|g)"],
    "fac": ["(f|g)"],
    "fac0": ["(0+f|g)"],
    "nest": ["(1|g/h)"],
    "cross": ["(1|g)", "(1|h)"],
    "slopecross": ["(x1|g)", "(1|h)"],
    "ginter": ["(1|g)", "(1|g:f)"],
    "two": ["(x1|g)", "(x2|h)"],
    "three": ["(1|g)", "(1|h)", "(1|f:g)"],
    "pcross": ["(1|g)", "(1|h)"],
    "slope2bars": ["(x1+x2|g)"],
    "nestslope": ["(x1|g)", "(1|g:h)"],
}

VARIANCES = [0, 0, 0.1, 0.3, 1, 1, 3, 10, 100]


@dataclass(frozen=True)
class RandomDesign:
    """A formula with its data; weights and offset name columns."""

    seed: int
    kind: str
    formula: str
    data: pd.DataFrame
    weights: str | None
    offset: str | None
    reml: bool

    @property
    def options(self) -> dict[str, str | None]:
        """The other arguments of LMM."""
        return {"weights": self.weights, "offset": self.offset}


def random_design(seed: int) -> RandomDesign:
    """The design of a seed, always the same."""
    r = np.random.default_rng(seed)
    size = r.random()
    low, high = (12, 60) if size < 0.55 else (60, 300) if size < 0.8 else (300, 2000)
    n = int(np.exp(r.uniform(np.log(low), np.log(high))))
    kind = str(r.choice(list(TERMS)))
    g, h, f, levels, others = _groups(r, n, kind)
    x1, x2 = _covariates(r, n, levels)
    data = pd.DataFrame({"g": _labels("g", g, 2), "h": _labels("h", h, 2), "f": _labels("f", f, 1), "x1": x1, "x2": x2})
    y = _response(r, g, levels, h, others, f, (x1 - x1.mean()) / (x1.std() + 1e-12), x2)
    formula = "y ~ " + " + ".join([*_fixed(r, kind), *TERMS[kind]])
    weights = offset = None
    if r.random() < 0.25:
        data["w"], weights = r.gamma(0.7, 2, size=n) + 0.02, "w"
    unit = 10.0 ** r.integers(-5, 6) if r.random() < 0.25 else 1.0
    if r.random() < 0.15:
        data["o"], offset = r.normal(size=n) * 3 * unit, "o"
    data["y"] = (y + float(r.choice([0, 0, 0, 100, 1e4]))) * unit
    return RandomDesign(seed, kind, formula, data, weights, offset, bool(r.random() < 0.6))


def _labels(name: str, codes: Array, digits: int) -> list[str]:
    return [f"{name}{i:0{digits}d}" for i in codes]


def _groups(r: np.random.Generator, n: int, kind: str) -> tuple[Array, Array, Array, int, int]:
    """Codes of g, h and f, and how many levels g and h have."""
    levels = int(np.clip(r.integers(3, max(4, n // 3 + 1)), 3, 60))
    unbalanced = r.random() < 0.35
    share = r.dirichlet(np.full(levels, 0.4)) if unbalanced else None
    if unbalanced:
        g = r.choice(levels, n, p=share)
    elif r.random() < 0.6:
        g = np.arange(n) % levels
    else:
        g = r.choice(levels, n)
    others = int(r.integers(3, max(4, min(30, n // 3))))
    h = r.integers(0, others, n) if r.random() < 0.6 else (np.arange(n) // max(1, n // others)) % others
    if kind == "pcross":  # each level of g meets two of h
        pairs = r.integers(0, others, (levels, 2))
        h = pairs[g, r.integers(0, 2, n)]
    f = r.integers(0, int(r.integers(2, 5)), n)
    return g, h, f, levels, others


def _covariates(r: np.random.Generator, n: int, levels: int) -> tuple[Array, Array]:
    """x1 of any unit and origin, x2 more or less collinear with it."""
    x1 = r.normal(size=n) if r.random() < 0.6 else (np.arange(n) // levels).astype(float)
    rho = r.choice([0, 0.5, 0.95, 0.999])
    x2 = rho * (x1 - x1.mean()) / (x1.std() + 1e-9) + np.sqrt(1 - rho**2) * r.normal(size=n)
    r.normal(size=levels)
    if r.random() < 0.35:
        x1 = x1 * 10.0 ** r.integers(-4, 5)
    if r.random() < 0.3:
        x1 = x1 + float(r.choice([5, 30, 200, 1000])) * (x1.std() + 1e-12)
    return x1, x2


def _effects(r: np.random.Generator, code: Array, levels: int, q: int) -> Array:
    """Random effects of any size and rank for every row, (n, q)."""
    root = r.normal(size=(q, q)) if r.random() < 0.7 else np.diag(r.choice([0.0, 1.0], q))
    if r.random() < 0.2 and q > 1:
        root[:, 1:] = 0
    return np.asarray((r.normal(size=(levels, q)) @ root.T * np.sqrt(0 + r.choice(VARIANCES)))[code])


def _response(r: np.random.Generator, g: Array, levels: int, h: Array, others: int, f: Array, x1: Array, x2: Array) -> Array:
    n = len(g)
    y = r.normal(size=n)
    tail = r.random()
    if tail < 0.12:
        y = r.standard_t(2, size=n)
    elif tail < 0.18:
        y = np.round(y * 1.5)
    y = y + _effects(r, g, levels, 1)[:, 0]
    if r.random() < 0.7:
        y = y + (_effects(r, g, levels, 2) * np.column_stack([np.ones(n), x1])).sum(1)
    if r.random() < 0.5:
        y = y + _effects(r, h, others, 1)[:, 0]
    if r.random() < 0.3:
        y = y + _effects(r, g * 10 + f, levels * 10 + 10, 1)[:, 0]
    return np.asarray(y + (r.normal() * x1 + r.normal() * x2))


def _fixed(r: np.random.Generator, kind: str) -> list[str]:
    found, terms = ["1"], "".join(TERMS[kind])
    if r.random() < 0.8 or "x1" in terms:
        found.append("x1")
    if r.random() < 0.5 or "x2" in terms:
        found.append("x2")
    if r.random() < 0.4:
        found.append("f")
    if len(found) > 2 and r.random() < 0.15:
        found.append("x1:f" if {"f", "x1"} <= set(found) else "f")
    found = list(dict.fromkeys(found))
    return ["1"] if r.random() < 0.05 else found


CONTEXTUAL = {
    "int": ("x + (1|g)", "x + z + (1|g)"),
    "slope": ("x + (z|g)",),
    "own slope": ("x + (x|g)",),
    "slopebar": ("x + (z||g)",),
    "cross": ("x + (1|g) + (1|h)",),
}


def contextual_design(seed: int) -> RandomDesign:
    """8 to 2,000 rows with a covariate whose slope between levels is another than within them: the criterion often has two minima."""
    r = np.random.default_rng(seed)
    K, m = int(r.integers(4, 40)), int(r.integers(2, 50))
    g, n = np.repeat(np.arange(K), m), K * m
    means = r.normal(size=K) * 10 ** r.uniform(-0.5, 1.5)
    data = pd.DataFrame({"g": _labels("g", g, 2), "h": _labels("h", r.integers(0, int(r.integers(3, 12)), n), 2), "z": r.normal(size=n)})
    within, slopes = r.normal(size=n), 2.0 * r.normal(size=2)
    data["x"] = means[g] + within
    effects, errors = r.normal(size=K) * 10 ** r.uniform(-1, 0.5), r.normal(size=n) * 10 ** r.uniform(-0.5, 1)
    data["y"] = slopes[0] * within + slopes[1] * means[g] + effects[g] + errors
    kind = str(r.choice(list(CONTEXTUAL)))
    formula = f"y ~ {r.choice(CONTEXTUAL[kind])}"
    return RandomDesign(seed, kind, formula, data, None, None, bool(r.random() < 0.5))
