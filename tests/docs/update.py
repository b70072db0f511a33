"""Run the Python of pages and print its output below it: `python -m tests.docs.update docs/PAGE.md ...`, all pages when none is named."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl

from tests.docs.blocks import cells_of, pages, run

ROOT = Path(__file__).resolve().parents[2]


def update(page: Path) -> int:
    """Renew the outputs of a page; the number of its cells."""
    lines = page.read_text(encoding="utf-8").splitlines()
    known: dict[str, Any] = {"__name__": "page"}
    renewed: list[tuple[int, int, list[str]]] = []
    cells = list(cells_of(lines))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in cells:
            output = run(cell.code.text, known, f"{page.name}:{cell.code.first + 2}")
            if cell.output is not None:
                inside = [" " * cell.output.indent + line if line else "" for line in output.splitlines()]
                renewed.append((cell.output.first + 1, cell.output.last, inside))
    for first, last, inside in reversed(renewed):
        lines[first:last] = inside
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(cells)


if __name__ == "__main__":
    mpl.use("Agg")
    for page in [Path(name).resolve() for name in sys.argv[1:]] or pages(ROOT):
        sys.stderr.write(f"{page.name}: {update(page)} cells\n")
