"""Published values of spec files compared with ours, to the digits printed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, SpecificationError
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.specification.spec_file import Reference
from bayeslmm.specification.toml import read_references

KeyPath = tuple[str, ...]

ATTRIBUTES = ("criterion", "loglik", "aic", "aicc", "bic", "sigma", "nobs", "df_model")
TABLE_COLUMNS = {
    "fixef": "estimate",
    "std_error": "std_error",
    "df": "df",
    "statistic": "statistic",
    "p_value": "p_value",
    "conf_low": "conf_low",
    "conf_high": "conf_high",
}


@dataclass(frozen=True, slots=True)
class PublishedValue:
    """One number of a publication and ours.

    path : where it stands in the spec file: ("sd", "Subject", "Days")
    published : as it was printed, "24.740" or "<.0001"
    """

    path: KeyPath
    published: str
    ours: float
    units: float = 1.0

    @property
    def name(self) -> str:
        """The path as one reads it: `sd.Subject.Days`."""
        return ".".join(self.path)

    @property
    def agrees(self) -> bool:
        """Whether ours is within `units` units of the last printed digit, or below the printed bound."""
        return agrees(self.published, self.ours, self.units)


def agrees(published: str, ours: float, units: float = 1.0) -> bool:
    """Whether a number agrees with one as it was printed.

    >>> agrees("24.740", 24.7406), agrees("24.740", 24.742), agrees("<.0001", 3e-6), agrees("3.32E+03", 3318.0)
    (True, False, True, True)
    """
    text = published.strip()
    if text.startswith("<"):
        return ours < float(text[1:])
    if not math.isfinite(ours):
        return False
    unit = last_digit(text)
    # half a millionth of a unit for the binary representation of a decimal number
    return abs(float(text) - ours) <= unit * (units + 5e-7)


def last_digit(text: str) -> float:
    """The value of one unit of the last printed digit.

    >>> last_digit("24.740"), last_digit("180"), last_digit("3.32E+03")
    (0.001, 1.0, 10.0)
    """
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return float(f"1e{int(exponent or 0) - decimals}")


@dataclass(slots=True)
class FitReader:
    """Reads figures off a fit; each table is asked for once."""

    fit: Any
    model: Any
    source: Reference
    _tables: dict[str, Any] = field(default_factory=dict)

    def value(self, path: KeyPath) -> float:
        """Our number for a figure; an error that names the path where the fit has none of that name."""
        read = READERS.get(path[0])
        if read is None:
            raise SpecificationError(f"there is no figure called {path[0]!r}", ".".join(path), "use one of " + ", ".join(sorted(READERS)))
        try:
            return float(read(self, path[1:]))
        except (KeyError, IndexError, StopIteration) as error:
            raise SpecificationError(f"the fit has no figure {'.'.join(path)!r}", f"missing: {error}", "name it as the fit does") from error

    def table(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._tables:
            self._tables[name] = make()
        return self._tables[name]


def _attribute(name: str) -> Callable[[FitReader, KeyPath], Any]:
    # a closed list of names, spelled out: no attribute is looked up by a text that a file brings
    getters: dict[str, Callable[[Any], Any]] = {
        "criterion": lambda fit: fit.criterion,
        "loglik": lambda fit: fit.loglik,
        "aic": lambda fit: fit.aic,
        "aicc": lambda fit: fit.aicc,
        "bic": lambda fit: fit.bic,
        "sigma": lambda fit: fit.sigma,
        "nobs": lambda fit: fit.nobs,
        "df_model": lambda fit: fit.df_model,
    }
    return lambda reader, _: getters[name](reader.fit)


def _fixed_value(name: str, column: str) -> Callable[[FitReader, KeyPath], Any]:
    def read(reader: FitReader, path: KeyPath) -> Any:
        if name in ("fixef", "std_error") and reader.source.vcov is None and reader.source.df is None:
            # these two need no degrees of freedom
            coefficients = reader.fit.fixef.index
            position = list(coefficients).index(path[0]) if path[0] in coefficients else _raise_missing(path[0])
            return reader.fit.fixef.iloc[position] if name == "fixef" else reader.fit.vcov.to_numpy()[position, position] ** 0.5
        options = reader.source.inference_options()
        if name in ("fixef", "std_error", "statistic"):
            options.setdefault("df", "asymptotic")
        interval = name.startswith("conf")
        table = reader.table(
            "tidy_" + ("interval" if interval else str(options)),
            lambda: reader.fit.tidy("fixed", conf_int=interval, conf_level=reader.source.conf_level, **options),
        )
        return _row(table, term=path[0])[column]

    return read


def _raise_missing(name: str) -> int:
    raise KeyError(name)


def _row(table: Any, **where: str) -> Any:
    """The one row of a frame whose columns hold these texts."""
    chosen = table
    for column, text in where.items():
        chosen = chosen[chosen[column].astype(str) == text]
    if len(chosen) == 0:
        raise KeyError(", ".join(where.values()))
    return chosen.iloc[0]


def _pair(text: str) -> tuple[str, str]:
    first, found, second = text.partition(", ")
    if not found:
        raise KeyError(f"{text}: two names separated by a comma and a space")
    return first, second


def _varcorr(column: str, *, of_pair: bool) -> Callable[[FitReader, KeyPath], Any]:
    def read(reader: FitReader, path: KeyPath) -> Any:
        table = reader.fit.varcorr.fillna({"term1": "", "term2": ""})
        group, term = path
        if group == "Residual":
            return _row(table, group="Residual")[column]
        if not of_pair:
            return _row(table, group=group, term1=term, term2="")[column]
        first, second = _pair(term)
        try:
            return _row(table, group=group, term1=first, term2=second)[column]
        except KeyError:
            return _row(table, group=group, term1=second, term2=first)[column]

    return read


def _vcov(reader: FitReader, path: KeyPath) -> Any:
    first, second = _pair(path[0])
    return reader.fit.vcov.loc[first, second]


def _theta(reader: FitReader, path: KeyPath) -> Any:
    return reader.fit.theta[int(path[0])]


def _groups(reader: FitReader, path: KeyPath) -> Any:
    return reader.model.groups[path[0]]


def _residual_cov(reader: FitReader, path: KeyPath) -> Any:
    *level, visits = path
    matrix = reader.fit.R[level[0]] if level else reader.fit.R
    first, second = _pair(visits)
    return matrix.set_axis(matrix.index.astype(str), axis=0).set_axis(matrix.columns.astype(str), axis=1).loc[first, second]


def _residual_params(reader: FitReader, path: KeyPath) -> Any:
    return reader.fit.residual_params[path[0]]


def _anova(reader: FitReader, path: KeyPath) -> Any:
    options = reader.source.inference_options()
    options.pop("vcov", None)
    table = reader.table("anova", lambda: reader.fit.anova(type=reader.source.anova_type, **options))
    return _row(table, term=path[0])[path[1]]


def _means(reader: FitReader) -> Any:
    source = reader.source
    options = source.inference_options()
    return reader.table(
        "emmeans", lambda: reader.fit.emmeans(list(source.emmeans), by=list(source.by) or None, at=dict(source.at) or None, **options)
    )


def _emmeans(reader: FitReader, path: KeyPath) -> Any:
    frame = _means(reader).frame
    factors = [*reader.source.emmeans, *(name for name in reader.source.by if name not in reader.source.emmeans)]
    labels = frame[factors].astype(str).agg(" ".join, axis=1)
    return frame.loc[labels == path[0]].iloc[0][path[1]]


def _pairs(reader: FitReader, path: KeyPath) -> Any:
    frame = reader.table("pairs", lambda: _means(reader).pairs(adjust="none"))
    labels = frame[["contrast", *reader.source.by]].astype(str).agg(", ".join, axis=1)
    return frame.loc[labels == path[0]].iloc[0][path[1]]


def _contrast(reader: FitReader, path: KeyPath) -> Any:
    table = reader.table("contrast " + path[0], lambda: reader.fit.contrast(path[0], **reader.source.inference_options()))
    return table.frame.iloc[0][path[1]]


def _ranef(reader: FitReader, path: KeyPath) -> Any:
    frame = reader.fit.ranef()[path[0]]
    return frame.set_axis(frame.index.astype(str), axis=0).loc[path[1], path[2]]


def _confint(reader: FitReader, path: KeyPath) -> Any:
    source = reader.source
    table = reader.table("confint", lambda: reader.fit.confint(method=source.conf_method, level=source.conf_level))
    return _row(table, term=path[0])[path[1]]


def _r2(reader: FitReader, path: KeyPath) -> Any:
    return reader.table("r2", reader.fit.r2)[path[0]].iloc[0]


def _icc(reader: FitReader, path: KeyPath) -> Any:
    return reader.table("icc", reader.fit.icc)[path[0]].iloc[0]


READERS: dict[str, Callable[[FitReader, KeyPath], Any]] = {
    **{name: _attribute(name) for name in ATTRIBUTES},
    **{name: _fixed_value(name, column) for name, column in TABLE_COLUMNS.items()},
    "groups": _groups,
    "vcov": _vcov,
    "sd": _varcorr("sd", of_pair=False),
    "variance": _varcorr("variance", of_pair=False),
    "corr": _varcorr("corr", of_pair=True),
    "cov": _varcorr("variance", of_pair=True),
    "theta": _theta,
    "R": _residual_cov,
    "residual_params": _residual_params,
    "anova": _anova,
    "emmeans": _emmeans,
    "pairs": _pairs,
    "contrast": _contrast,
    "ranef": _ranef,
    "confint": _confint,
    "r2": _r2,
    "icc": _icc,
}


@dataclass(frozen=True, slots=True)
class ComparedSource:
    """The figures of one source in one spec file beside ours; or why there are none."""

    model: str
    source: str
    method: str
    figures: tuple[PublishedValue, ...]
    seconds: float
    error: BayesLMMError | None = None

    @property
    def agrees(self) -> bool:
        """Whether all figures agree."""
        return self.error is None and all(figure.agrees for figure in self.figures)


def gallery() -> Path:
    """The folder of the published models: in the package where it is installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def gallery_file(name: str) -> Path:
    """The spec file of a published model, by its name; any other name is the path of a file or folder."""
    path = Path(name)
    if path.exists() or path.name != name or path.suffix:
        return path
    known = {file.stem: file for file in gallery().glob("*.toml")}
    if name not in known:
        near = get_close_matches(name, known, 3)
        remedy = f"did you mean {' or '.join(near)}?" if near else "name a TOML file, or a model of `bayeslmm verify`"
        raise SpecificationError("there is no such file, and no published model of that name", name, remedy)
    return known[name]


