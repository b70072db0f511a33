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


def words_of(node: ast.AST) -> frozenset[str]:
    """The texts that a tuple, list or set, or `Literal[...]`, is made of; none where anything else stands in it."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
        node = node.slice
    if not isinstance(node, ast.Tuple | ast.List | ast.Set):
        return frozenset()
    words = [item.value for item in node.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return frozenset(words) if len(words) == len(node.elts) else frozenset()


def test_the_words_of_an_option_stand_once() -> None:
    """A type is the one list of the words that an option takes; what checks an option asks the type."""
    types: dict[frozenset[str], list[str]] = defaultdict(list)
    lists: dict[frozenset[str], list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = tree_of(path)
        file = path.relative_to(PACKAGE).as_posix()
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Subscript | ast.Tuple | ast.List | ast.Set)]
        within = {id(node.slice) for node in nodes if isinstance(node, ast.Subscript)}
        for node in nodes:
            words = words_of(node)
            if len(words) >= 2 and isinstance(node, ast.Subscript):
                types[words].append(f"{file}:{node.lineno}")
            elif len(words) >= 3 and id(node) not in within:
                lists[words].append(f"{file}:{node.lineno}")
    assert len(types) > 40
    assert {tuple(words): where + lists[words] for words, where in types.items() if len(where + lists[words]) > 1} == {}
