"""TOML in and out for spec files, and mmrm's formula. Nothing in a file is run; an unknown key is an error with its path."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast, get_args

from bayeslmm._io import as_path, write_atomically
from bayeslmm._types import CountingRule
from bayeslmm.errors import BayesLMMError, SpecificationError, StoreError
from bayeslmm.formula.grammar import read_sides
from bayeslmm.formula.parse import build_formula, formula_text, parse_formula, require_own_sides, residual_term, variance_text
from bayeslmm.formula.syntax import Bar, Formula, ResidualTerm
from bayeslmm.formula.terms import flat_items
from bayeslmm.formula.tokens import Cursor
from bayeslmm.specification.model_spec import ModelArguments, ModelSpec, make_spec, plain_coding
from bayeslmm.specification.spec_file import (
    DataSource,
    Entries,
    PrintedNumber,
    Reference,
    ReferenceLevel,
    SpecFile,
    plain_value,
    read_reference,
    read_regular,
    reference_table,
    require_inside,
)

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def toml_text(content: Mapping[str, Any]) -> str:
    """The text of a document.

    >>> print(toml_text({"title": "t", "model": {"formula": "y ~ x"}}), end="")
    title = "t"
    <BLANKLINE>
    [model]
    formula = "y ~ x"
    """
    return "\n".join(_table(content, ())).lstrip("\n") + "\n"


def _table(content: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Values first, then the tables: TOML has no other way to say where a value belongs."""
    below = {key: value for key, value in content.items() if _is_table(value, len(path)) or _is_tables(value)}
    for key, value in content.items():
        if key not in below:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in below.items():
        here = (*path, key)
        for item in value if _is_tables(value) else [value]:
            yield ""
            yield f"[[{_path(here)}]]" if _is_tables(value) else f"[{_path(here)}]"
            yield from _table(item, here)


def _is_table(value: Any, depth: int) -> bool:
    """Whether a mapping gets a heading of its own: the outer ones do, figures further down stand in one line."""
    return isinstance(value, Mapping) and depth < 2


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _path(names: Sequence[str]) -> str:
    return ".".join(map(_key, names))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quote(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, PrintedNumber):
        return str(value)
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, list | tuple) for item in value):
            return "[\n" + "".join(f"    {_value(row)},\n" for row in value) + "]"
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"TOML has no {type(value).__name__}")


def _quote(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(letter) or _escape(letter) for letter in text) + '"'


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\u{code:04X}" if code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029) else letter


_REMEDY = "add one, such as us(visit | subject)"


def read_mmrm(text: str, functions: Iterable[str] = frozenset()) -> tuple[Formula, ResidualTerm]:
    """The fixed part and the residual structure of mmrm's formula.

    Errors: FormulaError with the spot for a formula without its covariance term, with two, or with random effects.

    >>> formula, residual = read_mmrm("FEV1 ~ ARMCD * AVISIT + us(AVISIT | ARMCD / USUBJID)")
    >>> formula.text, residual.text
    ('FEV1 ~ 1 + ARMCD * AVISIT', 'us(AVISIT | ARMCD / USUBJID)')
    """
    own = frozenset(functions)
    return _read(text, own) if isinstance(text, str) else _translate(Cursor(text, own))


@lru_cache(maxsize=256)
def _read(text: str, functions: frozenset[str]) -> tuple[Formula, ResidualTerm]:
    return _translate(Cursor(text, functions))


def _translate(cursor: Cursor) -> tuple[Formula, ResidualTerm]:
    response, terms = read_sides(cursor)
    items = flat_items(cursor, terms)
    bars = [node for _, node in items if isinstance(node, Bar)]
    for bar in bars:
        if bar.structure is None:
            raise cursor.error_between(bar.start, bar.end, "a random effect in mmrm's formula", "use LMM with residual= for both")
    if len(bars) != 1:
        bar = bars[1] if bars else Bar(None, (), False, response, None, terms.start, terms.end)
        what = f"mmrm's formula has {len(bars)} covariance terms, not one"
        raise cursor.error_between(bar.start, bar.end, what, "leave one out" if bars else _REMEDY)
    require_own_sides(cursor, response, items)
    formula = build_formula(cursor, response, tuple((sign, node) for sign, node in items if node is not bars[0]))
    # The text of the fixed part alone, so that formula and residual together say the model once.
    return replace(formula, text=formula_text(formula)), residual_term(cursor, bars[0], nugget=False)


