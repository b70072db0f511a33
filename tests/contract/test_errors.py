"""Every error and warning that the package raises says what to do about it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import bayeslmm.errors
from tests.contract.imports import tree_of

PACKAGE = Path(bayeslmm.errors.__file__).parent
KINDS = {name for name, kind in vars(bayeslmm.errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def without_remedy(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS):
            continue
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        remedy = node.args[2] if len(node.args) > 2 else named.get("remedy")
        starred = any(isinstance(part, ast.Starred) for part in node.args) or None in named
        if not starred and (remedy is None or (isinstance(remedy, ast.Constant) and not remedy.value)):
            yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"


def test_every_error_has_a_remedy() -> None:
    assert [place for path in sorted(PACKAGE.rglob("*.py")) for place in without_remedy(path)] == []
