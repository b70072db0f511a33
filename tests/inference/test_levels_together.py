"""Levels that share no random effect are left out all at once as one by one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.inference.influence import case_deletions
from bayeslmm.inference.intervals.resampling import resampling_factor
from bayeslmm.likelihood import case_deletion, level_optima


def nested(seed: int, groups: int = 400) -> pd.DataFrame:
    """Rows of unlike numbers in boxes in groups."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rng.integers(8, 14, groups))
    b = rng.integers(0, 3, len(g))
    x = rng.normal(size=len(g))
    box = rng.normal(size=(groups, 3))[g, b]
    y = 1 + 0.5 * x + rng.normal(size=groups)[g] + box + 0.5 * rng.normal(size=groups)[g] * x + rng.normal(size=len(g))
    frame = pd.DataFrame({"y": y, "x": x, "g": g, "b": b, "w": rng.uniform(0.5, 2.0, len(g))})
    return frame.sample(frac=1.0, random_state=seed, ignore_index=True)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize(
    ("formula", "weights", "group"),
    [
        ("y ~ x + (1 | g/b)", None, "g"),
        ("y ~ x + (1 | g/b)", "w", "g"),
        ("y ~ x + (x || g) + (1 | g:b)", None, "g"),
        ("y ~ x + (1 | g:b)", "w", "g:b"),
        ("y ~ x + (1 | g) + (0 + x | g:b)", "w", "g"),
    ],
)
def test_nested_levels_together_are_those_one_by_one(formula: str, weights: str | None, group: str, method: str) -> None:
    fit = blm.LMM(formula, nested(len(formula)), weights=weights).fit(method)
    factor = resampling_factor(fit.design, group)
    assert not fit.singular
    sums = case_deletion.DowndatedSums.of(fit.problem)
    errors = np.sqrt(2.0 * np.diagonal(np.linalg.inv(fit.point.hessian)))
    found = level_optima.level_optima(sums, factor.codes, factor.size, fit.estimate.x, errors, fit.restricted)
    assert found.found.mean() > 0.8
    for k in np.flatnonzero(found.found)[:4]:
        left = sums.without(np.flatnonzero(factor.codes == k))
        point = left.criterion.at(found.x[k], fit.restricted)
        assert np.abs(np.linalg.solve(point.hessian, point.gradient)).max() < 1e-3 * errors.max()
        solution = point.state.solution
        np.testing.assert_allclose(found.alpha[k], solution.alpha[0], rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found.inverse[k], solution.information_inverse[0], rtol=1e-6, atol=1e-10)
        assert found.sigma2[k] == pytest.approx(point.sigma2, rel=1e-7)


def test_influence_of_the_outer_factor_is_that_of_fits_without_it() -> None:
    data = nested(3)
    fit = blm.LMM("y ~ x + (1 | g/b)", data).fit()
    shown = fit.influence("g").set_index("level")
    assert len(list(case_deletions(fit, resampling_factor(fit.design, "g"), True))) == data["g"].nunique()
    for level in (0, 31):
        other = blm.LMM("y ~ x + (1 | g/b)", data[data["g"] != level]).fit()
        np.testing.assert_allclose(shown.loc[level, ["Intercept", "x"]], other.fixef, rtol=1e-6)
