"""The criterion: -2 log likelihood, or its restricted form, with sigma and alpha profiled out.

f = log |V0| [+ log |X' V0^-1 X|] + d (1 + log(2 pi r2 / d)),   d = n [- p]

Every estimate, profile, bootstrap and posterior calls this one object. It works on standardized columns; constants that the standardization
changed are put back, so its value is that of the data as given.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial, wraps
from typing import Any, Literal

import numpy as np
from threadpoolctl import ThreadpoolController

from bayeslmm._arrays import Array
from bayeslmm.errors import InferenceError, saying_once
from bayeslmm.likelihood.kernel import TUNING, Kernel, Solution, State
from bayeslmm.likelihood.standardize import Standardization

Method = Literal["REML", "ML"]


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


@dataclass(frozen=True, eq=False)
class CriterionPoint:
    """The criterion at one x. sigma2 and alpha are on standardized columns.

    Attributes
    ----------
    newton : callable or None
        Makes the Newton matrix when it is first asked for; None where only value, or value and gradient, were.
    """

    x: Array
    value: float
    gradient: Array
    newton: Callable[[], Array] | None
    sigma2: float
    state: State | None

    @cached_property
    def hessian(self) -> Array | None:
        """The Newton matrix: average or expected information with sigma profiled out, and the curvature of the parameters."""
        return None if self.newton is None else self.newton()


@dataclass(frozen=True, slots=True, eq=False)
class Criterion:
    """n, p, the standardization and a kernel; `fixed_logdet` is log |R0| where weights fix it, 0 where the kernel counts it."""

    n: int
    p: int
    standardization: Standardization
    kernel: Kernel
    width: int = 0
    fixed_logdet: float = 0.0
    held: float | None = None

    @property
    def size(self) -> int:
        return self.kernel.size

    def df(self, restricted: bool) -> int:
        return self.n - self.p if restricted else self.n

    def constant(self, restricted: bool) -> float:
        """What the value gains on the way back from standardized columns."""
        c = self.standardization
        total = self.df(restricted) * (1.0 + math.log(2.0 * math.pi) + 2.0 * math.log(c.y_scale)) + self.fixed_logdet
        return float(total + (c.logdet_X if restricted else 0.0))

    def values(self, x: Array, restricted: bool) -> Array:
        """The criterion at many x (t, size) by the same code; inf where it does not exist."""
        try:
            with one_thread(self.width), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                return self.of_solution(self.kernel.solve(x), restricted)
        except np.linalg.LinAlgError:
            if len(x) == 1:
                return np.array([np.inf])
            return np.concatenate([self.values(row[None], restricted) for row in x])

    def of_solution(self, solution: Solution, restricted: bool) -> Array:
        """The criterion (t,) where the kernel has been solved at t points; inf where it does not exist."""
        df = self.df(restricted)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = solution.logdet + self.of_errors(solution.r2, df) + self.constant(restricted)
            if restricted:
                value = value + solution.logdet_X
        return np.where(np.isfinite(value) & (solution.r2 > 0), value, np.inf)

    def sigma2_of(self, r2: Array, df: int | Array) -> Array:
        """sigma^2 (t,) at residual sums of squares (t,): profiled out, or as it is held."""
        return r2 / df if self.held is None else np.full_like(r2, self.held)

    def of_errors(self, r2: Array, df: int | Array) -> Array:
        """df log sigma^2 + r2 / sigma^2 - df, (t,)."""
        return df * np.log(r2 / df) if self.held is None else df * (math.log(self.held) - 1.0) + r2 / self.held

    def slopes(self, x: Array, restricted: bool) -> tuple[Array, Array]:
        """Values (t,) and gradients (t, size) at many x; inf and NaN where the criterion does not exist."""
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                state = self.kernel.evaluate_many(x)
                value = self.of_solution(state.solution, restricted)
                logdet, r2 = state.gradients(restricted)
                return value, logdet + r2 / self.sigma2_of(state.solution.r2, self.df(restricted))[:, None]
        except np.linalg.LinAlgError:
            if len(x) == 1:
                return np.array([np.inf]), np.full(x.shape, np.nan)
            each = [self.slopes(row[None], restricted) for row in x]
            return np.concatenate([value for value, _ in each]), np.concatenate([slope for _, slope in each])

    def at(self, x: Array, restricted: bool, order: int = 2) -> CriterionPoint:
        """Value, gradient (order 1) and Newton matrix (order 2) at one x."""
        with one_thread(self.width):
            return self.bare(x, restricted, order)

    def bare(self, x: Array, restricted: bool, order: int = 2) -> CriterionPoint:
        """`at` for a caller who has limited the threads already, around many evaluations."""
        x = np.asarray(x, float)
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                if np.isfinite(x).all():
                    return self._at(x, restricted, order)
        except np.linalg.LinAlgError:
            pass
        return CriterionPoint(x, np.inf, np.full(len(x), np.nan), None, np.nan, None)

    def _at(self, x: Array, restricted: bool, order: int) -> CriterionPoint:
        state = self.kernel.evaluate(x[None], derivatives=order > 0)
        solution, df = state.solution, self.df(restricted)
        r2_now = float(solution.r2[0])
        value = math.inf
        if r2_now > 0:
            value = float(solution.logdet[0]) + float(self.of_errors(solution.r2, df)[0]) + self.constant(restricted)
        if restricted:
            value += float(solution.logdet_X[0])
        if not math.isfinite(value):
            return CriterionPoint(x, math.inf, np.full(len(x), np.nan), None, np.nan, None)
        sigma2 = float(self.sigma2_of(solution.r2, df)[0])
        if order == 0:
            return CriterionPoint(x, value, np.full(len(x), np.nan), None, sigma2, state)
        logdet, r2 = (g[0] for g in state.gradients(restricted))
        gradient = logdet + r2 / sigma2
        # a sigma that is held is not profiled out: the degrees of freedom do not enter
        profiled = df if self.held is None else sys.maxsize
        newton = partial(state.newton_matrix, restricted, sigma2, profiled) if order > 1 else None
        return CriterionPoint(x, value, gradient, newton, sigma2, state)


def was_interrupted(error: BaseException) -> bool:
    """Whether an exception is Ctrl-C in another's words: NumPy answers one that meets a comparison of rows by a TypeError of its own."""
    return isinstance(error, TypeError) and "Cannot compare structured arrays" in str(error)


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


