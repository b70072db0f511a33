"""Compact letters of means: two that share a letter do not differ (Piepho 2004: insert and absorb)."""

from __future__ import annotations

from string import ascii_letters
from typing import Any

import numpy as np

from bayeslmm._arrays import Array, Codes


def compact_letters(means: Array, pairs: Codes | None, differ: Any) -> list[str]:
    """Letters of each mean, "a" with the smallest; means that are not estimable have none.

    pairs : (r, 2) positions of the means compared; differ : (r,) whether those two differ
    """
    fine = {int(i) for i in np.flatnonzero(np.isfinite(means))}
    groups: list[set[int]] = [fine] if fine else []
    for (i, j), apart in zip([] if pairs is None else pairs.tolist(), differ, strict=True):
        if apart:
            split = [part for group in groups for part in ((group - {i}, group - {j}) if {i, j} <= group else (group,))]
            groups = _absorbed(split)
    place = {int(i): rank for rank, i in enumerate(np.argsort(means, kind="stable"))}
    groups.sort(key=lambda group: sorted(place[i] for i in group))
    out = ["" for _ in means]
    for number, group in enumerate(groups):
        letter = ascii_letters[number] if number < len(ascii_letters) else f"({number + 1})"
        for i in group:
            out[i] += letter
    return out


def _absorbed(groups: list[set[int]]) -> list[set[int]]:
    """Groups that lie in no other."""
    kept: list[set[int]] = []
    for group in sorted(groups, key=len, reverse=True):
        if group and not any(group <= other for other in kept):
            kept.append(group)
    return kept
