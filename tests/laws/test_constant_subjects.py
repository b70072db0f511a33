"""Errors of a response that is the same at every visit of a subject have no likelihood: it is refused or said, whatever rounding does."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning, DesignError

STRUCTURES = ("cs", "csh", "toep", "ar1", "us")
# half of all, with every structure, method and kind of subject among them; the others are slow tests
CASES = [
    pytest.param(method, structure, seed, marks=pytest.mark.slow if (i + k + seed // 2) % 2 else ())
    for i, method in enumerate(("REML", "ML"))
    for k, structure in enumerate(STRUCTURES)
    for seed in range(6)
]


@pytest.mark.parametrize(("method", "structure", "seed"), CASES)
def test_errors_of_correlation_one_never_pass_for_an_optimum(structure: str, method: str, seed: int) -> None:
    r = np.random.default_rng(seed)
    subjects, visits = int(r.integers(8, 20)), int(r.integers(3, 6))
    own = r.normal(size=subjects) * 10.0 ** r.integers(-3, 4) if seed % 2 else r.integers(0, 9, subjects) + 3.0
    data = pd.DataFrame({"g": np.repeat(np.arange(subjects), visits), "v": np.tile(np.arange(visits), subjects)})
    data = data.assign(x=r.normal(size=len(data)), y=own[data["g"]])
    formula = "y ~ x" if seed % 3 else "y ~ 1"
    data["y"] += 0.3 * data["x"] if seed % 3 else 0.0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            fit = blm.LMM(formula, data, residual=f"{structure}(v | g)").fit(method)
        except DesignError:
            return
    assert not fit.converged
    assert any(issubclass(warning.category, BayesLMMWarning) for warning in told)
