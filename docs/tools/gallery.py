"""The pictures of pages: `python -m docs.tools.gallery docs/gallery.md docs/book/*.md` runs them and writes what their blocks draw."""

from __future__ import annotations

import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from PIL import Image

from tests.docs.blocks import cells_of, run

PICTURE = re.compile(r"^!\[.*\]\((?P<path>(?:\.\./)*assets/\w+/\w+\.png)\)$")
COLOURS = 128
"""Colours kept: figures have few, and files stay small."""


def written(path: Path) -> int:
    """Save the last figure drawn; the bytes of the file."""
    content = BytesIO()
    plt.gcf().savefig(content, format="png", dpi=110)
    picture = Image.open(content).convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    return path.stat().st_size


def draw(page: Path) -> None:
    """Run a page; each picture right below a block, or its output, is the last figure that the block drew."""
    lines = page.read_text(encoding="utf-8").splitlines()
    known: dict[str, Any] = {"__name__": "page"}
    for cell in cells_of(lines):
        run(cell.code.text, known, f"{page.name}:{cell.code.first + 2}")
        place = (cell.output or cell.code).last + 2
        below = PICTURE.match(lines[place].strip()) if place < len(lines) else None
        if below:
            sys.stderr.write(f"{below['path']}: {written(page.parent / below['path']):,} bytes\n")
        plt.close("all")


if __name__ == "__main__":
    mpl.use("Agg")
    for name in sys.argv[1:]:
        draw(Path(name))
