"""A fit on sums that the engine of a table makes is the fit on its rows in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError, EmptyDataError, FormulaError, MissingDataError, NonFiniteError, SpecificationError
from tests.laws.designs import frame

duckdb = pytest.importorskip("duckdb", reason="tables are read by DuckDB")

CRITERION = 1e-9
ESTIMATES = 1e-9
"""In standard errors."""

FAR = 1e-7
"""The same where a covariate starts at 10^8: rows in memory have that many digits fewer of the fit that is taken off the response."""


def data(seed: int = 3) -> pd.DataFrame:
    made = frame(seed, 160)
    rng = np.random.default_rng(seed)
    made["label"] = made["f"].astype(str).replace(made["f"].astype(str).iloc[0], "it's")
    made["female"] = rng.random(len(made)) < 0.4
    made["level_as_number"] = rng.integers(1, 5, len(made))
    made["far"] = rng.normal(size=len(made)) + 1e8
    made["dose"] = rng.choice([0.1, 0.25, 1.5], len(made))
    made.loc[rng.choice(len(made), 7, replace=False), "x"] = np.nan
    made.loc[rng.choice(len(made), 5, replace=False), "z"] = np.nan
    for name in ("f", "subject", "site", "item"):
        if isinstance(made[name].dtype, pd.CategoricalDtype):
            made[name] = made[name].astype(made[name].cat.categories.dtype)
    return made


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "intercepts": ("y ~ x + (1 | subject)", {}),
    "slopes": ("y ~ x + f + (x | subject)", {}),
    "uncorrelated": ("y ~ x + (x || subject)", {}),
    "text": ("y ~ x * label + (1 | subject)", {}),
    "booleans": ("y ~ female * z + (1 | subject)", {}),
    "nested": ("y ~ x + (1 | site/subject)", {}),
    "crossed": ("y ~ x + z + (1 + z | subject) + (1 | item)", {}),
    "factor slopes": ("y ~ z + (0 + f | item)", {}),
    "structures": ("y ~ z + cs(0 + f | item) + diag(1 + z | subject)", {}),
    "weights": ("y ~ x + (x | subject)", {"weights": "w"}),
    "offset": ("y ~ x + offset(log(w)) + (1 | subject)", {"offset": "z"}),
    "expressions": ("log(y + 100) ~ I(x ** 2) + x + sqrt(w) + I(x > 0) + exp(-z ^ 2) + (1 | subject)", {}),
    "functions": ('y ~ maximum(x, z) + log1p(w) + round(z) + I(x % 0.7) + I(label == "it\'s") + (1 | item)', {}),
    "coded": ("y ~ C(level_as_number) + C(dose) + (1 | subject)", {}),
    "contrasts": ("y ~ f * x + label:z + (1 | subject)", {"contrasts": {"f": "sum", "label": "helmert"}}),
    "no intercept": ("y ~ 0 + x + (1 | subject)", {}),
    "far away": ("y ~ far + (far | subject)", {}),
    "far squared": ("y ~ far + I((far - 100000000) ** 2) + x:far + (1 | subject)", {"weights": "w"}),
    "aliased": ("y ~ x + z + I(x + 2 * z) + (1 | subject)", {}),
    "no random term": ("y ~ x + f", {}),
    "levels sum to the intercept": ("y ~ 0 + f + (1 | subject)", {}),
    "levels and slopes": ("y ~ 0 + label:x + C(dose) + (x | subject)", {"weights": "w"}),
    "squares of levels": ("y ~ 0 + female + C(level_as_number) + (1 | item)", {"weights": "w"}),
}


def same_fit(one: blm.Fit, other: blm.Fit, tolerance: float = ESTIMATES) -> None:
    assert abs(one.criterion - other.criterion) < CRITERION * max(1.0, abs(one.criterion))
    assert (one.nobs, one.df_model, one.model.n_dropped) == (other.nobs, other.df_model, other.model.n_dropped)
    assert dict(one.model.design.dropped) == dict(other.model.design.dropped)
    errors = np.sqrt(np.diagonal(one.vcov))
    aliased = np.isnan(one.fixef.to_numpy())
    assert list(one.fixef.index) == list(other.fixef.index)
    np.testing.assert_array_equal(aliased, np.isnan(other.fixef.to_numpy()))
    unit = np.where(np.isfinite(errors), errors, 1.0)
    np.testing.assert_allclose(other.fixef / unit, one.fixef / unit, rtol=0.0, atol=tolerance)
    np.testing.assert_allclose(other.vcov / np.outer(unit, unit), one.vcov / np.outer(unit, unit), rtol=0.0, atol=tolerance)
    # a variance on its boundary stands where the search ends: at the root of what the criterion can tell
    pd.testing.assert_frame_equal(one.varcorr, other.varcorr, rtol=tolerance, atol=1e-7)
    for own, theirs in zip(one.model.design.response_size, other.model.design.response_size, strict=True):
        assert abs(own - theirs) <= 1e-9 * own
    for group, modes in one.ranef().items():
        pd.testing.assert_frame_equal(modes, other.ranef()[group], rtol=tolerance, atol=1e-7)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("name", MODELS)
def test_a_fit_on_a_table_is_the_fit_in_memory(name: str) -> None:
    formula, options = MODELS[name]
    rows = data()
    whole, fit = blm.LMM(formula, rows, **options).fit(), blm.from_table(formula, duckdb.from_df(rows), **options).fit()
    same_fit(whole, fit, FAR if "far" in formula else ESTIMATES)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("seed", range(6))
def test_random_designs_agree(seed: int) -> None:
    """Balanced or not, weights of 0 among them, a covariate far from 0, levels of every type, crossed and nested."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(80, 300))
    rows = pd.DataFrame(
        {
            "a": rng.integers(0, 9, n),
            "b": rng.choice(["u", "v", "w w", 'x"y'], n),
            "t": rng.normal(size=n) * 10.0 ** rng.integers(-4, 5) + rng.choice([0.0, 1e8, -1e6]),
            "z": rng.normal(size=n),
            "w": rng.choice([0.0, 0.5, 2.0, 1e3], n),
        }
    )
    line = rng.normal(size=9)[rows.a.to_numpy()]
    rows["y"] = 1e6 + line + rng.normal(size=n) + rows.z * (1 + line)
    rows.loc[rng.random(n) < 0.05, ["z", "b"]] = None
    formula = str(rng.choice(["y ~ t * b + z + (z | a)", "y ~ z + t + (1 | a) + (1 | b)", "y ~ b + t + (z || a) + (1 | a:b)"]))
    weights = str(rng.choice(["", "w"])) or None
    if "*" in formula and abs(rows.t.mean()) > 2.0**28 * np.ptp(rows.t):
        with pytest.raises(DataError, match="'t' starts"):
            blm.from_table(formula, duckdb.from_df(rows), weights=weights)
        return
    model, table = (made(formula, given, weights=weights) for made, given in ((blm.LMM, rows), (blm.from_table, duckdb.from_df(rows))))
    for theta in (np.ones(len(model.fit().theta)), rng.uniform(0.2, 1.0, len(model.fit().theta))):
        expected = model.criterion(theta)
        assert abs(table.criterion(theta) - expected) < CRITERION * abs(expected)


