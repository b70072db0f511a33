"""What too few complete subjects leave unsaid about R: lags without a pair of visits, visits that few subjects have together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.design import ResidualDesign
from bayeslmm.data.structures import is_unstructured
from bayeslmm.data.wording import values_text
from bayeslmm.errors import Check, IdentifiabilityError

FEW = "few_complete_subjects"
_PATTERNS = 500  # sets of visits looked at; a study has tens


def lag_without_pairs(residual: ResidualDesign, remedy: str) -> list[IdentifiabilityError]:
    """A lag of a Toeplitz structure at which no subject has two visits."""
    if residual.name not in ("toep", "toeph") or residual.visit is None:
        return []
    places = residual.visit if not residual.positions else np.array(residual.positions)[residual.visit]
    span = int(places.max()) + 1
    seen = np.zeros(span, dtype=bool)
    order = np.lexsort((places, residual.subject.codes))
    subject, place = residual.subject.codes[order], places[order]
    for ahead in range(1, min(span, len(place))):
        together = subject[ahead:] == subject[:-ahead]
        if not together.any():
            break
        seen[(place[ahead:] - place[:-ahead])[together]] = True
    bands = min(residual.order or span, span)
    absent = [lag for lag in range(1, bands) if not seen[lag]]
    if not absent:
        return []
    what = f"no subject has two visits {absent[0]} steps apart: their correlation has no data"
    where = f"{residual.spec.text}; lags without a pair: {values_text(absent)}"
    return [IdentifiabilityError(what, where, remedy)]


def outcomes_apart(residual: ResidualDesign, remedy: str) -> list[IdentifiabilityError]:
    """Two outcomes of a product such as us@ar1 that no subject has both of."""
    if not residual.name.startswith("us@") or residual.visit is None:
        return []
    inner = residual.shape[1]
    has = np.zeros((residual.subject.size, residual.shape[0]))
    has[residual.subject.codes, residual.visit // inner] = 1.0
    absent = np.argwhere(np.tril(has.T @ has == 0, -1))
    if not len(absent):
        return []
    a, b = (str(residual.visit_levels[int(i) * inner]).split(":", 1)[0] for i in absent[0][::-1])
    what = f"no subject has both {a!r} and {b!r} of {residual.spec.visit[0]!r}: their covariance has no data"
    return [IdentifiabilityError(what, residual.spec.text, remedy)]


def few_complete(residual: ResidualDesign | None, X: Array) -> list[Check]:
    """A note where the subjects that have some visits together are too few to keep an unstructured covariance of those from being singular.

    Subjects who have m visits give points in m dimensions. Where their number, less the r dimensions that the fixed effects can fit, is
    below m, a plane goes through all of them: the covariance may be singular across it, and the likelihood grows without a bound. Other
    subjects, who lack one of the visits, do not see the plane.
    """
    if residual is None or residual.visit is None or not is_unstructured(residual.name, residual.order):
        return []
    groups = np.zeros(len(X), dtype=np.int64) if residual.group is None else residual.group.codes
    found = []
    for at in range(1 if residual.group is None else residual.group.size):
        rows = np.flatnonzero(groups == at)
        subjects, codes = np.unique(residual.subject.codes[rows], return_inverse=True)
        has = np.zeros((len(subjects), len(residual.visit_levels)), dtype=bool)
        has[codes, residual.visit[rows]] = True
        pattern = _too_few(has, X[rows], codes, residual.visit[rows])
        if pattern is not None:
            visits, count = pattern
            labels = values_text([residual.visit_levels[i] for i in np.flatnonzero(visits)])
            within = "" if residual.group is None else f" in {residual.group.name} {residual.group.levels[at]!r}"
            value = f"{count} subjects{within} have the {int(visits.sum())} visits {labels} together"
            remedy = (
                "with so few the likelihood has no maximum, since it grows as the covariance of these visits becomes singular, and an "
                'estimate is a local optimum: use a structure with fewer parameters, or priors and fit("MAP") or sample()'
            )
            found.append(Check(FEW, "noted", value, remedy=remedy))
    return found


def _too_few(has: NDArray[np.bool_], X: Array, codes: Codes, visit: Codes) -> tuple[NDArray[np.bool_], int] | None:
    """The first set of visits, largest first, with too few subjects that have all of it; and how many they are."""
    patterns = np.unique(has, axis=0)
    sizes = patterns.sum(axis=1)
    patterns = patterns[np.argsort(-sizes, kind="stable")][:_PATTERNS]
    for pattern in patterns[patterns.sum(axis=1) >= 2]:
        size, with_all = int(pattern.sum()), has[:, pattern].all(axis=1)
        count = int(with_all.sum())
        if count > size - 1 + X.shape[1]:
            continue
        fitted = _dimensions(X, codes, visit, pattern, np.flatnonzero(with_all))
        if fitted < count <= size - 1 + fitted:
            return pattern, count
    return None


def _dimensions(X: Array, codes: Codes, visit: Codes, pattern: NDArray[np.bool_], subjects: Codes) -> int:
    """How many dimensions of a'y over the subjects a'X fits, for an a on all visits of the pattern that is nothing special."""
    weights = np.where(pattern, np.random.default_rng(0).standard_normal(len(pattern)), 0.0)
    place = np.full(int(codes.max()) + 1, -1)
    place[subjects] = np.arange(len(subjects))
    rows = (place[codes] >= 0) & pattern[visit]
    combined = np.zeros((len(subjects), X.shape[1]))
    np.add.at(combined, place[codes[rows]], weights[visit[rows], None] * X[rows])
    return int(np.linalg.matrix_rank(combined)) if combined.size else 0
