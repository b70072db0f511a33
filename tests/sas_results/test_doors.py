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


LABELS: tuple[tuple[Any, ...], ...] = (
    ("Week 2", "Week 4", "Week 8", "Week 10"),
    ("baseline", "end", "follow-up", "last"),
    (1, 5, 9, 20),
    (20, 9, 5, 1),
    ("z", "y", "x", "w"),
)
STRUCTURES = ("ar1", "ar1h", "toep", "toeph", "adh", "arma", "us", "cs", "un(t | id, 2)", "random")


ROWS = ("sorted", "shuffled", "one level gone", "one level without a response")
# every kind of labels and of rows; all pairs are slow tests
ORDERS = [
    pytest.param(labels, rows, id=f"{rows}-{labels}", marks=pytest.mark.slow if (i + k) % 2 else ())
    for i, rows in enumerate(ROWS)
    for k, labels in enumerate(LABELS)
]


@pytest.mark.parametrize(("labels", "rows"), ORDERS)
def test_a_program_keeps_the_order_of_categories_or_is_refused(labels: tuple[Any, ...], rows: str) -> None:
    """SAS sorts levels; where their order is part of the model, the program must say so."""
    rng = np.random.default_rng(len(str(labels)) + len(rows))
    frame = pd.DataFrame({"id": np.repeat(np.arange(30), 4), "t": pd.Categorical(labels * 30, labels, ordered=True)})
    frame["y"] = rng.normal(size=(30, 4)).cumsum(axis=1).ravel() + rng.normal(size=120)
    if rows == "shuffled":
        frame = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    if rows == "one level gone":
        frame = frame[frame["t"] != labels[1]].reset_index(drop=True)
    if rows == "one level without a response":
        frame.loc[frame["t"] == labels[1], "y"] = np.nan
    refused = {structure: message for structure in STRUCTURES if (message := refusal(frame, structure))}
    assert not {"us", "cs"} & set(refused)
    assert all("order of the levels of t" in message for message in refused.values())
    if rows == "sorted":
        assert not refused


@pytest.mark.parametrize("times", [(1, 2, 3, 4), (0, 4, 8, 12), (0, 1, 2, 6), (2, 3, 5, 6)], ids=str)
def test_a_program_keeps_the_distance_of_numeric_visits_or_is_refused(times: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(times))
    frame = pd.DataFrame({"id": np.repeat(np.arange(30), 4), "t": np.tile(times, 30)})
    frame["y"] = rng.normal(size=(30, 4)).cumsum(axis=1).ravel() + rng.normal(size=120)
    refused = {structure for structure in STRUCTURES if structure != "random" and refusal(frame, structure)}
    assert not refused & {"us", "cs", "toep", "adh"}
    if len(set(np.diff(times))) == 1:
        assert not refused


def refusal(frame: pd.DataFrame, structure: str) -> str:
    """What `to_sas` says against a structure of visits; "" where its program fits the same model."""
    random = structure == "random"
    term = structure if "(" in structure else f"{structure}(t | id)"
    model = blm.LMM("y ~ 1 + ar1(0 + t | id)" if random else "y ~ 1", frame, residual=None if random else term, check="warn")
    try:
        program = model.to_sas()
    except SpecificationError as error:
        return str(error)
    assert blm.proc_mixed(program, frame).fit.criterion == pytest.approx(model.fit().criterion, abs=1e-5), program
    return ""
