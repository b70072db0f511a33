"""Every public verb, found by looking, leaves NumPy as it was and tells of a singular matrix in words; a new verb is in it by itself."""

from __future__ import annotations

import inspect
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from io import BytesIO, StringIO
from types import CellType
from typing import Any
from zipfile import ZipFile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning, InferenceError, warn_user
from bayeslmm.likelihood.threads import blas_libraries, restore_state
from bayeslmm.reports.page import draw_figure
from tests.contract.public import callables

LOWER = {name for name in callables() if name.startswith("Priors.")}
"""Values of a layer below all linear algebra."""

VERBS = {name: verb for name, verb in callables().items() if name not in LOWER}


def innermost(verb: Any) -> CellType:
    """Where the outermost wrapper that is left holds the function as it is written."""
    while True:
        cells = [cell for cell in verb.__closure__ or () if cell.cell_contents is verb.__wrapped__]
        assert cells, verb
        if not hasattr(verb.__wrapped__, "__wrapped__"):
            return cells[0]
        verb = verb.__wrapped__


def change_process() -> None:
    """What contexts leave that Ctrl-C hits on their way in or out."""
    sys.stdout, sys.stderr = StringIO(), StringIO()
    warnings.catch_warnings(record=True).__enter__()
    warnings.simplefilter("error")
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def broken(monkeypatch: pytest.MonkeyPatch, verb: Callable[..., Any], error: BaseException, change: Callable[[], None] = int) -> None:
    """Let a verb change the state of NumPy and of BLAS, and fail."""

    def fail(*_: object, **__: object) -> None:
        change()
        np.seterr(all="raise")
        np.seterrcall(print)
        for _get, set_threads in blas_libraries():
            set_threads(2)
        raise error

    monkeypatch.setattr(innermost(verb), "cell_contents", fail)


def state() -> tuple[object, ...]:
    shown = list(warnings.filters), warnings.showwarning, sys.stdout, sys.stderr, signal.getsignal(signal.SIGINT)
    return np.geterr(), np.geterrcall(), [threads() for threads, _ in blas_libraries()], *shown


def test_there_are_verbs_to_look_at() -> None:
    assert len(VERBS) > 150
    assert {"Fit.predict", "Fit.marginal_cov", "FitPlots.__call__", "LMM.of", "LMMRegressor.fit", "PartitionedLMM.updated", "lrt"} <= set(
        VERBS
    )


@pytest.mark.parametrize("name", VERBS)
def test_a_singular_matrix_is_told_in_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors, callback = np.geterr(), np.geterrcall()
    broken(monkeypatch, VERBS[name], np.linalg.LinAlgError("Singular matrix"))
    before = [(set_threads, threads()) for threads, set_threads in blas_libraries()]
    try:
        with pytest.raises(InferenceError) as caught:
            VERBS[name]()
    finally:
        for set_threads, count in before:
            set_threads(count)
    assert caught.value.what and caught.value.remedy
    assert "__" not in caught.value.where
    assert (np.geterr(), np.geterrcall()) == (errors, callback)


def half_written() -> Exception:
    """What an archive says when Ctrl-C leaves a member of it open."""
    try:
        with ZipFile(BytesIO(), "w") as archive:
            part = archive.open("part", "w")
            raise KeyboardInterrupt
    except ValueError as error:
        part.close()
        return error


@pytest.mark.parametrize(
    "pressed",
    [KeyboardInterrupt(), TypeError("Cannot compare structured arrays unless they have a common dtype."), half_written()],
    ids=["key", "rows", "archive"],
)
@pytest.mark.parametrize("name", VERBS)
def test_an_interrupt_leaves_the_state_as_it_was(name: str, pressed: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state()
    broken(monkeypatch, VERBS[name], pressed, change_process)
    with pytest.raises(KeyboardInterrupt):
        VERBS[name]()
    assert state() == before


@pytest.mark.parametrize("way", ["__enter__", "__exit__"])
def test_a_key_pressed_where_errors_are_set_or_put_back_leaves_them_to_the_user(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(self: np.errstate, *error: object) -> None:
        if way == "__enter__":
            enter(self)
        raise KeyboardInterrupt

    verb = restore_state(lambda: None, "verb")
    with np.errstate(all="raise"):
        before, enter = np.geterr(), np.errstate.__enter__
        with monkeypatch.context() as patch:
            patch.setattr(np, "errstate", type("Pressed", (np.errstate,), {way: press}))
            with pytest.raises(KeyboardInterrupt):
                verb()
        assert np.geterr() == before


def test_a_key_pressed_where_a_figure_of_a_report_is_done_leaves_the_users_look(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressed:
        def __init__(self, look: dict[str, Any]) -> None:
            self.look = look

        def __enter__(self) -> None:
            plt.rcParams.update(self.look)

        def __exit__(self, *error: object) -> None:
            raise KeyboardInterrupt

    before = dict(plt.rcParams)
    monkeypatch.setattr("matplotlib.rc_context", Pressed)
    with pytest.raises(KeyboardInterrupt):
        restore_state(draw_figure, "report")(lambda axes: None)
    assert dict(plt.rcParams) == before


def test_an_error_after_an_interrupt_that_the_user_handles_is_that_error() -> None:
    def fail() -> None:
        raise ValueError("of the user's own function")

    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(ValueError, match="own function"):
            restore_state(fail, "fail")()


@pytest.mark.parametrize("name", VERBS)
def test_how_numpy_treats_errors_in_a_verb_is_not_the_users_to_raise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(innermost(VERBS[name]), "cell_contents", lambda *_, **__: seen.append(np.geterr()))
    for how in ("raise", "print", "ignore"):
        with np.errstate(all=how):
            VERBS[name]()
    own = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    assert seen == [own, own, dict.fromkeys(own, "ignore")]


def test_a_verb_warns_of_one_thing_once_whichever_verbs_it_asks() -> None:
    def warn() -> None:
        for what in ("a row has no value", "a row has no value", "a level is new"):
            warn_user(BayesLMMWarning(what, "row 1", "drop it"))

    inner = restore_state(warn, "predict")

    def ask_twice() -> None:
        inner()
        inner()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        restore_state(ask_twice, "augment")()
        assert [str(one.message).splitlines()[0] for one in caught] == ["a row has no value", "a level is new"]
        inner()  # another call is told again
    assert len(caught) == 4


def test_a_column_named_interrupted_is_no_mark() -> None:
    """A frame with such a column is what a verb gives back, whatever it holds."""
    frame = pd.DataFrame({"interrupted": [1, 0]})
    assert restore_state(lambda: frame, "augment")() is frame


def test_verbs_keep_their_names_and_travel() -> None:
    for name, verb in VERBS.items():
        assert name.split(".")[-1] == getattr(verb, "__name__", ""), name
    assert pickle.loads(pickle.dumps(blm.Fit.predict)) is blm.Fit.predict  # noqa: S301
    assert "cls" not in inspect.signature(blm.LMM.of).parameters
    assert {"newdata", "level", "interval"} <= set(inspect.signature(blm.Fit.predict).parameters)
