"""ADJUST= and ADJDFE=: adjusted p values and limits by the degrees of freedom of the effect, or with ADJDFE=ROW of each row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from bayeslmm.sas_results.tables.requests import modulus_isf, modulus_sf
from tests.sas_results.sets import data

PROGRAM = """proc mixed; class Block Variety nitro; model yield = Variety|nitro / ddfm={ddfm};
             random int Variety / subject=Block; lsmeans Variety nitro / cl alpha=0.1 {options}; run;"""


def unbalanced(seed: int) -> pd.DataFrame:
    oats = data("nlme", "Oats")
    return oats.drop(index=np.random.default_rng(seed).choice(oats.index, 9, replace=False))


def expected(method: str, t: np.ndarray, df: np.ndarray, means: int) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted p values and critical values at 0.1, by the textbook."""
    m, plain = len(t), 2 * stats.t.sf(np.abs(t), df)
    if method == "tukey":
        p = stats.studentized_range.sf(np.abs(t) * np.sqrt(2), means, df)
        return p, np.array([stats.studentized_range.isf(0.1, means, v) for v in df]) / np.sqrt(2)
    if method == "bon":
        return np.minimum(1, m * plain), stats.t.isf(0.05 / m, df)
    if method == "sidak":
        return 1 - (1 - plain) ** m, stats.t.isf((1 - 0.9 ** (1 / m)) / 2, df)
    return stats.f.sf(t**2 / (means - 1), means - 1, df), np.sqrt((means - 1) * stats.f.isf(0.1, means - 1, df))


@pytest.mark.parametrize("ddfm", [pytest.param("satterth", marks=pytest.mark.slow), "kr"])
@pytest.mark.parametrize("method", [pytest.param("tukey", marks=pytest.mark.slow), "bon", "sidak", "scheffe"])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_degrees_of_freedom_are_those_of_the_effect_or_of_the_row(method: str, ddfm: str, seed: int) -> None:
    frame = unbalanced(seed)
    for option, row in (("", False), ("adjdfe=source", False), ("adjdfe=row", True)):
        result = blm.proc_mixed(PROGRAM.format(ddfm=ddfm, options=f"adjust={method} {option}"), frame)
        for effect, table in result["Diffs"].groupby("Effect"):
            df = table["DF"].to_numpy()
            if not row:
                tests = result["Tests3"].set_index("Effect")
                df = np.full(len(df), tests.loc[effect, "DenDF"])
            means = len(frame[effect].unique())
            p, critical = expected(method, table["tValue"].to_numpy(), df, means)
            np.testing.assert_allclose(table["Adjp"], p, rtol=2e-5, atol=1e-12)
            np.testing.assert_allclose(table["AdjUpper"] - table["Estimate"], critical * table["StdErr"], rtol=2e-5)
            np.testing.assert_allclose(table["Estimate"] - table["AdjLower"], critical * table["StdErr"], rtol=2e-5)


def test_comparisons_with_a_control_have_the_degrees_of_freedom_of_the_effect() -> None:
    frame = unbalanced(3)
    two = frame[frame["nitro"].isin([0, 0.2])]
    for diff, tail in (("control", 2.0), ("controll", 1.0), ("controlu", 1.0)):
        result = blm.proc_mixed(PROGRAM.format(ddfm="satterth", options=f"diff={diff} adjust=dunnett"), two)
        row = result["Diffs"].query("Effect == 'nitro'").iloc[0]
        df = result["Tests3"].set_index("Effect").loc["nitro", "DenDF"]
        t = {"control": abs(row["tValue"]), "controll": -row["tValue"], "controlu": row["tValue"]}[diff]
        # one comparison needs no adjustment
        assert row["Adjp"] == pytest.approx(tail * stats.t.sf(t, df), rel=1e-6)
        assert np.isinf(row["AdjLower"]) == (diff == "controll")
        assert np.isinf(row["AdjUpper"]) == (diff == "controlu")


def test_studentized_maximum_modulus_has_its_published_quantiles() -> None:
    """An upper 5 % point of Stoline and Ury (1979), the integral over a box, and what is known in closed form."""
    assert modulus_isf(0.05, 10, 3) == pytest.approx(2.829, abs=0.0006)
    for m, df in ((3, 20), (5, 7)):
        t, law = modulus_isf(0.1, df, m), stats.multivariate_t(np.zeros(m), np.eye(m), df=df)
        assert 1 - law.cdf(np.full(m, t), lower_limit=np.full(m, -t), random_state=1) == pytest.approx(0.1, abs=1e-4)
    assert modulus_sf(2.0, 1e9, 4) == pytest.approx(1 - (2 * stats.norm.cdf(2.0) - 1) ** 4, rel=1e-6)
    for df in (1.0, 2.5, 7.5, 300.0):
        for t in (0.5, 3.0, 12.0):
            assert modulus_sf(t, df, 1) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-9)
            assert modulus_sf(t, df, 1, sides=1) == pytest.approx(stats.t.sf(t, df), rel=1e-9)


def test_simulated_adjustment_of_all_balanced_differences_is_tukeys() -> None:
    frame = data("nlme", "Oats")
    found = [
        blm.proc_mixed(PROGRAM.format(ddfm="satterth", options=f"adjust={a}"), frame)["Diffs"]
        for a in ("simulate(seed=1 acc=0.01)", "tukey")
    ]
    np.testing.assert_allclose(found[0]["Adjp"], found[1]["Adjp"], rtol=3e-3)
    assert set(found[0]["Adjustment"]) == {"Simulated"}


@pytest.mark.parametrize(
    ("options", "what"), [("diff=control adjust=tukey", "TUKEY"), ("diff adjust=dunnett", "DUNNETT"), ("adjust=nelson", "NELSON")]
)
def test_an_adjustment_of_another_family_is_refused(options: str, what: str) -> None:
    with pytest.raises(SpecificationError, match=what):
        blm.proc_mixed(PROGRAM.format(ddfm="satterth", options=options), data("nlme", "Oats"))
