"""Designs at the edge of what can be estimated: exact responses, dependent columns, extreme units, boundaries (rows 8 to 23, 54 to 62)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import (
    DataError,
    DesignError,
    FormulaError,
    IdentifiabilityError,
    InferenceError,
    PredictionError,
    RankError,
    SizeError,
)
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.random_effects import cross_products
from tests.inputs.frames import MODEL, fit, least_squares, noted, refused, visits, warned

NUMBER = visits()["g"].str[1:].astype(float)

# ---------------------------------------------------------------------------------------------------- exact and constant


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        (MODEL, {}),
        ("y ~ x", {}),
        (MODEL, {"check": "warn"}),
        ("y ~ x", {"residual": "us(visit | g)"}),
        ("y ~ x", {"residual": "ar1(visit | g)"}),
        ("y ~ x", {"variance": "ident(arm)"}),
    ],
)
def test_a_response_that_the_fixed_effects_reproduce_is_refused(formula: str, options: dict[str, Any]) -> None:
    refused(lambda: fit(formula, visits().assign(y=lambda d: 5 + 2 * d["x"]), **options), DesignError, "exactly")


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize(
    ("formula", "y"),
    [
        ("y ~ 1 + (1 | g)", NUMBER),
        ("y ~ x + (1 | g)", 1.3 * NUMBER + 0.7 * visits()["x"]),
        ("y ~ day + (day | g)", 1.3 * NUMBER + np.sqrt(NUMBER) * visits()["day"]),
        ("y ~ 1 + (1 | g) + (1 | h)", NUMBER + np.sqrt(visits()["day"])),
    ],
)
def test_a_response_that_the_random_effects_reproduce_is_refused(formula: str, y: Any, method: str) -> None:
    refused(lambda: fit(formula, visits().assign(y=y), method=method), DesignError, "exactly")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "errors", [{"variance": "ident(f)"}, {"variance": "ident(g)"}, {"variance": "exp(x)"}, {"residual": "ar1(v | half / g)"}], ids=str
)
def test_no_structure_of_the_errors_hides_that_all_is_explained(errors: dict[str, str], seed: int) -> None:
    """The sds of several strata go to 0 each in its own time, and none may be left as if it were estimated."""
    rng = np.random.default_rng(seed)
    levels, rows = int(rng.integers(6, 13)), int(rng.integers(4, 9))
    g = np.repeat(np.arange(levels), rows)
    data = pd.DataFrame({"g": g, "half": np.where(g % 2 == 0, "p", "q"), "v": np.tile(np.arange(rows), levels)})
    data = data.assign(x=rng.normal(size=len(g)), f=rng.choice(list("abc"), len(g)))
    own, method = 1.7 * rng.normal(size=(2, levels))[:, g], ("REML", "ML")[seed % 2]
    for formula, y in (("y ~ x + f + (1 | g)", own[0] + 0.3 * data["x"]), ("y ~ f + (x | g)", own[0] + own[1] * data["x"])):
        for unit in (1.0, 2.0**20):
            model = blm.LMM(formula, data.assign(y=unit * y), check="warn", **errors)
            refused(partial(model.fit, method), DesignError, "exactly")


def test_a_response_that_is_constant_within_subjects_has_no_compound_symmetry() -> None:
    refused(lambda: fit("y ~ 1", visits().assign(y=NUMBER), residual="cs(visit | g)"), DesignError)


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
def test_a_small_residual_is_no_exact_one(size: float) -> None:
    """Balanced one-way data: REML is the analysis of variance, to the digits that y itself has beside its groups."""
    noise = np.random.default_rng(0).normal(size=60)
    data = visits().assign(y=NUMBER + size * noise)
    within = data["y"] - data.groupby("g")["y"].transform("mean")
    assert fit("y ~ 1 + (1 | g)", data).sigma == pytest.approx(np.sqrt((within**2).sum() / 50), rel=1e-5)


def test_an_offset_equal_to_the_response_is_refused() -> None:
    refused(lambda: fit(MODEL, offset="y"), DesignError, "exactly")


# ------------------------------------------------------------------------------------------------------- identification


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + g + (1 | g)", {}),
        ("y ~ x + g + (x | g)", {}),
        ("y ~ 0 + g + (1 | g)", {}),
        ("y ~ x + (1 | arm) + arm", {}),
        ("y ~ x", {"variance": "ident(x)"}),
        ("y ~ x + (1 | g)", {"variance": "ident(x)"}),
    ],
)
def test_a_variance_about_which_the_data_say_nothing_is_refused(formula: str, options: dict[str, Any]) -> None:
    refused(lambda: fit(formula, **options), IdentifiabilityError)
    assert "identifiability" in {check.name for check in blm.LMM(formula, visits(), check="warn", **options).design.notes}


def test_a_slope_is_identified_beside_a_fixed_factor_of_its_groups() -> None:
    assert fit("y ~ x + g + (0 + day | g)").converged


@pytest.mark.parametrize("groups", [4, 6])
def test_fewer_subjects_than_visits_have_no_unstructured_covariance(groups: int) -> None:
    refused(lambda: fit("y ~ x", visits(groups=groups), residual="us(visit | g)"), IdentifiabilityError, "singular")


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (day | g)"])
def test_going_on_regardless_warns_once(formula: str) -> None:
    data = visits().assign(g=range(60)) if "1 | g" in formula else visits().query("day < 2")
    refused(lambda: fit(formula, data), IdentifiabilityError)
    _, warnings = warned(lambda: fit(formula, data, check="warn"))
    assert len(warnings) == 1
    assert "identifiability" in warnings[0].what


def test_a_relationship_matrix_crossed_with_too_many_levels_is_refused_before_memory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_products, "TUNING", replace(TUNING, remaining_elements=1 << 14))
    rng = np.random.default_rng(0)
    data = {"y": rng.normal(size=2000), "a": rng.integers(0, 300, 2000), "b": rng.integers(0, 200, 2000)}
    known = pd.DataFrame(np.eye(300), index=np.arange(300), columns=np.arange(300))
    refused(lambda: fit("y ~ 1 + (1 | a) + (1 | b)", data, relationship={"a": known}), SizeError, "GB")


def test_a_million_levels_of_one_factor_are_fine() -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    data = {"y": rng.normal(size=2 * n) + np.repeat(rng.normal(size=n), 2), "g": np.repeat(np.arange(n), 2)}
    y = data["y"].reshape(n, 2)
    within = ((y - y.mean(1, keepdims=True)) ** 2).sum() / n
    assert fit("y ~ 1 + (1 | g)", data).sigma ** 2 == pytest.approx(within, rel=1e-8)


# ----------------------------------------------------------------------------------------------------- dependent columns


def test_an_aliased_column_changes_nothing_but_its_own_coefficient() -> None:
    data = visits().assign(twice=lambda d: 2 * d["x"])
    found, warnings = warned(lambda: fit("y ~ x + twice + (1 | g)", data))
    plain = fit()
    assert [found.criterion, found.sigma] == pytest.approx([plain.criterion, plain.sigma], rel=1e-12)
    assert np.isnan(found.fixef["twice"])
    assert found.vcov.isna().to_numpy().sum() == 5
    assert len(warnings) == 1
    assert found.predict(data)["estimate"].to_numpy() == pytest.approx(found.fitted())
    refused(lambda: found.predict(data.assign(twice=0.0)), PredictionError, "estimable")
    refused(lambda: found.contrast("twice = 0"), InferenceError, "estimable")


@pytest.mark.parametrize("noise", [1e-8, 1e-6])
def test_nearly_dependent_columns_are_resolved_with_a_warning_of_their_condition(noise: float) -> None:
    data = visits().assign(near=lambda d: d["x"] + noise * np.random.default_rng(5).normal(size=60))
    found, (warning,) = warned(lambda: fit("y ~ x + near + (1 | g)", data))
    assert "condition" in warning.what
    other = fit("y ~ x + z + (1 | g)", data.assign(z=lambda d: (d["near"] - d["x"]) / noise))
    assert found.fixef["near"] * noise == pytest.approx(other.fixef["z"], rel=1e-4)  # x + noise z keeps 1e-16 / noise of z


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_a_constant_column_is_aliased_beside_an_intercept(value: float) -> None:
    found, (warning,) = warned(lambda: fit(MODEL, visits().assign(x=value)))
    assert np.isnan(found.fixef["x"])
    assert "aliased" in warning.what


def test_without_an_intercept_a_constant_is_one() -> None:
    assert fit("y ~ 0 + x + (1 | g)", visits().assign(x=2.0)).fixef["x"] * 2 == pytest.approx(fit("y ~ 1 + (1 | g)").fixef["Intercept"])


def test_a_model_without_fixed_effects_has_empty_tables() -> None:
    found = fit("y ~ 0 + (1 | g)")
    assert len(found.tidy()) == len(found.anova()) == len(found.fixef) == 0
    assert str(found.summary())


def test_more_columns_than_rows_are_counted() -> None:
    data = visits().iloc[:8].assign(g=list("aabbccdd"), **{f"v{i}": np.random.default_rng(i).normal(size=8) for i in range(11)})
    formula = "y ~ " + " + ".join(f"v{i}" for i in range(11)) + " + (1 | g)"
    refused(lambda: fit(formula, data), RankError, "12 columns, and there are 8 rows")


# ------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("unit", [1e12, 1e-12, 1e100, 1e-100, 1e150, 1e-150])
def test_the_unit_of_the_response_is_only_a_unit(unit: float) -> None:
    found, plain = fit(MODEL, visits().assign(y=lambda d: unit * d["y"])), fit()
    assert found.criterion == pytest.approx(plain.criterion + 58 * 2 * np.log(unit), rel=1e-12)
    assert (found.fixef / unit).to_numpy() == pytest.approx(plain.fixef.to_numpy(), rel=1e-12)
    errors = [one.predict(interval="prediction")["std_error"].to_numpy() for one in (found, plain)]
    assert errors[0] / unit == pytest.approx(errors[1], rel=1e-9)
    assert found.tidy(df="kenward-roger")["df"].to_numpy() == pytest.approx(plain.tidy(df="kenward-roger")["df"].to_numpy(), rel=1e-5)


@pytest.mark.parametrize("unit", [1e160, 1e-160, 1e300, 1e-300])
@pytest.mark.parametrize("column", ["y", "x"])
def test_a_unit_whose_square_is_no_number_is_refused(unit: float, column: str) -> None:
    refused(lambda: fit(MODEL, visits().assign(**{column: lambda d: unit * d[column]})), DataError, "unit|size")


@pytest.mark.parametrize("unit", [1e12, 1e-12, 1e150, 1e-150])
def test_the_unit_of_a_random_slope_is_only_a_unit(unit: float) -> None:
    found, plain = (fit("y ~ day + (day | g)", visits().assign(day=lambda d, u=u: u * d["day"])) for u in (unit, 1.0))
    assert found.criterion == pytest.approx(plain.criterion - 2 * np.log(1 / unit), abs=1e-8)
    assert found.fixef["day"] * unit == pytest.approx(plain.fixef["day"], rel=1e-9)


@pytest.mark.parametrize(("origin", "tolerance"), [(50.0, 1e-9), (2000.0, 1e-9), (1e8, 1e-6)])
def test_the_origin_of_a_random_slope_is_only_an_origin(origin: float, tolerance: float) -> None:
    found, plain = (fit("y ~ day + (day | g)", visits().assign(day=lambda d, o=o: d["day"] + o)) for o in (origin, 0.0))
    assert found.criterion == pytest.approx(plain.criterion, abs=tolerance)
    assert found.fixef["day"] == pytest.approx(plain.fixef["day"], rel=tolerance)


# ------------------------------------------------------------------------------------------------------- weights, offset


def test_rows_of_weight_zero_are_as_if_they_were_not_there() -> None:
    weights = np.random.default_rng(0).uniform(0.5, 2, 60)
    weights[[3, 8]] = 0
    found = fit(weights=weights)
    assert found.criterion == fit(MODEL, visits().drop(index=[3, 8]), weights=np.delete(weights, [3, 8])).criterion
    assert (found.nobs, found.model.n_dropped, len(found.predict()), len(found.predict(visits()))) == (58, 2, 58, 60)


@pytest.mark.parametrize("size", [1e-300, 1e300, 1e-308, 5e307])
def test_a_common_size_of_the_weights_moves_sigma_alone(size: float) -> None:
    found, plain = fit(weights=np.full(60, size)), fit()
    assert found.criterion == pytest.approx(plain.criterion, rel=1e-12)
    assert found.sigma / np.sqrt(size) == pytest.approx(plain.sigma, rel=1e-12)


def test_weights_of_every_order_of_magnitude_at_once_are_refused() -> None:
    refused(lambda: fit(weights=np.where(np.arange(60) % 2, 1e-300, 1e300)), DataError, "weights")


@pytest.mark.parametrize(
    "given",
    [np.ones(59), np.ones((60, 1)), 2.0, ["a"] * 60, ["1"] * 60, {"a": 1}, np.ones(60) * 1j, pd.DataFrame({"w": np.ones(60)})],
    ids=str,
)
@pytest.mark.parametrize("argument", ["weights", "offset"])
def test_weights_and_offsets_are_one_number_per_row(given: Any, argument: str) -> None:
    refused(lambda: fit(**{argument: given}), DataError)


def test_an_offset_is_a_number_and_not_a_factor() -> None:
    refused(lambda: fit("y ~ offset(g) + (1 | h)"), DataError, "numbers are needed")


# --------------------------------------------------------------------------------------------------------- boundaries


def test_at_a_variance_of_zero_everything_is_least_squares() -> None:
    data = visits().assign(y=lambda d: np.random.default_rng(3).normal(size=60))
    data["y"] -= data.groupby("g")["y"].transform("mean")
    found, warnings = warned(lambda: fit(MODEL, data))
    X = np.column_stack([np.ones(60), data["x"]])
    alpha, sigma, criterion = least_squares(X, data["y"])
    assert found.singular
    assert warnings == []
    assert found.theta.tolist() == [0.0]
    assert found.fixef.to_numpy() == pytest.approx(alpha, abs=1e-14)
    assert np.sqrt(np.diag(found.vcov)) == pytest.approx(sigma * np.sqrt(np.diag(np.linalg.inv(X.T @ X))), rel=1e-12)
    assert found.criterion == pytest.approx(criterion, rel=1e-12)
    assert any("cs(1 | g)" in check.remedy for check in found.checks.values())


def test_errors_that_repel_each_other_have_a_negative_correlation() -> None:
    data = visits().assign(y=lambda d: np.random.default_rng(3).normal(size=60))
    data["y"] -= 0.999 * data.groupby("g")["y"].transform("mean")
    assert fit("y ~ x", data, residual="cs(visit | g)").R.iloc[0, 1] < 0
    assert fit(MODEL, data).singular


def test_a_model_without_random_terms_is_least_squares() -> None:
    found = fit("y ~ x")
    alpha, sigma, criterion = least_squares(np.column_stack([np.ones(60), visits()["x"]]), visits()["y"])
    assert found.fixef.to_numpy() == pytest.approx(alpha, rel=1e-12)
    assert (found.sigma, found.criterion) == pytest.approx((sigma, criterion), rel=1e-12)
    assert found.tidy(df="kenward-roger")["df"].tolist() == pytest.approx([58.0, 58.0])
    assert found.ranef() == {}


def test_one_visit_per_subject_leaves_independent_errors() -> None:
    data = visits().query("day == 0").assign(visit=lambda d: d["visit"].cat.remove_unused_categories())
    for structure in ("id", "cs", "us"):  # over one visit each is a variance
        assert fit("y ~ x", data, residual=f"{structure}(visit | g)").criterion == pytest.approx(fit("y ~ x", data).criterion)
    several = visits().groupby("g", observed=True).sample(1, random_state=1)
    refused(lambda: fit("y ~ x", several, residual="cs(visit | g)"), IdentifiabilityError)


def test_a_visit_nobody_has_is_one_warning_whether_it_is_kept_or_not() -> None:
    data = visits().assign(visit=lambda d: d["visit"].cat.add_categories("V99"))
    for structure, size in (("us", 6), ("toep", 6), ("ar1", 7), ("ar1h", 6)):
        found, (warning,) = warned(lambda structure=structure: fit("y ~ x", data, residual=f"{structure}(visit | g)"))
        assert found.R.shape == (size, size)
        assert "V99" in warning.what


@pytest.mark.parametrize(
    "terms", ["(1|g)+(1|g)", "(1+x|g)+(x|g)", "(x|g)+(1|g)", "(1|g)+(x||g)", "(1|g/h)+(1|g)", "(1|g:h)+(1|h:g)", "(g|g)"]
)
def test_a_term_given_twice_or_on_both_sides_is_refused(terms: str) -> None:
    refused(lambda: fit(f"y ~ x + {terms}"), FormulaError)


def test_groups_nested_in_name_only_are_noted() -> None:
    data = visits().assign(cask=lambda d: np.tile(np.repeat(list("abc"), 2), 10))
    assert "labels_in_several_groups" in noted(fit("y ~ 1 + (1 | g) + (1 | cask)", data))
