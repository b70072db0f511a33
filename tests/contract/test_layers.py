"""The layers hold: each folder imports only from those below it, and nothing runs text or loads code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.imports import Import, circles, imports_of, layer_of, module_name, tree_of

PACKAGE = Path(__file__).resolve().parents[2] / "bayeslmm"
FILES = sorted(PACKAGE.rglob("*.py"))
BAYESIAN = {"pymc", "arviz", "arviz_base", "arviz_stats", "arviz_plots", "bambi", "nutpie", "pytensor", "xarray"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}


def every_import() -> Iterator[tuple[Path, Import]]:
    for path in FILES:
        for found in imports_of(path, PACKAGE):
            yield path, found


def lies(path: Path, line: int) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{line}"


def test_a_folder_imports_only_from_the_folders_below_it() -> None:
    wrong = []
    for path, found in every_import():
        if found.root != "bayeslmm":
            continue
        here, there = layer_of(module_name(path, PACKAGE)), layer_of(found.module)
        if not (there.height < here.height or there.folder == here.folder):
            wrong.append(f"{lies(path, found.line)}: {here.folder} imports {found.module} ({there.folder})")
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_one_another() -> None:
    """Imports for the type checker, inside functions and by name in a text count; a package may be imported by what lies in it."""
    modules = {module_name(path, PACKAGE) for path in FILES}
    imports: dict[str, set[str]] = {name: set() for name in modules}
    for path, found in every_import():
        here = module_name(path, PACKAGE)
        if found.module in modules and found.module != here:
            imports[here].add(found.module)
    assert circles(imports) == []


def test_nothing_below_bayes_imports_pymc_or_arviz() -> None:
    bayes = layer_of("bayeslmm.bayes").height
    wrong = [
        f"{lies(path, found.line)}: {found.module}"
        for path, found in every_import()
        if found.root in BAYESIAN and not found.typing_only and layer_of(module_name(path, PACKAGE)).height < bayes
    ]
    assert not wrong, "\n".join(wrong)


def test_only_plots_and_the_front_door_import_matplotlib() -> None:
    plots = layer_of("bayeslmm.plots")
    wrong = [
        f"{lies(path, found.line)}: {found.module}"
        for path, found in every_import()
        if found.root == "matplotlib" and not found.typing_only
        for layer in [layer_of(module_name(path, PACKAGE))]
        if layer.height < plots.height or (layer.height == plots.height and layer.folder != "plots")
    ]
    assert not wrong, "\n".join(wrong)


LATE = (
    "bayeslmm.plots",
    "bayeslmm.reports",
    "bayeslmm.bayes.posterior.plots",
    "bayeslmm.bayes.pymc_model",
    "bayeslmm.trials.report",
    "bayeslmm.study_design.figures",
)
"""What loads Matplotlib or PyMC: imported anywhere only by what draws, reports or builds a graph."""

FACADES = {"front", "model", "cli"}
"""Where a method imports what it calls: whoever fits never waits for what draws posteriors."""


def test_imports_inside_functions_are_those_of_facades_and_of_heavy_packages() -> None:
    wrong = [
        f"{lies(path, found.line)}: {found.module}"
        for path, found in every_import()
        if found.inside_function and found.root == "bayeslmm" and not found.typing_only
        if layer_of(module_name(path, PACKAGE)).folder not in FACADES and not found.module.startswith(LATE)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_text_is_ever_run_as_code(path: Path) -> None:
    tree = tree_of(path)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    wrong = [
        lies(path, node.lineno)
        for node in calls
        if (isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS)
        or (isinstance(node.func, ast.Attribute) and node.func.attr in {"eval", "query"} and is_frame_method(node))
        or any(word.arg == "allow_pickle" and not is_false(word.value) for word in node.keywords)
        or any(word.arg == "shell" and not is_false(word.value) for word in node.keywords)
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_attributes_are_not_looked_up_by_a_text(path: Path) -> None:
    """`getattr` with a name that is not a literal is how a formula reaches code."""
    tree = tree_of(path)
    wrong = [
        lies(path, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"getattr", "setattr", "delattr"}
        if len(node.args) > 1 and not isinstance(node.args[1], ast.Constant) and not over_own_fields(tree, node)
    ]
    assert not wrong, wrong


def test_no_format_that_runs_code_on_opening() -> None:
    wrong = [f"{lies(path, found.line)}: {found.module}" for path, found in every_import() if found.root in FORBIDDEN_MODULES]
    assert not wrong, "\n".join(wrong)


def test_importing_the_package_imports_no_numpy() -> None:
    heavy = sorted({"numpy", "pandas", "scipy", "formulaic", "matplotlib", "rich", "typer"} | BAYESIAN)
    code = f"import sys, bayeslmm; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_fit_and_its_tables_load_only_what_they_need() -> None:
    """Each of these takes longer to import than small data take to be fitted, tested and printed."""
    heavy = ["scipy.stats", "scipy.signal", "scipy.optimize", "scipy.interpolate", "matplotlib", "formulaic"]
    code = (
        "import sys, bayeslmm as blm\n"
        "data = {'y': [1, 3, 2, 5, 4, 7, 5, 9, 6], 'x': [0, 1, 2] * 3, 'g': list('aaabbbccc')}\n"
        "fit = blm.LMM('y ~ x + (x | g)', data, check='warn').fit()\n"
        "fit.tidy(conf_int=True), str(fit.summary()), fit.anova(), fit.predict()\n"
        "data = blm.load_dataset('sleepstudy')\n"
        "blm.proc_mixed('proc mixed cl; class Subject; model Reaction = Days / solution cl; random intercept / sub=Subject; run;', data)\n"
        "fit = blm.LMM('Reaction ~ Days + (1 | Subject)', data).fit()\n"
        "fit.power('Days', nsim=5, seed=1), fit.check_inference(5, seed=1)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def is_frame_method(call: ast.Call) -> bool:
    """`frame.eval("...")` and `frame.query("...")` take a text; a method of ours called `eval` would not."""
    return any(isinstance(arg, ast.Constant | ast.JoinedStr) for arg in call.args)


def over_own_fields(tree: ast.Module, call: ast.Call) -> bool:
    """`getattr(value, field.name)` over `dataclasses.fields(value)`, or names of a loop over `vars(owner)`: they are the class's own."""
    name = call.args[1]
    if isinstance(name, ast.Name):
        loops = [node for node in ast.walk(tree) if isinstance(node, ast.For) and call in ast.walk(node)]
        return any(name.id in ast.unparse(loop.target).split(", ")[0] and "vars(owner)" in ast.unparse(loop.iter) for loop in loops)
    return isinstance(name, ast.Attribute) and name.attr == "name" and isinstance(name.value, ast.Name) and "field" in name.value.id
