"""A spec file reads nothing outside its own folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bayeslmm.errors import SpecificationError
from bayeslmm.specification import spec_file as rules
from bayeslmm.specification.toml import parse_spec, read_spec

OUTSIDE = [
    "../secret.csv",
    "../../etc/passwd",
    "data/../../secret.csv",
    "data/..",
    "..",
    "/etc/passwd",
    "//server/share/x.csv",
    "\\\\\\\\server\\\\share\\\\x.csv",
    "C:/windows/x.csv",
    "C:x.csv",
    "..\\\\secret.csv",
    "https://example.org/x.csv",
    "HTTP://example.org/x.csv",
    "s3://bucket/x.csv",
    "file:///etc/passwd",
    "data:text/csv,y",
    "x.csv\\u0000.png",
    "x\\n.csv",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(
    "place", ['[data]\nfile = "{}"\n[model]\nformula = "y ~ x"', '[model]\nformula = "y ~ (1|g)"\nrelationship = {{ g = "{}" }}']
)
def test_a_name_that_leads_out_is_refused_when_the_file_is_read(name: str, place: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_spec(place.format(name), Path("folder/model.toml"))
    assert "model.toml" in caught.value.where
    assert "data.file" in caught.value.where or "model.relationship.g" in caught.value.where


def spec_beside(folder: Path, name: str) -> Path:
    path = folder / "model.toml"
    path.write_text(f'[data]\nfile = "{name}"\n[model]\nformula = "y ~ x"\n')
    return path


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.csv").write_text("y")
    (home / "x.csv").symlink_to(tmp_path / "secret.csv")
    (home / "up").symlink_to(tmp_path)
    for name in ("x.csv", "up/secret.csv"):
        with pytest.raises(SpecificationError, match="link that leads out"):
            read_spec(spec_beside(home, name)).read_data()


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("y")
    (tmp_path / "x.csv").symlink_to(tmp_path / "real.csv")
    assert read_spec(spec_beside(tmp_path, "x.csv")).read_data() == b"y"


def test_a_name_is_not_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("y")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "secret")
    for name in ("$PLACE", "${PLACE}", "~/secret", "%PLACE%", "secre*"):
        with pytest.raises(SpecificationError, match="there is no file"):
            read_spec(spec_beside(tmp_path, name)).read_data()


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_pipes_folders_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    start = time.process_time()
    for name in ("pipe", "folder", "."):
        with pytest.raises(SpecificationError, match="regular file"):
            read_spec(spec_beside(tmp_path, name)).read_data()
    with pytest.raises(SpecificationError, match="regular file"):
        read_spec(tmp_path / "pipe")
    with pytest.raises(SpecificationError, match="regular file"):
        read_spec("/dev/zero")
    assert time.process_time() - start < 2.0


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(SpecificationError, match="there is no file"):
        read_spec(spec_beside(tmp_path, "a.csv")).read_data()


def test_a_data_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "x.csv").open("wb") as file:
        file.truncate(2 * 1024**3)  # a hole: it takes no space
    with pytest.raises(SpecificationError) as caught:
        read_spec(spec_beside(tmp_path, "x.csv")).read_data()
    assert "2,147,483,648 bytes" in caught.value.what
    assert "data=" in caught.value.remedy
    assert rules.MAX_DATA_BYTES < 2 * 1024**3


@pytest.mark.parametrize(
    "text",
    [
        "#" * (1024**2 + 1),
        "a" + ".a" * 200_000 + " = 1",
        "[" + ".".join(["a"] * 200_000) + "]",
        "x = " + "[" * 100_000,
        "x = " + "{a=" * 50_000,
        "x = " + "9" * 100_000,
    ],
    ids=["two megabytes", "dotted key", "dotted table", "nested arrays", "nested tables", "long number"],
)
def test_a_hostile_file_is_refused_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(SpecificationError):
        read_spec(path)
    assert time.process_time() - start < 2.0


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_bytes(b'title = "\xff"')
    with pytest.raises(SpecificationError, match="UTF-8"):
        read_spec(tmp_path / "model.toml")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="cannot be read"):
        read_spec(tmp_path / "absent.toml")
