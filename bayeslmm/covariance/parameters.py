"""Names of covariance parameters: what a number is about, before anybody says how the visits or columns are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameter:
    """One natural parameter: its kind, and the rows, the lag or the serial number it belongs to.

    kind : "sd", "var", "cov", "rho", "range", "nu", ...
    rows : positions (from 0) of the visits or columns concerned
    number : lag, or position in a list; 0 if the kind alone is enough
    """

    kind: str
    rows: tuple[int, ...] = ()
    number: int = 0

    @property
    def name(self) -> str:
        """`sd_1`, `cov_2_1`, `rho_1`, `rho`: positions counted from 1."""
        return "_".join([self.kind, *(str(row + 1) for row in self.rows), *([str(self.number)] if self.number else [])])

    def labelled(self, labels: Sequence[str]) -> str:
        """`sd[VIS1]`, `cov[VIS2,VIS1]`, `rho[lag 1]`, `rho`."""
        if self.rows:
            return f"{self.kind}[{','.join(str(labels[row]) for row in self.rows)}]"
        if self.number:
            return f"{self.kind}[lag {self.number}]" if self.kind in ("rho", "cov") else f"{self.kind}[{self.number}]"
        return self.kind


def per_row(kind: str, q: int) -> tuple[Parameter, ...]:
    """One parameter of a kind for every row."""
    return tuple(Parameter(kind, (row,)) for row in range(q))
