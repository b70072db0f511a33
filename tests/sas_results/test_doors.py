"""Models written as programs, and mmrm's formula: the way back leads to the same fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from tests.sas_results.sets import data

MODELS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("lme4", "sleepstudy", "Reaction ~ Days + (Days | Subject)", {}),
    ("lme4", "sleepstudy", "Reaction ~ Days + I(Days**2) + (Days || Subject)", {}),
    ("lme4", "Pastes", "strength ~ 1 + (1 | batch/cask)", {}),
    ("lme4", "cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", {}),
    ("nlme", "Orthodont", "distance ~ Sex * age + (1 | Subject)", {"variance": "ident(Sex)"}),
    ("nlme", "Orthodont", "distance ~ Sex + (0 + Sex | Subject)", {}),
    ("nlme", "Orthodont", "distance ~ Sex", {"residual": "ar1h(age | Sex / Subject)"}),
    ("nlme", "Orthodont", "distance ~ Sex", {"residual": "toep(age | Subject)"}),
    ("nlme", "Ovary", "follicles ~ Time", {"residual": "sp_exp(Time | Mare) + local"}),
)


@pytest.mark.parametrize(("package", "item", "formula", "options"), MODELS, ids=[f"{m[2]} {m[3]}" for m in MODELS])
def test_the_program_of_a_model_fits_the_same_model(package: str, item: str, formula: str, options: dict[str, Any]) -> None:
    frame = data(package, item)
    model = blm.LMM(formula, frame, check="warn", **options)
    result = blm.proc_mixed(model.to_sas(), frame)
    assert result.fit.criterion == pytest.approx(model.fit().criterion, abs=1e-7)
    assert len(result.fit.fixef) == len(model.fit().fixef)


def test_the_program_says_data_method_and_degrees_of_freedom() -> None:
    text = blm.LMM("Reaction ~ Days + (1 | Subject)", data("lme4", "sleepstudy")).to_sas("work.sleep", method="ML", df="satterthwaite")
    assert "data=work.sleep method=ml" in text
    assert "ddfm=satterthwaite" in text


@pytest.mark.parametrize(
    ("formula", "options", "what"),
    [
        ("log(Reaction) ~ Days + (1 | Subject)", {}, "response"),
        ("Reaction ~ poly(Days, 2) + (1 | Subject)", {}, "poly"),
        ("Reaction ~ Days + (1 | Subject)", {"weights": np.ones(180)}, "weights"),
        ("Reaction ~ Days + (1 | Subject)", {"offset": np.ones(180)}, "offset"),
        ("Reaction ~ Days + (1 | Subject)", {"variance": "power(Days)"}, "variance"),
    ],
)
def test_what_sas_cannot_say_is_named(formula: str, options: dict[str, Any], what: str) -> None:
    frame = data("lme4", "sleepstudy").assign(Days=lambda d: d["Days"] + 1)
    with pytest.raises(SpecificationError) as caught:
        blm.LMM(formula, frame, **options).to_sas()
    assert what in str(caught.value)


def test_mmrm_counts_as_mmrm_does(trial: pd.DataFrame) -> None:
    fit = blm.mmrm("BCVA_CHG ~ BCVA_BL + ARMCD * AVISIT + cs(AVISIT | USUBJID)", trial).fit()
    subjects = trial.loc[trial["BCVA_CHG"].notna(), "USUBJID"].nunique()
    assert fit.aic == pytest.approx(fit.criterion + 2 * 2)
    assert fit.bic == pytest.approx(fit.criterion + 2 * np.log(subjects))


def test_mmrm_and_proc_mixed_are_the_same_model(trial: pd.DataFrame) -> None:
    fit = blm.mmrm(
        "BCVA_CHG ~ BCVA_BL + ARMCD * AVISIT + ar1h(AVISIT | USUBJID)", trial.assign(AVISIT=trial["AVISIT"].astype("category"))
    ).fit()
    program = """proc mixed data=trial; class USUBJID ARMCD AVISIT; model BCVA_CHG = BCVA_BL ARMCD|AVISIT;
                 repeated AVISIT / subject=USUBJID type=arh(1); run;"""
    assert blm.proc_mixed(program, trial).fit.criterion == pytest.approx(fit.criterion, abs=1e-6)
