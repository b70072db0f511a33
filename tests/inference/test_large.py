"""Nothing grows with n x n: inference at 100,000 rows."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


@pytest.mark.slow
@pytest.mark.parametrize("random", ["(x | g)", "(x | g) + (1 | site)", "(1 | site / g)"])
def test_kenward_roger_of_ten_thousand_subjects_takes_seconds(random: str) -> None:
    rng = np.random.default_rng(0)
    n, groups = 100_000, 10_000
    g = np.repeat(np.arange(groups), n // groups)
    x = rng.normal(size=n)
    y = x + rng.normal(size=50)[g % 50] + rng.normal(size=groups)[g] + 0.5 * rng.normal(size=groups)[g] * x + rng.normal(size=n)
    arm = np.array(list("abc"))[rng.integers(0, 3, groups)][g]
    data = pd.DataFrame({"y": y, "x": x, "arm": arm, "g": g.astype(str), "site": (g % 50).astype(str)})
    fit = blm.LMM(f"y ~ x * arm + {random}", data).fit()
    begin = time.process_time()
    adjusted, plain = fit.tidy(df="kenward-roger"), fit.tidy()
    assert time.process_time() - begin < 5.0
    np.testing.assert_allclose(adjusted["std_error"], plain["std_error"], rtol=1e-2)
    np.testing.assert_allclose(adjusted["df"], plain["df"], rtol=0.1)
