"""Levels and groups: what is noted, what cannot identify a variance, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bayeslmm.data.notes import near_twins
from bayeslmm.errors import DataError, IdentifiabilityError, SpecificationError
from tests.data.designs import build, days, notes

MODEL = "y ~ x + (1 | g)"


def refused(formula: str, data: pd.DataFrame, **options: str) -> IdentifiabilityError:
    """The reason why the likelihood alone would not do; none is raised before an estimate is asked for."""
    design = build(formula, data, **options)
    with pytest.raises(IdentifiabilityError) as caught:
        design.require_identified()
    return caught.value


# ----------------------------------------------------------------------------------------------------------------- notes


def test_unused_levels_are_left_out_and_noted() -> None:
    data = days().assign(arm=lambda d: d["arm"].cat.add_categories("OLD"), g=lambda d: pd.Categorical(d["g"], [f"s{i}" for i in range(12)]))
    design = build("y ~ arm + (1 | g)", data)
    assert design.coef_names == ("Intercept", "arm[T.TRT]")
    assert design.groups == {"g": 10}
    assert notes(design)["unused_levels"].value == {"g": ("s10", "s11"), "arm": ("OLD",)}


def test_levels_that_differ_in_blanks_or_case_are_noted() -> None:
    data = days().assign(g=lambda d: d["g"].replace({"s1": "s0 ", "s3": "S2"}))
    design = build(MODEL, data)
    assert design.groups == {"g": 10}
    assert notes(design)["near_twin_levels"].value == {"g": (("S2", "s2"), ("s0", "s0 "))}


def test_labels_that_print_alike_are_twins() -> None:
    assert near_twins(["café", "cafe\u0301", "tea"]) == (("café", "cafe\u0301"),)
    assert near_twins(["a\u200bb", "ab"]) == (("a\u200bb", "ab"),)
    assert near_twins([1, 2]) == ()


def test_integers_with_few_values_are_numbers_with_a_note() -> None:
    design = build("y ~ k + (1 | g)", days())
    assert design.coef_names == ("Intercept", "k")
    assert notes(design)["few_integer_values"].value == {"k": 3}
    assert "few_integer_values" not in notes(build("y ~ C(k) + (1 | g)", days()))


def test_two_groups_are_noted() -> None:
    assert notes(build("y ~ x + (1 | arm)", days()))["few_levels"].value == {"arm": 2}


def test_a_model_without_a_random_term_is_a_linear_model_and_noted() -> None:
    assert "no_random_term" in notes(build("y ~ x", days()))


@pytest.mark.parametrize("formula", ["y ~ 1 + (1 | batch) + (1 | cask)", "y ~ 1 + (1 | cask)"])
def test_labels_used_again_in_every_batch_are_noted(formula: str) -> None:
    data = days().assign(batch=lambda d: pd.Categorical(d["g"]), cask=np.tile(["a", "b", "c"], 20))
    assert notes(build(formula, data))["labels_in_several_groups"].value == (("cask", "batch"),)


def test_nested_labels_are_not_noted() -> None:
    data = days().assign(batch=lambda d: pd.Categorical(d["g"]), cask=np.tile(["a", "b", "c"], 20))
    assert notes(build("y ~ 1 + (1 | batch/cask)", data)) == {}


# -------------------------------------------------------------------------------------------------------- identification


def test_one_group_cannot_have_a_variance() -> None:
    assert "one level" in refused(MODEL, days().assign(g="a")).what


def test_one_row_per_group_cannot_be_told_from_the_errors() -> None:
    assert "one row" in refused(MODEL, days().assign(g=np.arange(60))).what


def test_as_many_random_effects_as_rows_are_refused() -> None:
    data = days().assign(g=np.repeat(np.arange(30), 2))
    assert "60 rows, 30 levels x 2 columns" in refused("y ~ x + (x | g)", data).where


def test_a_residual_structure_makes_as_many_effects_as_rows_a_matter_of_its_own() -> None:
    data = days().assign(g=np.repeat(np.arange(30), 2))
    build("y ~ x + (x | g)", data, residual="ar1(day | g)").require_identified()


def test_a_warning_takes_the_place_of_the_error_when_asked() -> None:
    design = build(MODEL, days().assign(g=np.arange(60)), check="warn")
    design.require_identified()
    assert notes(design)["identifiability"].verdict == "failed"


def test_crossed_factors_that_divide_the_rows_alike_are_both_named() -> None:
    data = days().assign(twin=lambda d: "t" + d["g"])
    assert "'g' and 'twin'" in refused("y ~ x + (1 | g) + (1 | twin)", data).what
    build("y ~ x + (1 | g) + (0 + x | twin)", data).require_identified()


def test_a_random_slope_of_a_constant_is_refused() -> None:
    assert "linearly dependent" in refused("y ~ x + (c | g)", days().assign(c=2.0)).what


def test_a_random_intercept_beside_compound_symmetry_is_refused() -> None:
    assert "common covariance" in refused("y ~ x + (1 | g)", days(), residual="cs(visit | g)").what
    build("y ~ x + (1 | g)", days(), residual="ar1(visit | g)").require_identified()


# ------------------------------------------------------------------------------------------------- relationship, contrasts


def kinship(labels: list[str], corr: float = 0.25) -> pd.DataFrame:
    return pd.DataFrame(corr + (1 - corr) * np.eye(len(labels)), index=labels, columns=labels)


def test_a_relationship_matrix_is_brought_into_the_order_of_the_levels() -> None:
    labels = [f"s{i}" for i in range(12)][::-1]
    matrix = kinship(labels)
    matrix.loc["s3", "s7"] = matrix.loc["s7", "s3"] = 0.5
    design = build(MODEL, days(), relationship={"g": matrix})
    given = design.terms[0].relationship
    assert given is not None
    assert given.shape == (10, 10)
    assert given[3, 7] == 0.5


def test_one_row_per_animal_is_fine_with_a_relationship() -> None:
    data = days().assign(g=[f"a{i}" for i in range(60)])
    build(MODEL, data, relationship={"g": kinship(list(data["g"]))}).require_identified()


def test_labels_missing_from_the_relationship_are_named() -> None:
    with pytest.raises(DataError, match="'s9'"):
        build(MODEL, days(), relationship={"g": kinship([f"s{i}" for i in range(9)])})


def test_an_improper_relationship_is_refused() -> None:
    labels = [f"s{i}" for i in range(10)]
    lopsided, indefinite = kinship(labels), kinship(labels)
    lopsided.iloc[0, 1] = 0.9
    indefinite.iloc[0, 1] = indefinite.iloc[1, 0] = 3.0
    with pytest.raises(DataError, match="symmetric"):
        build(MODEL, days(), relationship={"g": lopsided})
    with pytest.raises(DataError, match="semi-definite"):
        build(MODEL, days(), relationship={"g": indefinite})
    with pytest.raises(DataError, match="no labels"):
        build(MODEL, days(), relationship={"g": np.eye(10)})
    with pytest.raises(SpecificationError, match="not a grouping factor"):
        build(MODEL, days(), relationship={"gg": kinship(labels)})


def test_contrasts_of_a_column_that_is_no_factor_are_refused() -> None:
    for name in ("x", "armm"):
        with pytest.raises(SpecificationError, match=repr(name)):
            build("y ~ x + arm + (1 | g)", days(), contrasts={name: "sum"})


def test_a_contrast_matrix_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecificationError, match="2 levels"):
        build("y ~ arm + (1 | g)", days(), contrasts={"arm": ((1.0,), (0.0,), (-1.0,))})
    with pytest.raises(SpecificationError, match="unknown contrasts"):
        build("y ~ arm + (1 | g)", days(), contrasts={"arm": "total"})


@pytest.mark.parametrize("role", ["y ~ C(arm) + (1 | g)", "y ~ x + (1 | arm)", "y ~ arm + (1 | g)"])
def test_zeros_of_transport_files_are_told_and_are_0_among_levels(role: str) -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": rng.normal(size=60), "g": np.repeat(np.arange(10), 6), "arm": np.tile([0.0, 1.0, 2.0], 20)})
    data["y"] = rng.normal(size=60)
    read = data.assign(arm=data["arm"].replace(0.0, 2.0**-260))
    design = build(role, read)
    assert notes(design)["transport_zeros"].value == ("arm",)
    plain = build(role, data)
    assert "transport_zeros" not in notes(plain)
    assert design.coef_names == plain.coef_names
    assert all(list(a.group.levels) == list(b.group.levels) for a, b in zip(design.terms, plain.terms, strict=True))
    mended = eval(notes(design)["transport_zeros"].remedy.rpartition("data = ")[2], {"data": read})  # noqa: S307
    assert "transport_zeros" not in notes(build(role, mended))


@pytest.mark.parametrize(("subjects", "items"), [(20, 8), (30, 24), (8, 40), (60, 6)])
def test_a_crossed_design_is_not_taken_for_a_nested_one(subjects: int, items: int) -> None:
    subject, item = np.divmod(np.arange(subjects * items), items)
    data = pd.DataFrame({"y": np.random.default_rng(0).normal(size=len(item)), "subj": subject, "item": [f"w{i}" for i in item]})
    assert "labels_in_several_groups" not in notes(build("y ~ 1 + (1 | subj) + (1 | item)", data))
