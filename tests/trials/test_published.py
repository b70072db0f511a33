"""Multiple imputation of the antidepressant trial as CAMIS (PHUSE and PSI) printed it, of rbmi and of the five SAS macros.

The trial's data are not part of the repository; where a copy lies beside it, in shared/reference-imputation, the figures are compared.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.trials.imputations import Imputations

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference-imputation"
HERE = FOLDER / "published.json"
pytestmark = pytest.mark.skipif(not HERE.exists(), reason="the antidepressant trial is not beside the repository")

NONE: dict[str, Any] = {"imputation": [], "tipping_point_intervention_only": {"rows": []}}
PUBLISHED: dict[str, Any] = json.loads(HERE.read_text()) if HERE.exists() else NONE
ROWS = [row for row in PUBLISHED["imputation"] if row["M"] == 5000]
TIPPING = [row for row in PUBLISHED["tipping_point_intervention_only"]["rows"] if row["software"] == "rbmi"]
N = 1000
ANALYSIS = "CHANGE ~ THERAPY + BASVAL + GENDER"


@cache
def imputed(strategy: str) -> Imputations:
    data = pd.read_csv(FOLDER / "data" / "antidepressant.csv", dtype={"PATIENT": str, "VISIT": str})
    events = pd.read_csv(FOLDER / "data" / "antidepressant_ice.csv", dtype={"PATIENT": str, "VISIT": str})
    data["VISIT"] = pd.Categorical(data["VISIT"], sorted(data["VISIT"].unique()), ordered=True)
    data["THERAPY"] = pd.Categorical(data["THERAPY"], ["PLACEBO", "DRUG"])
    model = blm.LMM("CHANGE ~ GENDER + THERAPY + VISIT + BASVAL * VISIT + THERAPY * VISIT", data, residual="us(VISIT | PATIENT)")
    events = events[["PATIENT", "VISIT"]]
    return blm.impute(
        model, treatment="THERAPY", reference={"DRUG": "PLACEBO"}, events=events, strategy=strategy, method="bayes", n=N, seed=2
    )


def last_difference(table: pd.DataFrame) -> pd.Series:
    return table[(table["visit"].astype(str) == "7") & (table["parameter"] == "difference")].iloc[0]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['software']} {row['strategy']}" for row in ROWS])
def test_differences_at_the_last_visit_are_those_published(row: dict[str, Any]) -> None:
    found = last_difference(imputed(row["strategy"]).analyse(ANALYSIS).pool())
    error = found["mcse"] * np.sqrt(1.0 + N / row["M"])
    assert abs(found["estimate"] - row["est"]) < 4.0 * error + 5e-4
    # the standard error of a pooled difference has a Monte Carlo error of its own, of the same order
    assert abs(found["std_error"] - row["se"]) < 4.0 * error + 5e-4
    assert abs(found["conf_low"] - row["lci"]) < 12.0 * error + 1e-3
    assert abs(found["p_value"] - row["p"]) < 0.01


@pytest.mark.parametrize("row", TIPPING, ids=[row["strategy"] for row in TIPPING])
def test_amounts_added_to_the_drug_arm_tip_where_they_are_said_to(row: dict[str, Any]) -> None:
    imp = imputed(row["strategy"])
    table = imp.tipping({"DRUG": [float(row["delta"])]}, ANALYSIS).frame
    found = table[table["visit"].astype(str) == "7"].iloc[0] if "visit" in table else table.iloc[0]
    mcse = last_difference(imp.analyse(ANALYSIS).pool())["mcse"]
    assert abs(found["estimate"] - row["est"]) < 6.0 * mcse + 5e-4
    assert (found["p_value"] < 0.05) == (row["p"] < 0.05)
