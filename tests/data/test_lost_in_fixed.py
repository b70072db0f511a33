"""Random terms whose effects the fixed effects can mimic are found, whatever rows are looked at first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.data.design import RandomTerm
from bayeslmm.data.identifiability import lost_in_fixed


def _lost_by_all_rows(terms: list[RandomTerm], X: np.ndarray) -> list[bool]:
    """The definition: an effect of every level drawn at random, taken off all columns of X on all rows."""
    rng, found = np.random.default_rng(11), []
    for term in terms:
        column = term.Z * rng.standard_normal(term.group.size)[term.group.codes][:, None]
        left = column - X @ np.linalg.lstsq(X, column, rcond=None)[0]
        found.append(bool((np.linalg.norm(left, axis=0) <= 1e-9 * np.linalg.norm(column, axis=0)).any()))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_random_term_within_the_fixed_effects_is_found_on_some_rows_as_on_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, K = 700, int(rng.integers(3, 30))
    g = rng.integers(0, K, n)
    data = pd.DataFrame(
        {"g": g.astype(str), "half": (g // 2).astype(str), "x": rng.normal(size=n) + 1e4 * (seed % 3), "y": rng.normal(size=n)}
    )
    data["rare"] = np.where(np.arange(n) < 3, 1.0, 0.0)
    fixed = ["0 + g", "1 + g", "g * x", "half + x", "x + rare"][seed % 5]
    model = blm.LMM(f"y ~ {fixed} + (1 | g) + (0 + x | g) + (1 | half)", data, check="warn")
    terms, X = list(model.design.terms), model.design.X
    named = [str(error) for error in lost_in_fixed(terms, X)]
    expected = _lost_by_all_rows(terms, X / np.linalg.norm(X, axis=0))
    for term, lost in zip(terms, expected, strict=True):
        assert any(f"({term.spec.text})" in text for text in named) == lost
