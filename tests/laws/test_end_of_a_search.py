"""A search ends where its gradient is as good as 0, a step beyond where its value is flat."""

from dataclasses import dataclass

import numpy as np
import pytest

from bayeslmm._arrays import Array
from bayeslmm.estimate.newton import DECREASE_TOLERANCE, minimise

EXACT = np.array([[3.0, 1.0], [1.0, 2.0]])


@dataclass(frozen=True)
class Point:
    """A bowl whose matrix is known only roughly, as that of the average information is."""

    x: Array

    @property
    def value(self) -> float:
        return 1.0 + 0.5 * float(self.x @ EXACT @ self.x) + 0.1 * float((self.x**4).sum())

    @property
    def gradient(self) -> Array:
        return EXACT @ self.x + 0.4 * self.x**3

    @property
    def hessian(self) -> Array:
        return EXACT * np.array([[1.3, 1.0], [1.0, 0.8]])


@pytest.mark.parametrize("seed", range(20))
def test_a_search_by_a_rough_matrix_ends_beyond_its_tolerance(seed: int) -> None:
    start = np.random.default_rng(seed).normal(size=2)
    found = minimise(Point, Point(start))
    left = 0.5 * float(found.point.gradient @ np.linalg.solve(EXACT, found.point.gradient))
    assert found.converged
    assert left < 0.1 * DECREASE_TOLERANCE
