"""MMEQSOL solves MMEQ to the tables of the fixed and random effects, their errors and their covariance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


@pytest.mark.parametrize(
    "random",
    [
        "random id / s",
        "random int x / subject=id type=un s",
        "random id a*id / s",
        "random int / subject=id s; repeated / type=ar(1) subject=id",
    ],
)
@pytest.mark.parametrize("spread", [1.5, 0.0])
def test_the_solution_is_that_of_the_tables(random: str, spread: float) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"id": np.repeat(np.arange(8), 6), "a": np.tile(list("uvw"), 16), "x": rng.normal(size=48)})
    noise = rng.normal(size=48)
    if not spread:  # values that repel one another: the variance of id is 0
        noise -= 0.9 * pd.Series(noise).groupby(frame["id"]).transform("mean")
    frame["y"] = spread * rng.normal(size=8)[frame["id"]] + frame["x"] + noise
    text = f"proc mixed mmeq mmeqsol; class id a; model y = a x / s covb; {random}; run;"
    result = blm.proc_mixed(text, frame, check="warn")
    assert not isinstance(result, list)
    equations, solved = result["MMEq"].filter(like="Col").to_numpy(), result["MMEqSol"].filter(like="Col").to_numpy()
    fixed = len(result["SolutionF"])
    np.testing.assert_allclose(solved[:fixed, -1], result["SolutionF"]["Estimate"], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(solved[:fixed, :fixed], result["CovB"].filter(like="Col"), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(solved[fixed:, -1], result["SolutionR"]["Estimate"], rtol=1e-5, atol=1e-7)
    errors = np.sqrt(np.maximum(np.diagonal(solved)[fixed:], 0.0))
    np.testing.assert_allclose(errors, result["SolutionR"]["StdErrPred"].fillna(0.0), rtol=1e-5, atol=1e-6)  # missing where a variance is 0
    np.testing.assert_allclose(equations[:, :-1], equations[:, :-1].T, atol=1e-10)
    if spread and "type=un" not in random:
        np.testing.assert_allclose(equations[:, :-1] @ solved[:, -1], equations[:, -1], rtol=1e-7, atol=1e-8)


def test_the_unit_of_a_slope_makes_no_matrix_singular() -> None:
    """Rows and columns of the equations scale with their unit: G is inverted, or not, in every one alike."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"id": np.repeat(np.arange(12), 6), "x": rng.normal(size=72)})
    frame["y"] = (rng.normal(size=12) + rng.normal(size=12) * frame["x"].to_numpy().reshape(12, 6).T).T.ravel() + rng.normal(size=72)
    text = "proc mixed mmeq; class id; model y = x / s; random int x / subject=id type=un; run;"
    unit = 2.0**24
    one, other = (blm.proc_mixed(text, frame.assign(x=scale * frame["x"]))["MMEq"].filter(like="Col").to_numpy() for scale in (1.0, unit))
    scale = np.where(np.arange(len(one)) % 2 == 1, unit, 1.0)
    np.testing.assert_allclose(other[:, :-1] / np.outer(scale, scale), one[:, :-1], rtol=1e-4, atol=1e-6 * np.abs(one[:, :-1]).max())
