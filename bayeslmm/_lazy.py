"""Modules imported only when they are needed: names of a package at their first use, and packages that may be absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from bayeslmm.errors import DependencyError

_FOR_DRAWS = ("arviz", "arviz_stats", "arviz_plots", "arviz_base", "xarray")
_FOR_GRAPHS = ("pymc", "pytensor", "nutpie", "bambi")
OPTIONAL = {**dict.fromkeys(_FOR_DRAWS, "bayes"), **dict.fromkeys(_FOR_GRAPHS, "pymc")}
"""Package that may be absent -> the extra that brings it."""


@contextmanager
def optional_packages() -> Iterator[None]:
    """Imports that may fail for want of an optional package: DependencyError then says what to install."""
    try:
        yield
    except ImportError as error:
        absent = str(error.name or "").partition(".")[0]
        if absent not in OPTIONAL:
            raise
        extra = OPTIONAL[absent]
        more = "" if extra == "bayes" else ", for graphs and method=\"hierarchical\"; sample() alone needs 'bayeslmm[bayes]'"
        raise DependencyError(f"{absent} is not installed", str(error), f"pip install 'bayeslmm[{extra}]'{more}") from error


def optional(name: str) -> Any:
    """An optional package. Raises DependencyError with what to install."""
    with optional_packages():
        return import_module(name)
