"""Rows that share one covariance matrix which would not fit are refused by what ties them together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SizeError
from bayeslmm.likelihood.structured import blocks


@pytest.mark.parametrize(
    ("formula", "options", "where", "remedy"),
    [
        ("y ~ x + (1 | g / p)", {"variance": "ident(k)"}, "variance=", "weights="),
        ("y ~ x", {"residual": "ar1(t | g)"}, "residual=", "split"),
        ("y ~ x + (1 | h)", {"residual": "ar1(t | g)"}, "cross the subjects", "nest"),
    ],
)
def test_what_ties_too_many_rows_together_is_named(
    formula: str, options: dict[str, str], where: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "TUNING", replace(blocks.TUNING, structured_rows=10))
    rng = np.random.default_rng(1)
    data = pd.DataFrame(
        {
            "g": np.repeat(list("abc"), 12),
            "h": np.tile(list("uvw"), 12),
            "t": np.tile(range(12), 3),
            "k": np.tile(list("pq"), 18),
            "p": np.arange(36) // 2,
        }
    )
    data = data.assign(x=rng.normal(size=36), y=rng.normal(size=36))
    with pytest.raises(SizeError) as caught:
        blm.LMM(formula, data, **options).fit()
    assert where in caught.value.where
    assert remedy in caught.value.remedy
    assert "10 rows" in caught.value.remedy or "nest" in remedy
