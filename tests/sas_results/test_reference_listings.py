"""Published PROC MIXED listings of the FEV data, one for each structure: programs run here print the same numbers.

SAS prints four decimals or five digits, and stops early: covariance parameters agree to 1/200 of their standard error, limits to 4e-3,
the criterion to 3e-5.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from tests.conftest import shared_folder

TYPES = {"us": "un", "cs": "cs", "csh": "csh", "ar1": "ar(1)", "ar1h": "arh(1)", "adh": "ante(1)", "toep": "toep", "toeph": "toeph"}
TYPES |= {"sp_exp": "sp(exp)", "sp_gau": "sp(gau)"}
FOLDER = shared_folder()
CASES = sorted(path.stem for path in FOLDER.joinpath("reference").glob("sas_*.json")) if FOLDER else []
LISTINGS = [name for name in CASES if not name.startswith(("sas_kr", "sas_anova"))]
ADJUSTED = [name for name in CASES if name.startswith("sas_kr")]


@cache
def case(name: str) -> dict[str, Any]:
    assert FOLDER is not None
    return json.loads((FOLDER / "reference" / f"{name}.json").read_text())


@cache
def fev() -> pd.DataFrame:
    assert FOLDER is not None
    return pd.read_csv(Path(FOLDER) / "data" / "fev_data.csv")


def program(name: str, options: str = "covtest cl", ddfm: str = "satterth", weight: str | None = None) -> str:
    """The PROC MIXED program behind a case; where the listing rotates the visits, VIS1 is the reference."""
    spec = case(name)
    residual, factors = spec["residual"], spec["preprocessing"]["factors"]
    order = spec["outputs"].get("residual_cov", {}).get("levels") or [None]
    visit_first = order[-1] == "VIS1"

    def told(factor: str) -> str:
        plain = residual["group"] or (factor == "AVISIT" and not visit_first)
        return factor if plain else f"{factor}(ref='{factors[factor]['levels'][0]}')"

    rhs = spec["formula"].partition("~")[2].strip()
    rhs = "" if rhs == "1" else re.sub(r"(\w+) \* (\w+)", r"\1|\2", rhs).replace("+", " ")
    spatial = residual["structure"].startswith("sp_")
    kind = TYPES[residual["structure"]] + (f"({' '.join(residual['visit'])})" if spatial else "")
    repeated = f"repeated {'' if spatial else residual['visit'][0]} / subject=USUBJID type={kind}"
    repeated += f" group={residual['group']}" if residual["group"] else ""
    return f"""proc mixed data=fev method={spec["method"]} {options};
        class USUBJID {" ".join(map(told, factors))};
        model FEV1 = {rhs} / s ddfm={ddfm} htype=2,3 covb;
        {f"weight {weight};" if weight else ""}
        {repeated}; run;"""


@pytest.mark.parametrize("name", LISTINGS)
def test_fit_statistics_as_printed(name: str) -> None:
    outputs = case(name)["outputs"]
    values = blm.proc_mixed(program(name), fev())["FitStatistics"]["Value"].to_numpy()
    assert values[0] == pytest.approx(outputs["criterion"], abs=3e-5)
    told = outputs["fit_statistics_printed"]
    assert values[1:] == pytest.approx([told["AIC"], told["AICc"], told["BIC"]], abs=0.0501)


@pytest.mark.parametrize("name", LISTINGS)
def test_covariance_parameters_and_their_limits_as_printed(name: str) -> None:
    told, table = case(name)["outputs"]["residual_params"], blm.proc_mixed(program(name), fev())["CovParms"]
    assert table["CovParm"].tolist() == told["names"]
    gap = np.abs(table["Estimate"] - np.array(told["estimate"]))
    assert (gap <= 5e-3 * table["StdErr"] + 5e-5 * np.abs(table["Estimate"])).all()
    for column, theirs in (("Lower", "lower_95"), ("Upper", "upper_95")):
        if theirs in told:
            assert table[column].to_numpy() == pytest.approx(np.array(told[theirs]), rel=4e-3, abs=6e-3)


@pytest.mark.parametrize("name", [name for name in LISTINGS if "simple" in name])
def test_the_mean_and_its_degrees_of_freedom_as_printed(name: str) -> None:
    told, row = case(name)["outputs"]["tests"]["satterthwaite"], blm.proc_mixed(program(name), fev())["SolutionF"].iloc[0]
    assert row[["Estimate", "StdErr"]].tolist() == pytest.approx([told["estimate"][0], told["se"][0]], rel=2e-4, abs=1e-4)
    assert row["DF"] == pytest.approx(told["df_rounded"][0], abs=0.6)


@pytest.mark.parametrize("name", ["sas_us_full_reml", "sas_ar1_arm_sex_ml", "sas_us_arm_sex_reml", "sas_anova_ar1_1"])
def test_tests_of_types_2_and_3_as_printed(name: str) -> None:
    if name not in CASES:
        pytest.skip("no reference cases")
    result = blm.proc_mixed(program(name), fev())
    for key, told in case(name)["outputs"].get("anova", {}).items():
        table = result[f"Tests{key[4]}"]
        rows = {frozenset(effect.split("*")): i for i, effect in enumerate(table["Effect"])}
        mine = table.iloc[[rows[frozenset(term.split(":"))] for term in told["term"]]]
        assert mine["FValue"].to_numpy() == pytest.approx(np.array(told["F"]), rel=2e-3, abs=6e-3)
        assert mine["NumDF"].tolist() == told["numdf"]
        df = told.get("dendf_rounded") or told["dendf"]
        assert mine["DenDF"].to_numpy() == pytest.approx(np.array(df), abs=0.6)


@pytest.mark.parametrize("name", ADJUSTED)
def test_kenward_roger_as_sas_has_it(name: str) -> None:
    tests = case(name)["outputs"]["tests"]
    for key, ddfm in (("kenward_roger", "kr"), ("kenward_roger_linear", "kr(firstorder)")):
        if key in tests:
            row = blm.proc_mixed(program(name, ddfm=ddfm), fev())["SolutionF"].query("Effect == 'ARMCD'").iloc[0]
            assert row["StdErr"] == pytest.approx(tests[key]["se"][0], rel=3e-4)
            assert row["DF"] == pytest.approx(tests[key]["df"][0], rel=1e-3)


@pytest.mark.parametrize("name", [name for name in ADJUSTED if "vcov_variants" in case(name)["outputs"]])
def test_the_empirical_covariance_as_sas_has_it(name: str) -> None:
    for told in case(name)["outputs"]["vcov_variants"].values():
        table = blm.proc_mixed(program(name, "empirical", "bw", told["weights"]), fev())["CovB"]
        matrix = table.loc[:1, ["Col1", "Col2"]].to_numpy()
        assert matrix == pytest.approx(np.array(told["vcov"]), rel=3e-4)
