"""The same design with another response."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import frozen
from bayeslmm.data.design import Design
from bayeslmm.errors import DataError, NonFiniteError


def _permuted(given: pd.Index[Any], own: pd.Index[Any]) -> bool:
    return len(given) == len(own) and not given.equals(own) and given.is_unique and bool(given.isin(own).all())


def new_response(design: Design, y: Any) -> Design:
    """A design with another response.

    y : one number per row used, or per row of the data (those not used are passed over)
    Raises DataError for another length, NonFiniteError for values that are missing or infinite.
    """
    if isinstance(y, pd.Series) and _permuted(y.index, design.index):
        what = "the new response is a Series whose rows are in another order than those of the fit"
        raise DataError(what, f"its index begins {y.index[0]!r}", "sort it, or give y.to_numpy() if the order is right")
    try:
        if np.iscomplexobj(y):
            raise TypeError
        values = np.array(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("the new response is not numbers", f"got {type(y).__name__}", "give an array of numbers") from None
    if values.ndim != 1 or len(values) not in (design.nobs, design.n_read):
        shape = " x ".join(map(str, values.shape))
        where = f"{design.nobs} rows are used, {design.n_read} were read"
        raise DataError(f"the new response has shape {shape}", where, "give one number per row")
    if len(values) != design.nobs:
        values = values[design.rows]
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        what = "the new response has values that are missing or infinite"
        raise NonFiniteError(what, f"{len(bad)} rows, the first is {bad[0]}", "fill them in")
    return replace(design, y=frozen(values))
