"""mmrm's formula: fixed effects and one covariance term, `FEV1 ~ RACE + ARMCD * AVISIT + us(AVISIT | USUBJID)`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from bayeslmm.formula import Formula, ResidualTerm, formula_text
from bayeslmm.formula.cursor import Cursor
from bayeslmm.formula.grammar import read_sides
from bayeslmm.formula.parse import build_formula, demand_own_sides
from bayeslmm.formula.residual import residual_term
from bayeslmm.formula.terms import flat_items
from bayeslmm.formula.tree import Bar
from bayeslmm.spec.build import make_spec
from bayeslmm.spec.model import ModelSpec

_REMEDY = "add one, such as us(visit | subject)"


def read_mmrm(text: str, functions: Iterable[str] = frozenset()) -> tuple[Formula, ResidualTerm]:
    """The fixed part and the residual structure of mmrm's formula.

    Errors: FormulaError with the spot for a formula without its covariance term, with two, or with random effects.

    >>> formula, residual = read_mmrm("FEV1 ~ ARMCD * AVISIT + us(AVISIT | ARMCD / USUBJID)")
    >>> formula.text, residual.text
    ('FEV1 ~ 1 + ARMCD * AVISIT', 'us(AVISIT | ARMCD / USUBJID)')
    """
    own = frozenset(functions)
    return _read(text, own) if isinstance(text, str) else _translate(Cursor(text, own))


@lru_cache(maxsize=256)
def _read(text: str, functions: frozenset[str]) -> tuple[Formula, ResidualTerm]:
    return _translate(Cursor(text, functions))


def _translate(cursor: Cursor) -> tuple[Formula, ResidualTerm]:
    response, terms = read_sides(cursor)
    items = flat_items(cursor, terms)
    bars = [node for _, node in items if isinstance(node, Bar)]
    for bar in bars:
        if bar.structure is None:
            raise cursor.error_between(bar.start, bar.end, "a random effect in mmrm's formula", "use LMM with residual= for both")
    if len(bars) != 1:
        bar = bars[1] if bars else Bar(None, (), False, response, None, terms.start, terms.end)
        what = f"mmrm's formula has {len(bars)} covariance terms, not one"
        raise cursor.error_between(bar.start, bar.end, what, "leave one out" if bars else _REMEDY)
    demand_own_sides(cursor, response, items)
    formula = build_formula(cursor, response, tuple((sign, node) for sign, node in items if node is not bars[0]))
    # The text of the fixed part alone, so that formula and residual together say the model once.
    return replace(formula, text=formula_text(formula)), residual_term(cursor, bars[0], nugget=False)


def mmrm_spec(text: str, *, functions: Iterable[str] = frozenset(), **options: Any) -> ModelSpec:
    """The spec of mmrm's formula; `options` are those of `make_spec` other than `residual`."""
    formula, residual = read_mmrm(text, functions)
    return make_spec(formula, residual=residual, **options)


def mmrm_text(spec: ModelSpec) -> str:
    """mmrm's formula of a spec that has a residual structure and no random effects."""
    return spec.formula.text if spec.residual is None else f"{spec.formula.text} + {spec.residual.text}"
