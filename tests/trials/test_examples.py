"""The examples in the docstrings of imputation run, and say what they show."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

MODULES = ("imputation", "imputations", "analyses", "layout", "pooling", "tipping")
VERBS = frozenset({"analyse", "at_random", "data", "delta", "impute", "imputations", "plot", "pool", "points", "report", "tipping"})


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        yield from (test for test in finder.find(import_module(f"bayeslmm.trials.{name}")) if test.examples)


def test_every_verb_has_an_example() -> None:
    assert {test.name.rpartition(".")[2] for test in examples()} >= VERBS


@pytest.fixture(scope="module")
def imp(model: blm.LMM, events: pd.DataFrame) -> blm.Imputations:
    return blm.impute(model, treatment="arm", reference={"drug": "placebo"}, events=events, strategy="JR")


@pytest.mark.parametrize("example", list(examples()), ids=lambda test: test.name)
def test_an_example_shows_what_happens(example: doctest.DocTest, model: blm.LMM, events: pd.DataFrame, imp: blm.Imputations) -> None:
    more = {"imp": imp, "analyses": imp.analyse("change ~ arm + base"), "table": imp.tipping(range(6), "change ~ arm + base")}
    example.globs.update({"blm": blm, "np": np, "trial_model": model, "trial_events": events, **more})
    assert not doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example).failed
