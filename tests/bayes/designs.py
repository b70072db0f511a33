"""Small models of every kind, and the definitions that the fast code is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.bayes.log_posterior.density import Density
from bayeslmm.likelihood.structured.residual_covariance import unit_covariances


def grouped(seed: int = 1, groups: int = 8, each: int = 6, sd: tuple[float, float] = (1.0, 0.6), sigma: float = 0.8) -> pd.DataFrame:
    """y = 1 + 0.5 x + intercept and slope by g + error, with a crossed factor h, weights and an offset."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(groups), each), np.tile(np.linspace(-1.0, 1.0, each), groups)
    h = np.tile(np.arange(each), groups) % 4
    b, c = rng.standard_normal((groups, 2)) * sd, 0.7 * rng.standard_normal(4)
    y = 1.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + c[h] + sigma * rng.standard_normal(len(g))
    labels = {"g": [f"g{i}" for i in g], "h": [f"h{i}" for i in h], "inner": [f"i{i % 2}" for i in range(len(g))]}
    visits = {"visit": np.tile(np.arange(each), groups), "w": rng.uniform(0.5, 2.0, len(g)), "o": rng.normal(size=len(g))}
    return pd.DataFrame({"y": y, "x": x, **labels, **visits})


def relationship(levels: int) -> pd.DataFrame:
    names = [f"g{i}" for i in range(levels)]
    return pd.DataFrame(0.5 ** np.abs(np.subtract.outer(np.arange(levels), np.arange(levels))), index=names, columns=names)


MODELS: dict[str, dict[str, Any]] = {
    "intercepts": {"formula": "y ~ x + (1 | g)"},
    "slopes": {"formula": "y ~ x + (x | g)"},
    "independent slopes": {"formula": "y ~ x + (x || g)"},
    "crossed": {"formula": "y ~ x + (x | g) + (1 | h)"},
    "nested": {"formula": "y ~ x + (1 | g / inner)"},
    "weights and offset": {"formula": "y ~ x + (x | g)", "weights": "w", "offset": "o"},
    "cs": {"formula": "y ~ x + cs(0 + h | g)"},
    "ar1h": {"formula": "y ~ x + ar1h(0 + h | g)"},
    "related": {"formula": "y ~ x + (1 | g) + (1 | h)", "relationship": {"g": relationship(8)}},
    "us errors": {"formula": "y ~ x", "residual": "us(visit | g)"},
    "ar1 errors": {"formula": "y ~ x + (1 | g)", "residual": "ar1(visit | g)", "weights": "w"},
    "toep errors": {"formula": "y ~ x", "residual": "toep(visit | g)"},
    "spatial errors": {"formula": "y ~ x", "residual": "sp_exp(visit | g)"},
    "variance function": {"formula": "y ~ x + (1 | g)", "variance": "exp(x)"},
    "ratio": {"formula": "y ~ x + (x | g)", "variance": "ident(inner)"},
}


def model(name: str, priors: Any = None, **changes: Any) -> blm.LMM:
    return blm.LMM(data=grouped(), priors=priors, check="warn", **{**MODELS[name], **changes})


def dense_covariance(density: Density, phi: Array) -> Array:
    """V (n, n) of one phi, from its definition."""
    design = density.problem.design
    x, s = density.kernel_points(phi[None])
    sigma = float(s[0]) * density.sigma_unit / np.sqrt(design.weight_scale)
    V = sigma**2 * _errors(density, x[0])
    for block, term in zip(density.layout.terms, design.terms, strict=True):
        known = np.eye(term.group.size) if term.relationship is None else term.relationship
        codes = term.group.codes
        V = V + known[np.ix_(codes, codes)] * (term.Z @ block.covariance(phi[None])[0] @ term.Z.T)
    return V


def _errors(density: Density, x: Array) -> Array:
    """R / sigma^2 (n, n)."""
    design, n = density.problem.design, density.problem.design.nobs
    whole = unit_covariances(density.problem, x, np.arange(n)[None])[0]
    if design.residual is None:
        return whole
    subject = design.residual.subject.codes
    return whole * (subject[:, None] == subject)


def somewhere(density: Density, seed: int = 0, spread: float = 0.3) -> Array:
    """A point of phi not far from relative sds of 1, where no sd is lifted."""
    rng, start = np.random.default_rng(seed), density.problem.start.copy()
    for term in density.problem.random.terms:
        start[term.part] = term.covariance.start()
    return density.phi_of(start, 0.7) + spread * rng.standard_normal(density.size)
