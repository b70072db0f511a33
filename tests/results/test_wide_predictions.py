"""Predictions of many rows and columns: no copy of X beside the one that is encoded, and the same numbers in any pieces."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.model.fit import Fit


def wide(levels: int, n: int, missing: int = 0) -> tuple[Fit, pd.DataFrame]:
    rng = np.random.default_rng(levels)
    g, f, x = rng.integers(0, 20, n), rng.integers(0, levels, n), rng.normal(size=n)
    data = pd.DataFrame(
        {"g": g, "h": rng.integers(0, 8, n), "f": f.astype(str), "x": x, "y": x + rng.normal(size=20)[g] + rng.normal(size=n)}
    )
    fit = blm.LMM("y ~ x + f + (1 | g) + (x | h)", data).fit()
    data.loc[:missing, "x"] = np.nan
    return fit, data


@pytest.mark.filterwarnings("ignore:.*missing values")
@pytest.mark.parametrize("interval", [None, "confidence", "prediction"])
def test_new_rows_take_the_memory_of_their_columns(interval: str | None) -> None:
    fit, data = wide(150, 20_000)
    fit.predict(data.head(), interval=interval)  # type: ignore[arg-type]
    tracemalloc.start()
    fit.predict(data, interval=interval)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.7 * fit.design.X.nbytes + 25e6


@pytest.mark.filterwarnings("ignore:.*missing values")
@pytest.mark.parametrize("missing", [0, 7])
def test_the_pieces_do_not_change_a_number(missing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, data = wide(12, 600, missing)
    whole = fit.predict(data, interval="prediction")
    monkeypatch.setattr(sys.modules["bayeslmm.likelihood.prediction"], "X_ELEMENTS", 500)
    pd.testing.assert_frame_equal(whole, fit.predict(data, interval="prediction"), rtol=1e-12)
    assert whole.isna().any(axis=1).sum() == (missing + 1 if missing else 1)
