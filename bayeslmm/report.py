"""A report as one HTML file that needs nothing else: summaries, tables and figures."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bayeslmm.spec.atomic import write_atomically

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e3e6ea; }
th { border-bottom: 2px solid #aab2bb; } td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } .scroll { overflow-x: auto; }
"""


@dataclass(slots=True)
class Report:
    """Sections added one by one; every text is escaped."""

    title: str
    sections: list[str] = field(default_factory=list)
    figures: list[bytes] = field(default_factory=list)

    def text(self, words: str) -> None:
        """A paragraph."""
        self.sections.append(f"<p>{html.escape(words)}</p>")

    def heading(self, words: str) -> None:
        """The heading of a section."""
        self.sections.append(f"<h2>{html.escape(words)}</h2>")

    def summary(self, fit: Any) -> None:
        """The summary of a fit or a posterior, as a notebook shows it; as plain text where it has no such form."""
        self.heading("Summary")
        shown = fit.summary()
        if hasattr(shown, "_repr_html_") and not isinstance(shown, pd.DataFrame):
            self.sections.append(f'<div class="scroll">{shown._repr_html_()}</div>')
        elif isinstance(shown, pd.DataFrame):
            self.sections.append(table_html(shown.reset_index()))
        else:
            self.sections.append(f"<pre>{html.escape(str(shown))}</pre>")

    def table(self, heading: str, frame: pd.DataFrame) -> None:
        """A frame under a heading."""
        self.heading(heading)
        self.sections.append(table_html(frame))

    def figure(self, heading: str, figure: Figure) -> None:
        """A figure under a heading, in the file itself."""
        self.heading(heading)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=140)
        self.figures.append(picture.getvalue())
        encoded = base64.b64encode(picture.getvalue()).decode("ascii")
        self.sections.append(f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{encoded}">')

    def html(self) -> str:
        """The whole page."""
        head = f'<meta charset="utf-8"><title>{html.escape(self.title)}</title><style>{STYLE}</style>'
        body = "\n".join([f"<h1>{html.escape(self.title)}</h1>", *self.sections])
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'

    def save(self, path: Path) -> Path:
        """Write the page."""
        return write_text(path, self.html())

    def save_figure(self, path: Path) -> Path:
        """Write the last figure as PNG."""
        write_atomically(path, self.figures[-1])
        return path


def table_html(frame: pd.DataFrame) -> str:
    """A frame as an HTML table: numbers to six significant digits, text escaped, nothing for what is missing."""
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in frame.columns)
    rows = ("".join(f"<td>{html.escape(cell(value))}</td>" for value in row) for row in frame.itertuples(index=False, name=None))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(value: Any) -> str:
    """A value as a person reads it; control characters shown as escapes."""
    if value is None or (isinstance(value, float) and value != value) or value is pd.NA:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(value))


def write_text(path: Path, text: str) -> Path:
    """Write a text whole or not at all."""
    write_atomically(path, text.encode("utf-8"))
    return path
