"""LMMRegressor behaves as scikit-learn expects of an estimator, and predicts what the fit predicts."""

from __future__ import annotations

import doctest
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError, PredictionError, SpecificationError

pytest.importorskip("sklearn")

from sklearn.base import clone, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from bayeslmm.model import sklearn as regressor

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def rows() -> pd.DataFrame:
    return blm.load_dataset("sleepstudy")


def test_it_predicts_what_the_fit_predicts(rows: pd.DataFrame) -> None:
    fit = blm.LMM(FORMULA, rows).fit()
    X, y = rows[["Days", "Subject"]], rows["Reaction"]
    estimator = blm.LMMRegressor(FORMULA).fit(X, y)
    assert is_regressor(estimator)
    assert estimator.fit_.criterion == fit.criterion
    np.testing.assert_array_equal(estimator.predict(X), fit.predict(rows)["estimate"])
    assert estimator.score(X, y) == pytest.approx(1 - (fit.residuals() ** 2).sum() / ((y - y.mean()) ** 2).sum())
    population = blm.LMMRegressor(FORMULA, level="population").fit(X, y).predict(X)
    np.testing.assert_array_equal(population, fit.predict(rows, level="population")["estimate"])
    assert estimator.feature_names_in_.tolist() == ["Days", "Subject"]


def test_parameters_are_got_set_and_cloned() -> None:
    estimator = blm.LMMRegressor(FORMULA, method="ML", contrasts={"f": "sum"})
    assert estimator.get_params()["formula"] == FORMULA
    copy = clone(estimator)
    assert copy is not estimator
    assert copy.get_params() == estimator.get_params()
    assert copy.set_params(method="REML").method == "REML"
    assert estimator.method == "ML"
    assert "LMMRegressor" in repr(estimator)


def test_grouped_cross_validation_meets_new_subjects(rows: pd.DataFrame) -> None:
    X, y = rows[["Days", "Subject"]], rows["Reaction"]
    scores = cross_val_score(blm.LMMRegressor(FORMULA), X, y, groups=X["Subject"], cv=GroupKFold(3), error_score="raise")
    assert len(scores) == 3
    assert np.isfinite(scores).all()
    search = GridSearchCV(blm.LMMRegressor(FORMULA), {"formula": [FORMULA, "Reaction ~ 1 + (1 | Subject)"]}, cv=GroupKFold(3))
    search.fit(X, y, groups=X["Subject"])
    assert search.best_params_ == {"formula": FORMULA}


def test_it_stands_at_the_end_of_a_pipeline_and_under_a_transformed_target(rows: pd.DataFrame) -> None:
    X, y = rows[["Days", "Subject"]], rows["Reaction"]
    pipeline = make_pipeline(FunctionTransformer(lambda frame: frame.assign(Days=frame["Days"] / 7)), blm.LMMRegressor(FORMULA)).fit(X, y)
    np.testing.assert_allclose(pipeline.predict(X), blm.LMMRegressor(FORMULA).fit(X, y).predict(X), rtol=1e-6)
    logged = TransformedTargetRegressor(
        blm.LMMRegressor("y ~ Days + (Days | Subject)"), func=np.log, inverse_func=np.exp, check_inverse=False
    )
    logged.fit(X, y)
    expected = np.exp(blm.LMM("log(Reaction) ~ Days + (Days | Subject)", rows).fit().fitted())
    np.testing.assert_allclose(logged.predict(X), expected, rtol=1e-6)


def test_polars_goes_in_and_comes_out_where_asked(rows: pd.DataFrame) -> None:
    X, y = pl.from_pandas(rows[["Days", "Subject"]].astype({"Subject": str})), pl.Series(rows["Reaction"].to_numpy())
    estimator = blm.LMMRegressor(FORMULA).fit(X, y)
    plain = estimator.predict(X)
    np.testing.assert_allclose(plain, blm.LMM(FORMULA, rows).fit().fitted(), rtol=1e-7)
    table = estimator.predict(X, interval="prediction", output="polars")
    assert isinstance(table, pl.DataFrame)
    assert table.columns == ["estimate", "std_error", "conf_low", "conf_high"]
    np.testing.assert_array_equal(table["estimate"].to_numpy(), plain)
    assert estimator.predict(X, output="pandas").columns.tolist() == ["estimate"]
    assert estimator.predict(X, interval="confidence").shape == (180, 4)


