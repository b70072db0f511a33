"""The encoding of a right-hand side is formulaic's, name by name and digit by digit."""

from __future__ import annotations

import formulaic
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayeslmm.data.columns import Columns
from bayeslmm.data.frame import read_table
from bayeslmm.data.model_matrix import DesignBlock, Term, train_block
from bayeslmm.data.variables import Training
from bayeslmm.errors import FormulaError
from bayeslmm.formula.parse import parse_formula
from bayeslmm.formula.syntax import Terms
from tests.generated import examples

ATOMS = ("x", "z", "k", "f", "g", "h", "`z a`", "C(k)", "I(x ** 2)", "log(u)", "poly(x, 2)", "center(z)", "bs(u, df=4)", "C(f, Sum)")
FUNCTIONS = {"log": np.log}


def frame(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": rng.normal(size=rows),
            "z": rng.normal(3, 2, size=rows),
            "u": rng.uniform(1, 5, size=rows),
            "k": rng.integers(1, 4, rows),
            "z a": rng.normal(size=rows),
            "f": pd.Categorical(rng.choice(list("cab"), rows), categories=list("cab")),
            "g": rng.choice(["u", "v"], rows),
            "h": pd.Categorical(rng.integers(1, 4, rows)),
        }
    )


def terms(text: str) -> Terms:
    return parse_formula(f"response ~ {text}", frozenset(FUNCTIONS)).terms


def ours(text: str, data: pd.DataFrame) -> tuple[DesignBlock, np.ndarray]:
    source = Columns(read_table(data, ()))
    block = train_block(terms(text), source, Training())
    return block, block.encode(source)


def theirs(text: str, data: pd.DataFrame) -> pd.DataFrame:
    return formulaic.Formula(text).get_model_matrix(data, output="pandas", context=FUNCTIONS)


@st.composite
def right_hand_sides(draw: st.DrawFn) -> str:
    terms = draw(st.lists(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=3, unique=True), min_size=1, max_size=4))
    operators = st.sampled_from([":", "*", "/"])
    texts = ["".join(part for atom in term for part in (draw(operators), atom))[1:] for term in terms]
    return draw(st.sampled_from(["1 + ", "0 + "])) + " + ".join(texts)


def test_the_names_of_columns_do_not_depend_on_what_was_read_before() -> None:
    data = frame()
    for text in ("0 + g:x", "0 + x:g", "0 + g:x"):
        assert list(ours(text, data)[0].names) == list(theirs(text, data).columns)


@given(right_hand_sides())
@examples(60)
def test_any_right_hand_side_has_the_columns_of_formulaic(text: str) -> None:
    data = frame()
    block, X = ours(text, data)
    expected = theirs(text, data)
    assert list(block.names) == list(expected.columns)
    np.testing.assert_allclose(X, expected.to_numpy(dtype=float), rtol=1e-13, atol=1e-13)


@given(right_hand_sides())
@examples(25)
def test_new_rows_are_encoded_by_what_the_old_ones_taught(text: str) -> None:
    data, some = frame(), [3, 40, 7]
    block, X = ours(text, data)
    new = block.encode(Columns(read_table(data.iloc[some], ())))
    np.testing.assert_allclose(new, X[some], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "text",
    [
        "1 + f * g",
        "0 + f",
        "1 + x:f",
        "1 + f:g",
        "0 + x:f",
        "1 + (f + g + h) ** 2",
        "1 + (g:f + f) ** 2",
        "1 + (x + g) * (g:x + f)",
        "1 + f / g",
        "1 + f * x - x",
        "0 + f:g:h",
    ],
)
def test_terms_are_expanded_as_formulaic_expands_them(text: str) -> None:
    names = [":".join(factor.expr for factor in term.factors) for term in formulaic.Formula(text)]
    assert [term.name if term.atoms else "1" for term in map(Term, terms(text))] == names
    assert list(ours(text, frame())[0].names) == list(theirs(text, frame()).columns)


@pytest.mark.parametrize("contrast", ["sum", "helmert", "poly", "diff", "SAS", "treatment"])
def test_contrasts_are_those_of_formulaic(contrast: str) -> None:
    data = frame()
    expected = theirs(f"C(f, contr.{contrast}) * x", data)
    source = Columns(read_table(data, ()))
    block = train_block(terms("1 + f * x"), source, Training(contrasts={"f": contrast.lower()}))
    assert list(block.names) == [name.replace(f"C(f, contr.{contrast})", "f") for name in expected.columns]
    np.testing.assert_allclose(block.encode(source), expected.to_numpy(dtype=float), atol=1e-12)


def test_a_boolean_is_a_factor_of_false_and_true() -> None:
    block, X = ours("1 + b", pd.DataFrame({"b": [True, False, True]}))
    assert block.names == ("Intercept", "b[T.True]")
    assert X[:, 1].tolist() == [1, 0, 1]


def test_a_column_called_intercept_keeps_its_values() -> None:
    block, X = ours("1 + Intercept", pd.DataFrame({"Intercept": [1.0, 5.0, 2.0]}))
    assert block.names == ("Intercept", "`Intercept`")
    assert X[:, 1].tolist() == [1, 5, 2]


def test_the_remedy_for_a_natural_spline_has_its_columns() -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(1).normal(size=60)})
    with pytest.raises(FormulaError) as caught:
        ours("1 + ns(x, 3)", frame)
    remedy = caught.value.remedy.removeprefix("write ")
    X, other = ours(f"1 + {remedy}", frame)[1], ours("1 + cr(x, df=4)", frame)[1]
    assert X.shape[1] == 4
    assert np.linalg.matrix_rank(X) == np.linalg.matrix_rank(other) == 4
    np.testing.assert_allclose(X @ np.linalg.lstsq(X, other, rcond=None)[0], other, atol=1e-8)
