"""A sigma that is known is a parameter that does not move: Kenward-Roger, profiles, bootstrap and influence against dense definitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import bayeslmm as blm

type Array = np.ndarray
CHI2 = 3.841458820694124


class Dense:
    """V(theta) with everything known but theta, by matrices of n rows."""

    def __init__(self, y: Array, X: Array, V: Callable[[Array], Array]) -> None:
        self.y, self.X, self.V = y, X, V

    def value(self, theta: Array, restricted: bool) -> float:
        n, p = self.X.shape
        V = self.V(theta)
        inverse = np.linalg.inv(V)
        C = np.linalg.inv(self.X.T @ inverse @ self.X)
        e = self.y - self.X @ (C @ self.X.T @ inverse @ self.y)
        value = np.linalg.slogdet(V)[1] + e @ inverse @ e + (n - restricted * p) * np.log(2 * np.pi)
        return float(value - restricted * np.linalg.slogdet(C)[1])

    def linear_kenward_roger(self, theta: Array) -> tuple[Array, Array]:
        """Standard errors and degrees of freedom of the coefficients, the parameters theta alone being estimated."""
        X, V, step = self.X, self.V(theta), 1e-5
        dV = [(self.V(theta + h) - self.V(theta - h)) / (2 * step) for h in step * np.eye(len(theta))]
        inverse = np.linalg.inv(V)
        C = np.linalg.inv(X.T @ inverse @ X)
        P = inverse - inverse @ X @ C @ X.T @ inverse
        W = 2 * np.linalg.inv([[np.trace(P @ a @ P @ b) for b in dV] for a in dV])
        S = [X.T @ inverse @ a @ inverse @ X for a in dV]
        inner = np.zeros_like(C)
        for i, a in enumerate(dV):
            for j, b in enumerate(dV):
                inner += W[i, j] * (X.T @ inverse @ a @ inverse @ b @ inverse @ X - S[i] @ C @ S[j])
        g = np.array([np.diagonal(C @ s @ C) for s in S])
        return np.sqrt(np.diagonal(C + 2 * C @ inner @ C)), 2 * np.diagonal(C) ** 2 / np.einsum("aj,ab,bj->j", g, W, g)

    def profile(self, k: int, at: float, start: Array) -> float:
        """The lowest -2 log likelihood with parameter k at a value."""
        rest = np.delete(start, k)
        if not len(rest):
            return self.value(np.array([at]), False)
        found = optimize.minimize(
            lambda r: self.value(np.insert(np.exp(r), k, at), False),
            np.log(rest),
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-9},
        )
        return float(found.fun)


def studies(seed: int) -> tuple[pd.DataFrame, Array]:
    rng = np.random.default_rng(seed)
    g, h, se = np.repeat(np.arange(10), 4), np.tile(np.arange(8), 5), rng.uniform(0.3, 1.2, 40)
    x = rng.normal(size=40)
    y = 1 + 0.5 * x + 0.8 * rng.normal(size=10)[g] + 0.5 * rng.normal(size=8)[h] + se * rng.normal(size=40)
    return pd.DataFrame({"y": y, "x": x, "g": g.astype(str), "h": h.astype(str), "w": 1 / se**2}), se


def same(codes: Sequence[str]) -> Array:
    return np.equal.outer(np.asarray(codes), np.asarray(codes)).astype(float)


def known_errors(seed: int, terms: Sequence[str]) -> tuple[blm.LMM, Dense]:
    data, se = studies(seed)
    parts = [same(data[name].tolist()) for name in terms]
    X = np.column_stack([np.ones(40), data.x])
    dense = Dense(data.y.to_numpy(), X, lambda theta: np.diag(se**2) + sum(t * part for t, part in zip(theta, parts, strict=True)))
    formula = "y ~ x + " + " + ".join(f"(1 | {name})" for name in terms)
    return blm.LMM(formula, data, weights="w", sigma=1.0), dense


def known_strata(seed: int) -> tuple[blm.LMM, Dense]:
    """The errors of half of the levels of h have another sd, which is estimated."""
    data = stratified(seed)
    one, other = (np.diag((data.s == level).to_numpy(float)) for level in "pq")
    own = same(data.g.tolist())
    dense = Dense(data.y.to_numpy(), np.column_stack([np.ones(40), data.x]), lambda theta: theta[0] * own + one + theta[1] ** 2 * other)
    return blm.LMM("y ~ x + (1 | g)", data, variance="ident(s)", sigma=1.0), dense


def stratified(seed: int) -> pd.DataFrame:
    data, _ = studies(seed)
    return data.assign(s=np.where(data.h.astype(int) < 4, "p", "q"))


MODELS: dict[str, Callable[[], tuple[blm.LMM, Dense]]] = {
    "one": lambda: known_errors(1, ["g"]),
    "crossed": lambda: known_errors(2, ["g", "h"]),
    "strata": lambda: known_strata(5),
}


def theta_of(fit: blm.Fit) -> Array:
    sds = [D[0, 0] for D in fit.covariances]
    ratio = fit.residual_params.get("ratio[q]")
    return np.array(sds if ratio is None else [*sds, ratio])


@pytest.mark.parametrize("name", MODELS)
def test_kenward_roger_estimates_what_is_estimated(name: str) -> None:
    model, dense = MODELS[name]()
    fit = model.fit()
    theta = theta_of(fit)
    assert fit.criterion == pytest.approx(dense.value(theta, True), abs=1e-8)
    errors, df = dense.linear_kenward_roger(theta)
    table = fit.tidy(df="kenward-roger-linear", vcov="kenward-roger-linear")
    np.testing.assert_allclose(table["std_error"], errors, rtol=1e-6)
    np.testing.assert_allclose(table["df"], df, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_profile_limits_are_where_the_likelihood_has_fallen(name: str) -> None:
    model, dense = MODELS[name]()
    ml = model.fit("ML")
    limits = model.fit().confint("profile").set_index("term")
    assert not any("Observation" in term or term == "sigma" for term in limits.index)
    theta = theta_of(ml)
    (row,) = [limits.loc[term] for term in limits.index if term == "sd__Intercept|g"]
    for limit in row[["conf_low", "conf_high"]]:
        if limit > 0:
            assert dense.profile(0, limit**2, theta) - ml.criterion == pytest.approx(CHI2, abs=2e-3)
    if "ratio[q]" in limits.index:
        for limit in limits.loc["ratio[q]", ["conf_low", "conf_high"]]:
            assert dense.profile(1, limit, theta) - ml.criterion == pytest.approx(CHI2, abs=2e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("refit", [True, False])
def test_influence_is_the_fit_without_the_level(name: str, refit: bool) -> None:
    model, dense = MODELS[name]()
    fit = model.fit()
    table = fit.influence("g", refit=refit).set_index("level")
    codes = model.design.terms[0].group
    gone = codes.codes == 3
    level = codes.levels[3]
    if refit:
        want = fit.update(data=data_of(name)[~gone]).fixef
    else:
        keep = np.flatnonzero(~gone)
        inverse = np.linalg.inv(dense.V(theta_of(fit))[np.ix_(keep, keep)])
        X, y = dense.X[keep], dense.y[keep]
        want = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ y)
    np.testing.assert_allclose(table.loc[level, list(fit.fixef.index)].to_numpy(float), np.asarray(want), rtol=1e-5)


def data_of(name: str) -> pd.DataFrame:
    return stratified(5) if name == "strata" else studies({"one": 1, "crossed": 2}[name])[0]


def test_bootstrap_refits_with_the_sigma_that_is_known() -> None:
    data, _ = studies(1)
    fit = blm.LMM("y ~ x + (1 | g)", data, weights="w", sigma=1.0).fit()
    frame = fit.bootstrap(n=5, seed=3).frame
    responses = fit.simulate(5, 3)
    for k in range(5):
        alone = blm.LMM("y ~ x + (1 | g)", data.assign(y=responses.iloc[:, k].to_numpy()), weights="w", sigma=1.0).fit()
        np.testing.assert_allclose(frame.iloc[k][["Intercept", "x"]].to_numpy(float), alone.fixef.to_numpy(), rtol=1e-5)


def test_a_variance_of_0_counts_for_kenward_roger_as_it_does_with_an_estimated_sigma() -> None:
    data, _ = studies(4)
    rng = np.random.default_rng(0)
    fit = blm.LMM("y ~ x + (1 | g)", data.assign(y=0.2 * rng.normal(size=40)), weights="w", sigma=1.0).fit()
    assert fit.singular
    df = fit.tidy(df="kenward-roger")["df"]
    assert np.isfinite(df).all() and (df > 1.0).all()


def test_profiles_begin_at_a_variance_of_0() -> None:
    se = np.array([15, 10, 16, 11, 9, 11, 10, 18.0])
    schools = pd.DataFrame({"y": [28, 8, -3, 7, -1, 1, 18, 12.0], "w": 1 / se**2, "s": list("ABCDEFGH")})
    fit = blm.LMM("y ~ 1 + (1 | s)", schools, weights="w", sigma=1.0).fit()
    limits = fit.confint("profile").set_index("term")
    low, high = limits.loc["sd__Intercept|s", ["conf_low", "conf_high"]]
    dense = Dense(schools.y.to_numpy(), np.ones((8, 1)), lambda theta: np.diag(se**2 + theta[0]))
    assert low == 0.0
    assert dense.value(np.array([high**2]), False) - dense.value(np.array([0.0]), False) == pytest.approx(CHI2, abs=1e-4)


def test_fits_by_group_hold_sigma_too() -> None:
    data = pd.concat([studies(seed)[0].assign(k=seed) for seed in (1, 2)])
    fits = blm.fit_by("y ~ x + (1 | g)", data, by="k", weights="w", sigma=1.0)
    alone = blm.LMM("y ~ x + (1 | g)", data[data.k == 2], weights="w", sigma=1.0).fit()
    np.testing.assert_allclose(fits.tidy().query("k == 2")["estimate"], alone.fixef, rtol=1e-8)
