"""Writing a spec file."""

from __future__ import annotations

import os
from typing import Any

from bayeslmm.errors import BayesLMMError, StoreError
from bayeslmm.formula import Formula, formula_text, parse_formula, variance_text
from bayeslmm.spec.atomic import as_path, write_atomically
from bayeslmm.spec.file import SpecFile
from bayeslmm.spec.mmrm import mmrm_text
from bayeslmm.spec.model import ModelSpec
from bayeslmm.spec.reference import told
from bayeslmm.spec.toml import parse_spec
from bayeslmm.spec.toml_text import toml_text


def write_spec(path: str | os.PathLike[str], content: SpecFile | ModelSpec) -> None:
    """Write a spec file: whole, or the old one is untouched.

    The text is read back before it is written: what a file cannot say, such as a function of the user's, is an error and not a loss.
    Errors: StoreError.
    """
    file = content if isinstance(content, SpecFile) else SpecFile(content)
    write_atomically(as_path(path), spec_text(file).encode())


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
    out["model"] = _model(file)
    if file.spec.priors is not None:
        out["priors"] = file.spec.priors.told()
    if file.references:
        out["reference"] = [told(reference) for reference in file.references]
    return out


def _model(file: SpecFile) -> dict[str, Any]:
    spec = file.spec
    mmrm = file.dialect == "mmrm"
    out: dict[str, Any] = {"formula": mmrm_text(spec) if mmrm else _formula_text(spec.formula)}
    if file.dialect != "lme4":
        out["dialect"] = file.dialect
    if spec.residual is not None and not mmrm:
        out["residual"] = spec.residual.text
    if spec.variance:
        out["variance"] = variance_text(spec.variance)
    out |= {key: value for key, value in (("weights", spec.weights), ("offset", spec.offset)) if value is not None}
    out |= {key: value for key, value in (("missing", spec.missing), ("check", spec.check)) if value not in ("drop", "error")}
    if spec.contrasts:
        out["contrasts"] = {factor: coding if isinstance(coding, str) else list(map(list, coding)) for factor, coding in spec.contrasts}
    if spec.relationship:
        out["relationship"] = dict(file.relationship_files) or list(spec.relationship)
    return out


def _formula_text(formula: Formula) -> str:
    """As the user wrote it, if that says it all."""
    try:
        return formula.text if parse_formula(formula.text) == formula else formula_text(formula)
    except BayesLMMError:
        return formula_text(formula)
