"""Doors that are opened only when somebody goes through: from results to their figures, and to the bar of a long run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

FIGURES = frozenset({"bootstrap_axes", "emmeans_axes", "profile_axes", "simulated_axes"})


def plot(figure: str, value: Any, **options: Any) -> Any:
    """Draw a result by a function of the room of plots."""
    assert figure in FIGURES
    return getattr(import_module("bayeslmm.plots"), figure)(value, **options)


def bar_shown(shown: bool | None) -> bool:
    """Whether there is a bar: where there is a terminal, unless told otherwise."""
    return sys.stderr.isatty() if shown is None else shown


@contextmanager
def progress_bar(name: str, total: int, shown: bool | None) -> Iterator[Callable[[int], None]]:
    """A function that is told how many more are done; shows a bar where there is a terminal, unless told otherwise."""
    if not bar_shown(shown):
        yield lambda _: None
        return
    console = import_module("rich.console").Console(stderr=True)
    with import_module("rich.progress").Progress(console=console, transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda more: bar.advance(task, more)


def marginaleffects() -> tuple[Any, Any]:
    """The model protocol of marginaleffects, and polars, in which it thinks; raises ImportError where they are absent."""
    return import_module("marginaleffects.classes"), import_module("polars")
