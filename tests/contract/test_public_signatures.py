"""Public names say what they take and give: every option with its type, no `Any`, no `**options`, an example in every docstring."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

import bayeslmm as blm
from bayeslmm.bayes.calibration import Calibration
from bayeslmm.bayes.posterior.plots import PosteriorPlots
from bayeslmm.bayes.posterior.tables import PosteriorContrast, PosteriorMeans
from bayeslmm.inference.intervals.bootstrap import Bootstrap
from bayeslmm.inference.intervals.profile import Profile
from bayeslmm.inference.means.linear_functions import Contrast
from bayeslmm.inference.means.marginal_means import EMMeans
from bayeslmm.model.fit_plots import FitPlots

CLASSES = (
    blm.LMM,
    blm.Fit,
    blm.Posterior,
    blm.Comparison,
    blm.LMMRegressor,
    FitPlots,
    PosteriorPlots,
    EMMeans,
    Contrast,
    Profile,
    Bootstrap,
    Calibration,
    PosteriorMeans,
    PosteriorContrast,
)
FUNCTIONS = tuple(value for name in blm.__all__ if inspect.isfunction(value := vars(blm).get(name) or blm.__getattr__(name)))
FOREIGN = {"to_marginaleffects"}
"""Verbs that give an object of a package that need not be installed and has no types."""


def verbs(owner: type) -> Iterator[tuple[str, object]]:
    for kind in owner.__mro__:
        if kind.__module__.startswith("bayeslmm"):
            for name, value in vars(kind).items():
                if not name.startswith("_") or name in ("__call__", "__init__"):
                    yield name, value


def callables() -> Iterator[tuple[str, object]]:
    for function in FUNCTIONS:
        yield function.__name__, function
    for owner in CLASSES:
        for name, value in verbs(owner):
            found = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            found = found.fget if isinstance(found, property) else found.func if isinstance(found, cached_property) else found
            if inspect.isfunction(found) and not (name == "__init__" and "__dataclass_fields__" in vars(owner)):
                yield f"{owner.__name__}.{name}", found


CALLABLES = dict(callables())


@pytest.mark.parametrize("name", CALLABLES)
def test_every_option_is_named_and_typed(name: str) -> None:
    signature = inspect.signature(CALLABLES[name])
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    assert not [p.name for p in parameters if p.kind is p.VAR_KEYWORD], "options are hidden"
    assert all(p.annotation is not p.empty for p in parameters)
    assert signature.return_annotation is not signature.empty
    told = [str(p.annotation) for p in parameters] + [str(signature.return_annotation)]
    assert name.rpartition(".")[2] in FOREIGN or not [text for text in told if re.search(r"\bAny\b", text)], told


@pytest.mark.parametrize("name", [name for name in CALLABLES if not name.endswith(("__init__", "__call__"))])
def test_every_public_name_has_a_docstring(name: str) -> None:
    assert (inspect.getdoc(CALLABLES[name]) or "").strip()


@pytest.mark.parametrize(
    "name",
    [f.__name__ for f in FUNCTIONS]
    + [f"{c.__name__}.{n}" for c in CLASSES[:4] for n, v in vars(c).items() if inspect.isfunction(v) and not n.startswith("_")],
)
def test_every_public_verb_has_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(CALLABLES[name]) or "")


def test_the_package_lists_its_public_names_alone() -> None:
    assert dir(blm) == sorted([*blm.__all__, "__version__"])
    assert (Path(inspect.getfile(blm)).parent / "py.typed").is_file()


SCRIPT = """
import pandas as pd
import bayeslmm as blm

data = pd.DataFrame({"y": [1.0, 2.0], "x": [0.0, 1.0]})
model = blm.LMM("y ~ x", data)
reveal_type(model.fit())
reveal_type(model.sample())
reveal_type(model.fit().emmeans("x"))
reveal_type(model.fit().profile().confint())
model.fitt("REML")
model.fit("REMLL")
model.fit().tidy(conf_method="walt")
model.fit().emmeans("x", wights="equal")
"""


@pytest.mark.slow
def test_a_type_checker_knows_the_package(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(script)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("script.py:") and "defined in" not in line]
    told = {int(line.split(":")[1]): line for line in lines}
    assert 'Revealed type is "bayeslmm.model.fit.Fit"' in told[7]
    assert 'Revealed type is "bayeslmm.bayes.posterior.posterior.Posterior"' in told[8]
    assert 'Revealed type is "bayeslmm.inference.means.marginal_means.EMMeans"' in told[9]
    assert 'Revealed type is "pandas' in told[10]
    assert '"LMM" has no attribute "fitt"' in told[11]
    assert "Argument 1" in told[12]
    assert 'Argument "conf_method"' in told[13]
    assert "Unexpected keyword argument" in told[14]
    assert set(told) == set(range(7, 15))


def test_an_editor_completes_a_verb_and_its_options() -> None:
    jedi = pytest.importorskip("jedi")
    project = jedi.Project(str(Path(inspect.getfile(blm)).parents[1]))
    text = 'import bayeslmm as blm\nblm.LMM("y ~ x", {}).fit().em'
    script = jedi.Script(text, path=project.path / "script.py", project=project)
    assert "emmeans" in [found.name for found in script.complete(2, len(text.split("\n")[1]))]
    text = text + "means("
    (signature,) = jedi.Script(text, path=project.path / "script.py", project=project).get_signatures(2, len(text.split("\n")[1]))
    assert [option.name for option in signature.params] == list(inspect.signature(blm.Fit.emmeans).parameters)[1:]
