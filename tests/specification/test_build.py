"""From the arguments of a model to its spec."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import BayesLMMError, SpecificationError
from bayeslmm.formula.parse import parse_formula
from bayeslmm.specification.model_spec import ModelSpec, make_spec
from bayeslmm.specification.priors import Priors


def test_texts_are_parsed() -> None:
    spec = make_spec("y ~ x + (1 | g)", residual="ar1(t | g)", variance="ident(s)", weights="w", offset="o", missing="raise", check="warn")
    assert spec.formula == parse_formula("y ~ x + (1 | g)")
    assert spec.residual is not None
    assert spec.residual.structure == "ar1"
    assert [factor.kind for factor in spec.variance] == ["ident"]
    assert (spec.weights, spec.offset, spec.missing, spec.check) == ("w", "o", "raise", "warn")


def test_a_spec_is_a_value() -> None:
    one, other = (make_spec("y ~ x", contrasts={"x": "sum"}, priors=Priors(sd="flat")) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


def test_the_order_of_saying_makes_no_difference() -> None:
    one = make_spec("y ~ a + b + (1|g) + (1|h)", contrasts={"a": "sum", "b": "poly"}, relationship=["h", "g"])
    other = make_spec("y ~ a + b + (1|g) + (1|h)", contrasts={"b": "poly", "a": "sum"}, relationship=["g", "h"])
    assert one == other
    assert ModelSpec(one.formula, contrasts=one.contrasts[::-1], relationship=("h", "g")) == one


@pytest.mark.parametrize(
    "matrix", [[[1, 0], [0, 1], [-1, -1]], np.array([[1, 0], [0, 1], [-1, -1]]), pd.DataFrame([[1, 0], [0, 1], [-1, -1]])]
)
def test_a_matrix_of_contrasts_is_kept_as_rows(matrix: object) -> None:
    assert make_spec("y ~ a", contrasts={"a": matrix}).contrasts == (("a", ((1.0, 0.0), (0.0, 1.0), (-1.0, -1.0))),)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"missing": "ignore"}, "missing"),
        ({"check": "off"}, "check"),
        ({"weights": [1, 2]}, "weights"),
        ({"weights": ""}, "weights"),
        ({"offset": 3}, "offset"),
        ({"contrasts": {"b": "sum"}}, "'b'"),
        ({"contrasts": {"a": "wave"}}, "wave"),
        ({"contrasts": {"a": [[1], [2, 3]]}}, "no matrix"),
        ({"contrasts": {"a": [["x"]]}}, "no matrix"),
        ({"contrasts": {"a": 5}}, "no matrix"),
        ({"contrasts": {"a": []}}, "no matrix"),
        ({"contrasts": {"a": [[np.nan]]}}, "not finite"),
        ({"contrasts": ["a"]}, "contrasts is ['a']"),
        ({"relationship": ["animal"]}, "'animal'"),
        ({"priors": "flat"}, "priors"),
        ({"residual": "us(t | y)"}, "'y' is the response"),
        ({"variance": "power(y)"}, "'y' is the response"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        make_spec("y ~ a + (1 | g)", **options)  # type: ignore[arg-type]
    assert word in caught.value.what
    assert caught.value.remedy


def test_a_residual_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(BayesLMMError):
        make_spec("y ~ x", residual="us(t, g)")
