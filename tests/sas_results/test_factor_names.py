"""The covariance parameters of TYPE=FA(q) and FA1(q) have SAS's names, and make the matrix of the fit again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", ["fa", "fa1"])
@pytest.mark.parametrize("statement", ["repeated v", "random v"])
def test_loadings_and_own_variances_make_the_matrix(statement: str, kind: str, order: int) -> None:
    rng = np.random.default_rng(order)
    frame = pd.DataFrame(
        [(i, v, k) for i in range(30) for v in "abcd" for k in range(2 if "random" in statement else 1)], columns=["id", "v", "k"]
    )
    shared = rng.normal(size=30)[frame["id"]] * frame["v"].map({"a": 1.5, "b": 1.0, "c": 0.5, "d": 0.8})
    frame["y"] = shared + rng.normal(size=(30, 4))[frame["id"], frame["v"].map("abcd".index)] + 0.5 * rng.normal(size=len(frame))
    shown = "r" if "repeated" in statement else "g"
    text = f"proc mixed covtest; class id v; model y = v; {statement} / type={kind}({order}) subject=id {shown}; run;"
    result = blm.proc_mixed(text, frame, check="warn")
    assert not isinstance(result, list)
    values = result["CovParms"].set_index("CovParm")["Estimate"]
    own = [f"Var({i})" for i in range(1, 5)] if kind == "fa" else ["Variance"]
    loadings = [f"FA({i},{j})" for i in range(1, 5) for j in range(1, min(i, order) + 1)]
    assert [name for name in values.index if name != "Residual"] == [*own, *loadings]
    L = np.zeros((4, order))
    for name in loadings:
        i, j = map(int, name[3:-1].split(","))
        L[i - 1, j - 1] = values[name]
    matrix = L @ L.T + np.diag(np.broadcast_to(values[own], 4))
    printed = result[shown.upper()].filter(like="Col").to_numpy(float)
    np.testing.assert_allclose(printed, matrix, rtol=1e-6, atol=1e-8)
