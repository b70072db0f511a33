"""Short columns, and integers that lie close together, are read in other ways than the rest: the outcome is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayeslmm.data.build import build_design
from bayeslmm.data.columns import codes_by_counting, compact_codes, series_factor
from bayeslmm.data.design import Design
from bayeslmm.data.identifiability import check_not_extreme, column_rank
from bayeslmm.errors import DataError
from bayeslmm.formula.parse import parse_formula
from bayeslmm.specification.model_spec import ModelSpec
from tests.generated import examples


def build(formula: str, data: Any) -> Design:
    return build_design(ModelSpec(parse_formula(formula)), data)


@examples(60)
@given(
    st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)), min_size=1, max_size=40),
    st.sampled_from(["object", "str", "string"]),
)
def test_short_text_is_coded_as_long_text_is(labels: list[str | None], dtype: str) -> None:
    short = series_factor(pd.Series([*labels, "a"], dtype=dtype), "g", "text")
    long = series_factor(pd.Series([*labels, "a"] * 501, dtype=dtype), "g", "text")
    assert short.levels.tolist() == long.levels.tolist() == sorted({label for label in [*labels, "a"] if label is not None})
    np.testing.assert_array_equal(np.tile(short.codes, 501), long.codes)
    assert short.labels(short.codes).tolist() == [*labels, "a"]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_are_coded_alike_close_together_and_far_apart(dtype: str) -> None:
    info = np.iinfo(dtype)
    near = np.array([5, 3, 3, 9, 5], dtype=dtype)
    far = np.array([0, info.min, info.min, info.max, 0], dtype=dtype) if info.min else np.array([7, 0, 0, info.max, 7], dtype=dtype)
    for values in (near, far):
        column = series_factor(pd.Series(values), "g")
        assert column.levels.tolist() == sorted(set(values.tolist()))
        assert {type(level) for level in column.levels} == {int}
        assert column.labels(column.codes).tolist() == values.tolist()


def test_keys_are_counted_as_they_are_sorted() -> None:
    key = np.random.default_rng(1).integers(0, 3000, 500)
    for a, b in zip(codes_by_counting(key, 3000), compact_codes(key, 10**9), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_frame_of_few_columns_is_read_as_one_of_many() -> None:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"y": rng.normal(size=60), "x": rng.normal(size=60), "g": np.arange(60) % 6})
    data["site"] = pd.Categorical(data["g"] // 2)
    wide = data.assign(**{f"v{i}": rng.normal(size=60) for i in range(9)})
    narrow, many = build("y ~ x + (x | g)", data), build("y ~ x + (x | g)", wide)
    assert "labels_in_several_groups" not in {note.name for note in narrow.notes}
    assert [note.name for note in narrow.notes] == [note.name for note in many.notes]
    np.testing.assert_array_equal(narrow.X, many.X)
    reused = data.assign(site=pd.Categorical(np.arange(60) // 6))
    for frame in (reused, reused.join(wide.filter(like="v"))):
        assert "labels_in_several_groups" in {note.name for note in build("y ~ x + (1 | g)", frame).notes}


@pytest.mark.parametrize("far", [0.0, 1.0, 1e3, 1e8, 1e12])
@pytest.mark.parametrize("moving", [0.0, 1e-12, 1e-3, 1.0])
def test_a_lone_column_is_kept_where_it_moves(far: float, moving: float) -> None:
    """What the sums of squares leave in doubt is decided on the centred column, to rounding."""
    column = far + moving * np.linspace(-1, 1, 50)
    X = np.column_stack([np.ones(50), column])
    doubted = np.column_stack([X, np.tile([1.0, -1.0], 25)])  # three columns take the way through the correlations
    moves = bool(np.ptp(column) > 4e-14 * abs(far))
    assert column_rank(X, intercept=True).kept == ((0, 1) if moves else (0,))
    assert column_rank(doubted, intercept=True).kept == ((0, 1, 2) if moves else (0, 2))
    assert column_rank(column[:, None], intercept=False).kept == ((0,) if column.any() else ())


@pytest.mark.parametrize("width", [2, 40])
@pytest.mark.parametrize("size", [1e152, -1e152, 1e-152, -1e-152])
def test_columns_beyond_squares_are_refused_in_narrow_and_wide_blocks(width: int, size: float) -> None:
    columns, names = np.ones((5, width)), [f"x{i}" for i in range(width)]
    check_not_extreme(columns, names)
    columns[:, 1] = [0.0, size, size / 2, 0.0, 0.0]
    with pytest.raises(DataError, match=r"'x1' are of size 1e[+-]152"):
        check_not_extreme(columns, names)


def test_categories_of_polars_are_those_of_pandas() -> None:
    labels = ["b", None, "a", "b", "c", "a"] * 5
    y = np.random.default_rng(3).normal(size=30)
    plain = build("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": pd.Categorical(labels)}))
    ordered = pl.Series(labels, dtype=pl.Enum(["c", "b", "a", "unused"]))
    for column, levels in ((pl.Series(labels, dtype=pl.Categorical), ["a", "b", "c"]), (ordered, ["c", "b", "a"])):
        design = build("y ~ 1 + (1 | g)", pl.DataFrame({"y": y, "g": column, "other": y}))
        group = design.terms[0].group
        assert group.levels.tolist() == levels
        assert group.levels[group.codes].tolist() == plain.terms[0].group.levels[plain.terms[0].group.codes].tolist()
        assert design.dropped == {"g": 5}
