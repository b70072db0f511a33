"""Meanings of the parameters: at PROC MIXED's printed estimates, the criterion through V is the one that it printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayeslmm._arrays import Array
from bayeslmm.covariance.registry import make
from bayeslmm.covariance.spatial import SpatialCovariance, distance_matrix

NAMES = ["adh_simple_reml", "ar1_simple_ml", "ar1h_simple_reml", "cs_simple_ml", "csh_simple_reml", "toeph_simple_ml"]
PLACES = ["sp_exp_simple_reml", "sp_exp2_simple_ml", "sp_gau_simple_reml", "sp_gau2_simple_ml"]


def criterion(blocks: list[tuple[Array, Array]], reml: bool) -> float:
    """-2 log (restricted) likelihood of a common mean, from (V_i, y_i)."""
    n = sum(y.size for _, y in blocks)
    logdet = sum(np.linalg.slogdet(V)[1] for V, _ in blocks)
    whole, cross, square = (
        sum(float(left @ np.linalg.solve(V, right)) for V, left, right in parts)
        for parts in zip(*[((V, 0 * y + 1, 0 * y + 1), (V, 0 * y + 1, y), (V, y, y)) for V, y in blocks], strict=True)
    )
    return (n - reml) * np.log(2 * np.pi) + logdet + square - cross**2 / whole + reml * np.log(whole)


def case(shared: Path, name: str) -> tuple[dict, pd.DataFrame, Array]:
    reference = json.loads((shared / "reference" / f"sas_{name}.json").read_text())
    data = pd.read_csv(shared / "data" / "fev_data.csv").dropna(subset=["FEV1"])
    return reference, data, np.array(reference["outputs"]["residual_params"]["estimate"])


@pytest.mark.parametrize("name", NAMES)
def test_structures_over_visits(shared, name):
    reference, data, printed = case(shared, name)
    structure = reference["residual"]["structure"]
    covariance = make(structure, 4)
    components = {"cs": [printed.sum(), printed[0]], "ar1": printed[::-1]}.get(structure, printed)
    sigma = covariance.matrix(covariance.from_components(np.array(components)))
    visit = data["AVISIT"].rank(method="dense").astype(int).to_numpy() - 1
    blocks = [(sigma[np.ix_(visit[rows], visit[rows])], data["FEV1"].to_numpy()[rows]) for rows in data.groupby("USUBJID").indices.values()]
    # estimates are printed to four decimals, the criterion is flat there
    assert criterion(blocks, reference["method"] == "REML") == pytest.approx(reference["outputs"]["criterion"], abs=1e-5)


@pytest.mark.parametrize("name", PLACES)
def test_spatial_structures(shared, name):
    reference, data, printed = case(shared, name)
    covariance = make(reference["residual"]["structure"], 1)
    assert isinstance(covariance, SpatialCovariance)
    x = covariance.from_components(printed[::-1])
    places = data[reference["residual"]["visit"]].to_numpy(float)
    rows_of = data.groupby("USUBJID").indices.values()
    blocks = [(covariance.matrix_at(x, distance_matrix(places[rows])), data["FEV1"].to_numpy()[rows]) for rows in rows_of]
    assert criterion(blocks, reference["method"] == "REML") == pytest.approx(reference["outputs"]["criterion"], abs=1e-5)
