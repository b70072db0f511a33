"""Ctrl-C at any moment: KeyboardInterrupt, the full numbers, or a result that is marked; NumPy, BLAS and Matplotlib are as before."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info

import bayeslmm as blm
from bayeslmm.bayes.sampling.hierarchical import signals_afterwards
from bayeslmm.errors import BayesLMMError, InferenceError
from bayeslmm.likelihood.threads import INTERRUPTED_IN_C, restore_state
from tests.inputs import every_argument

Verb = Callable[[], Any]


@pytest.fixture(scope="module")
def fit() -> blm.Fit:
    return blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("lme4/sleepstudy").drop(index=range(0, 180, 7))).fit()


@pytest.fixture
def alarm() -> Iterator[None]:
    """A timer that stands for the key."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def verbs(fit: blm.Fit) -> dict[str, Verb]:
    """Calls of verbs alone: other data are made before, since pandas leaves NumPy's treatment of errors changed when it is interrupted."""
    missing, by_half = gaps(fit), halves()
    return {
        "data": lambda: blm.load_dataset("lme4/sleepstudy"),
        "fit": fit.model.fit,
        "profile": lambda: fit.confint("profile", terms=["Days", "sd__Days|Subject"]),
        "bootstrap": lambda: fit.bootstrap(600, seed=1),
        "bootstrap limits": lambda: fit.confint("bootstrap", n=600, seed=1),
        "influence": lambda: fit.influence("Subject"),
        "anova": lambda: fit.anova(),
        "ranova": lambda: fit.ranova(),
        "sample": lambda: fit.model.sample(draws=200, seed=1),
        "plot": lambda: fit.plot.residuals(),
        "many": lambda: fit.model.fit_many(missing).tidy(),
        "by": lambda: blm.fit_by("Reaction ~ Days + (1 | Subject)", by_half, by="half").tidy(),
    }


def gaps(fit: blm.Fit) -> pd.DataFrame:
    """Responses that are searched one by one: each misses another row."""
    y = fit.model.y[:, None] + np.random.default_rng(1).normal(size=(fit.nobs, 12))
    y[np.arange(12), np.arange(12)] = np.nan
    return pd.DataFrame(y)


def halves() -> pd.DataFrame:
    rows = blm.load_dataset("lme4/sleepstudy")
    return pd.concat([rows.assign(half=f"h{k}", Reaction=rows["Reaction"] * (1 + k * rows["Days"])) for k in range(12)], ignore_index=True)


def state() -> tuple[Any, ...]:
    threads = [(one["filepath"], one["num_threads"]) for one in threadpool_info() if one["user_api"] == "blas"]
    handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
    shown = list(warnings.filters), warnings.showwarning, sys.stdout, sys.stderr, dict(plt.rcParams)
    return np.geterr(), np.geterrcall(), threads, handlers, plt.get_fignums(), *shown


def same(found: Any, whole: Any) -> bool:
    if isinstance(whole, pd.DataFrame):
        return bool(found.equals(whole))
    if isinstance(whole, blm.Fit):
        return bool(found.criterion == whole.criterion)
    if isinstance(whole, blm.Posterior):
        return bool(found.tidy().equals(whole.tidy()))
    return bool(found.frame.equals(whole.frame)) if hasattr(whole, "frame") else True


def marked(found: Any) -> bool:
    if isinstance(found, pd.DataFrame):
        return any("interrupted" in note for note in found.attrs.get("notes", ()))
    shown = any("interrupted" in str(check.value) or check.name == "interrupted" for check in getattr(found, "checks", {}).values())
    return bool(getattr(found, "interrupted", False)) and (shown or hasattr(found, "frame"))


def had_ended(press: KeyboardInterrupt) -> bool:
    """Whether a key came before a verb began or after it had ended, in a frame around it, and not out of it, by this frame's own words."""
    last = traceback.extract_tb(press.__traceback__)[-1]
    return last.name in {"pressed", "call", "verb", "kept"} and not (last.line or "").lstrip().startswith("raise")


