"""A progress bar on the terminal for refits that take a while."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from bayeslmm._validation import require_flag


def bar_shown(shown: bool | None) -> bool:
    """Whether there is a bar: where there is a terminal, unless told otherwise."""
    return sys.stderr.isatty() if shown is None else require_flag(shown, "progress")


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
