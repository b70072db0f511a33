"""Every public callable, found by looking: names of the package, verbs of its classes, and of the classes that these return."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache, cached_property
from importlib import import_module

import bayeslmm as blm

SKIPPED = (
    "bayeslmm.bayes.pymc_model",
    "bayeslmm.cli",
    "bayeslmm.sas.",
    "bayeslmm.sas_results.",
    "bayeslmm.formula",
    "bayeslmm.specification.",
)
"""Where no class lives that a verb of the public classes returns to a user."""


@cache
def classes() -> dict[str, type]:
    """Public classes by name: those of the package, and those named in what a public callable returns."""
    known: dict[str, type] = {}
    for module in pkgutil.walk_packages(blm.__path__, "bayeslmm."):
        if not module.name.startswith(SKIPPED):
            own = vars(import_module(module.name)).values()
            known |= {value.__name__: value for value in own if inspect.isclass(value) and value.__module__ == module.name}
    found = {name: value for name in blm.__all__ if inspect.isclass(value := getattr(blm, name))}
    functions = [value for name in blm.__all__ if inspect.isfunction(value := getattr(blm, name))]
    told = [_returned(function) for function in functions]
    new = list(found.values())
    while new or told:
        for owner in new:
            told += [_returned(value) for _, value in members(owner)]
        names = {word for text in told for word in re.findall(r"\w+", text)} - set(found)
        new, told = [known[name] for name in sorted(names) if name in known and not name.endswith(("Estimates", "Problem", "Design"))], []
        found |= {owner.__name__: owner for owner in new}
    return found


def _returned(function: object) -> str:
    return str(inspect.signature(function).return_annotation) if callable(function) else ""


def members(owner: type) -> Iterator[tuple[str, object]]:
    """The functions behind the public methods and properties of a class, its bases in the package included."""
    seen = set()
    for kind in owner.__mro__:
        if kind.__module__.startswith("bayeslmm"):
            for name, value in vars(kind).items():
                found = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                found = found.fget if isinstance(found, property) else found.func if isinstance(found, cached_property) else found
                if name not in seen and inspect.isfunction(found) and (not name.startswith("_") or name == "__call__"):
                    seen.add(name)
                    yield name, found


def is_attribute(owner: type, name: str) -> bool:
    """Whether a name of a class is read without a call."""
    value = inspect.getattr_static(owner, name)
    return isinstance(value, property | cached_property)


@cache
def callables() -> dict[str, object]:
    """Name -> function or class whose docstring a user reads to call it."""
    found: dict[str, object] = {name: value for name in blm.__all__ if inspect.isfunction(value := getattr(blm, name))}
    for owner in classes().values():
        for name, value in members(owner):
            if not is_attribute(owner, name):
                found[f"{owner.__name__}.{name}"] = value
    return found
