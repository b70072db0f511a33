"""Frames and questions for the tests of inputs: what a user gives, and what must come of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, BayesLMMWarning

MODEL = "y ~ x + (1 | g)"


def visits(seed: int = 1, groups: int = 10, per: int = 6) -> pd.DataFrame:
    """Subjects `g` seen at ordered factor `visit` and number `day`; `x` a covariate, `arm` constant within a subject; y has all effects."""
    rng = np.random.default_rng(seed)
    n = groups * per
    level, slope = rng.normal(size=groups), 0.4 * rng.normal(size=groups)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "g": np.repeat([f"s{i:02d}" for i in range(groups)], per),
            "h": np.tile([f"i{i}" for i in range(per)], groups),
            "k": np.tile([1, 2, 3], n // 3),
            "day": np.tile(np.arange(float(per)), groups),
            "arm": pd.Categorical(np.repeat(["CTL", "TRT"], n // 2)),
            "visit": pd.Categorical(np.tile([f"V{i}" for i in range(1, per + 1)], groups), ordered=True),
        }
    )
    data["y"] = 2 + 0.5 * data["x"] + np.repeat(level, per) + np.repeat(slope, per) * data["day"] + rng.normal(size=n)
    return data


@cache
def model() -> blm.LMM:
    """`MODEL` of `visits()` with a proper prior: it can be sampled and drawn from."""
    return blm.LMM(MODEL, visits(), priors=blm.Priors(alpha="normal"))


@cache
def posterior() -> Any:
    """A short posterior of it."""
    return model().sample(draws=100, seed=1)


def fit(formula: str = MODEL, data: Any = None, *, method: str = "REML", **options: Any) -> blm.Fit:
    """A fit to `visits()`, or to other data."""
    return blm.LMM(formula, visits() if data is None else data, **options).fit(method)


def refused(call: Callable[[], Any], kind: type[BayesLMMError] = BayesLMMError, match: str | None = None) -> BayesLMMError:
    """The error that a call ends in: one of ours, with a fact and a way out, and no other warning on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", BayesLMMWarning)
        with pytest.raises(kind, match=match) as caught:
            call()
    assert caught.value.what.strip()
    assert caught.value.remedy.strip()
    return caught.value


def warned(call: Callable[[], Any]) -> tuple[Any, list[BayesLMMWarning]]:
    """What a call gives and the warnings of ours; any other warning is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call()
    ours = [entry.message for entry in caught if isinstance(entry.message, BayesLMMWarning)]
    assert [str(entry.message) for entry in caught if not isinstance(entry.message, BayesLMMWarning)] == []
    return found, ours


def noted(found: blm.Fit) -> set[str]:
    """Names of the checks that did not pass."""
    return {name for name, check in found.checks.items() if check.verdict != "passed"}


def least_squares(X: Any, y: Any) -> tuple[Any, float, float]:
    """Coefficients, sigma and the restricted criterion of a linear model, from the definition."""
    X, y = np.asarray(X, float), np.asarray(y, float)
    n, p = X.shape
    alpha = np.linalg.solve(X.T @ X, X.T @ y)
    sigma2 = float(((y - X @ alpha) ** 2).sum() / (n - p))
    return alpha, float(np.sqrt(sigma2)), float((n - p) * (1 + np.log(2 * np.pi * sigma2)) + np.linalg.slogdet(X.T @ X)[1])
