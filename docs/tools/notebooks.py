"""Notebooks kept light: `python -m docs.tools.notebooks notebooks/*.ipynb` runs each, and stores figures with few colours."""

from __future__ import annotations

import base64
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

COLOURS = 96
"""Colours kept of a figure."""


def lighter(picture: str) -> str:
    """A PNG in base64 with few colours."""
    image = Image.open(BytesIO(base64.b64decode(picture))).convert("RGB")
    content = BytesIO()
    image.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(content, format="png", optimize=True)
    return base64.b64encode(content.getvalue()).decode("ascii")


def run(path: Path) -> int:
    """Run a notebook and write it; the bytes of the file."""
    notebook: Any = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = lighter(output["data"]["image/png"])
    nbformat.write(notebook, path)
    return path.stat().st_size


if __name__ == "__main__":
    for name in sys.argv[1:]:
        sys.stderr.write(f"{name}: {run(Path(name)):,} bytes\n")