def mmrm_spec(text: str, *, functions: Iterable[str] = frozenset(), **options: Any) -> ModelSpec:
    """The spec of mmrm's formula; `options` are those of `make_spec` other than `residual`."""
    formula, residual = read_mmrm(text, functions)
    return make_spec(formula, residual=residual, **options)


def mmrm_text(spec: ModelSpec) -> str:
    """mmrm's formula of a spec that has a residual structure and no random effects."""
    return spec.formula.text if spec.residual is None else f"{spec.formula.text} + {spec.residual.text}"


MAX_SPEC_BYTES = 1024**2
MAX_DOTS = 500  # in a line: reading a dotted key takes time as the square of its parts
PRIOR_KEYS = ("alpha", "sd", "corr", "sigma", "residual", "preset")
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
        return content.decode("utf-8-sig")  # Windows begins a file with a mark
    except UnicodeDecodeError as error:
        raise SpecificationError("the file is not UTF-8", f"{path}, byte {error.start}", "save it as UTF-8") from None


def parse_spec(text: str, path: Path | None = None) -> SpecFile:
    """The content of a spec file from its text; `path` is what errors name and where data files are looked for."""
    where = str(path or "spec")
    top = Entries(_parse_document(text, where), where)
    title, description = top.text("title"), top.text("description")
    data, factors, references = _data(top), _factors(top), _references(top)
    spec, dialect, matrices = _model(top)
    top.require_known()
    return SpecFile(spec, data, factors, references, title, description, dialect, matrices, path)


def _parse_document(text: str, where: str) -> dict[str, Any]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > MAX_DOTS:
            raise SpecificationError(
                f"a line with more than {MAX_DOTS} dots", f"{where}, line {number}", "break the array into several lines"
            )
    try:
        return tomllib.loads(text, parse_float=PrintedNumber)
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
    table.require_known()
    if bool(name) == bool(file):
        raise table.error("name", "a data source is a name or a file, one of the two", "leave [data] out to pass data= in Python")
    if name and not _NAME.fullmatch(name):
        raise table.error("name", f"{name!r:.80} is no name of a data set", 'write "fev_data", or "PACKAGE/ITEM"')
    if file:
        require_inside(file, table.place("file"))
    if sha256 and (not file or not _SHA256.fullmatch(sha256)):
        raise table.error("sha256", "a checksum is 64 hexadecimal digits, of a file", "take it with sha256sum")
    return DataSource(name or None, file or None, sha256.lower() or None)


def _factors(top: Entries) -> tuple[tuple[str, tuple[ReferenceLevel, ...] | None], ...]:
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


def _model(top: Entries) -> tuple[ModelSpec, CountingRule, tuple[tuple[str, str], ...]]:
    table = top.tables("model")
    if table is None:
        raise top.error("model", "the model is missing", "add [model] with a formula")
    if table.take("functions") is not None:
        raise table.error("functions", "a file cannot bring functions", "pass functions= in Python, or make the column beforehand")
    formula = table.text("formula", required=True)
    dialect = cast(CountingRule, table.one_of("dialect", get_args(CountingRule), "lme4"))
    names, matrices = _relationship(table)
    options: dict[str, Any] = {key: table.text(key) or None for key in ("residual", "variance", "weights", "offset")}
    options |= {key: value for key in ("missing", "check") if (value := table.text(key))}
    options["sigma"] = plain_value(table.take("sigma"))
    contrasts = table.tables("contrasts")
    options["contrasts"] = {name: plain_value(contrasts.take(name)) for name in contrasts.names()} if contrasts else None
    priors = _priors(top)
    table.require_known()
    try:
        if dialect == "mmrm":
            if options["residual"] is not None:
                raise table.error("residual", "mmrm's formula has the residual structure in it", "leave residual out")
            parsed, options["residual"] = read_mmrm(formula)
            return make_spec(parsed, relationship=names, priors=priors, **options), dialect, matrices
        return make_spec(formula, relationship=names, priors=priors, **options), dialect, matrices
    except BayesLMMError as error:
        raise _in_file(error, table.place("")) from None


