"""Ranks for the containment method: effects of the same levels together are what blocks one by one are, and what [X Z] has."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm._arrays import Array
from bayeslmm.sas_results.run import CellCounts, total_rank


def columns(effects: list[CellCounts]) -> Array:
    """Z of some effects, whole."""
    parts = []
    for effect in effects:
        Z = np.zeros((len(effect.codes), int(effect.codes.max()) + 1))
        Z[np.arange(len(Z)), effect.codes] = effect.values
        parts.append(Z)
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("seed", range(20))
def test_the_rank_is_that_of_all_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, K = int(rng.integers(30, 90)), int(rng.integers(3, 15))
    codes = rng.integers(0, K, n)
    codes[:K] = np.arange(K)
    x, other = rng.normal(size=n).round(seed % 3), rng.permutation(K)[codes]
    between = rng.normal(size=K)[codes]
    values = [np.ones(n), x, between, x * between, np.where(codes == 0, 0.0, x)]
    effects = [CellCounts(other if i % 2 else codes, values[i]) for i in rng.permutation(5)[: rng.integers(1, 5)]]
    if seed % 4 == 3:  # a factor of its own: blocks one by one
        effects.append(CellCounts(rng.integers(0, 3, n), np.ones(n)))
    X = np.column_stack([np.ones(n), x + 1e3, between, rng.normal(size=n)])
    X = X[:, : int(rng.integers(1, 5))]
    whole = np.concatenate([X, columns(effects)], axis=1)
    size = np.linalg.norm(whole, axis=0)
    assert total_rank(X, effects) == np.linalg.matrix_rank(whole[:, size > 0] / size[size > 0], tol=1e-8)
