"""Only a verb whose result is the fit itself keeps one that Ctrl-C ended early; every other asks `require_finished` of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.contract.imports import tree_of
from tests.contract.test_layers import FILES, PACKAGE

KEEPERS = {"model/fit.py: refit", "model/fit.py: update"}


def fits_made(node: ast.AST, function: str = "", whole: bool = False) -> Iterator[tuple[str, int, bool]]:
    """Function, line, and whether the fit is asked for being whole, of each `.fit(...)`."""
    if isinstance(node, ast.FunctionDef):
        function = node.name
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "fit":
            yield function, node.lineno, whole
        whole = isinstance(node.func, ast.Name) and node.func.id == "require_finished"
    for child in ast.iter_child_nodes(node):
        yield from fits_made(child, function, whole)


def test_no_verb_goes_on_from_half_a_fit() -> None:
    found, wrong = set(), []
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        if ".fit(" not in path.read_text(encoding="utf-8"):
            continue
        for function, line, whole in fits_made(tree_of(path)):
            found.add(f"{name}: {function}")
            if not whole and f"{name}: {function}" not in KEEPERS:
                wrong.append(f"{name}:{line} {function}")
    assert not wrong, "\n".join(wrong)
    assert found >= KEEPERS
