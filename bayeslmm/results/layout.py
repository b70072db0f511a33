"""Tables of text cells, and numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bayeslmm.errors import Check

SIGNIFICANT = 5


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text.

    labels : leading columns that hold names, set flush left
    """

    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1

    def __post_init__(self) -> None:
        if self.names and self.names[0] not in ("", "Group", "Name"):
            object.__setattr__(self, "labels", 0)


def digits(values: Iterable[float]) -> list[str]:
    """Numbers with the decimals that show five digits of the largest, so that they line up; powers of ten for very large and very small."""
    values = [float(value) for value in values]
    sizes = [abs(value) for value in values if np.isfinite(value) and value != 0.0]
    largest, smallest = max(sizes, default=1.0), min(sizes, default=1.0)
    if largest >= 1e7 or smallest < 1e-4:
        return [f"{value:.{SIGNIFICANT - 1}g}" for value in values]
    decimals = max(1, SIGNIFICANT - 1 - int(np.floor(np.log10(largest))))
    if smallest * 10.0**decimals < 10.0:
        decimals = min(6, int(np.ceil(-np.log10(smallest))) + 2)
    return [f"{value:.{decimals}f}" for value in values]


def signed(value: float, decimals: int = 2) -> str:
    """A correlation or a statistic; NaN where there is none."""
    if np.isfinite(value) and abs(value) >= 1e5:
        return f"{value:.3g}"
    return f"{value:.{decimals}f}"


def p_text(p: float) -> str:
    """A p value as it is printed in papers."""
    if np.isnan(p):
        return "NaN"
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"


def describe_checks(checks: Iterable[Check]) -> Iterator[str]:
    """One line for each check that did not pass: its verdict, its name, what to do."""
    for check in checks:
        if check.verdict != "passed":
            value = described(check.value)
            yield f"{check.verdict}: {check.name}" + (f" ({value})" if value else "") + (f"; {check.remedy}" if check.remedy else "")


def described(value: object) -> str:
    """The value of a check in a few characters."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {described(v)}" for key, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(described(v) for v in value)
    return str(value)
