"""The examples in the docstrings of tests, means and comparisons run, and say what they show."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from importlib import import_module

import pytest

import bayeslmm as blm

MODULES = ("means.anova", "means.linear_functions", "means.emmeans", "means.marginal_means", "lrt")
VERBS = frozenset({"anova", "bootstrap_lrt", "contrast", "emmeans", "emtrends", "exact_rlrt", "lrt", "pairs", "ranova"})


@pytest.fixture(scope="module")
def fit() -> blm.Fit:
    return blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy")).fit()


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        yield from (test for test in finder.find(import_module(f"bayeslmm.inference.{name}")) if test.examples)


def test_every_verb_has_an_example() -> None:
    assert {test.name.rpartition(".")[2] for test in examples()} >= VERBS


@pytest.mark.parametrize("example", list(examples()), ids=lambda test: test.name)
def test_an_example_shows_what_happens(example: doctest.DocTest, fit: blm.Fit) -> None:
    small = fit.update(". ~ . - (Days | Subject) + (1 | Subject)")
    example.globs.update({"fit": fit, "small": small, "large": fit})
    assert not doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example).failed