def pressed(verb: Verb, seconds: float) -> tuple[Any, int]:
    """What a verb gives when the key is pressed so long after its begin, None for KeyboardInterrupt; and how often it warned of it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                found = verb()
            finally:  # where the key may be pressed as well
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt as press:
            found = None
            if had_ended(press):
                plt.close("all")
        except InferenceError:  # too few replicates for limits
            found = None
    return found, sum("interrupted" in str(one.message) for one in seen)


def check_interrupts(fit: blm.Fit, name: str, moments: int) -> None:
    verb = verbs(fit)[name]
    whole = verb()
    plt.close("all")
    begin = time.perf_counter()
    verb()
    length = time.perf_counter() - begin
    plt.close("all")
    before = state()
    for k in range(moments):
        found, told = pressed(verb, max(length * (k + 0.5) / moments, 1e-5))
        if found is None:
            assert state() == before
            continue
        if name == "plot":
            plt.close("all")
        assert state() == before
        stopped = told or getattr(found, "interrupted", False)
        assert (told == 1 and marked(found)) if stopped else same(found, whole)


NAMES = ["data", "fit", "profile", "bootstrap", "bootstrap limits", "influence", "anova", "ranova", "sample", "plot", "many", "by"]


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("name", NAMES)
def test_an_interrupt_leaves_full_numbers_or_a_mark(fit: blm.Fit, name: str) -> None:
    check_interrupts(fit, name, 6)


@pytest.mark.slow
@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_interrupts(fit: blm.Fit, name: str) -> None:
    check_interrupts(fit, name, 100)


def equal(whole: Any, found: Any) -> bool:
    """Whether two answers are one, as far as they have numbers to compare; of a verb that is random they have not."""
    if isinstance(whole, pd.DataFrame):
        one, other = (frame.drop(columns="elapsed", errors="ignore") for frame in (whole, found))
        return bool(one.equals(other))
    if isinstance(getattr(whole, "frame", None), pd.DataFrame):
        return equal(whole.frame, found.frame)
    if isinstance(whole, blm.Fit):
        return bool(found.criterion == whole.criterion) or np.isnan(whole.criterion)
    return type(whole) is type(found)


def interrupted_verb(verb: every_argument.Verb, moments: int) -> Iterator[str]:
    """What is wrong with a verb that is interrupted at moments spread over its time."""

    def call() -> Any:
        return verb.call(**verb.base)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            whole = call()
            begin = time.perf_counter()
            steady = equal(whole, call())
        except BayesLMMError:  # what needs rows, of a model without, and the like
            return
        length = time.perf_counter() - begin
    plt.close("all")
    files, before = set(os.listdir()), state()
    for k in range(max(3, min(moments, int(moments * 1.5 / length)))):
        try:
            found, told = pressed(call, max(length * (k + 0.5) / moments, 2e-5))
        except Exception as error:
            yield f"{verb.name} {k}: {type(error).__name__} {str(error)[:80]}"
            found = None
        if found is not None:
            stopped = bool(told or getattr(found, "interrupted", False))
            if stopped and not (marked(found) or getattr(found, "interrupted", False)):
                yield f"{verb.name} {k}: without a mark"
            if not stopped and steady and not equal(whole, found):
                yield f"{verb.name} {k}: other numbers"
            plt.close("all")
        if state() != before:
            yield f"{verb.name} {k}: threads, errors, signals or figures are not as before"
            plt.close("all")
        left = set(os.listdir()) - files
        if left:
            yield f"{verb.name} {k}: leaves {left}"


@pytest.mark.slow
@pytest.mark.usefixtures("alarm")
def test_every_verb_is_interrupted_at_twenty_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    every_argument.prepare(tmp_path)
    # once around all: a context within `pressed` may be hit itself
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = [wrong for verb in every_argument.verbs() for wrong in interrupted_verb(verb, 20)]
    assert not found, "\n".join(found)


def test_an_interrupted_figure_is_closed(fit: blm.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    plt.close("all")
    monkeypatch.setattr("matplotlib.axes.Axes.set_xlabel", press)
    power = fit.power("Days", nsim=4, n=[18, 20], along="Subject", seed=1)
    for draw in (fit.plot.residuals, fit.plot, power.plot, fit.profile(terms="Days").plot):
        with pytest.raises(KeyboardInterrupt):
            draw()
        assert plt.get_fignums() == []


def test_a_figure_that_an_interrupt_left_is_seen(fit: blm.Fit) -> None:
    def verb(ax: None = None) -> None:
        raise INTERRUPTED_IN_C[0][0](INTERRUPTED_IN_C[0][1])

    with pytest.raises(KeyboardInterrupt) as caught:
        restore_state(verb, "verb")()
    assert not had_ended(caught.value)


@pytest.mark.parametrize("handled", [1, 2, 3])
def test_signals_that_come_while_their_handlers_are_put_back_leave_all_handlers(handled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is pressed between two of the handlers; those that came before are handled, each."""
    came, set_handler, count = [], signal.signal, 0

    def press_between(number: int, handler: Any) -> Any:
        nonlocal count
        found = set_handler(number, handler)
        count += handler in ours
        if count == handled and handler in ours:
            count += 10
            raise KeyboardInterrupt
        return found

    ours = [lambda number, frame, k=k: came.append(k) for k in range(3)]
    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM]
    before = [set_handler(number, handler) for number, handler in zip(numbers, ours, strict=True)]

    def raise_all() -> None:
        with monkeypatch.context() as patch, signals_afterwards():
            for number in numbers:
                signal.raise_signal(number)
            assert came == []
            patch.setattr(signal, "signal", press_between)

    try:
        with pytest.raises(KeyboardInterrupt):
            raise_all()
        assert sorted(came) == [0, 1, 2]
        assert [signal.getsignal(number) for number in numbers] == ours
    finally:
        for number, handler in zip(numbers, before, strict=True):
            set_handler(number, handler)


@pytest.mark.parametrize("error", INTERRUPTED_IN_C, ids=lambda one: one[1])
def test_what_libraries_make_of_the_key_is_the_key(error: tuple[type[Exception], str]) -> None:
    def verb() -> None:
        raise error[0](f"{error[1]}: in C")

    with pytest.raises(KeyboardInterrupt):
        restore_state(verb, "verb")()


def test_nothing_done_is_an_interrupt(fit: blm.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bayeslmm.inference.intervals.replicates.ParametricResampler.run", press)
    with pytest.raises(KeyboardInterrupt):
        fit.bootstrap(10, seed=1)


def test_a_refused_plot_leaves_no_figure(fit: blm.Fit) -> None:
    plt.close("all")
    for refused in (lambda: fit.plot.residuals(against="nothing"), lambda: fit.plot.lines("nothing")):
        with pytest.raises(BayesLMMError):
            refused()
    assert plt.get_fignums() == []
