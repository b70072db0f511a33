"""Tables for papers: each language is well formed and holds what the models say, whatever the names hold."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm._io import DOCUMENTS
from bayeslmm.errors import BayesLMMError, SpecificationError

STRANGE = "a <b> & 50% {c}_d | \\ $x$ ~^ é 𝛽"


@pytest.fixture(scope="module")
def fits() -> tuple[blm.Fit, blm.Fit]:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(12), 6)
    data = pd.DataFrame({"y": rng.standard_normal(12)[g] + rng.standard_normal(72), STRANGE: rng.standard_normal(72), "g": g.astype(str)})
    one = blm.LMM(f"y ~ `{STRANGE}` + (1 | g)", data).fit()
    return one, one.update(f". ~ . - `{STRANGE}`")


def parse(text: str | bytes) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314


def cells(fit: blm.Fit) -> list[str]:
    estimate = fit.tidy()["estimate"].iloc[1]
    return [f"{estimate:.3f}" if abs(estimate) < 1 else f"{estimate:.2f}", f"{fit.criterion:.1f}"]


def test_html_and_word_are_well_formed_and_hold_the_numbers(fits: tuple[blm.Fit, blm.Fit]) -> None:
    page = parse(fits[0].to_table(fits[1]))
    text = "".join(page.itertext())
    assert STRANGE in text and all(cell in text for cell in cells(fits[0]))
    with ZipFile(BytesIO(fits[0].to_table(fits[1], format="docx"))) as archive:
        parts = {name: parse(archive.read(name)) for name in archive.namelist()}
    text = "".join(parts["word/document.xml"].itertext())
    assert STRANGE in text and all(cell in text for cell in cells(fits[0]))


def test_latex_rtf_and_markdown_escape_their_signs(fits: tuple[blm.Fit, blm.Fit]) -> None:
    latex = fits[0].to_table(format="latex")
    assert r"50\% \{c\}\_d" in latex and latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    body = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in body} == {2}
    rtf = fits[0].to_table(fits[1], format="rtf")
    assert rtf.isascii() and rtf.replace(r"\{", "").replace(r"\}", "").count("{") == rtf.replace(r"\{", "").replace(r"\}", "").count("}")
    assert r"\u233?" in rtf
    rows = [line for line in fits[0].to_table(fits[1], format="markdown").splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1


def test_posteriors_stand_beside_fits_and_labels_rename(fits: tuple[blm.Fit, blm.Fit]) -> None:
    post = fits[1].model.sample(200, 2, seed=1)
    table = blm.tables(*fits, post, format="markdown", labels=["full", "empty", "Bayes"], df="kenward-roger")
    assert "full" in table and "P(\\> 0)" in table and "kenward-roger" in table
    assert post.to_table(format="markdown").count("Intercept") >= 1
    assert "slope" in fits[0].to_table(labels={STRANGE: "slope"}, format="markdown")
    for wrong in ({"format": "pdf"}, {"labels": ["one", "two"]}):
        with pytest.raises(SpecificationError):
            fits[0].to_table(**wrong)
    with pytest.raises(SpecificationError):
        blm.tables()


@pytest.mark.parametrize("labels", [{"Intercept": 1}, {1: "one"}, {("a",): "b"}, {"Intercept": None}])
def test_labels_are_texts(fits: tuple[blm.Fit, blm.Fit], labels: dict[object, object]) -> None:
    with pytest.raises(SpecificationError):
        fits[0].to_table(labels=labels)  # type: ignore[arg-type]


def test_shares_have_limits_and_factors(fits: tuple[blm.Fit, blm.Fit]) -> None:
    shares = fits[0].r2(conf_int=True, n=40, seed=1)
    assert (shares["conf_low"] <= shares["conf_high"]).all() and shares.index.tolist() == ["conditional", "marginal"]
    np.testing.assert_allclose(shares["estimate"], fits[0].r2().iloc[0][shares.index])
    crossed = blm.LMM("strength ~ 1 + (1 | batch) + (1 | sample)", blm.load_dataset("Pastes"), check="warn").fit()
    by = crossed.icc(by="factor")
    assert by["adjusted"].sum() == pytest.approx(crossed.icc()["adjusted"].item())
    assert len(crossed.icc(conf_int=True, by="factor", n=20, seed=1)) == 4


def test_standardized_coefficients_are_those_of_standardized_data() -> None:
    data = blm.load_dataset("sleepstudy")
    z = data.assign(**{name: (data[name] - data[name].mean()) / data[name].std() for name in ("Reaction", "Days")})
    for formula in (
        "Reaction ~ Days + (Days | Subject)",
        "Reaction ~ Days + I(Days ** 2) + (1 | Subject)",
        "Reaction ~ Days * C(Days > 4) + (1 | Subject)",
    ):
        if "C(" in formula:
            data, z = data.assign(late=np.where(data["Days"] > 4, "yes", "no")), z.assign(late=np.where(data["Days"] > 4, "yes", "no"))
            formula = "Reaction ~ Days * late + (1 | Subject)"
        ours, theirs = blm.LMM(formula, data).fit().standardized(), blm.LMM(formula, z).fit().tidy(conf_int=True)
        np.testing.assert_allclose(ours["estimate"], theirs["estimate"], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(ours["conf_high"], theirs["conf_high"], rtol=1e-4, atol=1e-6)


def test_models_of_one_response_have_headings_that_differ() -> None:
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({"g": np.repeat(np.arange(10), 6), "x": rng.normal(size=60), "y": rng.normal(size=60), "z": rng.normal(size=60)})
    one, two = blm.LMM("y ~ x + (1 | g)", rows).fit(), blm.LMM("y ~ 1 + (1 | g)", rows).fit()
    other = blm.LMM("z ~ x + (1 | g)", rows).fit()
    lines = blm.tables(one, other, two, format="markdown").splitlines()
    assert [cell.strip() for cell in lines[0].split("|") if cell.strip()] == ["y (1)", "z", "y (3)"]
    named = blm.tables(one, two, labels=["A", "A"], format="markdown").splitlines()
    assert [cell.strip() for cell in named[0].split("|") if cell.strip()] == ["A", "A"]


@pytest.mark.parametrize("ending", [*DOCUMENTS, ".HTML", "", ".txt", ".v2"])
def test_a_file_holds_what_its_name_announces(fits: tuple[blm.Fit, blm.Fit], ending: str, tmp_path: Path) -> None:
    """A table takes its language from the file's ending, and neither it nor a report is written to a file that promises something else."""
    fit, path = fits[1], tmp_path / f"name{ending}"
    languages = ("html", "latex", "markdown", "docx", "rtf")
    announced = DOCUMENTS.get(ending.lower())
    for language in languages:
        if announced in (None, language):
            fit.to_table(path=path, format=language)
        else:
            with pytest.raises(BayesLMMError, match=str(announced)):
                fit.to_table(path=path, format=language)
    path.unlink(missing_ok=True)
    if announced is None or announced in languages:
        made = fit.to_table(path=path)
        assert made == fit.to_table(format=announced or "html")  # type: ignore[arg-type]
        assert path.read_bytes() == (made if isinstance(made, bytes) else made.encode())
    else:
        with pytest.raises(BayesLMMError, match=announced):
            fit.to_table(path=path)
    path.unlink(missing_ok=True)
    if announced not in (None, "html"):
        with pytest.raises(BayesLMMError, match="HTML"):
            fit.report(path)
        assert not path.exists()


def test_equal_tables_are_equal_files_at_any_time(fits: tuple[blm.Fit, blm.Fit], monkeypatch: pytest.MonkeyPatch) -> None:
    made = fits[1].to_table(format="docx")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert made == fits[1].to_table(format="docx")
