"""Spec files: what they say, and the way there and back."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bayeslmm.errors import BayesLMMError, FormulaError, PriorError, SpecificationError, StoreError
from bayeslmm.formula.parse import columns_of
from bayeslmm.specification.model_spec import make_spec
from bayeslmm.specification.priors import Priors
from bayeslmm.specification.spec_file import DataSource, Reference, SpecFile
from bayeslmm.specification.toml import mmrm_spec, parse_spec, read_references, read_spec, spec_text, toml_text, write_spec
from tests.formula import texts

WHOLE = """
title = "A trial"
description = "All that a file can say."

[data]
file = "data/trial.csv"

[factors]
Subject = true
ARMCD = ["PBO", "TRT"]
week = [1, 2, 4]

[model]
formula = "y ~ ARMCD * week + (week | Subject) + (1 | animal)"
residual = "ar1(week | Subject)"
variance = "ident(ARMCD)"
weights = "w"
offset = "o"
contrasts = { ARMCD = "sum", week = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]] }
relationship = { animal = "A.csv" }
missing = "raise"
check = "warn"

[priors]
alpha = { "ARMCD[T.TRT]" = ["normal", 0, 2.5] }
corr = ["lkj", 2]
sigma = ["half_t", 3, 50]
preset = "brms"

[priors.sd]
Subject = ["half_t", 3, 50]
"Subject/week" = ["half_normal", 10]

[priors.residual]
rho = ["uniform", 0, 1]

[[reference]]
source = "Somebody (2001), p. 7"
software = "lme4"
method = "ML"
df = "satterthwaite"
emmeans = ["ARMCD"]
by = "week"
at = { week = [1, 2] }
units = 2
note = "printed before convergence"

