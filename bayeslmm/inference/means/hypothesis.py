"""What a contrast is tested for: difference, superiority, non-inferiority or equivalence; statistics, limits, notes, letters."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_letters
from typing import Any, get_args

import numpy as np
from scipy.special import stdtr, stdtrit

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import Side
from bayeslmm._validation import MAX_SIZE, number_below, require_one_of, spell
from bayeslmm.errors import SpecificationError, show_value

NEEDS_CORRELATION = frozenset({"dunnett", "mvt"})
"""Adjustments that ask for the correlation of the estimates."""

ADJUSTMENT_NAMES = {
    "tukey": "Tukey's method",
    "dunnett": "Dunnett's method",
    "mvt": "the multivariate t",
    "holm": "Holm's method",
    "bonferroni": "Bonferroni's method",
    "sidak": "Sidak's method",
    "fdr": "Benjamini and Hochberg's method",
}
ADJUSTED = {"holm": "p values (and limits by Bonferroni's method)", "fdr": "p values, not limits,"}
"""What an adjustment reaches where it has no limits of its own."""


def adjustment_note(adjust: str) -> str:
    """What was adjusted, and how."""
    return f"{ADJUSTED.get(adjust, 'p values and limits')} adjusted by {ADJUSTMENT_NAMES[adjust]}"


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a contrast is tested for: different from delta, above or below it, or within plus and minus a limit of equivalence."""

    side: str = "two-sided"
    delta: float = 0.0
    equivalence: float | None = None

    @classmethod
    def read(cls, side: Any, delta: Any, equivalence: Any) -> Hypothesis:
        """The options of a test, checked."""
        if spell(side).replace("-", "") in ("noninferiority", "nonsuperiority", "equivalence"):
            remedy = 'side="greater", delta=-margin is non-inferiority, equivalence=margin two one-sided tests'
            raise SpecificationError(f"side is {show_value(side)}", "side", remedy)
        require_one_of(side, get_args(Side), "side")
        for name, value in (("delta", delta), ("equivalence", equivalence)):
            if (value is not None or name == "delta") and np.isnan(number_below(value, MAX_SIZE)):
                raise SpecificationError(f"{name} is {show_value(value)}", name, "give one number, on the scale of the model")
        if equivalence is not None and (side != "two-sided" or delta != 0.0):
            raise SpecificationError("equivalence has two sides of its own", "equivalence", "leave side and delta out")
        if equivalence is not None and not equivalence > 0:
            raise SpecificationError(f"equivalence is {equivalence!r}", "equivalence", "give the limit, a number above 0")
        return cls(side, float(delta), None if equivalence is None else float(equivalence))

    @property
    def tail(self) -> str:
        """The tail that the statistic is looked up in."""
        return "less" if self.equivalence is not None else self.side

    def adjustment(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Tukey's adjustment is one of two-sided tests, and two one-sided tests have no joint law of their own: Sidak's then."""
        two_sided = name == "tukey" or (self.equivalence is not None and name in NEEDS_CORRELATION)
        if self.tail == "two-sided" or not two_sided:
            return name, ()
        return "sidak", (f"{ADJUSTMENT_NAMES[name]} is not for one-sided tests",)

    @property
    def notes(self) -> tuple[str, ...]:
        if self.equivalence is not None:
            return (f"tests of equivalence within plus and minus {self.equivalence:g}; limits are of two one-sided tests",)
        about = f" about {self.delta:g}" if self.delta else ""
        if self.side != "two-sided":
            return (f"one-sided tests{about}: {self.side}",)
        return (f"tests{about}",) if self.delta else ()

    def statistic(self, estimate: Array, se: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.equivalence is not None:
                return (np.abs(estimate) - self.equivalence) / se
            return (estimate - self.delta) / se

    def limits(self, estimate: Array, half: Array) -> tuple[Array, Array]:
        low = np.full(len(half), -np.inf) if self.side == "less" else estimate - half
        high = np.full(len(half), np.inf) if self.side == "greater" else estimate + half
        return low, high

    def p(self, statistic: Array, df: Array) -> Array:
        """p values of t statistics, one by one."""
        if self.tail == "two-sided":
            return np.asarray(2.0 * stdtr(df, -np.abs(statistic)))
        return np.asarray(stdtr(df, -statistic if self.tail == "greater" else statistic))

    def critical(self, level: float, df: Array) -> Array:
        """By how many standard errors limits stand off."""
        return np.asarray(-stdtrit(df, (0.5 if self.tail == "two-sided" else 1.0) * (1.0 - level)))


def compact_letters(means: Array, pairs: Codes | None, differ: Any) -> list[str]:
    """Letters of each mean, "a" with the smallest; means that are not estimable have none.

    pairs : (r, 2) positions of the means compared; differ : (r,) whether those two differ
    """
    fine = {int(i) for i in np.flatnonzero(np.isfinite(means))}
    groups: list[set[int]] = [fine] if fine else []
    for (i, j), apart in zip([] if pairs is None else pairs.tolist(), differ, strict=True):
        if apart:
            split = [part for group in groups for part in ((group - {i}, group - {j}) if {i, j} <= group else (group,))]
            groups = _absorb(split)
    place = {int(i): rank for rank, i in enumerate(np.argsort(means, kind="stable"))}
    groups.sort(key=lambda group: sorted(place[i] for i in group))
    out = ["" for _ in means]
    for number, group in enumerate(groups):
        letter = ascii_letters[number] if number < len(ascii_letters) else f"({number + 1})"
        for i in group:
            out[i] += letter
    return out


def _absorb(groups: list[set[int]]) -> list[set[int]]:
    """Groups that lie in no other."""
    kept: list[set[int]] = []
    for group in sorted(groups, key=len, reverse=True):
        if group and not any(group <= other for other in kept):
            kept.append(group)
    return kept
