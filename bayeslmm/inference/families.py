"""Families of contrasts among means: pairs, against a control, polynomials, neighbours, effects, the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from typing import Any

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.errors import SpecificationError

METHODS = ("pairwise", "revpairwise", "trt.vs.ctrl", "poly", "consec", "effect", "identity")
POLYNOMIALS = ("linear", "quadratic", "cubic", "quartic")


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """weights : (r, m) over m means, one row per contrast; adjust : the adjustment that goes with it; pairwise : all pairs."""

    labels: tuple[str, ...]
    weights: Array
    adjust: str
    pairwise: bool = False


def family(method: Any, means: Sequence[str], ref: Any = None) -> Family:
    """The contrasts of a method among m means with these labels.

    method : a name of METHODS, or {label: weights} or an array (r, m) of the user's own
    ref : the control of "trt.vs.ctrl", a label or a position; the first by default
    """
    if not isinstance(method, str):
        return _custom(method, means)
    m = len(means)
    makers = {
        "pairwise": lambda: _pairs(means, list(combinations(range(m), 2)), "tukey", pairwise=True),
        "revpairwise": lambda: _pairs(means, [(j, i) for i, j in combinations(range(m), 2)], "tukey", pairwise=True),
        "trt.vs.ctrl": lambda: _against(means, _reference(ref, means)),
        "consec": lambda: _pairs(means, [(i + 1, i) for i in range(m - 1)], "mvt"),
        "poly": lambda: _poly(m),
        "effect": lambda: Family(tuple(f"{a} effect" for a in means), np.eye(m) - 1.0 / m, "fdr"),
        "identity": lambda: Family(tuple(means), np.eye(m), "none"),
    }
    name = method.strip().lower().replace("_", ".").replace("eff", "effect").replace("effectect", "effect")
    if name not in makers:
        near = get_close_matches(name, METHODS, 1, 0.4)
        remedy = f"did you mean {near[0]!r}? " if near else ""
        raise SpecificationError(f"unknown contrasts {method!r}", "method=", f"{remedy}one of {', '.join(METHODS)}, or {{label: weights}}")
    return makers[name]()


def _pairs(means: Sequence[str], pairs: Sequence[tuple[int, int]], adjust: str, pairwise: bool = False) -> Family:
    weights = np.zeros((len(pairs), len(means)))
    for row, (i, j) in zip(weights, pairs, strict=True):
        row[i], row[j] = 1.0, -1.0
    return Family(tuple(f"{means[i]} - {means[j]}" for i, j in pairs), weights, adjust, pairwise)


def _against(means: Sequence[str], control: int) -> Family:
    return _pairs(means, [(i, control) for i in range(len(means)) if i != control], "dunnett")


def _reference(ref: Any, means: Sequence[str]) -> int:
    if ref is None:
        return 0
    if str(ref) in means:
        return list(means).index(str(ref))
    if isinstance(ref, int) and -len(means) <= ref < len(means):
        return ref % len(means)
    raise SpecificationError(f"{ref!r} is none of the means", f"means: {', '.join(means)}", "name the control, or give its position")


def _poly(m: int) -> Family:
    """Orthogonal polynomials with the smallest whole numbers where there are any."""
    scores = np.arange(m) - (m - 1) / 2
    q, r = np.linalg.qr(np.vander(scores, increasing=True))
    rows = (q * np.sign(np.diag(r))).T[1:]
    names = [POLYNOMIALS[d] if d < len(POLYNOMIALS) else f"degree {d + 1}" for d in range(m - 1)]
    return Family(tuple(names), np.array([_whole(row) for row in rows]).reshape(-1, m), "none")


def _whole(row: Array) -> Array:
    unit = row / np.abs(row[np.abs(row) > 1e-9]).min()
    for factor in range(1, 61):
        if np.all(np.abs(unit * factor - np.round(unit * factor)) < 1e-7):
            return np.asarray(np.round(unit * factor))
    return np.asarray(unit)


def _custom(method: Any, means: Sequence[str]) -> Family:
    if isinstance(method, Mapping):
        labels, rows = tuple(map(str, method)), list(method.values())
    else:
        rows = list(np.atleast_2d(np.asarray(method, float)))
        labels = tuple(f"contrast {i + 1}" for i in range(len(rows)))
    weights = []
    for label, row in zip(labels, rows, strict=True):
        values = np.asarray(row, float).ravel()
        if len(values) != len(means) or not np.all(np.isfinite(values)):
            where = f"contrast {label!r}; means: {', '.join(means)}"
            raise SpecificationError(f"{len(values)} weights for {len(means)} means", where, "give one weight per mean")
        weights.append(values)
    return Family(labels, np.array(weights).reshape(-1, len(means)), "none")
