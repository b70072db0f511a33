"""What people who want to add something are told is so: files and names of the recipes exist, and the layers are those of the law."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.contract.imports import LAYERS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bayeslmm"
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = GUIDE.partition("## Recipes")[2].partition("\n## ")[0]
ON_TOP = ("front", "__main__")
"""Layers without a folder: the package's own `__init__` and `__main__`."""


def written() -> list[str]:
    """What stands in backticks in the recipes and looks like a file, a folder, or a name of a module."""
    return [word for word in re.findall(r"`([\w/.]+)`", RECIPES) if "/" in word or re.fullmatch(r"_\w+\.\w+", word)]


def test_the_recipes_name_something() -> None:
    assert len(written()) >= 8
    assert {"covariance", "inference", "specification", "plots"} <= {word.partition("/")[0] for word in written()}


@pytest.mark.parametrize("word", written())
def test_what_a_recipe_names_is_there(word: str) -> None:
    if any((place / word).exists() for place in (PACKAGE, ROOT)):
        return
    module, _, name = word.replace("/", ".").rpartition(".")
    assert hasattr(import_module(f"bayeslmm.{module}"), name), word


def test_the_layers_are_those_of_the_law() -> None:
    told = GUIDE.partition("## The layers")[2].partition("\n\n    ")[2].partition("\n\n")[0]
    assert [tuple(one.split()) for one in told.split("<")] == [layer for layer in LAYERS if layer[0] not in ON_TOP]


def test_the_page_of_the_architecture_has_every_folder_in_its_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| ", page, re.MULTILINE)
    told = [name.strip("/") for row in rows for name in re.findall(r"`([\w/]+)`", row)]
    assert told == [name for layer in LAYERS if layer[0] not in ON_TOP for name in layer]
