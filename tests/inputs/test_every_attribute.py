"""Every public attribute, and what Python asks of any object (repr, ==, hash, in, copies, pickles), on all that the package gives."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import BayesLMMError
from tests.inputs.every_argument import objects

STRANGERS: list[object] = [None, 3, "text", object(), float("nan"), pd.NaT]

QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "repr": repr,
    "str": str,
    "len": len,
    "hash": hash,
    "iter": iter,
    "bool": bool,
    "in": lambda thing: 3 in thing,
    "in a list": lambda thing: thing in [thing],
    "equal": lambda thing: [bool(thing == stranger) for stranger in STRANGERS],
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),  # noqa: S301
}
COPIES = ("copy", "deep copy", "pickle")


def attributes(thing: Any) -> list[str]:
    """Public attributes that are no verbs."""
    found = []
    for name in dir(thing):
        static = inspect.getattr_static(type(thing), name, None)
        if not name.startswith("_") and not callable(static) and not isinstance(static, classmethod | staticmethod):
            found.append(name)
    return found


def complaint(ask: Callable[[], Any]) -> str | None:
    """What is wrong with an answer: an exception that is none of ours, and not Python's word for what an object is not."""
    try:
        ask()
    except BayesLMMError as error:
        return None if error.what and error.remedy else f"no remedy: {error}"
    except Exception as error:
        own = isinstance(error, TypeError) and ("unhashable" in str(error) or "has no len" in str(error) or "iter" in str(error))
        return None if own else f"{type(error).__name__}: {error}"
    return None


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_attributes_and_pythons_own_questions_have_answers() -> None:
    state, wrong, asked = np.geterr(), [], 0
    things = dict(objects())
    for name, thing in objects().items():
        for attribute in attributes(thing):
            asked += 1
            full = f"{name}.{attribute}"
            found = complaint(lambda full=full, thing=thing: things.setdefault(full, getattr(thing, full.rpartition(".")[2])))
            wrong += [f"{full}: {found}"] if found else []
    for name, thing in things.items():
        if type(thing).__module__.startswith("bayeslmm") and not isinstance(thing, pd.DataFrame):  # pandas answers for its frames
            for question, ask in QUESTIONS.items():
                asked += 1
                found = complaint(lambda thing=thing, ask=ask: ask(thing))
                wrong += [f"{question} of {name}: {found}"] if found else []
            for question in COPIES:
                if complaint(lambda thing=thing, question=question: QUESTIONS[question](thing)) is None:
                    wrong += [] if repr(QUESTIONS[question](thing)) == repr(thing) else [f"{question} of {name} differs"]
    assert not wrong, "\n".join(wrong)
    assert asked > 300
    assert np.geterr() == state
