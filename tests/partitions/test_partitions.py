"""A fit on rows read in parts is the fit on the rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError, EmptyDataError, FormulaError, InferenceError, NonFiniteError, SpecificationError
from bayeslmm.partitions.moments import IncrementalQR
from tests.laws.designs import frame

# Sums in another order differ by rounding; the search stops at a predicted decrease of 1e-8, so estimates differ by its square root at
# worst, and by far less where Newton's method has converged quadratically.
CRITERION = 1e-10
ESTIMATES = 1e-7


def data() -> pd.DataFrame:
    made = frame(3, 160)
    rng = np.random.default_rng(1)
    made["label"] = made["f"].astype(str)
    made.loc[rng.choice(len(made), 7, replace=False), "x"] = np.nan
    made["level_as_number"] = rng.integers(1, 5, len(made))
    return made


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "intercepts": ("y ~ x + (1 | subject)", {}),
    "slopes": ("y ~ x + f + (x | subject)", {}),
    "text": ("y ~ x * label + (1 | subject)", {}),
    "nested": ("y ~ x + (1 | site/subject)", {}),
    "crossed": ("y ~ x + z + (1 + z | subject) + (1 | item)", {}),
    "factor slopes": ("y ~ z + (0 + f | item)", {}),
    "structures": ("y ~ z + cs(0 + f | item) + diag(1 + z | subject)", {}),
    "serial": ("y ~ z + ar1(0 + f | item)", {}),
    "weights": ("y ~ x + (1 | subject)", {"weights": "w"}),
    "offset": ("y ~ x + offset(log(w)) + (1 | subject)", {"offset": "z"}),
    "expressions": ("log(y + 100) ~ I(x ** 2) + x + (1 | subject)", {}),
    "coded": ("y ~ C(level_as_number) + level_as_number + (1 | subject)", {}),
    "contrasts": ("y ~ f + (1 | subject)", {"contrasts": {"f": "sum"}}),
    "no intercept": ("y ~ 0 + x + (1 | subject)", {}),
    "far away": ("y ~ I(x + 100000) + (I(x + 100000) | subject)", {}),
    "no random term": ("y ~ x + f", {}),
}


def divided(rows: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """The rows in another order, in parts of very different sizes, one of them empty."""
    rng = np.random.default_rng(seed)
    shuffled = rows.iloc[rng.permutation(len(rows))]
    cuts = [0, 1, 3, 3, 40, len(rows)]
    return [shuffled.iloc[a:b] for a, b in pairwise(cuts)]


def same_fit(one: blm.Fit, other: blm.Fit) -> None:
    size = max(1.0, abs(one.criterion))
    assert abs(one.criterion - other.criterion) < CRITERION * size
    assert (one.nobs, one.df_model, one.model.n_dropped) == (other.nobs, other.df_model, other.model.n_dropped)
    pd.testing.assert_series_equal(one.fixef, other.fixef, rtol=ESTIMATES, atol=ESTIMATES)
    pd.testing.assert_frame_equal(one.vcov, other.vcov, rtol=ESTIMATES, atol=ESTIMATES)
    pd.testing.assert_frame_equal(one.varcorr, other.varcorr, rtol=1e-5, atol=1e-5)
    for group, modes in one.ranef().items():
        pd.testing.assert_frame_equal(modes, other.ranef()[group], rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("name", MODELS)
def test_a_fit_in_parts_is_the_fit_in_memory(name: str) -> None:
    formula, options = MODELS[name]
    rows = data()
    whole = blm.LMM(formula, rows, **options)
    for seed in (0, 1):
        parts = blm.from_partitions(formula, divided(rows, seed), **options)
        assert parts.coef_names == whole.coef_names
        assert parts.groups == whole.groups
        for method in ("REML", "ML"):
            same_fit(whole.fit(method), parts.fit(method))


@pytest.mark.parametrize("name", ["slopes", "crossed", "weights"])
def test_the_criterion_is_the_same_to_ten_digits_at_any_theta(name: str) -> None:
    formula, options = MODELS[name]
    whole, parts = blm.LMM(formula, data(), **options), blm.from_partitions(formula, divided(data(), 2), **options)
    rng = np.random.default_rng(0)
    for _ in range(5):
        theta = rng.normal(size=whole.problem.size) * 0.1
        for method in ("REML", "ML"):
            one, other = whole.criterion(theta, method), parts.criterion(theta, method)
            assert abs(one - other) < 1e-10 * max(1.0, abs(one))


def test_tests_and_predictions_need_no_rows() -> None:
    rows = data().dropna()
    whole = blm.LMM("y ~ x + f + (1 | subject)", rows).fit()
    parts = blm.from_partitions("y ~ x + f + (1 | subject)", divided(rows, 0)).fit()
    pd.testing.assert_frame_equal(whole.tidy(conf_int=True), parts.tidy(conf_int=True), rtol=1e-5)
    pd.testing.assert_frame_equal(whole.contrast("x = 1").frame, parts.contrast("x = 1").frame, rtol=1e-5)
    pd.testing.assert_frame_equal(whole.predict(rows, interval="prediction"), parts.predict(rows, interval="prediction"), rtol=1e-6)
    assert "Random effects" in str(parts.summary())
    assert parts.update(". ~ . - f").df_model == parts.df_model - 2


def test_what_needs_rows_says_so_with_a_remedy() -> None:
    fit = blm.from_partitions("y ~ x + (1 | subject)", divided(data(), 0)).fit()
    wants: list[Callable[[], Any]] = [
        fit.residuals,
        fit.fitted,
        fit.augment,
        fit.predict,
        lambda: fit.simulate(1),
        lambda: fit.refit(np.zeros(fit.nobs)),
        lambda: fit.rows,
        lambda: fit.model.X,
        lambda: fit.covariance(vcov="CR2"),
        fit.influence,
    ]
    for want in wants:
        with pytest.raises(InferenceError) as caught:
            want()
        assert "added up and not kept" in caught.value.what
        assert "newdata" in caught.value.remedy


def test_labels_that_come_late_are_sorted_as_in_memory() -> None:
    rows = data().dropna().sort_values("label", ascending=False, kind="stable")
    whole = blm.LMM("y ~ label + (1 | subject)", rows).fit()
    parts = blm.from_partitions("y ~ label + (1 | subject)", [rows[rows["label"] == level] for level in ("c", "b", "a")]).fit()
    assert parts.model.coef_names == ["Intercept", "label[T.b]", "label[T.c]"]
    same_fit(whole, parts)


def test_a_column_that_depends_on_another_only_in_part_is_kept() -> None:
    rows = data().dropna().assign(twin=lambda d: d["x"])
    first, last = rows.iloc[:50], rows.iloc[50:].assign(twin=0.0)
    fit = blm.from_partitions("y ~ x + twin + (1 | subject)", [first, last]).fit()
    assert not fit.model.design.aliased
    with pytest.warns(blm.errors.BayesLMMWarning, match="twin"):
        aliased = blm.from_partitions("y ~ x + twin + (1 | subject)", [first, rows.iloc[50:]]).fit()
    assert aliased.fixef.isna().to_dict() == {"Intercept": False, "x": False, "twin": True}


def test_a_known_relationship_is_that_of_all_levels() -> None:
    rows = data().dropna()
    levels = sorted(rows["item"].unique())
    A = pd.DataFrame(0.5 * np.eye(len(levels)) + 0.5, index=levels, columns=levels)
    whole = blm.LMM("y ~ x + (1 | item)", rows, relationship={"item": A}).fit()
    same_fit(whole, blm.from_partitions("y ~ x + (1 | item)", divided(rows, 0), relationship={"item": A}).fit())


# -- where partitions come from ----------------------------------------------------------------------------------------------------------


def sources(rows: pd.DataFrame, folder: Path) -> dict[str, Any]:
    dask = pytest.importorskip("dask.dataframe")
    parts = divided(rows, 4)
    plain = rows.astype({"subject": str})
    plain.to_csv(folder / "rows.csv", index=False)
    plain.iloc[:50].to_parquet(folder / "a.parquet")
    plain.iloc[50:].to_parquet(folder / "b.parquet")

    def made() -> Iterator[pd.DataFrame]:
        yield from parts

    return {
        "list": parts,
        "function": made,
        "polars": [pl.from_pandas(part) for part in parts],
        "mappings": [{name: part[name].to_numpy() for name in ("y", "x", "subject")} for part in parts],
        "csv": folder / "rows.csv",
        "parquet": [folder / "a.parquet", folder / "b.parquet"],
        "dask": dask.from_pandas(rows, npartitions=3),
    }


def test_partitions_come_as_frames_functions_files_and_dask(tmp_path: Path) -> None:
    rows = data().dropna()
    whole = blm.LMM("y ~ x + (1 | subject)", rows).fit()
    for name, source in sources(rows, tmp_path).items():
        fit = blm.from_partitions("y ~ x + (1 | subject)", source, rows=37).fit()
        assert abs(fit.criterion - whole.criterion) < 1e-9, name
        assert fit.fixef.to_numpy() == pytest.approx(whole.fixef.to_numpy(), rel=1e-6), name


def test_polars_frames_are_fitted_in_parts() -> None:
    rows = data().dropna()
    fit = blm.from_partitions("y ~ x + f + (1 | subject)", [pl.from_pandas(part) for part in divided(rows, 1)]).fit()
    assert abs(fit.criterion - blm.LMM("y ~ x + f + (1 | subject)", rows).fit().criterion) < 1e-9


# -- refusals ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "options", "error"),
    [
        ("y ~ poly(z, 2) + (1 | subject)", {}, FormulaError),
        ("y ~ f(z) + (1 | subject)", {"functions": {"f": lambda z: z - z.mean()}}, FormulaError),
        ("y ~ nothing + (1 | subject)", {}, DataError),
        ("y ~ log(x - 1000) + (1 | subject)", {}, NonFiniteError),
        ("y ~ x + (1 | subject)", {"missing": "raise"}, DataError),
        ("y ~ x + (1 | subject)", {"weights": [1.0, 2.0]}, SpecificationError),
    ],
)
def test_what_cannot_be_read_in_parts_is_refused(formula: str, options: dict[str, Any], error: type[BayesLMMError]) -> None:
    with pytest.raises(error) as caught:
        blm.from_partitions(formula, divided(data(), 0), **options)
    assert caught.value.remedy


def test_a_function_of_single_rows_is_taken() -> None:
    model = blm.from_partitions("y ~ f(z) + (1 | subject)", divided(data(), 0), functions={"f": np.square})
    assert model.coef_names == ["Intercept", "f(z)"]


@pytest.mark.parametrize("source", [iter([pd.DataFrame()]), 3, pd.DataFrame({"y": [1.0]})])
def test_a_source_that_cannot_be_read_twice_is_refused(source: Any) -> None:
    with pytest.raises(SpecificationError):
        blm.from_partitions("y ~ 1", source)


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(EmptyDataError):
        blm.from_partitions("y ~ x", [])
    with pytest.raises(EmptyDataError, match="'x' empties"):
        blm.from_partitions("y ~ x", [data().assign(x=np.nan)] * 2)


def test_two_groupings_that_are_one_are_not_identified() -> None:
    rows = data().dropna().assign(same=lambda d: "s" + d["subject"].astype(str))
    model = blm.from_partitions("y ~ x + (1 | subject) + (1 | same)", divided(rows, 0))
    with pytest.raises(blm.errors.IdentifiabilityError, match="alike"):
        model.fit()


def test_an_error_names_the_partition() -> None:
    rows = data()
    bad = rows.assign(x=np.inf)
    with pytest.raises(NonFiniteError) as caught:
        blm.from_partitions("y ~ x + (1 | subject)", [rows, bad])
    assert caught.value.where.startswith("partition 2")


# -- a few rows that stand for all -------------------------------------------------------------------------------------------------------


def test_rows_of_a_triangle_have_the_means_and_products_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    M = np.column_stack([np.ones(500), rng.normal(size=500) + 1e6, rng.exponential(size=500)])
    w = rng.uniform(0.5, 2.0, 500)
    triangle = IncrementalQR()
    for part in np.array_split(np.arange(500), 7):
        triangle.add(M[part], np.sqrt(w[part]))
    rows = triangle.rows()
    center = np.average(M, axis=0, weights=w)
    assert np.all(rows[:, 0] == 1.0)
    assert rows.mean(0) == pytest.approx(center, rel=1e-12)
    covariance = (M - center).T @ ((M - center) * w[:, None]) / w.sum()
    assert (rows - center).T @ (rows - center) / len(rows) == pytest.approx(covariance, abs=1e-6)


def test_few_rows_at_first_do_not_refuse_a_column_that_all_rows_make_a_factor() -> None:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame({"g": rng.integers(0, 8, 120).astype(str), "x": rng.normal(size=120), "y": rng.normal(size=120)})
    whole = blm.LMM("y ~ g + (x | g)", rows, check="warn")
    for cut in (1, 2, 5, 13):
        model = blm.from_partitions("y ~ g + (x | g)", [rows[:cut], rows[cut:]], check="warn")
        theta = [1.0, 0.1, 0.5]
        assert model.criterion(theta, "ML") == pytest.approx(whole.criterion(theta, "ML"), rel=1e-10)


def test_levels_without_rows_are_noted_of_slopes_too() -> None:
    rng = np.random.default_rng(6)
    rows = pd.DataFrame({"g": rng.integers(0, 9, 150), "y": rng.normal(size=150)})
    rows["f"] = pd.Categorical.from_codes(rng.integers(0, 3, 150), ["low", "mid", "high", "never"])
    whole = blm.LMM("y ~ 1 + (0 + f | g)", rows).design.notes
    parts = blm.from_partitions("y ~ 1 + (0 + f | g)", [rows[:60], rows[60:]]).design.notes
    assert [note.name for note in parts] == [note.name for note in whole]
    assert "unused_levels" in [note.name for note in parts]
