"""Names of the package: one meaning each, and functions named by what they do."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.contract.imports import tree_of
from tests.contract.test_layers import PACKAGE


def names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def test_no_two_public_names_of_modules_are_alike() -> None:
    """A name that a reader looks up is found in one module; what several need is imported from there."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "__init__.py":
            continue
        for node in tree_of(path).body:
            for name in names_of(node):
                if not name.startswith("_"):
                    found[name].add(path.relative_to(PACKAGE).as_posix())
    assert len(found) > 1000
    assert {name: sorted(where) for name, where in found.items() if len(where) > 1} == {}
