"""Spec files: the model, its data files, and published values with the digits printed."""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, get_args

from bayeslmm._types import ConfMethod, CountingRule, DfName, FitMethod, Information, VcovName
from bayeslmm.errors import SpecificationError
from bayeslmm.specification.model_spec import ModelSpec

MAX_DATA_BYTES = 1024**3
_REMEDY = "name a file beside the spec file or in a folder below it"


def require_inside(name: str, where: str) -> None:
    """Refuse a name that is absolute, leads upwards, is a URL or holds control characters, by its letters alone.

    where : file and key path, as the error shows them
    """
    if not name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise SpecificationError("a file name is empty or holds control characters", where, _REMEDY)
    if "://" in name or name.lower().startswith(("data:", "file:")):
        raise SpecificationError(f"{name!r:.80} is a URL", where, "download the file first; nothing is fetched")
    if "\\" in name or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise SpecificationError(f"{name!r:.80} is not a relative path with forward slashes", where, _REMEDY)
    if ".." in PurePosixPath(name).parts:
        raise SpecificationError(f"{name!r:.80} leads out of the folder", where, _REMEDY)


def read_inside(folder: Path, name: str, where: str, *, limit: int = MAX_DATA_BYTES, sha256: str | None = None) -> bytes:
    """The content of a file below `folder`; links may not lead out, devices and pipes are refused, so is another checksum.

    limit : bytes
    Errors: SpecificationError with file and key path.
    """
    require_inside(name, where)
    try:
        home = folder.resolve(strict=True)
        path = (home / name).resolve(strict=True)
    except (OSError, RuntimeError):
        raise SpecificationError(f"there is no file {name!r:.80}", f"{where}: below {folder}", _REMEDY) from None
    if not path.is_relative_to(home):
        raise SpecificationError(f"{name!r:.80} is a link that leads out of the folder", where, _REMEDY)
    content = read_regular(path, where, limit)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256.lower():
        raise SpecificationError(
            f"{name!r:.80} is not the file that its checksum was taken of", where, "restore the file, or correct sha256"
        )
    return content


