"""Where a covariate starts changes no table of what does not depend on it; least-squares means know the rows without a response."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.sas_results.proc_mixed import MixedResult

CLASSES = "proc mixed{method}; class a id t;"
PROGRAMS = {
    "one slope": CLASSES.format(method="")
    + "model y = a x / htype=1,2,3 ddfm=satterth; random int / subject=id; lsmeans a / diff om; lsmeans a / at x={at}; "
    "estimate 'p-q' a 1 -1 0; contrast 'a' a 1 -1 0, a 1 0 -1;",
    "slopes by class": CLASSES.format(method="")
    + "model y = a x a*x / htype=1 ddfm=kr; repeated t / subject=id type=cs; lsmeans a / diff at x={at}; "
    "contrast 'slopes' a*x 1 -1 0, a*x 1 0 -1;",
    "weighted, by containment": CLASSES.format(method="") + "weight w; model y = a x / htype=1,3; random id; lsmeans a / diff at means;",
    "no intercept": CLASSES.format(method="") + "model y = a x(a) / noint; random id(a); lsmeans a / diff at x={at};",
    "mean squares": CLASSES.format(method=" method=type3") + "model y = a x; random id(a); lsmeans a / diff;",
}


def _data(shift: float) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 96
    d = pd.DataFrame({"id": np.repeat(np.arange(24), 4), "t": np.tile([1, 2, 3, 4], 24), "w": rng.uniform(0.5, 2.0, n)})
    d["a"] = np.array(["p", "q", "r"])[d["id"] % 3]
    z = np.round(rng.normal(size=n) * 2**10) / 2**10
    d["y"] = rng.normal(size=24)[d["id"]] + z / 2 + (d["a"] == "q") + rng.normal(size=n)
    return d.assign(x=z + shift)


def _tables(result: MixedResult) -> dict[str, np.ndarray]:
    wanted = ("Tests1", "Tests2", "Tests3", "Type3", "LSMeans", "Diffs", "Estimates", "Contrasts")
    numbers = {name: result[name].select_dtypes("number") for name in wanted if name in result}
    return {name: table.drop(columns="x", errors="ignore").to_numpy(float) for name, table in numbers.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_where_a_covariate_starts_moves_no_mean_and_no_test(name: str) -> None:
    near, far = 0.0, 1e7
    skipped = {"no intercept": {"Tests3"}}.get(name, set())
    one, other = (_tables(blm.proc_mixed(PROGRAMS[name].format(at=shift + 0.5) + " run;", _data(shift))) for shift in (near, far))
    assert one.keys() == other.keys()
    for table in one.keys() - skipped:
        np.testing.assert_allclose(other[table], one[table], rtol=1e-6, atol=1e-7, err_msg=table)


def _missing() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    n = 160
    d = pd.DataFrame({"a": rng.choice(["p", "q"], n), "b": rng.choice(["u", "v", "w"], n, p=[0.5, 0.3, 0.2]), "id": rng.integers(0, 20, n)})
    d["x"], d["z"], d["w"] = rng.normal(2, 1, n), rng.normal(-1, 1, n), rng.uniform(0.5, 3, n)
    d["y"] = rng.normal(size=20)[d["id"]] + d["x"] + (d["b"] == "v") + rng.normal(size=n)
    gone = rng.random(n) < 0.1 + 0.5 * (d["b"] == "v")
    return d.assign(y=d["y"].where(~gone))


def _coefficients(frame: pd.DataFrame, options: str, weight: str = "") -> pd.DataFrame:
    program = f"proc mixed; class a b id; {weight} model y = a b x z x*z; random id; lsmeans a / e {options}; run;"
    return blm.proc_mixed(program, frame)["Coef"]


def _row(coefficients: pd.DataFrame, effect: str) -> np.ndarray:
    return coefficients.loc[coefficients["Effect"] == effect, "Row1"].to_numpy(float)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", ["", "om", "at means", "at x=3", "om at z=0"])
def test_means_are_over_the_rows_without_a_response_too(options: str, weighted: bool) -> None:
    d = _missing()
    found = _coefficients(d, options, "weight w;" if weighted else "")
    weights = d["w"].to_numpy() if weighted else np.ones(len(d))
    under_at = weights if "at" in options else np.ones(len(d))
    x = 3.0 if "x=3" in options else np.average(d["x"], weights=under_at)
    z = 0.0 if "z=0" in options else np.average(d["z"], weights=under_at)
    both = x * z if "at" in options else np.mean(d["x"] * d["z"])
    share = np.array([weights[d["b"] == level].sum() for level in "uvw"]) / weights.sum() if "om" in options else np.full(3, 1 / 3)
    np.testing.assert_allclose(
        [*_row(found, "b"), *_row(found, "x"), *_row(found, "z"), *_row(found, "x*z")], [*share, x, z, both], rtol=1e-10
    )


def test_rows_of_a_cell_without_any_response_are_left_out_of_means() -> None:
    d = _missing().assign(b=lambda f: f["b"].astype(object))
    extra = d.iloc[:15].assign(b="unseen", y=np.nan, x=100.0)
    program = "proc mixed; class a b id; model y = a|b x; random id; lsmeans a / e om; run;"
    grown = extra.assign(b="v", a="p", y=np.nan, x=5.0)
    whole, with_cell = (blm.proc_mixed(program, pd.concat([d, more]))["Coef"] for more in (extra, grown))
    assert np.isclose(_row(whole, "x"), d["x"].mean()).all()
    assert np.isclose(_row(with_cell, "x"), pd.concat([d, grown])["x"].mean()).all()
