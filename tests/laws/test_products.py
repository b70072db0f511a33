"""Separable errors and random effects are the Kronecker product of their factors over any grid with plots missing."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.covariance.registry import make

FACTORS = {"ar1": 1, "id": 0, "sp_exp": 1, "car1": 1, "cs": 1, "arma": 2, "ar1h": 0}


def field(seed: int, rows: int = 6, cols: int = 5, trials: int = 1) -> pd.DataFrame:
    """Plots of a field, some missing, the numbers of rows with gaps, in any order."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(np.arange(1, 2 * rows), rows, replace=False))
    frames = []
    for trial in range(trials):
        C = np.kron(0.8 ** np.abs(np.subtract.outer(places, places)), 0.5 ** np.abs(np.subtract.outer(np.arange(cols), np.arange(cols))))
        row, col = np.repeat(places, cols), np.tile(np.arange(cols) + 3, rows)
        e = np.linalg.cholesky(C) @ rng.normal(size=rows * cols) + 0.5 * rng.normal(size=rows * cols)
        frames.append(pd.DataFrame({"trial": f"T{trial}", "row": row, "col": col, "gen": rng.choice(list("abc"), rows * cols), "y": e}))
    whole = pd.concat(frames)
    return whole.sample(len(whole) - 4 * trials, random_state=seed).reset_index(drop=True)


def distances(values: pd.Series, structure: str) -> np.ndarray:
    """|i - j| in steps of the levels, or in their own numbers."""
    at = values.to_numpy(float)
    gaps = np.diff(np.unique(at)).astype(int)
    unit = np.gcd.reduce(gaps) if structure in ("ar1", "arma", "ar1h") else 1
    return np.abs(np.subtract.outer(at, at)) / unit


def correlation(structure: str, d: np.ndarray, r: list[float]) -> np.ndarray:
    """Correlations of one factor over the rows, from its definition."""
    if structure == "id":
        return (d == 0.0).astype(float)
    if structure == "cs":
        return np.where(d == 0.0, 1.0, r[0])
    if structure == "sp_exp":
        return np.exp(-d / r[0])
    if structure == "arma":
        return np.where(d == 0.0, 1.0, r[1] * r[0] ** np.maximum(d - 1.0, 0.0))
    return r[0] ** d


def restricted(y: np.ndarray, X: np.ndarray, V: np.ndarray, restricted: bool = True) -> float:
    """-2 (restricted) log likelihood of y ~ N(X b, V)."""
    L = np.linalg.cholesky(V)
    a, b = np.linalg.solve(L, X), np.linalg.solve(L, y)
    q, r = np.linalg.qr(a)
    e = b - q @ (q.T @ b)
    n = len(y) - X.shape[1] if restricted else len(y)
    det = 2.0 * np.log(np.diag(L)).sum() + (2.0 * np.log(np.abs(np.diag(r))).sum() if restricted else 0.0)
    return float(det + e @ e + n * np.log(2.0 * np.pi))


PAIRS = ("ar1:ar1", "ar1:id", "sp_exp:ar1", "car1:car1", "arma:cs")
FIELDS = [("False-REML", False, "REML", ()), ("True-ML", True, "ML", ("car1:car1", "arma:cs"))]


@pytest.mark.parametrize(
    ("pair", "nugget", "method"),
    [
        pytest.param(pair, nugget, method, id=f"{label}-{pair}", marks=pytest.mark.slow if pair in long else ())
        for label, nugget, method, long in FIELDS
        for pair in PAIRS
    ],
)
def test_errors_of_a_field_are_the_product_of_its_rows_and_columns(pair: str, nugget: bool, method: str) -> None:
    first, second = pair.split(":")
    data = field(3)
    residual = f"{first}(row):{second}(col)" + (" + local" if nugget else "")
    fit = blm.LMM("y ~ gen", data, residual=residual).fit(method)
    values = fit.residual_params.tolist()
    sd, rest = values[0], values[1:]
    share = rest.pop() if nugget else 0.0
    cut = FACTORS[first]
    C = correlation(first, distances(data["row"], first), rest[:cut]) * correlation(second, distances(data["col"], second), rest[cut:])
    V = sd**2 * ((1.0 - share) * C + share * np.eye(len(data)))
    X = pd.get_dummies(data["gen"], drop_first=True).to_numpy(float)
    X = np.column_stack([np.ones(len(data)), X])
    assert fit.criterion == pytest.approx(restricted(data["y"].to_numpy(), X, V, method == "REML"), rel=1e-9)
    np.testing.assert_allclose(np.asarray(fit.marginal_cov("1")), V, atol=1e-9 * sd**2)


