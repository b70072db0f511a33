"""The reader of imports itself: a law that reads nothing would hold of anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.imports import circles, imports_of, layer_of


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "bayeslmm" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "bayeslmm" / "errors.py").write_text("")
    (folder / "__init__.py").write_text("from .frames import read\n")
    (folder / "frames.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from .. import errors\n"
        "from ..likelihood.blocks import Blocks\n"
        "if TYPE_CHECKING:\n"
        "    import pymc\n"
        "def read():\n"
        "    import pandas\n"
    )
    return tmp_path / "bayeslmm"


def test_relative_imports_are_resolved(package: Path) -> None:
    modules = {found.module: found for found in imports_of(package / "data" / "frames.py", package)}
    assert {"bayeslmm.errors", "bayeslmm.likelihood.blocks"} <= set(modules)
    assert [found.module for found in imports_of(package / "data" / "__init__.py", package)] == ["bayeslmm.data.frames"]


def test_imports_for_the_type_checker_and_inside_functions_are_marked(package: Path) -> None:
    modules = {found.module: found for found in imports_of(package / "data" / "frames.py", package)}
    assert modules["pymc"].typing_only
    assert modules["pandas"].inside_function
    assert not modules["bayeslmm.errors"].inside_function


def test_modules_named_in_a_text_and_submodules_are_imports(package: Path) -> None:
    (package / "data" / "lazy.py").write_text(
        "from bayeslmm import data\nfrom bayeslmm.data import frames\nload('bayeslmm.data.frames')\nprint('bayeslmm.data.absent')\n"
    )
    found = [(found.module, found.line) for found in imports_of(package / "data" / "lazy.py", package)]
    assert found == [("bayeslmm.data", 1), ("bayeslmm.data.frames", 2), ("bayeslmm.data.frames", 3)]


def test_circles_are_found_and_chains_are_not() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_folders_stand_in_their_order() -> None:
    assert layer_of("bayeslmm.formula.parser").height < layer_of("bayeslmm.data.design").height
    assert layer_of("bayeslmm.model.lmm").height > layer_of("bayeslmm.sas.to_sas").height
    with pytest.raises(KeyError):
        layer_of("bayeslmm.shed.tools")
    assert layer_of("bayeslmm").height < layer_of("bayeslmm.cli.app").height
    assert layer_of("bayeslmm.bayes").height > layer_of("bayeslmm.plots").height
