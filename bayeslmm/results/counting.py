"""Information criteria, by the counts of lme4, of mmrm or of SAS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Counting = Literal["lme4", "mmrm", "sas"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What an information criterion counts.

    lme4 counts every estimated parameter and every observation. mmrm and SAS count covariance parameters only under REML, and subjects in
    BIC; SAS counts the fixed effects of an ML fit.

    criterion : -2 log likelihood; coefficients, covariance : numbers of parameters; subjects : those that BIC counts
    """

    rule: Counting
    restricted: bool
    criterion: float
    nobs: int
    coefficients: int
    covariance: int
    subjects: int

    @property
    def parameters(self) -> int:
        """The parameters that the criteria count."""
        fixed_too = self.rule == "lme4" or (self.rule == "sas" and not self.restricted)
        return self.covariance + (self.coefficients if fixed_too else 0)

    @property
    def aic(self) -> float:
        return self.criterion + 2.0 * self.parameters

    @property
    def aicc(self) -> float:
        k = self.parameters
        if self.rule == "lme4":
            rest = self.nobs - k - 1
            return self.aic + 2.0 * k * (k + 1) / rest if rest > 0 else float("nan")
        rows = max(k + 2, self.nobs - (self.coefficients if self.restricted else 0))
        return self.criterion + 2.0 * k * rows / (rows - k - 1)

    @property
    def bic(self) -> float:
        rows = self.nobs if self.rule == "lme4" else self.subjects
        return self.criterion + float(np.log(rows)) * self.parameters
