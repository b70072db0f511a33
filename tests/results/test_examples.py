"""The examples in the docstrings of models and fits run, and say what they show."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import bayeslmm as blm

MODULES = (
    "model.constructors",
    "model.lmm",
    "model.load",
    "results.estimates",
)
ELSEWHERE = frozenset(
    {"bootstrap", "confint", "icc", "influence", "plot", "prior_predictive", "priors", "profile", "r2", "sample"}
    | {"to_bambi", "to_marginaleffects", "to_pymc"}
)
"""Verbs whose examples are run with the folder that they live in."""


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        module = import_module(f"bayeslmm.{name}")
        yield from (test for test in finder.find(module) if test.examples and test.name.rpartition(".")[2] not in ELSEWHERE)


@pytest.mark.parametrize("example", list(examples()), ids=lambda test: test.name)
def test_an_example_shows_what_happens(example: doctest.DocTest, fit: blm.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"blm": blm, "fit": fit, "model": fit.model, "sleepstudy": blm.load_dataset("sleepstudy")}
    example.globs.update(known)
    outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert outcome.attempted
    assert not outcome.failed
