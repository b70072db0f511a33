"""What every test may ask for: the folder of reference cases where there is one, and steady numbers."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Each process of tests, and each Python that a test starts, reads what an earlier one compiled, also where the environment keeps Python
# from writing it: to compile the package and its libraries again takes a child longer than what it is asked.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("quick", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("long", max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "quick"))


def shared_folder() -> Path | None:
    """The folder of reference cases: BAYESLMM_SHARED, or `shared` beside the repository; None where neither is there."""
    named = os.environ.get("BAYESLMM_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    return folder if (folder / "reference").is_dir() else None


def pytest_collection_finish() -> None:
    """Tests and modules stay to the end: the collector of garbage need not look at them again and again, nor at every few fits."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_report_header() -> str:
    folder = shared_folder()
    return f"reference cases: {folder if folder else 'absent, their tests are skipped'}"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference cases and their data; the test is skipped where it is absent."""
    folder = shared_folder()
    if folder is None and os.environ.get("BAYESLMM_REQUIRE_SHARED"):
        pytest.fail("the reference cases are required here and were not found")
    if folder is None:
        pytest.skip("no reference cases: set BAYESLMM_SHARED or put `shared` beside the repository")
    return folder


@pytest.fixture(scope="session")
def reference(shared: Path) -> Path:
    """The folder of the reference cases themselves, one JSON file each."""
    return shared / "reference"


@pytest.fixture(scope="session")
def models() -> Path:
    """The gallery of published models."""
    return ROOT / "models"
