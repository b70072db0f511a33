"""Published figures of a model: `[[reference]]` tables of a spec file, digits kept as printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bayeslmm.spec.entries import Entries, Printed

Method = Literal["REML", "ML", "MAP"]
Level = str | int | float | bool
Figures = tuple[tuple[tuple[str, ...], str], ...]

METHODS = ("REML", "ML", "MAP")
DF = ("satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within", "containment", "residual", "asymptotic")
VCOV = ("asymptotic", "kenward-roger", "kenward-roger-linear", "CR0", "CR1", "CR2", "CR3")
INFORMATION = ("expected", "observed")
CONF_METHODS = ("wald", "profile", "bootstrap")
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
    figures: Figures = ()
    url: str = ""
    software: str = ""
    method: Method = "REML"
    df: str | None = None
    vcov: str | None = None
    information: str | None = None
    conf_level: float = 0.95
    conf_method: str = "wald"
    emmeans: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    at: tuple[tuple[str, Level | tuple[Level, ...]], ...] = ()
    anova_type: int = 3
    units: float = 1.0
    note: str = ""


def read_reference(table: Entries) -> Reference:
    """One `[[reference]]` table."""
    values = table.tables("values")
    at = table.tables("at")
    reference = Reference(
        source=table.text("source", required=True),
        figures=tuple(_figures(values, ())) if values else (),
        url=table.text("url"),
        software=table.text("software"),
        method=table.one_of("method", METHODS, "REML"),  # type: ignore[arg-type]
        df=table.one_of("df", DF),
        vcov=table.one_of("vcov", VCOV),
        information=table.one_of("information", INFORMATION),
        conf_level=table.number("conf_level", 0.95, above=0.0, below=1.0),
        conf_method=table.one_of("conf_method", CONF_METHODS, "wald") or "wald",
        emmeans=table.texts("emmeans"),
        by=table.texts("by"),
        at=tuple((name, at.level_or_levels(name)) for name in at.names()) if at else (),
        anova_type=int(table.one_of("anova_type", (1, 2, 3), 3) or 3),
        units=table.number("units", 1.0, above=0.0),
        note=table.text("note"),
    )
    table.demand_known()
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
    elif isinstance(value, bool) or not isinstance(value, str | int | Printed):
        raise table.error(name, "a figure is a number, or a text such as '<.0001'", "write it as it was printed")
    elif not _PRINTED.fullmatch(str(value).strip()):
        raise table.error(name, f"{str(value)!r:.40} is no printed number", "write it as it was printed: 24.740, '<.0001'")
    else:
        yield path, str(value).strip()


def told(reference: Reference) -> dict[str, Any]:
    """The table of a reference, as plain values; what is at its default is left out."""
    said = _options(reference)
    default = _options(Reference(""))
    out: dict[str, Any] = {"source": reference.source, **{name: value for name, value in said.items() if value != default[name]}}
    if reference.figures:
        out["values"] = _nested(reference)
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


def _nested(reference: Reference) -> dict[str, Any]:
    """The figures as nested tables; items of an array keep their numbers as keys."""
    values: dict[str, Any] = {}
    for path, text in reference.figures:
        table = values
        for name in path[:-1]:
            table = table.setdefault(name, {})
        table[path[-1]] = Printed(text) if _TOML_NUMBER.fullmatch(text) else text
    return values
