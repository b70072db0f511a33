"""Partial eta, omega and epsilon squared: shares of sums of squares where these exist, printed figures, limits of the noncentral F."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from bayeslmm.inference.means.anova import add_effect_sizes


@pytest.mark.parametrize("seed", range(3))
def test_without_random_terms_they_are_shares_of_sums_of_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"a": np.repeat(["p", "q", "r"], 12), "x": rng.normal(size=36)})
    data["y"] = rng.normal(size=36) + (data["a"] == "q") + 0.4 * data["x"]
    fit = blm.LMM("y ~ a + x", data).fit()
    full = np.column_stack([np.ones(36), data["a"] == "q", data["a"] == "r", data["x"]]).astype(float)
    sse = [float(np.linalg.lstsq(X, data["y"])[1][0]) for X in (full, full[:, [0, 3]], full[:, :3])]
    gain = np.array(sse[1:]) - sse[0]
    mse, num = sse[0] / 32, np.array([2, 1])
    eta = fit.anova(df="residual", effect_size="eta")["partial_eta_squared"]
    omega = fit.anova(df="residual", effect_size="omega")["partial_omega_squared"]
    epsilon = fit.anova(df="residual", effect_size="epsilon")["partial_epsilon_squared"]
    np.testing.assert_allclose(eta, gain / (gain + sse[0]), rtol=1e-8)
    np.testing.assert_allclose(omega, np.maximum(gain - num * mse, 0) / (gain + sse[0] + mse), rtol=1e-8)
    np.testing.assert_allclose(epsilon, np.maximum(gain - num * mse, 0) / (gain + sse[0]), rtol=1e-8)


def test_a_printed_example() -> None:
    """F(2, 18) = 40: eta squared .82 with a lower one-sided limit of .66, omega squared .79 with .61 (effectsize for R)."""
    table = pd.DataFrame({"statistic": [40.0], "num_df": [2.0], "den_df": [18.0]})
    eta, omega = (add_effect_sizes(table, kind, 0.9).round(2).iloc[0] for kind in ("eta", "omega squared"))
    assert (eta["partial_eta_squared"], eta["conf_low"]) == (0.82, 0.66)
    assert (omega["partial_omega_squared"], omega["conf_low"]) == (0.79, 0.61)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("row", [(40.0, 2.0, 18.0), (1.2, 1.0, 5.5), (300.0, 3.0, 1e4), (0.3, 2.0, 10.0), (0.001, 3.0, 8.0)])
def test_limits_are_those_whose_noncentral_distribution_has_f_as_its_quantile(row: tuple[float, float, float], level: float) -> None:
    F, num, den = row
    found = add_effect_sizes(pd.DataFrame([row], columns=["statistic", "num_df", "den_df"]), "eta", level).iloc[0]
    assert found["conf_low"] <= found["partial_eta_squared"]
    for share, p in ((found["conf_low"], 0.5 + 0.5 * level), (found["conf_high"], 0.5 - 0.5 * level)):
        noncentral = den * share / (1.0 - share)
        if noncentral:
            assert stats.ncf.cdf(F, num, den, noncentral) == pytest.approx(p, abs=1e-6)
        else:
            assert stats.f.cdf(F, num, den) <= p


def test_words_and_what_has_no_share() -> None:
    fit = blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy")).fit()
    assert fit.anova(effect_size="Eta squared").equals(fit.anova(effect_size="eta"))  # type: ignore[arg-type]
    assert fit.anova(df="asymptotic", effect_size="omega")["partial_omega_squared"].isna().all(), "no denominator degrees of freedom"
    for options in ({"effect_size": "d"}, {"effect_size": "eta", "conf_level": 95}, {"effect_size": True}):
        with pytest.raises(BayesLMMError):
            fit.anova(**options)  # type: ignore[arg-type]
