"""README for an index of packages: `python -m docs.tools.index_page ADDRESS` prints it with absolute links and images."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\\.)*)\]\((?!https?://|#|mailto:)(?P<path>[^)\s]+)\)")


def absolute(text: str, address: str) -> str:
    """The text with links that begin at ADDRESS/blob/main and images at ADDRESS/raw/main."""
    base = address.rstrip("/")
    return LINK.sub(
        lambda found: f"{found['image']}[{found['text']}]({base}/{'raw' if found['image'] else 'blob'}/main/{found['path']})", text
    )


if __name__ == "__main__":
    sys.stdout.write(absolute(README.read_text(encoding="utf-8"), sys.argv[1]))
