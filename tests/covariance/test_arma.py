"""ARMA(p, q) errors: autocovariances against the sum over innovations, nlme's corARMA, one series of rows, and its forecasts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.covariance import make
from bayeslmm.covariance.arma import ARMA
from bayeslmm.errors import IdentifiabilityError, PredictionError, SpecificationError

ORDERS = ((1, 0), (0, 1), (2, 0), (0, 2), (1, 1), (2, 1), (2, 2), (3, 1), (0, 3), (4, 2))


@pytest.mark.parametrize(("ar", "ma"), ORDERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_correlations_are_those_of_the_sum_over_innovations(ar: int, ma: int, seed: int) -> None:
    correlation, q = ARMA(9, ar, ma), 9
    r = correlation.natural(0.7 * np.random.default_rng(seed).normal(size=ar + ma))
    phi, theta, n = r[:ar], np.concatenate([[1.0], r[ar:]]), 4000
    psi = np.zeros(n)
    for k in range(n):
        psi[k] = (theta[k] if k <= ma else 0.0) + sum(phi[i] * psi[k - 1 - i] for i in range(min(ar, k)))
    gamma = np.array([psi[: n - k] @ psi[k:] for k in range(q)])
    np.testing.assert_allclose(correlation.matrix(r)[0], gamma / gamma[0], atol=1e-12)


@pytest.mark.parametrize(("ar", "ma"), ORDERS)
def test_every_point_is_stationary_and_invertible(ar: int, ma: int) -> None:
    correlation = ARMA(12, ar, ma)
    z = np.random.default_rng(ar + 10 * ma).normal(size=(200, ar + ma))
    r = correlation.natural(z)
    for own in r:
        for side in (np.concatenate([-own[:ar][::-1], [1.0]]), np.concatenate([own[ar:][::-1], [1.0]])):
            assert (np.abs(np.roots(side[::-1])) < 1.0).all() if len(side) > 1 else True
    np.testing.assert_allclose(correlation.from_natural(r), z, rtol=1e-6, atol=1e-8)
    assert np.isfinite(np.linalg.cholesky(correlation.matrix(r))).all()


def test_coefficients_outside_have_no_place() -> None:
    assert np.isnan(ARMA(5, 2, 0).from_natural(np.array([0.9, 0.4]))).all()
    assert np.isnan(ARMA(5, 0, 1).from_natural(np.array([1.5]))).all()


def test_places_are_rows_of_the_whole_matrix() -> None:
    r, at = np.array([0.5, -0.3, 0.4]), [0, 2, 3, 7]
    whole, some = ARMA(8, 2, 1), ARMA(4, 2, 1, tuple(at))
    for name in ("matrix", "first", "second"):
        np.testing.assert_allclose(getattr(some, name)(r), getattr(whole, name)(r)[..., np.ix_(at, at)[0], np.ix_(at, at)[1]])


@pytest.fixture(scope="module")
def ovary() -> pd.DataFrame:
    return blm.load_dataset("nlme/Ovary").assign(Time=lambda d: d.Time.astype(float))


# nlme's gls(follicles ~ sin(2*pi*Time) + cos(2*pi*Time), Ovary, corARMA(form = ~ 1 | Mare, p, q)): -2 logLik by REML, and ML
NLME = {
    (2, 0): (1549.99514837, 1552.84180719, (0.5991803, 0.2028649)),
    (0, 2): (1609.15602942, 1610.12028455, (0.6587448, 0.3896698)),
    (3, 1): (1542.79232985, 1544.9564491, (1.3106265, -0.3057224, -0.0359270, -0.7551083)),
}


@pytest.mark.parametrize("orders", list(NLME))
def test_nlme_has_the_same_values(ovary: pd.DataFrame, orders: tuple[int, int]) -> None:
    model = blm.LMM("follicles ~ sin(2*pi*Time) + cos(2*pi*Time)", ovary, residual=f"arma(1 | Mare, {orders[0]}, {orders[1]})")
    reml, ml, coefficients = NLME[orders]
    fit = model.fit()
    assert fit.converged
    assert fit.criterion == pytest.approx(reml, abs=1e-6)
    assert model.fit("ML").criterion == pytest.approx(ml, abs=1e-6)
    np.testing.assert_allclose(fit.residual_params.iloc[1:], coefficients, atol=1e-4)


def test_the_maximum_is_no_lower_than_nlme_s(ovary: pd.DataFrame) -> None:
    # nlme stops at 1546.58 for p = q = 2
    fit = blm.LMM("follicles ~ sin(2*pi*Time) + cos(2*pi*Time)", ovary, residual="arma(1 | Mare, 2, 2)").fit()
    assert fit.criterion < 1542.86
    assert list(fit.residual_params.index) == ["sd", "phi[1]", "phi[2]", "theta[1]", "theta[2]"]


def test_orders_one_and_one_are_arma(ovary: pd.DataFrame) -> None:
    criteria = [
        blm.LMM("follicles ~ sin(2*pi*Time)", ovary, residual=text).fit().criterion
        for text in ("arma(1 | Mare)", "arma(1 | Mare, 1, 1)", "ar1(1 | Mare)", "arma(1 | Mare, 1, 0)", "arma(1 | Mare, 1)")
    ]
    assert criteria[0] == criteria[1]
    np.testing.assert_allclose(criteria[3:], criteria[2], rtol=1e-10)


def series(seed: int, n: int = 60) -> pd.DataFrame:
    """ARMA(1, 1) errors, one series of every second year."""
    rng = np.random.default_rng(seed)
    a, e = rng.normal(size=n + 1), np.zeros(n)
    for i in range(n):
        e[i] = (0.7 * e[i - 1] if i else 0.0) + a[i + 1] + 0.4 * a[i]
    return pd.DataFrame({"y": 3 + e, "Year": 1900 + 2 * np.arange(n), "x": rng.normal(size=n), "z": rng.normal(size=n)})


SERIES = ("ar1({})", "arma({})", "arma({}, 2, 1)", "arma({}, 0, 1)", "car1({})", "sp_exp({})", "toep({}, 3)", "ar1({}) + local")


@pytest.mark.parametrize("text", SERIES)
def test_a_series_without_a_bar_is_one_subject(text: str) -> None:
    data = series(1).assign(one="a")
    bare = blm.LMM("y ~ x", data, residual=text.format("Year")).fit()
    named = blm.LMM("y ~ x", data, residual=text.replace("{}", "Year | one")).fit()
    assert bare.converged
    assert bare.criterion == pytest.approx(named.criterion, abs=1e-9)
    whitened = bare.residuals("normalized")
    R = np.asarray(bare.marginal_cov("1"))
    np.testing.assert_allclose(whitened, np.linalg.solve(np.linalg.cholesky(R), bare.residuals()), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("text", ["ar1(Year)", "arma(Year)", "arma(Year, 2, 1)", "car1(Year)", "ar1(Year) + local", "toep(Year, 3)"])
def test_a_forecast_is_the_conditional_mean_of_the_rows_that_follow(text: str) -> None:
    data = series(2)
    fit = blm.LMM("y ~ x", data, residual=text).fit()
    new = pd.DataFrame({"Year": [2020, 2024], "x": [0.5, -1.0]})
    steps = np.append(np.arange(60), [60, 62])
    sd, *shape = fit.residual_params.to_numpy()
    nugget = shape.pop() if "local" in text else 0.0
    name, order = text.split("(")[0], (2, 1) if "2, 1" in text else None
    if name == "toep":
        lag = np.abs(np.subtract.outer(steps, steps))
        C = np.concatenate([[1.0], shape, np.zeros(70)])[lag]
    elif name == "car1":
        C = shape[0] ** (2.0 * np.abs(np.subtract.outer(steps, steps)))
    else:
        whole = make(name, 63, order)
        C = whole.matrix(whole.from_natural(np.array([1.0, *shape])))[np.ix_(steps, steps)]
    V = sd**2 * ((1 - nugget) * C + nugget * np.eye(62))
    X, y = np.column_stack([np.ones(62), [*data.x, *new.x]]), data.y.to_numpy()
    inverse = np.linalg.inv(V[:60, :60])
    information = np.linalg.inv(X[:60].T @ inverse @ X[:60])
    alpha = information @ X[:60].T @ inverse @ y
    c = V[60:, :60] @ inverse
    left = X[60:] - c @ X[:60]
    variance = np.diag(V[60:, 60:] - c @ V[:60, 60:] + left @ information @ left.T)
    found = fit.predict(new, interval="prediction")
    np.testing.assert_allclose(found["estimate"], X[60:] @ alpha + c @ (y - X[:60] @ alpha), rtol=1e-8)
    np.testing.assert_allclose(found["std_error"], np.sqrt(variance), rtol=1e-6)


def test_times_between_the_steps_are_refused() -> None:
    fit = blm.LMM("y ~ x", series(3), residual="ar1(Year)").fit()
    with pytest.raises(PredictionError, match=r"counts steps of 2 in 'Year', and new times lie between them: 2021"):
        fit.predict(pd.DataFrame({"Year": [2021], "x": [0.0]}))


@pytest.mark.parametrize("structure", ["us", "un", "diag", "cs", "csh", "ar1h", "toep", "toeph", "ad", "adh", "hf", "fa", "fa0"])
def test_what_one_series_cannot_tell_is_refused_by_name(structure: str) -> None:
    for text in (f"{structure}(Year)", f"{structure}(Year | one)"):
        with pytest.raises(IdentifiabilityError, match="the rows are one series") as caught:
            blm.LMM("y ~ x", series(4, 12).assign(one="a"), residual=text).fit()
        assert "(visit | subject)" in str(caught.value.remedy)


def test_arma_of_other_orders_is_no_sas_program() -> None:
    model = blm.LMM("y ~ x", series(5), residual="arma(Year, 2, 1)")
    with pytest.raises(SpecificationError, match="arma"):
        model.to_sas()
    program = blm.LMM("y ~ x", series(5), residual="arma(Year)").to_sas()
    assert "type=arma(1,1)" in program
    assert "subject" not in program


def test_the_posterior_and_the_graph_have_its_coefficients() -> None:
    model = blm.LMM("y ~ x", series(6), residual="arma(Year, 2, 1)")
    post, fit = model.sample(draws=300, chains=2, seed=1), model.fit()
    assert {"phi[1]", "phi[2]", "theta[1]"} <= set(map(str, post.tree.posterior.data_vars))
    table = blm.compare(fit, post).frame
    assert {"phi[1]", "phi[2]", "theta[1]"} <= set(table["term"])
    assert {"phi[1]", "theta[1]"} <= {variable.name for variable in model.to_pymc().deterministics}
    assert np.isfinite(np.asarray(model.prior_predictive(draws=20, seed=1).prior["phi[2]"])).all()
