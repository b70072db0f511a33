"""No text that a user gives is ever code, whatever function takes it; and none takes long (rows 47 to 50, 81, 82)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from tests.inputs.frames import MODEL, fit, refused, visits

CODE = [
    *("__import__('os').system('touch ran')", "os.mknod('ran')", "open('ran', 'w')", "np.savetxt('ran', x)", "x.__class__", "eval('1')"),
    *("exec('1')", "getattr(x, 'y')", "x[0]", "[x for x in y]", "(lambda: 1)()", "lambda: 1", "f'{x}'", "(x := 3)", "{x}", "x if x else y"),
    *(
        "*x",
        "**x",
        "await x",
        "`x`.__class__",
        "log.__call__(x)",
        "I(open('ran'))",
        "C(k, __import__('os'))",
        "poly(x, degree=open('ran'))",
    ),
    *("I(x and y)", "I(not x)", "I(~x)", "I(1 if x else 2)", "I(b'x')", "I(...)", "I(None)", "I([1])", "globals()", "log(`x`; y)"),
]


def toml(text: str, folder: Path) -> Any:
    quoted = "y ~ " + text.replace("\\", "\\\\").replace('"', '\\"') + " + (1 | g)"
    (folder / "model.toml").write_text(f'[model]\nformula = "{quoted}"\n')
    return blm.read_model(folder / "model.toml", visits())


TAKERS: dict[str, Callable[[str, Path], Any]] = {
    "fixed": lambda text, _: fit(f"y ~ {text} + (1 | g)"),
    "left": lambda text, _: fit(f"{text} ~ x + (1 | g)"),
    "random": lambda text, _: fit(f"y ~ x + ({text} | g)"),
    "group": lambda text, _: fit(f"y ~ x + (1 | {text})"),
    "offset": lambda text, _: fit(f"y ~ x + offset({text})"),
    "residual": lambda text, _: fit("y ~ x", residual=f"us({text} | g)"),
    "subject": lambda text, _: fit("y ~ x", residual=f"us(visit | {text})"),
    "variance": lambda text, _: fit("y ~ x", variance=f"power({text})"),
    "weights": lambda text, _: fit(weights=text),
    "mmrm": lambda text, _: blm.mmrm(f"y ~ {text} + us(visit | g)", visits()),
    "update": lambda text, _: fit().update(f". ~ . + {text}"),
    "contrast": lambda text, _: fit().contrast(f"{text} = 0"),
    "emmeans": lambda text, _: fit().emmeans(text),
    "spec file": toml,
}


@pytest.mark.parametrize("taker", TAKERS)
def test_no_text_is_run(taker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"*x", "**x"} if taker == "emmeans" else set()  # joined by a star, names are a list there
    for text in (text for text in CODE if text not in names):
        refused(lambda text=text: TAKERS[taker](text, tmp_path), BayesLMMError)
    assert set(os.listdir(tmp_path)) <= {"model.toml"}


@pytest.mark.parametrize(
    "text",
    [
        "(" * 3000 + "x" + ")" * 3000,
        "log(" * 3000 + "x" + ")" * 3000,
        "x" * 10**6,
        " " * 10**7 + "x",
        "-" * 60_000 + "x",
        "+".join(["x" * 50] * 20_000),
        "I(" + "-" * 60_000 + "x)",
        "I(" + "x**" * 3000 + "2)",
        "I(9**9**9**9)",
        "I(x**99999999)",
        "I(x + " + "9" * 60_000 + ")",
        "*".join(f"v{i}" for i in range(18)),
        "(x + day)**40",
        "(x + day)^1000000000",
        "/".join(f"v{i}" for i in range(3000)),
        ":".join(f"({'+'.join(f'v{i}_{j}' for j in range(10))})" for i in range(9)),
        "(" + "*".join(f"v{i}" for i in range(18)) + " | g)",
        "*".join(["C(k)"] * 40),
        "bs(x, df=1000000000)",
        "poly(x, 1000000)",
    ],
    ids=lambda text: text[:20],
)
def test_a_formula_beyond_measure_is_refused_at_once(text: str) -> None:
    begin = time.process_time()
    refused(lambda: fit(f"y ~ {text}"))
    assert time.process_time() - begin < 5.0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "y ~ x + (1|g",
            "y ~ x + 1|g)",
            "y ~ x ++ (1|g)",
            "y ~",
            "~ x",
            "",
            "y",
            "y ~~ x",
            "y ~ .",
            "y ~ x ~ z",
            "y ~ x + (1|)",
            "y ~ (x",
        ),
        *(
            "y ~ x + (|g)",
            "y ~ x + ()",
            "y ~ x)",
            "y ~ x +",
            "y x",
            "y = x",
            "y <- x",
            "y ~ x | g",
            "y ~ x + (1|g|h)",
            "y ~ x^",
            "y ~ x**0.5",
        ),
        *("y ~ 3*x", "y ~ x + (1|1)", "y ~ x + (1|g+h)", "y ~ x + (0|g)", "y ~ x:(1|g)", "y ~ x - (1|g)", "y ~ 'x'", "y ~ x;g", "y ~ `x"),
        *("y ~ x + foo(1|g)", "y ~ log()", "y ~ log(x, 2, 3)", "y ~ poly(x, -1)", "y ~ C(x, foo)", "y ~ offset()", "log(y) ~ y", "y ~ y"),
        *("arm ~ x", "h ~ x", "C(k) ~ x", "y ~ x + (1|y)", "y ~ x + offset(y)", "cbind(y, x) ~ 1"),
    ],
)
def test_a_formula_that_makes_no_sense_is_refused(text: str) -> None:
    refused(lambda: fit(text))


@pytest.mark.parametrize("formula", [12, None, ["y ~ x"], b"y ~ x", visits()], ids=lambda given: type(given).__name__)
def test_a_formula_is_a_text(formula: Any) -> None:
    assert '"' in refused(lambda: blm.LMM(formula, visits())).remedy


@pytest.mark.parametrize(
    "name", ["~/data.csv", "$HOME/data.csv", "${HOME}/data.csv", "../data.csv", "/etc/passwd", "http://localhost/a.csv"]
)
def test_a_spec_file_reads_no_data_from_elsewhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(f'[data]\nfile = "{name}"\n\n[model]\nformula = "{MODEL}"\n')
    error = refused(lambda: blm.read_model(tmp_path / "model.toml"))
    assert "data.file" in error.where


def test_a_table_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(f'[data]\nfile = "data.csv"\n\n[model]\nformula = "{MODEL}"\n')
    for content in (b"", b"y,x,g\n1,2\n3,4,5,6\n", bytes(range(256)) * 10, b"\x80\x05\x95pickle"):
        (tmp_path / "data.csv").write_bytes(content)
        assert "data.csv" in refused(lambda: blm.read_model(tmp_path / "model.toml").fit()).what
    with (tmp_path / "data.csv").open("wb") as file:
        file.truncate(2**31 + 1)
    assert "2,147,483,649" in str(refused(lambda: blm.read_model(tmp_path / "model.toml")))
