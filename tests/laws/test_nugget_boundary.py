"""A nugget that ends at 0 is a boundary: estimate 0, no standard error, the fit singular."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


@pytest.mark.parametrize("structure", ["sp_exp", "car1"])
@pytest.mark.parametrize("seed", range(5))
def test_a_nugget_of_0_is_the_model_without_one(structure: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    C = 0.8 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    frame = pd.DataFrame({"id": np.repeat(np.arange(20), 5), "t": np.tile(np.arange(5.0), 20)})
    frame["y"] = (rng.normal(size=(20, 5)) @ np.linalg.cholesky(C).T).ravel()
    fit, plain = (blm.LMM("y ~ 1", frame, residual=f"{structure}(t | id){local}").fit() for local in (" + local", ""))
    if fit.residual_params["nugget"] > 1e-4:
        assert not fit.singular and fit.criterion < plain.criterion
        return
    assert fit.residual_params["nugget"] == 0.0
    assert fit.singular and fit.converged
    assert fit.criterion == pytest.approx(plain.criterion, abs=1e-6)


def test_the_listing_has_no_error_of_a_nugget_of_0() -> None:
    rng = np.random.default_rng(0)
    C = 0.8 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    frame = pd.DataFrame({"id": np.repeat(np.arange(20), 5), "t": np.tile(np.arange(5.0), 20)})
    frame["y"] = (rng.normal(size=(20, 5)) @ np.linalg.cholesky(C).T).ravel()
    program = "proc mixed covtest; class id; model y= ; repeated / type=sp(exp)(t) subject=id local; run;"
    table = blm.proc_mixed(program, frame)["CovParms"].set_index("CovParm")
    assert table.loc["Residual", "Estimate"] == 0.0
    assert np.isnan(table.loc["Residual", "StdErr"])
    assert table.loc["Variance", "StdErr"] > 0.0
