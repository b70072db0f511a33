"""Read the imports of a file, and the layer of a module, from their text alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# From the ground up; the folders of one tuple stand side by side and do not import one another.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("_arrays", "_io", "_validation", "_types"),
    ("covariance",),
    ("formula",),
    ("specification",),
    ("data",),
    ("likelihood",),
    ("partitions",),
    ("estimate",),
    ("results",),
    ("datasets",),
    ("plots",),
    ("inference",),
    ("reports",),
    ("bayes",),
    ("sas",),
    ("trials",),
    ("study_design",),
    ("model",),
    ("sas_results",),
    ("front",),
    ("cli",),
    ("__main__",),
)


@dataclass(frozen=True, slots=True)
class Layer:
    folder: str
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
    """The folder of a module; the package itself hands on names, above everything but the command line. KeyError for an unknown folder."""
    parts = module.split(".")
    folder = parts[1] if len(parts) > 1 else "front"
    return Layer(folder, {name: height for height, names in enumerate(LAYERS) for name in names}[folder])


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file, parsed once for all that judge it."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path, package: Path) -> tuple[Import, ...]:
    """Every import of a file with its place; relative ones resolved, those for the type checker alone marked, modules named in text too."""
    return tuple(_walk(tree_of(path), module_name(path, package), path.name == "__init__.py", package, inside=False, typing=False))


def _walk(node: ast.AST, here: str, is_package: bool, package: Path, *, inside: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(name.name, child.lineno, inside, typing)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(name, child.lineno, inside, typing) for name in _sources(child, here, is_package, package))
        elif isinstance(child, ast.Constant) and names_module(child.value, package):
            yield Import(child.value, child.lineno, inside, typing)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from _walk(child, here, is_package, package, inside=inside, typing=True)
        else:
            deeper = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, here, is_package, package, inside=deeper, typing=typing)


def names_module(text: object, package: Path) -> bool:
    """Whether a text names a module of the package, as `import_module` takes it."""
    if not isinstance(text, str) or not text.startswith(f"{package.name}."):
        return False
    return all(part.isidentifier() for part in text.split(".")) and is_module(package.parent.joinpath(*text.split(".")))


def _sources(node: ast.ImportFrom, here: str, is_package: bool, package: Path) -> list[str]:
    base = node.module or ""
    if node.level:
        parts = here.split(".")
        kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
        base = ".".join([*kept, *([node.module] if node.module else [])])
    folder = package.parent.joinpath(*base.split("."))
    if not (base == package.name or base.startswith(f"{package.name}.")) or not folder.is_dir():
        return [base]
    # `from bayeslmm import errors` reaches the module; `from bayeslmm import LMM` the package itself.
    return list(dict.fromkeys(f"{base}.{name.name}" if is_module(folder / name.name) else base for name in node.names))


def is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of modules that import one another, the strongly connected components of more than one."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(imports.get(module, ())):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            own = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(own) > 1:
                found.append(sorted(own))

    for module in imports:
        if module not in index:
            visit(module)
    return found
