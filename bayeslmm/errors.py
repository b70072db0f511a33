"""Errors, warnings and checks as data: what went wrong, where, and the way out; packages that may be absent.

Every exception of the package derives from `BayesLMMError`; a warning is a `BayesLMMWarning`. Both carry three texts, so that a
program can show them as well as a person can read them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["failed", "noted", "passed"]
"""What a check found, the worst first."""


def escape_control(text: str) -> str:
    """The text with control characters, which a terminal would obey, shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_text(text: str) -> str:
    """Lines whose control characters are escapes: a name or a level of the data cannot drive a terminal."""
    return "\n".join(map(escape_control, text.split("\n")))


def show_value(value: object) -> str:
    """What was given, as a message shows it: its repr, cut; its type alone where it cannot be printed, as a Series of signalling NaN.

    >>> show_value([1, 2])
    '[1, 2]'
    """
    try:
        return f"{value!r:.60}"
    except Exception:  # whatever the author of its class, or of a value in it, has raised
        return f"a {type(value).__name__} that cannot be printed"


def spell_out(value: object) -> str:
    """The text of a word or label, whatever was given for it."""
    try:
        return str(value)
    except Exception:
        return show_value(value)


def _message(what: str, where: str, remedy: str) -> str:
    """The three texts as lines for a terminal; the attributes hold them as they are."""
    lines = [what]
    if where:
        lines.append(f"  where: {where}")
    if remedy:
        lines.append(f"  remedy: {remedy}")
    return printable_text("\n".join(lines))


class BayesLMMError(Exception):
    """An error that names the thing, the place and the way out.

    what : the fact, in one sentence
    where : rows, columns, a spot of the formula, a key path; may be empty
    remedy : what to type instead; may be empty
    """

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(_message(what, where, remedy))
        self.what, self.where, self.remedy = what, where, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        # one message is made of three texts: what unpickles it, in another process, needs these
        return type(self), (self.what, self.where, self.remedy), self.__dict__


class FormulaError(BayesLMMError):
    """A formula, a covariance wrapper or a program text that cannot be read."""


class FormulaLimitError(FormulaError):
    """A formula beyond the limits of length, depth, number of terms or exponent."""


class DataError(BayesLMMError):
    """Columns or rows that cannot be used."""


class NonFiniteError(DataError):
    """An infinite value in a column of numbers."""


class EmptyDataError(DataError):
    """No row is left."""


class MissingDataError(DataError):
    """Missing values where `missing="raise"` forbids them."""


class DesignError(BayesLMMError):
    """A design that cannot identify its parameters."""


class IdentifiabilityError(DesignError):
    """A covariance parameter about which the data say nothing."""


class RankError(DesignError):
    """More coefficients than rows, or nothing left of a design."""


class SizeError(DesignError):
    """A design that would not fit in memory."""


class SpecificationError(BayesLMMError):
    """A model specification, an option or an argument that is not valid."""


class UnknownArgumentError(SpecificationError, TypeError):
    """A keyword argument that a verb does not have."""


class MissingArgumentError(SpecificationError, TypeError):
    """An argument that a verb cannot do without was not given."""


class ForeignNameError(BayesLMMError, AttributeError):
    """An attribute that is a name of another package."""


class UnknownKeyError(BayesLMMError, TypeError):
    """Brackets behind an object that is no table."""


class UnknownCheckError(BayesLMMError, KeyError):
    """A check that was not made, asked for by name."""

    def __str__(self) -> str:
        return BayesLMMError.__str__(self)


class PriorError(SpecificationError):
    """A prior with a wrong name, a wrong scale, or an improper posterior."""


class InferenceError(BayesLMMError):
    """A test, contrast or interval that does not exist for this fit."""


class PredictionError(BayesLMMError):
    """New data that the fitted model cannot be applied to."""


