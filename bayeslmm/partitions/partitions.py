"""Sources of partitions: lists of frames, a function that makes them anew, files, a Dask collection; and their pieces of work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from bayeslmm._validation import require_count
from bayeslmm.data.frame import absent_column_error
from bayeslmm.errors import DataError, DependencyError, SpecificationError
from bayeslmm.partitions.reduction import Piece, Task, reduce_here, reduce_in_processes, reduce_on_dask

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
            require_count(self.workers, "workers")
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
        if not isinstance(source, Iterable):
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
        with _reading(self.path):
            yield from _of_csv(self) if self.groups is None else _of_parquet(self)


def _of_file(path: Path, columns: tuple[str, ...], rows: int) -> Iterator[FilePiece]:
    if not path.is_file():
        raise DataError("there is no such file", str(path), "name files that exist; for a folder: sorted(folder.glob('*.parquet'))")
    if path.suffix.lower() not in (".parquet", ".pq"):
        yield FilePiece(path, columns, rows, None)
        return
    with _reading(path), _pyarrow_parquet(path).ParquetFile(path) as file:
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
def _reading(path: Path) -> Iterator[None]:
    """What is wrong with a file names the file."""
    try:
        yield
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"the file cannot be read: {error}", str(path), "give CSV in UTF-8 or parquet") from error


def _of_csv(piece: FilePiece) -> Iterator[Any]:
    names = [str(name) for name in pd.read_csv(piece.path, nrows=0).columns]
    with pd.read_csv(piece.path, usecols=_present(piece.columns, names), chunksize=piece.rows) as reader:
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
