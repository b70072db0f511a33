"""Plain values as TOML text: tables, arrays, strings, numbers as printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bayeslmm.spec.entries import Printed

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
    return name if _BARE.fullmatch(name) else _string(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Printed):
        return str(value)
    if isinstance(value, str):
        return _string(value)
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


def _string(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(letter) or _shown(letter) for letter in text) + '"'


def _shown(letter: str) -> str:
    code = ord(letter)
    return f"\\u{code:04X}" if code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029) else letter
