"""What the site makes itself: pages of numbers, pages of notebooks, and formulas as MathML, without a script from elsewhere."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from html import unescape
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import latex2mathml.converter
from mkdocs.structure.files import File, Files

from bayeslmm.cli.verify import ComparedSource, compare_with_published, spec_files
from bayeslmm.covariance.registry import STRUCTURES

ROOT = Path(__file__).resolve().parents[2]
INLINE = re.compile(r'<span class="arithmatex">\\\((?P<tex>.*?)\\\)</span>', re.DOTALL)
TABLE_ROW = re.compile(r"^\|.*$", re.MULTILINE)
CODE = re.compile(r"`[^`]+`")
MATHML = "{http://www.w3.org/1998/Math/MathML}"
PRIMES = frozenset("\u2032\u2033\u2034")
ElementTree.register_namespace("", MATHML[1:-1])
BLOCK = re.compile(r'<div class="arithmatex">\\\[(?P<tex>.*?)\\\]</div>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are computed."""
    pages: dict[str, str | bytes] = {
        "validation.md": validation(),
        "benchmarks.md": benchmarks(),
        "posteriors.md": posteriors(),
        "reference/structures.md": structures(),
    }
    for name, content in (pages | notebooks()).items():
        files.append(File.generated(config, name, content=content))
    return files


