"""Every reference case of lme4, nlme, mmrm and SAS by the shared checker; what falls short is named here, with the reason."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import bayeslmm as blm
from tests.conftest import shared_folder

READ = "SAS counts every subject read, `mmrm` (as in R) those with a response; through proc_mixed the printed BIC is met"
EARLY = (
    "SAS stops before the optimum; mmrm and the dense algebra agree with us to 1e-7, and the printed integer is on the other side of a half"
)
SHORTFALLS = {
    ("lme4_orthodont_slope_sex_reml", "confint/profile_95/lower"): (
        "lme4's profile of sigma ends early on a boundary (its upper limit is missing too); ours is where the criterion has risen by 3.84"
    ),
    ("mmrm_fev_us_weighted_reml", "predict/conditional"): (
        "mmrm's predict leaves the weights out of the conditional mean; ours is the conditional mean under the fitted covariance"
    ),
    ("sas_sp_exp2_simple_ml", "tests/satterthwaite/df_rounded"): EARLY,
    ("sas_us_full_reml", "emmeans/0/means/df_rounded"): EARLY,
}


def cases() -> list[Any]:
    folder = shared_folder()
    return [pytest.param(path, id=path.stem) for path in sorted((folder / "reference").glob("*.json"))] if folder else []


def expected(case: str, failure: str) -> bool:
    label = failure.partition(":")[0]
    return (case, label) in SHORTFALLS or (case.startswith("sas_") and label == "fit_statistics_printed/BIC")


@pytest.mark.parametrize("path", cases())
def test_a_case_agrees_in_every_section(path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(shared))
    import check_reference

    case = check_reference.Case(json.loads(path.read_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_reference.examine(case, path.parent, blm, list(check_reference.SECTIONS))
    assert case.passed > 0
    assert [failure for failure in case.failed if not expected(case.id, failure)] == []


def test_the_reference_cases_are_there(reference: Path) -> None:
    assert any(reference.glob("*.json"))


def test_a_printed_bic_of_subjects_read_is_met_by_the_door_of_sas(shared: Path) -> None:
    # what READ says of the cases above
    import pandas as pd

    listing = json.loads((shared / "reference" / "sas_us_simple_reml.json").read_text())["outputs"]
    data = pd.read_csv(shared / "data" / "fev_data.csv")
    program = "proc mixed data=fev method=reml; class AVISIT USUBJID; model FEV1 = / s; repeated AVISIT / subject=USUBJID type=un; run;"
    statistics = blm.proc_mixed(program, data)["FitStatistics"].set_index("Descr")["Value"]
    bic = next(value for name, value in statistics.items() if str(name).startswith("BIC"))
    assert bic == pytest.approx(listing["fit_statistics_printed"]["BIC"], abs=0.051), READ
