"""Cluster-robust covariances against their definition, row by row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.errors import InferenceError
from bayeslmm.inference.fixed_effects.sandwich import LEVERAGE_POWERS, _from_rows, cluster_factor, cluster_products, sandwich
from tests.inference.examples import fitted
from tests.inference.frames import unbalanced


def dense(fit: blm.Fit, kind: str) -> tuple[Array, Array]:
    """The covariance and the degrees of freedom of every coefficient, with n x n matrices."""
    design = fit.design
    X, e, codes = design.X, design.y - design.X @ fit.fixef_kept, design.terms[0].group.codes
    V = np.diag(np.full(len(e), fit.sigma**2) / (1.0 if design.weights is None else design.weights))
    for term, D in zip(design.terms, fit.covariances, strict=True):
        V += term.Z @ D @ term.Z.T * (term.group.codes[:, None] == term.group.codes)
    order = np.argsort(codes, kind="stable")
    X, e, codes, V = X[order], e[order], codes[order], V[np.ix_(order, order)]
    L = np.linalg.cholesky(V)
    Xw, ew = np.linalg.solve(L, X), np.linalg.solve(L, e)
    C = np.linalg.inv(Xw.T @ Xw)
    A = np.zeros_like(V)
    for k in np.unique(codes):
        own = np.ix_(codes == k, codes == k)
        values, vectors = np.linalg.eigh(np.eye((codes == k).sum()) - (Xw @ C @ Xw.T)[own])
        A[own] = (vectors * values ** LEVERAGE_POWERS[kind]) @ vectors.T
    scores = np.stack([Xw[codes == k].T @ (A @ ew)[codes == k] for k in np.unique(codes)])
    m = len(scores)
    M = np.eye(len(V)) - Xw @ C @ Xw.T
    df = []
    for c in np.eye(X.shape[1]):
        G = np.stack([M[:, codes == k] @ (A @ Xw @ C @ c)[codes == k] for k in np.unique(codes)])
        gram = G @ G.T
        df.append(np.trace(gram) ** 2 / np.sum(gram**2))
    return (m / (m - 1) if kind == "CR1" else 1.0) * C @ scores.T @ scores @ C, np.array(df)


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR2", "CR3"])
@pytest.mark.parametrize("weights", [None, "w"])
def test_it_is_the_definition(kind: str, weights: str | None) -> None:
    fit = blm.LMM("y ~ a + x + (x | g)", unbalanced(), weights=weights).fit()
    vcov, df = dense(fit, kind)
    np.testing.assert_allclose(fit.covariance(vcov=kind), vcov, atol=1e-7 * np.abs(vcov).max())
    np.testing.assert_allclose(fit.tidy(vcov=kind)["df"], df, rtol=1e-6)


def test_CR2_is_unbiased_if_the_model_holds() -> None:
    """A_i (I - H_ii) A_i = I, so that the expected meat is X'V^-1 X."""
    robust = sandwich(blm.LMM("y ~ a * x + (x | g)", unbalanced()).fit(), "CR2")
    F, A, H = robust.F, robust.A, robust.H
    meat = (F.swapaxes(-1, -2) @ A @ (np.eye(len(H[0])) - H) @ A @ F).sum(0)
    np.testing.assert_allclose(meat @ robust.C, np.eye(len(meat)), atol=1e-9)


@pytest.mark.parametrize("formula", ["y ~ a + x + (x | g)", "y ~ a * x + (1 | g) + (0 + x | g)", "y ~ x + (1 | g) + (1 | h)"])
@pytest.mark.parametrize("options", [{}, {"weights": "w"}, {"residual": "ar1(t | g)"}, {"variance": "exp(x)"}])
def test_products_of_clusters_are_those_of_whitened_rows(formula: str, options: dict[str, str]) -> None:
    """However they are found: from sums, from blocks, or from the rows themselves."""
    data = unbalanced()
    data["h"], data["t"] = data["g"] + "_" + data["b"], data.groupby("g").cumcount()
    fit = blm.LMM(formula, data, check="warn", **options).fit()
    factor = cluster_factor(fit.design, None)
    found, rows = cluster_products(fit, factor), _from_rows(fit, factor)
    G = found.G if found.F is None else found.F.swapaxes(-1, -2) @ found.F
    assert G is not None and rows.G is not None
    np.testing.assert_allclose(G, rows.G, rtol=0, atol=1e-9 * np.abs(rows.G).max())
    np.testing.assert_allclose(found.s, rows.s, rtol=0, atol=1e-9 * np.abs(rows.s).max())


@pytest.mark.parametrize("kind", list(LEVERAGE_POWERS))
@pytest.mark.parametrize("options", [{"residual": "csh(t | g)"}, {"residual": "cs(t | g)"}, {"residual": "ar1(t | g)", "weights": "w"}])
def test_few_visits_and_many_columns_are_the_same_sandwich(kind: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The eigenproblem of a cluster's rows against that of its columns: covariance and every degree of freedom."""
    data = unbalanced()
    data["t"] = data.groupby("g").cumcount()
    data = data[data["t"] < 4].sample(frac=0.8, random_state=1)
    fit = blm.LMM("y ~ a * C(t) + a * x", data, **options).fit()
    few = sandwich(fit, kind)
    assert few.F.shape[1] < few.F.shape[2]
    monkeypatch.setattr("bayeslmm.inference.fixed_effects.sandwich.cluster_products", _from_rows)
    whole, L = sandwich(fit, kind), np.random.default_rng(1).normal(size=(5, len(few.C)))
    np.testing.assert_allclose(few.vcov, whole.vcov, rtol=0, atol=1e-9 * np.abs(whole.vcov).max())
    np.testing.assert_allclose(few.rows(L), whole.rows(L), rtol=1e-7)


def test_names_of_mmrm_are_understood() -> None:
    fit = blm.LMM("y ~ a + (1 | g)", unbalanced()).fit()
    for theirs, ours in {"empirical": "CR0", "empirical-bias-reduced": "CR2", "Empirical-Jackknife": "CR3"}.items():
        pd.testing.assert_frame_equal(fit.covariance(vcov=theirs), fit.covariance(vcov=ours))


def test_clusters_are_the_outermost_factor_unless_named() -> None:
    data = unbalanced()
    data["h"] = data["g"] + "_" + data["b"]
    fit = blm.LMM("y ~ x + (1 | g) + (1 | h)", data).fit()
    assert fit.covariance(vcov="CR2").equals(fit.covariance(vcov="CR2", cluster="g"))
    with pytest.raises(InferenceError, match="independent"):
        fit.covariance(vcov="CR2", cluster="h")
    with pytest.raises(InferenceError, match="not a grouping factor"):
        fit.covariance(vcov="CR2", cluster="nothing")


def test_crossed_factors_have_no_clusters() -> None:
    data = unbalanced().assign(h=lambda d: (np.arange(len(d)) % 6).astype(str))
    with pytest.raises(InferenceError, match="crossed"):
        blm.LMM("y ~ x + (1 | g) + (1 | h)", data).fit().covariance(vcov="CR2")


@pytest.mark.parametrize("verb", ["covariance", "report", "anova", "emmeans"])
def test_a_matrix_that_cannot_be_factored_comes_out_in_words(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fitted("slope")

    def singular(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    for name in ("solve", "eigh", "cholesky"):
        monkeypatch.setattr(np.linalg, name, singular)
    with pytest.raises(InferenceError, match="singular to rounding"):
        getattr(fit, verb)(**{"vcov": "CR2"} | ({"specs": "arm"} if verb == "emmeans" else {}))
