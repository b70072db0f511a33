"""F tests of terms: what each type means, whatever the coding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from tests.inference.frames import split_plot, unbalanced
from tests.inputs.frames import visits


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("coding", ["sum", "helmert", "poly"])
@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
def test_no_type_depends_on_the_coding(kind: int, coding: str, df: str) -> None:
    plain = blm.LMM("y ~ a * b + a:x + x + (1 | g)", unbalanced()).fit().anova(type=kind, df=df)
    coded = blm.LMM("y ~ a * b + a:x + x + (1 | g)", unbalanced(), contrasts={"a": coding, "b": coding}).fit().anova(type=kind, df=df)
    assert plain["term"].tolist() == coded["term"].tolist()
    np.testing.assert_allclose(plain["statistic"], coded["statistic"], rtol=1e-7)
    np.testing.assert_allclose(plain["den_df"], coded["den_df"], rtol=1e-5)


def test_type_3_is_the_test_of_sum_coded_coefficients() -> None:
    """SAS's type 3 hypotheses, where no cell is empty."""
    fit = blm.LMM("y ~ a * b + x + (1 | g)", unbalanced(), contrasts={"a": "sum", "b": "sum"}).fit()
    table = fit.anova().set_index("term")
    for term, names in {"a": ["a[S.x]", "a[S.y]"], "b": ["b[S.p]"], "a:b": ["a[S.x]:b[S.p]", "a[S.y]:b[S.p]"]}.items():
        joint = fit.contrast([f"{name} = 0" for name in names]).joint.iloc[0]
        np.testing.assert_allclose(table.loc[term, ["num_df", "statistic"]].astype(float), joint[["num_df", "statistic"]], rtol=1e-8)


def test_a_term_last_in_order_has_one_test_for_all_types() -> None:
    fit = blm.LMM("y ~ x + a * b + (1 | g)", unbalanced()).fit()
    rows = [fit.anova(type=kind).set_index("term").loc["a:b", "statistic"] for kind in (1, 2, 3)]
    np.testing.assert_allclose(rows, rows[0], rtol=1e-8)


def test_balanced_factors_have_one_test_for_all_types() -> None:
    fit = blm.LMM("y ~ variety * nitrogen + (1 | block / variety)", split_plot()).fit()
    tables = [fit.anova(type=kind) for kind in (1, 2, 3)]
    for table in tables[1:]:
        np.testing.assert_allclose(table["statistic"], tables[0]["statistic"], rtol=1e-8)


def test_a_covariate_and_its_interaction_with_a_factor() -> None:
    """Types 2 and 3 of the factor agree (it is not contained in what has a covariate more), those of the covariate do not."""
    fit = blm.LMM("y ~ a * x + (1 | g)", unbalanced()).fit()
    two, three = (fit.anova(type=kind).set_index("term")["statistic"] for kind in (2, 3))
    assert two["a"] == pytest.approx(three["a"], rel=1e-8)
    assert two["x"] != pytest.approx(three["x"], rel=1e-3)


def test_sums_of_squares_are_those_of_the_residual_variance() -> None:
    fit = blm.LMM("y ~ a + x + (1 | g)", unbalanced()).fit()
    table = fit.anova()
    np.testing.assert_allclose(table["sum_sq"], table["statistic"] * fit.sigma**2 * table["num_df"])
    assert fit.anova(df="kenward-roger")["sum_sq"].isna().all()


@pytest.mark.filterwarnings("ignore:aliased_columns")
def test_an_empty_cell_takes_its_degree_of_freedom() -> None:
    data = unbalanced()
    fit = blm.LMM("y ~ a * b + (1 | g)", data[(data["a"] != "z") | (data["b"] != "q")]).fit()
    for kind in (1, 2, 3):
        assert fit.anova(type=kind).set_index("term")["num_df"].to_dict() == {"a": 2, "b": 1, "a:b": 1}


def test_a_model_of_the_mean_has_no_terms() -> None:
    table = blm.LMM("y ~ 1 + (1 | g)", unbalanced()).fit().anova()
    assert table.empty
    assert isinstance(table, pd.DataFrame)


def test_the_type_is_checked() -> None:
    fit = blm.LMM("y ~ a + (1 | g)", unbalanced()).fit()
    pd.testing.assert_frame_equal(fit.anova(type="III"), fit.anova(type=3))
    with pytest.raises(SpecificationError, match="type"):
        fit.anova(type=4)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_factor_in_an_interaction_with_a_covariate_is_tested_where_the_covariate_is_0(kind: int) -> None:
    fit = blm.LMM("y ~ arm * x + (1 | g)", visits()).fit()
    at_zero = fit.contrast("arm[T.TRT] = 0").frame
    tested = fit.anova(type=kind).set_index("term")
    assert tested.loc["arm", "statistic"] == pytest.approx(at_zero.loc[0, "statistic"] ** 2)
    slopes = fit.emtrends("x").frame
    assert (tested.loc["x", "statistic"] == pytest.approx(slopes.loc[0, "statistic"] ** 2)) == (kind == 3)


def few_groups(seed: int) -> pd.DataFrame:
    """Factors and a covariate partly confounded with few groups that have slopes: denominators differ from row to row."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, 6, 60)
    f, k = (g + rng.integers(0, 2, 60)) % 4, (g // 2 + rng.integers(0, 2, 60)) % 3
    data = pd.DataFrame({"g": g, "f": np.array(list("abcd"))[f], "k": np.array(list("uvw"))[k], "x": rng.normal(size=60)})
    return data.assign(y=rng.normal(size=6)[g] * 2 + rng.normal(size=6)[g] * data["x"] + rng.normal(size=60))


@pytest.mark.filterwarnings("ignore:aliased_columns")
@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ("f * k", [[42.028, 42.859, 41.070], [42.419, 42.859, 41.232], [42.705, 43.524, 41.232]]),
        ("f * x", [[46.309, 4.411, 40.079], [46.229, 4.411, 43.003], [46.229, 5.106, 43.003]]),
        ("k + f + x", None),
    ],
)
def test_denominators_are_those_of_lmerTest(fixed: str, expected: list[list[float]] | None) -> None:
    """Figures of lmerTest 3.1: anova(lmer(y ~ ... + (x | g)), type = 1, 2, 3); without figures, `contrast` of the same rows."""
    fit = blm.LMM(f"y ~ {fixed} + (x | g)", few_groups(0)).fit()
    if expected is not None:
        for kind, row in enumerate(expected, start=1):
            np.testing.assert_allclose(fit.anova(type=kind)["den_df"], row, rtol=2e-4)
    last = fit.anova().set_index("term")
    for term in {"f * k": [], "f * x": ["f", "f:x"]}.get(fixed, ["k", "f", "x"]):
        names = [name for name, own in zip(fit.model.coef_names, fit.design.coef_terms, strict=True) if own == term]
        joint = fit.contrast([f"{name} = 0" for name in names]).joint.iloc[0]
        assert joint["den_df"] == pytest.approx(last.loc[term, "den_df"], rel=1e-6)
