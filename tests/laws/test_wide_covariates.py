"""Distances over many orders of magnitude: subjects are alike by the size of their own, however small beside the largest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.likelihood.structured.pooled import error_kinds

ORDERS = np.concatenate([np.linspace(-10.0, -7.5, 20), [2.0, 4.0]])
"""Powers of ten of the distance between the rows of a pair: most are less than 1e-11 of the largest."""


@pytest.mark.parametrize("structure", ["sp_exp", "car1"])
@pytest.mark.parametrize("unit", [1.0, 2.0**-40, 2.0**40])
def test_subjects_are_of_one_kind_where_their_distances_are_equal(structure: str, unit: float) -> None:
    rng = np.random.default_rng(4)
    order = rng.permutation(np.repeat(np.arange(len(ORDERS)), 3))
    gap = unit * 10.0 ** ORDERS[order]
    # the same distance but for a last rounding
    gap = np.where(rng.random(len(gap)) < 0.5, gap, np.nextafter(gap, 0.0))
    t, g = np.column_stack([0 * gap, gap]).ravel(), np.repeat(np.arange(len(gap)).astype(str), 2)
    data = pd.DataFrame({"y": rng.normal(size=len(g)), "t": t, "g": g})
    ((rows, kinds),) = error_kinds(blm.LMM("y ~ 1", data, residual=f"{structure}(t | g)").design)
    own = order[rows[:, 0] // 2]
    assert len(rows) == len(gap)
    assert np.array_equal(kinds.kind[:, None] == kinds.kind, own[:, None] == own)
