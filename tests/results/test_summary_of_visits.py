"""Covariances over many visits are read off a summary: every one of them, in one matrix."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.model import summary


@cache
def fit(visits: int, residual: str) -> blm.Fit:
    rng = np.random.default_rng(visits)
    n = 4 * visits
    y = rng.normal(size=(n, visits)) @ np.tril(np.full((visits, visits), 0.5) + np.eye(visits)).T
    data = pd.DataFrame({"y": y.ravel(), "t": np.tile(np.arange(visits), n), "id": np.repeat(np.arange(n), visits)})
    data["arm"] = np.where(data["id"] % 2 == 0, "a", "b")
    return blm.LMM("y ~ 1", data, residual=residual).fit()


def matrix(text: str, visits: int) -> np.ndarray:
    """Correlations of a printed summary, put together from its blocks of columns."""
    found = np.full((visits, visits), np.nan)
    columns: list[int] = []
    for line in text.splitlines():
        heads = [int(one) - 1 for one in re.findall(r"\[(\d+)\]", line)]
        if len(heads) > 1 or (line.strip().startswith("[") and line.strip().endswith("]")):
            columns = heads
        elif len(heads) == 1:
            own = re.findall(r"-?\d\.\d\d(?!\d)", line)
            found[heads[0], columns[: len(own)]] = [float(one) for one in own]
    return found


@pytest.mark.parametrize("visits", [9, 13])
def test_all_correlations_of_many_visits_are_printed(visits: int) -> None:
    own = fit(visits, "us(t | id)")
    text = str(own.summary()).split("Standard deviations and correlations of the errors")[1].split("Fixed effects")[0]
    sds = np.sqrt(np.diagonal(own.R))
    below = np.tril_indices(visits, -1)
    np.testing.assert_allclose(matrix(text, visits)[below], (own.R.to_numpy() / np.outer(sds, sds))[below], atol=0.0050001)
    for label, sd in zip(own.R.index, sds, strict=True):
        shown = re.search(rf"\] {label} +(\d+\.\d+)", text)
        assert shown is not None
        np.testing.assert_allclose(float(shown[1]), sd, rtol=1e-3)


def test_parameters_that_are_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "PRINTED_VISITS", 8)
    text = str(fit(9, "us(t | id)").summary())
    assert "and 21 more: fit.residual_params" in text
    assert "correlations of the errors" not in text


@pytest.mark.parametrize("residual", ["ar1(t | id)", "ad(t | id)"])
def test_few_parameters_are_listed(residual: str) -> None:
    own = fit(9, residual)
    text = str(own.summary())
    assert all(name in text for name in own.residual_params.index)
    assert "more: fit" not in text