def _in_file[Error: BayesLMMError](error: Error, place: str) -> Error:
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
        require_inside(file, files.place(group))
    return tuple(group for group, _ in pairs), pairs


def _priors(top: Entries) -> dict[str, Any] | None:
    table = top.tables("priors")
    if table is None:
        return None
    values = {key: plain_value(value) for key in PRIOR_KEYS if (value := table.take(key)) is not None}
    table.require_known()
    if "residual" in values and not isinstance(values["residual"], Mapping):
        raise table.error("residual", "residual is not a table", "write [priors.residual]")
    return values


def write_spec(path: str | os.PathLike[str], content: SpecFile | ModelSpec) -> None:
    """Write a spec file: whole, or the old one is untouched.

    The text is read back before it is written: what a file cannot say, such as a function of the user's, is an error and not a loss.
    Errors: StoreError.
    """
    file = content if isinstance(content, SpecFile) else SpecFile(content)
    write_atomically(as_path(path), spec_text(file).encode())


def write_model(spec: ModelSpec, arguments: ModelArguments, file: SpecFile | None, dialect: CountingRule, path: str | Path) -> None:
    """Write a spec, or again the file that it was read from. Raises StoreError for what a file cannot say: arrays given in Python."""
    for name, values in {"weights": arguments.weights, "offset": arguments.offset}.items():
        if values is not None and not isinstance(values, str):
            raise StoreError(f"a file cannot hold {name} given as an array", name, "put them into the data as a column and name it")
    if file is not None and file.spec == spec:
        write_spec(path, replace(file, path=None))
    else:
        write_spec(path, SpecFile(spec, dialect=dialect))


def spec_text(file: SpecFile) -> str:
    """The TOML text of a spec file. Errors: StoreError for a model that a file cannot say."""
    text = toml_text(_content(file))
    try:
        same = parse_spec(text) == file
    except BayesLMMError as error:
        raise StoreError(f"a file cannot say this model: {error.what}", error.where, error.remedy) from None
    if not same:
        raise StoreError(
            "a file cannot say this model: it reads back as another", "", "write the formula with functions that a formula knows"
        )
    return text


def _content(file: SpecFile) -> dict[str, Any]:
    out: dict[str, Any] = {key: value for key, value in (("title", file.title), ("description", file.description)) if value}
    if file.data is not None:
        source = {"name": file.data.name, "file": file.data.file, "sha256": file.data.sha256}
        out["data"] = {key: value for key, value in source.items() if value is not None}
    if file.factors:
        out["factors"] = {column: True if levels is None else list(levels) for column, levels in file.factors}
    out["model"] = _model_table(file)
    if file.spec.priors is not None:
        out["priors"] = file.spec.priors.as_dict()
    if file.references:
        out["reference"] = [reference_table(reference) for reference in file.references]
    return out


def _model_table(file: SpecFile) -> dict[str, Any]:
    spec = file.spec
    mmrm = file.dialect == "mmrm"
    out: dict[str, Any] = {"formula": mmrm_text(spec) if mmrm else _formula_text(spec.formula)}
    if file.dialect != "lme4":
        out["dialect"] = file.dialect
    if spec.residual is not None and not mmrm:
        out["residual"] = spec.residual.text
    if spec.variance:
        out["variance"] = variance_text(spec.variance)
    out |= {key: value for key, value in (("weights", spec.weights), ("offset", spec.offset), ("sigma", spec.sigma)) if value is not None}
    out |= {key: value for key, value in (("missing", spec.missing), ("check", spec.check)) if value not in ("drop", "error")}
    if spec.contrasts:
        out["contrasts"] = {factor: plain_coding(coding) for factor, coding in spec.contrasts}
    if spec.relationship:
        out["relationship"] = dict(file.relationship_files) or list(spec.relationship)
    return out


def _formula_text(formula: Formula) -> str:
    """As the user wrote it, if that says it all."""
    try:
        return formula.text if parse_formula(formula.text) == formula else formula_text(formula)
    except BayesLMMError:
        return formula_text(formula)
