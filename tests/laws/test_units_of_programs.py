"""PROC MIXED in any unit of its covariates: tests, means and criteria are the same, estimates and EMS move by powers of the unit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

PROGRAMS = {
    "un": """proc mixed covtest; class id a; model y = a x / s cl ddfm=sat; random int x / subject=id type=un s;
        lsmeans a / diff cl; estimate 'e' x 1 | x 1 / subject 1; contrast 'c' x 1, a 1 -1 0;""",
    "vc": "proc mixed covtest; class id a; model y = a x a*x / s ddfm=kr; random int x / subject=id;",
    "matrices": """proc mixed; class id a; model y = a x / s; random int x / subject=id type=un g gc gci gcorr gi v vi vci;""",
    "csh": "proc mixed covtest; class id a; model y = a x / s; random int x / subject=id type=csh;",
    "group": "proc mixed covtest; class id a; model y = a x / s ddfm=sat; random int x / subject=id group=a;",
    "weights": "proc mixed covtest; class id a; weight w; model y = a x / s ddfm=sat; random int x / subject=id type=un;",
    "held": "proc mixed covtest; class id a; model y = a x / s; random int x / subject=id type=un; parms (1) (0) ({slope}) (1) / hold=3;",
    "places": "proc mixed covtest; class id a; model y = a x / s ddfm=kr; repeated / subject=id type=sp(exp)(x) local;",
    "influence": "proc mixed; class id a; model y = a x / s influence(effect=id); random int x / subject=id type=un;",
    "equations": "proc mixed mmeqsol; class id a; model y = a x / s; random int x / subject=id type=un;",
    "type 1": "proc mixed method=type1; class id a; model y = a x / s; random id x*id;",
    "type 3": "proc mixed method=type3; class id a; model y = x a / s; random id x*id;",
    "mivque": "proc mixed method=mivque0; class id a; model y = a x / s; random int x / subject=id;",
    "nobound": "proc mixed nobound covtest; class id a; model y = a w / s ddfm=kr; random int x / subject=id;",
    "powers": "proc mixed; class id a; model y = a x x*x / s ddfm=kr htype=1,2,3; random int x / subject=id;",
    "empirical": "proc mixed empirical; class id a; model y = a|x / s htype=1,2,3; random int x / subject=id type=un;",
}

UNCHANGED = {"tValue", "FValue", "Probt", "ProbF", "DF", "NumDF", "DenDF", "ZValue", "ProbZ", "ChiSq", "ProbChiSq", "ErrorDF"}
WHOLE = {"LSMeans", "Diffs", "Influence", "ConvergenceStatus", "NObs"}


@cache
def frame() -> pd.DataFrame:
    rng, n, m = np.random.default_rng(5), 24, 5
    data = pd.DataFrame({"id": np.repeat(np.arange(n), m), "a": np.repeat(np.tile(list("uvw"), n // 3), m)})
    data["x"] = rng.normal(size=n * m) + np.tile(np.arange(m), n) * 0.3
    data["w"] = rng.gamma(3.0, size=n * m)
    slopes = np.repeat(0.7 * rng.normal(size=n), m)
    data["y"] = np.repeat(rng.normal(size=n), m) + slopes * data["x"] + rng.normal(size=n * m) + 0.5 * (data["a"] == "v")
    return data


def tables(name: str, unit: float) -> dict[str, pd.DataFrame]:
    text = PROGRAMS[name].format(slope=0.5 / unit**2) + " run;"
    result = blm.proc_mixed(text, frame().assign(x=unit * frame()["x"]))
    return {table: result[table] for table in result if isinstance(result[table], pd.DataFrame)}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("unit", [2.0**20, pytest.param(2.0**-20, marks=pytest.mark.slow)])
def test_tables_do_not_depend_on_the_unit_of_a_covariate(name: str, unit: float) -> None:
    whole, other = tables(name, 1.0), tables(name, unit)
    assert set(whole) == set(other)
    compared = 0
    for table in set(whole) - {"IterHistory", "ParmSearch"}:
        one, two = whole[table], other[table]
        assert list(one.columns) == list(two.columns)
        assert len(one) == len(two)
        for column in one.select_dtypes("number"):
            a, b = one[column].to_numpy(float), two[column].to_numpy(float)
            where = f"{table}.{column}: {a} {b}"
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=where)
            known = np.isfinite(a)
            if column in UNCHANGED or table in WHOLE:
                np.testing.assert_allclose(b[known], a[known], rtol=2e-4, atol=2e-5 * np.abs(a[known]).max(initial=0.0), err_msg=where)
            elif table == "FitStatistics":  # the likelihood of other data, penalties of as many parameters
                np.testing.assert_allclose(b - b[0], a - a[0], atol=1e-6, err_msg=where)
            else:
                with np.errstate(divide="ignore", invalid="ignore"):
                    power = np.log2(np.abs(b[known] / a[known])) / np.log2(unit)
                power = power[np.isfinite(power) & (np.abs(a[known]) > 1e-6 * np.abs(a[known]).max(initial=0.0))]
                np.testing.assert_allclose(power, np.round(power), atol=1e-3, err_msg=where)
            compared += 1
    assert compared > 8
