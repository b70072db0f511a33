"""A structure that a user registers runs through formulas, data checks, D, R, SAS, PyMC and sampling: its file is all that it needs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.covariance import make, registry
from bayeslmm.errors import DataError, FormulaError, SpecificationError
from bayeslmm.sas.language.covariance_types import CovType, our_name, sas_type
from tests.covariance.neighbours import NEIGHBOURS


@pytest.fixture
def neighbours() -> Iterator[None]:
    registry.register(NEIGHBOURS)
    yield
    del registry._ROWS[NEIGHBOURS.name]


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"id": np.repeat(np.arange(40), 4), "v": pd.Categorical(np.tile(list("abcd"), 40))})
    d["text"] = d["v"].astype(str)
    e = rng.normal(size=(40, 5))
    d["y"] = (e[:, :4] + 0.3 * e[:, 1:]).ravel()
    return d


def test_a_name_that_nobody_registered_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(FormulaError):
        blm.LMM("y ~ 1", frame, residual="neighbours(v | id)")


@pytest.mark.usefixtures("neighbours")
def test_formula_data_checks_R_and_sampling(frame: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="text without an order"):
        blm.LMM("y ~ 1", frame, residual="neighbours(text | id)")
    model = blm.LMM("y ~ 1", frame, residual="neighbours(v | id)")
    fit = model.fit()
    banded = blm.LMM("y ~ 1", frame, residual="toep(v | id, 2)").fit()
    assert fit.criterion == pytest.approx(banded.criterion, abs=1e-5)
    np.testing.assert_allclose(fit.R.to_numpy(), banded.R.to_numpy(), atol=1e-4)
    assert fit.residual_params.index.tolist() == ["sd", "rho"]
    assert np.isfinite(fit.tidy(df="kenward-roger")["std_error"]).all()
    assert np.isfinite(fit.confint("profile")["conf_high"].astype(float)).all()
    assert np.isfinite(fit.simulate(1, seed=1).to_numpy(float)).all()
    post = model.sample(draws=300, chains=2, seed=1)
    assert post.tidy("ran_pars").set_index("term")["estimate"]["rho"] == pytest.approx(fit.residual_params["rho"], abs=0.1)
    graph = model.to_pymc()
    assert "rho" in graph.named_vars and all(np.isfinite(value) for value in graph.point_logps().values())


@pytest.mark.usefixtures("neighbours")
def test_D_and_the_hierarchical_graph(frame: pd.DataFrame) -> None:
    twice = pd.concat([frame, frame])
    model = blm.LMM("y ~ 1 + neighbours(0 + v | id)", twice.assign(y=twice["y"] + np.random.default_rng(1).normal(size=320)))
    D = model.fit().D["id"].to_numpy()
    assert D[0, 2] == 0.0 and D[0, 1] == pytest.approx(D[2, 3])
    graph = model.to_pymc(form="hierarchical")
    assert all(np.isfinite(value) for value in graph.point_logps().values())


@pytest.mark.usefixtures("neighbours")
def test_sas_reads_and_writes_it(frame: pd.DataFrame) -> None:
    assert sas_type("neighbours") == CovType("NEIGHBOURS")
    assert our_name(CovType("NEIGHBOURS")) == ("neighbours", None)
    fit = blm.LMM("y ~ 1", frame, residual="neighbours(v | id)").fit()
    program = fit.model.to_sas()
    assert "type=neighbours" in program.lower()
    result = blm.proc_mixed(program, frame)
    assert result["CovParms"]["CovParm"].tolist() == ["NB", "Residual"]
    assert result["CovParms"]["Estimate"].iloc[0] == pytest.approx(fit.residual_params["rho"], abs=1e-4)


@pytest.mark.usefixtures("neighbours")
def test_a_name_is_taken_once() -> None:
    assert make("neighbours", 3).natural_names == ("sd", "rho")
    with pytest.raises(SpecificationError, match="already"):
        registry.register(NEIGHBOURS)
