"""A task over pieces of data, its results merged: in this process, in others, or on the workers of Dask."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from copy import deepcopy
from functools import partial, reduce
from importlib import import_module
from inspect import getmodule
from multiprocessing import get_context
from typing import Any, Protocol

from bayeslmm.errors import BayesLMMError, SpecificationError

MERGED_AT_ONCE = 8
"""Results that a node of Dask's tree merges: few hops, and no worker holds many results."""


class Piece(Protocol):
    """Data that can be read by itself."""

    def frames(self) -> Iterator[Any]:
        """Its frames, one after the other."""
        ...


type Task[T] = Callable[[int, Iterable[Any]], T]
"""What is made of a piece: of its number, which counts from 1, and its frames."""


def reduce_here[T](pieces: Iterable[Piece], task: Task[T], merge: Callable[[T, T], T]) -> T | None:
    """One piece after the other."""
    total: T | None = None
    for number, piece in enumerate(pieces, start=1):
        total = _merged(total, task(number, piece.frames()), merge)
    return total


@contextmanager
def process_pool(workers: int | None) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that share pieces, for all passes; None for one worker, which is this process.

    Errors: SpecificationError where a process cannot be started or dies.
    """
    if workers is None or workers == 1:
        yield None
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_blas_thread)
    try:
        yield pool
    except BrokenProcessPool as error:
        what = "a process of workers= died, or could not be started"
        remedy = 'in a script, put what is run under `if __name__ == "__main__":`; where memory ran out, give smaller parts'
        raise SpecificationError(what, "workers", remedy) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def reduce_in_processes[T](
    pieces: Iterable[Piece], task: Task[T], merge: Callable[[T, T], T], pool: ProcessPoolExecutor, workers: int
) -> T | None:
    """Several pieces at once; a few are under way at a time, and results are merged in the order of the pieces."""
    total: T | None = None
    waiting: deque[Future[T]] = deque()
    try:
        for number, piece in enumerate(pieces, start=1):
            waiting.append(pool.submit(_work, task, number, piece))
            if len(waiting) > 2 * workers:
                total = _merged(total, waiting.popleft().result(), merge)
        while waiting:
            total = _merged(total, waiting.popleft().result(), merge)
    except BayesLMMError as error:
        # without the trace of the other process
        raise error from None
    return total


def require_importable(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Refuse functions that other processes could not find by their names. Errors: SpecificationError."""
    for name, function in functions.items():
        module = getmodule(function)
        if module is None or not any(value is function for value in vars(module).values()):
            what = f"the function {name!r} cannot be sent to other processes"
            raise SpecificationError(what, "workers", "define it at the top of a module, or leave workers out")


def _merged[T](total: T | None, found: T, merge: Callable[[T, T], T]) -> T:
    return found if total is None else merge(total, found)


def _one_blas_thread() -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _work[T](task: Task[T], number: int, piece: Piece) -> T:
    return task(number, piece.frames())


def reduce_on_dask[T](parts: Iterable[Any], task: Task[T], merge: Callable[[T, T], T]) -> T | None:
    """The task on every delayed partition, merged by a tree, by whatever scheduler Dask uses now: only the result comes here."""
    dask = import_module("dask")
    work = dask.delayed(task, pure=False, traverse=False)
    run, join = dask.delayed(_of_partition, pure=False), dask.delayed(partial(_merge_all, merge), pure=False)
    nodes = [run(work, number, part) for number, part in enumerate(parts, start=1)]
    while len(nodes) > 1:
        nodes = [join(nodes[i : i + MERGED_AT_ONCE]) for i in range(0, len(nodes), MERGED_AT_ONCE)]
    if not nodes:
        return None
    try:
        result: T = dask.compute(nodes[0])[0]
    except BayesLMMError as error:
        raise error from None
    return result


def _of_partition[T](task: Task[T], number: int, frame: Any) -> T:
    return task(number, [frame])


def _merge_all[T](merge: Callable[[T, T], T], parts: Sequence[T]) -> T:
    # a scheduler may hand out a result twice: the first is copied, what is merged into it stays its own
    return reduce(merge, parts[1:], deepcopy(parts[0]))