@pytest.mark.parametrize("weights", [None, "w"])
def test_a_response_far_from_0_beside_products_of_a_far_covariate(weights: str | None) -> None:
    """The fit that is taken off such a response holds the product of both origins' roundings: the rows are the same nevertheless."""
    rng = np.random.default_rng(5)
    rows = pd.DataFrame({"g": rng.integers(0, 12, 150), "arm": rng.choice(list("uvw"), 150), "x": rng.normal(1e8, 1, 150)})
    rows["w"] = rng.uniform(0.5, 2.0, 150)
    rows["y"] = 1e8 + rng.normal(size=12)[rows.g] + rng.normal(size=150)
    formula = "y ~ x * arm + (1 | g)"
    whole = blm.LMM(formula, rows, weights=weights).fit("ML")
    table = blm.from_table(formula, duckdb.from_df(rows), weights=weights).fit("ML")
    # both origins are 10^8 sds: neither holds more than half the digits of what is left
    assert abs(table.criterion - whole.criterion) < 1e-8 * abs(whole.criterion)
    np.testing.assert_allclose(table.anova()["statistic"], whole.anova()["statistic"], rtol=1e-5)


def tables(rows: pd.DataFrame, folder: Path) -> Sequence[tuple[str, Any]]:
    connection = duckdb.connect()
    path = str(folder / "rows.parquet")
    connection.sql("SELECT * FROM rows").write_parquet(path)
    connection.execute("CREATE TABLE stored AS SELECT * FROM rows")
    return [("parquet", connection.read_parquet(path)), ("stored", connection.table("stored")), ("query", connection.sql("FROM stored"))]


