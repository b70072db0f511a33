"""Spec files: TOML in and out. Nothing in a file is run; an unknown key is an error with its path."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from bayeslmm.errors import BayesLMMError, SpecificationError
from bayeslmm.spec.atomic import as_path
from bayeslmm.spec.build import make_spec
from bayeslmm.spec.entries import Entries, Printed, plain
from bayeslmm.spec.file import DataSource, Dialect, SpecFile
from bayeslmm.spec.folder import demand_inside, read_regular
from bayeslmm.spec.mmrm import read_mmrm
from bayeslmm.spec.model import ModelSpec
from bayeslmm.spec.reference import Level, Reference, read_reference

MAX_SPEC_BYTES = 1024**2
MAX_DOTS = 500  # in a line: reading a dotted key takes time as the square of its parts
DIALECTS = ("lme4", "mmrm", "sas")
PRIORS = ("alpha", "sd", "corr", "sigma", "residual", "preset")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)?")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def read_spec(path: str | os.PathLike[str]) -> SpecFile:
    """The content of a spec file. The data are not read.

    Errors: SpecificationError with file and key path; FormulaError, PriorError likewise, for a formula or a prior that cannot be read.
    """
    place = as_path(path)
    content = read_regular(place, "spec file", MAX_SPEC_BYTES)
    return parse_spec(_text(content, place), place)


def read_references(path: str | os.PathLike[str]) -> tuple[Reference, ...]:
    """The published figures of a spec file."""
    return read_spec(path).references


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecificationError("the file is not UTF-8", f"{path}, byte {error.start}", "save it as UTF-8") from None


def parse_spec(text: str, path: Path | None = None) -> SpecFile:
    """The content of a spec file from its text; `path` is what errors name and where data files are looked for."""
    where = str(path or "spec")
    top = Entries(_parsed(text, where), where)
    title, description = top.text("title"), top.text("description")
    data, factors, references = _data(top), _factors(top), _references(top)
    spec, dialect, matrices = _model(top)
    top.demand_known()
    return SpecFile(spec, data, factors, references, title, description, dialect, matrices, path)


def _parsed(text: str, where: str) -> dict[str, Any]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > MAX_DOTS:
            raise SpecificationError(
                f"a line with more than {MAX_DOTS} dots", f"{where}, line {number}", "break the array into several lines"
            )
    try:
        return tomllib.loads(text, parse_float=Printed)
    except tomllib.TOMLDecodeError as error:
        raise SpecificationError(f"the file is not TOML: {error}", where, "see docs/spec-files.md") from None
    except (RecursionError, ValueError):
        raise SpecificationError("the file nests too deeply or holds a number that is too long", where, "see docs/spec-files.md") from None


# ------------------------------------------------------------------------------------------------------------------- data


def _data(top: Entries) -> DataSource | None:
    table = top.tables("data")
    if table is None:
        return None
    name, file, sha256 = table.text("name"), table.text("file"), table.text("sha256")
    table.demand_known()
    if bool(name) == bool(file):
        raise table.error("name", "a data source is a name or a file, one of the two", "leave [data] out to pass data= in Python")
    if name and not _NAME.fullmatch(name):
        raise table.error("name", f"{name!r:.80} is no name of a data set", 'write "fev_data", or "PACKAGE/ITEM"')
    if file:
        demand_inside(file, table.place("file"))
    if sha256 and (not file or not _SHA256.fullmatch(sha256)):
        raise table.error("sha256", "a checksum is 64 hexadecimal digits, of a file", "take it with sha256sum")
    return DataSource(name or None, file or None, sha256.lower() or None)


def _factors(top: Entries) -> tuple[tuple[str, tuple[Level, ...] | None], ...]:
    table = top.tables("factors")
    if table is None:
        return ()
    return tuple((column, None if table.take(column) is True else table.levels(column)) for column in table.names())


def _references(top: Entries) -> tuple[Reference, ...]:
    found = top.take("reference")
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise top.error("reference", "reference is not an array of tables", "write [[reference]]")
    return tuple(read_reference(top.below(f"reference[{place}]", item)) for place, item in enumerate(found))


# ------------------------------------------------------------------------------------------------------------------ model


def _model(top: Entries) -> tuple[ModelSpec, Dialect, tuple[tuple[str, str], ...]]:
    table = top.tables("model")
    if table is None:
        raise top.error("model", "the model is missing", "add [model] with a formula")
    if table.take("functions") is not None:
        raise table.error("functions", "a file cannot bring functions", "pass functions= in Python, or make the column beforehand")
    formula = table.text("formula", required=True)
    dialect = cast(Dialect, table.one_of("dialect", DIALECTS, "lme4"))
    names, matrices = _relationship(table)
    options: dict[str, Any] = {key: table.text(key) or None for key in ("residual", "variance", "weights", "offset")}
    options |= {key: value for key in ("missing", "check") if (value := table.text(key))}
    contrasts = table.tables("contrasts")
    options["contrasts"] = {name: plain(contrasts.take(name)) for name in contrasts.names()} if contrasts else None
    priors = _priors(top)
    table.demand_known()
    try:
        if dialect == "mmrm":
            if options["residual"] is not None:
                raise table.error("residual", "mmrm's formula has the residual structure in it", "leave residual out")
            parsed, options["residual"] = read_mmrm(formula)
            return make_spec(parsed, relationship=names, priors=priors, **options), dialect, matrices
        return make_spec(formula, relationship=names, priors=priors, **options), dialect, matrices
    except BayesLMMError as error:
        raise _located(error, table.place("")) from None


def _located[Error: BayesLMMError](error: Error, place: str) -> Error:
    """The same error, its file named."""
    if place.rstrip(".") in error.where:
        return error
    return type(error)(error.what, f"{place.rstrip('.')}: {error.where}", error.remedy)


def _relationship(table: Entries) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    if isinstance(table.take("relationship"), list):
        return table.texts("relationship"), ()
    files = table.tables("relationship")
    if files is None:
        return (), ()
    pairs = tuple((group, files.text(group)) for group in files.names())
    for group, file in pairs:
        demand_inside(file, files.place(group))
    return tuple(group for group, _ in pairs), pairs


def _priors(top: Entries) -> dict[str, Any] | None:
    table = top.tables("priors")
    if table is None:
        return None
    given = {key: plain(value) for key in PRIORS if (value := table.take(key)) is not None}
    table.demand_known()
    if "residual" in given and not isinstance(given["residual"], Mapping):
        raise table.error("residual", "residual is not a table", "write [priors.residual]")
    return given
