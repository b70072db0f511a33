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


@pytest.mark.parametrize(
    "words",
    ["effect size", "interaction", "multiple comparisons", "report", "reference level", "missing", "convergence", "singular", "power",
     "imputation", "ROPE", "deploy"],
)  # fmt: skip
def test_a_reader_who_searches_finds_a_chapter(words: str) -> None:
    """A page that teaches has the words in a heading or in its words of emphasis, and the chapters are all in the contents."""
    pages = [*(ROOT / "docs" / "book").glob("*.md"), *(ROOT / "docs" / "howto").glob("*.md"), ROOT / "docs" / "faq.md"]
    told = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(("#", "*", "**"))]
    assert any(re.search(rf"\b{words}", line, re.IGNORECASE) for line in told), words
    contents = text("docs/book/index.md")
    assert all(f"({page.name})" in contents for page in (ROOT / "docs" / "book").glob("*.md") if page.name != "index.md")