class ConvergenceError(BayesLMMError):
    """An estimation that did not reach an optimum; `fit` holds the best point found."""

    def __init__(self, what: str, where: str = "", remedy: str = "", fit: Any = None) -> None:
        super().__init__(what, where, remedy)
        self.fit = fit


class SamplingError(BayesLMMError):
    """A sampler that failed; `draws` holds what it had."""

    def __init__(self, what: str, where: str = "", remedy: str = "", draws: Any = None) -> None:
        super().__init__(what, where, remedy)
        self.draws = draws


class StoreError(BayesLMMError):
    """Saving or opening failed."""


class FormatError(StoreError):
    """A file that is not, or no longer, one of ours."""


class MismatchError(StoreError):
    """A file whose content disagrees with its checksum, its version or its own criterion."""


class DependencyError(BayesLMMError):
    """An optional package that is not installed."""


class BayesLMMWarning(UserWarning):
    """A warning with what, where, remedy."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(_message(what, where, remedy))
        self.what, self.where, self.remedy = what, where, remedy


def warn_user(warning: BayesLMMWarning) -> None:
    """Warn at the line of the user's, however many frames of the package lie between; of one thing once in a verb, `saying_once`."""
    warned = _SAID.get()
    if warned is not None:
        if str(warning) in warned:
            return
        warned.add(str(warning))
    warnings.warn(warning, skip_file_prefixes=(_PACKAGE,))


_SAID: ContextVar[set[str] | None] = ContextVar("_SAID", default=None)
"""What the verb at work has warned of."""


@contextmanager
def saying_once() -> Iterator[None]:
    """A verb that asks others: what several of them would warn of is said once."""
    outermost = _SAID.set(set()) if _SAID.get() is None else None
    try:
        yield
    finally:
        if outermost is not None:
            _SAID.reset(outermost)


_PACKAGE = str(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class Check:
    """A verdict about a model, a fit or a sample, as a value.

    verdict is "passed", "noted" (worth knowing) or "failed" (do not trust without a look); value and limit are what was compared.
    """

    name: str
    verdict: Verdict
    value: Any = None
    limit: Any = None
    remedy: str = ""

    @property
    def text(self) -> str:
        """Verdict, what was compared, and what to do: a line."""
        value, limit = (f"{v:.3g}" if isinstance(v, float) else "" if v is None else str(v) for v in (self.value, self.limit))
        compared = f"{value} (limit {limit})" if value and limit else value
        return "  ".join(part for part in (f"{self.verdict:6}", compared, self.remedy) if part)


_FOR_DRAWS = ("arviz", "arviz_stats", "arviz_plots", "arviz_base", "xarray")
_FOR_GRAPHS = ("pymc", "pytensor", "nutpie", "bambi")
OPTIONAL = {**dict.fromkeys(_FOR_DRAWS, "bayes"), **dict.fromkeys(_FOR_GRAPHS, "pymc")}
"""Package that may be absent -> the extra that brings it."""


@contextmanager
def optional_packages() -> Iterator[None]:
    """Imports that may fail for want of an optional package: DependencyError then says what to install."""
    try:
        yield
    except ImportError as error:
        absent = str(error.name or "").partition(".")[0]
        if absent not in OPTIONAL:
            raise
        extra = OPTIONAL[absent]
        more = "" if extra == "bayes" else ", for graphs and method=\"hierarchical\"; sample() alone needs 'bayeslmm[bayes]'"
        raise DependencyError(f"{absent} is not installed", str(error), f"pip install 'bayeslmm[{extra}]'{more}") from error
    except OSError as error:  # PyTensor makes a folder for compiled code as it is imported
        what = f"a package cannot be loaded: {(error.strerror or type(error).__name__).lower()}"
        remedy = "set the environment variable PYTENSOR_FLAGS to base_compiledir=FOLDER, a folder that can be written, before Python starts"
        raise DependencyError(what, str(error.filename or error), remedy) from error


def optional(name: str) -> Any:
    """An optional package. Raises DependencyError with what to install."""
    with optional_packages():
        return import_module(name)
