"""Models side by side as papers print them: fixed and random part, R2, ICC, criterion, notes; as HTML, LaTeX, Word, RTF or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any, get_args
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pandas as pd

from bayeslmm._io import DATED, DOCUMENTS, as_path, document_format, write_atomically
from bayeslmm._types import TableFormat
from bayeslmm._validation import require_level, require_name, require_names, require_one_of
from bayeslmm.bayes.posterior.data import PosteriorData
from bayeslmm.bayes.posterior.tables import icc_draws, r2_draws, tidy_draws
from bayeslmm.errors import BayesLMMError, SpecificationError, escape_control, show_value
from bayeslmm.inference.diagnostics import icc, r2
from bayeslmm.inference.fixed_effects.tests import check_options
from bayeslmm.inference.tidy import tidy_table
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.foreign_names import answers_keywords
from bayeslmm.results.response_scale import transformed_response

if TYPE_CHECKING:
    from pathlib import Path

    from bayeslmm._types import DfMethod, Effects


class TableText(str):
    """A table as text; a notebook shows HTML as the table it is."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return str(self) if self.startswith("<table") else None


@dataclass(frozen=True, slots=True)
class ModelTable:
    """What is printed: `heading` over pairs of columns, `rows` of a label and two cells per model; a row of one cell is a section."""

    heading: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@answers_keywords
def tables(
    *models: Estimates | PosteriorData,
    format: TableFormat | None = None,  # noqa: A002
    labels: Mapping[str, str] | Sequence[str] | None = None,
    path: str | Path | None = None,
    df: DfMethod = "satterthwaite",
    conf_level: float = 0.95,
) -> str | bytes:
    """Fits and posteriors side by side, as a table for a paper.

    Parameters
    ----------
    *models : Fit or Posterior
        What stands side by side.
    format : {"html", "latex", "docx", "rtf", "markdown"}, optional
        Language of the table; by default what `path` ends in, and HTML without it.
    labels : Mapping of str to str or sequence of str, optional
        What terms are called in the table, or headings of the models.
    path : str or Path, optional
        File to write.
    df : str, default "satterthwaite"
        Method of the denominator degrees of freedom.
    conf_level : float, default 0.95
        Level of the intervals.

    Returns
    -------
    str or bytes
        The table: text, or the bytes of a Word document.

    Examples
    --------
    >>> print(blm.tables(fit, format="markdown").splitlines()[0])
    |  | Reaction |  |
    """
    if format is not None:
        require_one_of(format, get_args(TableFormat), "format")
    announced = None if path is None else document_format(path)
    language = format or announced or "html"
    if language not in _WRITERS or announced not in (None, language):
        held = f"and the table is {format}" if format else "which no table is"
        what = f"the ending of {show_value(path)} announces {announced}, {held}"
        endings = ", ".join(f'"{ending}"' for ending, own in DOCUMENTS.items() if own in ((format,) if format else _WRITERS))
        raise SpecificationError(what, "path", f"end it in {endings}")
    if not models:
        raise SpecificationError("there is no model to show", "tables()", "give one fit or posterior, or several")
    for model in models:
        if not isinstance(model, Estimates | PosteriorData):
            remedy = "give what fit() or sample() returned"
            if isinstance(model, Sequence) and not isinstance(model, str):
                remedy = "give the models one by one: tables(*models)"
            if isinstance(model, Mapping):
                remedy = f"give the models one by one, and labels={[str(name) for name in list(model)[:3]]} for their headings"
            raise SpecificationError(f"{type(model).__name__} is no model", "tables()", remedy)
    table = model_table(models, labels, df, require_level(conf_level))
    content = _WRITERS[language](table)
    if path is not None:
        write_atomically(as_path(path), content if isinstance(content, bytes) else content.encode("utf-8"))
    return content if isinstance(content, bytes) else TableText(content)


# -- what is in it -----------------------------------------------------------------------------------------------------------------------


