"""Programs whose output is printed in the documentation of PROC MIXED and in textbooks: our tables show the same digits."""

from __future__ import annotations

from functools import cache

import pytest

import bayeslmm as blm
from bayeslmm.sas_results.proc_mixed import MixedResult
from tests.sas_results.sets import data, schools, split_plot

GROWTH = "proc mixed data=pr method=ml covtest; class Subject Sex; model distance = Sex age Sex*age / s; repeated / {}; run;"


@cache
def growth(repeated: str) -> MixedResult:
    return blm.proc_mixed(GROWTH.format(repeated), data("nlme", "Orthodont"))


def printed(result: MixedResult, table: str, column: str, digits: int = 4) -> list[float]:
    return result[table][column].dropna().round(digits).tolist()


# -- Potthoff and Roy's growth measurements, the example of repeated measures -------------------------------------------------------------


def test_growth_unstructured() -> None:
    result = growth("type=un subject=Subject r")
    assert printed(result, "CovParms", "Estimate") == [5.1192, 2.4409, 3.9279, 3.6105, 2.7175, 5.9798, 2.5222, 3.0623, 3.8235, 4.6180]
    assert printed(result, "CovParms", "StdErr")[:4] == [1.4169, 0.9835, 1.0825, 1.2767]
    assert printed(result, "FitStatistics", "Value", 1) == [419.5, 447.5, 452.0, 465.6]
    assert printed(result, "LRT", "ChiSq", 2) == [58.76]
    assert printed(result, "SolutionF", "Estimate") == [15.8423, 1.5831, 0.0, 0.8268, -0.3504, 0.0]
    assert printed(result, "SolutionF", "StdErr") == [0.9356, 1.4658, 0.0791, 0.1239]


def test_with_an_unstructured_r_every_effect_has_the_degrees_of_freedom_of_subjects() -> None:
    assert set(printed(growth("type=un subject=Subject r"), "SolutionF", "DF")) == {25.0}
    assert set(printed(growth("type=un subject=Subject r"), "Tests3", "DenDF")) == {25.0}


def test_growth_compound_symmetry() -> None:
    result = growth("type=cs subject=Subject r")
    assert result["CovParms"]["CovParm"].tolist() == ["CS", "Residual"]
    assert printed(result, "CovParms", "Estimate") == [3.0306, 1.8746]
    assert printed(result, "CovParms", "StdErr") == [0.9552, 0.2946]
    assert printed(result, "FitStatistics", "Value", 1) == [428.6, 440.6, 441.5, 448.4]
    assert printed(result, "Tests3", "DenDF") == [25.0, 79.0, 79.0]
    assert printed(result, "Tests3", "FValue", 2) == [0.47, 111.10, 6.46]


def test_growth_by_sex() -> None:
    result = growth("type=cs subject=Subject group=Sex")
    table = result["CovParms"]
    assert table["Group"].tolist() == ["Sex Female"] * 2 + ["Sex Male"] * 2
    assert table["CovParm"].tolist() == ["Variance", "CS", "Variance", "CS"]
    assert printed(result, "CovParms", "Estimate") == [0.5900, 3.8804, 2.7577, 2.4463]
    assert printed(result, "FitStatistics", "Value", 1) == [408.8, 424.8, 426.3, 435.2]
    assert printed(result, "LRT", "ChiSq", 2) == [69.43]


# -- the split plot -----------------------------------------------------------------------------------------------------------------------

SPLIT_PLOT = """
    proc mixed data=sp;
      class A B Block;
      model Y = A B A*B;
      random Block A*Block;
      estimate 'a1 mean narrow' intercept 1 A 1 B .5 .5 A*B .5 .5
        | Block .25 .25 .25 .25 A*Block .25 .25 .25 .25 0 0 0 0 0 0 0 0;
      estimate 'a1 mean intermed' intercept 1 A 1 B .5 .5 A*B .5 .5 | Block .25 .25 .25 .25;
      estimate 'a1 mean broad' intercept 1 a 1 b .5 .5 A*B .5 .5;
    run;"""


