"""A variance function of a covariate that has run off fails a check, whatever its kind; one within the data does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.estimate.error_boundary import error_boundary_checks


@pytest.mark.parametrize("unit", [1.0, 2.0**20])
@pytest.mark.parametrize("variance", ["power(x)", "exp(x)", "const_power(x)", "power(x | f)", "ident(f)*exp(x)"])
def test_a_power_that_runs_off_is_said(variance: str, unit: float) -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": rng.uniform(1.0, 4.0, 24) * unit, "f": np.tile(list("ab"), 12), "g": np.repeat(list("pqrs"), 6)})
    data["y"] = rng.normal(size=24)
    problem = blm.LMM("y ~ f + (1 | g)", data, variance=variance).problem
    kernel = problem.structured
    assert kernel is not None
    x = problem.start.copy()
    assert not [check for check in error_boundary_checks(problem, x) if check.name == "variance_function"]
    last = x[kernel.variance_part]
    last[-1] = 90.0 / (unit if "exp" in variance else 1.0)
    x[kernel.variance_part] = last
    assert [check.verdict for check in error_boundary_checks(problem, x) if check.name == "variance_function"] == ["failed"]
