"""Shares of the variance: Nakagawa's R2 and the intraclass correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayeslmm.likelihood.residuals import residual_sds
from bayeslmm.results.fit import Fit
from bayeslmm.results.rows import population


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Variance of the fixed part over the rows, mean variance of the random part, mean variance of the errors."""

    fixed: float
    random: float
    error: float

    @property
    def total(self) -> float:
        return self.fixed + self.random + self.error


def variance_parts(fit: Fit) -> VarianceParts:
    """What a new row's variance is made of: `var(X alpha)`, the mean of `z' D z`, the mean of `R_ii`."""
    design = fit.design
    fixed = population(fit) - (0.0 if design.offset is None else design.offset)
    random = 0.0
    for term, D in zip(design.terms, fit.covariances, strict=True):
        own = np.einsum("na,ab,nb->n", term.Z, D, term.Z)
        if term.relationship is not None:
            own = own * np.diagonal(term.relationship)[term.group.codes]
        random += float(own.mean())
    return VarianceParts(float(np.var(fixed, ddof=1)), random, float(np.mean(residual_sds(fit.problem, fit.point) ** 2)))


def r2(fit: Fit) -> pd.DataFrame:
    """Nakagawa's R2, one row: `conditional` (fixed and random part), `marginal` (fixed part); random slopes as Johnson (2014).

    >>> fit.r2().round(3).to_numpy().tolist()
    [[0.799, 0.279]]
    """
    parts = variance_parts(fit)
    return pd.DataFrame({"conditional": [(parts.fixed + parts.random) / parts.total], "marginal": [parts.fixed / parts.total]})


def icc(fit: Fit) -> pd.DataFrame:
    """Intraclass correlation, one row: `adjusted` (of what the fixed part leaves), `unadjusted` (of the whole variance).

    >>> fit.icc().round(3).to_numpy().tolist()
    [[0.722, 0.521]]
    """
    parts = variance_parts(fit)
    return pd.DataFrame({"adjusted": [parts.random / (parts.random + parts.error)], "unadjusted": [parts.random / parts.total]})
