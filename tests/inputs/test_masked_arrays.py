"""What a numpy masked array masks is missing, wherever numbers are given beside the data."""

from __future__ import annotations

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from tests.inputs.frames import MODEL, fit, refused, visits

ROWS = len(visits())


def _masked(values: object, *places: int) -> np.ma.MaskedArray:
    mask = np.zeros(np.shape(values), bool)
    mask.ravel()[list(places)] = True
    return np.ma.array(values, mask=mask)


def _outcome(call: object) -> object:
    try:
        return call().criterion
    except BayesLMMError as error:
        return (type(error), error.what)


@pytest.mark.parametrize("option", ["weights", "offset"])
@pytest.mark.parametrize("kind", [float, int])
def test_masks_beside_the_data_are_missing_values(option: str, kind: type) -> None:
    values = np.arange(1, ROWS + 1).astype(kind)
    gaps = values.astype(float)
    gaps[[3, 9]] = np.nan
    assert _outcome(lambda: fit(**{option: _masked(values, 3, 9)})) == _outcome(lambda: fit(**{option: gaps}))
    assert fit(**{option: _masked(values)}).criterion == fit(**{option: values}).criterion


def test_a_masked_response_is_refused() -> None:
    y = visits()["y"].to_numpy()
    refused(lambda: fit().refit(_masked(y, 5)), BayesLMMError, "missing")
    assert fit().refit(_masked(y)).criterion == fit().criterion


@pytest.mark.filterwarnings("ignore:a row has missing values")
def test_a_masked_offset_of_new_rows_is_missing() -> None:
    found = fit(offset=np.ones(ROWS))
    gaps = np.ones(ROWS)
    gaps[2] = np.nan
    both = [found.predict(visits(), offset=given)["estimate"].to_numpy() for given in (_masked(np.ones(ROWS), 2), gaps)]
    assert np.isnan(both[0][2])
    np.testing.assert_array_equal(*both)


def test_a_masked_contrast_is_refused() -> None:
    found = fit(MODEL)
    refused(lambda: found.contrast(np.eye(2), rhs=_masked([0.0, 1.0], 1)), BayesLMMError, "rhs")
    refused(lambda: found.contrast(_masked([0.0, 1.0], 1)), BayesLMMError, "finite")


def test_masked_responses_are_missing_values() -> None:
    Y = visits()[["y", "day"]].to_numpy()
    gaps = Y.copy()
    gaps[4, 1] = np.nan
    first, second = (blm.LMM(MODEL, visits()).fit_many(given).tidy(df="asymptotic") for given in (_masked(Y, 9), gaps))
    assert first.equals(second)


def test_a_masked_theta_is_refused() -> None:
    refused(lambda: fit().model.criterion(_masked([1.0], 0)), BayesLMMError, "theta")
