"""Text with halves of a surrogate pair, as a wrong encoding leaves it: refused where it is read, since no file and no page holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError
from tests.inputs.every_argument import PROGRAM, frame

type Holder = Callable[[pd.DataFrame, str, list[str]], Any]

HOLDERS: dict[str, Holder] = {
    "arrays": lambda data, name, text: {**{other: data[other].to_numpy() for other in data}, name: np.array(text, object)},
    "lists": lambda data, name, text: {**data.to_dict("list"), name: text},
    "text array": lambda data, name, text: {**data.to_dict("list"), name: np.array(text)},
    "objects": lambda data, name, text: data.assign(**{name: pd.Series(text, dtype=object)}),
    "categories": lambda data, name, text: data.assign(
        **{name: pd.Categorical(pd.Series(text, dtype=object), categories=pd.Index(sorted(set(text)), dtype=object))}
    ),
}

DOORS: dict[str, Callable[[Any], Any]] = {
    "LMM": lambda data: blm.LMM("y ~ x + f + (1 | g)", data).fit(),
    "from_partitions": lambda data: blm.from_partitions("y ~ x + f + (1 | g)", [data]).fit(),
    "fit_by": lambda data: blm.fit_by("y ~ x", data, by="g"),
    "proc_mixed": lambda data: blm.proc_mixed(PROGRAM, data),
    "predict": lambda data: blm.LMM("y ~ x + f + (1 | g)", frame()).fit().predict(data, new_levels="population"),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("door", DOORS)
def test_text_that_is_no_unicode_is_refused(door: str, holder: str) -> None:
    data = frame()
    given = HOLDERS[holder](data, "g", [f"\udcff{level}" for level in data["g"]])
    with pytest.raises(BayesLMMError, match="not Unicode") as caught:
        DOORS[door](given)
    str(caught.value).encode()


def test_a_name_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(DataError, match="not Unicode"):
        blm.LMM("y ~ `\udcff` + (1 | g)", {**frame().to_dict("list"), "\udcff": [*range(48)]})
