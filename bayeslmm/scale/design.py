"""A design without its rows: everything that a fit needs once they have been added up, and a clear refusal of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from bayeslmm.data.design import Design, GroupingFactor, RandomTerm
from bayeslmm.errors import InferenceError

ROWS = {
    "y": "the response",
    "X": "the rows of X",
    "weights": "the weights",
    "offset": "the offset",
    "rows": "the positions of the rows",
    "index": "the index of the rows",
    "own_frame": "the rows of the data",
    "Z": "the rows of Z",
    "codes": "the level of each row",
}
"""What only rows in memory have."""


def _absent(name: str) -> InferenceError | AttributeError:
    if name not in ROWS:
        return AttributeError(name)
    return InferenceError(
        f"this needs {ROWS[name]}, which were added up in parts and not kept",
        "a model from partitions",
        "give predict() the rows as newdata; or fit the model on a frame in memory, a sample of the groups where all do not fit",
    )


class _Factor(GroupingFactor):
    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise _absent(name)


class _Term(RandomTerm):
    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise _absent(name)


class PartitionedDesign(Design):
    """The design of a model whose rows were read in parts: arrays over the rows are absent, and asking for one says so."""

    __slots__ = ("_nobs", "_response_size")
    _nobs: int
    _response_size: tuple[float, float, float]

    def __getattr__(self, name: str) -> Any:
        raise _absent(name)

    @property
    def nobs(self) -> int:
        """n, the number of rows added up."""
        return self._nobs

    @property
    def in_memory(self) -> bool:
        """False: the rows were not kept."""
        return False

    @property
    def response_size(self) -> tuple[float, float, float]:
        """As of a design in memory."""
        return self._response_size


def without_rows(design: Design, nobs: int, response_size: tuple[float, float, float], known: Mapping[str, Any]) -> PartitionedDesign:
    """The design with its arrays over rows left out.

    design : of rows that stand for all; known : fields that differ from it. `weights` and `offset` are absent, or None where there are none
    """
    absent = {name for name in ROWS if not (name in ("weights", "offset") and known.get(name, 0) is None)}
    terms = {"terms": tuple(_copy(_Term, term, absent, {"group": _copy(_Factor, term.group, absent, {})}) for term in design.terms)}
    made: PartitionedDesign = _copy(PartitionedDesign, design, absent, {**known, **terms})
    object.__setattr__(made, "_nobs", nobs)
    object.__setattr__(made, "_response_size", response_size)
    return made


def _copy(kind: type[Any], value: Any, absent: set[str], changed: Mapping[str, Any]) -> Any:
    """A value of a subclass that holds the fields of another, but for those that are absent."""
    made = object.__new__(kind)
    for field in fields(value):
        if field.name not in absent:
            object.__setattr__(made, field.name, changed[field.name] if field.name in changed else getattr(value, field.name))
    return made
