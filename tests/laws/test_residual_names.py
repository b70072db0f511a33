"""The parameters of the errors have one name each, and the same one in every table, draw and prior, over designs drawn by chance."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.priors import resolve
from bayeslmm.errors import BayesLMMWarning, PriorError

VISITS, OUTCOMES = ("w1", "w2", "w3"), ("sbp", "dbp")
PLAIN = ("us", "diag", "cs", "csh", "ar1", "ar1h", "toep", "toeph", "ad", "adh", "hf", "fa1", "arma")


def data(seed: int, outcomes: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [(i, o, v) for i in range(24) for o in (OUTCOMES if outcomes else OUTCOMES[:1]) for v in VISITS]
    frame = pd.DataFrame(rows, columns=["id", "out", "vis"])
    frame["vis"] = pd.Categorical(frame["vis"], VISITS)
    frame["out"] = pd.Categorical(frame["out"], OUTCOMES)
    frame["arm"] = np.where(frame["id"] % 2, "A", "B")
    frame["t"] = frame["vis"].cat.codes.astype(float) * 1.5
    frame["p"], frame["q"] = rng.uniform(0.5, 1.5, len(frame)), rng.uniform(0.5, 1.5, len(frame))
    frame["u"], frame["v"] = rng.choice(list("kl"), len(frame)), rng.choice(list("klm"), len(frame))
    frame["y"] = rng.normal(size=24)[frame["id"]] + rng.normal(size=len(frame)) * np.where(frame["out"] == "dbp", 1.0, 3.0)
    return frame


def designs() -> Iterator[tuple[str | None, str | None]]:
    """Structures of R with and without groups, beside random products of variance functions."""
    rng = np.random.default_rng(7)
    factors = ("exp(p)", "exp(q)", "power(p)", "power(q)", "const_power(p)", "ident(u)", "ident(v)", "exp(p | u)")
    for structure in (*PLAIN, "us@ar1", "us@cs", "us@us", "sp_exp"):
        visit = "out, vis" if "@" in structure else "t" if structure == "sp_exp" else "vis"
        yield f"{structure}({visit} | {'arm / ' if rng.random() < 0.5 else ''}id)", None
    for _ in range(8):
        product = " * ".join(rng.choice(factors, int(rng.integers(2, 4)), replace=False))
        yield (None if rng.random() < 0.5 else "cs(vis | arm / id)"), product


DESIGNS = tuple(designs())
PRODUCTS = [variance for _, variance in DESIGNS if variance]


def is_long(residual: str | None, variance: str | None) -> bool:
    """A factor's posterior by group, and every other product of variance functions."""
    return str(residual).startswith("fa1(") or variance in PRODUCTS[1::2]


