"""Every block of code in the README and on the site does what it says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from typer.testing import CliRunner

from bayeslmm.bayes.posterior.plots import PosteriorPlots
from bayeslmm.cli.app import app
from bayeslmm.model.fit_plots import FitPlots
from tests.docs.blocks import blocks_of, cells_of, difference, pages, run

ROOT = Path(__file__).resolve().parents[2]
PAGES = pages(ROOT)
LANGUAGES = {"dockerfile", "python", "text", "console", "toml", "r", "sas"}
R_PACKAGES = re.compile(r"library\((\w+)\)")


def lines_of(page: Path) -> list[str]:
    return page.read_text(encoding="utf-8").splitlines()


def with_blocks(language: str) -> list[Path]:
    return [page for page in PAGES if any(block.language == language for block in blocks_of(lines_of(page)))]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


LONG = {"bambi", "distributed", "gallery"}
"""Pages of a minute: a graph of PyMC that is compiled, processes that are started, every figure that there is."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.stem in LONG else [], id=name(page)) for page in with_blocks("python")],
)
def test_python_prints_what_the_page_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    known: dict[str, Any] = {"__name__": "page"}
    for cell in cells_of(lines_of(page)):
        place = f"{page.name}:{cell.code.first + 2}"
        output = run(cell.code.text, known, place)
        if cell.output is not None:
            assert not (wrong := difference(cell.output.text, output, cell.tolerance)), f"{place}: {wrong}\n{output}"


@pytest.mark.parametrize("page", with_blocks("console"), ids=name)
def test_commands_exist_and_end_well(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    shutil.copytree(ROOT / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(lines_of(page)):
        for line in block.text.splitlines() if block.language == "console" else ():
            command, *arguments = shlex.split(line, comments=True)
            if command == "make":
                assert set(arguments) <= targets, line
            elif command == "pip":
                assert {extra for found in re.findall(r"\[(.*)\]", line) for extra in found.split(",")} <= set(extras), line
            else:
                assert command == "bayeslmm", line
                if arguments[0] != "bench":
                    outcome = CliRunner().invoke(app, arguments)
                    assert outcome.exit_code == 0, f"{line}: {outcome.output}"


@pytest.mark.parametrize("page", with_blocks("toml"), ids=name)
def test_toml_is_toml(page: Path) -> None:
    for block in blocks_of(lines_of(page)):
        if block.language == "toml":
            tomllib.loads(block.text)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("r"), ids=name)
def test_the_other_side_runs_too(page: Path) -> None:
    """The R of a page runs in R, where R and the packages that the page names are there."""
    program = "\n".join(block.text for block in blocks_of(lines_of(page)) if block.language == "r")
    needed = sorted(set(R_PACKAGES.findall(program)))
    if shutil.which("Rscript") is None:
        pytest.skip("no R")
    there = f"quit(status = as.integer(!all(sapply(c({', '.join(map(repr, needed))}), requireNamespace, quietly = TRUE))))"
    if subprocess.run(["Rscript", "-e", there], capture_output=True, check=False).returncode:
        pytest.skip("R lacks one of " + ", ".join(needed))
    outcome = subprocess.run(["Rscript", "-e", program], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_its_language(page: Path) -> None:
    assert {block.language for block in blocks_of(lines_of(page))} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/|localhost|127\.0\.0\.1|index-url", text)


@pytest.mark.parametrize("lines", [[], ["# A page", "", "without a block."], ["```text", "an output", "```"]])
def test_a_page_without_python_has_no_cells(lines: list[str]) -> None:
    assert list(cells_of(lines)) == []


def test_the_gallery_shows_every_figure() -> None:
    """Each picture of the gallery is there, and each figure of a fit and of a posterior is drawn by its code."""
    page = ROOT / "docs" / "gallery.md"
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r"\((assets/gallery/\w+\.png)\)", text)
    assert pictures
    assert [path for path in pictures if not (page.parent / path).is_file()] == []
    drawn = set(re.findall(r"\.plot\.(\w+)\(", text))
    assert {name for name in (*vars(FitPlots), *vars(PosteriorPlots)) if not name.startswith("_")} <= drawn
