"""GDATA= and LDATA=: known matrices of random effects, against LMM(relationship=) and the dense likelihood."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError

type Array = np.ndarray
LEVELS = [f"a{k}" for k in range(8)]
CODES = np.repeat(np.arange(8), 5)


def known(seed: int) -> Array:
    Q = np.random.default_rng(seed).normal(size=(8, 11))
    return Q @ Q.T / 11


def animals(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": np.array(LEVELS)[CODES], "x": rng.normal(size=40)})
    u = np.linalg.cholesky(known(seed)) @ rng.normal(size=8)
    return frame.assign(y=frame.x + 1.5 * u[CODES] + rng.normal(size=40)).sample(frac=1, random_state=seed)


def dense_form(A: Array, parm: int | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(A, columns=[f"Col{k + 1}" for k in range(len(A))]).assign(Row=np.arange(1, len(A) + 1))
    return frame if parm is None else frame.assign(Parm=parm)


def sparse_form(A: Array, parm: int | None = None, *, lower: bool = False) -> pd.DataFrame:
    cells = [(i + 1, j + 1, A[i, j]) for i in range(len(A)) for j in range(i + 1 if lower else len(A)) if A[i, j] != 0.0]
    frame = pd.DataFrame(cells, columns=["ROW", "COL", "VALUE"])
    return frame if parm is None else frame.assign(PARM=parm)


FORMS: dict[str, Callable[[Array, int | None], pd.DataFrame]] = {
    "dense": dense_form,
    "sparse": sparse_form,
    "lower": lambda A, parm: sparse_form(A, parm, lower=True),
}


def minus_twice(data: pd.DataFrame, V: Array) -> float:
    X = np.column_stack([np.ones(len(data)), data.x])
    inverse = np.linalg.inv(V)
    C = X.T @ inverse @ X
    e = data.y.to_numpy() - X @ np.linalg.solve(C, X.T @ inverse @ data.y)
    return float(np.linalg.slogdet(V)[1] + np.linalg.slogdet(C)[1] + e @ inverse @ e + (len(data) - 2) * np.log(2 * np.pi))


def marginal(data: pd.DataFrame, G: Array, residual: float) -> Array:
    codes = data.a.str[1:].astype(int).to_numpy()
    return G[np.ix_(codes, codes)] + residual * np.eye(len(data))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", [1, 2])
def test_one_matrix_is_a_relationship(form: str, seed: int) -> None:
    data, A = animals(seed), known(seed)
    program = """proc mixed covtest; class a; model y = x / s ddfm=kr; random a / type=lin(1) ldata=work.amat s g v;
    estimate 'first two' intercept 1 | a 1 -1; run;"""
    found = blm.proc_mixed(program, data, data_sets={"AMAT": FORMS[form](A, 1)})
    fit = blm.LMM("y ~ x + (1 | a)", data, relationship={"a": pd.DataFrame(A, LEVELS, LEVELS)}).fit()
    assert found["FitStatistics"].Value[0] == pytest.approx(fit.criterion, abs=1e-8)
    assert found["CovParms"].CovParm.tolist() == ["LIN(1)", "Residual"]
    variance, residual = found["CovParms"].Estimate
    assert variance == pytest.approx(fit.D["a"].to_numpy().item(), rel=1e-6)
    errors = fit.tidy(df="kenward-roger", vcov="kenward-roger", information="observed")["std_error"]
    np.testing.assert_allclose(found["SolutionF"]["StdErr"], errors, rtol=1e-6)
    np.testing.assert_allclose(found["SolutionR"]["Estimate"], fit.ranef()["a"]["Intercept"].loc[LEVELS], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found["G"].filter(regex="^Col"), variance * A, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found["V"].filter(regex="^Col"), marginal(data, variance * A, residual), rtol=1e-8, atol=1e-10)
    # the estimate and its error by Henderson's equations
    W = np.column_stack([np.ones(40), data.x, np.eye(8)[data.a.str[1:].astype(int)]])
    C = W.T @ W / residual
    C[2:, 2:] += np.linalg.inv(variance * A)
    row = np.array([1.0, 0, 1, -1, 0, 0, 0, 0, 0, 0])
    solved = np.linalg.solve(C, row)
    assert found["Estimates"].Estimate.item() == pytest.approx(solved @ W.T @ data.y / residual, rel=1e-6)
    assert found["Estimates"].StdErr.item() >= np.sqrt(row @ solved) * (1 - 1e-9)


def test_several_matrices_are_several_variances() -> None:
    data, A, B = animals(1), known(1), known(5)
    both = pd.concat([sparse_form(A, 1), sparse_form(B, 2)])
    found = blm.proc_mixed("proc mixed; class a; model y = x; random a / type=lin(2) ldata=both; run;", data, data_sets={"both": both})
    relationship = {"a": pd.DataFrame(A, LEVELS, LEVELS), "b": pd.DataFrame(B, LEVELS, LEVELS)}
    fit = blm.LMM("y ~ x + (1 | a) + (1 | b)", data.assign(b=data.a), relationship=relationship).fit()
    assert found["FitStatistics"].Value[0] == pytest.approx(fit.criterion, abs=1e-6)
    assert found["CovParms"].CovParm.tolist() == ["LIN(1)", "LIN(2)", "Residual"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ratios", [False, True])
@pytest.mark.parametrize("effect", ["a / gdata=g", "int / subject=a gdata=g", "a / type=un gdata=g"])
def test_a_known_g_leaves_the_residual_variance(form: str, ratios: bool, effect: str) -> None:
    data, A = animals(3), known(3)
    program = f"proc mixed covtest; class a; model y = x; random {effect}{' ratios' if ratios else ''} g; run;"
    found = blm.proc_mixed(program, data, data_sets={"g": FORMS[form](A, None)})

    def value(log_residual: float) -> float:
        residual = float(np.exp(log_residual))
        return minus_twice(data, marginal(data, A * residual if ratios else A, residual))

    best = minimize_scalar(value, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    assert found["CovParms"].CovParm.tolist() == ["Residual"]
    assert found["CovParms"].Estimate.item() == pytest.approx(np.exp(best.x), rel=1e-5)
    step = 1e-3
    curvature = (value(best.x + step) - 2 * value(best.x) + value(best.x - step)) / step**2
    assert found["CovParms"].StdErr.item() == pytest.approx(np.exp(best.x) * np.sqrt(2 / curvature), rel=1e-3)
    criterion, aic = found["FitStatistics"].Value[:2]
    assert criterion == pytest.approx(best.fun, abs=1e-7)
    assert aic - criterion == pytest.approx(2.0)
    scale = found["CovParms"].Estimate.item() if ratios else 1.0
    np.testing.assert_allclose(found["G"].filter(regex="^Col"), scale * A, rtol=1e-6, atol=1e-9)


def test_parms_beside_a_known_g_are_those_of_r() -> None:
    data, A = animals(4), known(4)
    program = "proc mixed; class a; model y = x; random a / gdata=g; parms (2) / noiter; run;"
    found = blm.proc_mixed(program, data, data_sets={"g": dense_form(A)})
    assert found["CovParms"].Estimate.tolist() == pytest.approx([2.0])
    assert found["FitStatistics"].Value[0] == pytest.approx(minus_twice(data, marginal(data, A, 2.0)), abs=1e-8)


def test_a_g_of_several_effects_is_that_of_all_their_columns() -> None:
    data = animals(5).assign(b=lambda frame: np.where(frame.index % 3 == 0, "p", "q"))
    A, B = known(5), np.diag([0.5, 2.0])
    G = np.block([[A, np.zeros((8, 2))], [np.zeros((2, 8)), B]])
    program = "proc mixed; class a b; model y = x; random a b / gdata=g; parms (1.5) / noiter; run;"
    found = blm.proc_mixed(program, data, data_sets={"g": sparse_form(G)})
    other = (data.b == "q").astype(int).to_numpy()
    want = minus_twice(data, marginal(data, A, 1.5) + B[np.ix_(other, other)])
    assert found["FitStatistics"].Value[0] == pytest.approx(want, abs=1e-8)
    G[0, 9] = G[9, 0] = 0.1
    with pytest.raises(BayesLMMError, match="different effects"):
        blm.proc_mixed(program, data, data_sets={"g": sparse_form(G)})


REFUSED = {
    "random a / type=lin(1);": "needs LDATA=",
    "random a / type=lin(1) ldata=other;": "not given",
    "random a / type=lin(2) ldata=one;": "no matrix 2",
    "random x / type=lin(1) ldata=one;": "CLASS variables alone",
    "random int / subject=a type=lin(1) ldata=one;": "CLASS variables alone",
    "random a / ldata=one;": "TYPE=LIN",
    "random a / gdata=small;": "no column col8",
    "random a / gdata=wide;": "go from 1 to the 8 levels",
    "random a / gdata=words;": "no number",
    "repeated / type=lin(1) subject=a;": "RANDOM alone",
}


@pytest.mark.parametrize("statement", REFUSED)
def test_what_is_not_read_is_named(statement: str) -> None:
    A = known(1)
    sets = {
        "one": sparse_form(A, 1),
        "small": dense_form(A[:7, :7]),
        "wide": sparse_form(np.eye(9)),
        "words": sparse_form(A).assign(VALUE="x"),
    }
    with pytest.raises(BayesLMMError, match=REFUSED[statement]):
        blm.proc_mixed(f"proc mixed; class a; model y = x; {statement} run;", animals(1), data_sets=sets)
