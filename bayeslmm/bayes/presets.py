"""What is taken for priors that are not said: our defaults, or those of another package by name.

brms : half-t(3, 0, max(2.5, mad y)) for every sd, LKJ(1), flat slopes; its t prior of the intercept is left flat: alpha is integrated out
bambi : N(0, 2.5 sd(y)/sd(x)) for alpha, half-normal sds of the same sizes, half-t(4, 0, sd(y)) for sigma, LKJ(1)
blme : sd^1.5, which is Wishart(q + 2.5) for a covariance matrix, |D|^0.75: keeps a mode off the boundary; for `fit("MAP")` only
reml : flat everywhere: the mode is the REML estimate; for `fit("MAP")` only
"""

from __future__ import annotations

from dataclasses import dataclass

from bayeslmm.arrays import Array
from bayeslmm.bayes.scales import WIDE, mad_y, sd_y
from bayeslmm.data.design import Design
from bayeslmm.spec.families import Prior


@dataclass(frozen=True, slots=True, eq=False)
class Defaults:
    """Priors of one preset.

    sds(unit) : for an sd of effects whose column has size `unit`; eta : of LKJ
    """

    name: str
    sd_family: str
    sd_parameters: tuple[float, ...]
    sd_scale: float
    by_column: bool
    sigma: Prior
    eta: float

    def sd(self, unit: float) -> Prior:
        if self.sd_family in ("flat", "gamma"):
            return Prior(self.sd_family, self.sd_parameters)
        return Prior(self.sd_family, (*self.sd_parameters, self.sd_scale / (unit if self.by_column else 1.0)))

    def sds(self, units: Array) -> list[Prior]:
        return [self.sd(float(unit)) for unit in units]


def defaults(preset: str | None, design: Design) -> Defaults:
    """The defaults of a preset, scaled from the data."""
    spread = sd_y(design) or 1.0
    if preset == "brms":
        scale = max(2.5, round(mad_y(design), 1))
        return Defaults("brms", "half_t", (3.0,), scale, False, Prior("half_t", (3.0, scale)), 1.0)
    if preset == "bambi":
        return Defaults("bambi", "half_normal", (), WIDE * spread, True, Prior("half_t", (4.0, spread)), 1.0)
    if preset == "blme":
        return Defaults("blme", "gamma", (2.5, 0.0), 1.0, False, Prior("flat"), 1.75)
    if preset == "reml":
        return Defaults("reml", "flat", (), 1.0, False, Prior("flat"), 1.0)
    return Defaults("default", "half_t", (3.0,), WIDE * spread, True, Prior("half_t", (3.0, WIDE * spread)), 2.0)