def test_a_separable_random_term_and_independent_errors_are_separable_errors_with_a_nugget() -> None:
    data = field(1, trials=2)
    within = blm.LMM("y ~ gen", data, residual="ar1(row):ar1(col) | trial + local").fit()
    beside = blm.LMM("y ~ gen + (ar1(row):ar1(col) | trial)", data).fit()
    assert beside.criterion == pytest.approx(within.criterion, abs=1e-6)
    sd, rho, inner, share = within.residual_params
    assert 0.0 < share < 1.0
    ran = beside.tidy("ran_pars")["estimate"].to_numpy()
    np.testing.assert_allclose(ran, [sd * (1.0 - share) ** 0.5, rho, inner, sd * share**0.5], rtol=1e-3)
    for df in ("satterthwaite", "kenward-roger"):
        one, two = within.tidy(df=df), beside.tidy(df=df)
        np.testing.assert_allclose(one["std_error"], two["std_error"], rtol=1e-3)
    # the trend of the plots is what the errors say of them without the nugget
    trend = beside.ranef()["trial"].to_numpy().ravel()
    assert np.isfinite(trend).all()
    assert len(trend) == 2 * data["row"].nunique() * data["col"].nunique()


def test_every_trial_may_have_parameters_of_its_own() -> None:
    data = field(5, trials=2)
    own = blm.LMM("y ~ 0 + trial", data, residual="ar1(row):ar1(col) | trial / trial").fit("ML")
    alone = [blm.LMM("y ~ 1", part, residual="ar1(row):ar1(col)").fit("ML") for _, part in data.groupby("trial")]
    assert own.criterion == pytest.approx(sum(fit.criterion for fit in alone), abs=1e-6)


def test_a_plot_without_an_outcome_is_predicted_from_its_neighbours() -> None:
    data = field(7)
    fit = blm.LMM("y ~ 1", data, residual="ar1(row):ar1(col)").fit()
    cells = pd.MultiIndex.from_product([sorted(data["row"].unique()), sorted(data["col"].unique())], names=["row", "col"])
    whole = cells.to_frame(index=False)
    absent = whole.merge(data, how="left", on=["row", "col"])["y"].isna().to_numpy()
    places = pd.concat([data, whole[absent]], ignore_index=True)
    rho, inner = fit.residual_params.iloc[1:]
    C = rho ** distances(places["row"], "ar1") * inner ** distances(places["col"], "ar1")
    n, mean = len(data), float(fit.fixef.iloc[0])
    expected = mean + C[n:, :n] @ np.linalg.solve(C[:n, :n], data["y"].to_numpy() - mean)
    np.testing.assert_allclose(fit.predict(whole[absent])["estimate"], expected, rtol=1e-8)


@pytest.mark.parametrize(("names", "dims"), [("us@ar1@cs", (2, 3, 2)), ("ar1@us", (3, 2)), ("fa@toep", (3, 2))])
def test_a_product_of_any_structures_is_the_product_of_their_matrices(names: str, dims: tuple[int, ...]) -> None:
    covariance = make(names, int(np.prod(dims)), dims=dims)
    x = covariance.start() + 0.1 * np.random.default_rng(0).normal(size=covariance.size)
    expected, begin = np.ones((1, 1)), 0
    for k, (name, q) in enumerate(zip(names.split("@"), dims, strict=True)):
        part = make(name, q)
        own = x[begin : begin + part.size] if k == 0 else np.append(1.0, x[begin : begin + part.size - 1])
        begin += part.size - (k > 0)
        expected = np.kron(expected, part.matrix(own))
    np.testing.assert_allclose(covariance.matrix(x), expected, rtol=1e-10, atol=1e-12)


