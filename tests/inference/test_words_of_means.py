"""What marginal means, updates and models answer to the words of other programs."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, SpecificationError, UnknownCheckError


@pytest.fixture(scope="module")
def visits() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"id": np.repeat(np.arange(30), 4), "visit": np.tile(list("abcd"), 30), "x": rng.normal(size=120)})
    frame["visit"] = pd.Categorical(frame["visit"], ordered=True)
    frame["arm"] = np.array(["placebo", "drug", "dose"])[frame["id"] % 3]
    frame["y"] = frame["x"] + rng.normal(size=30)[frame["id"]] + rng.normal(size=120)
    return frame


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("formula", "program"), [("a + b + c", "a b c"), ("a * b + c", "a|b c"), ("a * b * c", "a|b|c")])
def test_om_of_proc_mixed_is_proportional_where_nothing_is_missing(seed: int, formula: str, program: str) -> None:
    rng = np.random.default_rng(seed)
    d = pd.DataFrame({"a": rng.choice(list("pqr"), 150, p=[0.5, 0.3, 0.2]), "b": rng.choice(list("uv"), 150, p=[0.7, 0.3])})
    d["c"], d["g"] = rng.choice(list("st"), 150), rng.integers(0, 15, 150).astype(str)
    d["y"] = rng.normal(size=150) + 2.0 * ((d["a"] == "q") & (d["b"] == "v"))
    told = blm.proc_mixed(f"proc mixed; class a b c g; model y = {program}; random g; lsmeans a / om; run;", d)["LSMeans"]
    ours = blm.LMM(f"y ~ {formula} + (1 | g)", d).fit().emmeans("a", weights="proportional").frame
    np.testing.assert_allclose(ours["estimate"], told["Estimate"], rtol=1e-6)


def test_the_word_om_is_told_what_it_is(visits: pd.DataFrame) -> None:
    fit = blm.LMM("y ~ arm * visit", visits).fit()
    for word in ("OM", "om", "ObsMargins"):
        with pytest.raises(SpecificationError, match="PROC MIXED"):
            fit.emmeans("arm", weights=word)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [[-1.0, 2.0], [0.0, 1.0, 5.0]])
def test_a_mean_over_values_of_a_covariate_says_so(visits: pd.DataFrame, values: list[float]) -> None:
    fit = blm.LMM("y ~ arm * x + visit", visits).fit()
    means = fit.emmeans("arm", at={"x": values})
    assert any("averaged over" in note and "x" in note for note in means.notes)
    single = fit.emmeans("arm", at={"x": float(np.mean(values))})
    np.testing.assert_allclose(means.frame["estimate"], single.frame["estimate"])
    assert not any("x" in note.split("(")[0].replace("averaged over", "").split() for note in single.notes)


@pytest.mark.parametrize("structure", ["ar1", "cs", "toep", "csh"])
def test_the_formula_of_an_mmrm_is_updated_with_its_structure(visits: pd.DataFrame, structure: str) -> None:
    fit = blm.mmrm("y ~ arm * visit + us(visit | id)", visits).fit()
    whole = f"y ~ arm + visit + {structure}(visit | id)"
    made, afresh = fit.update(whole), blm.mmrm(whole, visits).fit()
    assert (made.criterion, made.aic) == pytest.approx((afresh.criterion, afresh.aic))
    assert not dict(made.model.groups)
    changed = fit.update(f". ~ . - arm:visit + {structure}(visit | id) + x")
    assert changed.model.spec.residual.text == f"{structure}(visit | id)"
    assert "x" in changed.fixef.index
    kept = fit.update(". ~ . + x")
    assert kept.model.spec.residual.text == "us(visit | id)"


def test_random_effects_are_added_to_an_mmrm_as_such(visits: pd.DataFrame) -> None:
    fit = blm.mmrm("y ~ visit + ar1(visit | id)", visits).fit()
    made = fit.update(". ~ . + (1 | arm)", check="warn")
    assert dict(made.model.groups) == {"arm": 3}
    assert made.model.spec.residual.text == "ar1(visit | id)"


def test_checks_are_lines_and_name_what_was_meant(visits: pd.DataFrame) -> None:
    checks = blm.LMM("y ~ x + (x | id)", visits).fit().checks
    assert len(repr(checks).splitlines()) == len(checks)
    assert all(name in repr(checks) and check.verdict in repr(checks) for name, check in checks.items())
    with pytest.raises(UnknownCheckError, match="convergence") as caught:
        checks["converge"]
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, BayesLMMError)
    assert checks.get("nothing") is None
    assert "nothing" not in checks
    assert dict(pickle.loads(pickle.dumps(checks))) == dict(copy.deepcopy(checks)) == dict(checks)  # noqa: S301


def test_a_fit_where_a_model_is_asked_for_names_its_model(visits: pd.DataFrame) -> None:
    fit = blm.mmrm("y ~ arm * visit + us(visit | id)", visits).fit()
    with pytest.raises(SpecificationError, match=r"fit\.model"):
        blm.impute(fit, treatment="arm")  # type: ignore[arg-type]


@pytest.mark.parametrize("term", ["(1 | id.arm)", "id.arm"])
def test_a_dot_between_two_columns_is_an_interaction_of_others(visits: pd.DataFrame, term: str) -> None:
    with pytest.raises(BayesLMMError, match="id:arm"):
        blm.LMM(f"y ~ x + {term}", visits)
