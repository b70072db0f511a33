"""Contrasts of users' own: labelled frames name the coefficients and find their rows by the levels; hypotheses are estimated as written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeslmm as blm
from bayeslmm.errors import SpecificationError

LEVELS = ["low", "mid", "high", "top"]


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"dose": pd.Categorical(np.tile(LEVELS, 40), LEVELS), "g": np.repeat(np.arange(16), 10), "x": rng.normal(size=160)})
    return data.assign(y=rng.normal(size=160) + data["dose"].cat.codes ** 1.5 + rng.normal(size=16)[data["g"]])


def means(data: pd.DataFrame) -> pd.Series:
    return blm.LMM("y ~ 0 + dose + (1 | g)", data).fit().fixef.set_axis(LEVELS)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(LEVELS), seed=st.integers(0, 99))
def test_a_labelled_frame_goes_by_its_labels(order: list[str], seed: int) -> None:
    data = frame()
    values = np.random.default_rng(seed).normal(size=(4, 3))
    given_frame = pd.DataFrame(values, index=LEVELS, columns=["a - b", "c", "slope"])
    fit = blm.LMM("y ~ dose * x + (1 | g)", data, contrasts={"dose": given_frame.loc[order]}).fit()
    assert fit.fixef.index.tolist()[1:4] == ["dose[a - b]", "dose[c]", "dose[slope]"]
    plain = blm.LMM("y ~ dose * x + (1 | g)", data, contrasts={"dose": values}).fit()
    np.testing.assert_array_equal(fit.model.X, plain.model.X)
    more = pd.concat([given_frame, pd.DataFrame([[9.0, 9, 9]], index=["nobody"], columns=given_frame.columns)])
    np.testing.assert_array_equal(blm.LMM("y ~ dose * x + (1 | g)", data, contrasts={"dose": more}).X, plain.model.X)


def test_numbers_label_the_levels_of_numbers() -> None:
    data = frame().assign(k=lambda d: d["dose"].cat.codes * 10 + 5)
    matrix = pd.DataFrame({"step": [3.0, -1, -1, -1]}, index=[35, 5, 15, 25])
    fit = blm.LMM("y ~ C(k) + (1 | g)", data, contrasts={"k": matrix}).fit()
    assert fit.fixef.index.tolist() == ["Intercept", "C(k)[step]"]
    assert set(zip(data["k"], fit.model.X[:, 1], strict=True)) == {(35, 3.0), (5, -1.0), (15, -1.0), (25, -1.0)}


HYPOTHESES = pd.DataFrame(
    {"low": [0.25, -1, 0, 0], "mid": [0.25, 1, -1, -0.5], "high": [0.25, 0, 1, -0.5], "top": [0.25, 0, 0, 1]},
    index=["mean", "mid - low", "high - mid", "top - middle"],
)


def test_the_inverse_of_hypotheses_estimates_them() -> None:
    """What hypr does in R: the rows of the hypothesis matrix are what the coefficients are."""
    data = frame()
    matrix = pd.DataFrame(np.linalg.pinv(HYPOTHESES.to_numpy()), index=HYPOTHESES.columns, columns=HYPOTHESES.index).iloc[:, 1:]
    fit = blm.LMM("y ~ dose + (1 | g)", data, contrasts={"dose": matrix}).fit()
    expected = HYPOTHESES.to_numpy() @ means(data).to_numpy()
    np.testing.assert_allclose(fit.fixef, expected, rtol=1e-8)
    assert fit.tidy()["term"].tolist() == ["Intercept", "dose[mid - low]", "dose[high - mid]", "dose[top - middle]"]


@pytest.mark.parametrize("word", ["sdif", "diff", "contr.sdif"])
def test_sdif_is_each_level_against_the_one_before(word: str) -> None:
    data = frame()
    fit = blm.LMM("y ~ dose + (1 | g)", data, contrasts={"dose": word}).fit()
    np.testing.assert_allclose(fit.fixef.iloc[1:], np.diff(means(data)), rtol=1e-7)
    coded = blm.LMM(f"y ~ C(dose, {word}) + (1 | g)", data).fit()
    np.testing.assert_array_equal(coded.model.X, fit.model.X)


def test_a_labelled_coding_is_stored_and_written(tmp_path: Path) -> None:
    data = frame()
    matrix = pd.DataFrame({"up": [-1.0, -1, 1, 1], "odd": [1.0, -1, 1, -1]}, index=LEVELS)
    model = blm.LMM("y ~ dose + (1 | g)", data, contrasts={"dose": matrix})
    fit = model.fit()
    fit.save(tmp_path / "fit.blm")
    opened = blm.load(tmp_path / "fit.blm")
    assert opened.fixef.equals(fit.fixef)
    assert opened.model.spec == model.spec
    assert fit.update(". ~ . + x").fixef.index.tolist() == ["Intercept", "dose[up]", "dose[odd]", "x"]
    np.testing.assert_allclose(fit.predict(data)["estimate"], fit.fitted(), rtol=1e-12)


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (pd.DataFrame({"a": [1.0, 2, 3]}, index=LEVELS[:3]), "no row for 'top'"),
        (pd.DataFrame({"a": [1.0, 2, 3, 4]}, index=["low", "mid", "high", "high"]), "two rows called 'high'"),
        (pd.DataFrame([[1.0, 2]] * 4, columns=["a", "a"], index=LEVELS), "two columns called 'a'"),
        (pd.DataFrame({"a": ["x"] * 4}, index=LEVELS), "no matrix"),
        ({"rows": [[1.0]]}, "lack levels, names"),
    ],
)
def test_labels_that_do_not_fit_are_refused(matrix: object, word: str) -> None:
    with pytest.raises(SpecificationError, match=word):
        blm.LMM("y ~ dose + (1 | g)", frame(), contrasts={"dose": matrix})  # type: ignore[dict-item]


@pytest.mark.parametrize(("told", "word"), [("MASS::contr.sdif", "sdif"), ("stats::contr.helmert", "helmert"), ("base::Sum", "sum")])
def test_the_package_before_a_coding_says_nothing(told: str, word: str) -> None:
    named, plain = (blm.LMM("y ~ dose + (1 | g)", frame(), contrasts={"dose": w}).fit().fixef for w in (told, word))
    pd.testing.assert_series_equal(named, plain)
