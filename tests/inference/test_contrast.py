"""Linear functions of the coefficients, as people write them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, InferenceError, PredictionError, SpecificationError
from bayeslmm.inference.means.linear_functions import parse_equation
from tests.inference.frames import unbalanced

NAMES = ("Intercept", "x", "x2", "a[T.not so good]", "I(x ** 2)", "a[T.not so good]:x", "log(x + 1)")


@pytest.fixture(scope="module")
def fit() -> blm.Fit:
    return blm.LMM("y ~ a * b + x + (1 | g)", unbalanced()).fit()


@pytest.mark.parametrize(
    ("text", "weights", "rhs"),
    [
        ("x = 0", {"x": 1}, 0.0),
        ("x", {"x": 1}, None),
        ("2*x - x2/4 = 1.5", {"x": 2, "x2": -0.25}, 1.5),
        ("-x + 3 = x2 - 1e1", {"x": -1, "x2": -1}, -13.0),
        ("a[T.not so good] - 2 * I(x ** 2) = 0", {"a[T.not so good]": 1, "I(x ** 2)": -2}, 0.0),
        ("`a[T.not so good]:x` == log(x + 1)", {"a[T.not so good]:x": 1, "log(x + 1)": -1}, 0.0),
        ("log(x+1) - I(x**2) = 0", {"log(x + 1)": 1, "I(x ** 2)": -1}, 0.0),
        ("0.5 * 2 * x", {"x": 1}, None),
    ],
)
def test_equations_are_read(text: str, weights: dict[str, float], rhs: float | None) -> None:
    row, value = parse_equation(text, NAMES)
    assert {name: w for name, w in zip(NAMES, row, strict=True) if w} == weights
    assert value == rhs


@pytest.mark.parametrize("text", ["x3 = 0", "x * x2", "x / x2 = 1", "x +", "", "= 1", "1 / 0 * x", "x x2", "x + 1", "a[T.not so bad]"])
def test_what_is_no_equation_is_refused(text: str) -> None:
    with pytest.raises(SpecificationError):
        parse_equation(text, NAMES)


@pytest.mark.parametrize(("text", "sign"), [("x > 10", ">"), ("x>=10", ">="), ("10 < x", "<"), ("x != 0", "!="), ("x - x2 ≤ 1", "≤")])
def test_a_comparison_is_told_from_an_equation(text: str, sign: str) -> None:
    with pytest.raises(SpecificationError, match=f"compares by '{sign}'") as caught:
        parse_equation(text, NAMES)
    assert text.replace(sign, "=").replace(" ", "") in caught.value.remedy.replace(" ", "")


def test_the_nearest_coefficient_is_told(fit: blm.Fit) -> None:
    with pytest.raises(SpecificationError, match=r"did you mean 'a\[T.y\]'"):
        fit.contrast("a[y] = 0")
    with pytest.raises(SpecificationError, match="5 columns"):
        fit.contrast(np.ones((2, 5)))


def test_arrays_dicts_and_equations_say_the_same(fit: blm.Fit) -> None:
    L = np.zeros((1, 7))
    L[0, [1, 4]] = 1, -2
    frames = [
        fit.contrast(given).frame.iloc[0, 1:].astype(float) for given in (L, {"a[T.y]": 1, "x": -2}, "a[T.y] - 2 * x = 0", ["a[T.y] - 2*x"])
    ]
    for frame in frames[1:]:
        np.testing.assert_allclose(frame, frames[0], rtol=1e-12)


def test_rows_are_t_tests_and_together_an_F_test(fit: blm.Fit) -> None:
    found = fit.contrast({"first": "a[T.y] = 0", "second": {"a[T.z]": 1}})
    assert found.frame["term"].tolist() == ["first", "second"]
    theirs = fit.tidy().set_index("term").loc[["a[T.y]", "a[T.z]"], ["estimate", "std_error", "df", "statistic", "p_value"]]
    np.testing.assert_allclose(found.frame[theirs.columns].to_numpy(float), theirs.to_numpy(float), rtol=1e-9)
    assert found.joint["num_df"].item() == 2
    one = fit.contrast("x = 0.5")
    assert one.joint["statistic"].item() == pytest.approx(one.frame["statistic"].item() ** 2)
    assert one.joint["p_value"].item() == pytest.approx(one.frame["p_value"].item())
    assert one.frame["estimate"].item() == pytest.approx(fit.fixef["x"] - 0.5)


def test_redundant_rows_are_left_out_and_contradictions_refused(fit: blm.Fit) -> None:
    found = fit.contrast(["a[T.y] = 0", "a[T.z] = 0", "a[T.y] - a[T.z] = 0"]).joint
    assert found["num_df"].item() == 2
    assert found["statistic"].item() == pytest.approx(fit.contrast(["a[T.y]", "a[T.z]"]).joint["statistic"].item())
    with pytest.raises(InferenceError, match="contradict"):
        fit.contrast(["x = 1", "2 * x = 3"])


@pytest.mark.filterwarnings("ignore:aliased_columns")
def test_what_the_data_cannot_say_is_refused_by_name() -> None:
    data = unbalanced()
    data = data[(data["a"] != "z") | (data["b"] != "q")]
    fit = blm.LMM("y ~ a * b + (1 | g)", data).fit()
    with pytest.raises(InferenceError, match="not estimable") as caught:
        fit.contrast("a[T.z]:b[T.q] = 0")
    assert isinstance(caught.value, BayesLMMError)
    assert "a[T.z]:b[T.q]" in caught.value.where
    assert np.isfinite(fit.contrast("a[T.y]:b[T.q] = 0").frame["p_value"].item())


OWN_COEFFICIENTS = {"`p:q`": "other", "`Intercept`": "more", "p:q": "p:q", "q:p": "q:p", "Intercept": "Intercept", "p": "p"}


@pytest.mark.parametrize("right", ["p * q + `p:q` + Intercept", "`p:q` + Intercept + q * p", "Intercept + q:p + p + `p:q`"])
def test_a_column_called_as_something_else_keeps_its_own_coefficient(right: str) -> None:
    rng = np.random.default_rng(5)
    data = unbalanced().assign(**{name: rng.normal(size=150) for name in ("p", "q", "p:q", "Intercept")})
    plain = data.rename(columns={"p:q": "other", "Intercept": "more"})
    fit = blm.LMM(f"y ~ {right} + (1 | g)", data).fit()
    renamed = blm.LMM(f"y ~ {right} + (1 | g)".replace("`p:q`", "other").replace("Intercept", "more"), plain).fit()
    for quoted, own in OWN_COEFFICIENTS.items():
        expected = renamed.contrast({own: 1.0}).frame["estimate"].item()
        assert fit.contrast({quoted: 1.0}).frame["estimate"].item() == pytest.approx(expected, rel=1e-6)
        assert fit.contrast(f"2 * {quoted} = 0").frame["estimate"].item() == pytest.approx(2 * expected, rel=1e-6)


def test_a_random_column_called_intercept_is_not_added_to_the_intercept() -> None:
    data = unbalanced().assign(Intercept=np.random.default_rng(5).normal(size=150))
    found = blm.LMM("y ~ 0 + Intercept + (1 | g)", data).fit().coef()["g"]
    assert list(found.columns) == ["`Intercept`", "Intercept"]
    assert found["`Intercept`"].nunique() == 1


def test_labelled_rows_are_matched_by_their_labels(fit: blm.Fit) -> None:
    rng = np.random.default_rng(0)
    names = list(fit.fixef.index)
    L, rhs = rng.normal(size=(3, len(names))), np.array([1.0, 2.0, 3.0])
    expected = fit.contrast(L, rhs=rhs).frame["estimate"].to_numpy()
    for _ in range(4):
        columns = rng.permutation(len(names))
        frame = pd.DataFrame(L[:, columns], columns=[names[i] for i in columns], index=["u", "v", "w"])
        shuffled = pd.Series(rhs, index=["u", "v", "w"])[["w", "u", "v"]]
        assert fit.contrast(frame, rhs=shuffled).frame["estimate"].to_numpy() == pytest.approx(expected)
        assert fit.contrast([row for _, row in frame.iterrows()], rhs=rhs).frame["estimate"].to_numpy() == pytest.approx(expected)
        assert fit.contrast(frame.loc["v"], rhs=2.0).frame["estimate"].item() == pytest.approx(expected[1])
    assert fit.contrast(pd.DataFrame(L), rhs=pd.Series(rhs)).frame["estimate"].to_numpy() == pytest.approx(expected)


def test_labels_that_cannot_be_matched_are_refused(fit: blm.Fit) -> None:
    with pytest.raises(SpecificationError, match="'nope' is not a coefficient"):
        fit.contrast(pd.Series({"x": 1.0, "nope": 0.0}))
    with pytest.raises(SpecificationError, match="stands twice"):
        fit.contrast(pd.Series([1.0, 1.0], index=["x", "x"]))
    with pytest.raises(SpecificationError, match="none of the labels"):
        fit.contrast({"u": "x", "v": "x = 1"}, rhs=pd.Series({"u": 1.0, "other": 2.0}))
    with pytest.raises(SpecificationError, match="no value for 'v'"):
        fit.contrast({"u": "x", "v": "x = 1"}, rhs=pd.Series({"u": 1.0}))
    with pytest.raises(SpecificationError, match="none of the labels"):
        fit.emmeans("a").contrast(pd.Series({"x": 1.0, "nope": -1.0}))


def test_labelled_weights_of_means_are_matched_by_their_levels(fit: blm.Fit) -> None:
    means = fit.emmeans("a")
    weights = pd.Series({"z": 1.0, "x": -1.0, "y": 0.0})
    expected = means.contrast([[-1.0, 0.0, 1.0]])["estimate"].item()
    for method in (weights, weights.to_frame().T, {"z - x": weights}, weights[["z", "x"]], pd.Series([-1.0, 0.0, 1.0])):
        assert means.contrast(method)["estimate"].item() == pytest.approx(expected)
    two = fit.emmeans(["a", "b"])
    own = pd.Series(0.0, index=pd.MultiIndex.from_frame(two.frame[["a", "b"]].astype(str)))
    own[("z", "q")], own[("x", "q")] = 1.0, -1.0
    table = two.frame.set_index(["a", "b"])["estimate"]
    assert two.contrast(own[::-1])["estimate"].item() == pytest.approx(table["z", "q"] - table["x", "q"])


@pytest.mark.parametrize(
    "formula",
    ["y ~ a * c + x + (1 | g)", "y ~ twice + x + a + (1 | g)", "y ~ x + twice + c * a + (x | g)", "y ~ 0 + a + c + a:c + w + (1 | g)"],
)
def test_rows_of_the_columns_kept_are_contrasts(formula: str) -> None:
    """An empty cell and a copied column: a row says the mean that `predict` says, a difference of rows that of the means."""
    data = unbalanced()
    data["c"] = data["b"].where(data["a"] != "x", "q")  # no row of x and p
    data["twice"] = 2.0 * data["x"]
    with pytest.warns(BayesLMMWarning, match="aliased_columns"):
        fit = blm.LMM(formula, data).fit()
    rows = fit.contrast_rows(data.iloc[[0, 7, 20]])
    told = fit.predict(data.iloc[[0, 7, 20]], level="population", interval="confidence")
    table = fit.contrast(rows, df="asymptotic").frame
    np.testing.assert_allclose(table["estimate"], told["estimate"], rtol=1e-10)
    np.testing.assert_allclose(table[["conf_low", "conf_high"]], told[["conf_low", "conf_high"]], rtol=1e-8)
    between = fit.contrast(rows[1:] - rows[0]).frame["estimate"]
    np.testing.assert_allclose(between, told["estimate"].diff().iloc[1:].cumsum(), rtol=1e-8)
    with pytest.raises(SpecificationError, match="columns and the model"):
        fit.contrast(np.ones(len(fit.design.kept) - 1))


def test_rows_of_an_empty_cell_are_refused() -> None:
    data = unbalanced()
    empty = (data["a"] == "x") & (data["b"] == "p")
    with pytest.warns(BayesLMMWarning, match="aliased_columns"):
        fit = blm.LMM("y ~ a * b + (1 | g)", data[~empty]).fit()
    with pytest.raises(PredictionError, match="not estimable"):
        fit.contrast_rows(data[empty].head(2))


@pytest.mark.parametrize("text", ["x = 0, Intercept = 0", "(x = 0), (Intercept = 0)", "x = 0,Intercept", "x = 1, a[T.y] - x = 0"])
def test_equations_in_one_text_are_told_to_be_a_list(fit: blm.Fit, text: str) -> None:
    with pytest.raises(SpecificationError, match="stand in a list"):
        fit.contrast(text)
    assert len(fit.contrast([part.strip("() ") for part in text.split(",")]).frame) == 2
