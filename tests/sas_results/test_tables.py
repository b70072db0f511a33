"""What single statements and options do: coding, non-estimable rows, WEIGHT, WHERE, BY, DDF=, predictions, PARMS, diagnostics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, EmptyDataError, InferenceError, SpecificationError
from tests.sas_results.sets import data, hemmerle_hartley

INTERCEPT = "proc mixed {}; class Subject; model Reaction = Days / s {}; random int / sub=Subject; {} run;"


def sleep() -> pd.DataFrame:
    return data("lme4", "sleepstudy")


def growth() -> pd.DataFrame:
    return data("nlme", "Orthodont")


def oats() -> pd.DataFrame:
    return data("nlme", "Oats")


# -- frames -------------------------------------------------------------------------------------------------------------------------------


def test_tables_are_found_in_any_case_and_absent_ones_are_named() -> None:
    result = blm.proc_mixed(INTERCEPT.format("", "", ""), sleep())
    assert result["solutionf"].equals(result["SolutionF"])
    assert result.get("LSMeans") is None
    with pytest.raises(SpecificationError, match="prints no table 'SolutionG'") as caught:
        result["SolutionG"]
    assert "SolutionF" in caught.value.remedy


def test_a_table_handed_out_is_a_copy() -> None:
    result = blm.proc_mixed(INTERCEPT.format("", "", ""), sleep())
    table = result["CovParms"]
    table.loc[:, "Estimate"] = 0.0
    assert (result["CovParms"]["Estimate"] > 0).all()


def test_columns_are_those_of_ods() -> None:
    result = blm.proc_mixed(INTERCEPT.format("covtest cl", "cl chisq", ""), sleep())
    assert result["CovParms"].columns.tolist() == [
        *("CovParm", "Subject", "Estimate", "StdErr", "ZValue", "ProbZ"),
        *("Alpha", "Lower", "Upper"),
    ]
    assert result["SolutionF"].columns.tolist() == ["Effect", "Estimate", "StdErr", "DF", "tValue", "Probt", "Alpha", "Lower", "Upper"]
    assert result["Tests3"].columns.tolist() == ["Effect", "NumDF", "DenDF", "ChiSq", "FValue", "ProbChiSq", "ProbF"]


@pytest.mark.parametrize("kind", ["polars", "mapping"])
def test_any_frame_will_do(kind: str) -> None:
    frame = pytest.importorskip("polars").from_pandas(sleep()) if kind == "polars" else {c: sleep()[c].tolist() for c in sleep()}
    table = blm.proc_mixed(INTERCEPT.format("", "", ""), frame)["SolutionF"]
    assert table["Estimate"].round(4).tolist() == [251.4051, 10.4673]


# -- coding and estimability --------------------------------------------------------------------------------------------------------------


def test_the_last_level_is_the_reference_and_has_zero_and_no_more() -> None:
    table = blm.proc_mixed("proc mixed; class Sex Subject; model distance = Sex age / s; random int / sub=Subject; run;", growth())[
        "SolutionF"
    ]
    male = table[table["Sex"] == "Male"].iloc[0]
    assert male["Estimate"] == 0.0
    assert male[["StdErr", "DF", "tValue", "Probt"]].isna().all()


def test_the_reference_may_be_named() -> None:
    program = "proc mixed; class Sex(ref='Female') Subject; model distance = Sex age / s; random int / sub=Subject; run;"
    table = blm.proc_mixed(program, growth())["SolutionF"]
    assert table.loc[table["Estimate"] == 0.0, "Sex"].tolist() == ["Female"]
    fit = blm.LMM("distance ~ Sex + age + (1 | Subject)", growth()).fit()
    assert abs(table.loc[table["Sex"] == "Male", "Estimate"].iloc[0]) == pytest.approx(abs(fit.fixef.iloc[1]), rel=1e-6)


def test_means_of_a_cell_without_rows_are_not_estimable() -> None:
    holed = oats()[~((oats()["Variety"] == "Victory") & (oats()["nitro"] == 0))]
    program = """proc mixed; class Variety nitro Block; model yield = Variety|nitro; random Block; lsmeans Variety / diff;
                 estimate 'no' Variety 1 0; run;"""
    result = blm.proc_mixed(program, holed)
    assert result["LSMeans"]["Estimate"].isna().tolist() == [False, False, True]
    assert result["Diffs"]["Estimate"].isna().tolist() == [False, True, True]
    assert result["Estimates"]["Estimate"].isna().all()
    assert "Non-est" in result.listing


def test_levels_that_no_row_has_do_no_harm() -> None:
    frame = growth().assign(Sex=growth()["Sex"].astype("category").cat.add_categories(["Other"]))
    program = "proc mixed; class Sex Subject; model distance = Sex age / s; random int / sub=Subject; lsmeans Sex; run;"
    assert blm.proc_mixed(program, frame)["LSMeans"]["Sex"].tolist() == ["Female", "Male"]


# -- rows ---------------------------------------------------------------------------------------------------------------------------------


def test_where_and_weight_leave_rows_out() -> None:
    frame = sleep().assign(w=1.0)
    frame.loc[[2, 3, 4], "w"] = [0.0, -1.0, np.nan]
    program = "proc mixed; where Days > 0; class Subject; weight w; model Reaction = Days / s; random int / sub=Subject; run;"
    result = blm.proc_mixed(program, frame)
    assert result["NObs"]["N"].tolist() == [162, 159, 3]
    fit = blm.LMM("Reaction ~ Days + (1 | Subject)", frame[(frame["Days"] > 0) & (frame["w"] > 0)]).fit()
    assert result.fit.criterion == pytest.approx(fit.criterion, abs=1e-8)


def test_by_variables_lead_the_columns() -> None:
    program = "proc mixed; class Subject; by descending Sex; model distance = age / s outp=p; random int / sub=Subject; run;"
    result = blm.proc_mixed(program, growth())
    assert result["SolutionF"].columns[:2].tolist() == ["Sex", "Effect"]
    assert result["SolutionF"]["Sex"].tolist() == ["Male", "Male", "Female", "Female"]
    assert list(result.fit) == ["Male", "Female"]
    own = blm.LMM("distance ~ age + (1 | Subject)", growth()[growth()["Sex"] == "Female"]).fit()
    assert result.fit["Female"].criterion == pytest.approx(own.criterion, abs=1e-8)
    assert len(result["p"]) == len(growth())
    assert "Sex=Male" in result.listing


def test_a_text_covariate_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="Sex is text") as caught:
        blm.proc_mixed("proc mixed; class Subject; model distance = Sex; random int / sub=Subject; run;", growth())
    assert "CLASS" in caught.value.remedy


def test_no_rows_left_is_an_error() -> None:
    with pytest.raises(EmptyDataError, match="no row satisfies"):
        blm.proc_mixed(INTERCEPT.format("", "", "where Days > 99;"), sleep())


def test_a_subject_outside_class_must_stand_together() -> None:
    program = "proc mixed; model Reaction = Days; random int / sub=Subject; run;"
    assert blm.proc_mixed(program, sleep()).model.groups == {"Subject": 18}
    with pytest.raises(DataError, match="do not stand together"):
        blm.proc_mixed(program, sleep().sample(frac=1.0, random_state=1))


# -- degrees of freedom -------------------------------------------------------------------------------------------------------------------


def test_degrees_of_freedom_may_be_given() -> None:
    program = "proc mixed; class Sex Subject; model distance = Sex age / ddf=.,7; random int / sub=Subject; run;"
    assert blm.proc_mixed(program, growth())["Tests3"]["DenDF"].tolist() == [80.0, 7.0]


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ("model distance = Sex age; random int / sub=Subject;", [80.0, 80.0]),
        ("model distance = Sex age; random int age / sub=Subject type=un;", [54.0, 26.0]),
        ("model distance = Sex age; random Subject(Sex);", [25.0, 80.0]),
        ("model distance = Sex age / ddfm=residual; random int / sub=Subject;", [105.0, 105.0]),
        ("model distance = Sex age / ddfm=bw; random int / sub=Subject;", [25.0, 80.0]),
        ("model distance = Sex age; repeated / sub=Subject type=cs;", [25.0, 80.0]),
        ("model distance = Sex age; repeated / sub=Subject type=un;", [25.0, 25.0]),
    ],
)
def test_denominators_as_sas_counts_them(statements: str, expected: list[float]) -> None:
    result = blm.proc_mixed(f"proc mixed; class Sex Subject; {statements} run;", growth())
    assert result["Tests3"]["DenDF"].tolist() == expected


def test_within_subject_degrees_of_freedom_are_shared_among_interactions_with_the_subject() -> None:
    rng = np.random.default_rng(3)
    cells = pd.MultiIndex.from_product([range(10), range(3), range(4)], names=["id", "a", "b"]).to_frame(index=False)
    frame = cells.assign(y=rng.normal(size=len(cells)) + rng.normal(size=10)[cells["id"]])
    result = blm.proc_mixed("proc mixed; class id a b; model y = a|b; repeated / sub=id type=cs; run;", frame)
    assert result["Tests3"]["DenDF"].tolist() == [9.0 * 2, 9.0 * 3, 9.0 * 2 * 3]


def test_kenward_roger_is_for_reml() -> None:
    with pytest.raises(InferenceError, match="REML"):
        blm.proc_mixed(INTERCEPT.format("method=ml", "ddfm=kr", ""), sleep())


# -- a variance of 0 ----------------------------------------------------------------------------------------------------------------------


def test_a_variance_of_0_has_no_standard_error_and_does_not_count() -> None:
    result = blm.proc_mixed("proc mixed covtest cl; class Batch; model Yield = ; random Batch; run;", data("lme4", "Dyestuff2"))
    row = result["CovParms"].iloc[0]
    assert row["Estimate"] == 0.0
    assert row[["StdErr", "ZValue", "ProbZ", "Lower", "Upper"]].isna().all()
    assert result["CovParms"]["StdErr"].iloc[1] == pytest.approx(13.8063 * np.sqrt(2 / 29), rel=1e-4)
    values = result["FitStatistics"]["Value"]
    assert values[1] - values[0] == pytest.approx(2.0)
    assert any("not positive definite" in note for note in result.notes)


# -- predictions --------------------------------------------------------------------------------------------------------------------------


def holed() -> pd.DataFrame:
    frame = growth().copy()
    frame.loc[[3, 40], "distance"] = np.nan
    return frame


def test_predictions_of_all_rows_read() -> None:
    program = """proc mixed; class Subject; model distance = age / outp=cond outpm=marg residual vciry;
                 random int age / sub=Subject type=un; run;"""
    result = blm.proc_mixed(program, holed())
    table = result["cond"]
    assert len(table) == len(growth())
    assert table["Pred"].notna().all() and table["Resid"].isna().sum() == 2
    expected = result.fit.predict(growth(), interval="confidence")
    assert table["Pred"].to_numpy() == pytest.approx(expected["estimate"].to_numpy(), rel=1e-8)
    assert table["StdErrPred"].to_numpy() == pytest.approx(expected["std_error"].to_numpy(), rel=1e-6)
    assert result["marg"]["Pred"].to_numpy() == pytest.approx(result.fit.predict(growth(), level="population")["estimate"].to_numpy())
    assert {"StudentResid", "PearsonResid", "ScaledDep", "ScaledResid"} <= set(table)


def test_a_missing_outcome_is_predicted_from_those_of_its_subject() -> None:
    program = "proc mixed; class Subject visit; model distance = age / outp=p; repeated visit / sub=Subject type=un; run;"
    result = blm.proc_mixed(program, holed().assign(visit=growth()["age"]))
    fit = result.fit
    R, alpha = fit.R.to_numpy(), fit.fixef.to_numpy()
    rows = result["p"].iloc[0:4]
    X = np.column_stack([np.ones(4), rows["age"]])
    gap = rows["distance"].to_numpy()[:3] - X[:3] @ alpha
    expected = X[3] @ alpha + R[3, :3] @ np.linalg.solve(R[:3, :3], gap)
    assert rows["Pred"].iloc[3] == pytest.approx(expected, rel=1e-8)


def test_id_names_the_columns_of_the_output() -> None:
    result = blm.proc_mixed(INTERCEPT.format("", "outp=p", "id Subject;"), sleep())
    assert result["p"].columns[:2].tolist() == ["Subject", "Reaction"]


# -- PARMS --------------------------------------------------------------------------------------------------------------------------------

BLOCKS = "proc mixed covtest; class Block Variety nitro; model yield = Variety nitro; random Block Block*Variety; {} run;"


def criterion(parms: str) -> float:
    return float(blm.proc_mixed(BLOCKS.format(parms), oats())["FitStatistics"]["Value"][0])


def test_parms_alone_starts_the_search() -> None:
    assert criterion("parms (100) (100) (100);") == pytest.approx(criterion(""), abs=1e-7)


def test_parameters_held_stay_and_the_others_are_the_best() -> None:
    result = blm.proc_mixed(BLOCKS.format("parms (400) (100) (150) / hold=1;"), oats())
    table = result["CovParms"]
    assert table["Estimate"][0] == pytest.approx(400.0, rel=1e-8)
    assert table["StdErr"].isna().tolist() == [True, False, False]
    best = float(result["FitStatistics"]["Value"][0])
    _, b, c = table["Estimate"]
    for b_, c_ in ((b * 1.05, c), (b * 0.95, c), (b, c * 1.05), (b, c * 0.95)):
        assert criterion(f"parms (400) ({b_}) ({c_}) / noiter noprofile;") > best
    assert best > criterion("")


def test_noiter_evaluates_and_a_grid_is_listed() -> None:
    result = blm.proc_mixed(BLOCKS.format("parms (200 210) (100) (150 160) / noiter noprofile;"), oats())
    search = result["ParmSearch"]
    assert len(search) == 4
    best = search.loc[search["M2ResLogLike"].idxmin()]
    assert result["CovParms"]["Estimate"].tolist() == pytest.approx(best[["CovP1", "CovP2", "CovP3"]].tolist())
    assert result["FitStatistics"]["Value"][0] == pytest.approx(best["M2ResLogLike"], abs=1e-7)


GRID = "proc mixed {}; class a b; model y = a; random b a*b; parms (17 to 20 by .1) (.3 to .4 by .005) (1.0) {}; run;"


def test_a_grid_profiles_the_residual_variance_as_the_manual_prints_it() -> None:
    """Figures of the documentation of PROC MIXED, "Plotting the Likelihood"."""
    result = blm.proc_mixed(GRID.format("", ""), hemmerle_hartley())
    search = result["ParmSearch"]
    assert search.columns.tolist() == ["CovP1", "CovP2", "CovP3", "Variance", "ResLogLike", "M2ResLogLike"]
    assert len(search) == 31 * 21
    assert search.iloc[0].round(4).tolist() == [17.0, 0.3, 1.0, 80.14, -52.4699, 104.9399]
    best = search.loc[search["M2ResLogLike"].idxmin()]
    assert best["M2ResLogLike"] == pytest.approx(result.fit.criterion, abs=1e-4)


@pytest.mark.parametrize(
    ("repeated", "values"),
    [("type=cs subject=a", (3, 2)), ("type=toep(2) subject=a", (0.4, 2)), ("type=ar(1) subject=a", (0.4, 2)), ("local=exp(b)", (0.3, 2))],
)
def test_the_variance_of_a_structure_is_its_residual_row(repeated: str, values: tuple[float, float]) -> None:
    """Parameters of scale times it, without profiling, have the same likelihood."""
    frame = hemmerle_hartley()
    text = f"proc mixed {{}}; class a b; model y = a; repeated / {repeated}; parms ({{!r}}) ({{!r}}) / noiter; run;"
    first = blm.proc_mixed(text.format("", *values), frame)
    row = first["ParmSearch"].iloc[0]
    assert first["CovParms"]["Estimate"].iloc[-1] == pytest.approx(row["Variance"], rel=1e-10)
    scaled = [v * float(row["Variance"]) / values[1] if repeated.startswith(("type=cs", "type=toep")) else v for v in values[:1]]
    again = blm.proc_mixed(text.format("noprofile", *scaled, float(row["Variance"])), frame)["ParmSearch"].iloc[0]
    assert again["M2ResLogLike"] == pytest.approx(row["M2ResLogLike"], abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("proc_option", ["", "method=ml"])
def test_a_grid_without_profiling_takes_the_residual_variance_given(proc_option: str) -> None:
    frame = hemmerle_hartley()
    for options in (("noprofile " + proc_option, ""), (proc_option, "/ noprofile")):
        assert "Variance" not in blm.proc_mixed(GRID.format(*options), frame)["ParmSearch"]
    profiled = blm.proc_mixed(GRID.format(proc_option, ""), frame)["ParmSearch"]
    row, last = profiled.iloc[5], profiled.columns[-1]
    values = [float(row[f"CovP{k}"] * row["Variance"]) for k in (1, 2, 3)]
    text = " ".join(f"({value!r})" for value in values)
    held = f"proc mixed noprofile {proc_option}; class a b; model y = a; random b a*b; parms {text} / noiter; run;"
    again = blm.proc_mixed(held, frame)
    assert again["ParmSearch"][last].iloc[0] == pytest.approx(row[last], abs=1e-8)
    for factor in (0.98, 1.02):  # the profiled variance is the best
        text = " ".join(f"({factor * value!r})" for value in values)
        worse = f"proc mixed {proc_option}; class a b; model y = a; random b a*b; parms {text} / noiter noprofile; run;"
        assert blm.proc_mixed(worse, frame)["ParmSearch"][last].iloc[0] > row[last]


def test_noiter_keeps_ratios_and_profiles_their_scale() -> None:
    frame = hemmerle_hartley()
    result = blm.proc_mixed("proc mixed; class a b; model y = a; random b a*b; parms (17) (.3) (1.0) / noiter; run;", frame)
    assert result["CovParms"]["Estimate"].tolist() == pytest.approx([17 * 80.14, 0.3 * 80.14, 80.14], rel=1e-4)
    assert result.fit.criterion == pytest.approx(104.9399, abs=1e-4)


def test_parms_that_no_covariance_has_are_refused() -> None:
    with pytest.raises(SpecificationError, match="no covariance of this model"):
        criterion("parms (-10) (100) (150) / noiter;")
    with pytest.raises(SpecificationError, match="2 of 3 covariance parameters"):
        criterion("parms (10) (100);")


# -- random effects in ESTIMATE ------------------------------------------------------------------------------------------------------------


def test_an_estimate_may_be_of_one_subject() -> None:
    program = """proc mixed; class Subject; model Reaction = Days / ddfm=satterth; random int Days / sub=Subject type=un s;
                 estimate 'slope of the first' Days 1 | Days 1;
                 estimate 'slope of the second' Days 1 | Days 1 / subject 0 1;
                 estimate 'effect' | Days 1; run;"""
    result = blm.proc_mixed(program, sleep())
    coef = result.fit.coef()["Subject"]
    table = result["Estimates"]
    assert table["Estimate"][:2].tolist() == pytest.approx(coef["Days"].iloc[:2].tolist(), rel=1e-9)
    own = result["SolutionR"].query("Effect == 'Days'").iloc[0]
    assert table.loc[2, ["Estimate", "StdErr", "DF"]].tolist() == pytest.approx(own[["Estimate", "StdErrPred", "DF"]].tolist(), rel=1e-7)
    rows = result.fit.predict({"Days": [0, 1], "Subject": ["308", "308"]}, interval="confidence")
    assert rows["estimate"].diff().iloc[1] == pytest.approx(table["Estimate"][0], rel=1e-9)


def test_matrices_of_subjects() -> None:
    program = """proc mixed; class Subject; model Reaction = Days; random int Days / sub=Subject type=un g gcorr gi gc v=1,3 vcorr; run;"""
    result = blm.proc_mixed(program, sleep())
    found = result["G"][["Col1", "Col2"]].to_numpy()
    assert found == pytest.approx(result.fit.D["Subject"].to_numpy(), rel=1e-9)
    assert result["InvG"][["Col1", "Col2"]].to_numpy() @ found == pytest.approx(np.eye(2), abs=1e-9)
    root = result["CholG"][["Col1", "Col2"]].to_numpy()
    assert root @ root.T == pytest.approx(found, rel=1e-9)
    V = result["V"]
    assert V["Index"].unique().tolist() == [1, 3]
    first = V[V["Index"] == 1].filter(like="Col").to_numpy()
    assert first == pytest.approx(result.fit.marginal_cov("308").to_numpy(), rel=1e-9)
