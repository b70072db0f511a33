"""Values that cannot be printed are refused in a sentence, whatever argument they are given for."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, show_value
from tests.inputs.every_argument import asked, frame, outcome, verbs

LEFT_OUT = {"bootstrap", "check_inference", "power", "report", "sample", "calibrate", "kfold", "loo", "prior_predictive"}


class Unprintable:
    """What a mistaken class, or a table of signalling NaN, does when a message would show it."""

    def __repr__(self) -> str:
        raise RuntimeError


UNPRINTABLE: tuple[Any, ...] = (Unprintable(), [Unprintable()], pd.Series([Decimal("sNaN")] * 2))


def test_what_cannot_be_printed_is_named_by_its_type() -> None:
    assert show_value("x" * 100) == repr("x" * 100)[:60]
    assert [show_value(value) for value in UNPRINTABLE] == [
        f"a {kind} that cannot be printed" for kind in ("Unprintable", "list", "Series")
    ]


@pytest.mark.parametrize(
    ("verb", "argument"),
    [
        ("anova", "df"),
        ("anova", "type"),
        ("tidy", "vcov"),
        ("confint", "method"),
        ("varcomp", "scale"),
        ("refit", "y"),
        ("marginal_cov", "level"),
    ],
)
def test_a_fit_refuses_them(verb: str, argument: str) -> None:
    fit = blm.LMM("y ~ x + (1 | g)", frame()).fit()
    for value in UNPRINTABLE:
        with pytest.raises(BayesLMMError):
            getattr(fit, verb)(**{argument: value})


@pytest.mark.slow
def test_no_message_fails_to_show_a_value() -> None:
    """Every argument of the verbs, given one such value, another from one to the next."""
    found, turn = [], 0
    for verb in verbs():
        if verb.name.rpartition(".")[2] in LEFT_OUT:
            continue
        for parameter in verb.parameters:
            turn += 1
            came = outcome(asked(verb, parameter, UNPRINTABLE[turn % len(UNPRINTABLE)]))
            if came.kind == "bare":
                found.append(f"{verb.name}({parameter}=): {came.said} {came.place}")
    assert not found, "\n".join(found)
