"""The examples in the docstrings of the whole package run, and say what they show.

Those of a class or function use what its module has, and the things that every page speaks of: `blm`, `np`, `pd`, `sleepstudy`, the
`model` and `fit` of it, and its `post`; `intercept`, the model without slopes, and the ML fits of both, `small` and `large`.
"""

from __future__ import annotations

import doctest
import pkgutil
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.model.sklearn import LMMRegressor

SLOW = {"bayeslmm.bayes.sampling.hierarchical.sample_hierarchical"}
NEEDS = {"bayeslmm.model.interop.to_marginaleffects": "marginaleffects", "bayeslmm.model.fit.Fit.to_marginaleffects": "marginaleffects"}
SCALAR = re.compile(r"\bnp\.(?:float64|int64|str_)\((.*?)\)|\bnp\.(True|False)_")

ELSEWHERE = (
    "bayeslmm.results",
    "bayeslmm.model.lmm",
    "bayeslmm.model.constructors",
    "bayeslmm.model.load",
    "bayeslmm.cli.app",
    "bayeslmm.trials",
)
"""Run beside the tests of fits and of imputation, or without examples."""


class Checker(doctest.OutputChecker):
    """A scalar of NumPy is the number that it holds, and an example that shows nothing claims nothing."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, SCALAR.sub(lambda found: found[1] or found[2], got), optionflags)


def examples() -> Iterator[Any]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for found in pkgutil.walk_packages(blm.__path__, "bayeslmm."):
        if not found.name.startswith(ELSEWHERE):
            for example in finder.find(import_module(found.name)):
                if example.examples:
                    yield pytest.param(example, id=example.name, marks=[pytest.mark.slow] if example.name in SLOW else [])


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    sleepstudy = blm.load_dataset("sleepstudy")
    model = blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy)
    fit, intercept = model.fit(), blm.LMM("Reaction ~ Days + (1 | Subject)", sleepstudy)
    names = {"blm": blm, "np": np, "pd": pd, "sleepstudy": sleepstudy, "model": model, "fit": fit, "post": model.sample(seed=1)}
    names["curve"] = fit.power("Days", n=[6, 18], along="Subject", nsim=40, seed=1)
    names["check"] = fit.check_inference(40, seed=1)
    names["many"] = model.fit_many(pd.DataFrame({"a": model.y, "b": model.y[::-1]}))
    names["regressor"] = LMMRegressor("Reaction ~ Days + (Days | Subject)").fit(sleepstudy, sleepstudy["Reaction"])
    return names | {"intercept": intercept, "small": intercept.fit("ML"), "large": model.fit("ML")}


@pytest.mark.parametrize("example", list(examples()))
def test_an_example_shows_what_happens(
    example: doctest.DocTest, known: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if example.name in NEEDS:
        pytest.importorskip(NEEDS[example.name])
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    example.globs.update({name: value for name, value in known.items() if name not in example.globs})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = doctest.DocTestRunner(Checker(), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(example)
    assert not outcome.failed
