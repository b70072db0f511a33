"""Reports are whole, safe and self-contained; a browser shows them without running or fetching anything."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.datasets import simulate_trial
from bayeslmm.errors import StoreError
from bayeslmm.reports.fit import fit_page
from bayeslmm.reports.page import HtmlPage, Page, cell_texts

EVIL = "<script>document.title='taken'</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tags(HTMLParser):
    """Names of tags with their attributes, and what is left open."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


@pytest.fixture(scope="module")
def trial() -> pd.DataFrame:
    data = simulate_trial(60, seed=2)
    data.loc[data.index[:5], "BCVA_BL"] = np.nan
    return data


@pytest.fixture(scope="module")
def fit(trial: pd.DataFrame) -> blm.Fit:
    return blm.LMM("BCVA_CHG ~ ARMCD * AVISIT + BCVA_BL + (VISITN | USUBJID)", trial).fit()


@pytest.fixture(scope="module")
def text(fit: blm.Fit) -> HtmlPage:
    return fit.report(title="Visits <b>", df="asymptotic")


def test_a_report_has_every_section(text: str) -> None:
    sections = re.findall(r"<h2>(.*?)</h2>", text)
    assert sections == [
        "Model",
        "Data and missing values",
        "Fixed effects",
        "Variances and correlations",
        "Checks",
        "Diagnostics",
        "Marginal means",
        "Where this comes from",
    ]


def test_a_report_says_what_was_lost_what_was_found_and_how(text: str, fit: blm.Fit) -> None:
    assert "5 are left out" in text
    assert f"{fit.criterion!r}" in text
    assert "ARMCD by AVISIT" not in text or "CTL - TRT" in text
    assert "CTL - TRT" in text
    assert "convergence" in text
    assert f"bayeslmm {blm.__version__}" in text
    assert "blm.LMM(" in text


def test_a_report_is_well_formed_and_asks_the_network_for_nothing(text: str) -> None:
    tags = Tags(text)
    assert tags.open == []
    assert "http" not in text.replace("http-equiv", "")
    assert {tag for tag, _ in tags.seen}.isdisjoint({"script", "link", "iframe", "object", "form"})
    images = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert len(images) >= 6
    for image in images:
        assert image["alt"]
        source = image["src"]
        assert source is not None
        assert base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).startswith(b"<?xml")


def test_levels_and_names_are_escaped() -> None:
    rng = np.random.default_rng(0)
    levels = np.array([EVIL, "a & b", "c\x1b[31m", '"quoted"'])
    name = "<b>x</b>"
    data = pd.DataFrame({"y": rng.normal(size=80), "f": levels[np.arange(80) % 4], "g": np.arange(80) // 4, name: rng.normal(size=80)})
    data["g"] = [f"{EVIL}{i}" for i in data["g"]]
    fit = blm.LMM(f"y ~ f + `{name}` + (1 | g)", data, check="warn").fit()
    text = fit.report(title=EVIL, df="asymptotic")
    tags = {tag for tag, _ in Tags(text).seen}
    assert "script" not in tags
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text


def test_what_a_model_cannot_give_is_said_in_a_line(trial: pd.DataFrame) -> None:
    rows = trial.dropna()
    fit = blm.from_partitions("BCVA_CHG ~ VISITN + ARMCD + (1 | USUBJID)", [rows.iloc[:200], rows.iloc[200:]]).fit()
    text = fit.report(df="asymptotic")
    assert "were added up and not kept" in text
    assert "ARMCD[T.TRT]" in text


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("BCVA_CHG ~ VISITN", {}),
        ("BCVA_CHG ~ 0 + VISITN + (1 | USUBJID)", {}),
        ("BCVA_CHG ~ VISITN + ARMCD", {"residual": "ar1(AVISIT | USUBJID)"}),
        ("BCVA_CHG ~ VISITN + ARMCD", {"residual": "us(AVISIT | ARMCD / USUBJID)"}),
        ("BCVA_CHG ~ VISITN + (1 | USUBJID)", {"variance": "power(VISITN)", "weights": "w"}),
    ],
)
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
def test_every_kind_of_model_has_a_report(trial: pd.DataFrame, formula: str, options: dict[str, str]) -> None:
    rows = trial[trial["VISITN"] <= 3].assign(w=1.5)
    rows["AVISIT"] = rows["AVISIT"].cat.remove_unused_categories()
    text = blm.LMM(formula, rows, **options).fit().report(df="asymptotic")
    assert Tags(text).open == []