def restore_state[**P, Result](verb: Callable[P, Result], name: str) -> Callable[P, Result]:
    """A verb after which threads and error handling are as before, where Ctrl-C may have hit a context that sets or unsets them.

    Each such context puts back what it found. An interrupt on its way in or out can keep it from doing so; none is left here then.
    A matrix that cannot be factored, which says nothing to a user, comes out in words; what the verb warns of is said once.
    """

    @wraps(verb)
    def kept(*args: P.args, **options: P.kwargs) -> Result:
        # threads belong to the process: another Python thread may have limited them meanwhile, so they are set after an interrupt alone
        threads = [(set_threads, get_threads()) for get_threads, set_threads in blas_libraries()]
        broken = True
        try:
            with np.errstate(**_own_errors()), saying_once():
                found = verb(*args, **options)
            broken = _tells_of_interrupt(found)
            return found
        except np.linalg.LinAlgError as error:
            broken = False
            remedy = "look at the checks of the fit: a residual sd near 0 or a likelihood without a bound leaves nothing to divide by"
            raise InferenceError("a matrix of the model is singular to rounding", f"in {name}()", remedy) from error
        except Exception as error:
            broken = was_interrupted(error)
            if broken:
                raise KeyboardInterrupt from None
            raise
        finally:
            if broken:
                for set_threads, before in threads:
                    set_threads(before or 1)

    return kept
