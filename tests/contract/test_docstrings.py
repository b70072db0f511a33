"""Docstrings of public names have numpydoc's form: each parameter of the signature with its type and meaning, returns, raises, examples."""

from __future__ import annotations

import inspect
import re

import pytest

import bayeslmm as blm
from tests.contract import public

SECTIONS = ("Parameters", "Returns", "Raises", "Warns", "Notes", "References", "Examples")
CONSTRUCTED = {name: value for name, value in public.classes().items() if name in ("LMM", "LMMRegressor", "Priors")}
"""Classes that a user makes: the parameters stand in the docstring of the class."""

DOCUMENTED = public.callables() | CONSTRUCTED


class Docstring:
    """The sections of a docstring: their text, and the entries `name : type` of those that have some."""

    def __init__(self, value: object) -> None:
        lines = (inspect.getdoc(value) or "").splitlines()
        heads = [i for i in range(len(lines) - 1) if lines[i] and re.fullmatch("-+", lines[i + 1]) and len(lines[i]) == len(lines[i + 1])]
        self.summary = lines[: heads[0] if heads else len(lines)]
        ends = [*heads, len(lines)][1:]
        self.sections = {lines[i]: lines[i + 2 : end] for i, end in zip(heads, ends, strict=True)}
        self.order = [lines[i] for i in heads]

    def entries(self, section: str) -> list[tuple[str, list[str]]]:
        found: list[tuple[str, list[str]]] = []
        for line in self.sections.get(section, []):
            if line and not line.startswith(" "):
                found.append((line, []))
            elif line:
                found[-1][1].append(line)
        return found


def signature_names(value: object) -> list[str]:
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    signature = inspect.signature(value)
    return [marks.get(p.kind, "") + p.name for p in signature.parameters.values() if p.name not in ("self", "cls")]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_docstring_has_the_sections_of_numpydoc(name: str) -> None:
    doc = Docstring(DOCUMENTED[name])
    assert doc.summary and doc.summary[0].strip()
    assert len(doc.summary) == 1 or not doc.summary[1].strip(), "a summary is one line"
    assert doc.order == [section for section in SECTIONS if section in doc.order], f"unknown or out of order: {doc.order}"
    assert not [line for line in doc.summary if re.match(r"(Errors|Raises|Returns)\b:? ", line)]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_parameter_is_documented_with_its_type(name: str) -> None:
    entries = Docstring(DOCUMENTED[name]).entries("Parameters")
    told = [(one.strip(), kind) for head, _ in entries for names, _, kind in [head.partition(" : ")] for one in names.split(",")]
    assert [one for one, _ in told] == signature_names(DOCUMENTED[name])
    assert all(kind.strip() for _, kind in told), "a type is missing"
    assert all(meaning for _, meaning in entries), "a meaning is missing"


@pytest.mark.parametrize("name", public.callables())
def test_what_is_returned_is_documented(name: str) -> None:
    returned = inspect.signature(DOCUMENTED[name]).return_annotation
    entries = Docstring(DOCUMENTED[name]).entries("Returns")
    assert bool(entries) == (returned not in ("None", None))
    assert all(meaning for _, meaning in entries)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_errors_that_are_documented_exist(name: str) -> None:
    for errors, when in Docstring(DOCUMENTED[name]).entries("Raises"):
        assert all(issubclass(getattr(blm.errors, error), blm.errors.BayesLMMError) for error in errors.split(", "))
        assert when


@pytest.mark.parametrize("name", public.callables())
def test_a_verb_has_an_example(name: str) -> None:
    assert any(line.startswith(">>> ") for line in Docstring(DOCUMENTED[name]).sections.get("Examples", []))


@pytest.mark.parametrize("name", public.classes())
def test_a_class_describes_its_attributes_in_a_section(name: str) -> None:
    doc = Docstring(public.classes()[name])
    assert not [line for line in doc.summary if re.match(r"\w+(, \w+)* : ", line)]
    entries = doc.entries("Attributes")
    assert all(re.match(r"\w+ : \S", head) and meaning for head, meaning in entries)
