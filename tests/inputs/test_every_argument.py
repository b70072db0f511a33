"""Every public callable, each parameter, odd values: an error of ours, or a value that is rightly taken and says here why."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.inputs.every_argument import Outcome, Verb, asked, odd_values, outcome, prepare, verbs

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


def test_a_verb_without_arguments_that_work_is_not_passed_over() -> None:
    """The usual arguments of every verb are complete: else every odd value would be refused for want of another argument."""
    for verb in verbs():
        needed = [p.name for p in inspect.signature(verb.call).parameters.values() if p.default is p.empty and p.kind not in (2, 4)]
        assert set(needed) <= set(verb.base), verb.name