def read_regular(path: Path, where: str, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Not blocking on a pipe that took its place."""
    flags = os.O_RDONLY
    if sys.platform == "win32":
        flags |= os.O_BINARY
    else:
        flags |= os.O_NONBLOCK
    try:
        handle = os.open(path, flags)
    except OSError as error:
        raise _unreadable(error, path, where) from None
    try:
        _require_regular(os.fstat(handle), path, where, limit)
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(error, path, where) from None
    finally:
        os.close(handle)
    if len(content) > limit:
        raise SpecificationError("the file grew beyond the limit while it was read", f"{where}: {path}", f"the limit is {limit:,}")
    return content


def _unreadable(error: OSError, path: Path, where: str) -> SpecificationError:
    reason = (error.strerror or type(error).__name__).lower()
    return SpecificationError(f"the file cannot be read: {reason}", f"{where}: {path}", "check its name and its permissions")


def _require_regular(found: os.stat_result, path: Path, where: str, limit: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SpecificationError("this is not a regular file", f"{where}: {path}", "name a file")
    if found.st_size > limit:
        what = f"the file has {found.st_size:,} bytes"
        raise SpecificationError(what, f"{where}: {path}", f"the limit is {limit:,}; read it yourself and pass data=")


Plain = str | int | float | bool


class PrintedNumber(str):
    """A number as the file has it, trailing zeros included."""

    __slots__ = ()


class Entries:
    """One table; `where` is the file and `path` the key path that errors show."""

    __slots__ = ("_asked", "_table", "_where", "path")

    def __init__(self, table: Mapping[str, Any], where: str, path: str = "") -> None:
        self._table, self._where, self.path = table, where, path
        self._asked: set[str] = set()

    def place(self, key: str) -> str:
        """File and key path, as an error shows them."""
        return f"{self._where}, {self._key(key)}"

    def _key(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def error(self, key: str, what: str, remedy: str = "") -> SpecificationError:
        """An error at a key."""
        return SpecificationError(what, self.place(key), remedy)

    def names(self) -> list[str]:
        """The keys of the table."""
        return list(self._table)

    def take(self, key: str) -> Any:
        """The value of a key as it is; None if it is absent."""
        self._asked.add(key)
        return self._table.get(key)

    def below(self, key: str, table: Mapping[str, Any]) -> Entries:
        """A table further down."""
        return Entries(table, self._where, self._key(key))

    def require_known(self) -> None:
        """Raise for a key that nobody asked for."""
        for key in self._table:
            if key not in self._asked:
                near = get_close_matches(key, self._asked, n=1, cutoff=0.6)
                remedy = f"did you mean {near[0]!r}?" if near else "the keys here are " + ", ".join(sorted(self._asked))
                raise self.error(key, f"there is no key {key!r} here", remedy)

    def tables(self, key: str) -> Entries | None:
        """A table; None if it is absent."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.error(key, f"{key} is not a table", f"write [{self._key(key)}]")
        return self.below(key, value)

    def text(self, key: str, required: bool = False) -> str:
        """A string; "" if it is absent."""
        value = self.take(key)
        if value is None and not required:
            return ""
        if value is None:
            raise self.error(key, f"{key} is missing", f"add {key}")
        if not isinstance(value, str) or isinstance(value, PrintedNumber):
            raise self.error(key, f"{key} is not a text", f'write {key} = "..."')
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings, or one string; () if it is absent."""
        value = self.take(key)
        if value is None:
            return ()
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) and not isinstance(item, PrintedNumber) for item in values):
            raise self.error(key, f"{key} is not an array of texts", f'write {key} = ["..."]')
        return tuple(values)

    def one_of[Choice: (str, int)](self, key: str, allowed: Sequence[Choice], default: Choice | None = None) -> Choice | None:
        """One of the allowed values; the default if it is absent."""
        value = self.take(key)
        if value is None:
            return default
        for choice in allowed:
            if type(value) is type(choice) and value == choice:
                return choice
        raise self.error(key, f"{str(value)!r:.40} does not exist here", "use one of " + ", ".join(map(str, allowed)))

    def number(self, key: str, default: float, above: float = -math.inf, below: float = math.inf) -> float:
        """A finite number strictly between two bounds; the default if it is absent."""
        value = self.take(key)
        if value is None:
            return default
        number = plain_value(value)
        if isinstance(number, bool | str) or not above < number < below:
            raise self.error(key, f"{key} is not a number between {above:g} and {below:g}", "correct the number")
        return float(number)

    def levels(self, key: str) -> tuple[Plain, ...]:
        """An array of strings, numbers or booleans, none twice."""
        value = self.take(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, f"{key} is not an array of levels", 'write true, or ["a", "b"]')
        return self._distinct(key, [self._level(key, item) for item in value])

    def level_or_levels(self, key: str) -> Plain | tuple[Plain, ...]:
        """One level, or several."""
        return self.levels(key) if isinstance(self.take(key), list) else self._level(key, self.take(key))

    def _level(self, key: str, value: Any) -> Plain:
        level = plain_value(value)
        if not isinstance(level, str | int | float) or (isinstance(level, float) and not math.isfinite(level)):
            raise self.error(key, "a level is not a text, a finite number or a boolean", "write it as it stands in the data")
        return level

    def _distinct(self, key: str, levels: Iterable[Plain]) -> tuple[Plain, ...]:
        found = tuple(levels)
        if len({(type(level), level) for level in found}) < len(found):
            raise self.error(key, "a level is named twice", "name each level once")
        return found


def plain_value(value: Any) -> Any:
    """A value with the numbers of the file as floats, arrays and tables included."""
    if isinstance(value, PrintedNumber):
        return float(value)
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain_value(item) for key, item in value.items()}
    return value


ReferenceLevel = str | int | float | bool
PublishedTable = tuple[tuple[tuple[str, ...], str], ...]

MAX_FIGURES = 10_000
_TOML_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_PRINTED = re.compile(r"<?\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Reference:
    """What one source printed about a model, and the options that its figures belong to.

    figures : pairs (path, text): (("fixef", "Days"), "10.467"); items of an array are "0", "1", ...
    units : how many units of the last printed digit ours may differ by
    df, vcov, information, conf_level, conf_method, emmeans, by, at, anova_type : as in the methods of a fit
    """

    source: str
    figures: PublishedTable = ()
    url: str = ""
    software: str = ""
    method: FitMethod = "REML"
    df: str | None = None
    vcov: str | None = None
    information: str | None = None
    conf_level: float = 0.95
    conf_method: str = "wald"
    emmeans: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    at: tuple[tuple[str, ReferenceLevel | tuple[ReferenceLevel, ...]], ...] = ()
    anova_type: int = 3
    units: float = 1.0
    note: str = ""

    def inference_options(self) -> dict[str, Any]:
        """`df=`, `vcov=`, `information=` where the source says so."""
        chosen = {"df": self.df, "vcov": self.vcov, "information": self.information}
        return {name: value for name, value in chosen.items() if value is not None}


def read_reference(table: Entries) -> Reference:
    """One `[[reference]]` table."""
    values = table.tables("values")
    at = table.tables("at")
    reference = Reference(
        source=table.text("source", required=True),
        figures=tuple(_figures(values, ())) if values else (),
        url=table.text("url"),
        software=table.text("software"),
        method=table.one_of("method", get_args(FitMethod), "REML"),  # type: ignore[arg-type]
        df=table.one_of("df", get_args(DfName)),
        vcov=table.one_of("vcov", get_args(VcovName)),
        information=table.one_of("information", get_args(Information)),
        conf_level=table.number("conf_level", 0.95, above=0.0, below=1.0),
        conf_method=table.one_of("conf_method", get_args(ConfMethod), "wald") or "wald",
        emmeans=table.texts("emmeans"),
        by=table.texts("by"),
        at=tuple((name, at.level_or_levels(name)) for name in at.names()) if at else (),
        anova_type=int(table.one_of("anova_type", (1, 2, 3), 3) or 3),
        units=table.number("units", 1.0, above=0.0),
        note=table.text("note"),
    )
    table.require_known()
    if len(reference.figures) > MAX_FIGURES:
        raise table.error("values", f"{len(reference.figures):,} figures", f"the limit is {MAX_FIGURES:,}")
    return reference


def _figures(table: Entries, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name in table.names():
        yield from _leaves(table, (*path, name), name, table.take(name))


def _leaves(table: Entries, path: tuple[str, ...], name: str, value: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping):
        yield from _figures(table.below(name, value), path)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _leaves(table, (*path, str(place)), name, item)
    elif isinstance(value, bool) or not isinstance(value, str | int | PrintedNumber):
        raise table.error(name, "a figure is a number, or a text such as '<.0001'", "write it as it was printed")
    elif not _PRINTED.fullmatch(str(value).strip()):
        raise table.error(name, f"{str(value)!r:.40} is no printed number", "write it as it was printed: 24.740, '<.0001'")
    else:
        yield path, str(value).strip()


def reference_table(reference: Reference) -> dict[str, Any]:
    """The table of a reference, as plain values; what is at its default is left out."""
    options = _options(reference)
    default = _options(Reference(""))
    out: dict[str, Any] = {"source": reference.source, **{name: value for name, value in options.items() if value != default[name]}}
    if reference.figures:
        out["values"] = _nested_tables(reference)
    return out


def _options(reference: Reference) -> dict[str, Any]:
    return {
        "url": reference.url,
        "software": reference.software,
        "method": reference.method,
        "df": reference.df,
        "vcov": reference.vcov,
        "information": reference.information,
        "conf_level": reference.conf_level,
        "conf_method": reference.conf_method,
        "emmeans": list(reference.emmeans),
        "by": list(reference.by),
        "at": {name: list(value) if isinstance(value, tuple) else value for name, value in reference.at},
        "anova_type": reference.anova_type,
        "units": reference.units,
        "note": reference.note,
    }


def _nested_tables(reference: Reference) -> dict[str, Any]:
    """The figures as nested tables; items of an array keep their numbers as keys."""
    values: dict[str, Any] = {}
    for path, text in reference.figures:
        table = values
        for name in path[:-1]:
            table = table.setdefault(name, {})
        table[path[-1]] = PrintedNumber(text) if _TOML_NUMBER.fullmatch(text) else text
    return values


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where the data are: a data set by name, or a file below the folder of the spec file (`/` between its parts)."""

    name: str | None = None
    file: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class SpecFile:
    """The content of a spec file.

    data : None for a model whose data are given in Python
    factors : pairs (column, levels in order); levels None makes the column categorical with its levels sorted
    dialect : "mmrm" and "sas" count AIC and BIC as those programs do
    relationship_files : pairs (grouping factor, file of its matrix)
    path : the file it was read from
    """

    spec: ModelSpec
    data: DataSource | None = None
    factors: tuple[tuple[str, tuple[ReferenceLevel, ...] | None], ...] = ()
    references: tuple[Reference, ...] = ()
    title: str = ""
    description: str = ""
    dialect: CountingRule = "lme4"
    relationship_files: tuple[tuple[str, str], ...] = ()
    path: Path | None = field(default=None, compare=False)

    def read_data(self) -> bytes:
        """The content of the data file, checked against its checksum. Errors: SpecificationError with file and key path."""
        source = self.data
        if source is None or source.file is None:
            raise SpecificationError("the spec names no data file", f"{self.path or 'spec'}, data.file", "pass data=")
        return self._read(source.file, "data.file", source.sha256)

    def read_relationship(self, group: str) -> bytes:
        """The content of the file with the relationship matrix of a grouping factor."""
        name = dict(self.relationship_files).get(group)
        key = f"model.relationship.{group}"
        if name is None:
            raise SpecificationError(f"the spec names no matrix for {group!r}", f"{self.path or 'spec'}, {key}", "pass relationship=")
        return self._read(name, key, None)

    def _read(self, name: str, key: str, sha256: str | None) -> bytes:
        if self.path is None:
            raise SpecificationError("a spec that was not read from a file has no folder", key, "pass data=")
        return read_inside(self.path.resolve().parent, name, f"{self.path}, {key}", sha256=sha256)
