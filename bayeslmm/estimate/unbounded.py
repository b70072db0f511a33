"""Likelihoods without a bound: fixed and random effects that reproduce the response, and leave sigma free to go to 0.

Let the covariances of some random terms grow together, T of each of some rank, by t. If X and Z T span the response, r2 falls like 1/t
while log |V0| grows like rank(Z T) log t: the likelihood of all n rows (ML) grows without end where rank(Z T) < n, the restricted one where
X and Z T together have fewer than n directions. They span any response where they have n of them. A T of rank k among q columns may be
turned in k (q - k) ways, and so meet as many equations more: then a response can, though it need not, be reproduced with fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.likelihood.problem import Problem

RANK = 1e-12
"""Relative eigenvalue of the products of columns of length 1 that counts as 0."""

LOOKED_AT = 2000
"""Rows up to which ranks are asked for."""


def unbounded(problem: Problem, restricted: bool) -> tuple[str, bool] | None:
    """What reproduces the response, and whether it surely does; None where nothing can."""
    design = problem.design
    n, p = design.nobs, problem.criterion.p
    if not design.terms or not design.in_memory or n > LOOKED_AT:
        return None
    counts = [np.bincount(term.group.codes) for term in design.terms]
    q = [term.covariance.q for term in problem.random.terms]
    if p + sum(_directions(rows, size) + size * size // 4 for rows, size in zip(counts, q, strict=True)) < n:
        return None
    X = _unit(problem.standardization.Xy(design, slice(0, n))[:, :p])
    doubtful = None
    for ranks in _ranks(problem):
        chosen = [i for i, k in enumerate(ranks) if k]
        freedom = sum(k * (size - k) for k, size in zip(ranks, q, strict=True) if k)
        if p + sum(_directions(counts[i], ranks[i]) for i in chosen) + freedom < n:
            continue
        Z = [_wide(problem, i, ranks[i]) for i in chosen]
        left = n - _rank([X, *Z])
        if left > freedom or (left == 0 if restricted else _rank(Z) == n):
            continue
        what = "the fixed effects and " + " + ".join(f"({design.terms[i].spec.text})" for i in chosen)
        if left == 0:
            return what, True
        doubtful = doubtful or what
    return None if doubtful is None else (doubtful, False)


def _directions(rows: Codes, rank: int) -> int:
    """Most directions that levels with so many rows can have."""
    return int(np.minimum(rows, rank).sum())


def _ranks(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Ranks of T of every term that can grow, 0 for a term that does not."""
    own = [range(t.covariance.q + 1) if t.covariance.name == "us" else (0, t.covariance.q) for t in problem.random.terms]
    for ranks in product(*own):
        if any(ranks):
            yield ranks


def _wide(problem: Problem, i: int, rank: int) -> Array:
    """Z T of one term, T of this rank in no special direction: a column for each level and effect."""
    term = problem.design.terms[i]
    Z, codes = problem.standardization.maps[i].apply(term.Z), term.group.codes
    if rank < Z.shape[1]:
        Z = Z @ np.random.default_rng(rank).normal(size=(Z.shape[1], rank))
    out = np.zeros((len(codes), len(term.group.levels), rank))
    out[np.arange(len(codes)), codes] = Z
    return _unit(out.reshape(len(codes), -1))


def _unit(M: Array) -> Array:
    lengths = np.linalg.norm(M, axis=0)
    return np.asarray(M[:, lengths > 0] / lengths[lengths > 0])


def _rank(parts: list[Array]) -> int:
    M = np.concatenate(parts, axis=1)
    sizes = np.linalg.eigvalsh(M.T @ M if M.shape[1] < M.shape[0] else M @ M.T)
    return int((sizes > RANK * sizes[-1]).sum()) if len(sizes) else 0
