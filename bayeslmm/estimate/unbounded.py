"""Whether a likelihood has a bound: by ranks, as all errors or those of a stratum alone go to 0.

Let the covariances of some random terms grow together, T of each of some rank, by t. If X and Z T span the response, r2 falls like 1/t
while log |V0| grows like rank(Z T) log t: the likelihood of all n rows (ML) grows without end where rank(Z T) < n, the restricted one where
X and Z T together have fewer than n directions. They span any response where they have n of them. A T of rank k among q columns may be
turned in k (q - k) ways, and so meet as many equations more: then a response can, though it need not, be reproduced with fewer.

The same holds of the rows of a stratum whose sd goes to 0, the other errors and T as they are: log |V| falls like n_S - rank(Z_S T) times
the log of its variance. There no T at all is a choice as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure

RANK = 1e-12
"""Relative eigenvalue of the products of columns of length 1 that counts as 0."""

LOOKED_AT = 2000
"""Rows up to which ranks are asked for."""

COMBINED_STRATA = 6
"""How many strata that could vanish are looked at in every combination; more are looked at one by one."""


@dataclass(frozen=True, slots=True)
class Unbounded:
    """What reproduces the response, the strata whose sds go to 0 then ("" for all errors), and whether it surely does."""

    what: str
    strata: str
    surely: bool


def unbounded(problem: Problem, restricted: bool) -> Unbounded | None:
    """None where nothing can reproduce the response, or more rows would be looked at than are worth it."""
    design = problem.design
    n = design.nobs
    if not design.in_memory or n > LOOKED_AT:
        return None
    doubtful = None
    for strata, rows in ([("", np.ones(n, bool))] if design.terms else []) + _vanishing(problem):
        found = _reproduced(problem, restricted, rows, strata)
        if found is not None and found.surely:
            return found
        doubtful = doubtful or found
    return doubtful


def _reproduced(problem: Problem, restricted: bool, rows: NDArray[np.bool_], strata: str) -> Unbounded | None:
    """What reproduces these rows of the response."""
    design, count = problem.design, int(rows.sum())
    if not _can_be(problem, rows):
        return None
    levels, q = _level_sizes(problem, rows), [term.covariance.q for term in problem.random.terms]
    p = problem.criterion.p
    X = _unit(problem.standardization.Xy(design, slice(0, design.nobs))[rows, :p])
    doubtful = None
    for ranks in _ranks(problem):
        chosen = [i for i, k in enumerate(ranks) if k]
        freedom = sum(k * (size - k) for k, size in zip(ranks, q, strict=True) if k)
        if not (chosen or strata) or p + sum(_directions(levels[i], ranks[i]) for i in chosen) + freedom < count:
            continue
        Z = [_wide(problem, i, ranks[i], rows) for i in chosen]
        left = count - _rank([X, *Z])
        if left > freedom or (left == 0 if restricted else _rank(Z) == count):
            continue
        what = " + ".join(["the fixed effects", *(f"({design.terms[i].spec.text})" for i in chosen)]).replace(" + ", " and ", 1)
        if left == 0:
            return Unbounded(what, strata, True)
        doubtful = doubtful or Unbounded(what, strata, False)
    return doubtful


def _can_be(problem: Problem, rows: NDArray[np.bool_]) -> bool:
    """Whether so many rows can be reproduced at all, counted without looking at them."""
    q = [term.covariance.q for term in problem.random.terms]
    levels = _level_sizes(problem, rows)
    most = sum(_directions(own, size) + size * size // 4 for own, size in zip(levels, q, strict=True))
    return problem.criterion.p + most >= int(rows.sum())


def _level_sizes(problem: Problem, rows: NDArray[np.bool_]) -> list[Codes]:
    return [np.bincount(term.group.codes[rows]) for term in problem.design.terms]


def _vanishing(problem: Problem) -> list[tuple[str, NDArray[np.bool_]]]:
    """Strata that few rows have, and several of them together: their names and rows."""
    vanishing = [(name, rows) for name, rows in _strata(problem) if rows.any() and not rows.all() and _can_be(problem, rows)]
    found = []
    for size in range(1, len(vanishing) + 1 if len(vanishing) <= COMBINED_STRATA else 2):
        for chosen in combinations(vanishing, size):
            rows = np.any([own for _, own in chosen], axis=0)
            if not rows.all():
                found.append((" and ".join(name for name, _ in chosen), rows))
    return found


def _strata(problem: Problem) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Rows with an sd of their own: the levels of each ident(), the groups of R, its visits where each may have any sd."""
    for factor in problem.design.variance:
        if factor.kind == "ident" and factor.strata is not None:
            for i, label in enumerate(factor.labels):
                yield f"ident({factor.spec.covariate})[{label}]", factor.strata == i
    kernel, residual = problem.structured, problem.design.residual
    if kernel is None or residual is None or residual.spec is None or not isinstance(kernel.structure, GroupedStructure):
        return
    by_visit = residual.visit is not None and kernel.structure.covariance.invariance != "scalar"
    visits = residual.visit if by_visit and residual.visit is not None else np.zeros(problem.design.nobs, np.int64)
    groups = visits * 0 if residual.group is None else residual.group.codes
    for g in range(kernel.structure.groups):
        for v in np.unique(visits):
            labels = [] if residual.group is None else [str(residual.group.levels[g])]
            labels += [str(residual.visit_levels[v])] if by_visit else []
            yield f"{residual.spec.text}[{', '.join(labels)}]", (groups == g) & (visits == v)


def _directions(rows: Codes, rank: int) -> int:
    """Most directions that levels with so many rows can have."""
    return int(np.minimum(rows, rank).sum())


def _ranks(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Ranks of T of every term that can grow, 0 for a term that does not."""
    own = [range(t.covariance.q + 1) if t.covariance.name == "us" else (0, t.covariance.q) for t in problem.random.terms]
    return product(*own)


def _wide(problem: Problem, i: int, rank: int, rows: NDArray[np.bool_]) -> Array:
    """Z T of one term, T of this rank in no special direction: a column for each level and effect."""
    term = problem.design.terms[i]
    Z, codes = problem.standardization.maps[i].apply(term.Z)[rows], term.group.codes[rows]
    if rank < Z.shape[1]:
        Z = Z @ np.random.default_rng(rank).normal(size=(Z.shape[1], rank))
    out = np.zeros((len(codes), len(term.group.levels), rank))
    out[np.arange(len(codes)), codes] = Z
    return _unit(out.reshape(len(codes), -1))


def _unit(M: Array) -> Array:
    lengths = np.linalg.norm(M, axis=0)
    return np.asarray(M[:, lengths > 0] / lengths[lengths > 0])


def _rank(parts: list[Array]) -> int:
    M = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0))
    sizes = np.linalg.eigvalsh(M.T @ M if M.shape[1] < M.shape[0] else M @ M.T)
    return int((sizes > RANK * sizes[-1]).sum()) if len(sizes) else 0
