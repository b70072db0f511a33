"""`ModelSpec`: everything that a user can say about a model, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bayeslmm.formula.model import Formula, ResidualTerm, VarianceFactor
from bayeslmm.spec.priors import Priors

Missing = Literal["drop", "raise"]
Checking = Literal["error", "warn"]
Contrast = str | tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model without its data.

    formula : the parsed formula
    residual : covariance structure of the errors; None is independent errors
    variance : factors of the variance function, multiplied
    weights, offset : names of columns (arrays are carried beside the spec)
    contrasts : pairs (factor, coding); a coding is a name or a matrix as rows
    relationship : names of the grouping factors with a known matrix (the matrices are carried beside the spec)
    priors : None is the defaults
    missing : "drop" or "raise"
    check : "error" or "warn"
    """

    formula: Formula
    residual: ResidualTerm | None = None
    variance: tuple[VarianceFactor, ...] = ()
    weights: str | None = None
    offset: str | None = None
    contrasts: tuple[tuple[str, Contrast], ...] = ()
    relationship: tuple[str, ...] = ()
    priors: Priors | None = None
    missing: Missing = "drop"
    check: Checking = "error"

    def __post_init__(self) -> None:
        # Two specs that say the same are equal, in whatever order it was said.
        if self.contrasts != ():
            object.__setattr__(self, "contrasts", tuple(sorted(self.contrasts, key=lambda pair: pair[0])))
        if self.relationship != ():
            object.__setattr__(self, "relationship", tuple(sorted(set(self.relationship))))
