"""METHOD=TYPE1 to TYPE3, MIVQUE0 and NOBOUND, against mean squares, dense definitions, and compound symmetry with a correlation below 0."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from tests.sas_results.test_published_listings import split_plot

PROGRAM = "proc mixed {}; class A B Block; model Y = A B A*B{}; random Block A*Block; {} run;"


def run(text: str, frame: pd.DataFrame) -> blm.MixedResult:
    result = blm.proc_mixed(text, frame)
    assert not isinstance(result, list)
    return result


def groups(seed: int, size: float, weights: bool = False, balanced: bool = False) -> pd.DataFrame:
    """Unbalanced crossed groups; size : of the effects of a, below 0 for values that repel one another within a level of a."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": np.repeat(np.arange(9), 4 if balanced else rng.integers(2, 7, 9))})
    n = len(frame)
    frame["b"], frame["x"], frame["t"] = rng.integers(0, 4, n), rng.normal(size=n), rng.choice(list("uv"), n)
    noise = rng.normal(size=n)
    if size < 0:
        noise = noise + size * pd.Series(noise).groupby(frame["a"]).transform("mean").to_numpy()
    frame["y"] = noise + max(size, 0.0) * rng.normal(size=9)[frame["a"]] + frame["x"] * 0.5
    frame["w"] = rng.uniform(0.5, 2.0, n) if weights else 1.0
    return frame


