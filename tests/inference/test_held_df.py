"""Degrees of freedom where the residual sd is held: infinite ones are combined without a warning."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

import bayeslmm as blm
from bayeslmm.inference.fixed_effects.degrees_of_freedom import combined_df


def test_tests_of_several_df_beside_a_held_sigma_are_chi_square_tests() -> None:
    r = np.random.default_rng(0)
    d = pd.DataFrame({"f": r.choice(list("abc"), 60), "y": r.normal(size=60)})
    fit = blm.LMM("y ~ f", d, sigma=1.0).fit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = fit.anova()
    assert np.isinf(table["den_df"]).all()


def test_an_infinite_df_among_finite_ones_counts_as_one() -> None:
    mixed, far = combined_df(np.array([np.inf, 8.0, 5.0])), combined_df(np.array([1e12, 8.0, 5.0]))
    assert np.isclose(mixed, far, rtol=1e-9)
