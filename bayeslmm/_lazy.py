"""Modules imported only when they are needed: names of a package at their first use, and packages that may be absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from bayeslmm.errors import DependencyError

OPTIONAL = frozenset({"arviz", "arviz_stats", "arviz_plots", "arviz_base", "xarray", "pymc", "nutpie", "bambi", "pytensor", "matplotlib"})


@contextmanager
def optional_packages() -> Iterator[None]:
    """Imports that may fail for want of an optional package: DependencyError then says what to install."""
    try:
        yield
    except ImportError as error:
        absent = str(error.name or "").partition(".")[0]
        if absent not in OPTIONAL:
            raise
        raise DependencyError(f"{absent} is not installed", str(error), "pip install bayeslmm[bayes]") from error


def optional(name: str) -> Any:
    """An optional package. Raises DependencyError with what to install."""
    with optional_packages():
        return import_module(name)
