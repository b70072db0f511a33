"""Predictions: rows of the fit, rows of any frame, new levels, missing values, intervals."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayeslmm as blm
from bayeslmm.data import columns
from bayeslmm.errors import BayesLMMWarning, PredictionError


def test_predicting_the_data_gives_the_fitted_values(fit: blm.Fit, sleepstudy: pd.DataFrame) -> None:
    assert np.array_equal(fit.predict()["estimate"], fit.fitted())
    assert np.allclose(fit.predict(sleepstudy)["estimate"], fit.fitted(), rtol=1e-13)
    assert np.allclose(fit.predict(sleepstudy, level="population")["estimate"], fit.fitted("population"), rtol=1e-13)


def test_any_subset_and_order_of_rows_gives_the_same_rows(fit: blm.Fit, sleepstudy: pd.DataFrame) -> None:
    rows = np.random.default_rng(1).permutation(len(sleepstudy))[:40]
    some = fit.predict(sleepstudy.iloc[rows], interval="prediction")
    assert np.allclose(some, fit.predict(sleepstudy, interval="prediction").iloc[rows], rtol=1e-12)
    assert some.index.equals(sleepstudy.index[rows])


def test_other_columns_and_unused_levels_change_nothing(fit: blm.Fit, sleepstudy: pd.DataFrame) -> None:
    wider = sleepstudy.assign(noise=1.0, Subject=sleepstudy["Subject"].cat.add_categories("nobody"))
    assert fit.predict(wider).equals(fit.predict(sleepstudy))


def test_one_row_and_any_kind_of_frame_will_do(fit: blm.Fit) -> None:
    row = {"Days": [3], "Subject": ["310"]}
    expected = fit.predict(pd.DataFrame(row))["estimate"].to_numpy()
    assert np.array_equal(fit.predict(row)["estimate"], expected)
    assert np.array_equal(fit.predict(pl.DataFrame(row))["estimate"], expected)


def test_the_population_needs_no_grouping_column(fit: blm.Fit) -> None:
    assert fit.predict({"Days": [0.0]}, level="population")["estimate"].item() == pytest.approx(fit.fixef["Intercept"])


def test_a_level_that_the_fit_does_not_know_is_named(fit: blm.Fit) -> None:
    with pytest.raises(PredictionError, match="'new'") as caught:
        fit.predict({"Days": [1, 2], "Subject": ["308", "new"]})
    assert "rows 1" in caught.value.where
    assert "population" in caught.value.remedy


def test_a_new_level_has_effect_0_and_its_variance_in_the_prediction_interval(fit: blm.Fit) -> None:
    row = {"Days": [2], "Subject": ["new"]}
    new = fit.predict(row, new_levels="population", interval="prediction")
    whole = fit.predict(row, level="population", interval="prediction")
    mean = fit.predict(row, level="population", interval="confidence")
    assert new["estimate"].item() == pytest.approx(fit.fixef @ [1, 2])
    assert new["std_error"].item() == pytest.approx(whole["std_error"].item())
    z = np.array([1.0, 2.0])
    spread = z @ fit.D["Subject"].to_numpy() @ z + fit.sigma**2
    assert new["std_error"].item() ** 2 == pytest.approx(spread + mean["std_error"].item() ** 2)


def test_a_row_with_a_missing_value_is_nan_and_named_in_one_warning(fit: blm.Fit) -> None:
    with pytest.warns(BayesLMMWarning, match="2 rows") as told:
        found = fit.predict({"Days": [1.0, np.nan, 3.0], "Subject": ["308", "308", None]}, interval="confidence")
    assert len(told) == 1
    assert found.notna().all(axis=1).tolist() == [True, False, False]


def test_an_absent_column_is_named(fit: blm.Fit) -> None:
    with pytest.raises(PredictionError, match="Days"):
        fit.predict({"Subject": ["308"]})


def test_a_new_level_of_a_fixed_factor_is_refused_at_any_level_of_prediction(trial: pd.DataFrame) -> None:
    fit = blm.LMM("BCVA_CHG ~ ARMCD + (1 | USUBJID)", trial).fit()
    with pytest.raises(PredictionError, match="PBO"):
        fit.predict({"ARMCD": ["PBO"]}, level="population")


def test_options_that_do_not_exist_are_refused_with_those_that_do(fit: blm.Fit) -> None:
    for options in ({"level": "group"}, {"interval": "both"}, {"new_levels": "sample"}):
        with pytest.raises(blm.errors.SpecificationError, match=next(iter(options.values()))):
            fit.predict(**options)
    with pytest.raises(blm.errors.SpecificationError, match="confidence level"):
        fit.predict(interval="confidence", conf_level=95)


def test_rows_are_predicted_under_aliased_columns_where_they_are_estimable() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": rng.normal(size=60), "g": np.repeat(list("abcdef"), 10)})
    data["twice"] = 2 * data["x"]
    data["y"] = data["x"] + rng.normal(size=60)
    with pytest.warns(BayesLMMWarning, match="twice"):
        fit = blm.LMM("y ~ x + twice + (1 | g)", data).fit()
    assert np.isnan(fit.fixef["twice"])
    assert np.allclose(fit.predict(data)["estimate"], fit.fitted())
    with pytest.raises(PredictionError, match="not estimable"):
        fit.predict({"x": [1.0], "twice": [5.0], "g": ["a"]})


def test_an_offset_given_as_an_array_is_asked_for_again(sleepstudy: pd.DataFrame) -> None:
    shift = np.linspace(0, 5, len(sleepstudy))
    fit = blm.LMM("Reaction ~ Days + (1 | Subject)", sleepstudy, offset=shift).fit()
    with pytest.raises(PredictionError, match="offset"):
        fit.predict(sleepstudy)
    assert np.allclose(fit.predict(sleepstudy, offset=shift)["estimate"], fit.fitted())


def test_intervals_cover_as_many_as_they_say(sleepstudy: pd.DataFrame) -> None:
    fit = blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()
    found = fit.predict(interval="prediction", conf_level=0.9)
    inside = (found["conf_low"] < sleepstudy["Reaction"]) & (sleepstudy["Reaction"] < found["conf_high"])
    assert 0.85 < inside.mean() <= 1.0


# -- structured errors -----------------------------------------------------------------------------------------------------------------


def test_an_observed_outcome_is_returned_as_it_is(trial: pd.DataFrame) -> None:
    fit = blm.LMM("BCVA_CHG ~ VISITN + BCVA_BL", trial, residual="us(AVISIT | USUBJID)").fit()
    assert np.allclose(fit.predict(trial.iloc[:20])["estimate"], trial["BCVA_CHG"][:20], rtol=1e-10)


def test_an_outcome_not_observed_is_predicted_from_those_of_its_subject(trial: pd.DataFrame) -> None:
    held = trial.copy()
    held.loc[3, "BCVA_CHG"] = np.nan
    fit = blm.LMM("BCVA_CHG ~ VISITN + BCVA_BL", held, residual="us(AVISIT | USUBJID)").fit()
    own = held["USUBJID"] == held["USUBJID"][3]
    rows = held[own]
    visits = [fit.R.index.get_loc(visit) for visit in rows["AVISIT"]]
    R = fit.R.to_numpy()[np.ix_(visits, visits)]
    mean = fit.predict(rows, level="population")["estimate"].to_numpy()
    seen = rows["BCVA_CHG"].notna().to_numpy()
    errors = (rows["BCVA_CHG"].to_numpy() - mean)[seen]
    expected = mean[~seen] + R[np.ix_(~seen, seen)] @ np.linalg.solve(R[np.ix_(seen, seen)], errors)
    assert fit.predict(held.loc[[3]])["estimate"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_visit_that_the_fit_does_not_know_is_named(trial: pd.DataFrame) -> None:
    fit = blm.LMM("BCVA_CHG ~ VISITN", trial, residual="cs(AVISIT | USUBJID)").fit()
    with pytest.raises(PredictionError, match="VIS99"):
        fit.predict({"VISITN": [1], "AVISIT": ["VIS99"], "USUBJID": [trial["USUBJID"][0]]})


def test_a_random_intercept_predicts_as_its_compound_symmetry(trial: pd.DataFrame) -> None:
    subject = trial.iloc[:5].assign(VISITN=11, AVISIT=trial["AVISIT"].iloc[0], USUBJID="someone else")
    random = blm.LMM("BCVA_CHG ~ VISITN + (1 | USUBJID)", trial).fit()
    errors = blm.LMM("BCVA_CHG ~ VISITN", trial, residual="cs(AVISIT | USUBJID)").fit()
    one = random.predict(subject, level="population", interval="prediction")
    other = errors.predict(subject, level="population", interval="prediction")
    assert np.allclose(one, other, rtol=1e-5)


def test_predicting_leaves_no_warning_behind(fit: blm.Fit, sleepstudy: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.predict(sleepstudy, interval="prediction")


def test_the_population_needs_no_grouping_column_for_its_spread() -> None:
    """z' D z needs Z, not the levels: with and without the grouping columns, nested ones too, the interval is the same."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 10)
    data = pd.DataFrame({"g": g, "h": np.tile([0, 1], 100), "x": rng.normal(size=200)})
    data["y"] = data["x"] + 3 * rng.normal(size=20)[g] + rng.normal(size=40)[2 * g + data["h"]] + rng.normal(size=200)
    fit = blm.LMM("y ~ x + (1 | g / h)", data).fit()
    own, without = (fit.predict(new, level="population", interval="prediction") for new in ({"x": [0.0], "g": [0], "h": [0]}, {"x": [0.0]}))
    pd.testing.assert_frame_equal(own, without)
    assert own["std_error"].item() > 3.0


