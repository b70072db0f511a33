"""Codings of a factor: the columns that stand for its levels beside an intercept, named as formulaic names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayeslmm.arrays import Array, frozen
from bayeslmm.data.wording import values_text
from bayeslmm.errors import SpecificationError

Contrast = str | tuple[tuple[float, ...], ...]
NAMES = ("treatment", "sum", "helmert", "poly", "diff", "sas")
_POLYNOMIAL = {1: ".L", 2: ".Q", 3: ".C"}


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """How the K levels of a factor become columns.

    fields : names of the r columns beside an intercept: ("T.TRT",)
    matrix : (K, r) their values per level; None for indicators of the levels `picked`
    picked : positions of the levels that indicators stand for
    full : names of the K indicator columns where no intercept is beside them
    """

    fields: tuple[str, ...]
    matrix: Array | None
    picked: tuple[int, ...]
    full: tuple[str, ...]


def coding(factor: str, levels: Sequence[Any], contrast: Contrast = "treatment", base: Any = None) -> Coding:
    """The coding of a factor with these levels (K >= 1).

    base : the reference level of a treatment coding; None is the first (the last for "sas")
    Errors: `SpecificationError` for an unknown name, an unknown base, a matrix without a row per level.
    """
    labels = tuple(str(level) for level in levels)
    if not isinstance(contrast, str):
        return _custom(factor, labels, contrast)
    if contrast in ("treatment", "sas"):
        reference = _reference(factor, list(levels), contrast, base)
        kept = tuple(i for i in range(len(labels)) if i != reference)
        return Coding(tuple(f"T.{labels[i]}" for i in kept), None, kept, labels)
    if contrast not in NAMES:
        raise SpecificationError(
            f"unknown contrasts {contrast!r} for {factor!r}", "", f"one of {', '.join(NAMES)}, or a matrix with a row per level"
        )
    fields, matrix = _NAMED[contrast](labels)
    return Coding(tuple(fields), frozen(matrix), (), labels)


def _reference(factor: str, levels: list[Any], contrast: str, base: Any) -> int:
    if base is None:
        return len(levels) - 1 if contrast == "sas" else 0
    if base not in levels:
        raise SpecificationError(
            f"{base!r} is not a level of {factor!r}", f"levels {values_text(levels)}", "name one of them as the reference"
        )
    return levels.index(base)


def _custom(factor: str, labels: tuple[str, ...], rows: Sequence[Sequence[float]]) -> Coding:
    matrix = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[0] != len(labels) or not np.isfinite(matrix).all():
        shape = " x ".join(map(str, matrix.shape))
        raise SpecificationError(
            f"the contrast matrix of {factor!r} does not fit its {len(labels)} levels",
            f"matrix {shape}; levels {values_text(labels)}",
            "give one finite row per level that occurs, one column per contrast",
        )
    return Coding(tuple(str(i + 1) for i in range(matrix.shape[1])), frozen(matrix), (), labels)


def _sum(labels: tuple[str, ...]) -> tuple[list[str], Array]:
    matrix = np.eye(len(labels), len(labels) - 1)
    matrix[-1] = -1.0
    return [f"S.{label}" for label in labels[:-1]], matrix


def _helmert(labels: tuple[str, ...]) -> tuple[list[str], Array]:
    """Each level against the mean of those before it, unscaled, as R has it."""
    matrix = np.zeros((len(labels), len(labels) - 1))
    for i in range(len(labels) - 1):
        matrix[: i + 1, i], matrix[i + 1, i] = -1.0, i + 1.0
    return [f"H.{label}" for label in labels[1:]], matrix


def _poly(labels: tuple[str, ...]) -> tuple[list[str], Array]:
    """Orthonormal polynomials in 0..K-1 with positive leading coefficients."""
    scores = np.arange(len(labels)) - (len(labels) - 1) / 2
    q, r = np.linalg.qr(np.vander(scores, increasing=True))
    return [_POLYNOMIAL.get(d, f"^{d}") for d in range(1, len(labels))], (q * np.sign(np.diag(r)))[:, 1:]


def _diff(labels: tuple[str, ...]) -> tuple[list[str], Array]:
    """Each level against the one before it."""
    total = len(labels)
    matrix = np.repeat([np.arange(1.0, total)], total, axis=0) / total
    matrix[np.triu_indices(total, m=total - 1)] -= 1.0
    return [f"D.{label}" for label in labels[1:]], matrix


_NAMED = {"sum": _sum, "helmert": _helmert, "poly": _poly, "diff": _diff}