[reference.values]
criterion = 1743.60
nobs = 180
p_value = { Intercept = "<.0001" }
theta = [0.930, 0.018, 0.2230]
sd.Subject = { Intercept = 24.740, week = 5.922 }
corr.Subject."Intercept, week" = -0.07
"""


def test_a_file_says_a_model() -> None:
    file = parse_spec(WHOLE)
    assert file.title == "A trial"
    assert file.data == DataSource(file="data/trial.csv")
    assert file.factors == (("Subject", None), ("ARMCD", ("PBO", "TRT")), ("week", (1, 2, 4)))
    assert file.relationship_files == (("animal", "A.csv"),)
    assert file.spec == make_spec(
        "y ~ ARMCD * week + (week | Subject) + (1 | animal)",
        residual="ar1(week | Subject)",
        variance="ident(ARMCD)",
        weights="w",
        offset="o",
        contrasts={"ARMCD": "sum", "week": [[1, 0], [0, 1], [-1, -1]]},
        relationship=["animal"],
        priors=Priors(
            alpha={"ARMCD[T.TRT]": ("normal", 0, 2.5)},
            sd={"Subject": ("half_t", 3, 50), "Subject/week": ("half_normal", 10)},
            corr=("lkj", 2),
            sigma=("half_t", 3, 50),
            preset="brms",
            rho=("uniform", 0, 1),
        ),
        missing="raise",
        check="warn",
    )


def test_figures_keep_the_digits_that_were_printed() -> None:
    (reference,) = parse_spec(WHOLE).references
    figures = dict(reference.figures)
    assert figures[("criterion",)] == "1743.60"
    assert figures[("sd", "Subject", "Intercept")] == "24.740"
    assert figures[("corr", "Subject", "Intercept, week")] == "-0.07"
    assert figures[("p_value", "Intercept")] == "<.0001"
    assert figures[("theta", "2")] == "0.2230"
    assert figures[("nobs",)] == "180"
    assert (reference.method, reference.df, reference.by, reference.at, reference.units) == (
        "ML",
        "satterthwaite",
        ("week",),
        (("week", (1, 2)),),
        2.0,
    )


def test_a_file_is_written_as_it_was_read() -> None:
    file = parse_spec(WHOLE)
    assert parse_spec(spec_text(file)) == file


def test_every_gallery_file_is_read_and_written(models: Path) -> None:
    files = sorted(models.glob("*.toml"))
    assert files
    for path in files:
        file = read_spec(path)
        assert file.references, path.name
        assert parse_spec(spec_text(file)) == file
        assert read_references(path) == file.references
        known = columns_of(file.spec.formula) + (columns_of(file.spec.residual) if file.spec.residual else ())
        assert not {column for column, _ in file.factors} - set(known), path.name


def test_mmrm_formulas_have_a_dialect() -> None:
    text = '[model]\nformula = "FEV1 ~ ARMCD + us(AVISIT | USUBJID)"\ndialect = "mmrm"\n'
    file = parse_spec(text)
    assert (file.dialect, file.spec) == ("mmrm", mmrm_spec("FEV1 ~ ARMCD + us(AVISIT | USUBJID)"))
    assert parse_spec(spec_text(file)) == file


def test_a_model_on_a_frame_in_memory_writes_no_data(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    write_spec(path, make_spec("y ~ x + (1 | g)", relationship=["g"]))
    assert "[data]" not in path.read_text()
    file = read_spec(path)
    assert (file.data, file.spec.relationship) == (None, ("g",))
    with pytest.raises(SpecificationError, match="data="):
        file.read_data()


def test_a_users_function_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="function"):
        write_spec(tmp_path / "model.toml", make_spec("y ~ f(x)", functions={"f"}))
    assert not list(tmp_path.iterdir())


contrasts = st.one_of(st.sampled_from(["sum", "poly"]), st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=3).map(lambda row: [row, row]))
families = st.one_of(
    st.just(("flat",)),
    st.floats(1e-3, 1e3).map(lambda s: ("half_normal", s)),
    st.floats(1, 9).map(lambda df: ("half_t", df)),
    st.just(("gamma", 2, 0.1)),
)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
printed = st.one_of(
    st.decimals(-1e6, 1e6, places=3).map(str), st.integers(-999, 999).map(str), st.sampled_from(["<.0001", "3.32E+03", "1.", ".5"])
)


@given(texts.formulas, st.one_of(st.none(), texts.residuals), st.dictionaries(names, families, max_size=3), names, contrasts)
def test_a_spec_is_read_back_from_its_text(
    formula: str, residual: str | None, sd: dict[str, tuple[object, ...]], column: str, contrast: object
) -> None:
    try:
        first = columns_of(make_spec(formula).formula)[-1]
        spec = make_spec(
            formula, residual=residual, weights=column, contrasts={first: contrast}, priors=Priors(sd=sd or None, alpha="normal")
        )
    except (FormulaError, SpecificationError):
        assume(False)
        raise
    file = SpecFile(spec, title=column)
    assert parse_spec(spec_text(file)) == file


@given(
    names,
    st.dictionaries(names, printed, max_size=4),
    st.lists(st.one_of(names, st.integers(), st.booleans(), st.floats(-9, 9)), min_size=1, unique_by=repr),
)
def test_figures_and_factors_are_read_back_from_their_text(
    source: str, figures: dict[str, str], levels: list[str | int | float | bool]
) -> None:
    assume(len({(type(level), level) for level in levels}) == len(levels))
    reference = Reference(source, tuple((("fixef", name), text) for name, text in figures.items()), conf_level=0.9, emmeans=("a",))
    file = SpecFile(make_spec("y ~ x"), DataSource("nlme/Orthodont"), ((source, tuple(levels)), (source + "'", None)), (reference,))
    assert parse_spec(spec_text(file)) == file


def test_strange_letters_survive_a_file() -> None:
    content = {"title": 'quote " backslash \\ tab \t line \n bell \x07 del \x7f next \x85 snow ☃ 𝄞'}
    assert parse_spec(toml_text({**content, "model": {"formula": "y ~ x"}})).title == content["title"]


# ------------------------------------------------------------------------------------------------------- errors in a file

WRONG = [
    ('[model]\nformula = "y ~ x"\nresdiual = "us(v|s)"', "resdiual", "did you mean 'residual'"),
    ('[model]\nformula = "y ~ x"\n[modle]', "modle", "did you mean 'model'"),
    ('[model]\nformula = "y ~ x"\nfunctions = { f = "os.system" }', "model.functions", "functions= in Python"),
    ("[data]\nname = 'x'", "model", "add [model]"),
    ("[model]\n", "model.formula", "add formula"),
    ("[model]\nformula = 3", "model.formula", "formula = "),
    ("model = 3", "model", "[model]"),
    ('[model]\nformula = "y ~ x"\nformula = "y ~ z"', "", "spec-files"),
    ('[model]\nformula = "y ~ x"\n[model]\n', "", "spec-files"),
    ("[model\n", "", "spec-files"),
    ('[model]\nformula = "y ~ x"\nweights = [1, 2]', "model.weights", "weights = "),
    ('[model]\nformula = "y ~ x"\nmissing = "skip"', "model", "'drop'"),
    ('[model]\nformula = "y ~ x"\ndialect = "sass"', "model.dialect", "mmrm"),
    ('[model]\nformula = "y ~ us(v | s)"\ndialect = "mmrm"\nresidual = "us(v | s)"', "model.residual", "leave residual out"),
    ('[model]\nformula = "y ~ x"\n[data]\n', "data.name", "data="),
    ('[model]\nformula = "y ~ x"\n[data]\nname = "a"\nfile = "b"', "data.name", "data="),
    ('[model]\nformula = "y ~ x"\n[data]\nname = "../x"', "data.name", "PACKAGE/ITEM"),
    ('[model]\nformula = "y ~ x"\n[data]\nname = "a"\nsha256 = "00"', "data.sha256", "sha256sum"),
    ('[model]\nformula = "y ~ x"\n[factors]\nx = false', "factors.x", "true"),
    ('[model]\nformula = "y ~ x"\n[factors]\nx = ["a", "a"]', "factors.x", "once"),
    ('[model]\nformula = "y ~ x"\n[factors]\nx = [nan]', "factors.x", "data"),
    ('[model]\nformula = "y ~ x"\n[priors]\nsdd = "flat"', "priors.sdd", "'sd'"),
    ('[model]\nformula = "y ~ x"\n[priors]\nresidual = 3', "priors.residual", "[priors.residual]"),
    ('[model]\nformula = "y ~ x"\n[[reference]]\n', "reference[0].source", "add source"),
    ('[model]\nformula = "y ~ x"\n[reference]\nsource = "a"', "reference", "[[reference]]"),
    ('[model]\nformula = "y ~ x"\n[[reference]]\nsource = "a"\nmethod = "REMl"', "reference[0].method", "REML"),
    ('[model]\nformula = "y ~ x"\n[[reference]]\nsource = "a"\nunits = 0', "reference[0].units", "number"),
    ('[model]\nformula = "y ~ x"\n[[reference]]\nsource = "a"\n[reference.values]\naic = "about 3"', "reference[0].values.aic", "printed"),
    (
        '[model]\nformula = "y ~ x"\n[[reference]]\nsource = "a"\n[reference.values]\nfixef = { x = true }',
        "reference[0].values.fixef.x",
        "printed",
    ),
    ('[model]\nformula = "y ~ x"\n[[reference]]\nsource = "a"\n[reference.values]\naic = nan', "reference[0].values.aic", "printed"),
]


@pytest.mark.parametrize(("text", "key", "remedy"), WRONG)
def test_an_error_names_file_and_key(text: str, key: str, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SpecificationError) as caught:
        read_spec(path)
    assert str(path) in caught.value.where
    assert key in caught.value.where
    assert remedy in caught.value.remedy


def test_errors_of_formulas_and_priors_name_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('[model]\nformula = "y ~ x + + z"')
    with pytest.raises(FormulaError) as formula:
        read_spec(path)
    path.write_text('[model]\nformula = "y ~ x"\n[priors]\nsd = ["half_t", -3]')
    with pytest.raises(PriorError) as prior:
        read_spec(path)
    assert "wrong.toml" in formula.value.where
    assert "^" in formula.value.where
    assert "wrong.toml" in prior.value.where


@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WHOLE.splitlines()), max_size=12).map("\n".join)))
def test_any_text_is_a_spec_or_an_error_of_ours(text: str) -> None:
    try:
        parse_spec(text)
    except BayesLMMError as error:
        assert error.what  # noqa: PT017


# ------------------------------------------------------------------------------------------------------- writing, reading


def test_a_file_has_the_mode_of_the_umask_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    write_spec(path, make_spec("y ~ x"))
    write_spec(path, make_spec("y ~ z"))
    assert read_spec(path).spec == make_spec("y ~ z")
    assert [file.name for file in tmp_path.iterdir()] == ["model.toml"]
    if os.name == "posix":
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.toml"
    write_spec(path, make_spec("y ~ x"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"no space left.*\n.*bytes"):
        write_spec(path, make_spec("y ~ z"))
    assert read_spec(path).spec == make_spec("y ~ x")
    assert [file.name for file in tmp_path.iterdir()] == ["model.toml"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        write_spec(tmp_path / "absent" / "model.toml", make_spec("y ~ x"))


def test_of_a_link_the_file_that_it_names_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "model.toml"
    target.write_text("mine")
    link.symlink_to(target)
    write_spec(link, make_spec("y ~ x"))
    assert link.is_symlink()
    assert read_spec(target).spec == make_spec("y ~ x")


def test_data_are_read_from_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "trial.csv").write_bytes(b"y,x\n1,2\n")
    (tmp_path / "model.toml").write_text(WHOLE)
    (tmp_path / "A.csv").write_bytes(b"1")
    file = read_spec(tmp_path / "model.toml")
    assert file.read_data() == b"y,x\n1,2\n"
    assert file.read_relationship("animal") == b"1"
    with pytest.raises(SpecificationError, match="no matrix"):
        file.read_relationship("Subject")


def test_data_with_another_checksum_are_refused(tmp_path: Path) -> None:
    content = b"y,x\n1,2\n"
    (tmp_path / "d.csv").write_bytes(content)
    right = hashlib.sha256(content).hexdigest()
    for checksum, good in ((right, True), (right.upper(), True), ("0" * 64, False)):
        (tmp_path / "m.toml").write_text(f'[data]\nfile = "d.csv"\nsha256 = "{checksum}"\n[model]\nformula = "y ~ x"\n')
        file = read_spec(tmp_path / "m.toml")
        if good:
            assert file.read_data() == content
        else:
            with pytest.raises(SpecificationError, match="checksum"):
                file.read_data()
