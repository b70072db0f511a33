"""`SpecFile`: a model, where its data are, and what was published about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bayeslmm.errors import SpecificationError
from bayeslmm.spec.folder import read_inside
from bayeslmm.spec.model import ModelSpec
from bayeslmm.spec.reference import Level, Reference

Dialect = Literal["lme4", "mmrm", "sas"]


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
    factors: tuple[tuple[str, tuple[Level, ...] | None], ...] = ()
    references: tuple[Reference, ...] = ()
    title: str = ""
    description: str = ""
    dialect: Dialect = "lme4"
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
