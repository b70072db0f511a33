"""Innovations of a stationary series: what is left of an error once all before it are known, and their sd in the tidy tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.covariance.arma import ARMA
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.serial import ARMA11, Autoregressive
from bayeslmm.errors import SpecificationError

LENGTH = 150
"""Rows of a series after which nothing more of a row is told by those before, at the parameters below."""

SERIES: dict[str, Correlation] = {
    "ar1": Autoregressive(LENGTH),
    "arma11": ARMA11(LENGTH),
    "arma(1, 1)": ARMA(LENGTH, 1, 1),
    "arma(2, 0)": ARMA(LENGTH, 2, 0),
    "arma(0, 2)": ARMA(LENGTH, 0, 2),
    "arma(2, 1)": ARMA(LENGTH, 2, 1),
    "arma(3, 2)": ARMA(LENGTH, 3, 2),
}


@pytest.mark.parametrize("name", SERIES)
def test_an_innovation_is_what_a_long_past_leaves(name: str) -> None:
    """The last diagonal of the Cholesky factor is the sd of the last row given all others."""
    family = SERIES[name]
    z = np.random.default_rng(5).uniform(-0.8, 0.8, (6, family.size))
    r = family.natural(z)
    left = np.linalg.cholesky(family.matrix(r))[:, -1, -1] ** 2
    found = family.innovation(r)
    assert found is not None
    np.testing.assert_allclose(found, left, rtol=1e-9)


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    e = np.zeros((12, 8))
    for k in range(8):
        e[:, k] = rng.normal(size=12) * (0.8 if k else 1.0) + (0.6 * e[:, k - 1] if k else 0.0)
    g, t = np.divmod(np.arange(96), 8)
    x = rng.normal(size=96)
    return pd.DataFrame({"y": 1.0 + x + e.ravel(), "x": x, "g": [f"L{i}" for i in g], "t": t, "a": np.where(g < 6, "u", "v")})


def test_its_error_in_a_fit_is_that_of_the_dense_restricted_likelihood() -> None:
    frame = rows()
    table = blm.LMM("y ~ x", frame, residual="ar1(t | g)").fit().tidy("ran_pars", innovation=True).set_index("term")
    X, y = np.column_stack([np.ones(96), frame["x"]]), frame["y"].to_numpy()
    lag = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))

    def loglik(log_innovation: float, rho: float) -> float:
        V = np.kron(np.eye(12), np.exp(2.0 * log_innovation) / (1.0 - rho**2) * rho**lag)
        W = np.linalg.inv(V)
        A = X.T @ W @ X
        e = y - X @ np.linalg.solve(A, X.T @ W @ y)
        return -0.5 * float(np.linalg.slogdet(V)[1] + np.linalg.slogdet(A)[1] + e @ W @ e)

    at, h = np.array([np.log(table.loc["sd_innovation", "estimate"]), table.loc["rho", "estimate"]]), 1e-4
    moves = h * np.eye(2)
    hessian = np.array(
        [[sum(s * u * loglik(*(at + s * a + u * b)) for s in (1, -1) for u in (1, -1)) / (4 * h * h) for b in moves] for a in moves]
    )
    gradient = [(loglik(*(at + a)) - loglik(*(at - a))) / (2 * h) for a in moves]
    np.testing.assert_allclose(gradient, 0.0, atol=1e-3)  # the optimum of the fit is one in these coordinates too
    wanted = table.loc["sd_innovation", "estimate"] * np.sqrt(np.linalg.inv(-hessian)[0, 0])
    # differences of a log likelihood of size 100 over steps of 1e-4 leave six digits
    assert table.loc["sd_innovation", "std_error"] == pytest.approx(wanted, rel=1e-4)


def test_a_posterior_has_it_draw_by_draw_for_every_set_of_parameters() -> None:
    post = blm.LMM("y ~ x", rows(), residual="ar1(t | a / g)", priors=blm.Priors(alpha="normal")).sample(draws=100, seed=1)
    table, own = post.tidy("ran_pars", innovation=True).set_index("term"), post.tidy("ran_pars")
    assert list(table.index) == [*own["term"], "sd_innovation|u", "sd_innovation|v"]
    draws = post.tree.posterior
    for level in ("u", "v"):
        sd, rho = (draws[f"{name} | {level}" if f"{name} | {level}" in draws else f"{name}|{level}"] for name in ("sd", "rho"))
        wanted = np.asarray(sd * np.sqrt(1.0 - rho**2))
        assert table.loc[f"sd_innovation|{level}", "estimate"] == pytest.approx(wanted.mean(), rel=1e-12)
        assert table.loc[f"sd_innovation|{level}", "std_error"] == pytest.approx(wanted.std(ddof=1), rel=1e-10)


@pytest.mark.parametrize("residual", [None, "cs(t | g)", "ar1h(t | g)", "us(t | g)", "car1(t | g)"])
def test_errors_without_innovations_refuse_to_tell_them(residual: str | None) -> None:
    model = blm.LMM("y ~ x" if residual else "y ~ x + (1 | g)", rows(), residual=residual)
    with pytest.raises(SpecificationError, match="no innovations"):
        model.fit().tidy("ran_pars", innovation=True)


def test_a_table_without_covariance_parameters_refuses_innovations() -> None:
    model = blm.LMM("y ~ x", rows(), residual="ar1(t | g)", priors=blm.Priors(alpha="normal"))
    for source in (model.fit(), model.sample(draws=50, seed=1)):
        with pytest.raises(SpecificationError, match="effects='fixed'"):
            source.tidy(innovation=True)