def model_table(models: Sequence[Any], labels: Any, df: DfMethod, level: float) -> ModelTable:
    """The cells, whatever language they are written in."""
    names = dict(labels) if isinstance(labels, Mapping) else {}
    for name in (*names, *names.values()):
        require_name(name, "labels")
    headings = _told_apart([model.design.spec.formula.response for model in models])
    if labels is not None and not isinstance(labels, Mapping):
        headings = require_names(labels, "labels")
        if isinstance(labels, str) or len(headings) != len(models):
            raise SpecificationError(f"{len(headings)} labels for {len(models)} models", "labels", "give one heading for each model")
    fixed = [_coefficient_cells(model, df, level) for model in models]
    random = [_random(model) for model in models]
    facts = [_facts(model) for model in models]
    rows: list[tuple[str, ...]] = [("Fixed effects",)]
    rows += _align_rows(fixed, names)
    if any(random):
        rows += [("Random effects and errors",), *_align_rows(random, names)]
    rows += [("Model",), *_align_rows(facts, {})]
    kinds = [isinstance(model, PosteriorData) for model in models]
    interval = f"{level:.0%}".replace("%", "% interval") if any(kinds) else f"{level:.0%} CI"
    columns = tuple(part for bayes in kinds for part in (f"Estimate [{interval}]", "P(> 0)" if bayes else "p"))
    return ModelTable(tuple(headings), columns, tuple(rows), tuple(_notes(models, df)))


def _told_apart(headings: list[str]) -> list[str]:
    """Headings that stand more than once, with the number of their column."""
    return [f"{text} ({place})" if headings.count(text) > 1 else text for place, text in enumerate(headings, 1)]


def _align_rows(parts: Sequence[Mapping[str, tuple[str, str]]], names: Mapping[str, str]) -> list[tuple[str, ...]]:
    """One row for each label of any model, in the order in which they come."""
    labels = list(dict.fromkeys(label for part in parts for label in part))
    return [(names.get(label, label), *(cell for part in parts for cell in part.get(label, ("", "")))) for label in labels]


def _coefficient_cells(model: Any, df: DfMethod, level: float) -> dict[str, tuple[str, str]]:
    if isinstance(model, PosteriorData):
        frame = tidy_draws(model, "fixed", level)
        above = dict(zip(model.coef_names, (model.draws.alpha > 0).mean(axis=0), strict=True))
        ends = [f"{above[term]:.3f}" if np.isfinite(e) else "" for term, e in zip(frame["term"], frame["estimate"], strict=True)]
    else:
        frame = _tidy(model, "fixed", level, df)
        ends = [_p(value) for value in frame["p_value"]]
    cells = [_interval(*row) for row in frame[["estimate", "conf_low", "conf_high"]].itertuples(index=False)]
    return dict(zip(map(str, frame["term"]), zip(cells, ends, strict=True), strict=True))


def _tidy(model: Estimates, effects: Effects, level: float, df: DfMethod) -> pd.DataFrame:
    intervals = effects == "fixed"
    options: dict[str, Any] = {"df": df, "vcov": None, "information": "expected", "conf_method": "wald"}
    return tidy_table(model, effects, conf_int=intervals, conf_level=level, **options)


def _random(model: Any) -> dict[str, tuple[str, str]]:
    frame = tidy_draws(model, "ran_pars", None) if isinstance(model, PosteriorData) else _tidy(model, "ran_pars", 0.95, "satterthwaite")
    found = {}
    for group, term, estimate in frame[["group", "term", "estimate"]].itertuples(index=False):
        kind, _, rest = str(term).partition("__")
        name = {"sd": "SD", "cor": "correlation"}.get(kind, kind)
        label = f"{name} {rest}".strip() if rest and rest != "Observation" else name
        found[f"{label} ({group})" if isinstance(group, str) else label] = (_number(estimate), "")
    return found


def _facts(model: Any) -> dict[str, tuple[str, str]]:
    found: dict[str, Any] = {"Observations": f"{model.design.nobs:,}"}
    found |= {f"Levels of {name}": f"{count:,}" for name, count in model.design.groups.items()}
    try:
        if isinstance(model, PosteriorData):
            shares, within = r2_draws(model, 0.95)["estimate"], icc_draws(model, 0.95)["estimate"]
            marginal, conditional, adjusted = shares["marginal"], shares["conditional"], within["adjusted"]
        else:
            marginal, conditional = (r2(model)[name].item() for name in ("marginal", "conditional"))
            adjusted = icc(model)["adjusted"].item()
        found |= {"R2 marginal / conditional": f"{marginal:.3f} / {conditional:.3f}"}
        if model.design.groups and np.isfinite(adjusted):
            found["ICC"] = f"{adjusted:.3f}"
    except BayesLMMError:
        pass  # a model whose variances have no mean has no share of them
    if isinstance(model, PosteriorData):
        found["Draws"] = f"{model.draws.size:,}"
    else:
        found |= {
            "AIC": f"{model.aic:.1f}",
            f"-2 log {'restricted ' if model.method == 'REML' else ''}likelihood": f"{model.criterion:.1f}",
        }
    return {name: (str(value), "") for name, value in found.items()}


