"""Rotated rows have the likelihood of all rows: value, gradient and Newton matrix anywhere, and the fit that is searched on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.estimate import estimate
from bayeslmm.likelihood.structured import row_reduction
from bayeslmm.likelihood.structured.row_reduction import reduce_rows

FORMULAS = ("y ~ x + (1 | g)", "y ~ x * k + (x | g)", "y ~ k + (1 | g / h)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | g) + (0 + x | g)")
VARIANCES = ("ident(k)", "power(v)", "exp(v | k)", "const_power(v)")


def unequal(seed: int) -> blm.LMM:
    rng = np.random.default_rng(seed)
    n, levels = int(rng.integers(300, 450)), int(rng.integers(2, 4))
    data = pd.DataFrame({"g": rng.integers(0, levels, n), "h": rng.integers(0, 2, n), "k": rng.choice(list("ab"), n)})
    data = data.assign(x=rng.normal(size=n), v=rng.choice([1.0, 2.0], n), w=rng.choice([1.0, 2.0], n))
    sd = np.where(data["k"] == "a", 1.0, 2.0) * 10.0 ** rng.uniform(-3, 3)
    data["y"] = sd.max() * (data["x"] + rng.normal(size=levels)[data["g"]]) + sd * rng.normal(size=n)
    formula, variance = FORMULAS[seed % len(FORMULAS)], VARIANCES[seed % len(VARIANCES)]
    weights = "w" if seed % 3 == 0 else None
    return blm.LMM(formula, data.astype({"g": str, "h": str}), variance=variance, weights=weights)


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(s, marks=pytest.mark.slow) for s in range(5, 80))])
def test_rotated_rows_have_the_likelihood_of_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng = unequal(seed), np.random.default_rng(seed)
    problem = model.problem
    monkeypatch.setattr(row_reduction, "WORTH", 1.0)
    reduced = reduce_rows(problem)
    assert reduced is not None
    for x in (problem.start, problem.start + 0.3 * rng.normal(size=problem.size)):
        for restricted in (True, False):
            whole, less = problem.criterion.at(x, restricted), reduced.criterion.at(x, restricted)
            size = np.abs(whole.hessian).max()
            np.testing.assert_allclose(less.value, whole.value, rtol=1e-11)
            np.testing.assert_allclose(less.gradient, whole.gradient, atol=1e-9 * size)
            np.testing.assert_allclose(less.hessian, whole.hessian, atol=1e-9 * size)
    method = "REML" if seed % 2 else "ML"
    fit = model.fit(method)
    monkeypatch.setattr(estimate, "reduce_rows", lambda _: None)
    by_rows = model.fit(method)
    if not (fit.converged and by_rows.converged):  # a constant beside a power that the rows do not tell from it
        assert "const_power" in str(model.spec.variance)
        return
    assert fit.criterion == pytest.approx(by_rows.criterion, abs=1e-7)
    np.testing.assert_allclose(fit.fixef, by_rows.fixef, atol=1e-4 * fit.tidy()["std_error"].min())


@pytest.mark.parametrize("options", [{"variance": "power(x)"}, {"residual": "ar1(t | g)"}])
def test_rows_that_nothing_is_gained_by_stay(options: dict[str, str]) -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame(
        {"g": np.repeat(list("abcdef"), 40), "t": np.tile(range(40), 6), "x": rng.uniform(1, 2, 240), "y": rng.normal(size=240)}
    )
    assert reduce_rows(blm.LMM("y ~ x + (1 | g)", data, **options).problem) is None
