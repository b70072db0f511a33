"""Extras: what an error names brings the package, and the whole holds every extra."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bayeslmm.errors import OPTIONAL, DependencyError, optional, optional_packages

ROOT = Path(__file__).resolve().parents[2]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
BROUGHT = {"arviz_stats": "arviz", "arviz_plots": "arviz", "arviz_base": "arviz", "xarray": "arviz", "pytensor": "pymc"}
"""Packages that come with another."""


@pytest.mark.parametrize("package", sorted(OPTIONAL))
def test_an_absent_package_is_answered_by_the_extra_that_brings_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *more: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("bayeslmm.errors.import_module", absent)
    with pytest.raises(DependencyError) as caught:
        optional(package)
    extra = re.match(r"pip install 'bayeslmm\[(\w+)\]'", caught.value.remedy)
    assert extra is not None, "quoted, so that every shell takes it"
    assert any(line.startswith(BROUGHT.get(package, package)) for line in EXTRAS[extra[1]])


def test_drawing_needs_no_pymc() -> None:
    assert not {line.partition(">")[0] for line in EXTRAS["bayes"]} & {"pymc", "nutpie", "bambi", "pytensor"}
    assert {line.partition(">")[0] for line in EXTRAS["pymc"]} == {"bayeslmm[bayes]", "pymc", "nutpie", "bambi"}


def test_a_posterior_is_drawn_where_pymc_is_absent() -> None:
    program = """
import sys
for name in ("pymc", "nutpie", "bambi", "pytensor"):
    sys.modules[name] = None
import bayeslmm as blm
data = blm.load_dataset("dropout").dropna(subset=["change"])
model = blm.LMM("change ~ arm * week + (1 | id)", data)
post = model.sample(draws=100, seed=1)
post.summary(), post.tree, post.ranef(), post.predict(data.head(2))
try:
    model.to_pymc()
except blm.errors.DependencyError as error:
    print(error.remedy)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bayeslmm[pymc]" in done.stdout


def test_all_and_the_makefile_hold_every_extra() -> None:
    named = set(EXTRAS) - {"all"}
    assert set(EXTRAS["all"][0].removeprefix("bayeslmm[").removesuffix("]").split(",")) == named
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.search(r"'\.\[([\w,]+)\]' --group dev", makefile)[1].split(",")) == named  # type: ignore[index]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_pages_name_extras_that_are_there(page: str) -> None:
    for names in re.findall(r"bayeslmm\[([\w,]+)\]", (ROOT / page).read_text(encoding="utf-8")):
        assert set(names.split(",")) <= set(EXTRAS)


def test_every_remedy_quotes_its_extra() -> None:
    for path in (ROOT / "bayeslmm").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install bayeslmm\[", line), f"{path}: {line}"


def test_a_package_whose_folder_cannot_be_made_is_told_apart_from_an_absent_one() -> None:
    with pytest.raises(DependencyError, match="cannot be loaded") as told, optional_packages():
        raise FileNotFoundError(2, "No such file or directory", "/nowhere/.pytensor")
    assert told.value.where == "/nowhere/.pytensor"
    assert "base_compiledir" in told.value.remedy
