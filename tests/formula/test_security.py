"""A formula is data: nothing that looks like code is run, and nothing takes long."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayeslmm.formula
from bayeslmm.data import expressions
from bayeslmm.errors import BayesLMMError, FormulaError, FormulaLimitError
from bayeslmm.formula.parse import columns_of, parse_formula, parse_residual, parse_variance
from bayeslmm.formula.syntax import CODINGS, CONSTANTS, FUNCTIONS
from tests.formula import texts

ATTACKS = [
    "__import__('os').system('touch PATH')",
    "__import__('os')",
    "x.__class__",
    "x.__class__.__mro__",
    "(x).__class__",
    "open('PATH', 'w')",
    "eval('1')",
    "exec('1')",
    "compile('1', '', 'eval')",
    "getattr(x, 'y')",
    "globals()",
    "lambda: x",
    "I((lambda: 1)())",
    "f'{x}'",
    "I(f'{x}')",
    "I((z := 3))",
    "x[0]",
    "log(x)[0]",
    "[v for v in x]",
    "I([v for v in x])",
    "{x}",
    "{x: 1}",
    "I({x})",
    "x if z else w",
    "I(x if z else w)",
    "I(x and z)",
    "I(not x)",
    "np.savetxt('PATH', x)",
    "os.mknod('PATH')",
    "I('x')",
    "log(*x)",
    "log(**x)",
    "I(x)(z)",
    "poly(x, degree=open('PATH'))",
    "poly(x, _state={})",
    "C(x, contr.custom([[1]]))",
    "C(x, __import__('os'))",
    "scale(x, center=x)",
    "I(x; z)",
    "I(x\n\nimport os)",
    "I(`x`.real)",
    "b'x'",
    "I(1j * x)",
    "I(...)",
    "I(@x)",
    "I(await x)",
    "I(x is z)",
    "I(0x10)",
    "I(x if True else z)",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_formula_is_refused_with_its_spot(attack: str, tmp_path: Path) -> None:
    target = tmp_path / "written"
    text = attack.replace("PATH", str(target))
    forms = ["y ~ {}", "{} ~ x", "y ~ w + ({} | g)", "y ~ (1 | {})", "y ~ offset({})", "y ~ us({} | g)"]
    for formula in (form.replace("{}", text) for form in forms):
        with pytest.raises(FormulaError) as caught:
            parse_formula(formula)
        assert "^" in caught.value.where
    assert not target.exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_residual_or_variance_is_refused(attack: str) -> None:
    for text in (attack, f"us({attack} | g)", f"us(v | {attack})"):
        with pytest.raises(FormulaError):
            parse_residual(text)
    for text in (attack, f"power({attack})", f"power(x | {attack})"):
        with pytest.raises(FormulaError):
            parse_variance(text)


@given(st.one_of(texts.noise, texts.words, st.text(max_size=40)))
def test_any_text_is_a_formula_or_a_formula_error(text: str) -> None:
    for read in (parse_formula, parse_residual, parse_variance, columns_of):
        with suppress(BayesLMMError):
            read(text)


def calls(text: str) -> Iterator[str]:
    """The names that Python code calls."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


@given(texts.words)
def test_what_is_read_holds_only_calls_of_the_closed_table(text: str) -> None:
    try:
        formula = parse_formula("y0 ~ " + text)
    except FormulaError:
        return
    sides = [formula.fixed, *formula.offsets, *(term.left for term in formula.random)]
    for side in sides:
        plain = re.sub("`[^`]*`", "name", side).replace("%in%", "*")  # a column may be called `import`
        called = set(calls(plain))
        assert called <= set(FUNCTIONS) | CODINGS


def test_the_evaluator_knows_the_functions_of_the_table_and_no_other() -> None:
    assert set(FUNCTIONS) == set(expressions.STATELESS) | set(expressions.STATEFUL)
    assert CODINGS == expressions.CODINGS
    assert set(expressions.CONSTANT_VALUES) == CONSTANTS