@pytest.fixture(scope="module")
def written(fit: blm.Fit, tmp_path_factory: pytest.TempPathFactory) -> HtmlPage:
    """A report and its file."""
    return fit.report(tmp_path_factory.mktemp("report") / "visits.html", title="Visits <b>", df="asymptotic")


def test_a_report_is_written_whole_or_not_at_all(fit: blm.Fit, written: HtmlPage, tmp_path: Path) -> None:
    assert written.path is not None
    text = written.path.read_text(encoding="utf-8")
    assert text == written
    assert "<title>Visits &lt;b&gt;</title>" in text
    with pytest.raises(StoreError):
        fit.report(tmp_path / "nowhere" / "report.html", df="asymptotic")


def test_figures_of_a_report_leave_no_open_figure_behind(fit: blm.Fit) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    fit_page(fit, df="asymptotic")
    assert pyplot.get_fignums() == before


def test_the_same_fit_gives_the_same_page_but_for_the_date(text: HtmlPage, written: HtmlPage) -> None:
    one, other = (re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page) for page in (written, text))
    assert one == other
    assert "not written" in repr(text)


def test_numbers_show_three_digits_of_their_standard_error() -> None:
    table = pd.DataFrame(
        {"term": ["a", "b"], "estimate": [251.40510, -0.0246], "std_error": [6.8246, 0.004657], "p_value": [1e-9, 0.04567]}
    )
    assert cell_texts(table) == [["a", "251.41", "6.82", "<0.0001"], ["b", "-0.02460", "0.00466", "0.0457"]]


def test_text_of_a_page_is_escaped() -> None:
    page = Page("a < b")
    page.section("c & d").table(pd.DataFrame({"<i>": ["<u>"]}), "<s>")
    assert Tags(page.html()).open == []
    assert not {"i", "u", "s"} & {tag for tag, _ in Tags(page.html()).seen}