def _notes(models: Sequence[Any], df: DfMethod) -> list[str]:
    notes = []
    methods = dict.fromkeys(model.method for model in models if not isinstance(model, PosteriorData))
    if methods:
        notes.append(f"Estimated by {', '.join(methods)}; degrees of freedom: {check_options(df).df}.")
    if any(isinstance(model, PosteriorData) for model in models):
        notes.append("Posterior means with central intervals; P(> 0) is the posterior probability of a coefficient above 0.")
    scales = dict.fromkeys(transformed_response(model.design) for model in models)
    notes += [f"Estimates are on the scale of {name}." for name in scales if name is not None]
    dropped = sum(model.design.n_dropped for model in models)
    return [*notes, "Rows with missing values were left out."] if dropped else notes


def _number(value: float) -> str:
    if value is None or pd.isna(value):
        return ""
    size = abs(value)
    if size and (size >= 1e6 or size < 1e-3):
        return f"{value:.2e}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def _interval(estimate: float, low: float, high: float) -> str:
    if pd.isna(estimate):
        return "not estimable"
    return f"{_number(estimate)} [{_number(low)}, {_number(high)}]" if np.isfinite(low) else _number(estimate)


def _p(value: float) -> str:
    if pd.isna(value):
        return ""
    return "<0.001" if value < 1e-3 else f"{value:.3f}"


# -- how it is written -------------------------------------------------------------------------------------------------------------------


def _width(table: ModelTable) -> int:
    return 1 + 2 * len(table.heading)


def _html(table: ModelTable) -> str:
    def safe(text: str) -> str:
        return escape(escape_control(text))

    side, rule = "padding:.2em .8em;text-align:right;white-space:nowrap", "border-bottom:1px solid currentColor;"
    left = "padding:.2em .8em;text-align:left"
    head = "".join(f'<th colspan="2" style="{rule}padding:.2em .8em;text-align:center">{safe(name)}</th>' for name in table.heading)
    names = "".join(f'<th style="{rule}{side}">{safe(name)}</th>' for name in table.columns)
    body = []
    for row in table.rows:
        if len(row) == 1:
            body.append(f'<tr><th colspan="{_width(table)}" style="{left};padding-top:.7em">{safe(row[0])}</th></tr>')
        else:
            cells = "".join(f'<td style="{side}">{safe(cell)}</td>' for cell in row[1:])
            body.append(f'<tr><td style="{left}">{safe(row[0])}</td>{cells}</tr>')
    notes = "".join(f"<div>{safe(note)}</div>" for note in table.notes)
    foot = f"border-top:1px solid currentColor;{left};font-size:.85em"
    return (
        '<table style="border-collapse:collapse;font-family:system-ui,sans-serif;font-variant-numeric:tabular-nums">'
        f'<thead><tr><th></th>{head}</tr><tr><th style="{rule}"></th>{names}</tr></thead><tbody>{"".join(body)}</tbody>'
        f'<tfoot><tr><td colspan="{_width(table)}" style="{foot}">{notes}</td></tr></tfoot>'
        "</table>"
    )


_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",
        "]": "{]}",
        '"': r"\textquotedbl{}",
    }
)


def _latex(table: ModelTable) -> str:
    def safe(text: str) -> str:
        return escape_control(text).translate(_TEX)

    lines = [r"\begin{tabular}{l" + "rr" * len(table.heading) + "}", r"\hline"]
    lines.append(" & ".join(["", *(rf"\multicolumn{{2}}{{c}}{{{safe(name)}}}" for name in table.heading)]) + r" \\")
    lines += [" & ".join(["", *map(safe, table.columns)]) + r" \\", r"\hline"]
    for row in table.rows:
        if len(row) == 1:
            lines.append(rf"\multicolumn{{{_width(table)}}}{{l}}{{\textbf{{{safe(row[0])}}}}} \\")
        else:
            lines.append(" & ".join(map(safe, row)) + r" \\")
    lines.append(r"\hline")
    lines += [rf"\multicolumn{{{_width(table)}}}{{l}}{{\footnotesize {safe(note)}}} \\" for note in table.notes]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _markdown(table: ModelTable) -> str:
    def safe(text: str) -> str:
        return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in escape_control(text))

    heading = [cell for name in table.heading for cell in (safe(name), "")]
    lines = ["| " + " | ".join(["", *heading]) + " |", "|---|" + "--:|--:|" * len(table.heading)]
    lines.append("| " + " | ".join(["", *map(safe, table.columns)]) + " |")
    for row in table.rows:
        cells = [f"**{safe(row[0])}**", *[""] * (_width(table) - 1)] if len(row) == 1 else list(map(safe, row))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"*{safe(note)}*  " for note in table.notes), ""])


