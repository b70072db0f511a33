"""Rows that are equal, found as bytes, are those that NumPy finds equal as numbers."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm._arrays import equal_rows


@pytest.mark.parametrize("kind", [float, np.int64, np.uint8])
@pytest.mark.parametrize(("n", "width"), [(0, 2), (1, 1), (40, 1), (40, 3), (200, 5), (6, 0)])
def test_rows_are_of_the_kinds_that_numbers_say(kind: type, n: int, width: int) -> None:
    rows = np.random.default_rng(n + width).integers(0, 3, (n, width)).astype(kind)
    if kind is float:
        rows[::2] *= -1.0  # zeros of both signs
    first, of = equal_rows(rows)
    _, wanted, inverse = np.unique(rows + kind(0), axis=0, return_index=True, return_inverse=True)
    assert sorted(first) == sorted(wanted) == list(first)
    assert (rows[first][of] == rows).all()
    assert len(set(zip(of, inverse.ravel(), strict=True))) == len(first)


def test_a_part_of_an_array_is_packed_by_itself() -> None:
    rows = np.arange(24.0).reshape(4, 6)
    rows[3, ::2] = rows[1, ::2]
    first, of = equal_rows(rows[:, ::2])
    assert first.tolist() == [0, 1, 2]
    assert of.tolist() == [0, 1, 2, 1]
