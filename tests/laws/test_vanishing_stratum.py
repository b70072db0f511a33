"""A level of ident() whose residual variance goes to 0: a boundary, reached and named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


def one_exact_level(seed: int) -> pd.DataFrame:
    """Level A of t shows the random effect itself, level B with errors."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(20), 4), np.tile(list("ABBB"), 20)
    return pd.DataFrame({"g": g, "t": t, "y": rng.normal(size=20)[g] + np.where(t == "A", 0.0, rng.normal(size=80))})


@pytest.mark.parametrize("order", ["AB", "BA"])
@pytest.mark.parametrize("seed", [5, 6])
def test_a_residual_sd_that_goes_to_0_is_a_boundary(order: str, seed: int) -> None:
    data = one_exact_level(seed)
    data["t"] = pd.Categorical(data.t, list(order))
    fit = blm.LMM("y ~ t + (1 | g)", data, variance="ident(t)").fit()
    ratio = fit.residual_params[f"ratio[{order[1]}]"]
    assert (ratio if order == "BA" else 1.0 / ratio) < 1e-4
    assert fit.converged
    assert fit.singular
    assert "residual sd is 0" in fit.checks["singular: ident(t)[A]"].remedy


@pytest.mark.parametrize("seed", [5, 6])
def test_the_order_of_the_levels_does_not_matter(seed: int) -> None:
    data = one_exact_level(seed)
    criteria = [
        blm.LMM("y ~ t + (1 | g)", data.assign(t=pd.Categorical(data.t, list(order))), variance="ident(t)").fit().criterion
        for order in ("AB", "BA")
    ]
    assert criteria[0] == pytest.approx(criteria[1], abs=1e-5)


def test_levels_that_differ_are_not_singular() -> None:
    rng = np.random.default_rng(1)
    g, t = np.repeat(np.arange(20), 4), np.tile(list("AABB"), 20)
    y = rng.normal(size=20)[g] + np.where(t == "A", 0.05, 1.0) * rng.normal(size=80)
    fit = blm.LMM("y ~ t + (1 | g)", pd.DataFrame({"g": g, "t": t, "y": y}), variance="ident(t)").fit()
    assert fit.converged
    assert not fit.singular


ERRORS = {"ident": {"variance": "ident(t)"}} | {name: {"residual": f"{name}(k | t / gt)"} for name in ("id", "cs", "ar1")}


def in_both_orders(name: str, seed: int) -> list[blm.Fit]:
    data = one_exact_level(seed)
    data = data.assign(k=np.tile([0, 0, 1, 2], 20), gt=data.g.astype(str) + data.t)
    ordered = (data.assign(t=pd.Categorical(data.t, list(order))) for order in ("AB", "BA"))
    return [blm.LMM("y ~ t + (1 | g)", frame, **ERRORS[name]).fit() for frame in ordered]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("seed", [5, pytest.param(6, marks=pytest.mark.slow)])
def test_groups_of_errors_end_at_0_like_levels_of_ident(name: str, seed: int) -> None:
    first, second = in_both_orders(name, seed)
    assert first.criterion == pytest.approx(second.criterion, abs=1e-6)
    for fit in (first, second):
        assert fit.converged and fit.singular
        (check,) = [check for label, check in fit.checks.items() if label.startswith("singular")]
        assert check.name.endswith("[A]") and "residual sd is 0" in check.remedy
        table = fit.tidy("ran_pars").set_index("term")
        gone = table[table.estimate == 0.0]
        assert len(gone) == 1 and gone["std_error"].isna().all()
    # what the data do tell has the same standard error whichever group is the reference
    one, other = (fit.tidy("ran_pars").set_index("term")["std_error"] for fit in (first, second))
    kept = [term for term in one.index if term in other.index and np.isfinite(one[term]) and np.isfinite(other[term])]
    assert "sd__Intercept" in kept
    np.testing.assert_allclose(one[kept], other[kept], rtol=1e-3)


@pytest.mark.parametrize(
    "repeated",
    ["/ subject=g group=t", *(pytest.param(f"k / subject=gt group=t type={name}", marks=pytest.mark.slow) for name in ("ar(1)", "cs"))],
)
def test_a_listing_neither_tests_nor_counts_a_group_without_errors(repeated: str) -> None:
    data = one_exact_level(5).assign(k=np.tile([0, 0, 1, 2], 20))
    data["gt"] = data.g.astype(str) + data.t
    program = f"proc mixed covtest; class g t k gt; model y=t; random int / subject=g; repeated {repeated}; run;"
    found = blm.proc_mixed(program, data)
    table = found["CovParms"]
    gone = table[table.Group == "t A"]
    assert gone.Estimate.iloc[0] == 0.0 and gone.StdErr.isna().all()
    kept = table[table.Group != "t A"]
    assert kept.StdErr.notna().all()
    criterion, aic = found["FitStatistics"].Value[:2]
    assert (aic - criterion) / 2 == len(kept)
    assert found["ConvergenceStatus"][["Status", "pdG", "pdH"]].to_numpy().tolist() == [[0, 1, 1]]


def test_errors_beside_random_effects_that_are_perfectly_correlated_are_singular() -> None:
    rng = np.random.default_rng(3)
    rows = pd.DataFrame([(i, k, "AB"[1 - i % 2]) for i in range(24) for k in range(2 if i % 2 else 5)], columns=["g", "k", "t"])
    b = rng.normal(size=(24, 2))
    rows["y"] = b[rows.g, 0] + b[rows.g, 1] * rows.k + np.where(rows.t == "A", 0.0, rng.normal(size=len(rows)))
    fit = blm.LMM("y ~ t + (k | g)", rows.assign(g=rows.g.astype(str)), residual="ar1(k | t / g)").fit()
    assert fit.residual_params["rho|A"] == pytest.approx(1.0, abs=1e-6)
    assert fit.singular and "singular: ar1(k | t / g)[A]" in fit.checks


def test_errors_that_a_structure_makes_singular_are_named() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"id": np.repeat(np.arange(15), 4), "k": np.tile(np.arange(4), 15), "y": rng.normal(size=60)})
    with pytest.raises(blm.errors.DesignError, match=r"fa0\(k \| id, 2\) is singular"):
        blm.LMM("y ~ 1", data.assign(k=data.k.astype(str)), residual="fa0(k | id, 2)").fit()
