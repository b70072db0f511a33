"""Sources of partitions: lists of frames, a function that makes them anew, files, a Dask collection; and tasks over their pieces."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial, reduce
from importlib import import_module
from inspect import getmodule
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pandas as pd

from bayeslmm._validation import require_workers
from bayeslmm.data.frame import absent_column_error, csv_names
from bayeslmm.errors import BayesLMMError, DataError, DependencyError, SpecificationError

ROWS_PER_READ = 1 << 18
"""Rows of a file that are read at once."""

_WAYS = "give a list of frames, a function that returns an iterator of frames, file names (.csv, .parquet), or a Dask data frame"


@dataclass(frozen=True, slots=True, eq=False)
class Partitions:
    """Frames that can be read again and again, one at a time.

    source : a list or another iterable of frames that starts anew each time; a function without arguments that returns an iterator of
        frames; a path, or a list of paths, to CSV or parquet files; a Dask data frame
    rows : rows of a file that are read at once
    workers : processes that share lists of frames and files; None for this one. A Dask collection goes to Dask's own

    Errors: SpecificationError for a source that can be read only once, or that workers cannot share; DataError for files that cannot be
    read, DependencyError without pyarrow where a parquet file is to be read.

    >>> frames = Partitions([{"x": [1, 2]}, {"x": [3]}])
    >>> [len(frame["x"]) for piece in frames.pieces(("x",)) for frame in piece.frames()]
    [2, 1]
    """

    source: Any
    rows: int = ROWS_PER_READ
    workers: int | None = None

    def __post_init__(self) -> None:
        source = self.source
        if self.workers is not None:
            object.__setattr__(self, "workers", require_workers(self.workers))
            if is_dask(source):
                what = "a Dask collection is summed by the workers of Dask"
                raise SpecificationError(what, "workers", "leave workers out, and choose a scheduler or a Client of Dask")
            if callable(source) and self.workers > 1:
                what = "workers cannot share what one function hands out"
                raise SpecificationError(what, "workers", "give a list of files or frames, or leave workers out")
        if isinstance(source, str | Path) or callable(source) or is_dask(source):
            return
        if isinstance(source, pd.DataFrame) or hasattr(source, "columns"):
            raise SpecificationError("the partitions are one frame", "partitions", "give LMM the frame; or a list of frames: [frame]")
        if not isinstance(source, Iterable) or getattr(source, "shape", None) == ():
            raise SpecificationError(f"the partitions are a {type(source).__name__}", "partitions", _WAYS)
        if isinstance(source, Iterator):
            raise SpecificationError(
                "the partitions can be read only once, and rows are read twice",
                f"partitions: {type(source).__name__}",
                "give a function that makes them anew: lambda: read_parts()",
            )

    def first[T](self, look: Callable[[int, Iterable[Any]], T | None], columns: Sequence[str]) -> T | None:
        """What a function finds in the first piece in which it finds anything."""
        for number, piece in enumerate(self.pieces(columns), start=1):
            found = look(number, piece.frames())
            if found is not None:
                return found
        return None

    def reduce[T](
        self, task: Task[T], merge: Callable[[T, T], T], columns: Sequence[str], pool: ProcessPoolExecutor | None = None
    ) -> T | None:
        """What a task makes of every piece, merged: where the pieces are, or by the processes of a pool. None without pieces.

        Sums are merged in the order of the pieces, so that they do not depend on the number of workers; on Dask by a tree.
        """
        if is_dask(self.source):
            return reduce_on_dask(_of_dask(self.source, columns).to_delayed(), task, merge)
        if pool is None or self.workers is None:
            return reduce_here(self.pieces(columns), task, merge)
        return reduce_in_processes(self.pieces(columns), task, merge, pool, self.workers)

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """What can be read by itself: a frame, a CSV file, some row groups of a parquet file, a partition of Dask's.

        Only the columns that are needed are read.
        """
        source = self.source
        if is_dask(source):
            chosen = _of_dask(source, columns)
            for number in range(chosen.npartitions):
                yield FramePiece(chosen.partitions[number].compute())
            return
        for part in _several(source):
            if isinstance(part, str | Path):
                yield from _of_file(Path(part), tuple(columns), self.rows)
            else:
                yield FramePiece(part)


def _several(source: Any) -> Iterable[Any]:
    if isinstance(source, str | Path):
        return [source]
    if not callable(source):
        return list(source) if isinstance(source, Sequence) else source
    made = source()
    if not isinstance(made, Iterable):
        raise SpecificationError(f"the function of the partitions returns a {type(made).__name__}", "partitions", _WAYS)
    return made


def is_dask(source: Any) -> bool:
    """Whether a source is a data frame of Dask."""
    return type(source).__module__.partition(".")[0] in ("dask", "dask_expr") and hasattr(source, "partitions")


def _of_dask(frame: Any, columns: Sequence[str]) -> Any:
    return frame[_present(columns, [str(name) for name in frame.columns])]


def _present(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    for name in columns:
        if name not in names:
            raise absent_column_error(name, names)
    return list(columns)


@dataclass(frozen=True, slots=True, eq=False)
class FramePiece:
    """A frame in memory."""

    frame: Any

    def frames(self) -> Iterator[Any]:
        """The frame."""
        yield self.frame


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A file, or some row groups of it. rows : that are read at once"""

    path: Path
    columns: tuple[str, ...]
    rows: int
    groups: tuple[int, ...] | None

    def frames(self) -> Iterator[Any]:
        """Its rows."""
        with _name_file_in_errors(self.path):
            yield from _of_csv(self) if self.groups is None else _of_parquet(self)


