"""New subjects with some outcomes: what the joint normal distribution of all rows says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning, PredictionError, SpecificationError
from bayeslmm.inference.dynamic_prediction import predict_dynamic
from tests.inference.examples import FORMULAS, fitted, subjects

VISITS = [str(i) for i in range(6)]
NEW = pd.DataFrame(
    {
        "id": ["zz"] * 4 + ["yy"] * 2,
        "time": [0.0, 1.0, 2.0, 5.0, 0.0, 3.0],
        "arm": [1.0] * 4 + [0.0] * 2,
        "y": [14.0, 16.0, np.nan, np.nan, np.nan, np.nan],
        "w": 1.0,
    }
).assign(visit=lambda d: pd.Categorical(d["time"].astype(int).astype(str), categories=VISITS))


@pytest.mark.parametrize("name", ["slope", "uncorrelated", "weighted", "serial", "visits", "mixed_serial"])
def test_new_subjects_are_predicted_by_the_joint_normal_distribution(name: str) -> None:
    fit = fitted(name)
    formula, _, options = FORMULAS[name]
    full = pd.concat([subjects(), NEW], ignore_index=True)
    full["visit"] = pd.Categorical(full["visit"].astype(str), categories=VISITS)
    design = blm.LMM(formula, full.assign(y=full["y"].fillna(0.0)), **options).design  # type: ignore[arg-type]
    mean = np.zeros((design.nobs, design.nobs))
    for term, D in zip(design.terms, fit.covariances, strict=True):
        codes = term.group.codes
        mean += (codes[:, None] == codes) * (term.Z @ D @ term.Z.T)
    if design.residual is None:
        error = np.diag(fit.sigma**2 / (design.weights if design.weights is not None else np.ones(design.nobs)))
    else:
        subject, visit = design.residual.subject.codes, design.residual.visit
        error = (subject[:, None] == subject) * fit.R.to_numpy()[np.ix_(visit, visit)]  # type: ignore[union-attr,arg-type]
    seen, rows, y, X = np.isfinite(full["y"].to_numpy()), np.arange(len(full) - 6, len(full)), full["y"].to_numpy(), design.X
    V = mean + error
    # independent errors: a prediction is of a new outcome, whose error is new
    K = (mean if design.residual is None else V)[np.ix_(rows, np.flatnonzero(seen))]
    Vi = np.linalg.inv(V[np.ix_(seen, seen)])
    C = np.linalg.inv(X[seen].T @ Vi @ X[seen])
    alpha = C @ X[seen].T @ Vi @ y[seen]
    d = X[rows] - K @ Vi @ X[seen]
    variance = np.diag(V)[rows] - np.einsum("ij,jk,ik->i", K, Vi, K) + np.einsum("ij,jk,ik->i", d, C, d)
    found = predict_dynamic(fit, NEW, "prediction")
    np.testing.assert_allclose(found["estimate"], X[rows] @ alpha + K @ Vi @ (y[seen] - X[seen] @ alpha), rtol=1e-9)
    np.testing.assert_allclose(found["std_error"] ** 2, variance, atol=1e-8)


def test_outcomes_pull_a_new_subject_towards_them() -> None:
    fit = fitted("slope")
    without = predict_dynamic(fit, NEW.assign(y=np.nan), "prediction")
    given = predict_dynamic(fit, NEW, "prediction")
    np.testing.assert_allclose(without["estimate"], fit.predict(NEW, level="population")["estimate"])
    assert given["std_error"].iloc[3] < without["std_error"].iloc[3]
    np.testing.assert_allclose(given["estimate"].iloc[4:], without["estimate"].iloc[4:], rtol=0.05)


def test_rows_of_known_subjects_are_predicted_as_ever() -> None:
    fit = fitted("serial")
    head = subjects().head(8)
    np.testing.assert_allclose(predict_dynamic(fit, head)["estimate"], fit.predict(head)["estimate"], rtol=1e-9)


def test_predict_learns_from_outcomes_when_told_that_they_are_observed() -> None:
    fit = fitted("slope")
    pd.testing.assert_frame_equal(fit.predict(NEW, interval="prediction", observed=True), predict_dynamic(fit, NEW, "prediction"))
    ignored = fit.predict(NEW, new_levels="population")["estimate"]
    np.testing.assert_allclose(ignored, fit.predict(NEW, level="population")["estimate"])


def test_rows_without_a_place_are_missing_and_said_to_be() -> None:
    with pytest.warns(BayesLMMWarning, match="predicted as NaN") as told:
        found = fitted("slope").predict(NEW.assign(time=[0.0, np.nan, 2.0, 5.0, 0.0, 3.0]), observed=True)
    assert found["estimate"].isna().tolist() == [False, True, False, False, False, False]
    assert told[0].filename == __file__


def test_outcomes_that_would_not_be_used_are_refused() -> None:
    with pytest.raises(SpecificationError, match="population"):
        fitted("slope").predict(NEW, level="population", observed=True)
    with pytest.raises(SpecificationError, match="own rows"):
        fitted("slope").predict(observed=True)


def test_what_has_no_place_is_refused() -> None:
    fit = blm.LMM("y ~ time", subjects(), residual="ar1(1 | id)").fit()
    with pytest.raises(PredictionError, match="visit"):
        predict_dynamic(fit, NEW)


@pytest.mark.parametrize("residual", ["us(time | id)", "ar1(time | id)", "sp_exp(time | id)"])
def test_a_visit_that_a_new_subject_has_twice_is_refused(residual: str) -> None:
    data = subjects()
    fit = blm.LMM("y ~ time", data, residual=residual).fit()
    new = data[data["id"] == data["id"].iloc[0]].assign(id="new")
    with pytest.raises(PredictionError, match="more than once"):
        fit.predict(pd.concat([new, new.head(1)]), observed=True)