def test_weights_of_rows_are_those_of_the_model(rows: pd.DataFrame) -> None:
    weights = np.linspace(0.5, 2.0, len(rows))
    estimator = blm.LMMRegressor(FORMULA).fit(rows[["Days", "Subject"]], rows["Reaction"], sample_weight=weights)
    assert estimator.fit_.criterion == blm.LMM(FORMULA, rows, weights=weights).fit().criterion


def test_what_it_cannot_take_it_says(rows: pd.DataFrame) -> None:
    X, y = rows[["Days", "Subject"]], rows["Reaction"]
    with pytest.raises(DataError, match="column names"):
        blm.LMMRegressor(FORMULA).fit(X.to_numpy(), y)
    with pytest.raises(SpecificationError, match="expression"):
        blm.LMMRegressor("log(Reaction) ~ Days + (1 | Subject)").fit(X, y)
    with pytest.raises(DataError, match="no y"):
        blm.LMMRegressor(FORMULA).fit(X)
    with pytest.raises(DataError, match="shape"):
        blm.LMMRegressor(FORMULA).fit(X, y[:5])
    with pytest.raises(DataError, match="no column"):
        blm.LMMRegressor(FORMULA).fit(X, [[1, 2], [3]])
    with pytest.raises(NotFittedError) as caught:
        blm.LMMRegressor(FORMULA).predict(X)
    assert isinstance(caught.value, BayesLMMError)
    with pytest.raises(PredictionError, match="not known"):
        blm.LMMRegressor(FORMULA, new_levels="error").fit(X, y).predict({"Days": [1], "Subject": ["nobody"]})
    assert blm.LMMRegressor(FORMULA).fit(rows).fit_.nobs == 180


def test_an_unfitted_estimator_crosses_processes() -> None:
    estimator = pickle.loads(pickle.dumps(blm.LMMRegressor(FORMULA)))  # noqa: S301
    assert estimator.formula == FORMULA


def test_a_fitted_pipeline_is_stored_by_joblib(rows: pd.DataFrame, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    X, y = rows[["Days", "Subject"]], rows["Reaction"]
    pipeline = make_pipeline(FunctionTransformer(), blm.LMMRegressor(FORMULA)).fit(X, y)
    joblib.dump(pipeline, tmp_path / "pipeline")
    code = f"import joblib, bayeslmm as blm; d = blm.load_dataset('sleepstudy'); p = joblib.load({str(tmp_path / 'pipeline')!r})"
    said = f"{code}; print(p.predict(d[['Days', 'Subject']]).sum().hex())"
    shown = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == pipeline.predict(X).sum().hex()


def test_without_scikit_learn_the_name_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None; import bayeslmm as blm\n"
        "try: blm.LMMRegressor\n"
        "except blm.errors.DependencyError as error: print(error.remedy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pip install 'bayeslmm[sklearn]'"


def test_importing_the_package_and_fitting_import_no_scikit_learn() -> None:
    code = "import sys, bayeslmm as blm; blm.LMM; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_examples_of_the_docstrings_run(rows: pd.DataFrame) -> None:
    X, y = rows[["Days", "Subject"]], rows["Reaction"]
    known = {"blm": blm, "sleepstudy": rows, "regressor": blm.LMMRegressor(FORMULA).fit(X, y), "response_name": regressor.response_name}
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(exclude_empty=True).find(regressor):
        example.globs.update(known)
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


NO_NAMES = ("no column names", "which is not a frame")
"""What a check of scikit-learn meets that gives X as a plain array: a formula reads columns by name."""


def told(error: BaseException | None) -> str:
    """What an exception and those behind it say."""
    return "" if error is None else f"{error} {told(error.__cause__)} {told(error.__context__)}"


@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn_hold_but_for_arrays_without_names() -> None:
    from sklearn.utils.estimator_checks import check_estimator

    results = check_estimator(blm.LMMRegressor(), on_fail=None)
    failed = {result["check_name"]: told(result["exception"]) for result in results if result["status"] == "failed"}
    assert [f"{name}: {text}" for name, text in failed.items() if not any(words in text for words in NO_NAMES)] == []
    passed = {result["check_name"] for result in results if result["status"] == "passed"}
    assert {"check_parameters_default_constructible", "check_estimator_cloneable", "check_estimator_repr", "check_set_params"} <= passed
