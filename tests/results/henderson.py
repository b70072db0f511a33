"""Henderson's equations written down in full: slow, obvious, and the judge of modes, their covariances and predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm import Fit
from bayeslmm._arrays import Array


@dataclass(frozen=True)
class Henderson:
    """The inverse of [Z X]'W[Z X] / sigma^2 + D^-1 and its solution; columns term by term, then X."""

    columns: Array
    inverse: Array
    solution: Array


def equations(fit: Fit) -> Henderson:
    design, blocks = fit.design, []
    precision = []
    for term, D in zip(design.terms, fit.covariances, strict=True):
        K, q = term.group.size, term.Z.shape[1]
        Z = np.zeros((design.nobs, K * q))
        for a in range(q):
            Z[np.arange(design.nobs), term.group.codes * q + a] = term.Z[:, a]
        A = np.eye(K) if term.relationship is None else term.relationship
        blocks.append(Z)
        precision.append(np.linalg.inv(np.kron(A, D)))
    C = np.hstack([*blocks, design.X])
    weights = np.ones(design.nobs) if design.weights is None else design.weights
    M = C.T @ (C * weights[:, None]) / fit.sigma**2
    begin = 0
    for P in precision:
        M[begin : begin + len(P), begin : begin + len(P)] += P
        begin += len(P)
    y = design.y if design.offset is None else design.y - design.offset
    inverse = np.linalg.inv(M)
    return Henderson(C, inverse, inverse @ (C.T @ (weights * y)) / fit.sigma**2)