@cache
def the_split_plot() -> MixedResult:
    return blm.proc_mixed(SPLIT_PLOT, split_plot())


def test_split_plot() -> None:
    result = the_split_plot()
    assert printed(result, "CovParms", "Estimate") == [62.3958, 15.3819, 9.3611]
    assert printed(result, "FitStatistics", "Value", 1) == [119.8, 125.8, 127.5, 123.9]
    assert printed(result, "Tests3", "NumDF") == [2, 1, 2]
    assert printed(result, "Tests3", "DenDF") == [6.0, 9.0, 9.0]
    assert printed(result, "Tests3", "FValue", 2) == [4.07, 19.39, 4.02]
    assert printed(result, "Tests3", "ProbF") == [0.0764, 0.0017, 0.0566]


def test_broad_and_narrow_inference_differ_in_their_standard_errors() -> None:
    table = the_split_plot()["Estimates"]
    assert table["Estimate"].round(4).tolist() == [32.8750] * 3
    assert table["StdErr"].round(4).tolist() == [1.0817, 2.2396, 4.5403]
    assert table["DF"].tolist() == [9.0] * 3
    assert table["tValue"].round(2).tolist() == [30.39, 14.68, 7.24]


# -- High School and Beyond (Singer 1998, Journal of Educational and Behavioral Statistics 23, 323-355) -----------------------------------


def test_school_effects() -> None:
    program = """PROC MIXED NOCLPRINT NOITPRINT COVTEST; CLASS School;
        MODEL MathAch = MEANSES sector cses MEANSES*cses sector*cses / SOLUTION DDFM=BW NOTEST;
        RANDOM INTERCEPT cses / TYPE=UN SUB=School; RUN;"""
    result = blm.proc_mixed(program, schools())
    assert result["CovParms"]["Estimate"].tolist() == pytest.approx([2.3817, 0.1926, 0.1014, 36.7212], rel=1e-4, abs=5e-5)
    assert printed(result, "CovParms", "StdErr") == [0.3717, 0.2045, 0.2138, 0.6261]
    assert printed(result, "SolutionF", "Estimate") == [12.1136, 5.3391, 1.2167, 2.9388, 1.0389, -1.6426]
    assert printed(result, "SolutionF", "StdErr") == [0.1988, 0.3693, 0.3064, 0.1551, 0.2989, 0.2398]
    assert printed(result, "SolutionF", "DF") == [157.0] * 3 + [7022.0] * 3
    assert {"ClassLevels", "IterHistory", "Tests3"}.isdisjoint(result)


# -- the textbook's program ---------------------------------------------------------------------------------------------------------------


def test_the_textbook_program_runs_as_written(trial: object) -> None:
    program = """proc mixed data=data method=reml;
                   class USUBJID;
                   model BCVA_CHG = VISITN BCVA_BL / solution;
                   random intercept / subject=USUBJID;
                 run;"""
    result = blm.proc_mixed(program, trial)
    fit = blm.LMM("BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)", trial).fit()
    assert list(result) == [
        *("ModelInfo", "ClassLevels", "Dimensions", "NObs", "IterHistory", "ConvergenceStatus"),
        *("CovParms", "FitStatistics", "SolutionF", "Tests3"),
    ]
    assert result["SolutionF"]["Effect"].tolist() == ["Intercept", "VISITN", "BCVA_BL"]
    assert result["SolutionF"]["Estimate"].to_numpy() == pytest.approx(fit.fixef.to_numpy(), rel=1e-9)
    assert result["CovParms"]["Estimate"].to_numpy() == pytest.approx([fit.varcorr["variance"].iloc[0], fit.sigma**2], rel=1e-7)
    assert result.fit.criterion == pytest.approx(fit.criterion, abs=1e-8)
