"""`Posterior`: closed forms, laws, containers, verbs, files, interruption."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.held_out import on_other_problem
from bayeslmm.bayes.loo import conditional_densities
from bayeslmm.bayes.posterior.predict import draw_posterior_errors, linear_predictor
from bayeslmm.bayes.sampling.hierarchical import drawn_before_the_end
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, MismatchError, PriorError, SpecificationError, optional
from bayeslmm.likelihood.structured.residual_covariance import ErrorDraws, unit_covariances
from tests.bayes import every_verb
from tests.bayes.designs import MODELS, dense_covariance, grouped, model


@pytest.fixture(scope="module")
def post() -> blm.Posterior:
    return model("slopes").sample(seed=1)


# -- closed forms --------------------------------------------------------------------------------------------------------------------------


def test_without_random_effects_sigma_is_inverse_gamma_and_alpha_is_t() -> None:
    """Flat alpha and flat sigma: sigma^2 ~ IG((n - p - 1)/2, SSR/2), and coefficients are t with n - p - 1 degrees of freedom."""
    data = grouped()
    built = blm.LMM("y ~ x", data, priors=blm.Priors(sigma="flat"))
    found = built.sample(draws=4000, seed=3)
    X, y = built.X, built.y
    ols, ssr = np.linalg.lstsq(X, y, rcond=None)[:2]
    df = len(y) - 3
    # every fourth draw: a test of 4000 values sees errors of 0.02 in a distribution function
    variance = found.parameters["sigma"].values[::4] ** 2
    assert stats.kstest(variance, stats.invgamma(df / 2, scale=ssr[0] / 2).cdf).pvalue > 1e-3
    scale = np.sqrt(ssr[0] / df * np.diagonal(np.linalg.inv(X.T @ X)))
    for j in range(2):
        assert stats.kstest(found.draws.alpha[::4, j], stats.t(df, ols[j], scale[j]).cdf).pvalue > 1e-3


def test_with_variances_nearly_fixed_it_is_the_closed_form() -> None:
    """Priors that leave sd and sigma no room: alpha is N(GLS, (X'V^-1 X)^-1)."""
    data = grouped()
    tight = blm.Priors(sd=("uniform", 0.999, 1.001), sigma=("uniform", 0.799, 0.801))
    built = blm.LMM("y ~ x + (1 | g)", data, priors=tight)
    found = built.sample(draws=2000, seed=1)
    codes = built.design.terms[0].group.codes
    V = 0.64 * np.eye(len(data)) + (codes[:, None] == codes)
    W = np.linalg.inv(V)
    cover = np.linalg.inv(built.X.T @ W @ built.X)
    mean = cover @ built.X.T @ W @ built.y
    sd = np.sqrt(np.diagonal(cover))
    assert np.abs((found.draws.alpha.mean(0) - mean) / sd).max() < 5 / np.sqrt(8000)
    assert np.allclose(np.cov(found.draws.alpha, rowvar=False) / np.outer(sd, sd), cover / np.outer(sd, sd), atol=0.08)


# -- long references -----------------------------------------------------------------------------------------------------------------------

LONG = {
    "sleepstudy": (
        "Reaction ~ Days + (Days | Subject)",
        {
            ("alpha", 0): (251.405, 7.548, (239.08, 251.41, 263.73)),
            ("alpha", 1): (10.4673, 1.7211, (7.657, 10.467, 13.278)),
            ("sigma", None): (25.907, 1.552, (23.491, 25.832, 28.579)),
            ("sd_Subject", 0): (27.281, 6.962, (17.402, 26.511, 39.773)),
            ("sd_Subject", 1): (6.551, 1.497, (4.473, 6.363, 9.275)),
            ("corr_Subject", (0, 1)): (0.0656, 0.2741, (-0.382, 0.064, 0.520)),
        },
    ),
    "Dyestuff": (
        "Yield ~ 1 + (1 | Batch)",
        {
            ("alpha", 0): (1527.50, 26.82, (1485.5, 1527.5, 1569.5)),
            ("sigma", None): (52.62, 8.271, (41.01, 51.59, 67.66)),
            ("sd_Batch", 0): (54.22, 28.43, (20.77, 48.65, 106.5)),
        },
    ),
}
"""Mean, sd, 5/50/95 % under default priors from 400,000 weighted draws, alpha in closed form given each; 8000 draws of NUTS on the same
density (no divergences, ESS above 5000) lie within 2.5 of their standard errors."""


@pytest.mark.parametrize("name", LONG)
def test_it_agrees_with_long_runs(name: str) -> None:
    """4000 draws know a mean to 0.016 sd and an outer quantile to about 0.05 sd: four standard errors."""
    formula, known = LONG[name]
    found = blm.LMM(formula, blm.load_dataset(name)).sample(seed=2)
    for (variable, place), (mean, sd, quantiles) in known.items():
        values = found.draws.alpha if variable == "alpha" else found.parameters[variable].values
        own = values if place is None else values[:, *np.atleast_1d(place)]
        assert own.mean() == pytest.approx(mean, abs=0.064 * sd), variable
        assert own.std() == pytest.approx(sd, rel=0.1), variable
        assert np.allclose(np.quantile(own, [0.05, 0.5, 0.95]), quantiles, atol=0.2 * sd), variable


# -- laws ----------------------------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_draws() -> None:
    a, b, c = (model("crossed").sample(draws=50, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(a.draws.phi, b.draws.phi)
    assert np.array_equal(a.draws.alpha, b.draws.alpha)
    assert all(np.array_equal(x, y) for x, y in zip(a.draws.beta, b.draws.beta, strict=True))
    assert not np.array_equal(a.draws.alpha, c.draws.alpha)


@pytest.mark.slow
def test_draws_do_not_depend_on_the_number_of_threads() -> None:
    code = (
        "from tests.bayes.designs import model; import numpy as np;"
        "p = model('slopes').sample(draws=25, seed=9); print(repr(p.draws.alpha.tolist()))"
    )
    texts = []
    for threads in ("1", "2"):
        env = {"PATH": "", "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(Path(__file__).parents[2])}
        texts.append(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout)
    assert texts[0] == texts[1]


def test_rescaling_y_rescales_the_draws() -> None:
    """Default priors are equivariant: the same seed gives 10 times the draws, up to rounding."""
    data = grouped()
    one = blm.LMM("y ~ x + (x | g)", data).sample(draws=50, seed=1)
    ten = blm.LMM("y ~ x + (x | g)", data.assign(y=10 * data["y"])).sample(draws=50, seed=1)
    assert np.allclose(ten.draws.alpha, 10 * one.draws.alpha, rtol=1e-4)


# -- containers and tables -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_tree(name: str) -> None:
    found = model(name).sample(draws=50, chains=2, seed=1, method="importance")
    tree = found.tree
    assert {"posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data"} <= set(tree.children)
    assert tree["posterior"].sizes["chain"] == 2
    assert tree["posterior"]["alpha"].dims == ("chain", "draw", "coef")
    assert list(tree["log_likelihood"].data_vars) == ["y"]
    assert np.isfinite(tree["log_likelihood"]["y"].values).all()
    assert found.tidy("all", conf_int=True)[["estimate", "conf_low"]].notna().all().all()
    assert found.predict(interval="prediction", seed=1).notna().all().all()


def test_names_and_dims_are_those_of_the_model(post: blm.Posterior) -> None:
    posterior = post.tree["posterior"]
    assert posterior["sd_g"].dims == ("chain", "draw", "g_term")
    assert posterior["corr_g"].dims == ("chain", "draw", "g_term", "g_term_bis")
    assert posterior["beta_g"].dims == ("chain", "draw", "g", "g_term")
    assert posterior["g_term"].values.tolist() == ["Intercept", "x"]
    assert posterior["beta_g"].sizes["g"] == 8


def test_the_summary_has_each_parameter_once(post: blm.Posterior) -> None:
    labels = post.summary().index.tolist()
    assert labels == ["alpha[Intercept]", "alpha[x]", "sigma", "sd_g[Intercept]", "sd_g[x]", "corr_g[Intercept, x]"]


HELD: dict[str, tuple[dict[str, Any], dict[str, Any], str, float]] = {
    "sigma": ({"sigma": 0.753}, {}, "sigma", 0.753),
    "sigma by its prior": ({}, {"sigma": ("fixed", 1234.5)}, "sigma", 1234.5),
    "sd": ({}, {"sd": {"g": ("fixed", 0.00123)}}, "sd_g[Intercept]", 0.00123),
}


KINDS = ("all", "stats", "all_median", "stats_median")
# every kind of table and everything that is held; all pairs are slow tests
HELD_PAIRS = [
    pytest.param(held, kind, id=f"{kind}-{held}", marks=() if k % len(HELD) == i else pytest.mark.slow)
    for k, kind in enumerate(KINDS)
    for i, held in enumerate(HELD)
]


@pytest.mark.parametrize(("held", "kind"), HELD_PAIRS)
def test_what_is_held_is_printed_as_it_is(held: str, kind: Any) -> None:
    options, priors, label, value = HELD[held]
    found = blm.LMM("y ~ x + (1 | g)", grouped(groups=5, each=4), priors=blm.Priors(**priors), **options).sample(draws=50, chains=2, seed=1)
    table = found.summary(kind=kind)
    middle, spread = ("median", "mad") if "median" in kind else ("mean", "sd")
    places = [middle, *(name for name in table.columns if name.endswith(("_lb", "_ub")))]
    printed = pd.DataFrame([line.split()[-len(table.columns) :] for line in str(table).splitlines()[1:]], table.index, table.columns)
    assert [float(text) for text in printed.loc[label, places]] == pytest.approx([value] * 3, rel=1e-9)
    assert float(printed.loc[label, spread]) == table.loc[label, spread] == 0.0
    exact = found.summary(kind=kind, round_to="none").loc[label]
    assert exact[places].tolist() == pytest.approx([value] * 3, rel=1e-12)
    assert exact[spread] == 0.0
    assert found.summary(kind=kind, round_to=1).loc[label, middle] == pytest.approx(round(value, 1), abs=1e-12)
    # what is not held is as ArviZ prints it
    others = [name for name in table.index if name != label]
    with np.errstate(invalid="ignore"):
        theirs = optional("arviz_stats").summary(found.tree, var_names=["alpha", *found.parameters], kind=kind).loc[others]
    assert str(table.loc[others]) == str(theirs)


def test_pointwise_log_likelihoods_are_normal_densities(post: blm.Posterior) -> None:
    mean = post.draws.alpha[0] @ post.design.X.T + (post.draws.beta[0][0][post.design.terms[0].group.codes] * post.design.terms[0].Z).sum(1)
    sigma = post.parameters["sigma"].values[0]
    assert np.allclose(post.log_likelihood()[0], stats.norm(mean, sigma).logpdf(post.design.y))


STRUCTURED = ["ar1 errors", "spatial errors", "ratio", "two groups of errors", "weighted ratio of errors"]


def structured(name: str) -> tuple[blm.Posterior, blm.LMM]:
    """A short sample of a model of structured errors, subjects of several patterns of visits among them, and the model of all rows."""
    changes = {
        "two groups of errors": {"residual": "ar1(visit | arm / g)"},
        "weighted ratio of errors": {"residual": "ar1(visit | g)", "variance": "ident(inner)", "weights": "w"},
    }
    data = grouped()
    data["arm"] = np.where(data["g"] < "g4", "a", "b")
    args = MODELS[name] if name in MODELS else {"formula": "y ~ x", **changes[name]}
    seen = blm.LMM(data=data.drop(index=UNSEEN), check="warn", **args).sample(draws=12, chains=1, seed=1, method="importance")
    return seen, blm.LMM(data=data, check="warn", **args)


UNSEEN = [0, 8, 14, 15, 29]


@pytest.mark.parametrize("name", STRUCTURED)
def test_densities_and_errors_of_many_draws_are_those_of_each_draw(name: str) -> None:
    found, _ = structured(name)
    design, problem, (x, _) = found.design, found.problem, found.kernel_points
    sigma = found.parameters["sigma"].values / np.sqrt(design.weight_scale)
    values, rng, whole = found.log_likelihood(), np.random.default_rng(1), np.arange(design.nobs)
    left_out, smooth = conditional_densities(found, found.draws.phi), linear_predictor(found)
    errors = draw_posterior_errors(found, np.arange(found.size), np.random.default_rng(1))
    subject = whole if design.residual is None else design.residual.subject.codes
    for k in range(found.size):
        R = sigma[k] ** 2 * unit_covariances(problem, x[k], whole[None])[0] * (subject[:, None] == subject)
        C, e = np.linalg.inv(R), design.y - smooth[k]
        c, g = np.diagonal(C), C @ e
        np.testing.assert_allclose(values[k], 0.5 * np.log(c / (2.0 * np.pi)) - 0.5 * g**2 / c, atol=1e-9)
        np.testing.assert_allclose(errors[k], ErrorDraws.at(problem, x[k]).draw(float(sigma[k]), rng), atol=1e-10)
        W = np.linalg.inv(dense_covariance(found.density, found.draws.phi[k]))
        P = W - W @ design.X @ np.linalg.inv(design.X.T @ W @ design.X) @ design.X.T @ W
        p, score = np.diagonal(P), P @ design.y
        np.testing.assert_allclose(left_out[k], 0.5 * np.log(p / (2.0 * np.pi)) - 0.5 * score**2 / p, atol=1e-8)


@pytest.mark.parametrize("name", STRUCTURED)
def test_rows_not_seen_are_predicted_by_their_covariances_with_those_seen(name: str) -> None:
    """The mean over draws of x'alpha + c'V^-1 (y - X alpha), V of all rows formed."""
    found, everything = structured(name)
    whole, out = on_other_problem(found.density, everything.problem), np.array(UNSEEN)
    seen, means = np.setdiff1d(np.arange(48), out), np.empty((found.size, len(out)))
    X, y = everything.design.X, everything.design.y
    for k, phi in enumerate(found.draws.phi):
        V = dense_covariance(whole, phi)
        W, C = np.linalg.inv(V[np.ix_(seen, seen)]), V[np.ix_(out, seen)]
        alpha = np.linalg.solve(X[seen].T @ W @ X[seen], X[seen].T @ W @ y[seen])
        means[k] = X[out] @ alpha + C @ W @ (y[seen] - X[seen] @ alpha)
    table = found.predict(everything.design.frame.iloc[out], interval="prediction", seed=1)
    np.testing.assert_allclose(table["estimate"], means.mean(axis=0), atol=1e-7)


# -- rows ----------------------------------------------------------------------------------------------------------------------------------


def test_predictions_are_near_those_of_the_fit(post: blm.Posterior) -> None:
    fit = post.model.fit()
    ours, theirs = post.predict(interval="prediction", seed=1), fit.predict(interval="prediction")
    assert np.abs(ours["estimate"] - theirs["estimate"]).max() < 0.5 * fit.sigma
    assert np.allclose(ours["std_error"], theirs["std_error"], rtol=0.25)


def test_new_levels_are_refused_set_to_0_or_drawn(post: blm.Posterior) -> None:
    new = pd.DataFrame({"x": [0.5], "g": ["new"]})
    with pytest.raises(BayesLMMError, match="new"):
        post.predict(new)
    population = post.predict(new, new_levels="population", interval="confidence", seed=1)
    drawn = post.predict(new, new_levels="sample", interval="confidence", seed=1)
    assert population["estimate"].item() == pytest.approx(drawn["estimate"].item())
    assert drawn["std_error"].item() > 1.5 * population["std_error"].item()


def test_a_subject_seen_in_part_is_predicted_given_what_was_seen() -> None:
    data = grouped()
    seen = data.drop(index=data.index[(data["g"] == "g0") & (data["visit"] > 3)])
    found = blm.LMM("y ~ x", seen, residual="ar1h(visit | g)").sample(draws=100, seed=1)
    new = data[(data["g"] == "g0")]
    given = found.predict(new, interval="prediction", seed=1)
    alone = found.predict(new, level="population", interval="prediction", seed=1)
    assert np.allclose(given["estimate"].iloc[:4], new["y"].iloc[:4], atol=1e-4)
    assert (given["std_error"].iloc[4:] < alone["std_error"].iloc[4:]).all()


def test_the_shares_of_variance_lie_between_0_and_1(post: blm.Posterior) -> None:
    table = post.r2()
    assert 0 < table.loc["marginal", "estimate"] < table.loc["conditional", "estimate"] < 1


def test_contrasts_and_means_are_functions_of_the_draws(post: blm.Posterior) -> None:
    found = post.contrast("2 * x = 1")
    assert np.allclose(found.draws[:, 0], 2 * post.draws.alpha[:, 1] - 1)
    means = post.emmeans("x", at={"x": [-1, 1]})
    assert np.allclose(means.draws[:, 1] - means.draws[:, 0], 2 * post.draws.alpha[:, 1])
    assert means.pairs()["estimate"].item() == pytest.approx(-2 * post.draws.alpha[:, 1].mean())


@pytest.mark.parametrize("interval", [None, "confidence", "prediction"])
def test_draws_of_predictions_have_the_moments_and_quantiles_of_their_table(post: blm.Posterior, interval: Any) -> None:
    rows = post.design.frame.iloc[[0, 7, 30]].set_axis(["a", "b", "c"])
    drawn = post.predict(rows, interval=interval, draws=True, seed=3)
    assert drawn.shape == (3, post.size)
    assert drawn.index.tolist() == ["a", "b", "c"]
    assert drawn.columns.names == ["chain", "draw"]
    table = post.predict(rows, interval=interval or "confidence", seed=3)
    np.testing.assert_allclose(drawn.std(axis=1), table["std_error"])
    np.testing.assert_allclose(drawn.quantile([0.025, 0.975], axis=1).T, table[["conf_low", "conf_high"]])
    if interval != "prediction":
        np.testing.assert_allclose(drawn.mean(axis=1), table["estimate"])


def test_a_predicted_mean_is_the_mean_of_the_linear_predictor_over_all_draws(post: blm.Posterior) -> None:
    np.testing.assert_allclose(post.predict()["estimate"], linear_predictor(post).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(post.predict(level="population")["estimate"], (post.draws.alpha @ post.design.X.T).mean(axis=0), rtol=1e-12)


def test_draws_given_a_subjects_other_outcomes_are_some_of_all_draws() -> None:
    post = model("ar1 errors").sample(draws=200, seed=1)
    drawn = post.predict(draws=True, seed=1)
    assert drawn.shape == (post.design.nobs, 400)
    # an observed outcome is known
    np.testing.assert_allclose(drawn, np.repeat(post.design.y[:, None], 400, axis=1))
    assert drawn.columns.is_unique


def test_posterior_predictive_draws_join_the_tree(post: blm.Posterior) -> None:
    found = post.posterior_predictive(draws=200, seed=1)
    y = found["posterior_predictive"]["y"].values.reshape(-1, 48)
    assert np.abs(y.mean(0) - post.predict()["estimate"]).max() < 6 * 0.9 / np.sqrt(800) + 0.1
    assert "posterior_predictive" in post.tree.children


def test_prior_predictive_draws_from_proper_priors_and_says_what_stands_in() -> None:
    with pytest.warns(BayesLMMWarning, match="alpha x"):
        stood_in = model("slopes").prior_predictive(10, seed=1)
    assert np.isfinite(stood_in["prior_predictive"]["y"]).all()
    tree = model("slopes", blm.Priors(alpha="normal")).prior_predictive(300, seed=1)
    assert tree["prior_predictive"]["y"].shape == (1, 300, 48)
    assert np.median(tree["prior"]["sigma"]) == pytest.approx(0.765 * 2.5 * grouped()["y"].std(), rel=0.25)


# -- files, interruption, arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slopes", "ar1 errors", "weights and offset"])
def test_a_saved_posterior_is_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    found = model(name).sample(draws=20, seed=1, method="importance")
    found.save(tmp_path / "draws.post")
    again = blm.load(tmp_path / "draws.post")
    assert np.array_equal(found.draws.phi, again.draws.phi)
    assert found.tidy("all").equals(again.tidy("all"))
    assert dict(found.checks) == dict(again.checks)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "draws.post"
    model("intercepts").sample(draws=20, seed=1).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MismatchError):
        blm.load(path)


def test_ctrl_c_keeps_the_draws_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    from bayeslmm.bayes.log_posterior.density import Density

    values, calls = Density.values, []

    def interrupted(self: Density, phi: np.ndarray) -> np.ndarray:
        calls.append(len(phi))
        if len(phi) == 4096 and calls.count(4096) == 2:
            raise KeyboardInterrupt
        return values(self, phi)

    monkeypatch.setattr(Density, "values", interrupted)
    with pytest.warns(BayesLMMWarning, match="interrupted after") as told:
        found = model("slopes").sample(seed=1)
    assert len(told) == 1
    assert found.interrupted
    assert found.checks["interrupted"].verdict == "failed"
    assert 100 < found.draws.size < 4000


@pytest.mark.parametrize(
    ("lengths", "kept"), [((40, 40), (2, 40)), ((40, 9), (1, 40)), ((30, 28, 1), (2, 28)), ((0, 12), (1, 12)), ((0, 0), (0, 0))]
)
def test_draws_that_a_stopped_sampler_did_not_make_are_no_draws(lengths: tuple[int, ...], kept: tuple[int, int]) -> None:
    xarray = pytest.importorskip("xarray")
    rng, chains = np.random.default_rng(1), len(lengths)
    values = {"alpha": rng.normal(size=(chains, 40, 2)), "sigma": rng.normal(size=(chains, 40)), "beta": np.zeros((chains, 40, 0))}
    for chain, length in enumerate(lengths):
        for variable in values.values():
            variable[chain, length:] = np.nan
    dims = {"alpha": ("chain", "draw", "coef"), "sigma": ("chain", "draw"), "beta": ("chain", "draw", "level")}
    found, n = drawn_before_the_end(xarray.Dataset({name: (dims[name], variable) for name, variable in values.items()}))
    assert (len(found), n) == kept
    assert np.isfinite(values["alpha"][found, :n]).all()
    none, n = drawn_before_the_end(xarray.Dataset({name: (dims[name], variable[:, :0]) for name, variable in values.items()}))
    assert (len(none), n) == (0, 0)


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"chains": -1}, {"draws": 2.5}, {"method": "magic"}, {"tune": 5}])
def test_wrong_arguments_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecificationError):
        model("intercepts").sample(**wrong)


def test_a_flat_alpha_has_no_evidence(post: blm.Posterior) -> None:
    with pytest.raises(PriorError, match="normal"):
        _ = post.log_evidence


def test_few_draws_are_noted() -> None:
    assert model("intercepts").sample(draws=50, seed=1).checks["draws"].verdict == "noted"


def test_sampling_imports_neither_pymc_nor_arviz() -> None:
    code = (
        "import sys; from tests.bayes.designs import model; model('slopes').sample(draws=50, seed=1);"
        "print([n for n in ('pymc', 'arviz', 'arviz_stats', 'xarray', 'matplotlib') if n in sys.modules])"
    )
    env = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({"residual": "ar1(visit | s)"}, True),
        ({"residual": "us(visit | s)", "offset": "o"}, True),
        ({"residual": "ar1(visit | s)", "weights": "w", "variance": "ident(arm)"}, True),
        ({"residual": "sp_exp(x, w | s)"}, True),
        ({"residual": "sp_exp(x, w | s) + local"}, False),
        ({"variance": "ident(arm)"}, False),
    ],
)
@pytest.mark.parametrize("interval", [None, "confidence", "prediction"])
def test_observed_outcomes_are_known_where_errors_are_correlated(options: dict[str, str], known: bool, interval: Any) -> None:
    """Predicted as rows of the model or as new ones: the same; an error that is a nugget, or independent, is another's."""
    data = every_verb.rows(12, 4, False, 1.0)
    formula = "y ~ arm + (x | s)" if "residual" not in options else "y ~ arm"
    post = blm.LMM(formula, data, **options).sample(draws=200, seed=1)
    own, new = post.predict(interval=interval, seed=1), post.predict(data, interval=interval, seed=1)
    if known:
        assert (own["estimate"] == data["y"]).all()
        np.testing.assert_allclose(own, new, atol=1e-5)  # a variance of rounding has a root of 1e-8
    else:
        assert np.abs(own["estimate"] - data["y"]).max() > 0.1
