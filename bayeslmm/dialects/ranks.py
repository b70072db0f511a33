"""Ranks of [X Z] for counting degrees of freedom, block by block of rows that share a random effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from bayeslmm.arrays import Array, Codes
from bayeslmm.errors import SizeError

MAX_ENTRIES = 50_000_000
"""Entries of the largest dense block: 0.4 GB."""

SINGULAR = 1e-9
"""A direction shorter than this, relative to its column, is not there."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Columns of Z: one for each level, with a value in the rows of the level.

    codes : (n,) levels; values : (n,)
    """

    codes: Codes
    values: Array


def ranks(X: Array, effects: Sequence[Cells]) -> tuple[int, ...]:
    """The rank of X, of [X Z_1], of [X Z_1 Z_2], ...

    X : (n, p) of full column rank
    Raises SizeError where crossed effects have too many levels together.
    """
    return (X.shape[1], *(rank(X, effects[: k + 1]) for k in range(len(effects))))


def rank(X: Array, effects: Sequence[Cells]) -> int:
    """The rank of [X Z]: that of Z by blocks, and that of what Z leaves of X."""
    if not effects:
        return int(X.shape[1])
    total, left = 0, np.array(X / np.maximum(np.sqrt((X**2).sum(axis=0)), 1e-300))
    for rows in _blocks(effects, len(X)):
        Z = _dense(effects, rows)
        U, s, _ = np.linalg.svd(Z / np.maximum(np.sqrt((Z**2).sum(axis=0)), 1e-300), full_matrices=False)
        Q = U[:, s > SINGULAR * max(1.0, s.max(initial=0.0))]
        total += int(Q.shape[1])
        left[rows] -= Q @ (Q.T @ left[rows])
    found = np.linalg.svd(np.linalg.qr(left, mode="r"), compute_uv=False) if left.size else np.zeros(0)
    # columns had length 1 before the projection
    return total + int((found > SINGULAR * np.sqrt(max(1, X.shape[1]))).sum())


def _blocks(effects: Sequence[Cells], n: int) -> list[Codes]:
    """Rows that are linked by levels that they share."""
    begin, rows, columns = n, [], []
    for effect in effects:
        rows.append(np.arange(n))
        columns.append(begin + effect.codes)
        begin += int(effect.codes.max(initial=-1)) + 1
    graph = sp.coo_array((np.ones(n * len(effects)), (np.concatenate(rows), np.concatenate(columns))), shape=(begin, begin))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label[:n], kind="stable")
    cuts = np.flatnonzero(np.diff(label[:n][order])) + 1
    return [np.asarray(part) for part in np.split(order, cuts)]


def _dense(effects: Sequence[Cells], rows: Codes) -> Array:
    parts = []
    for effect in effects:
        levels, local = np.unique(effect.codes[rows], return_inverse=True)
        if len(rows) * len(levels) > MAX_ENTRIES:
            raise SizeError(
                f"the containment method needs the rank of {len(levels)} columns of Z over {len(rows)} rows",
                "DDFM=CONTAIN",
                "name another method: ddfm=satterthwaite, ddfm=bw or ddfm=residual",
            )
        Z = np.zeros((len(rows), len(levels)))
        Z[np.arange(len(rows)), local.ravel()] = effect.values[rows]
        parts.append(Z)
    return np.concatenate(parts, axis=1)
