"""Programs of the kinds that textbooks print, run on public data: every table asked for is there, and they agree with each other."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.sas_results.proc_mixed import MixedResult
from tests.sas_results.programs import PROGRAMS, Program
from tests.sas_results.sets import data

programs = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)


@cache
def ran(program: Program) -> MixedResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", blm.errors.BayesLMMWarning)
        return blm.proc_mixed(program.text, data(program.package, program.item))


@programs
def test_every_table_asked_for_is_there(program: Program) -> None:
    result = ran(program)
    assert {"CovParms", "FitStatistics", "NObs", *program.tables} <= set(result)
    assert all(isinstance(frame, pd.DataFrame) and len(frame) for frame in result.values())


@programs
def test_the_covariance_parameters_are_those_of_the_fit(program: Program) -> None:
    result = ran(program)
    if isinstance(result.fit, dict):
        pytest.skip("a fit for each group")
    fit, table = result.fit, result["CovParms"]
    assert fit.converged
    residual = table[table["CovParm"] == "Residual"]["Estimate"]
    if fit.design.residual is None and not fit.design.variance:
        assert residual.tolist() == pytest.approx([fit.sigma**2])
    assert np.isfinite(table["Estimate"]).all()


@programs
def test_f_is_the_square_of_t_where_there_is_one_degree_of_freedom(program: Program) -> None:
    result = ran(program)
    if not {"SolutionF", "Tests3"} <= set(result):
        pytest.skip("one of the two tables")
    solution, tests = result["SolutionF"], result["Tests3"]
    for effect in tests.loc[tests["NumDF"] == 1, "Effect"]:
        rows = solution[(solution["Effect"] == effect) & solution["tValue"].notna()]
        classes = [name for name in solution.columns[1 : solution.columns.get_loc("Estimate")] if (rows[name] != "").any()]
        highest = not any(set(effect.split("*")) < set(other.split("*")) for other in tests["Effect"])
        if len(rows) == 1 and (highest or not classes) and highest:
            row = tests[tests["Effect"] == effect].iloc[0]
            assert row["FValue"] == pytest.approx(rows["tValue"].iloc[0] ** 2, rel=1e-6)
            assert row["ProbF"] == pytest.approx(rows["Probt"].iloc[0], rel=1e-5, abs=1e-12)


@programs
def test_the_listing_shows_every_table_under_its_title(program: Program) -> None:
    listing = ran(program).listing
    assert listing.count("The Mixed Procedure") == 1
    assert "Covariance Parameter Estimates" in listing and "Fit Statistics" in listing
    assert max(map(len, listing.splitlines())) <= 120
    assert "nan" not in listing


@programs
def test_the_numbers_of_observations_add_up(program: Program) -> None:
    table = ran(program)["NObs"]
    counts = table["N"].to_numpy().reshape(-1, 3)
    assert (counts[:, 0] == counts[:, 1] + counts[:, 2]).all()
    assert counts[:, 0].sum() <= len(data(program.package, program.item))