def notebooks() -> dict[str, str | bytes]:
    """A page for each notebook as it was run, and its figures."""
    found: dict[str, str | bytes] = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        parts: list[str] = []
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            source = "".join(cell["source"])
            parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
            for place, output in enumerate(cell.get("outputs", ())):
                data = output.get("data", {"text/plain": output.get("text", "")})
                if "image/png" in data:
                    picture = f"{path.stem}_{number}_{place}.png"
                    found[f"notebooks/{picture}"] = base64.b64decode(data["image/png"])
                    parts.append(f"![figure of the cell above]({picture})")
                elif output.get("name") != "stderr":
                    parts.append("```text\n" + "".join(data["text/plain"]).rstrip() + "\n```")
        found[f"notebooks/{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return found


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A bar within code within a table, which GitHub wants escaped, as Python-Markdown takes it."""
    return TABLE_ROW.sub(lambda row: CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML."""
    return INLINE.sub(lambda found: mathml(found["tex"], "inline"), BLOCK.sub(lambda found: mathml(found["tex"], "block"), html))


def mathml(tex: str, display: str) -> str:
    """A formula as browsers draw it by themselves."""
    # the text is the converter's own
    root = ElementTree.fromstring(latex2mathml.converter.convert(unescape(tex).strip(), display=display))  # noqa: S314
    for node in list(root.iter()):
        if node.tag in (MATHML + "msup", MATHML + "msubsup") and set(node[-1].text or " ") <= PRIMES:
            _raise_prime(node)
    return ElementTree.tostring(root, encoding="unicode")


def _raise_prime(node: ElementTree.Element) -> None:
    """A prime is drawn small and high already: it stands beside what it marks, not above it, where it would be so twice."""
    *marked, prime = list(node)
    for part in list(node):
        node.remove(part)
    if len(marked) == 2:
        indexed = ElementTree.Element(MATHML + "msub")
        indexed.extend(marked)
        marked = [indexed]
    mark = ElementTree.Element(MATHML + "mo", {"lspace": "0", "rspace": "0.1em"})
    mark.text = prime.text
    node.tag = MATHML + "mrow"
    node.extend([*marked, mark])


def validation() -> str:
    """Every published figure of the gallery beside ours, computed now."""
    compared = [one for path in spec_files(ROOT / "models") for one in compare_with_published(path)]
    figures = [figure for one in compared for figure in one.figures]
    agree = sum(figure.agrees for figure in figures)
    models = len({one.model for one in compared})
    lines = [
        "# Validation",
        "",
        f"**{agree} of {len(figures)} figures of {models} models agree** to the last digit printed (one unit of it). This page is computed "
        "when the site is built; `bayeslmm verify models/` prints the same on your machine, and every figure is a test.",
        "",
        "Some sources are books and papers, others are help pages whose model was computed with the software named from the same data: "
        "each source says which it is.",
        "",
        "| model | | figures | agree |",
        "|---|---|--:|--:|",
    ]
    per_model = [(name, list(group)) for name, group in groupby(compared, key=lambda one: one.model)]
    for name, group in per_model:
        mine = [figure for one in group for figure in one.figures]
        lines.append(f"| [{name}](#{name}) | {said(name).get('title', '')} | {len(mine)} | {sum(figure.agrees for figure in mine)} |")
    for name, group in per_model:
        lines += model_section(name, group)
    return "\n".join(lines) + "\n"


def said(name: str) -> dict[str, Any]:
    """A spec file of the gallery as it stands."""
    return tomllib.loads((ROOT / "models" / f"{name}.toml").read_text(encoding="utf-8"))


def model_section(name: str, group: list[ComparedSource]) -> list[str]:
    """One model: what it is, and its figures by source."""
    spec = said(name)
    lines = ["", f"## {name}", "", f"{spec.get('title', name)}: `{spec['model']['formula']}`"]
    addresses = {one["source"]: one.get("url") for one in spec["reference"]}
    for one in group:
        address = addresses.get(one.source)
        source = f"[{one.source}]({address})" if address else one.source
        lines += ["", f"{source}; {one.method}.", "", "| figure | published | ours | |", "|---|--:|--:|---|"]
        rows = [
            f"| `{figure.name}` | {figure.published} | {figure.ours:.8g} | {'agrees' if figure.agrees else '**disagrees**'} |"
            for figure in one.figures
        ]
        lines += rows if one.error is None else [f"| {one.error} | | | |"]
    return lines


def benchmarks() -> str:
    """The results of the last run of the benchmark, as it wrote them."""
    return recorded(
        "RESULTS.md",
        "Benchmarks",
        "`make bench` sets up the other libraries in an environment of their own, times whole fits of the same problems with all of them, "
        "one process each, and writes a table with versions, times, memory and the criterion that each ended at: a fit that is fast and "
        "ends above the optimum is not a win.",
    )


def posteriors() -> str:
    """The results of the last run of the benchmark of posteriors."""
    return recorded(
        "POSTERIOR.md",
        "Posteriors",
        "`make posteriors` samples the same models under the same priors with our collapsed sampler, PyMC, nutpie and Bambi, one process "
        "each, and writes a table of effective draws a second.",
    )


def recorded(name: str, title: str, otherwise: str) -> str:
    """A page as a run of a benchmark wrote it; how to make it where there is none."""
    results = ROOT / "benchmarks" / name
    if not results.is_file():
        return f"# {title}\n\nNo run has been recorded yet. {otherwise}\n"
    text = results.read_text(encoding="utf-8")
    return text if text.lstrip().startswith("# ") else f"# {title}\n\n{text}"


def structures() -> str:
    """The covariance structures by name, from the registry."""
    lines = [
        "# Covariance structures",
        "",
        'Any of them for a random term (`ar1(0 + visit | g)`) and for the errors (`residual="ar1(visit | subject)"`); names as in SAS and '
        "mmrm. *t* is the dimension, *q* the order. How to choose: [choose a structure](../howto/structures.md). "
        "Products of them, one for each column: `ar1(row):ar1(col)`, also written `ar1@ar1(row, col)`.",
        "",
        "| name | what it is | parameters | |",
        "|---|---|---|---|",
    ]
    for structure in STRUCTURES.values() if hasattr(STRUCTURES, "values") else STRUCTURES:
        marks = [word for word, holds in (("ordered visits", structure.needs_order), ("coordinates", structure.spatial)) if holds]
        lines.append(f"| `{structure.name}` | {structure.description} | {structure.count} | {', '.join(marks)} |")
    return "\n".join(lines) + "\n"