def test_tables_views_and_parquet_files_are_read(tmp_path: Path) -> None:
    rows, formula = data(), "y ~ x * label + (x | subject) + (1 | item)"
    whole = blm.LMM(formula, rows).fit()
    for _, table in tables(rows, tmp_path):
        same_fit(whole, blm.from_table(formula, table).fit())


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
def test_an_expression_of_ibis_is_read() -> None:
    ibis = pytest.importorskip("ibis", reason="Ibis is not installed")
    rows, backend = data(), ibis.duckdb.connect()
    backend.con.register("given", rows)
    backend.raw_sql("CREATE TABLE visits AS SELECT * FROM given")
    visits = backend.table("visits")
    table = visits.filter(visits.w > 0.5).mutate(double=visits.x * 2)
    same_fit(
        blm.LMM("y ~ double + (1 | subject)", rows[rows.w > 0.5].assign(double=lambda d: d.x * 2)).fit(),
        blm.from_table("y ~ double + (1 | subject)", table).fit(),
    )


def test_an_enumeration_keeps_the_order_of_its_levels() -> None:
    rows = data().dropna()
    rows["arm"] = pd.Categorical(np.where(rows.z > 0.3, "low", np.where(rows.z > -0.3, "placebo", "high")), ["placebo", "low", "high"])
    fit = blm.from_table("y ~ arm + (1 | subject)", duckdb.from_df(rows)).fit()
    assert list(fit.fixef.index) == ["Intercept", "arm[T.low]", "arm[T.high]"]
    same_fit(blm.LMM("y ~ arm + (1 | subject)", rows).fit(), fit)


def test_what_follows_from_sums_is_all_there(tmp_path: Path) -> None:
    rows, formula = data(), "y ~ x + f + (x | subject)"
    whole, fit = blm.LMM(formula, rows).fit(), blm.from_table(formula, duckdb.from_df(rows)).fit()
    for verb in (
        lambda one: one.tidy(df="satterthwaite"),
        lambda one: one.anova(),
        lambda one: one.emmeans("f").frame,
        lambda one: one.emmeans("f", weights="proportional").frame,
        lambda one: one.r2(),
        lambda one: pd.DataFrame(one.predict(rows.head(9).fillna(0.0))),
    ):
        pd.testing.assert_frame_equal(verb(whole), verb(fit), rtol=1e-5, atol=1e-6)
    fit.save(tmp_path / "fit.blm")
    assert blm.load(tmp_path / "fit.blm").criterion == fit.criterion
    smaller = fit.model.updated(". ~ . - f").fit()
    assert abs(smaller.criterion - blm.LMM("y ~ x + (x | subject)", rows).fit().criterion) < CRITERION * abs(smaller.criterion)


def test_rows_of_interactions_that_the_first_rows_lack_span_the_columns() -> None:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame({"g": rng.integers(0, 5, 3000).astype(str), "x": np.zeros(3000), "z": np.ones(3000)})
    rows.loc[2995:, "x"] = [1.0, 2.0, 4.0, 8.0, 9.0]
    rows.loc[2990:2994, "z"] = [3.0, 4.0, 1.5, 7.0, 2.0]
    rows["y"] = rng.normal(size=3000)
    model = blm.from_table("y ~ x + z + I(x ** 2) + (1 | g)", duckdb.from_df(rows))
    assert np.linalg.matrix_rank(np.vander(model.design.spanning_frame["x"])) >= 3
    assert model.fit().df_model == 6