def test_the_population_does_not_read_a_slope_that_it_does_not_need() -> None:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(np.arange(15), 8), "x": rng.normal(size=120), "z": rng.normal(size=120)})
    data["y"] = data["x"] + rng.normal(size=15)[data["g"]] * data["z"] + rng.normal(size=120)
    fit = blm.LMM("y ~ x + (0 + z | g)", data).fit()
    assert np.isfinite(fit.predict({"x": [0.0], "z": [np.nan]}, level="population")["estimate"].item())


@pytest.mark.filterwarnings("ignore:aliased_columns")
def test_rows_of_the_fit_are_estimable_beside_nested_and_empty_cells() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.arange(160) % 10, "a": rng.choice(list("pqrs"), 160), "b": rng.choice(list("uv"), 160)})
    data["h"], data["y"] = data["a"].isin(["p", "q"]).astype(str), rng.normal(size=160)
    data = data[~((data["a"] == "r") & (data["b"] == "v"))]
    for fixed in ("h + a", "a * b"):
        fit = blm.LMM(f"y ~ {fixed} + (1 | g)", data).fit()
        np.testing.assert_allclose(fit.predict(data)["estimate"], fit.fitted(), rtol=1e-8, atol=1e-10)


def test_every_column_of_new_data_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    r = np.random.default_rng(0)
    data = pd.DataFrame({"g": r.choice(list("abcd"), 60), "f": r.choice(list("uv"), 60), "x": r.normal(size=60), "o": r.normal(size=60)})
    data["y"] = data["x"] + r.normal(size=60)
    fit = blm.LMM("y ~ x * f + offset(o) + (x | g)", data).fit()
    expected, reads = fit.predict(data.head(3), interval="prediction"), []
    for name in ("series_numbers", "series_factor"):
        read = getattr(columns, name)
        monkeypatch.setattr(columns, name, lambda series, name, *rest, read=read: reads.append(name) or read(series, name, *rest))
    assert fit.predict(data.head(3), interval="prediction").equals(expected)
    assert sorted(reads) == ["f", "g", "o", "x"]


@pytest.mark.parametrize("kind", ["frame", "mapping", "polars"])
def test_threads_predict_what_one_does(kind: str) -> None:
    r = np.random.default_rng(1)
    data = pd.DataFrame({"g": r.choice(list("abcd"), 60), "x": r.normal(size=60)})
    data["y"] = data["x"] + r.normal(size=60)
    fit = blm.LMM("y ~ x + (x | g)", data).fit()
    rows = [data.iloc[[i]] for i in range(60)]
    asked: list[Any] = {
        "frame": lambda: rows,
        "mapping": lambda: [row.to_dict("list") for row in rows],
        "polars": lambda: [pl.from_pandas(row) for row in rows],
    }[kind]()
    alone = [fit.predict(row, interval="prediction").to_numpy() for row in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda row: fit.predict(row, interval="prediction").to_numpy(), asked * 3))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))
