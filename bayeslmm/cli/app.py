"""The command line: the demo, the model of a spec file, the published models, the benchmark.

Exit codes: 0 all well, 1 a check or a figure failed, 2 the input cannot be used, 130 interrupted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, ConvergenceError, SamplingError, SpecificationError, printable_text

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

HELP_TEXT = "Linear mixed models: REML, ML and the posterior of the same model."
FIRST_STEPS = """First steps:

\b
  bayeslmm demo                            the trial example, into demo/:
                                           tables, a figure, a report
  bayeslmm demo --data trial.csv --out my  the same on data of your own
  bayeslmm fit model.toml --report a.html  a model from a file; what is in
                                           it: bayeslmm fit --help

In Python:

\b
  import bayeslmm as blm
  fit = blm.LMM("y ~ x + (x | g)", data).fit()
  print(fit.summary())

Ends with 0; 1 when a check or a figure fails; 2 on input that cannot be used; 130 when interrupted."""
SPEC_EXAMPLE = """A spec file is TOML; the least there is:

\b
  [data]
  file = "trial.csv"
  [model]
  formula = "BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)"

[model] also takes residual, variance, weights and the other arguments of LMM, [priors] those of Priors. In Python,
model.write("model.toml") writes such a file and blm.read_model("model.toml") reads it."""

app = typer.Typer(help=HELP_TEXT, epilog=FIRST_STEPS, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
shown_path = Console()
aside = Console(stderr=True)


class MethodOption(StrEnum):
    """How a model is estimated."""

    REML = "REML"
    ML = "ML"
    MAP = "MAP"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bayeslmm {blm.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    """What stands before a command."""


@app.command(short_help="The trial example: tables, a figure, a report.")
def demo(
    data: Annotated[Path | None, typer.Option(help="A CSV with the columns of the trial; the bundled trial without it.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("demo"),
) -> None:
    """Fit the trial example and write estimates, predictions, a figure and a report."""
    with outcome(), progress("the trial example") as step:
        from bayeslmm.cli.demo import run_demo

        done = run_demo(data, out, step)
    shown_path.print(Text(str(done.fit.summary())))
    shown_path.print(frame_table("Fixed effects, 95% intervals", done.estimates[["term", "estimate", "conf_low", "conf_high", "p_value"]]))
    for path in done.files:
        shown_path.print(Text(f"wrote {path}"))
    leave_by(done.fit)


@app.command(epilog=SPEC_EXAMPLE, short_help="One model of a spec file.")
def fit(
    model: Annotated[str, typer.Argument(help="A spec file, or the name of a published model.")],
    method: Annotated[MethodOption, typer.Option(help="REML, ML or MAP.")] = MethodOption.REML,
    sample: Annotated[bool, typer.Option("--sample", help="The posterior of the same model too.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the posterior draws.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report as one HTML file.")] = None,
) -> None:
    """Fit the model of a spec file and print its summary."""
    with outcome(), progress(Path(model).name) as step:
        from bayeslmm.cli.verify import gallery_file
        from bayeslmm.estimate.estimate import require_finished

        step("reading")
        specified = blm.read_model(gallery_file(model))
        step(f"fitting by {method}")
        fit, posterior = require_finished(specified.fit(method.value)), None
        if sample:
            step("drawing from the posterior")
            posterior = specified.sample(seed=seed)
        if report is not None:
            step("report")
            fit.report(report, posterior=posterior, seed=seed)
    shown_path.print(Text(str(fit.summary())))
    if posterior is not None:
        shown_path.print(Text(str(posterior.summary())))
    if report is not None:
        shown_path.print(Text(f"wrote {report}"))
    leave_by(fit, *(() if posterior is None else (posterior,)))


@app.command(short_help="Every published figure beside ours.")
def verify(
    models: Annotated[
        str | None, typer.Argument(help="A folder of spec files, one of them, or a published model; all of these by default.")
    ] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Only the figures that disagree.")] = False,
) -> None:
    """Set every published figure beside ours."""
    with outcome():
        from bayeslmm.cli.verify import ComparedSource, compare_with_published, gallery, gallery_file, spec_files

        files = spec_files(gallery() if models is None else gallery_file(models))
        compared: list[ComparedSource] = []
        with bar("verifying", len(files)) as advance:
            for path in files:
                compared += compare_with_published(path)
                advance(path.stem)
    if not (brief and all(one.agrees for one in compared)):
        shown_path.print(figures_table(compared, brief=brief))
    count = sum(len(one.figures) for one in compared)
    wrong = len([figure for one in compared for figure in one.figures if not figure.agrees])
    broken = [one for one in compared if one.error is not None]
    for one in broken:
        aside.print(Text(f"{one.model}: {one.error}", style="red"))
    shown_path.print(
        Text(f"{len(files)} models, {count} figures, {count - wrong} agree, {wrong} disagree, {len(broken)} could not be computed")
    )
    if wrong or broken:
        raise typer.Exit(FAILED)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, short_help="Whole fits against the other libraries."
)
def bench(context: typer.Context) -> None:
    """Time whole fits against the other libraries on this machine (options as of benchmarks/run.py)."""
    with outcome():
        if not Path("benchmarks/run.py").is_file():
            raise SpecificationError("there is no benchmark here", str(Path.cwd()), "run it in a clone of the repository")
        arguments = context.args or ["--out", "benchmarks/RESULTS.md"]
        status = subprocess.run([sys.executable, "-m", "benchmarks.run", *arguments], check=False).returncode  # noqa: S603
    if status:
        raise typer.Exit(FAILED)


@contextmanager
def outcome() -> Iterator[None]:
    """What goes wrong becomes a message and an exit code; a warning a line aside."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", BayesLMMWarning)
            yield
    except BayesLMMError as error:
        complain(error)
    except KeyboardInterrupt:
        aside.print("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    for warning in caught:
        if issubclass(warning.category, BayesLMMWarning):
            aside.print(Text(f"warning: {printable_text(str(warning.message))}", style="yellow"))


def complain(error: BayesLMMError) -> NoReturn:
    """Say what, where and the way out; leave with the code of the kind."""
    aside.print(Text(printable_text(str(error)), style="red"))
    raise typer.Exit(FAILED if isinstance(error, ConvergenceError | SamplingError) else BAD_INPUT) from None


@contextmanager
def progress(title: str) -> Iterator[Any]:
    """A spinner that names the step under way, on a terminal; nothing elsewhere."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=aside, transient=True, disable=not aside.is_terminal) as display:
        task = display.add_task(title, total=None)
        yield lambda step: display.update(task, description=f"{title}: {step}")


@contextmanager
def bar(title: str, total: int) -> Iterator[Any]:
    """A bar over files, on a terminal; nothing elsewhere."""
    with Progress(console=aside, transient=True, disable=not aside.is_terminal) as display:
        task = display.add_task(title, total=total)
        yield lambda name: display.update(task, advance=1, description=f"{title} {name}")


def frame_table(title: str, frame: Any) -> Table:
    """A frame as a table of the terminal."""
    from bayeslmm.results.render import format_p

    def cell(name: str, value: Any) -> str:
        if not isinstance(value, float):
            return printable_text(str(value))
        return format_p(value) if name == "p_value" else f"{value:.4g}"

    table = Table(title=title, title_justify="left")
    for name in frame.columns:
        table.add_column(str(name), justify="right" if frame[name].dtype.kind == "f" else "left")
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(Text(cell(name, value)) for name, value in zip(frame.columns, row, strict=True)))
    return table


def figures_table(compared: list[Any], *, brief: bool) -> Table:
    """Figure, ours, published, agreement."""
    table = Table(title="published figures against ours", title_justify="left")
    for name, side in (
        ("model", "left"),
        ("method", "left"),
        ("figure", "left"),
        ("ours", "right"),
        ("published", "right"),
        ("agreement", "left"),
    ):
        table.add_column(name, justify="right" if side == "right" else "left")
    for one in compared:
        for figure in one.figures:
            if brief and figure.agrees:
                continue
            verdict = Text("agrees", style="green") if figure.agrees else Text("disagrees", style="bold red")
            table.add_row(one.model, one.method, Text(figure.name), f"{figure.ours:.8g}", Text(figure.published), verdict)
    return table


def leave_by(*results: Any) -> None:
    """Leave with 1 where a check failed, naming it."""
    failed = [check for result in results for check in result.checks.values() if check.verdict == "failed"]
    for check in failed:
        aside.print(Text(f"check failed: {check.name}; {printable_text(check.remedy)}", style="red"))
    if failed:
        raise typer.Exit(FAILED)


def main() -> None:
    """The entry point of the command line. Output that cannot be written, as to a full disk, ends it with 1 and a line on stderr."""
    try:
        app()
    except OSError as error:
        if error.filename is not None:  # of a file, and not of the output
            raise
        with open(os.devnull, "w", encoding="utf-8") as nowhere:  # what is left in the buffer would fail once more at the end
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        aside.print(f"the output cannot be written: {(error.strerror or type(error).__name__).lower()}")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
