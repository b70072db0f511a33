"""REPEATED / LOCAL=EXP(effects): R = sigma^2 diag(exp(U delta)), by its definition on dense matrices and by our variance functions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, SpecificationError


def trial(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 150
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(25), 6), "x": rng.normal(2, 1, n), "z": rng.normal(size=n), "w": rng.uniform(0.5, 2, n)}
    )
    frame["a"], frame["b"] = rng.choice(list("pqr"), n), rng.choice(["u", "v"], n)
    spread = np.exp(0.3 * frame["x"] - 0.3 * frame["z"] + 0.5 * (frame["a"] == "q"))
    frame["y"] = frame["x"] + rng.normal(size=25)[frame["id"]] + spread * rng.normal(size=n)
    frame.loc[[4, 70], "x"] = np.nan
    frame.loc[9, "a"] = None
    return frame


def run(text: str, frame: pd.DataFrame) -> blm.MixedResult:
    result = blm.proc_mixed(text, frame)
    assert not isinstance(result, list)
    return result


def coded(frame: pd.DataFrame, effect: str, levels: list[str]) -> tuple[list[str], np.ndarray]:
    """Columns of U: a covariate as it is; a class in 1 and, for its last level, -1."""
    if not levels:
        return [f"EXP {effect}"], frame[[effect]].to_numpy()
    own = frame[effect].to_numpy()
    columns = [(own == level).astype(float) - (own == levels[-1]) for level in levels[:-1]]
    return [f"EXP {effect} {level}" for level in levels[:-1]], np.column_stack(columns)


CLASSES = {"a": ["p", "q", "r"], "b": ["u", "v"]}
PROGRAMS = [
    ("x", "class id a b", "", ""),
    ("a", "class id a b", "method=ml", ""),
    ("a x b", "class id a b", "", "weight w;"),
    ("z a x", "class id a(ref='p') b", "", ""),
]


@pytest.mark.parametrize(("effects", "classes", "method", "weight"), PROGRAMS)
def test_the_parameters_are_those_of_the_definition(effects: str, classes: str, method: str, weight: str) -> None:
    text = f"proc mixed covtest {method}; {classes}; model y = x a / s; random id; repeated / local=exp({effects}); {weight} run;"
    frame = trial(3)
    result = run(text, frame)
    own = frame.dropna(subset=["y", "x", "a"])
    levels = CLASSES | ({"a": ["q", "r", "p"]} if "ref" in classes else {})
    parts = [coded(own, effect, levels.get(effect, [])) for effect in effects.split()]
    U = np.column_stack([columns for _, columns in parts])
    X = np.column_stack([own["x"], pd.get_dummies(own["a"]).to_numpy(float)])
    y, same = own["y"].to_numpy(), own["id"].to_numpy()[:, None] == own["id"].to_numpy()
    w = own["w"].to_numpy() if weight else np.ones(len(own))
    table = result["CovParms"]
    assert list(table["CovParm"]) == ["id", *(name for names, _ in parts for name in names), "Residual"]

    def criterion(theta: np.ndarray) -> float:
        V = theta[0] * same + np.diag(theta[-1] * np.exp(U @ theta[1:-1]) / w)
        K = np.linalg.inv(V)
        M = X.T @ K @ X
        r = y - X @ np.linalg.solve(M, X.T @ K @ y)
        value = np.linalg.slogdet(V)[1] + r @ K @ r
        if method:
            return float(value + len(y) * np.log(2 * np.pi))
        return float(value + np.linalg.slogdet(M)[1] + (len(y) - X.shape[1]) * np.log(2 * np.pi))

    theta = table["Estimate"].to_numpy()
    assert result["FitStatistics"]["Value"][0] == pytest.approx(criterion(theta), abs=1e-8)
    h = 0.01 * np.diag(table["StdErr"])
    steps = [
        [criterion(theta + p + q) - criterion(theta + p - q) - criterion(theta - p + q) + criterion(theta - p - q) for p in h] for q in h
    ]
    slope = np.array([criterion(theta + p) - criterion(theta - p) for p in h])
    assert np.abs(slope).max() < 1e-5  # of a step of .01 standard errors, which raises the criterion by 1e-4
    information = np.array(steps) / (8 * np.outer(h.max(axis=1), h.max(axis=1)))
    np.testing.assert_allclose(table["StdErr"], np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-3)


def test_the_model_is_our_variance_function() -> None:
    frame = trial(5)
    result = run("proc mixed; class id a b; model y = x a / s; random id; repeated / local=exp(a x b); run;", frame)
    fit = blm.LMM("y ~ x + a + (1 | id)", frame, variance="ident(a) * exp(x) * ident(b)").fit()
    assert fit.criterion == pytest.approx(result["FitStatistics"]["Value"][0], abs=1e-7)
    delta = result["CovParms"].set_index("CovParm")["Estimate"]
    rows = fit.tidy("ran_pars").set_index("term")["estimate"]
    assert delta["EXP x"] == pytest.approx(2 * rows["expon"], rel=1e-5)
    assert delta["EXP b u"] == pytest.approx(-np.log(rows["ratio(b)[v]"]), rel=1e-4)
    ratios = np.array([1.0, rows["ratio(a)[q]"], rows["ratio(a)[r]"]])
    np.testing.assert_allclose(delta[["EXP a p", "EXP a q"]], (2 * np.log(ratios) - 2 * np.log(ratios).mean())[:2], rtol=1e-4)
    assert result["LRT"]["DF"][0] == len(delta) - 1
    spec = blm.LMM("y ~ x + a + (1 | id)", frame, variance="exp(x) * ident(a)")
    text = spec.to_sas()
    assert "local=exp(x a)" in text
    assert run(text, frame)["FitStatistics"]["Value"][0] == pytest.approx(spec.fit().criterion, abs=1e-7)


def test_parms_hold_and_start_the_exponents() -> None:
    frame, head = trial(7), "proc mixed; class id a; model y = x; repeated / local=exp(x a);"
    free = run(f"{head} run;", frame)["CovParms"]["Estimate"].to_numpy()
    held = run(f"{head} parms (.1) (0) (0) (2) / hold=1; run;", frame)["CovParms"]["Estimate"].to_numpy()
    assert held[0] == pytest.approx(0.1, abs=1e-12) and free[0] > 0.3
    start = run(f"{head} parms ({free[0]} .1) ({free[1]}) ({free[2]}) (1) / noiter; run;", frame)
    np.testing.assert_allclose(start["CovParms"]["Estimate"], free, rtol=1e-6)
    np.testing.assert_allclose(start["ParmSearch"]["Variance"][0], free[-1], rtol=1e-6)


def test_a_level_without_errors_is_refused_by_name() -> None:
    frame = trial(9).dropna()
    frame.loc[frame["a"] == "q", "y"] = 2.0 * frame["x"]
    with pytest.raises(SpecificationError, match=r"LOCAL=EXP\(\): the residual variance of q"), pytest.warns(BayesLMMWarning):
        run("proc mixed; class a; model y = x; repeated / local=exp(a); run;", frame)


REFUSED = {
    r"LOCAL=EXP\(\) added to TYPE=AR\(1\)": "local=exp(x) type=ar(1) subject=id",
    r"LOCAL=EXP\(\) with GROUP=": "local=exp(x) group=a",
    r"the interaction a\*x in LOCAL=EXP\(\)": "local=exp(a|x)",
    r"the interaction a\(b\) in LOCAL=EXP\(\)": "local=exp(a(b))",
    r"LOCAL=EXP\(\) takes no column called fitted": "local=exp(fitted)",
    r"LOCAL=EXP\(\) names no effect": "local=exp()",
    "there is no column nope": "local=exp(nope)",
    "column b has text|b is": "local=exp(b)",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_there_is_refused_by_name(what: str) -> None:
    frame = trial(1).assign(fitted=1.0)
    with pytest.raises(BayesLMMError, match=what) as caught:
        run(f"proc mixed; class id a; model y = x; repeated / {REFUSED[what]}; run;", frame)
    assert caught.value.remedy
