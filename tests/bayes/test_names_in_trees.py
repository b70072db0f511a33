"""No name of a column relabels, replaces or breaks anything in trees, tables and graphs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.posterior.data import plain_name
from tests.bayes import designs

CLASHING = ["coef", "chain", "draw", "sample", "obs", "sigma", "alpha", "X", "visit", "weights", "x_term", "a/b"]


def renamed(group: str, response: str = "y") -> pd.DataFrame:
    frame = designs.grouped(groups=4, each=8).drop(columns="visit")
    return frame.rename(columns={"g": group, "y": response})


def quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"


@pytest.mark.parametrize("group", CLASHING)
def test_a_grouping_factor_of_any_name_leaves_everything_else_as_it_is(group: str) -> None:
    own = blm.LMM(f"y ~ x + (x | {quoted(group)})", renamed(group))
    plain = blm.LMM("y ~ x + (x | g)", designs.grouped(groups=4, each=8))
    post, other = own.sample(draws=25, chains=4, seed=1), plain.sample(draws=25, chains=4, seed=1)
    assert post.tree["posterior"]["alpha"].coords["coef"].values.tolist() == ["Intercept", "x"]
    assert post.tree["posterior"].sizes["chain"] == 4
    assert post.tree["posterior"].coords["chain"].values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(post.summary().to_numpy(), other.summary().to_numpy())
    np.testing.assert_array_equal(post.ranef()[group].to_numpy(), other.ranef()["g"].to_numpy())
    assert set(post.tidy("ran_pars")["group"]) == {group, "Residual"}
    assert "posterior_predictive" in post.posterior_predictive(5, seed=1).children


@pytest.mark.parametrize("group", CLASHING)
@pytest.mark.parametrize("form", ["marginal", "hierarchical"])
def test_graphs_take_any_name(group: str, form: str) -> None:
    pytest.importorskip("pymc")
    graph = blm.LMM(f"y ~ x + (x | {quoted(group)})", renamed(group), priors=blm.Priors(alpha="normal")).to_pymc(form)  # type: ignore[arg-type]
    names = [*graph.coords, *(name for name in graph.named_vars if name not in graph.coords)]
    assert len(names) == len(set(names))
    assert not any("/" in name for name in names)
    assert set(graph.coords) & set(graph.named_vars) == set()


@pytest.mark.parametrize("response", ["obs", "chain", "draw", "sample", "coef", "sigma", "alpha"])
def test_a_response_of_any_name(response: str) -> None:
    post = blm.LMM(f"{response} ~ x + (1 | g)", renamed("g", response), priors=blm.Priors(alpha="normal")).sample(draws=25, seed=1)
    (name,) = post.tree["log_likelihood"].data_vars
    assert name == f"{response} (response)"
    assert name in post.posterior_predictive(5, seed=1)["posterior_predictive"]
    assert name in post.model.prior_predictive(5, seed=1)["prior_predictive"]  # type: ignore[attr-defined]


def test_a_slash_in_the_response_is_written_out() -> None:
    frame = designs.grouped().assign(y=lambda d: np.exp(d["y"]))
    post = blm.LMM("log(y / 10) ~ x + (1 | g)", frame, priors=blm.Priors(alpha="normal")).sample(draws=25, seed=1)
    (name,) = post.tree["observed_data"].data_vars
    assert name == plain_name(str(post.design.spec.formula.response))
    assert "/" not in str(name)
    assert len(post.summary())


@pytest.mark.parametrize("name", ["chain", "draw", "sample", "a/b", "log(x / 2)", "x|g", "sd__x|g"])
def test_sensitivity_takes_covariates_and_groups_of_any_name(name: str) -> None:
    frame, text = designs.grouped(groups=4, each=8), name if "(" in name else quoted(name)
    frame = frame.assign(x=np.exp(frame["x"])) if "(" in name else frame.rename(columns={"x": name})
    post = blm.LMM(f"y ~ {text} + ({text} | g)", frame).sample(draws=25, seed=1)
    assert post.sensitivity().index.tolist() == [
        *post.fixef.index,
        *(f"{row.term}|{row.group}" for row in post.tidy("ran_pars").itertuples()),
    ]
    group = blm.LMM(f"y ~ 1 + (1 | {text})", frame.assign(**{name: frame["g"]})) if "(" not in name else None
    assert group is None or f"sd__Intercept|{name}" in group.sample(draws=25, seed=1).sensitivity().index


def test_a_quoted_response_is_called_as_its_column() -> None:
    post = blm.LMM("`a b` ~ x + (1 | g)", renamed("g", "a b")).sample(draws=25, seed=1)
    assert list(post.tree["observed_data"].data_vars) == list(post.tree["log_likelihood"].data_vars) == ["a b"]


@pytest.mark.parametrize(
    ("name", "role"),
    [("a b", "y"), ("a/b", "g"), ("a|b", "g"), ("a:b", "x"), ("_x", "g"), ("mu", "x"), ("sigma", "y"), ("Intercept", "x")],
)
def test_bambi_builds_with_columns_of_any_name(name: str, role: str) -> None:
    pytest.importorskip("bambi")
    y, x, g = (quoted(name) if role == own else own for own in ("y", "x", "g"))
    frame = designs.grouped(groups=4, each=8).rename(columns={role: name})
    model = blm.LMM(f"{y} ~ `{x.strip('`')}` + (`{x.strip('`')}` || {g})", frame).to_bambi()
    model.build()
    assert model.built


def test_groups_that_would_share_a_dim_have_one_each() -> None:
    frame = designs.grouped().rename(columns={"h": "g_term"})
    post = blm.LMM("y ~ x + (x | g) + (1 | g_term)", frame, check="warn").sample(draws=25, seed=1)
    assert post.tree["posterior"].sizes["g_term"] == 2
    assert post.ranef()["g_term"].shape == (4, 1)


def test_labels_that_no_file_holds_are_written_as_texts() -> None:
    frame = designs.grouped()
    frame["age"] = pd.cut(np.arange(len(frame)), 6)
    frame["pair"] = [(i // 12, i % 2) for i in range(len(frame))]
    for group in ("age", "pair"):
        post = blm.LMM(f"y ~ x + (1 | {group})", frame).sample(draws=25, seed=1)
        assert len(post.summary())
        assert post.ranef()[group].index.nlevels == 1
        assert all(isinstance(label, str) for label in post.tree["posterior"].coords[group].values.tolist())


def test_the_tree_cannot_change_the_posterior() -> None:
    post = designs.model("slopes").sample(draws=25, seed=1)
    before = post.tidy()
    with pytest.raises(ValueError, match="read-only"):
        post.tree["posterior"]["alpha"].values[:] = 0.0
    pd.testing.assert_frame_equal(post.tidy(), before)
