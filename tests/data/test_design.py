"""What a design holds: rank, codes, labels, copies, and the encoding of new data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayeslmm as blm
from bayeslmm.errors import FormulaError, PredictionError, RankError
from tests.data.designs import build, days, notes

# ------------------------------------------------------------------------------------------------------------------ rank


def test_the_later_of_two_dependent_columns_is_dropped_and_named() -> None:
    design = build("y ~ x + twice + day + (1 | g)", days().assign(twice=lambda d: 2 * d["x"] + 1))
    assert design.coef_names == ("Intercept", "x", "twice", "day")
    assert design.kept == (0, 1, 3)
    assert design.aliased == ("twice",)
    assert design.X.shape == (60, 3)
    assert notes(design)["aliased_columns"].value == ("twice",)


def test_an_empty_cell_of_an_interaction_is_dropped() -> None:
    data = days()[lambda d: (d["arm"] == "CTL") | (d["visit"] != "V6")]
    assert build("y ~ arm * visit + (1 | g)", data).aliased == ("arm[T.TRT]:visit[T.V6]",)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1])
def test_a_constant_column_is_dropped(value: float) -> None:
    assert build("y ~ x + c + (1 | g)", days().assign(c=value)).aliased == ("c",)


@pytest.mark.parametrize(("noise", "kept"), [(1e-11, 2), (1e-10, 2), (1e-6, 3), (1e-4, 3)])
def test_columns_are_dependent_up_to_rounding_only(noise: float, kept: int) -> None:
    data = days().assign(near=lambda d: d["x"] + noise * d["y"])
    design = build("y ~ x + near + (1 | g)", data)
    assert len(design.kept) == kept
    assert ("condition_number" in notes(design)) == (noise == 1e-6)


@pytest.mark.parametrize("formula", ["y ~ x + day + (1 | g)", "y ~ 0 + arm + x + day + (1 | g)"])
@pytest.mark.parametrize("change", [lambda x: x + 1e8, lambda x: x * 1e12, lambda x: x * 1e-12, lambda x: x + 2000])
def test_units_and_origins_do_not_make_a_column_dependent(formula: str, change: object) -> None:
    design = build(formula, days().assign(x=lambda d: change(d["x"])))  # type: ignore[operator]
    assert design.aliased == ()
    assert "condition_number" not in notes(design)


def test_the_condition_number_is_that_of_centred_columns_of_length_one_and_said_once() -> None:
    data = days().assign(near=lambda d: d["x"] + 1e-3 * np.cos(7.0 * d["y"]))
    columns = build("y ~ x + near + (1 | g)", data).X[:, 1:]
    columns = columns - columns.mean(axis=0)
    expected = np.linalg.cond(columns / np.linalg.norm(columns, axis=0))
    checks = blm.LMM("y ~ x + near + (1 | g)", data).fit().checks
    assert checks["condition_number"].value == pytest.approx(expected, rel=1e-6)
    assert [name for name in checks if "condition" in name] == ["condition_number"]


def test_as_many_coefficients_as_rows_leave_nothing_to_estimate_variances_from() -> None:
    with pytest.raises(RankError, match="nothing is left"):
        build("y ~ g:h", days())


# ---------------------------------------------------------------------------------------------------------------- groups


def test_codes_run_over_the_levels_that_occur() -> None:
    group = build("y ~ x + (1 | g)", days().query("g != 's4'")).terms[0].group
    assert group.levels.tolist() == [f"s{i}" for i in range(10) if i != 4]
    assert np.unique(group.codes).tolist() == list(range(9))


def test_an_interaction_is_labelled_by_its_parts_the_first_slowest() -> None:
    data = days().assign(k=lambda d: 4 - d["k"])
    group = build("y ~ x + (1 | g:k)", data).terms[0].group
    assert group.name == "g:k"
    assert group.levels[:4].tolist() == ["s0:1", "s0:2", "s0:3", "s1:1"]
    assert group.levels[group.codes].tolist() == [f"{g}:{k}" for g, k in zip(data["g"], data["k"], strict=True)]


def test_nested_groups_are_the_group_and_the_interaction() -> None:
    design = build("y ~ x + (1 | g/k)", days())
    assert design.groups == {"g": 10, "g:k": 30}


def test_integer_labels_stay_integers_and_text_is_sorted() -> None:
    assert build("y ~ x + (1 | k)", days()).terms[0].group.levels.tolist() == [1, 2, 3]
    assert build("y ~ x + (1 | g)", days().iloc[::-1]).terms[0].group.levels[0] == "s0"


def test_columns_of_a_random_term_are_named_as_coefficients_are() -> None:
    design = build("y ~ x + (arm | g) + (0 + visit | h)", days())
    assert design.terms[0].columns == ("Intercept", "arm[T.TRT]")
    assert design.terms[1].columns == tuple(f"visit[V{i}]" for i in range(1, 7))


def test_an_unused_level_keeps_its_place_where_spacing_matters() -> None:
    data = days()[lambda d: d["visit"] != "V3"]
    design = build("y ~ x + ar1(0 + visit | g) + (0 + visit | h)", data, check="warn")
    assert design.terms[0].columns == tuple(f"visit[V{i}]" for i in range(1, 7))
    assert design.terms[1].columns == tuple(f"visit[V{i}]" for i in (1, 2, 4, 5, 6))
    assert design.terms[0].covariance.q == 6


# ---------------------------------------------------------------------------------------------------------------- copies


def test_a_frame_changed_later_does_not_reach_the_design() -> None:
    data = days()
    design = build("y ~ x + (x | g)", data)
    y, X, frame = design.y.copy(), design.X.copy(), design.frame.copy()
    data.loc[:, "x"] = 0.0
    data.loc[:, "y"] = 1.0
    del data["g"]
    np.testing.assert_array_equal(design.y, y)
    np.testing.assert_array_equal(design.X, X)
    pd.testing.assert_frame_equal(design.frame, frame)
    assert list(design.frame.columns) == ["y", "x", "g"]


def test_arrays_of_a_design_are_read_only() -> None:
    design = build("y ~ x + (x | g)", days(), weights=np.linspace(1, 2, 60))
    for array in (design.y, design.X, design.weights, design.rows, design.terms[0].Z, design.terms[0].group.codes):
        assert array is not None
        assert not array.flags.writeable


def test_the_arrays_of_the_caller_stay_writeable() -> None:
    y, x, g = np.arange(60.0) % 7, np.arange(60.0) ** 2, np.arange(60) % 5
    build("y ~ x + (1 | g)", {"y": y, "x": x, "g": g})
    assert y.flags.writeable
    assert x.flags.writeable
    assert g.flags.writeable


def test_the_index_of_the_frame_is_carried_along() -> None:
    data = days().set_index(np.arange(60)[::-1])
    data.loc[58, "x"] = np.nan
    design = build("y ~ x + (1 | g)", data)
    assert design.index[:2].tolist() == [59, 57]
    assert design.rows[:2].tolist() == [0, 2]


# -------------------------------------------------------------------------------------------------------------- new data

FORMULA = "y ~ poly(x, 2) + log(day + 1) + arm * k + (x | g) + (0 + visit | g:h)"


@given(rows=st.lists(st.integers(0, 59), min_size=1, max_size=12))
def test_any_rows_are_encoded_as_they_were(rows: list[int]) -> None:
    data = days()
    design = build(FORMULA, data, check="warn")
    new = data.iloc[rows].drop(columns="y")
    X, names = design.encoding.encode_fixed(new)
    assert names == design.coef_names
    np.testing.assert_allclose(X[:, design.kept], design.X[rows], rtol=1e-12, atol=1e-14)
    for (Z, codes), term in zip(design.encoding.random(new), design.terms, strict=True):
        np.testing.assert_array_equal(Z, term.Z[rows])
        np.testing.assert_array_equal(codes, term.group.codes[rows])


def test_new_groups_and_missing_groups_have_code_minus_one() -> None:
    design = build("y ~ x + (1 | g) + (1 | g:h)", days())
    new = pd.DataFrame({"x": [0.0, 0.0, 0.0, 0.0], "g": ["s1", "new", None, "s1"], "h": ["i0", "i0", "i0", "new"]})
    codes = [codes.tolist() for _, codes in design.encoding.random(new)]
    assert codes == [[1, -1, -1, 1], [6, -1, -1, -1]]
    assert design.encoding.labels(new, 1).tolist() == ["s1:i0", "new:i0", None, "s1:new"]


def test_an_unseen_level_of_a_fixed_factor_is_listed() -> None:
    design = build("y ~ arm + (1 | g)", days())
    with pytest.raises(PredictionError, match="'NEW'") as caught:
        design.encoding.encode_fixed(pd.DataFrame({"arm": ["CTL", "NEW"]}))
    assert "row 1" in caught.value.where
    assert "'CTL', 'TRT'" in caught.value.where


def test_a_missing_column_of_new_data_is_named() -> None:
    with pytest.raises(PredictionError, match="no column 'x'"):
        build("y ~ x + (1 | g)", days()).encoding.encode_fixed({"g": ["s1"]})


def test_missing_values_of_new_data_are_felt_in_their_rows_only() -> None:
    design = build("y ~ x * arm + poly(day, 2) + (1 | g)", days())
    new = pd.DataFrame({"x": [1.0, np.nan, 1.0, 1.0], "arm": ["TRT", "TRT", None, "CTL"], "day": [1.0, 1.0, 1.0, np.nan]})
    assert np.isnan(design.encoding.encode_fixed(new)[0]).any(axis=1).tolist() == [False, True, True, True]


def test_new_data_of_another_kind_are_refused() -> None:
    design = build("y ~ x + arm + (1 | g)", days())
    with pytest.raises(PredictionError, match="text"):
        design.encoding.encode_fixed({"x": ["a"], "arm": ["CTL"]})
    with pytest.raises(PredictionError, match="not seen"):
        design.encoding.encode_fixed({"x": [1.0], "arm": [1]})


def test_a_spline_is_not_continued_beyond_its_knots_in_silence() -> None:
    design = build("y ~ bs(day, df=4) + (1 | g)", days())
    with pytest.raises(PredictionError):
        design.encoding.encode_fixed({"day": [100.0]})


def test_other_columns_of_new_data_do_not_matter() -> None:
    design = build("y ~ x + arm + (1 | g)", days())
    X, _ = design.encoding.encode_fixed(pd.DataFrame({"unused": [1j], "arm": ["TRT"], "x": [2.0]}))
    assert X.tolist() == [[1.0, 1.0, 2.0]] or X.tolist() == [[1.0, 2.0, 1.0]]


def test_levels_and_covariates_are_at_hand_for_reference_grids() -> None:
    encoding = build("y ~ x + arm * k + (1 | g)", days()).encoding
    assert dict(encoding.levels) == {"arm": ("CTL", "TRT")}
    assert set(encoding.covariates) == {"x", "k"}
    assert encoding.covariates["k"].mean == 2.0
    assert encoding.covariates["k"].integer


# ------------------------------------------------------------------------------------------------------------ expressions


def test_expressions_are_evaluated_with_the_power_of_r_and_python() -> None:
    design = build("y ~ I(x^2 + 1) + I(day > 2) + I(arm == 'TRT') + sin(2 * pi * x) + (1 | g)", days())
    data = days()
    expected = [data["x"] ** 2 + 1, data["day"] > 2, data["arm"] == "TRT", np.sin(2 * np.pi * data["x"])]
    np.testing.assert_allclose(design.X[:, 1:], np.column_stack(expected).astype(float))


def test_functions_of_the_user_are_called_with_columns() -> None:
    functions = {"wave": lambda x: np.sin(x), "pair": lambda x: np.column_stack([x, x**2])}
    design = build("y ~ wave(x) + pair(day) + (1 | g)", days(), functions=functions)
    assert design.coef_names == ("Intercept", "wave(x)", "pair(day)[1]", "pair(day)[2]")
    np.testing.assert_array_equal(design.X[:, 1], np.sin(days()["x"]))


def test_the_response_may_be_an_expression() -> None:
    data = days().assign(y=lambda d: np.exp(d["y"]))
    design = build("log(y) ~ x + (1 | g)", data)
    np.testing.assert_allclose(design.y, np.log(data["y"]))
    np.testing.assert_allclose(design.encoding.response(data.iloc[:3]), design.y[:3])


def test_a_stateful_transform_inside_another_expression_is_remembered() -> None:
    design = build("y ~ I(center(x) ** 2) + (1 | g)", days())
    new = design.encoding.encode_fixed(days().iloc[:2])[0]
    np.testing.assert_allclose(new, design.X[:2])


def test_a_coding_inside_an_expression_is_refused() -> None:
    with pytest.raises(FormulaError):
        build("y ~ log(C(k)) + (1 | g)", days())


@pytest.mark.parametrize("third", [False, True])
def test_levels_of_an_interaction_have_labels_of_their_own(third: bool) -> None:
    """`p:q` by `r` and `p` by `q:r` are two levels; where no two are called alike, nothing is quoted."""
    pairs = [(a, b) for a in ("p", "p:q") for b in ("q:r", "r", "s") for _ in range(4)]
    frame = pd.DataFrame(pairs, columns=["a", "b"]).assign(y=np.arange(24.0) % 7, c="k:l")
    text = "y ~ 1 + (1 | a:b:c)" if third else "y ~ 1 + (1 | a:b)"
    factor = build(text, frame).terms[0].group
    assert factor.size == 6
    assert len(set(factor.levels.tolist())) == 6
    assert ("`p:q`:r:`k:l`" if third else "`p:q`:r") in factor.levels
    plain = build("y ~ 1 + (1 | a:b)", frame.assign(a=frame["a"].replace({"p:q": "z:q"}))).terms[0].group
    assert "z:q:r" in plain.levels


def test_labels_with_colons_are_found_again_in_new_rows_and_reach_bambi() -> None:
    pairs = [(a, b) for a in ("p", "p:q") for b in ("q:r", "r", "s") for _ in range(4)]
    frame = pd.DataFrame(pairs, columns=["a", "b"])
    frame["y"] = frame.groupby(["a", "b"]).ngroup() * 3.0 + np.random.default_rng(1).normal(size=24)
    fit = blm.LMM("y ~ 1 + (1 | a:b)", frame).fit()
    new = frame.iloc[::-4]
    np.testing.assert_allclose(fit.predict(new)["estimate"], fit.fitted().to_numpy()[::-4])
    pytest.importorskip("bambi")
    built = blm.LMM("y ~ 1 + (1 | a:b)", frame, priors=blm.Priors(preset="bambi")).to_bambi()
    assert built.data["a:b"].nunique() == 6
