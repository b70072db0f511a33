"""Covariances about which the data say less than the model has parameters: told, refused, or not counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.errors import IdentifiabilityError, PredictionError
from tests.inputs.frames import fit, refused, visits, warned

# ---------------------------------------------------------------------------------------------------- visits nobody has


def gap() -> pd.DataFrame:
    """Thirty subjects, none of whom was seen at V3."""
    return visits(groups=30).query("visit != 'V3'")


@pytest.mark.parametrize(("structure", "lags"), [("ar1h", 1), ("toeph", 5)])
def test_a_visit_nobody_has_costs_no_sd_and_keeps_the_spacing(structure: str, lags: int) -> None:
    residual = f"{structure}(visit | g)"
    found, (warning,) = warned(lambda: fit("y ~ x", gap(), residual=residual))
    assert found.R.index.tolist() == ["V1", "V2", "V4", "V5", "V6"]
    assert found.df_model == 2 + 5 + lags
    assert "V3" in warning.what
    assert "spacing" in warning.remedy
    sds = np.sqrt(np.diag(found.R))
    C = found.R.to_numpy() / np.outer(sds, sds)
    assert C[0, 1] == pytest.approx(C[2, 3])
    assert C[1, 2] == pytest.approx(C[0, 1] ** 2 if structure == "ar1h" else C[2, 4])
    # with one row at V3 more, its sd is one parameter more
    assert fit("y ~ x", visits(groups=30).query("visit != 'V3' or g == 's00'"), residual=residual).df_model == found.df_model + 1


def test_the_likelihood_of_a_gap_is_that_of_the_definition() -> None:
    data = gap()
    found = fit("y ~ x", data, residual="ar1h(visit | g)", method="ML")
    place = data["visit"].cat.codes.to_numpy()
    codes = data["g"].str[1:].astype(int).to_numpy()
    rho = found.residual_params.iloc[-1]
    sds = dict(zip(found.R.index, np.sqrt(np.diag(found.R)), strict=True))
    sd = data["visit"].map(sds).to_numpy(float)
    V = (codes[:, None] == codes) * rho ** np.abs(np.subtract.outer(place, place)) * np.outer(sd, sd)
    e = found.residuals("marginal")
    value = len(e) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + e @ np.linalg.solve(V, e)
    assert found.criterion == pytest.approx(value, rel=1e-9)


def test_predictions_at_a_visit_nobody_has_need_a_structure_without_an_sd_for_it() -> None:
    new = visits().query("visit == 'V3'")
    refused(lambda: fit("y ~ x", gap(), residual="ar1h(visit | g)").predict(new), PredictionError, "'V3'")
    assert fit("y ~ x", gap(), residual="ar1(visit | g)").predict(new, interval="prediction").notna().all(axis=None)


def test_a_fit_with_a_gap_is_stored_and_sampled(tmp_path: object) -> None:
    found = fit("y ~ x", gap(), residual="ar1h(visit | g)")
    found.save(f"{tmp_path}/gap.fit")
    assert blm.load(f"{tmp_path}/gap.fit").criterion == found.criterion
    post = blm.LMM("y ~ x", gap(), residual="ar1h(visit | g)").sample(draws=100, seed=1)
    assert post.tree.posterior["sd_residual"].coords["visit"].to_numpy().tolist() == found.R.index.tolist()


def test_a_lag_without_a_pair_of_visits_is_refused() -> None:
    odd = visits().query("visit in ['V1', 'V3', 'V5']")
    caught = refused(lambda: fit("y ~ x", odd, residual="toep(visit | g)"), IdentifiabilityError, "1 steps apart")
    assert "3" in caught.where
    assert fit("y ~ x", odd, residual="ar1(visit | g)").converged


def test_two_outcomes_that_no_subject_has_both_of_are_refused() -> None:
    caught = refused(lambda: fit("y ~ x", residual="us@ar1(arm, visit | g)"), IdentifiabilityError, "'CTL' and 'TRT' of 'arm'")
    assert "us@ar1" in caught.where


def test_a_random_visit_nobody_has_is_kept_by_ar1_and_named_where_it_has_a_variance() -> None:
    assert fit("y ~ x + ar1(0 + visit | g)", gap()).D["g"].shape == (6, 6)
    refused(lambda: fit("y ~ x + ar1h(0 + visit | g)", gap()), IdentifiabilityError, r"0 in every row: visit\[V3\]")


# ---------------------------------------------------------------------------------------------------- complete subjects


def incomplete(complete: int, seed: int = 1) -> pd.DataFrame:
    """Thirty subjects of whom some have all six visits; the others miss one to three."""
    data, rng = visits(seed=seed, groups=30), np.random.default_rng(seed)
    drop = np.zeros(len(data), bool)
    for subject in data["g"].unique()[complete:]:
        drop[rng.choice(np.flatnonzero(data["g"] == subject), rng.integers(1, 4), replace=False)] = True
    return data[~drop]


def test_an_unstructured_covariance_that_runs_to_a_singular_one_is_refused() -> None:
    data = incomplete(2)
    caught = refused(lambda: fit("y ~ visit", data, residual="us(visit | g)"), IdentifiabilityError, "2 subjects have the 6 visits")
    assert "fewer parameters" in caught.remedy
    found, (warning,) = warned(lambda: fit("y ~ visit", data, residual="us(visit | g)", check="warn"))
    assert not found.converged
    assert "together" in warning.what


def test_a_local_optimum_beside_an_unbounded_likelihood_is_said_to_be_one() -> None:
    found, (warning,) = warned(lambda: fit("y ~ visit", incomplete(5), residual="us(visit | g)"))
    assert found.converged
    assert "5 subjects have the 6 visits" in warning.what
    assert "local optimum" in warning.remedy
    assert "few_complete_subjects" not in fit("y ~ visit", incomplete(12), residual="us(visit | g)").checks


# --------------------------------------------------------------------------------------------- terms that say it twice

OVERLAPPING = {
    "(1 | g) + (0 + f | g)": 1,
    "(day | g) + (0 + f | g)": 1,
    "(1 | g) + cs(0 + f | g)": 1,
    "(arm | g)": 1,
    "(1 | g) + (0 + arm | g)": 2,
    "(0 + f | g) + (1 | g:f)": 1,
    "(f | g) + (x | g:f)": 1,
    "cs(0 + f | g) + (1 | g:f)": 1,
    "diag(0 + f | g) + (1 | g:f)": 1,
    "(f | g)": 0,
    "(x | g) + (1 | g:f)": 0,
    "(1 | g) + diag(0 + f | g)": 0,
    "(1 | g) + (0 + x | g)": 0,
    "(1 | g) + (1 | g:f)": 0,
    "(1 | g) + ar1(0 + f | g)": 0,
    "diag(0 + arm | g)": 0,
}


@pytest.mark.parametrize("terms", OVERLAPPING)
def test_terms_that_repeat_parameters_of_one_another_are_told(terms: str) -> None:
    data = visits(groups=20).assign(f=pd.Categorical(np.tile(list("abc"), 40), ordered=True))
    model = blm.LMM(f"y ~ x + {terms}", data)
    noted = [note for note in model.design.notes if note.name == "repeated_parameters"]
    assert len(noted) == (OVERLAPPING[terms] > 0)
    # the definition: how many directions in the parameters, sigma's among them, leave V where it is
    problem, codes = model.problem, [term.group.codes for term in model.design.terms]
    theta = 0.5 + 0.1 * np.random.default_rng(2).normal(size=problem.size)

    def V(theta: Array) -> Array:
        parts = zip(model.design.terms, problem.relative_covariances(problem.x(theta)), codes, strict=True)
        return np.sum([(own[:, None] == own) * (term.Z @ D @ term.Z.T) for term, D, own in parts], axis=0)

    moves = [(V(theta + step) - V(theta - step)).ravel() for step in 1e-4 * np.eye(len(theta))]
    moves.append(2e-4 * np.eye(model.nobs).ravel())
    assert len(moves) - np.linalg.matrix_rank(np.stack(moves), tol=1e-9) == OVERLAPPING[terms]


def test_a_fit_of_repeated_parameters_warns_once() -> None:
    data = visits(groups=20).assign(f=pd.Categorical(np.tile(list("abc"), 40)))
    found, (warning,) = warned(lambda: fit("y ~ x + (1 | g) + (0 + f | g)", data))
    assert "1 of 7 parameters" in warning.what
    assert found.criterion == pytest.approx(fit("y ~ x + (0 + f | g)", data).criterion, abs=1e-5)
