"""A page made of sections; every text that enters it is escaped, and nothing in it asks the network for anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bayeslmm.errors import BayesLMMError, Check
from bayeslmm.reports.cells import WIDE, cells, heading, safe
from bayeslmm.reports.pictures import embedded
from bayeslmm.reports.style import STYLE
from bayeslmm.results.layout import described
from bayeslmm.spec.atomic import as_path, write_atomically

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What the file itself tells the browser: no script runs, nothing is fetched."""


@dataclass(slots=True)
class Section:
    """A heading and what stands under it, as HTML."""

    title: str
    name: str
    parts: list[str] = field(default_factory=list)

    def text(self, words: str, kind: str = "") -> None:
        """A paragraph; kind : "lead" or "note"."""
        self.parts.append(f'<p class="{kind}">{safe(words)}</p>' if kind else f"<p>{safe(words)}</p>")

    def heading(self, words: str) -> None:
        """A heading within the section."""
        self.parts.append(f"<h3>{safe(words)}</h3>")

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and what they are."""
        told = "".join(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in pairs)
        self.parts.append(f"<dl>{told}</dl>")

    def code(self, text: str) -> None:
        """Text as it is typed."""
        self.parts.append(f"<pre><code>{safe(text)}</code></pre>")

    def table(self, frame: pd.DataFrame, caption: str = "") -> None:
        """A frame; columns of numbers flush right."""
        names = [str(name) for name in frame.columns]
        left = [frame[name].dtype.kind not in "iuf" for name in frame.columns]
        head = "".join(f'<th{_class(own)} scope="col">{safe(heading(name))}</th>' for name, own in zip(names, left, strict=True))
        body = "".join(_row(row, names, left) for row in cells(frame.set_axis(names, axis=1)))
        title = f"<caption>{safe(caption)}</caption>" if caption else ""
        self.parts.append(f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')

    def checks(self, checks: Iterable[Check]) -> None:
        """Verdicts, those that did not pass first."""
        order = ("failed", "noted", "passed")
        rows = "".join(
            f'<tr><td class="name">{safe(check.name)}</td><td class="name verdict {check.verdict}">{check.verdict}</td>'
            f'<td class="wide">{safe(described(check.value))}</td><td class="name">{safe(described(check.limit))}</td>'
            f'<td class="wide">{safe(check.remedy)}</td></tr>'
            for check in sorted(checks, key=lambda check: order.index(check.verdict))
        )
        head = "".join(f'<th class="name" scope="col">{name}</th>' for name in ("check", "verdict", "value", "limit", "what to do"))
        self.parts.append(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>')

    def figure(self, figure: Figure, caption: str) -> None:
        """A figure in the file itself."""
        self.parts.append(picture(figure, caption))

    def pair(self, *figures: tuple[Figure, str]) -> None:
        """Figures side by side where there is room."""
        self.parts.append('<div class="pair">' + "".join(picture(figure, caption) for figure, caption in figures) + "</div>")

    def attempt(self, what: str, step: Callable[[], None]) -> None:
        """Run a step that some models do not allow; what one cannot say is said in a line instead."""
        try:
            step()
        except BayesLMMError as error:
            self.text(f"{what}: {error.what}." + (f" {error.remedy[0].upper()}{error.remedy[1:]}." if error.remedy else ""), "note")

    def html(self) -> str:
        """The section."""
        return f'<section id="{self.name}"><h2>{safe(self.title)}</h2>\n' + "\n".join(self.parts) + "\n</section>"


@dataclass(slots=True)
class Page:
    """A page: title, a line below it, a few numbers in tiles, sections.

    >>> page = Page("Visits")
    >>> page.section("Data").text("3 < 4 rows")
    >>> "3 &lt; 4 rows" in page.html()
    True
    """

    title: str
    lead: str = ""
    tiles: Sequence[tuple[str, str]] = ()
    sections: list[Section] = field(default_factory=list)

    def section(self, title: str, place: int | None = None) -> Section:
        """A new section, the last one or at a place among them."""
        made = Section(title, f"section-{len(self.sections) + 1}")
        self.sections.insert(len(self.sections) if place is None else place, made)
        return made

    def html(self) -> str:
        """The whole file."""
        head = (
            f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{safe(self.title)}</title><style>{STYLE}</style>'
        )
        links = "".join(f'<a href="#{section.name}">{safe(section.title)}</a>' for section in self.sections)
        tiles = "".join(f'<div class="tile"><b>{safe(value)}</b><span>{safe(name)}</span></div>' for name, value in self.tiles)
        top = [f"<h1>{safe(self.title)}</h1>", f'<p class="lead">{safe(self.lead)}</p>' if self.lead else ""]
        top += [
            f'<div class="tiles">{tiles}</div>' if tiles else "",
            f'<nav aria-label="sections">{links}</nav>' if len(self.sections) > 1 else "",
        ]
        body = "\n".join([*filter(None, top), *(section.html() for section in self.sections)])
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'

    def save(self, path: str | Path) -> Path:
        """Write the page whole or not at all; StoreError where it cannot be written."""
        place = as_path(path)
        write_atomically(place, self.html().encode("utf-8"))
        return place


def _class(name: bool) -> str:
    return ' class="name"' if name else ""


def _row(row: list[str], names: list[str], left: list[bool]) -> str:
    tags = [' class="wide"' if name in WIDE else _class(own) for name, own in zip(names, left, strict=True)]
    return "<tr>" + "".join(f"<td{tag}>{safe(text)}</td>" for tag, text in zip(tags, row, strict=True)) + "</tr>"


def picture(figure: Figure, caption: str) -> str:
    """A figure with its caption, which is also what a screen reader says."""
    return f'<figure><img alt="{safe(caption)}" src="{embedded(figure)}"><figcaption>{safe(caption)}</figcaption></figure>'
