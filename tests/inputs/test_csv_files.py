"""CSV files by every door that reads them: names that stand twice, marks of Windows, other encodings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import bayeslmm as blm
from bayeslmm.cli.demo import read_trial
from bayeslmm.errors import BayesLMMError
from tests.inputs.frames import visits

SPEC = '[data]\nfile = "rows.csv"\n[model]\nformula = "y ~ x + (1 | g)"\n'


def by_spec(path: Path) -> int:
    spec = path.with_name("model.toml")
    if not spec.exists():
        spec.write_text(SPEC, encoding="utf-8")
    return blm.read_model(spec).nobs


def by_partitions(path: Path) -> int:
    return blm.from_partitions("y ~ x + (1 | g)", [path]).nobs


DOORS: list[Callable[[Path], object]] = [by_spec, by_partitions, read_trial]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("names", ["y,x,x,g", 'x,y,"x",g', "y,x,g,g"])
def test_a_name_that_stands_twice_is_refused(door: Callable[[Path], object], names: str, tmp_path: Path) -> None:
    """pandas reads the second one under another name, without a word."""
    text = visits()[["y", "x", "arm", "g"]].to_csv(index=False)
    (tmp_path / "rows.csv").write_text(names + text[text.index("\n") :], encoding="utf-8")
    with pytest.raises(BayesLMMError, match="more than once"):
        door(tmp_path / "rows.csv")


@pytest.mark.parametrize("door", [by_spec, by_partitions], ids=lambda door: door.__name__)
def test_columns_without_names_are_none_that_stand_twice(door: Callable[[Path], object], tmp_path: Path) -> None:
    text = visits()[["y", "x", "g"]].assign(**{"": 1, " ": 2}).rename(columns={" ": ""}).to_csv()
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8-sig")
    assert door(tmp_path / "rows.csv") == len(visits())


def test_files_of_windows_are_read(tmp_path: Path) -> None:
    visits().to_csv(tmp_path / "rows.csv", index=False, encoding="utf-8-sig")
    (tmp_path / "model.toml").write_text(SPEC.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert by_spec(tmp_path / "rows.csv") == len(visits())


def test_another_encoding_is_named(tmp_path: Path) -> None:
    visits().assign(note="é").to_csv(tmp_path / "rows.csv", index=False, encoding="latin-1")
    with pytest.raises(BayesLMMError, match="UTF-8"):
        by_spec(tmp_path / "rows.csv")


def test_levels_that_a_file_does_not_list_are_named_without_a_warning(tmp_path: Path) -> None:
    visits().to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "model.toml").write_text(SPEC + '[factors]\narm = ["nobody"]\n', encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BayesLMMError, match="does not list"):
            by_spec(tmp_path / "rows.csv")
