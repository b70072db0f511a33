"""Sources of partitions: lists of frames, a function that makes them anew, files, a Dask data frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from bayeslmm.data.frame import absent_column_error
from bayeslmm.errors import DataError, DependencyError, SpecificationError

ROWS_PER_READ = 1 << 18
"""Rows of a file that are read at once."""

_WAYS = "give a list of frames, a function that returns an iterator of frames, file names (.csv, .parquet), or a Dask data frame"


@dataclass(frozen=True, slots=True, eq=False)
class Partitions:
    """Frames that can be read again and again, one at a time.

    source : a list or another iterable of frames that starts anew each time; a function without arguments that returns an iterator of
        frames; a path, or a list of paths, to CSV or parquet files; a Dask data frame
    rows : rows of a file that are read at once

    Errors: SpecificationError for a source that can be read only once, DataError for files that cannot be read, DependencyError without
    pyarrow where a parquet file is to be read.

    >>> frames = Partitions([{"x": [1, 2]}, {"x": [3]}])
    >>> [len(frame["x"]) for frame in frames.frames(("x",))]
    [2, 1]
    """

    source: Any
    rows: int = ROWS_PER_READ

    def __post_init__(self) -> None:
        source = self.source
        if isinstance(source, str | Path) or callable(source) or _is_dask(source):
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

    def frames(self, columns: Sequence[str]) -> Iterator[Any]:
        """The frames, one after the other; of files and Dask frames only the columns that are needed."""
        source = self.source
        if _is_dask(source):
            yield from _of_dask(source, columns)
            return
        for part in _several(source):
            if isinstance(part, str | Path):
                yield from _of_file(Path(part), columns, self.rows)
            else:
                yield part


def _several(source: Any) -> Iterable[Any]:
    if isinstance(source, str | Path):
        return [source]
    if not callable(source):
        return list(source) if isinstance(source, Sequence) else source
    made = source()
    if not isinstance(made, Iterable):
        raise SpecificationError(f"the function of the partitions returns a {type(made).__name__}", "partitions", _WAYS)
    return made


def _is_dask(source: Any) -> bool:
    return type(source).__module__.partition(".")[0] in ("dask", "dask_expr") and hasattr(source, "partitions")


def _of_dask(frame: Any, columns: Sequence[str]) -> Iterator[Any]:
    names = [str(name) for name in frame.columns]
    chosen = frame[_present(columns, names)]
    for number in range(chosen.npartitions):
        yield chosen.partitions[number].compute()


def _present(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    for name in columns:
        if name not in names:
            raise absent_column_error(name, names)
    return list(columns)


def _of_file(path: Path, columns: Sequence[str], rows: int) -> Iterator[Any]:
    readers: dict[str, Callable[[Path, Sequence[str], int], Iterator[Any]]] = {".parquet": _of_parquet, ".pq": _of_parquet}
    if not path.is_file():
        raise DataError("there is no such file", str(path), "name files that exist; for a folder: sorted(folder.glob('*.parquet'))")
    try:
        yield from readers.get(path.suffix.lower(), _of_csv)(path, columns, rows)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"the file cannot be read: {error}", str(path), "give CSV in UTF-8 or parquet") from error


def _of_csv(path: Path, columns: Sequence[str], rows: int) -> Iterator[Any]:
    names = [str(name) for name in pd.read_csv(path, nrows=0).columns]
    with pd.read_csv(path, usecols=_present(columns, names), chunksize=rows) as reader:
        yield from reader


def _of_parquet(path: Path, columns: Sequence[str], rows: int) -> Iterator[Any]:
    parquet = _pyarrow_parquet(path)
    with parquet.ParquetFile(path) as file:
        chosen = _present(columns, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=rows, columns=chosen):
            yield batch.to_pandas()


def _pyarrow_parquet(path: Path) -> ModuleType:
    try:
        return import_module("pyarrow.parquet")
    except ImportError:
        raise DependencyError("a parquet file needs the package pyarrow", str(path), "pip install 'bayeslmm[scale]'") from None
