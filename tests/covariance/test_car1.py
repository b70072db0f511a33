"""car1, the continuous-time AR(1), against nlme's corCAR1 (3.1); and numeric times of the structures that count steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytensor
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError

TIMES = (0, 1, 2, 5, 6, 9, 10, 11, 15, 16)
WAVE = "follicles ~ I(sin(6.283185307179586*Time)) + I(cos(6.283185307179586*Time))"


def series(seed: int, times: tuple[float, ...] = TIMES, groups: int = 6) -> pd.DataFrame:
    frame = pd.DataFrame({"t": np.tile(times, groups), "g": np.repeat([f"s{i}" for i in range(groups)], len(times))})
    frame["y"] = np.random.default_rng(seed).normal(size=len(frame)).cumsum()
    return frame


@pytest.mark.parametrize(("method", "criterion", "sigma"), [("REML", 1563.50263991, 4.60160836452), ("ML", 1566.40761875, 4.50919009868)])
def test_errors_at_real_times_as_gls_of_nlme(method: str, criterion: float, sigma: float) -> None:
    fit = blm.LMM(WAVE, blm.load_dataset("nlme/Ovary"), residual="car1(Time | Mare)").fit(method)
    assert fit.criterion == pytest.approx(criterion, abs=1e-6)
    assert fit.sigma == pytest.approx(sigma, rel=1e-6)
    if method == "REML":
        np.testing.assert_allclose(fit.fixef, [12.1805135646, -2.78446517445, -0.891705427489], rtol=1e-6)
        np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov)), [0.65722860849, 0.645024326377, 0.696448243535], rtol=1e-5)


def test_errors_beside_a_random_intercept_as_lme_of_nlme() -> None:
    fit = blm.LMM("weight ~ Diet*Time + (1 | Rat)", blm.load_dataset("nlme/BodyWeight"), residual="car1(Time | Rat)").fit()
    assert fit.criterion == pytest.approx(1150.96803275, abs=1e-6)
    assert fit.residual_params["rho"] == pytest.approx(0.973682886101, abs=1e-5)
    assert fit.varcorr["sd"].iloc[0] == pytest.approx(35.7748589348, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_times_of_any_unit_are_the_same_model(seed: int) -> None:
    frame = series(seed)
    frame["weeks"], frame["unix"] = frame["t"] / 7.0, 1.6e9 + 86400.0 * frame["t"]
    found = [
        blm.LMM("y ~ 1", frame, residual=f"{r} | g)").fit() for r in ("car1(t", "sp_pow(t", "car1(weeks", "car1(unix", "ar1(t", "ar1(unix")
    ]
    assert found[0].residual_params["rho"] > 0.05  # ar1 may be negative, and is the same model where it is not
    np.testing.assert_allclose([fit.criterion for fit in found], found[0].criterion, atol=1e-6)


def test_a_random_series_at_real_times_is_that_of_its_matrix() -> None:
    frame = series(3, (0.0, 0.5, 1.25, 3.0), 12)
    frame["y"] += np.random.default_rng(1).normal(size=len(frame))
    fit = blm.LMM("y ~ 1 + car1(0 + C(t) | g)", frame).fit()
    D = fit.D["g"].to_numpy()
    gaps = np.abs(np.subtract.outer(*[[0.0, 0.5, 1.25, 3.0]] * 2))
    np.testing.assert_allclose(D, D[0, 0] * (D[0, 3] / D[0, 0]) ** (gaps / 3.0), rtol=1e-9)
    together = blm.LMM("y ~ 1", frame, residual="car1(t | g) + local").fit()
    assert fit.criterion == pytest.approx(together.criterion, abs=1e-5)
    labels = frame.assign(t=pd.Categorical(frame["t"].astype(str), ["0.0", "0.5", "1.25", "3.0"]))
    assert blm.LMM("y ~ 1 + car1(0 + t | g)", labels).fit().criterion == pytest.approx(fit.criterion, abs=1e-8)


def test_columns_without_times_are_refused() -> None:
    frame = series(1).assign(f=lambda d: pd.Categorical([f"v{t:02d}" for t in d["t"]]))
    for term in ("car1(0 + f | g)", "car1(t | g)"):
        with pytest.raises(DataError, match="no times"):
            blm.LMM(f"y ~ 1 + {term}", frame)


def test_every_verb_knows_car1() -> None:
    frame = series(5, (0.0, 0.5, 1.25, 3.0), 10)
    for formula, residual in (("y ~ t", "car1(t | g)"), ("y ~ t + car1(0 + C(t) | g)", None)):
        model = blm.LMM(formula, frame, residual=residual)
        fit = model.fit()
        assert np.isfinite(fit.tidy(df="kenward-roger")["p_value"]).all()
        # a random term and the residual beside it, both of four times, have a ridge that a profile follows for half a minute
        limits = fit.confint("profile" if residual else "wald")
        assert np.isfinite(limits["conf_high"].astype(float)).sum() >= (3 if residual else 2)
        assert np.isfinite(fit.simulate(1, seed=1).to_numpy(float)).all()
        assert np.isfinite(model.sample(draws=100, chains=1, seed=1).tidy("ran_pars")["estimate"]).all()
        with pytensor.config.change_flags(mode="FAST_COMPILE"):
            assert all(np.isfinite(value) for value in model.to_pymc().point_logps().values())
    fit = blm.LMM("y ~ t", frame, residual="car1(t | g)").fit()
    assert fit.predict({"t": [0.77], "g": ["s0"]}, interval="prediction")["std_error"].item() > 0


def test_sas_says_car1_as_spatial_power_in_one_dimension() -> None:
    frame = series(5, (0.0, 0.5, 1.25, 3.0), 10)
    fit = blm.LMM("y ~ t", frame, residual="car1(t | g)").fit()
    program = fit.model.to_sas()
    assert "type=sp(pow)(t)" in program
    result = blm.proc_mixed(program, frame)
    assert result["FitStatistics"].Value[0] == pytest.approx(fit.criterion, abs=0.05)
    assert result["CovParms"]["CovParm"].tolist() == ["SP(POW)", "Residual"]
    assert result["CovParms"]["Estimate"].iloc[0] == pytest.approx(fit.residual_params["rho"], abs=1e-4)


# ---------------------------------------------------------------------------------------------------------------- whole-number times


@pytest.mark.parametrize("structure", ["ar1", "ar1h", "arma"])
@pytest.mark.parametrize("seed", range(3))
def test_whole_numbers_keep_their_distance_in_any_unit(structure: str, seed: int) -> None:
    frame = series(seed)
    whole = frame.assign(c=pd.Categorical(frame["t"], range(17)), days=1000 + 14 * frame["t"])
    at = blm.LMM("y ~ 1", whole, residual=f"{structure}(c | g)").fit().criterion
    for column in ("t", "days"):
        assert blm.LMM("y ~ 1", whole, residual=f"{structure}({column} | g)").fit().criterion == pytest.approx(at, abs=1e-5)


def test_equal_gaps_count_as_before() -> None:
    frame = series(2, (0.0, 0.25, 0.5, 0.75, 1.0), 8)
    frame["c"] = pd.Categorical(frame["t"])
    for structure in ("ar1", "ar1h", "toep", "ad", "us"):
        own = [blm.LMM("y ~ 1", frame, residual=f"{structure}({column} | g)", check="warn").fit().criterion for column in ("t", "c")]
        assert own[0] == pytest.approx(own[1], abs=1e-9)


def test_fractions_with_unequal_gaps_are_refused_and_name_car1() -> None:
    frame = series(2, (0.0, 0.25, 1.5, 2.0), 8)
    for structure in ("ar1", "ar1h", "arma"):
        with pytest.raises(DataError, match="car1"):
            blm.LMM("y ~ 1", frame, residual=f"{structure}(t | g)")
    with pytest.raises(DataError, match="car1"):
        blm.LMM("y ~ 1 + ar1(0 + C(t) | g)", frame)


def test_structures_by_rank_say_so_where_gaps_are_unequal() -> None:
    frame = series(2, groups=30)
    for structure in ("toep", "ad"):
        checks = blm.LMM("y ~ 1", frame, residual=f"{structure}(t | g)").fit().checks
        assert "car1" in checks["unequal_gaps"].remedy
    assert "unequal_gaps" not in blm.LMM("y ~ 1", frame, residual="ar1(t | g)").fit().checks


def test_a_random_ar1_keeps_the_distance_of_numbers_and_counts_levels_of_factors() -> None:
    frame = series(4).assign(c=lambda d: pd.Categorical(d["t"]), whole=lambda d: pd.Categorical(d["t"], range(17)))
    number, levels, whole = (blm.LMM(f"y ~ 1 + ar1(0 + {f} | g)", frame).fit() for f in ("C(t)", "c", "whole"))
    assert number.criterion == pytest.approx(whole.criterion, abs=1e-5)
    D = number.D["g"].to_numpy()
    assert D[0, 3] / D[0, 0] == pytest.approx((D[0, 1] / D[0, 0]) ** 5, rel=1e-8)
    L = levels.D["g"].to_numpy()
    assert L[0, 3] / L[0, 0] == pytest.approx((L[0, 1] / L[0, 0]) ** 3, rel=1e-8)


def test_class_variables_of_sas_go_by_their_levels() -> None:
    frame = series(2)
    program = "proc mixed; class g t; model y = ; repeated t / type=ar(1) subject=g; run;"
    levels = blm.LMM("y ~ 1", frame.assign(t=pd.Categorical(frame["t"])), residual="ar1(t | g)").fit()
    assert blm.proc_mixed(program, frame)["FitStatistics"].Value[0] == pytest.approx(levels.criterion, abs=0.05)


def test_a_product_keeps_the_distance_of_its_visits() -> None:
    rng = np.random.default_rng(8)
    frame = pd.DataFrame([(i, o, t) for i in range(40) for o in "ab" for t in (0, 1, 4)], columns=["id", "out", "t"])
    frame["out"] = pd.Categorical(frame["out"])
    frame["y"] = rng.normal(size=40)[frame["id"]] + rng.normal(size=len(frame))
    R = blm.LMM("y ~ out", frame, residual="us@ar1(out, t | id)").fit().R.to_numpy()
    assert R[0, 2] / R[0, 0] == pytest.approx((R[0, 1] / R[0, 0]) ** 4, rel=1e-8)
