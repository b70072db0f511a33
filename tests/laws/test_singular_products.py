"""No fit of a product of structures ends at errors with a singular covariance without a check that says so."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from bayeslmm.estimate.error_boundary import error_boundary_checks


def plots(seed: int, rows: int, columns: int) -> pd.DataFrame:
    """A field of few plots, two of them lost, with a trend along its rows and, of every other seed, along its columns."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame([(i, j) for i in range(rows) for j in range(columns)], columns=["row", "col"])
    data = data.iloc[np.sort(rng.permutation(len(data))[:-2])].reset_index(drop=True)
    data["f"] = rng.choice(list("ab"), len(data))
    noise = rng.normal(size=len(data))
    trend = rng.normal(size=rows)[data.row] + (rng.normal(size=columns)[data.col] if seed % 2 == 0 else 0.0)
    return data.assign(y=noise + trend)


@pytest.mark.parametrize("structure", ["ar1(row):cs(col)", "toep(row):ar1(col)", "us(col):ar1(row)"])
def test_errors_far_out_are_said_to_be_singular(structure: str) -> None:
    problem = blm.LMM("y ~ f", plots(1, 5, 3), residual=structure).problem
    kernel = problem.structured
    assert kernel is not None
    (block,) = (batch.block for batch in kernel.data.rows)
    singular = 0
    for k, far in product(range(problem.size), (-40.0, 40.0)):
        x = problem.start.copy()
        x[k] = far
        values = np.linalg.eigvalsh(kernel.structure.matrices(x[kernel.residual_part], block)[0])
        if values[0] < 1e-12 * values[-1]:
            singular += 1
            assert any(check.verdict == "failed" for check in error_boundary_checks(problem, x))
    assert singular


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("structure", ["toep(row):ar1(col)", "toep(row):cs(col)"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_singular_errors_are_said(seed: int, structure: str, method: str) -> None:
    try:
        fit = blm.LMM("y ~ f", plots(seed, 7, 4), residual=structure).fit(method)
    except BayesLMMError:
        return
    values = np.linalg.eigvalsh(fit.marginal_cov(fit.model.design.residual.subject.levels[0]))
    said = [check for check in fit.checks if fit.checks[check].verdict == "failed"]
    assert said or values[0] > 1e-8 * values[-1]