@pytest.mark.parametrize(
    ("residual", "variance"),
    # a factor's posterior by group is sampled along a ridge, which takes a minute
    [pytest.param(r, v, marks=[pytest.mark.slow] if is_long(r, v) else [], id=f"{r} {v}") for r, v in DESIGNS],
)
def test_names_are_unique_and_the_same_everywhere(residual: str | None, variance: str | None) -> None:
    frame = data(3, outcomes="@" in (residual or ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLMMWarning)
        model = blm.LMM("y ~ 1", frame, residual=residual, variance=variance, check="warn")
        fit = model.fit()
        post = model.sample(draws=100, chains=1, seed=1)
    names = fit.residual_params.index.tolist()
    assert len(set(names)) == len(names)
    tables = [fit.tidy("ran_pars"), post.tidy("ran_pars")]
    assert all(table.loc[table["group"] == "Residual", "term"].tolist() == names for table in tables)
    assert set(names) <= set(fit.confint("wald")["term"])
    frame = blm.compare(fit, post).frame
    errors = frame[frame["group"] == "Residual"]
    assert errors.groupby("term").size().reindex(names).tolist() == [2] * len(names)
    assert np.isfinite(errors["gap"]).all()
    variables = set(model.to_pymc().named_vars)
    assert {name for name in names if name.startswith(("expon", "power", "const", "ratio", "rho["))} <= variables
    for name in names:
        priors = blm.Priors(residual={name: ("uniform", 0.01, 0.9)})
        if name == "sigma":  # which has an argument of its own
            priors = blm.Priors(sigma=("uniform", 0.01, 0.9))
            assert [row.term for row in resolve(model.problem, priors).rows() if row.source == "given"] == [""]
        elif (residual or "").startswith("us(") and name.startswith(("var", "cov")):
            with pytest.raises(PriorError):
                resolve(model.problem, priors)
        else:
            assert [row.term for row in resolve(model.problem, priors).rows() if row.source == "given"] == [name]


def test_kronecker_names_are_those_of_the_outcomes() -> None:
    frame = data(5, outcomes=True)
    fit = blm.LMM("y ~ out", frame, residual="us@ar1(out, vis | id)").fit()
    names = fit.residual_params.index.tolist()
    assert names == ["var[sbp]", "cov[dbp,sbp]", "var[dbp]", "inner_rho"]
    R = fit.R
    for outcome in OUTCOMES:
        assert fit.residual_params[f"var[{outcome}]"] == pytest.approx(R.loc[f"{outcome}:w1", f"{outcome}:w1"], rel=1e-10)
    assert fit.residual_params["cov[dbp,sbp]"] == pytest.approx(R.loc["dbp:w2", "sbp:w2"], rel=1e-10)


def test_outcomes_whose_labels_hold_a_colon_keep_their_names() -> None:
    frame = data(5, outcomes=True)
    frame["out"] = frame["out"].cat.rename_categories({"sbp": "bp:sys", "dbp": "bp:dia"})
    fit = blm.LMM("y ~ out", frame, residual="us@ar1(out, vis | id)").fit()
    assert fit.residual_params.index.tolist()[:3] == ["var[bp:sys]", "cov[bp:dia,bp:sys]", "var[bp:dia]"]


@pytest.mark.parametrize(
    ("variance", "names"),
    [
        ("exp(p) * exp(q)", ["expon(p)", "expon(q)"]),
        ("ident(u) * ident(v)", ["ratio(u)[l]", "ratio(v)[l]", "ratio(v)[m]"]),
        ("power(p) * const_power(q)", ["power(p)", "const", "power(q)"]),
        ("exp(p) * exp(p | u)", ["expon(p)", "expon(p|u)[k]", "expon(p|u)[l]"]),
        ("ident(u) * exp(q)", ["ratio[l]", "expon"]),
    ],
)
def test_products_name_what_each_parameter_is_of(variance: str, names: list[str]) -> None:
    frame = data(4)
    frame = pd.concat([frame, frame.assign(id=frame["id"] + 24)], ignore_index=True).sort_values(["u", "v"])
    model = blm.LMM("y ~ 1 + (1 | id)", frame, variance=variance, check="warn")
    assert model.fit().residual_params.index.tolist() == ["sigma", *names]


def test_a_prior_moves_the_parameter_that_it_names() -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"g": np.repeat(np.arange(15), 8), "x": rng.normal(size=120), "z": rng.normal(size=120)})
    frame["y"] = rng.normal(size=15)[frame["g"]] + rng.normal(size=120) * np.exp(0.5 * frame["x"] - 0.5 * frame["z"])
    means = {}
    for name in ("", "expon(x)", "expon(z)"):
        priors = blm.Priors(residual={name: ("normal", 0.0, 0.01)} if name else {})
        post = blm.LMM("y ~ 1 + (1 | g)", frame, variance="exp(x)*exp(z)", priors=priors).sample(draws=400, seed=1)
        means[name] = post.tidy("ran_pars").set_index("term")["estimate"]
    for held, free in (("expon(x)", "expon(z)"), ("expon(z)", "expon(x)")):
        assert abs(means[held][held]) < 0.05
        assert means[held][free] == pytest.approx(means[""][free], abs=0.15)
        assert abs(means[""][held]) > 0.2


def test_draws_of_a_graph_pair_with_the_fit() -> None:
    frame = data(6)
    model = blm.LMM("y ~ 1", frame, residual="us(vis | arm / id)", check="warn")
    fit, post = model.fit(), model.sample(draws=200, chains=2, seed=1)
    table = blm.compare({"posterior": post, "tree": post.tree, "fit": fit}).frame
    table = table[table["group"] == "Residual"]
    assert set(table.groupby("term").size()) == {3}
    own, tree = (table[table["source"] == source].set_index("term")["estimate"] for source in ("posterior", "tree"))
    np.testing.assert_allclose(own.to_numpy(), tree[own.index].to_numpy(), rtol=1e-8)
