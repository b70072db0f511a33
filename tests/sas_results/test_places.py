"""Visits that are the order of the rows: a row without a response keeps its place, wherever it comes in, as if a column named the visit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import PredictionError

PROGRAM = """proc mixed; class id {visit}; model y = x / outp=p;
             repeated {visit} / type={type} subject=id; run;"""
TYPES = ("un", "ar(1)", "arh(1)", "toep", "toeph", "toep(2)", "ante(1)", "csh", "hf", "arma(1,1)")


def gapped(seed: int, subjects: int = 30, visits: int = 4, gone: str = "y") -> pd.DataFrame:
    """Correlated rows of subjects, a fifth of which misses a value of `gone`; the visit in column `t` too."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(subjects, visits)).cumsum(axis=1).ravel()
    frame = pd.DataFrame({"id": np.repeat(np.arange(subjects), visits), "t": np.tile(np.arange(1, visits + 1), subjects)})
    frame = frame.assign(x=rng.normal(size=len(y)), y=y + rng.normal(size=len(y)))
    frame.loc[rng.random(len(y)) < 0.2, gone] = np.nan
    return frame.sample(frac=1, random_state=seed).sort_values("t", kind="stable").reset_index(drop=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_repeated_without_an_effect_is_repeated_with_the_visit_named(kind: str, seed: int) -> None:
    frame = gapped(seed)
    unnamed, named = (blm.proc_mixed(PROGRAM.format(visit=visit, type=kind), frame) for visit in ("", "t"))
    assert unnamed.fit.criterion == pytest.approx(named.fit.criterion, abs=1e-6)
    for column in ("Pred", "StdErrPred"):
        np.testing.assert_allclose(unnamed["p"][column], named["p"][column], atol=1e-4)


@pytest.mark.parametrize("gone", ["y", "x"])
@pytest.mark.parametrize("structure", ["ar1", "ar1h", "toep", "toeph", "adh", "us", "csh"])
def test_a_formula_counts_the_rows_that_it_leaves_out(structure: str, gone: str) -> None:
    frame = gapped(3, gone=gone)
    fits = [blm.LMM("y ~ x", frame, residual=f"{structure}({visit} | id)").fit() for visit in ("1", "t")]
    assert fits[0].criterion == pytest.approx(fits[1].criterion, abs=1e-6)
    without = blm.LMM("y ~ x", frame.dropna(), residual=f"{structure}(1 | id)").fit()
    assert abs(without.criterion - fits[0].criterion) > 0.01


def test_a_place_that_nobody_has_keeps_its_spacing() -> None:
    frame = gapped(4)
    frame.loc[frame["t"] == 2, "y"] = np.nan
    for structure in ("ar1", "ar1h", "us", "toep(1 | id, 2)"):
        term = structure if "(" in structure else f"{structure}(1 | id)"
        dated = frame.assign(t=pd.Categorical(frame["t"], [1, 2, 3, 4], ordered=True))
        unnamed, named = (blm.LMM("y ~ x", dated, residual=text).fit() for text in (term, term.replace("1 |", "t |")))
        assert unnamed.criterion == pytest.approx(named.criterion, abs=1e-6)


def test_the_program_of_a_model_of_the_order_of_the_rows_is_the_same_model() -> None:
    frame = gapped(5)
    model = blm.LMM("y ~ x", frame, residual="ar1h(1 | id)")
    assert blm.proc_mixed(model.to_sas(), frame).fit.criterion == pytest.approx(model.fit().criterion, abs=1e-7)


def test_a_saved_fit_keeps_the_places_of_its_rows(tmp_path: Path) -> None:
    frame = gapped(6).assign(count=lambda d: d["t"] ** 2, late=lambda d: d["t"] > 2)
    fit = blm.LMM("y ~ x + count + late", frame, residual="ar1(1 | id)", weights=np.linspace(1, 2, len(frame))).fit()
    fit.save(tmp_path / "a.fit")
    again = blm.load(tmp_path / "a.fit")
    assert again.criterion == fit.criterion
    assert again.nobs == fit.nobs
    assert list(again.fixef.index) == list(fit.fixef.index)
    assert again.update(". ~ . - count").criterion == pytest.approx(fit.update(". ~ . - count").criterion, abs=1e-8)


def test_new_rows_have_the_places_that_the_fit_has() -> None:
    fit = blm.LMM("y ~ x", gapped(7), residual="ar1h(1 | id)").fit()
    with pytest.raises(PredictionError, match="no row number 5"):
        fit.predict({"x": np.zeros(5), "id": np.zeros(5, int)}, interval="prediction")
