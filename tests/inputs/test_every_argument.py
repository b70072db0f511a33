"""Every public callable, each parameter, odd values: an error of ours, or a value that is rightly taken and says here why."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAliasType, get_args, get_origin

import numpy as np
import pytest

from bayeslmm import _types
from tests.inputs.every_argument import Outcome, Verb, asked, frame, odd_values, outcome, prepare, verbs

NUMBERS = {"0", "-1", "huge", "billion", "NumPy number", "True"}
ABOVE_ZERO = {"huge", "billion", "NumPy number"}

EXEMPT = {
    "LMMRegressor": "scikit-learn's rule: arguments are kept as they are, and checked by fit",
    "MixedResult.get": "of Python's mappings",
}

TAKEN: dict[str, dict[str, set[str]]] = {
    "one name in a list, a set or a mapping's keys is that name": {
        "by": {"list", "set"},
        "term": {"list"},
        "specs": {"list"},
        "terms": {"list", "set", "unhashable key"},
        "statements": {"list", "set"},
        "L": {"list"},
        "test": {"list"},
        "methods": {"list"},
        "numerator": {"list", "set"},
        "of": {"list", "set"},
        "covariates": {"list"},
        "analysis": {"list"},
        "var_names": {"list"},
    },
    "no name at all: the mean over everything, no covariates, no variance function": {
        "by": {"empty text", "[]", "()"},
        "specs": {"empty text", "[]", "()", "None"},
        "covariates": {"[]", "()"},
        "variance": {"()"},
    },
    "a number, of Python, of NumPy or a truth value, which is one": {
        "rhs": NUMBERS,
        "theta": NUMBERS,
        "delta": NUMBERS - {"True"},
        "null": NUMBERS - {"True"},
        "grid": NUMBERS | {"array", "Series", "masked"},
        "effect": (NUMBERS - {"True"}) | {"array", "Series"},
        "high": NUMBERS | {"inf"},
        "low": {"-1", "0"},
        "sd": {"0", *ABOVE_ZERO, "True"},
        "corr": {"0", "-1", "NumPy number", "True"},
        "sigma": ABOVE_ZERO,
        "alpha": {"NumPy number", "array"},
        "equivalence": ABOVE_ZERO,
        "level": {"NumPy number"},
        "conf_level": {"NumPy number"},
        "ci_prob": {"NumPy number"},
        "power": {"NumPy number"},
        "type": {"True"},
        "k": {"0"},
        "name": {"True", "0"},
        "round_to": {"0", "billion"},
        "at": {"unhashable key"},
        "seed": {"0", "huge", "billion"},
    },
    "as many as there are": {"draws": {"billion"}, "workers": {"billion"}, "lags": {"billion"}, "n": {"billion"}, "rows": {"billion"}},
    "headings of the user's own, one for each model": {"labels": {"list", "set", "DataFrame"}},
    "a text of the user's own; a file of that name": {
        "title": {"nonsense", "empty text", "control", "surrogate"},
        "path": {"nonsense", "surrogate"},
        "name": {"nonsense", "empty text", "control", "surrogate"},
        "coefficient": {"nonsense", "empty text", "control", "surrogate"},
        "group": {"nonsense", "empty text", "control", "surrogate"},
        "term": {"nonsense", "empty text", "control", "surrogate"},
    },
    "a place among the means, as Python counts": {"ref": {"0", "-1"}},
    "a function is told of every refit": {"progress": {"function"}},
    "a strategy of the user's own": {"strategy": {"function"}},
    "nothing is said of any": {
        "sd": {"{}"},
        "corr": {"{}"},
        "sigma": {"{}"},
        "alpha": {"{}"},
        "delta": {"{}"},
        "residual": {"{}"},
        "priors": {"{}"},
    },
    "a word, or a level, in an array of no dimensions is that word": {
        name: {"single array"} for name in ("df", "information", "vcov", "level")
    },
    "the asymptotic covariance, which goes with the usual degrees of freedom": {"vcov": {"None"}, "df": {"None"}},
    "a seed of nobody's choice": {"seed": {"None"}},
    "the relationship of a factor that the file does not name": {"relationship": {"unhashable key"}},
}
"""Why -> parameter -> the values that are taken for that reason."""

LONG = {"Posterior.loo", "kfold", "report", "calibrate", "loo", "check_inference", "bootstrap", "power", "sample"}
"""Verbs that take too long for the short form."""


def rightly_taken(verb: Verb, parameter: str, value: str) -> bool:
    """Whether the signature says that the value may be given, or the list says why."""
    told = str(inspect.signature(verb.call).parameters[parameter].annotation)
    default = inspect.signature(verb.call).parameters[parameter].default
    if value == "None" and ("None" in told or default is None):
        return True
    if (value == "True" and "bool" in told) or (value == "{}" and ("Mapping" in told or "Functions" in told)):
        return True
    if verb.name in EXEMPT:
        return True
    return any(value in known.get(parameter, ()) for known in TAKEN.values())


def wrong(verb: Verb, parameter: str, value: str, found: Outcome) -> str | None:
    """What is wrong with an outcome; None where it is as it should be."""
    if found.kind == "refused" or (found.kind == "given" and rightly_taken(verb, parameter, value)):
        return None
    return f"{verb.name}({parameter}={value}): {found.kind} {found.said} {found.place}"


def complaints(every: bool) -> Iterator[str]:
    """What is wrong with every call; or with two values of each parameter, other ones from one to the next."""
    turn = 0
    for verb in verbs():
        if not every and (verb.name in LONG or verb.name.rpartition(".")[2] in LONG):
            continue
        signature = inspect.signature(verb.call)
        for parameter in verb.parameters:
            usual: Any = verb.base.get(parameter, signature.parameters[parameter].default)
            values = list(odd_values(usual).items())
            turn += 1
            for name, value in values if every else [values[(7 * turn + 16 * k) % len(values)] for k in (0, 1)]:
                found = wrong(verb, parameter, name, outcome(asked(verb, parameter, value), 60.0))
                if found is not None:
                    yield found


@pytest.mark.slow
def test_two_odd_values_of_every_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    found = list(complaints(every=False))
    assert not found, "\n".join(found)


@pytest.mark.hostile
def test_every_odd_value_of_every_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    found = list(complaints(every=True))
    assert not found, "\n".join(found)


def good_values(verb: Verb, parameter: str) -> list[Any]:
    """What a parameter takes, of the words and switches that its type says, and values of a few names that verbs share."""

    def words(told: Any) -> Iterator[Any]:
        if told is bool:
            yield from (True, False)
        elif get_origin(told) is Literal:
            yield from get_args(told)
        elif isinstance(told, TypeAliasType):
            yield from words(told.__value__)
        else:
            for inner in get_args(told):
                yield from words(inner)

    told = str(inspect.signature(verb.call).parameters[parameter].annotation)
    named = [getattr(_types, name, bool if name == "bool" else None) for name in re.findall(r"\w+", told)]
    return [*(word for name in named for word in words(name)), *re.findall(r'"([^"]+)"', told), *SHARED.get(parameter, ())]


SHARED: dict[str, tuple[Any, ...]] = {
    "at": ({"x": [0.0, 1.0]}, {"f": ["a"]}, {"x": [np.inf]}),
    "by": ("f", "g", ["f"]),
    "conf_level": (0.5, 0.999999),
    "formula": ("y ~ x", "log(y) ~ x + (1 | g)", ". ~ . + v", ". ~ 1"),
    "group": ("g",),
    "newdata": (frame().head(2), frame().iloc[:0], frame()[["x"]], {"x": [1.0]}),
    "offset": ("x",),
    "residual": ("ar1(v | g)", "us(v | g)"),
    "sigma": (1.0, 1e-300),
    "specs": ("f", ["f", "x"], "~ f | x"),
    "variance": ("ident(f)", "power(fitted)"),
    "weights": ("v", np.ones(48), {"f": [1, 2, 3]}, "proportional"),
}


def complaints_of_pairs(count: int) -> Iterator[str]:
    """What is wrong with calls of two or three arguments that are odd, or right each by itself."""
    rng = random.Random(1)
    several = [verb for verb in verbs() if len(verb.parameters) > 1]
    for _ in range(count):
        verb = rng.choice(several)
        given = dict(verb.base)
        for parameter in rng.sample(verb.parameters, min(len(verb.parameters), rng.choice([2, 2, 3]))):
            odd, good = odd_values(given.get(parameter)), good_values(verb, parameter)
            given[parameter] = rng.choice(good) if good and rng.random() < 0.75 else rng.choice(list(odd.values()))
        found = outcome(partial(verb.call, **given), 60.0)
        if found.kind not in ("refused", "given"):
            yield f"{verb.name}({given}): {found.kind} {found.said} {found.place}"


@pytest.mark.slow
def test_pairs_of_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    found = list(complaints_of_pairs(2000))
    assert not found, "\n".join(found)


@pytest.mark.hostile
def test_many_pairs_of_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    found = list(complaints_of_pairs(20_000))
    assert not found, "\n".join(found)


def test_a_verb_without_arguments_that_work_is_not_passed_over() -> None:
    """The usual arguments of every verb are complete: else every odd value would be refused for want of another argument."""
    for verb in verbs():
        needed = [p.name for p in inspect.signature(verb.call).parameters.values() if p.default is p.empty and p.kind not in (2, 4)]
        assert set(needed) <= set(verb.base), verb.name
