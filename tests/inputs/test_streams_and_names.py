"""Where text goes: control characters of names do not reach a terminal, and no stream is taken for granted."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import StoreError
from bayeslmm.results.render import bar_shown
from tests.contract.imports import tree_of
from tests.inputs.frames import refused, visits

ESCAPE = "\x1b[31m"


def armed() -> pd.DataFrame:
    """A level and a column that would colour a terminal."""
    data = visits().astype({"arm": str})
    return data.assign(arm=data["arm"] + ESCAPE).rename(columns={"x": f"x{ESCAPE}"})


def test_no_representation_has_a_control_character() -> None:
    model = blm.LMM(f"y ~ `x{ESCAPE}` + arm + (1 | g)", armed(), priors=blm.Priors(alpha="normal"))
    fit, post = model.fit(), model.sample(50, 2, seed=1)
    means = fit.emmeans("arm")
    shown: list[Any] = [
        model,
        fit,
        post,
        means,
        fit.contrast(list(fit.fixef.index[1:])),
        fit.summary(),
        blm.compare(fit, post),
        post.emmeans("arm"),
    ]
    shown += [
        fit.power(fit.fixef.index[1], nsim=4, seed=1),
        fit.check_inference(4, seed=1),
        fit.bootstrap(3, seed=1),
        post.contrast(list(fit.fixef.index[1:])),
        means.pairs(),
        model.priors,
        fit.profile(terms=fit.fixef.index[1]),
        blm.fit_by("y ~ 1", armed(), by="arm"),
    ]
    for one in shown:
        for text in (repr(one), str(one), one._repr_html_() if hasattr(one, "_repr_html_") else ""):
            assert all(letter.isprintable() or letter == "\n" for letter in text), type(one)


@pytest.mark.parametrize("stream", [None, "closed", "ascii"])
def test_a_bar_needs_no_terminal(stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    there = None if stream is None else io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    if there is not None and stream == "closed":
        there.close()
    monkeypatch.setattr(sys, "stderr", there)
    assert bar_shown(None) is False
    model = blm.LMM("y ~ x + (1 | g)", visits())
    assert len(model.fit().bootstrap(3, seed=1, progress=True).frame) == 3


PRINTED = """
import sys, warnings
warnings.simplefilter("ignore")
import bayeslmm as blm
data = blm.load_dataset("sleepstudy")
model = blm.LMM("Reaction ~ Days + (Days | Subject)", data, priors=blm.Priors(alpha="normal"))
fit, post = model.fit(), model.sample(100, 2, seed=1)
shown = [model, fit, post, fit.summary(), post.summary(), post.sensitivity(), fit.emmeans("Days"), fit.anova(), blm.compare(fit, post)]
shown += [fit.confint(), fit.bootstrap(3, seed=1), post.hypothesis("Days > 0"), fit.power("Days", nsim=3, seed=1), post.checks, fit.checks]
for encoding in ("ascii", "latin-1"):
    sys.stdout.reconfigure(encoding=encoding)
    for one in shown:
        print(one)
"""


def test_everything_prints_without_unicode() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", PRINTED], capture_output=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode("ascii", "replace")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    from bayeslmm.cli.demo import read_trial

    os.mkfifo(tmp_path / "pipe")
    refused(lambda: read_trial(tmp_path / "pipe"), StoreError, "no regular file")
    refused(lambda: read_trial(Path("/dev/zero")), StoreError, "no regular file")


def test_every_text_file_says_its_encoding() -> None:
    """Windows has another default: `open`, `read_text` and `write_text` of text name theirs."""
    for path in Path(blm.__file__).parent.rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            own = not isinstance(node.func, ast.Attribute) or name != "open"
            if own and name in ("open", "fdopen", "read_text", "write_text") and "pathlib" not in name:
                told = {keyword.arg for keyword in node.keywords}
                words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                ours = name in ("read_text", "write_text") and isinstance(node.func, ast.Name)
                assert ours or "encoding" in told or any("b" in str(word) for word in words), f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", ["\ud800", "a\x00b", ""], ids=ascii)
def test_what_no_file_system_holds_is_no_path(path: str) -> None:
    fit = blm.LMM("y ~ x + (1 | g)", visits()).fit()
    for asked in (lambda: blm.load(path), lambda: blm.read_model(path), lambda: fit.save(path), lambda: fit.model.write(path)):
        refused(asked, StoreError, "names no file")
