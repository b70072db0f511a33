"""Read the imports of a file, and the layer of a module, from their text alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# From the ground up; the rooms of one tuple stand side by side and do not import one another.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("_arrays", "_io", "_validation"),
    ("covariance",),
    ("formula",),
    ("specification",),
    ("data",),
    ("datasets",),
    ("likelihood",),
    ("partitions",),
    ("estimate",),
    ("results",),
    ("plots",),
    ("inference",),
    ("bayes",),
    ("reports",),
    ("sas",),
    ("model",),
    ("sas_results",),
    ("front",),
    ("cli",),
)


@dataclass(frozen=True, slots=True)
class Layer:
    room: str
    height: int


@dataclass(frozen=True, slots=True)
class Import:
    module: str
    line: int
    inside_function: bool
    typing_only: bool

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


def layer_of(module: str) -> Layer:
    """The room of a module by its second name; files at the top of the package that are no room of their own are the front door."""
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else "front"
    for height, rooms in enumerate(LAYERS):
        if room in rooms:
            return Layer(room, height)
    return Layer("front", len(LAYERS) - 2)


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(path: Path, package: Path) -> tuple[Import, ...]:
    """Every import of a file with its place; relative ones resolved, those for the type checker alone marked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(_walk(tree, module_name(path, package), path.name == "__init__.py", package, inside=False, typing=False))


def _walk(node: ast.AST, here: str, is_package: bool, package: Path, *, inside: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(name.name, child.lineno, inside, typing)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(name, child.lineno, inside, typing) for name in _sources(child, here, is_package, package))
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from _walk(child, here, is_package, package, inside=inside, typing=True)
        else:
            deeper = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, here, is_package, package, inside=deeper, typing=typing)


def _sources(node: ast.ImportFrom, here: str, is_package: bool, package: Path) -> list[str]:
    base = node.module or ""
    if node.level:
        parts = here.split(".")
        kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
        base = ".".join([*kept, *([node.module] if node.module else [])])
    if base != package.name:
        return [base]
    # `from bayeslmm import errors` reaches the module; `from bayeslmm import LMM` the front door.
    return [f"{base}.{name.name}" if is_module(package / name.name) else base for name in node.names]


def is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()