def test_a_posterior_stands_beside_the_estimates() -> None:
    pytest.importorskip("arviz")
    model = blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy"))
    fit, post = model.fit(), model.sample(draws=100, chains=2, seed=1)
    text = fit.report(df="asymptotic", posterior=post, seed=1)
    assert "Posterior beside the estimates" in text
    assert "Seed of the draws" in text
    compared = blm.compare(fit, post).report()
    assert "sd__Intercept" in compared
    assert Tags(compared).open == []


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
def test_a_browser_shows_a_report_and_runs_nothing(tmp_path: Path) -> None:
    data = blm.load_dataset("sleepstudy")
    data["Subject"] = [EVIL + str(level) for level in data["Subject"]]
    fit = blm.LMM("Reaction ~ Days + (Days | Subject)", data).fit()
    path, shot = tmp_path / "report.html", tmp_path / "report.png"
    fit.report(path, title="Sleep")
    assert CHROMIUM is not None
    quiet = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run([*quiet, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>Sleep</title>" in shown
    assert "<script" not in shown
    subprocess.run([*quiet, "--window-size=1100,4000", f"--screenshot={shot}", path.as_uri()], capture_output=True, timeout=120, check=True)
    image = pytest.importorskip("matplotlib.image").imread(shot)
    assert image.shape[:2] == (4000, 1100)
    # a page of figures and tables, not a blank one: ink all the way down
    ink = (image[..., :3].min(axis=2) < 0.6).reshape(10, 400, 1100).sum(axis=(1, 2))
    assert (ink[:8] > 300).all()


def test_sources_of_a_parameter_are_shown_with_the_same_decimals() -> None:
    frame = pd.DataFrame(
        {
            "term": ["sd", "sd", "cor", "cor"],
            "group": ["g", "g", None, None],
            "source": ["REML", "posterior"] * 2,
            "estimate": [24.740448, 27.45, 0.0655512, 0.076],
            "std_error": [np.nan, 6.98, np.nan, 0.273],
        }
    )
    assert [row[3] for row in cell_texts(frame)] == ["24.74", "27.45", "0.066", "0.076"]


def test_a_page_is_text_that_a_session_shows_in_a_line(written: HtmlPage) -> None:
    page, path = written, written.path
    assert path is not None
    assert isinstance(page, str)
    assert page == path.read_text(encoding="utf-8") == page.html == str(page)
    assert "Fixed effects" in page.sections
    for shown in (repr(page), page._repr_html_()):
        assert len(shown) < 1500
        assert str(path) in shown
    assert "<b>, " not in page._repr_html_().replace("</b>, ", "")


@pytest.fixture(scope="module")
def visits(trial: pd.DataFrame) -> pd.DataFrame:
    """Three visits of every subject, some of them without their outcome."""
    rows = trial[trial["VISITN"] <= 3].assign(AVISIT=lambda d: d["AVISIT"].astype(str))
    rows = rows[rows.groupby("USUBJID", observed=True)["VISITN"].transform("size") == 3].reset_index(drop=True)
    rows.loc[rows.index[[2, 8, 13, 14]], "BCVA_CHG"] = np.nan
    return rows


@pytest.mark.parametrize("information", ["expected", "observed"])
def test_a_report_has_the_tests_that_it_is_asked_for(visits: pd.DataFrame, information: str) -> None:
    model = blm.mmrm("BCVA_CHG ~ ARMCD + AVISIT + us(AVISIT | USUBJID)", visits).fit()
    page = model.report(df="kr", information=information)
    assert ("standard errors, observed information." in page) == (information == "observed")
    row = model.tidy(df="kenward-roger", information=information).set_index("term").loc["ARMCD[T.TRT]"]
    cells = re.search(r"<td[^>]*>ARMCD\[T.TRT\]</td>(.*?)</tr>", page)
    assert cells is not None
    shown = re.findall(r"<td[^>]*>([^<]+)</td>", cells[1])
    assert shown[:3] == [f"{row['estimate']:.3f}", f"{row['std_error']:.3f}", f"{row['df']:.1f}"]


def test_a_report_has_the_imputations_of_the_trial(visits: pd.DataFrame) -> None:
    model = blm.LMM("BCVA_CHG ~ ARMCD * AVISIT", visits, residual="us(AVISIT | USUBJID)")
    imputed = blm.impute(model, treatment="ARMCD", resampling=None)
    with pytest.warns(blm.errors.BayesLMMWarning, match="no standard error"):
        page = model.fit().report(df="asymptotic", imputations=imputed, analysis="BCVA_CHG ~ ARMCD")
    Tags(page)
    assert page.sections[-1] == "Where this comes from"
    assert {"Who was imputed, and why", "What it does to the estimate"} <= set(page.sections)
    assert "ImputationMethod" not in page
    for given in ({"imputations": 3}, {"analysis": "BCVA_CHG ~ ARMCD"}):
        with pytest.raises(blm.errors.BayesLMMError):
            model.fit().report(df="asymptotic", **given)


@pytest.mark.parametrize("covariate", [False, True])
def test_numbers_that_name_groups_are_labels_in_a_report(covariate: bool) -> None:
    rng = np.random.default_rng(2)
    rows = pd.DataFrame({"subject": np.repeat(np.arange(101, 121), 5), "day": np.tile(np.arange(5), 20), "x": rng.normal(size=100)})
    rows["y"] = rng.normal(size=20)[rows["subject"] - 101] + rng.normal(size=100)
    text = str(blm.LMM(f"y ~ x{' + subject' * covariate} + (1 | subject)", rows).fit().report())
    kind = re.search(r"<td[^>]*>subject</td><td[^>]*>(\w+)</td>", text)
    assert kind is not None
    assert kind[1] == ("numbers" if covariate else "labels")
