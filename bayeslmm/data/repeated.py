"""Random terms whose covariance parameters repeat one another: different parameters, the same distribution of the data.

A level with as many independent rows as its terms have columns tells every parameter of any structure. Where no level has, as in
`(1 | g) + (0 + f | g)`, whose second term contains the first, or where terms of a nested factor stand beside, as in
`(0 + f | g) + (1 | g:f)`, the derivatives of `sum Z Sigma Z'` in the parameters are compared over the levels: dependent ones say that
parameters can be moved together without anything to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.design import RandomTerm
from bayeslmm.errors import Check

_DEPENDENT = 1e-9  # smallest singular value, relative, of derivatives that differ
_PARAMETERS, _LEVELS = 120, 2000  # beyond either the comparison would cost more than it tells


def repeated_parameters(terms: Sequence[RandomTerm], *, free_errors: bool) -> list[Check]:
    """A note for every grouping factor whose terms do not determine their covariances; priors do.

    free_errors : the errors are independent with one variance, which then is one of the parameters
    """
    groups: dict[str, list[RandomTerm]] = {}
    for term in terms:
        if term.relationship is None and term.group.size > 1:
            groups.setdefault(term.group.name, []).append(term)
    found = []
    for name, members in groups.items():
        by_factor = any(_has_factor(term) for term in members)
        if len(members) == 1 and not by_factor:
            continue
        missing = _missing(members, free_errors=free_errors)
        if not missing and by_factor:  # (1 | g:f) is part of (0 + f | g)
            inner = [term for other, own in groups.items() if other != name for term in own if _nested(term, members[0])]
            members = [*members, *inner]
            missing = _missing(members, free_errors=free_errors) if inner else 0
        if missing:
            text, size = " + ".join(_told(term) for term in members), sum(term.covariance.size for term in members)
            value = f"{text}: {missing} of {size} parameters cannot be told from the others"
            remedy = "the fit is one of many with the same likelihood: leave out the term or the columns that another term contains"
            found.append(Check("repeated_parameters", "noted", value, remedy=remedy))
    return found


def _nested(inner: RandomTerm, outer: RandomTerm) -> bool:
    """Whether every level of the one lies within a level of the other."""
    if inner.group.size <= outer.group.size:
        return False
    holder = np.zeros(inner.group.size, np.int64)
    holder[inner.group.codes] = outer.group.codes
    return bool((holder[inner.group.codes] == outer.group.codes).all())


def _told(term: RandomTerm) -> str:
    return f"{'' if term.spec.structure == 'us' else term.spec.structure}({term.spec.text})"


def _has_factor(term: RandomTerm) -> bool:
    return len(term.columns) > 1 and any("[" in name for name in term.columns)


def _missing(terms: Sequence[RandomTerm], *, free_errors: bool) -> int:
    """By how many the independent directions fall short of the parameters; 0 where the comparison would cost more than it tells.

    terms : those of one grouping factor, and perhaps of others nested in it behind them
    """
    if sum(term.covariance.size for term in terms) > _PARAMETERS:
        return 0
    codes, Z = terms[0].group.codes, np.concatenate([term.Z for term in terms], axis=1)
    Z = Z / np.maximum(np.sqrt(np.mean(Z**2, axis=0)), 1e-300)
    counts = np.bincount(codes)
    within = [term.group.codes if term.group.name != terms[0].group.name else None for term in terms]
    if not any(own is not None for own in within):
        widest = Z[codes == int(np.argmax(counts))]
        if len(widest) >= Z.shape[1] + free_errors and np.linalg.matrix_rank(widest) == Z.shape[1]:
            return 0
    moves = _moves(terms, Z.shape[1])
    size = len(moves) + free_errors
    R = np.zeros((0, size))
    for rows in _levels(codes, counts):
        own = Z[rows]
        V = np.einsum("ia,kab,jb->kij", own, moves, own)
        begin = 0
        for term, inner in zip(terms, within, strict=True):
            stop = begin + term.covariance.size
            if inner is not None:
                V[begin:stop] *= inner[rows][:, None] == inner[rows]
            begin = stop
        V = np.concatenate([V, np.eye(len(own))[None]]) if free_errors else V
        R = np.linalg.qr(np.vstack([R, V.reshape(size, -1).T]), mode="r")
        if len(R) == size and _rank(R) == size:
            return 0
    return size - _rank(R)


def _levels(codes: Codes, counts: Codes) -> Iterator[Codes]:
    """The rows of the levels, those with many rows first; of each as many rows as settle the matter."""
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    for level in np.argsort(-counts, kind="stable")[:_LEVELS]:
        rows = order[starts[level] : starts[level + 1]]
        yield rows if len(rows) <= 40 else rows[np.linspace(0, len(rows) - 1, 40).astype(np.int64)]


def _moves(terms: Sequence[RandomTerm], width: int) -> Array:
    """dSigma of every parameter at a point that is nothing special, (size, width, width), block after block."""
    rng, found, begin = np.random.default_rng(0), [], 0
    for term in terms:
        covariance = term.covariance
        x = covariance.start() + 0.1 * rng.standard_normal(covariance.size)
        move = np.zeros((covariance.size, width, width))
        move[:, begin : begin + covariance.q, begin : begin + covariance.q] = covariance.matrix_derivative(x)
        found.append(move)
        begin += covariance.q
    return np.concatenate(found)


def _rank(R: Array) -> int:
    size = np.linalg.norm(R, axis=0)
    values = np.linalg.svd(R / np.where(size > 0, size, 1.0), compute_uv=False)
    return int((values > _DEPENDENT * values[0]).sum()) if len(values) and values[0] > 0 else 0
