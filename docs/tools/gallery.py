"""The pictures of the gallery: `python -m docs.tools.gallery` runs docs/gallery.md and writes what its blocks draw.

Names after the command limit what is written: `python -m docs.tools.gallery qq profile`.
"""

from __future__ import annotations

import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from PIL import Image

from tests.docs.blocks import blocks_of, run

PAGE = Path(__file__).resolve().parents[1] / "gallery.md"
PICTURE = re.compile(r"^!\[.*\]\((?P<path>assets/gallery/(?P<name>\w+)\.png)\)$")
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


def main(names: list[str]) -> None:
    mpl.use("Agg")
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    known: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(lines):
        if block.language != "python":
            continue
        run(block.text, known, f"{PAGE.name}:{block.first + 2}")
        below = PICTURE.match(lines[block.last + 2]) if block.last + 2 < len(lines) else None
        if below and (not names or below["name"] in names):
            sys.stderr.write(f"{below['path']}: {written(PAGE.parent / below['path']):,} bytes\n")
        plt.close("all")


if __name__ == "__main__":
    main(sys.argv[1:])