def _of_file(path: Path, columns: tuple[str, ...], rows: int) -> Iterator[FilePiece]:
    if not path.is_file():
        raise DataError("there is no such file", str(path), "name files that exist; for a folder: sorted(folder.glob('*.parquet'))")
    if path.suffix.lower() not in (".parquet", ".pq"):
        yield FilePiece(path, columns, rows, None)
        return
    with _name_file_in_errors(path), _pyarrow_parquet(path).ParquetFile(path) as file:
        _present(columns, file.schema_arrow.names)
        together: list[int] = []
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    held = 0
    for number, size in enumerate(sizes):
        together, held = [*together, number], held + size
        if held >= rows or number == len(sizes) - 1:
            yield FilePiece(path, columns, rows, tuple(together))
            together, held = [], 0


@contextmanager
def _name_file_in_errors(path: Path) -> Iterator[None]:
    """What is wrong with a file names the file."""
    try:
        yield
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"the file cannot be read: {error}", str(path), "give CSV in UTF-8 or parquet") from error


def _of_csv(piece: FilePiece) -> Iterator[Any]:
    with pd.read_csv(piece.path, usecols=_present(piece.columns, csv_names(piece.path)), chunksize=piece.rows) as reader:
        yield from reader


def _of_parquet(piece: FilePiece) -> Iterator[Any]:
    with _pyarrow_parquet(piece.path).ParquetFile(piece.path) as file:
        for batch in file.iter_batches(batch_size=piece.rows, row_groups=list(piece.groups or ()), columns=list(piece.columns)):
            yield batch.to_pandas()


def _pyarrow_parquet(path: Path) -> ModuleType:
    try:
        return import_module("pyarrow.parquet")
    except ImportError:
        raise DependencyError("a parquet file needs the package pyarrow", str(path), "pip install 'bayeslmm[scale]'") from None


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
        total = _merge(total, task(number, piece.frames()), merge)
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
                total = _merge(total, waiting.popleft().result(), merge)
        while waiting:
            total = _merge(total, waiting.popleft().result(), merge)
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


def _merge[T](total: T | None, found: T, merge: Callable[[T, T], T]) -> T:
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