def test_reading_imports_no_evaluator() -> None:
    code = (
        "import sys, bayeslmm.formula as f; f.parse_formula('y ~ log(x) + (x | g)'); print(*({'formulaic', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_room_calls_nothing_that_runs_text() -> None:
    forbidden = {"eval", "exec", "compile", "getattr", "setattr", "__import__", "globals", "locals", "vars", "open"}
    for file in Path(bayeslmm.formula.__file__).parent.glob("*.py"):
        called = set(calls(file.read_text()))

        assert not called & forbidden, file.name


LIMITS = {
    "3,000 nested brackets": "y ~ " + "(" * 3000 + "x" + ")" * 3000,
    "3,000 nested calls": "y ~ " + "log(" * 3000 + "x" + ")" * 3000,
    "65 nested brackets": "y ~ " + "(" * 65 + "x" + ")" * 65,
    "3,000 signs": "y ~ I(" + "-" * 3000 + "x)",
    "3,000 powers": "y ~ I(x" + "**x" * 3000 + ")",
    "a megabyte": "y ~ " + "x + " * 250_000 + "x",
    "a megabyte of one name": "y ~ " + "x" * 1_000_000,
    "2^18 - 1 terms": "y ~ " + "*".join(f"v{i}" for i in range(18)),
    "a power of 40": "y ~ (a + b)**40",
    "a power of 9": "y ~ (a + b)**9",
    "terms of a power": "y ~ (" + "+".join(f"v{i}" for i in range(60)) + ")**5",
    "products of sums": "y ~ " + ":".join(["(a + b + c + d)"] * 9),
    "10,001 terms": "y ~ " + "+".join(f"v{i:x}" for i in range(10_001)),
    "terms of random slopes": "y ~ (" + "*".join(f"v{i}" for i in range(18)) + " | g)",
    "terms of split random slopes": "y ~ (" + "*".join(f"v{i}" for i in range(18)) + " || g)",
    "crossed groups": "y ~ (1 | " + "*".join(f"v{i}" for i in range(18)) + ")",
    "late products of groups": "y ~ (1 | " + ":".join([*(f"v{i}" for i in range(70)), *["(a/b)"] * 20]) + ")",
    "products of groups": "y ~ (1 | " + ":".join(["(a/b)"] * 60) + ")",
    "an interaction of 100 columns": "y ~ " + ":".join(f"v{i}" for i in range(100)),
    "101 operations": "y ~ I(" + "+".join(["x"] * 102) + ")",
    "1,000 operations in brackets": "y ~ I(" + "(" * 20 + "x" + ("+ x" * 50 + ")") * 20 + ")",
    "a polynomial of degree 10^6": "y ~ poly(x, 1000000)",
    "a spline with 10^9 columns": "y ~ bs(x, df=1000000000)",
    "a number of 4,000 digits": "y ~ I(x + " + "9" * 4000 + ")",
    "an exponent of 99": "y ~ I(x**99)",
    "an order of 10^6": "y ~ toep(0 + v | g, 1000000)",
}


@pytest.mark.parametrize("text", LIMITS.values(), ids=LIMITS.keys())
def test_beyond_a_limit_is_an_error_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(FormulaLimitError):
        parse_formula(text)
    assert time.process_time() - start < 2.0  # tens of milliseconds; the rest is for a busy machine. Without the limits: for ever


@pytest.mark.parametrize("text", ["I(2**9**9**9)", "I((9**60)**60)", "I(x**(9**9))", "poly(x + 9**9**9, 2)"])
def test_powers_of_mere_numbers_are_refused_at_once(text: str) -> None:
    with pytest.raises(FormulaError, match="power of powers"):
        parse_formula("y ~ " + text)


def test_the_number_of_terms_is_said_without_expanding_them() -> None:
    with pytest.raises(FormulaLimitError, match="262,143 terms"):
        parse_formula("y ~ " + "*".join(f"v{i}" for i in range(18)))


INSIDE = {
    "64 brackets": "y ~ " + "(" * 64 + "x" + ")" * 64,
    "60 calls": "y ~ " + "log(" * 60 + "x" + ")" * 60,
    "60 brackets in a call": "y ~ I(" + "(" * 60 + "x" + ")" * 60 + ")",
    "8,191 terms": "y ~ " + "*".join(f"v{i}" for i in range(13)),
    "a power of 8": "y ~ (a + b + c)**8",
    "10,000 terms": "y ~ " + "+".join(f"v{i:x}" for i in range(10_000)),
}


@pytest.mark.parametrize("text", INSIDE.values(), ids=INSIDE.keys())
def test_up_to_a_limit_a_formula_is_read(text: str) -> None:
    assert parse_formula(text).response == "y"


def test_a_formula_is_read_in_less_than_a_millisecond() -> None:
    best = min(_seconds(f"y{i} ~ x + z + (x | g)") for i in range(50))
    assert best < 1e-3


def _seconds(text: str) -> float:
    start = time.process_time()
    parse_formula(text)
    return time.process_time() - start
