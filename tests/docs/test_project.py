"""What a project tells of itself in several places is the same in all of them, and its README can be read away from the repository."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from docs.tools.index_page import LINK, README, absolute

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"matplotlib-base": "matplotlib"}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_and_one_name_of_the_authors() -> None:
    assert re.findall(r"^version: (\S+)$", text("CITATION.cff"), re.MULTILINE) == [PROJECT["version"]]
    assert re.findall(r'set version = "(.*?)"', text("conda/meta.yaml")) == [PROJECT["version"]]
    assert re.findall(r"^  - name: (.+)$", text("CITATION.cff"), re.MULTILINE) == [author["name"] for author in PROJECT["authors"]]


def test_the_recipe_asks_for_what_the_package_asks_for() -> None:
    run = text("conda/meta.yaml").partition("  run:")[2].partition("run_constrained")[0]
    asked = {CONDA_NAMES.get(name, name) + bound for name, bound in re.findall(r"- ([\w-]+) (>=\S+)", run)}
    assert asked == {*PROJECT["dependencies"], "python" + PROJECT["requires-python"]}


def test_every_target_and_tool_of_the_release_checklist_exists() -> None:
    page = text("RELEASING.md")
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", page)) <= targets
    assert all((ROOT / f"{tool.replace('.', '/')}.py").is_file() for tool in re.findall(r"python -m (docs\.tools\.\w+)", page))


@pytest.mark.parametrize("address", ["https://example.org/bayeslmm", "https://example.org/bayeslmm/"])
def test_the_readme_of_an_index_page_has_no_relative_link(address: str) -> None:
    page = README.read_text(encoding="utf-8")
    relative = [found["path"] for found in LINK.finditer(page)]
    assert relative
    assert [path for path in relative if not (ROOT / path.partition("#")[0]).exists()] == []
    there = absolute(page, address)
    assert LINK.search(there) is None
    assert there.count("https://example.org/bayeslmm/") == len(relative)
    assert "![" in there and "https://example.org/bayeslmm/raw/main/docs/assets/figure.png" in there


TAUGHT = (
    "effect size", "interaction", "multiple comparisons", "report", "reference level", "missing", "convergence", "singular", "power",
    "imputation", "ROPE", "deploy", "icc", "r squared", "post hoc", "tukey", "ls means", "random slope", "nested", "contrasts",
    "residual plot", "outlier", "weights", "ar(1)", "unbalanced", "prediction interval", "bootstrap", "bayes factor", "prior",
    "formula", "polars", "save model",
)  # fmt: skip
"""Words that a reader types into the search of the site."""


@pytest.mark.parametrize("words", TAUGHT)
def test_a_reader_who_searches_finds_a_chapter(words: str) -> None:
    """A page that teaches has each of the words under one heading, most of them in it; the reference pages stand behind the chapters."""
    docs = ROOT / "docs"
    teaching = (
        *(docs / "book").glob("*.md"),
        *(docs / "howto").glob("*.md"),
        *(docs / f"{name}.md" for name in ("faq", "decide", "gallery")),
    )
    sections = [part for page in teaching for part in re.split(r"(?m)^(?=#+ |\*\*[A-Z])", page.read_text(encoding="utf-8"))]
    found = [part for part in sections if all(re.search(rf"\b{re.escape(word)}", part, re.IGNORECASE) for word in words.split())]
    assert found, words
    title = [part for part in found if re.search(rf"\b{re.escape(words.split()[-1])}", part.splitlines()[0], re.IGNORECASE)]
    assert title, words
    assert all(
        (docs / "reference" / page.name).read_text(encoding="utf-8").startswith("---\nsearch:")
        for page in (docs / "reference").glob("*.md")
    )
    contents = text("docs/book/index.md")
    assert all(f"({page.name})" in contents for page in (ROOT / "docs" / "book").glob("*.md") if page.name != "index.md")


SOUGHT = ("effect size", "interaction", "multiple comparisons", "report", "reference level", "missing", "convergence", "singular", "power")
SOUGHT += ("imputation", "ROPE", "deploy")


@pytest.mark.parametrize("words", SOUGHT)
def test_what_newcomers_look_for_has_a_chapter(words: str) -> None:
    """The search of the site ranks headings first: one of a chapter holds every word that is typed, as it is typed or longer."""
    pages = [page for folder in ("book", "howto") for page in sorted((ROOT / "docs" / folder).glob("*.md"))]
    headings = [line.lower() for page in pages for line in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)]
    assert any(all(word in heading for word in words.lower().split()) for heading in headings)