def _rtf(table: ModelTable) -> str:
    def safe(text: str) -> str:
        out = []
        for c in escape_control(text):
            if c in "\\{}":
                out.append("\\" + c)
            elif ord(c) < 128:
                out.append(c)
            else:
                units = c.encode("utf-16-le")
                words = [int.from_bytes(units[i : i + 2], "little", signed=True) for i in range(0, len(units), 2)]
                out += [f"\\u{word}?" for word in words]
        return "".join(out)

    ends = [3200]
    for _ in table.heading:
        ends += [ends[-1] + 2900, ends[-1] + 3800]

    def line(cells: Sequence[str], stops: Sequence[int], bold: bool = False, border: str = "") -> str:
        defined = "".join(f"{border}\\cellx{stop}" for stop in stops)
        shown = "".join(f"\\intbl{'\\ql' if i == 0 else '\\qr'}{'\\b' if bold else ''} {safe(c)}\\b0\\cell" for i, c in enumerate(cells))
        return f"\\trowd\\trgaph80{defined}{shown}\\row"

    lines = [line(["", *table.heading], [ends[0], *ends[2::2]], bold=True)]
    lines.append(line(["", *table.columns], ends, border="\\clbrdrb\\brdrs\\brdrw10"))
    lines += [line(row, [ends[-1]] if len(row) == 1 else ends, bold=len(row) == 1) for row in table.rows]
    lines += [f"\\pard\\fs18 {safe(note)}\\par" for note in table.notes]
    return "{\\rtf1\\ansi\\uc1\\deff0{\\fonttbl{\\f0 Calibri;}}\\fs20\n" + "\n".join(lines) + "\n}\n"


_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_HEADER = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'


def _docx(table: ModelTable) -> bytes:
    def paragraph(text: str, side: str = "left", bold: bool = False, size: int = 20) -> str:
        style = f'<w:rPr>{"<w:b/>" if bold else ""}<w:sz w:val="{size}"/></w:rPr>'
        run = f'<w:r>{style}<w:t xml:space="preserve">{escape(escape_control(text))}</w:t></w:r>'
        return f'<w:p><w:pPr><w:spacing w:after="0"/><w:jc w:val="{side}"/></w:pPr>{run}</w:p>'

    def cell(text: str, side: str, span: int = 1, bold: bool = False, border: str = "") -> str:
        wide = f'<w:gridSpan w:val="{span}"/>' if span > 1 else ""
        edge = f'<w:tcBorders><w:{border} w:val="single" w:sz="6" w:color="auto"/></w:tcBorders>' if border else ""
        return f"<w:tc><w:tcPr>{wide}{edge}</w:tcPr>{paragraph(text, side, bold)}</w:tc>"

    width = _width(table)
    grid = '<w:gridCol w:w="3200"/>' + '<w:gridCol w:w="2900"/><w:gridCol w:w="900"/>' * len(table.heading)
    lines = [cell("", "left") + "".join(cell(name, "center", 2, bold=True) for name in table.heading)]
    lines.append(cell("", "left", border="bottom") + "".join(cell(name, "right", border="bottom") for name in table.columns))
    for row in table.rows:
        if len(row) == 1:
            lines.append(cell(row[0], "left", width, bold=True))
        else:
            lines.append(cell(row[0], "left") + "".join(cell(text, "right") for text in row[1:]))
    body = "".join(f"<w:tr>{line}</w:tr>" for line in lines)
    notes = "".join(paragraph(note, size=17) for note in table.notes)
    document = (
        f'{_HEADER}<w:document xmlns:w="{_WORD}"><w:body><w:tbl><w:tblPr><w:tblW w:w="0" w:type="auto"/></w:tblPr>'
        f"<w:tblGrid>{grid}</w:tblGrid>{body}</w:tbl>{notes}{paragraph('')}</w:body></w:document>"
    )
    types = (
        f'{_HEADER}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        f'{_HEADER}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="word/document.xml"/></Relationships>'
    )
    out = BytesIO()
    with ZipFile(out, "w") as archive:
        for name, text in (("[Content_Types].xml", types), ("_rels/.rels", relations), ("word/document.xml", document)):
            archive.writestr(ZipInfo(name, DATED), text, ZIP_DEFLATED)
    return out.getvalue()


_WRITERS: dict[str, Any] = {"html": _html, "latex": _latex, "docx": _docx, "rtf": _rtf, "markdown": _markdown}