def spec_files(path: Path) -> list[Path]:
    """The spec files of a folder by name, or the one file named."""
    if path.is_file():
        return [path]
    found = sorted(path.glob("*.toml"))
    if not found:
        raise SpecificationError("there is no spec file here", str(path), "name a TOML file or a folder that has some")
    return found


def compare_with_published(path: Path) -> Iterator[ComparedSource]:
    """Fit a spec file once for each method its figures belong to, and set every figure beside ours."""
    references = read_references(path)
    if not references:
        raise SpecificationError("the file has no published figures", str(path), "add a [[reference]] table")
    model = blm.read_model(path)
    fits: dict[str, Any] = {}
    for reference in references:
        start = time.perf_counter()
        try:
            if reference.method not in fits:
                fits[reference.method] = require_finished(model.fit(reference.method))
            figures = tuple(figures_of(reference, fits[reference.method], model))
            error = None
        except BayesLMMError as failure:
            figures, error = (), failure
        yield ComparedSource(path.stem, reference.source, reference.method, figures, time.perf_counter() - start, error)


def figures_of(reference: Reference, fit: Any, model: Any) -> Iterator[PublishedValue]:
    """Each figure of a source beside ours."""
    reader = FitReader(fit, model, reference)
    for path, published in reference.figures:
        yield PublishedValue(path, published, reader.value(path), reference.units)
