"""A variance of the fitted value: at the end the weights are those of the fit, also where whole steps go to and fro."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


@pytest.mark.parametrize("seed", [1, 8, 16, 17])
def test_weights_and_fit_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(12), 5)
    frame = pd.DataFrame({"g": g, "x": rng.uniform(0, 2, 60)})
    mean = [10, 1.0, 0.3][seed % 3] + 2 * frame["x"] + 0.5 * rng.normal(size=12)[g]
    frame["y"] = mean + rng.normal(size=60) * 0.3 * np.abs(mean) ** [0.5, 1, 1.5][seed // 3 % 3]
    fit = blm.LMM("y ~ x + (1 | g)", frame, variance="power(fitted)").fit()
    assert fit.converged
    # the fit with these fitted values as a column, held, is the same fit
    held = blm.LMM("y ~ x + (1 | g)", frame.assign(v=fit.augment()["fitted"].to_numpy()), variance="power(v)").fit()
    assert held.criterion == pytest.approx(fit.criterion, abs=1e-5)
    np.testing.assert_allclose(held.augment()["fitted"], fit.augment()["fitted"], rtol=1e-5, atol=1e-7)