@pytest.mark.parametrize("method", ["type1", "type2", "type3", "mivque0", "reml nobound"])
def test_the_published_split_plot(method: str) -> None:
    """Balanced: every method has the printed REML estimates and tests."""
    result = run(PROGRAM.format(f"method={method} covtest", "", ""), split_plot())
    assert result["CovParms"]["Estimate"].round(4).tolist() == [62.3958, 15.3819, 9.3611]
    assert result["Tests3"]["FValue"].round(2).tolist() == [4.07, 19.39, 4.02]
    assert result["Tests3"]["DenDF"].tolist() == [6.0, 9.0, 9.0]
    assert round(result["FitStatistics"]["Value"][0], 1) == 119.8
    if method.startswith("type"):
        table = result["Type" + method[-1]].set_index("Source")
        # the sequential table has only the effects that are not yet out in its Q
        inside = "A,A*B" if method != "type2" else "A"
        assert table.loc["A", "EMS"] in {f"Var(Residual) + 2 Var(A*Block) + Q({inside})", "Var(Residual) + 2 Var(A*Block) + Q(A,A*B)"}
        assert table.loc["Block", "EMS"] == "Var(Residual) + 2 Var(A*Block) + 6 Var(Block)"
        assert table.loc["A*B", "ErrorTerm"] == "MS(Residual)"
        assert table.loc["Block", "ErrorTerm"] == "MS(A*Block)"
        np.testing.assert_allclose(table.loc[["A", "B", "A*B"], "FValue"], result["Tests3"]["FValue"], rtol=1e-7)
        np.testing.assert_allclose(table.loc["Residual", "MS"], 9.3611, atol=5e-5)


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_mean_squares_have_their_expectations(seed: int, kind: int) -> None:
    """SS = y'Ay by the difference of two projections, where the type of the hypothesis is one of models; E = tr(A Z Z')."""
    frame = groups(seed, 1.0)
    result = run(f"proc mixed method=type{kind}; class a b t; model y = x t; random a b; run;", frame)
    dummies = {name: pd.get_dummies(frame[name]).to_numpy(float) for name in ("a", "b", "t")}
    order = [np.ones((len(frame), 1)), frame[["x"]].to_numpy(), dummies["t"], dummies["a"], dummies["b"]]

    def hat(parts: list[np.ndarray]) -> np.ndarray:
        X = np.hstack(parts)
        return X @ np.linalg.pinv(X)

    y, table = frame["y"].to_numpy(), result[f"Type{kind}"].set_index("Source")
    lines, values = [], []
    for i, name in ((3, "a"), (4, "b")):
        smaller = order[:i] if kind == 1 else order[:i] + order[i + 1 :]
        A = hat(order[: i + 1] if kind == 1 else order) - hat(smaller)
        df = round(np.trace(A))
        assert table.loc[name, "DF"] == df
        np.testing.assert_allclose(table.loc[name, "SS"], y @ A @ y, rtol=1e-8)
        lines.append([np.trace(A @ Z @ Z.T) / df for Z in (dummies["a"], dummies["b"])] + [1.0])
        values.append(y @ A @ y / df)
    A = np.eye(len(y)) - hat(order)
    lines.append([0.0, 0.0, 1.0])
    values.append(y @ A @ y / round(np.trace(A)))
    np.testing.assert_allclose(result["CovParms"]["Estimate"], np.linalg.solve(lines, values), rtol=1e-7)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("size", [-0.6, 0.8])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_nobound_is_compound_symmetry(seed: int, size: float, method: str) -> None:
    """One random intercept of either sign is a correlation of the errors, down to where V ends."""
    frame = groups(seed, size, balanced=method == "ML")  # a single largest group has no bound by ML
    head = f"proc mixed method={method} nobound covtest; class a; model y = x / ddfm=satterth s; "
    free = run(head + "random a; run;", frame)
    same = run(head.replace("nobound", "") + "repeated / type=cs subject=a; run;", frame)
    np.testing.assert_allclose(free["FitStatistics"]["Value"], same["FitStatistics"]["Value"], rtol=1e-7)
    np.testing.assert_allclose(free["CovParms"]["Estimate"], same["CovParms"]["Estimate"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(free["CovParms"]["StdErr"], same["CovParms"]["StdErr"], rtol=1e-3)
    columns = ["Estimate", "StdErr", "DF", "tValue"]
    np.testing.assert_allclose(free["SolutionF"][columns], same["SolutionF"][columns], rtol=2e-3)
    if size < 0:
        assert free["CovParms"]["Estimate"][0] < 0
        assert any("not positive definite" in note for note in free.notes)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_kenward_roger_without_bounds_is_that_of_compound_symmetry(seed: int) -> None:
    frame = groups(seed, -0.6)
    head = "proc mixed {}; class a t; model y = x t / ddfm=kr s; lsmeans t / diff; "
    free = run(head.format("nobound") + "random a; run;", frame)
    same = run(head.format("") + "repeated / type=cs subject=a; run;", frame)
    for table in ("SolutionF", "LSMeans", "Diffs"):
        columns = ["Estimate", "StdErr", "DF"]
        np.testing.assert_allclose(free[table][columns].dropna(), same[table][columns].dropna(), rtol=1e-4)


@pytest.mark.parametrize("weights", [False, True])
def test_the_optimum_without_bounds_is_one_of_the_dense_criterion(weights: bool) -> None:
    frame = groups(4, -0.4, weights)
    result = run(f"proc mixed nobound; class a b; model y = x; random a b; {'weight w;' if weights else ''} run;", frame)
    X, y = np.column_stack([np.ones(len(frame)), frame["x"]]), frame["y"].to_numpy()
    Z = [pd.get_dummies(frame[name]).to_numpy(float) for name in ("a", "b")]

    def criterion(t: np.ndarray) -> float:
        V = np.diag(t[2] / frame["w"].to_numpy()) + t[0] * Z[0] @ Z[0].T + t[1] * Z[1] @ Z[1].T
        inverse = np.linalg.inv(V)
        M = X.T @ inverse @ X
        rest = y - X @ np.linalg.solve(M, X.T @ inverse @ y)
        return float(np.linalg.slogdet(V)[1] + np.linalg.slogdet(M)[1] + rest @ inverse @ rest + (len(y) - 2) * np.log(2 * np.pi))

    t = result["CovParms"]["Estimate"].to_numpy()
    assert result["FitStatistics"]["Value"][0] == pytest.approx(criterion(t), rel=1e-9)
    for k in range(3):
        for sign in (-1, 1):
            moved = t.copy()
            moved[k] += sign * 1e-3
            assert criterion(moved) > criterion(t) - 1e-9


def test_mivque0_is_at_zero_where_it_would_be_below() -> None:
    frame = groups(3, -0.4, balanced=True)
    head = "proc mixed method=mivque0 {}; class a; model y = x; random a; run;"
    assert run(head.format("nobound"), frame)["CovParms"]["Estimate"][0] < 0
    assert run(head.format(""), frame)["CovParms"]["Estimate"][0] == 0


@pytest.mark.parametrize(
    "text",
    [
        "proc mixed method=type3; class a; model y = x; random a; repeated / type=cs subject=b; run;",
        "proc mixed method=type3; class a; model y = x; random int x / type=un subject=a; run;",
        "proc mixed method=mivque0 empirical; class a; model y = x; random a; run;",
        "proc mixed method=type1; class a t; model y = x; random a / group=t; run;",
        "proc mixed nobound; class a; model y = x / outp=p; random a; run;",
        "proc mixed nobound; class a; model y = x; random a / solution; run;",
    ],
)
def test_what_is_not_there_without_bounds_is_refused_by_name(text: str) -> None:
    with pytest.raises(BayesLMMError):
        run(text, groups(0, -0.9))
