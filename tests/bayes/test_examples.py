"""The examples in the docstrings of posteriors run, and say what they show."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import bayeslmm as blm

MODULES = ("bayes.posterior.posterior", "specification.priors")
ON_MODELS = ("LMM.sample", "LMM.prior_predictive", "LMM.priors")


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    data = blm.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    model = blm.LMM(formula, data, priors=blm.Priors(alpha="normal"))
    return {"blm": blm, "sleepstudy": data, "model": model, "post": blm.LMM(formula, data).sample(seed=1)}


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        yield from (test for test in finder.find(import_module(f"bayeslmm.{name}")) if test.examples)
    models = finder.find(import_module("bayeslmm.model.lmm"))
    yield from (test for test in models if test.examples and test.name.endswith(ON_MODELS))


@pytest.mark.parametrize("example", list(examples()), ids=lambda test: test.name)
def test_an_example_shows_what_happens(
    example: doctest.DocTest, known: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example.globs.update(known)
    outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert outcome.attempted
    assert not outcome.failed
