"""Words that users of R, Julia, patsy and brms type: read where they say one thing, else answered by what is written here."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError, FormulaError
from bayeslmm.formula.parse import parse_formula, parse_residual, parse_variance
from bayeslmm.formula.syntax import FUNCTIONS

UNARY = [name for name, signature in FUNCTIONS.items() if signature.most == 1 and not signature.options and hasattr(np, name)]


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 120
    data = pd.DataFrame({"x": rng.uniform(0.1, 0.9, n), "v": np.tile(np.arange(6.0), 20), "g": np.repeat(np.arange(20), 6)})
    data["b"] = np.tile(list("pqr"), 40)
    data["y"] = rng.normal(size=n) + data["x"] + rng.normal(size=20)[data["g"]]
    return data


@pytest.mark.parametrize("module", ["np", "numpy", "math"])
@pytest.mark.parametrize("name", UNARY)
def test_a_module_before_a_function_says_nothing(module: str, name: str) -> None:
    text = "{0}(y) ~ {0}(x):z + ({0}(x) | g) + offset({0}(w))"
    assert parts(text.format(f"{module}.{name}")) == parts(text.format(name))


def parts(text: str) -> tuple[object, ...]:
    """What a formula says, whatever its spelling."""
    formula = parse_formula(text)
    return formula.response, formula.fixed, formula.random, formula.offsets, formula.terms


QUOTED = [
    "y ~ {0} + (1 | g)",
    "{0} ~ x + (1 | g)",
    "y ~ x + (1 | {0})",
    "y ~ x + (1 | h / {0})",
    "y ~ C({0}) + (1 | g)",
    "y ~ log({0}) * x + ({0} | g)",
    "y ~ offset({0}) + cs(0 + {0} | g)",
    "y ~ x + (1 | factor({0}))",
]


@pytest.mark.parametrize("text", QUOTED)
@pytest.mark.parametrize("name", ["a b", "a.b", "1st", "pi", "in", "`"])
def test_q_is_backticks_everywhere(text: str, name: str) -> None:
    ticked = "`" + name.replace("`", "``") + "`"
    assert parts(text.format(f'Q("{name}")')) == parts(text.format(ticked))


def test_q_is_read_in_structures_of_the_errors() -> None:
    assert parse_residual("ar1(Q('a b') | Q('the g'))") == parse_residual("ar1(`a b` | `the g`)")
    assert parse_variance("ident(Q('a b')) * power(Q('x y'))") == parse_variance("ident(`a b`) * power(`x y`)")


REMEDIES = [
    ("y ~ np.square(x)", "I(x**2)"),
    ("y ~ pow(x, 2)", "I(x**2)"),
    ("y ~ np.where(x > 2, 1, 0)", "I(x > 3)"),
    ("y ~ (x > 2) + z", "I(x > "),
    ("y ~ pd.Categorical(a)", "C(a)"),
    ("y ~ z.abs()", "abs(z)"),
    ("y ~ lgo(x)", "log"),
    ("y ~ I(x - mean(x))", "center(x)"),
    ("y ~ np.mean(x)", "center(x)"),
    ("y ~ scipy.stats.zscore(x)", "standardize(x)"),
    ("y ~ as.numeric(x)", "x alone"),
    ("y ~ x & z", "a:b"),
    ("y ~ mo(x)", "C(x)"),
    ("y ~ me(x, s)", "not here"),
    ("y ~ x + ar(time, g)", "ar1(time | g)"),
    ("y ~ x + (1 | gr(g, cov = A))", "relationship="),
    ("y ~ x + zerocorr(1 + x | g)", "diag(x | g)"),
    ("y ~ x + zerocorr((1 + x | g))", "diag(x | g)"),
    ("y ~ x + exp(numFactor(t) + 0 | g)", "sp_exp("),
    ("y ~ x + sp_gau(u, v | g)", 'residual="sp_gau(x, y | g) + local"'),
    ("y ~ x + ou(t + 0 | g)", "car1(0 + C(t) | g)"),
    ("y ~ x + rr(f + 0 | g, 2)", "fa0(0 + f | g, 2)"),
    ("y ~ x + hetar1(f + 0 | g)", "ar1h(0 + f | g)"),
    ("y ~ x + homcs(f + 0 | g)", "cs(0 + f | g)"),
    ("y ~ x + homdiag(f + 0 | g)", "id(0 + f | g)"),
    ("y ~ x + propto(0 + a | g, A)", "relationship="),
    ("y ~ x + at(f):g", "diag(0 + f | g)"),
    ("y ~ x + corh(f):id(g)", "csh(0 + f | g)"),
    ("y ~ x + arma(time, g)", "arma("),
    ("y ~ x + ma(time, g)", "arma(time | g"),
    ("y ~ x + cosy(time, g)", "cs(time | g)"),
    ("y ~ x + unstr(time, g)", "us(time | g)"),
    ("y ~ x + (1 | i | g)", "(x | g)"),
    ("y ~ x + (1 | gr(g, by = a))", "not here"),
    ("bf(y ~ x, sigma ~ x)", "variance="),
    ("mvbind(y, z) ~ x", "one model per response"),
    ("y | se(s) ~ x", "weights=1/se**2"),
    ("y | weights(w) ~ x", "weights="),
    ("y | mi() ~ x", "drop mi()"),
    ("y | cens(c) ~ x", "not here"),
    ("y | trunc(lb = 0) ~ x", "not here"),
    ("y ~ C(f, Sum(omit=1))", "levels="),
    ("y ~ x + (1 | mm(a, b))", "not here"),
]


@pytest.mark.parametrize(("text", "word"), REMEDIES, ids=[text for text, _ in REMEDIES])
def test_a_foreign_word_is_answered_by_ours(text: str, word: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_formula(text)
    assert word in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "word"),
    [("ident(a * b)", "ident(a:b)"), ("ident(a + b)", "ident(a:b)"), ("ident(1 | a)", "ident(g)"), ("varPower(x)", "power(x)")],
)
def test_variance_functions_of_nlme_are_answered(text: str, word: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_variance(text)
    assert word in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "word"), [("corAR1(t | g)", "ar1(t | g)"), ("corCompSymm(t | g)", "cs(t | g)"), ("sp_exp(t | g, nugget)", "+ local")]
)
def test_structures_of_nlme_are_answered(text: str, word: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_residual(text)
    assert word in caught.value.remedy


@pytest.mark.parametrize("name", ["factor", "as.factor", "C"])
def test_a_grouping_factor_is_a_factor_anyway(name: str) -> None:
    data = frame()
    assert blm.LMM(f"y ~ x + (1 | {name}(g))", data).fit().criterion == blm.LMM("y ~ x + (1 | g)", data).fit().criterion
    assert blm.LMM(f"y ~ {name}(v) + (1 | g)", data).spec.formula.fixed.endswith("(v)")


def test_columns_that_are_not_there_are_answered() -> None:
    data = frame()
    with pytest.raises(DataError, match="leave out Intercept"):
        blm.LMM("y ~ 0 + Intercept + x + (1 | g)", data)
    with pytest.raises(DataError, match="reset_index"):
        blm.LMM("y ~ x + (1 | g)", data.set_index("g"))
    with pytest.raises(BayesLMMError, match="not counted: 'q'"):
        blm.LMM("y ~ C(b, Treatment(1)) + (1 | g)", data)


def test_the_remedy_for_a_date_of_text_is_an_expression_that_makes_numbers() -> None:
    data = frame().assign(when=lambda d: pd.date_range("2024-01-01", periods=len(d), freq="7D").astype(str))
    with pytest.raises(DataError) as caught:
        blm.LMM("y ~ x", data, residual="sp_exp(when | g)")
    days = eval(caught.value.remedy.removeprefix("convert it to a number first: "), {"data": data, "pandas": pd})  # noqa: S307
    assert days.tolist() == [7.0 * i for i in range(len(data))]


def test_powers_are_counted_from_one() -> None:
    fit = blm.LMM("y ~ poly(x, 3, raw=True) + poly(v, 2) + (1 | g)", frame()).fit()
    assert fit.fixef.index.tolist()[1:] == [*(f"poly(x, 3, raw=True)[{i}]" for i in (1, 2, 3)), "poly(v, 2)[1]", "poly(v, 2)[2]"]
    assert fit.predict(frame(), level="population")["estimate"].to_numpy() == pytest.approx(np.asarray(fit.fitted(level="population")))


# what `attr(terms(y ~ ...), "term.labels")` prints in R 4.2
IN = {
    "x %in% a": ["x:a"],
    "a + b %in% a": ["a", "b:a"],
    "x * b %in% a": ["x", "b:a", "x:b:a"],
    "(x + b) %in% a": ["x:a", "b:a"],
    "x %in% (a + b)": ["x:a:b"],
    "a / b %in% c": ["a", "a:b:c"],
    "x:b %in% a": ["x:b:a"],
    "a + x %in% a - a": ["x:a"],
}


@pytest.mark.parametrize("text", IN)
def test_in_is_read_as_r_reads_it(text: str) -> None:
    found = [":".join(term) for term in parse_formula(f"y ~ {text}").terms if term]
    assert found == IN[text]


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="no R")
def test_formulas_with_in_have_the_terms_of_r() -> None:
    texts = list(IN)
    texts += [f"{p} {q} {r}" for p, q, r in itertools.product(["a", "(a + b)", "a:b"], ["%in%", "+ c %in%", "* c %in%"], ["d", "(d + e)"])]
    program = "; ".join(f'cat(attr(terms(y ~ {text}), "term.labels"), "\\n")' for text in texts)
    printed = subprocess.run(["Rscript", "-e", program], capture_output=True, text=True, check=True).stdout.splitlines()
    for text, line in zip(texts, printed, strict=True):
        ours = {frozenset(term) for term in parse_formula(f"y ~ {text}").terms if term}
        assert ours == {frozenset(re.split("[:]", label)) for label in line.split()}, text


@pytest.mark.parametrize("sign", ["==", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("text", ["y ~ x {} 2", "y ~ (x {} 2)", "y ~ v + x {} 2 + (1 | g)", "y ~ v * (x {} 2)", "y ~ v + (x {} 2 | g)"])
def test_a_comparison_is_sent_into_i(text: str, sign: str) -> None:
    with pytest.raises(FormulaError, match="comparison is no term") as caught:
        parse_formula(text.format(sign))
    assert f"I(x {sign} ...)" in str(caught.value)
    assert parse_formula(f"y ~ I(x {sign} 2)")


@pytest.mark.parametrize("column", ["b", "`b`"])
@pytest.mark.parametrize("word", ["as.character", "pd.Categorical", "ordered", "zscore", "np.square", "ns"])
def test_a_remedy_is_written_with_the_column_that_was_named(word: str, column: str) -> None:
    with pytest.raises(FormulaError) as refused:
        parse_formula(f"y ~ {word}({column}) + (1 | g)")
    assert f"({column}" in refused.value.remedy
    assert not re.search(r"\bx\b", refused.value.remedy.partition(":")[0])
    with pytest.raises(FormulaError) as other:
        parse_formula(f"y ~ {word}(x + v) + (1 | g)")
    assert "(x" in other.value.remedy


@pytest.mark.parametrize("names", [["g", "b"], ["b", "`g`", "v"]])
@pytest.mark.parametrize("word", ["interaction", "paste", "paste0"])
def test_combinations_of_factors_are_told_their_colon(word: str, names: list[str]) -> None:
    for formula in ("y ~ {} + (1 | g)", "y ~ x + (1 | {})", "y ~ x + ({} | g)"):
        with pytest.raises(FormulaError) as refused:
            parse_formula(formula.format(f"{word}({', '.join(names)})"))
        assert ":".join(names) in refused.value.remedy
        with pytest.raises(FormulaError):
            parse_formula(formula.format(f"{word}({', '.join(names)}"))
