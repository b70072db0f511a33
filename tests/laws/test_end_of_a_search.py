"""A search ends where its gradient is as good as 0, a step beyond where its value is flat."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.estimate.checks import check_boundary
from bayeslmm.estimate.estimate import at_boundary
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


def spaced(seed: int) -> pd.DataFrame:
    """Eighteen subjects at places of their own, whose errors decay with distance and who differ in nothing else."""
    rng = np.random.default_rng(seed)
    i, visit = np.divmod(np.arange(72), 4)
    C = 0.6 ** np.abs(np.subtract.outer(range(4), range(4)))
    time = visit + np.round(rng.uniform(0.0, 0.4, 72) * 256.0) / 256.0
    data = pd.DataFrame({"id": i, "time": time, "y": (rng.normal(size=(18, 4)) @ np.linalg.cholesky(C).T).ravel()})
    return data[rng.random(72) > 0.12]


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
@pytest.mark.parametrize("structure", ["sp_exp", "car1"])
def test_the_unit_of_places_moves_no_end(structure: str, unit: float) -> None:
    for seed in range(8):
        data = spaced(seed)
        model = {"residual": f"{structure}(time | id)"}
        near = blm.LMM("y ~ time + (1 | id)", data, **model).fit()
        far = blm.LMM("y ~ time + (1 | id)", data.assign(time=data["time"] * unit), **model).fit()
        assert far.singular == near.singular
        np.testing.assert_allclose(far.theta[0], near.theta[0], rtol=1e-6)
        np.testing.assert_allclose(far.sigma, near.sigma, rtol=1e-6)


@pytest.mark.parametrize("size", [9e-5, 3e-5, 2e-6])
def test_a_search_that_ends_before_a_variance_of_0_is_taken_there(size: float) -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 6), "y": rng.normal(size=48)})
    problem = blm.LMM("y ~ 1 + (1 | g)", data.assign(y=data["y"] - data.groupby("g")["y"].transform("mean"))).problem
    point = problem.criterion.at(np.array([size]), True)
    found, check = at_boundary(problem, point, True, check_boundary(problem, point, True))
    assert found.x[0] == 0.0 and check.singular and found.value < point.value