def test_places_that_make_a_large_grid_are_its_cells_with_rows() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.uniform(0, 10, 80), "z": rng.uniform(0, 10, 80)})
    x, z = (np.abs(np.subtract.outer(data[name].to_numpy(), data[name].to_numpy())) for name in ("x", "z"))
    data["y"] = np.linalg.cholesky(0.8**x * 0.6**z) @ rng.normal(size=80)
    for residual in ("car1(x):car1(z)", "sp_exp(x):sp_exp(z) + local"):
        fit = blm.LMM("y ~ 1", data, residual=residual).fit()
        sd, first, second, *nugget = fit.residual_params
        C = first**x * second**z if "car1" in residual else np.exp(-x / first - z / second)
        share = nugget[0] if nugget else 0.0
        V = sd**2 * ((1.0 - share) * C + share * np.eye(80))
        assert fit.criterion == pytest.approx(restricted(data["y"].to_numpy(), np.ones((80, 1)), V), rel=1e-9)
        np.testing.assert_allclose(np.asarray(fit.marginal_cov("1")), V, atol=1e-9 * sd**2)
        assert np.isfinite(fit.tidy(df="kenward-roger")["df"]).all()


def test_cells_of_a_product_are_those_of_the_whole() -> None:
    whole = make("ar1@toep@cs", 24, dims=(3, 4, 2))
    cells = (0, 3, 5, 8, 9, 14, 20, 23)
    some = make("ar1@toep@cs", 8, dims=(3, 4, 2), positions=cells)
    values = whole.natural(whole.start() + 0.1)
    for one, other in zip(some.natural_derivatives(values), whole.natural_derivatives(values), strict=True):
        np.testing.assert_allclose(one, other[..., np.array(cells)[:, None], cells], rtol=1e-12, atol=1e-12)


def test_a_grid_of_own_variances_too_large_for_one_matrix_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.normal(size=80), "z": np.arange(80), "y": rng.normal(size=80)})
    with pytest.raises(blm.errors.DataError, match="6,400 cells"):
        blm.LMM("y ~ 1", data, residual="car1(x):ar1h(z)")


def test_the_separable_errors_of_a_published_field_are_those_of_asreml() -> None:
    """The help page of stroup.nin in R's agridat prints ASReml's estimates: variance 48.7, correlations 0.6555 and 0.4375."""
    fit = blm.LMM("yield ~ variety", blm.load_dataset("nlme/Wheat2"), residual="ar1(longitude):ar1(latitude)").fit()
    sd, columns, rows = fit.residual_params
    assert (round(sd**2, 1), round(columns, 4), round(rows, 4)) == (48.7, 0.6555, 0.4375)


@pytest.mark.parametrize("residual", ["sp_pow(row):sp_pow(col)", "car1(row):ar1(col) | trial + local"])
def test_products_of_powers_are_the_anisotropic_power_of_proc_mixed(residual: str) -> None:
    data = field(8, trials=2)
    data = data if "trial" in residual else data[data["trial"] == "T0"]
    model = blm.LMM("y ~ gen", data, residual=residual)
    program = model.to_sas()
    assert "type=sp(powa)(row col)" in program
    fit, found = model.fit(), blm.proc_mixed(program, data)
    assert found["FitStatistics"]["Value"].iloc[0] == pytest.approx(fit.criterion, abs=1e-7)
    names = found["CovParms"]["CovParm"].tolist()
    assert [name for name in names if name.startswith("SP(POWA)")] == ["SP(POWA) 1", "SP(POWA) 2"]


def test_limits_of_a_factor_of_a_product_are_those_of_its_own_kind() -> None:
    fit = blm.LMM("y ~ gen", field(4), residual="ar1(row):ar1(col)").fit()
    limits = fit.confint("wald").set_index("term").loc[["rho", "inner_rho"]]
    assert (limits.abs() <= 1.0).all(axis=None)


def test_the_closest_member_with_a_nugget_is_found_over_many_rows() -> None:
    covariance = make("ar1@ar1", 42, dims=(7, 6), nugget=True)
    x = covariance.from_natural(np.array([1.3, 0.8, 0.4, 0.3]))
    np.testing.assert_allclose(covariance.natural(covariance.from_matrix(covariance.matrix(x))), [1.3, 0.8, 0.4, 0.3], rtol=1e-4)
