"""The state of the process around a verb: one BLAS thread, NumPy's treatment of errors, and all of it as it was after Ctrl-C."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import cache, wraps
from typing import Any, Literal

import numpy as np
from threadpoolctl import ThreadpoolController

from bayeslmm.errors import InferenceError, saying_once
from bayeslmm.likelihood.kernel import TUNING


@cache
def blas_libraries() -> tuple[tuple[Callable[[], int], Callable[[int], object]], ...]:
    """How to ask every BLAS for its threads, and how to set them.

    threadpoolctl lets one Python thread at a time set those of OpenBLAS, and keeps an account of whose turn it is that costs more than the
    setting; a limit that is only ever set where it changes something, and undone by whom it was set, needs no turns.
    """
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return tuple((library.get_num_threads, getattr(library, "_real_set_num_threads", library.set_num_threads)) for library in found)


class _Limit:
    """One thread for some libraries, and afterwards what they had."""

    __slots__ = ("found",)

    def __init__(self, found: list[tuple[Callable[[int], object], int]]) -> None:
        self.found = found

    def __enter__(self) -> None:
        for set_threads, _ in self.found:
            set_threads(1)

    def __exit__(self, *error: object) -> None:
        for set_threads, before in self.found:
            set_threads(before)


_NOTHING = _Limit([])


def one_thread(m: int = 0) -> _Limit:
    """One BLAS thread around small work; what was set before is set again afterwards.

    Nothing is done, and nothing set back, where there is one thread already, by the user or by a caller's limit. Libraries are asked each
    time, so the user may change their threads between two calls; and a Python thread that came while another had set the limit leaves it
    to that one to undo.
    """
    if m >= TUNING.one_thread_columns:
        return _NOTHING
    found = [(set_threads, before) for threads, set_threads in blas_libraries() if (before := threads() or 1) != 1]
    return _Limit(found) if found else _NOTHING


def was_interrupted(error: BaseException | None, handled: BaseException | None) -> bool:
    """Whether an exception is Ctrl-C in another's words, raised since the one that was being handled before.

    What cleans up after Ctrl-C may fail in its own way, as an archive does with a member half written. Libraries written in C answer a key
    pressed in them by what they make of a call that gave nothing.
    """
    while error is not None and error is not handled:
        if isinstance(error, KeyboardInterrupt) or any(isinstance(error, kind) and words in str(error) for kind, words in INTERRUPTED_IN_C):
            return True
        error = error.__context__
    return False


INTERRUPTED_IN_C = (
    (TypeError, "Cannot compare structured arrays"),  # of NumPy, in a comparison of rows
    (TypeError, "incompatible function arguments"),  # of pybind11 in Matplotlib, whose arguments are its own
    (ValueError, "Invalid affine transformation matrix"),
    (Exception, "KeyboardInterrupt"),  # of DuckDB, which puts the trace into the text of its own
    (RuntimeError, "Query interrupted"),
)
"""What libraries raise in the place of KeyboardInterrupt."""


_UNDOING: ContextVar[list[Callable[[], object]] | None] = ContextVar("_UNDOING", default=None)
"""What the outermost verb at work undoes where it is interrupted."""


def undo_if_interrupted(undo: Callable[[], object]) -> None:
    """Have a change of the process undone by the outermost verb at work, should Ctrl-C keep what is about to make it from doing so."""
    undoing = _UNDOING.get()
    if undoing is not None:
        undoing.append(undo)


class _Process:
    """What a verb, or a library that it calls, sets for the whole process for a while, as it stands before the verb."""

    __slots__ = ("filters", "show_warning", "sigint", "streams", "threads")

    def __init__(self) -> None:
        self.threads = [(set_threads, get_threads()) for get_threads, set_threads in blas_libraries()]
        self.filters, self.show_warning = warnings.filters, warnings.showwarning
        self.streams = sys.stdout, sys.stderr
        self.sigint = signal.getsignal(signal.SIGINT)

    def restore(self) -> None:
        """Set it again: after an interrupt alone, since other Python threads may have set threads and filters meanwhile."""
        for set_threads, before in self.threads:
            set_threads(before or 1)
        sys.stdout, sys.stderr = self.streams
        if warnings.filters is not self.filters:
            warnings.filters, warnings.showwarning = self.filters, self.show_warning
            with warnings.catch_warnings():  # which tells the interpreter that the filters are others
                pass
        if self.sigint is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.sigint)


def _open_figures() -> set[int]:
    """The numbers of Matplotlib's open figures, where it was imported."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    return set() if pyplot is None else set(pyplot.get_fignums())


def _tells_of_interrupt(found: Any) -> bool:
    """Whether a result is marked as interrupted: by its class or by itself, never by a column of a frame that has this name."""
    marked = hasattr(type(found), "interrupted") or "interrupted" in getattr(found, "__dict__", ())
    return marked and bool(found.interrupted)


_NUMPY_ERRORS: dict[str, Literal["ignore", "warn"]] = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def _own_errors() -> dict[str, Any]:
    """How NumPy treats errors in a verb: as it does by itself, or not at all where the user wants none; never as the user's code has it.

    An underflow of exp is part of most sums of weights: raised, it would end a verb that did nothing wrong.
    """
    return {kind: "ignore" if how == "ignore" else _NUMPY_ERRORS[kind] for kind, how in np.geterr().items()}


def _with_own_errors(undoing: list[Callable[[], object]], verb: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if _UNDOING.get() is None:
        _UNDOING.set(undoing)
    with np.errstate(**_own_errors()), saying_once():
        return verb(*args, **options)


def restore_state[**P, Result](verb: Callable[P, Result], name: str) -> Callable[P, Result]:
    """A verb after which the state of the process is as before, where Ctrl-C may have hit a context that sets or unsets some of it.

    Each such context puts back what it found. An interrupt on its way in or out can keep it from doing so; none is left here then: what is
    of the Python context, as the treatment of errors and what has been said are, is set in a copy of it.
    A matrix that cannot be factored, which says nothing to a user, comes out in words; what the verb warns of is said once. Of a verb that
    draws, with `ax` among its arguments, no figure is left open where it is refused or broken off.
    """
    draws = "ax" in inspect.signature(verb).parameters

    @wraps(verb)
    def kept(*args: P.args, **options: P.kwargs) -> Result:
        figures = _open_figures() if draws else set()
        process, undoing = _Process(), list[Callable[[], object]]()
        broken, failed, handled = True, True, sys.exception()
        try:
            found: Result = copy_context().run(_with_own_errors, undoing, verb, args, options)
            broken, failed = _tells_of_interrupt(found), False
            return found
        except KeyboardInterrupt as press:
            if type(press) is KeyboardInterrupt:
                raise
            raise KeyboardInterrupt from None  # one that carries what was found is for those inside
        except Exception as error:
            broken = was_interrupted(error, handled)
            if broken:
                raise KeyboardInterrupt from None
            if not isinstance(error, np.linalg.LinAlgError):
                raise
            remedy = "look at the checks of the fit: a residual sd near 0 or a likelihood without a bound leaves nothing to divide by"
            raise InferenceError("a matrix of the model is singular to rounding", f"in {name}()", remedy) from error
        finally:
            if broken:
                process.restore()
                for undo in reversed(undoing):
                    undo()
            if draws and failed:
                for number in _open_figures() - figures:
                    sys.modules["matplotlib.pyplot"].close(number)

    return kept