REFUSED: dict[str, tuple[str, dict[str, Any], type[BayesLMMError], str]] = {
    "splines": ("y ~ bs(x, df=4) + (1 | subject)", {}, FormulaError, "bs"),
    "polynomials": ("y ~ poly(x, 2) + (1 | subject)", {}, FormulaError, "poly"),
    "own functions": ("y ~ dose_of(x) + (1 | subject)", {}, FormulaError, "dose_of"),
    "absent columns": ("y ~ xx + (1 | subject)", {}, DataError, "xx"),
    "text as numbers": ("label ~ x + (1 | subject)", {}, DataError, "label"),
    "not finite": ("y ~ log(x - 1000) + (1 | subject)", {}, NonFiniteError, "log"),
    "missing": ("y ~ x + (1 | subject)", {"missing": "raise"}, MissingDataError, "x"),
    "negative weights": ("y ~ w + (1 | subject)", {"weights": "far_below"}, DataError, "negative"),
    "times": ("y ~ day + (1 | subject)", {}, DataError, "day"),
    "arrays of weights": ("y ~ x + (1 | subject)", {"weights": np.ones(160)}, SpecificationError, "weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_sql_cannot_say_is_refused_by_name(name: str) -> None:
    formula, options, kind, word = REFUSED[name]
    rows = data().assign(far_below=-1.0, day=pd.Timestamp("2024-01-01"))
    with pytest.raises(kind) as caught:
        blm.from_table(formula, duckdb.from_df(rows), **options)
    assert word in str(caught.value)


def test_functions_are_no_option_and_rows_of_a_table_have_no_order() -> None:
    with pytest.raises((BayesLMMError, TypeError), match="functions"):
        blm.from_table("y ~ x + (1 | subject)", duckdb.from_df(data()), functions={})  # type: ignore[call-arg]
    with pytest.raises(SpecificationError, match="order of the rows"):
        blm.from_table("y ~ x", duckdb.from_df(data()), residual="ar1(1 | subject)")


def test_anything_but_a_table_is_refused() -> None:
    with pytest.raises(SpecificationError, match="DataFrame"):
        blm.from_table("y ~ x + (1 | subject)", data())  # type: ignore[arg-type]
    with pytest.raises(EmptyDataError):
        blm.from_table("y ~ x + (1 | subject)", duckdb.from_df(data()).filter("x > 1e9"))


def test_an_error_of_the_engine_is_told() -> None:
    table = duckdb.sql("SELECT 1.0 AS y, 2.0 AS x, 'a' AS g, CAST(error('no such file') AS DOUBLE) AS z")
    with pytest.raises(DataError, match="engine refuses"):
        blm.from_table("y ~ z + (1 | g)", table)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | subject) + (1 | alias)", "y ~ x + (1 | row)", "y ~ x + (1 | one)"])
def test_what_the_likelihood_cannot_tell_is_refused_as_in_memory(formula: str) -> None:
    rows = data()
    rows = rows.assign(alias="s" + rows.subject.astype(str), row=np.arange(len(rows)), one="a")
    told = []
    for made, given in ((blm.LMM, rows), (blm.from_table, duckdb.from_df(rows))):
        with pytest.raises(BayesLMMError) as caught:
            made(formula, given).fit()
        told.append((type(caught.value), caught.value.what))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "query", ["SELECT * REPLACE (random() AS x) FROM rows", "SELECT * REPLACE (y + random() AS y) FROM rows", "SAMPLE"]
)
def test_a_table_that_changes_between_readings_is_refused(query: str) -> None:
    connection = duckdb.connect()
    connection.register("rows", pd.concat([data().dropna()] * 9))
    table = connection.sql(query if query != "SAMPLE" else "SELECT * FROM rows WHERE random() < 0.5")
    with pytest.raises(BayesLMMError, match="other rows"):
        blm.from_table("y ~ x + (1 | subject)", table)
