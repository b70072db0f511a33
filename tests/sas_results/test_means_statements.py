"""LSMESTIMATE, SLICE and LCOMPONENTS say what the ESTIMATE, CONTRAST and LSMEANS statements of the same hypotheses say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError

HEAD = "proc mixed; class id a b; model y = a|b x / ddfm={}; random id; "
COLUMNS = ["Estimate", "StdErr", "DF", "tValue", "Probt"]


def trial(seed: int, empty: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame([(i, a, b) for i in range(9) for a in "uvw" for b in "pq"], columns=["id", "a", "b"])
    frame = frame.drop(rng.choice(len(frame), 9, replace=False))
    if empty:
        frame = frame[~((frame["a"] == "w") & (frame["b"] == "q"))]
    frame["x"] = rng.normal(size=len(frame))
    frame["y"] = rng.normal(size=9)[frame["id"]] + (frame["a"] == "v") * 1.0 + frame["x"] + rng.normal(size=len(frame))
    return frame.reset_index(drop=True)


def run(statements: str, frame: pd.DataFrame, df: str = "kr") -> blm.MixedResult:
    result = blm.proc_mixed(HEAD.format(df) + statements + " run;", frame)
    assert not isinstance(result, list)
    return result


@pytest.mark.parametrize("df", ["satterth", "kr", "contain"])
@pytest.mark.parametrize("seed", range(2))
def test_lsmestimate_is_the_estimate_of_the_same_means(seed: int, df: str) -> None:
    result = run(
        "lsmestimate a 'u - w' 1 0 -1, 'v' 0 2 0 divisor=2 / joint cl;"
        "lsmestimate a*b 'by level' [1, 1 2] [-1, 3 2]; lsmestimate b*a [1, 2 1] [-1, 2 3];"
        "estimate 'u - w' a 1 0 -1; estimate 'v' intercept 1 a 0 1 0; estimate 'by level' a 1 0 -1 a*b 0 1 0 0 0 -1;"
        "contrast 'none' a 1 0 -1, a 0 1 -1; lsmeans a / diff; lsmeans a*b;",
        trial(seed),
        df,
    )
    estimates, given = result["LSMEstimates"], result["Estimates"]
    assert estimates["Label"].tolist() == ["u - w", "v", "by level", "Row 1"]
    columns = COLUMNS if df != "contain" else COLUMNS[:2]  # by counting, an effect lends its own degrees of freedom
    np.testing.assert_allclose(estimates.loc[[0, 2], columns].astype(float), given.loc[[0, 2], columns].astype(float), rtol=1e-9)
    np.testing.assert_allclose(estimates.loc[3, columns].astype(float), given.loc[2, columns].astype(float), rtol=1e-9)
    means = result["LSMeans"].set_index("a")
    np.testing.assert_allclose(estimates.loc[1, "Estimate"], means[means["Effect"] == "a"].loc["v", "Estimate"], rtol=1e-9)
    low = estimates.loc[0, "Estimate"] - result["Diffs"].loc[1, "Estimate"]
    assert abs(low) < 1e-9
    assert result["LSMFtest"]["NumDF"].item() == 2


def test_lsmestimate_adjusts_and_tests_other_values() -> None:
    frame = trial(5)
    plain = run("lsmestimate a 1 -1 0, 1 0 -1;", frame)["LSMEstimates"]
    both = "lsmestimate a 1 -1 0, 1 0 -1 / adjust=bon adjdfe=row testvalue=.5 cl;"
    result = run(f"{both} lsmestimate a 1 -1 0 / lower;", frame)["LSMEstimates"]
    adjusted = result.iloc[:2]
    np.testing.assert_allclose(adjusted["tValue"], (plain["Estimate"] - [0.5, 0.0]) / plain["StdErr"], rtol=1e-9)
    np.testing.assert_allclose(adjusted["Adjp"], np.minimum(1.0, 2 * adjusted["Probt"]), rtol=1e-9)
    below = 0.5 * plain["Probt"][0] if plain["tValue"][0] < 0 else 1 - 0.5 * plain["Probt"][0]
    np.testing.assert_allclose(result["Probt"].iloc[2], below, rtol=1e-9)


@pytest.mark.parametrize("empty", [False, True])
def test_slices_are_those_of_lsmeans_and_their_differences(empty: bool) -> None:
    result = run("slice a*b / sliceby=b diff adjust=bon adjdfe=row means; lsmeans a*b / slice=b diff;", trial(3, empty))
    shown, known = result["SliceTests"], result["Slices"]
    assert shown["Slice"].tolist() == ["b p", "b q"]
    np.testing.assert_allclose(
        shown[["NumDF", "FValue", "ProbF"]].astype(float), known[["NumDF", "FValue", "ProbF"]].astype(float), rtol=1e-9
    )
    differences, all_ = result["SliceDiffs"], result["Diffs"]
    all_ = all_[all_["b"] == all_["_b"]].sort_values(["b", "a", "_a"])
    np.testing.assert_allclose(differences[COLUMNS].astype(float), all_[COLUMNS].astype(float), rtol=1e-9)
    first = differences[differences["Slice"] == "b p"]
    np.testing.assert_allclose(first["Adjp"], np.minimum(1.0, 3 * first["Probt"]), rtol=1e-9)
    assert len(result["SliceLSMeans"]) == len(result["LSMeans"])


def test_a_slice_by_nothing_is_by_each_part() -> None:
    assert run("slice a*b;", trial(1))["SliceTests"]["Slice"].tolist() == ["a u", "a v", "a w", "b p", "b q"]


def test_components_are_the_rows_of_the_tests() -> None:
    text = "proc mixed; class id a b; model y = a|b x / ddfm=satterth lcomponents e3; random id; run;"
    result = blm.proc_mixed(text, trial(2))
    assert not isinstance(result, list)
    components, tests = result["LComponents"], result["Tests3"].set_index("Effect")
    assert components.groupby("Effect", sort=False).size().to_dict() == {e: int(tests.loc[e, "NumDF"]) for e in ("a", "b", "a*b", "x")}
    one = components.set_index("Effect").loc["x"]
    np.testing.assert_allclose(one["tValue"] ** 2, tests.loc["x", "FValue"], rtol=1e-9)


@pytest.mark.parametrize(
    "statement",
    [
        "lsmestimate a 1 2 3 4;",
        "lsmestimate a [1, 4];",
        "lsmestimate a [1, 1 1];",
        "lsmestimate a;",
        "lsmestimate x 1;",
        "lsmestimate a 1 -1 / adjust=tukey;",
        "lsmestimate a 1 -1 / divisor=1,2;",
        "slice a*b / sliceby=x;",
        "slice x;",
        "slice a*b / sliceby=b diff=control('z');",
    ],
)
def test_what_is_no_mean_is_refused_in_words(statement: str) -> None:
    with pytest.raises(BayesLMMError):
        run(statement, trial(0))
