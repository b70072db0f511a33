"""`LMM.write`: the spec of a model as a TOML file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bayeslmm.errors import StoreError
from bayeslmm.results.estimates import CountingRule
from bayeslmm.specification.model_spec import ModelArguments, ModelSpec
from bayeslmm.specification.spec_file import SpecFile
from bayeslmm.specification.toml import write_spec


def write_model(spec: ModelSpec, said: ModelArguments, file: SpecFile | None, counting: CountingRule, path: str | Path) -> None:
    """Write a spec, or again the file that it was read from. Raises StoreError for what a file cannot say: arrays given in Python."""
    for name, given in {"weights": said.weights, "offset": said.offset}.items():
        if given is not None and not isinstance(given, str):
            raise StoreError(f"a file cannot hold {name} given as an array", name, "put them into the data as a column and name it")
    if file is not None and file.spec == spec:
        write_spec(path, replace(file, path=None))
    else:
        write_spec(path, SpecFile(spec, dialect=counting))
