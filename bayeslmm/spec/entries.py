"""A table of a spec file that is read key by key: what is asked for is checked, what is left over is an error with its key path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from bayeslmm.errors import SpecificationError

Plain = str | int | float | bool


class Printed(str):
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

    def demand_known(self) -> None:
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
        if not isinstance(value, str) or isinstance(value, Printed):
            raise self.error(key, f"{key} is not a text", f'write {key} = "..."')
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings, or one string; () if it is absent."""
        value = self.take(key)
        if value is None:
            return ()
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) and not isinstance(item, Printed) for item in values):
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
        number = plain(value)
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
        level = plain(value)
        if not isinstance(level, str | int | float) or (isinstance(level, float) and not math.isfinite(level)):
            raise self.error(key, "a level is not a text, a finite number or a boolean", "write it as it stands in the data")
        return level

    def _distinct(self, key: str, levels: Iterable[Plain]) -> tuple[Plain, ...]:
        found = tuple(levels)
        if len({(type(level), level) for level in found}) < len(found):
            raise self.error(key, "a level is named twice", "name each level once")
        return found


def plain(value: Any) -> Any:
    """A value with the numbers of the file as floats, arrays and tables included."""
    if isinstance(value, Printed):
        return float(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value
