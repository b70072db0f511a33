"""Models of completed outcomes: ANCOVA visit by visit, as linear maps of many outcomes on one design, and MMRM, many fits side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm._validation import require_one_of
from bayeslmm.data.build import build_design
from bayeslmm.data.expressions import atom_name
from bayeslmm.errors import ConvergenceError, DataError, SpecificationError
from bayeslmm.estimate.estimate import estimate
from bayeslmm.formula import parse_formula
from bayeslmm.formula.parse import parse_residual
from bayeslmm.formula.syntax import Formula, quote_name
from bayeslmm.inference.intervals.batch_refit import FunctionTests, function_tests, grouped_rows, responses
from bayeslmm.inference.intervals.batch_structured import descend, parts, points_of_sums, poolable, subject_groups
from bayeslmm.likelihood.problem import build_problem
from bayeslmm.likelihood.standardize import find_standardization
from bayeslmm.specification.model_spec import ModelSpec
from bayeslmm.trials.layout import Layout, label_key, with_arm

MeanWeights = Literal["counterfactual", "equal", "proportional"]
WEIGHTS = ("counterfactual", "equal", "proportional", "proportional-em")


@dataclass(frozen=True, slots=True, eq=False)
class VisitDesign:
    """One visit: X (N, p), orthogonal over the whole sample, and rows of the means of each arm for S weightings, (arms, S, p)."""

    X: Array
    means: Array


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """Least squares of K analyses on [y, D_1, ...]: beta (K, 1 + g, p), gram of residuals (K, 1 + g, 1 + g), inverse (K, p, p), df (K,)."""

    beta: Array
    gram: Array
    inverse: Array
    df: Array

    def functions(self, L: Array, amounts: Array) -> tuple[Array, Array]:
        """Estimates and standard errors (K, cells, q) of L (K or 1, q, p) when amounts (cells, g) of the D are added to y."""
        combined = np.concatenate([np.ones((len(amounts), 1)), amounts], axis=1)
        parts = np.einsum("kqp,kgp->kgq", np.broadcast_to(L, (len(self.beta), *L.shape[1:])), self.beta)
        estimate = np.einsum("cg,kgq->kcq", combined, parts)
        rss = np.maximum(np.einsum("cg,kgh,ch->kc", combined, self.gram, combined), 0.0)
        unit = np.einsum("kqp,kpr,kqr->kq", np.broadcast_to(L, (len(self.beta), *L.shape[1:])), self.inverse, L, optimize=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            return estimate, np.sqrt((rss / self.df[:, None])[..., None] * unit[:, None])


def solve(X: Array, Y: Array, shifts: Array, weights: Array | None) -> Solved:
    """Least squares of outcomes Y (K, N) and shifts (g, N) on X (N, p).

    weights : (K, N) how often each subject counts, or None
    """
    K, N = Y.shape
    g, p = len(shifts), X.shape[1]
    if weights is None:
        inverse = np.linalg.inv(X.T @ X)
        H = inverse @ X.T
        both = np.empty((K, 1 + g, N))
        both[:, 0], both[:, 1:] = Y, shifts
        beta = both @ H.T
        residual = both - beta @ X.T
        gram = residual @ residual.swapaxes(-1, -2)
        return Solved(beta, gram, np.broadcast_to(inverse, (K, p, p)), np.full(K, float(N - p)))
    XX = (weights @ (X[:, :, None] * X[:, None, :]).reshape(N, p * p)).reshape(K, p, p)
    inverse = _inverses(XX)
    both = np.empty((K, 1 + g, N))
    both[:, 0], both[:, 1:] = Y, shifts
    counted = both * weights[:, None]
    beta = (counted @ X) @ inverse
    residual = both - beta @ X.T
    gram = (residual * weights[:, None]) @ residual.swapaxes(-1, -2)
    return Solved(beta, gram, inverse, weights.sum(axis=1) - p)


def _inverses(XX: Array) -> Array:
    """Inverses of (K, p, p), of columns orthogonal over the whole sample; NaN where a sample has lost a level of a factor."""
    scale = np.sqrt(np.maximum(np.diagonal(XX, axis1=-2, axis2=-1), 1e-300))
    unit = XX / (scale[:, :, None] * scale[:, None, :])
    lost = np.linalg.eigvalsh(unit)[:, 0] < 1e-12
    unit = np.where(lost[:, None, None], np.eye(XX.shape[-1]), unit)
    out = np.linalg.inv(unit) / (scale[:, :, None] * scale[:, None, :])
    return np.where(lost[:, None, None], np.nan, out)


def visit_design(layout: Layout, formula: str, visit: int, y: Array, weights: Array | None, how: str) -> VisitDesign:
    """The design of a formula over the subjects at one visit.

    y : (N,) any completed outcomes; weights : (K, N) or None; how : weights of the means
    Errors: `SpecificationError` for formulas without the arm or with random effects, `DataError` for missing covariates.
    """
    require_one_of(how, WEIGHTS, "weights")
    spec = parse_formula(formula)
    name = layout.columns.treatment
    if spec.random:
        raise SpecificationError("the analysis of one visit has no random effects", formula, "drop the bars, or give a function")
    require_response(layout, spec)
    frame = layout.frame.iloc[layout.rows[:, visit]].assign(**{layout.columns.outcome: y})
    design = build_design(ModelSpec(spec), frame)
    if design.n_dropped:
        lost = ", ".join(f"{column} ({count})" for column, count in design.dropped.items())
        raise DataError(f"covariates of the analysis are missing: {lost}", formula, "fill them in, or leave them out")
    block = design.encoding.fixed_block
    if name not in block.columns:
        raise SpecificationError(f"the analysis does not read the arm {name!r}", formula, f"write {_formula_of(layout)} + ...")
    if design.aliased:
        raise SpecificationError(f"columns are aliased: {', '.join(design.aliased)}", formula, "leave them out of the analysis")
    counts = np.ones((1, len(frame))) if weights is None else weights
    rows = np.stack([_means(layout, design, frame, arm, counts, how) for arm in range(len(layout.arms))])
    # sums of squares of a covariate far from 0 would leave few digits of what it tells
    standardization = find_standardization(design)
    return VisitDesign(standardization.Xy(design, slice(0, len(frame)))[:, :-1], standardization.functions(rows))


def _formula_of(layout: Layout) -> str:
    """The outcome and the arm as a formula has them."""
    return f"{quote_name(layout.columns.outcome)} ~ {quote_name(layout.columns.treatment)}"


def require_response(layout: Layout, spec: Formula) -> None:
    """Refuse formulas of anything but the imputed outcome as it is: an expression of it, another column, an offset beside it."""
    name = layout.columns.outcome
    if atom_name(spec.response) != name or spec.offsets:
        what = f"the response of the analysis is {spec.response}" + (" beside an offset" if spec.offsets else "")
        remedy = f"write {quote_name(name)} ~ ...; for anything else give a function of the completed frame"
        raise SpecificationError(what, f"the imputed outcome is {name}", remedy)


def _means(layout: Layout, design: Any, frame: pd.DataFrame, arm: int, weights: Array, how: str) -> Array:
    """Rows (S, p) whose product with the coefficients is the mean of an arm."""
    name = layout.columns.treatment
    share = weights / weights.sum(axis=1, keepdims=True)
    if how == "counterfactual":
        moved = frame.assign(**{name: with_arm(frame[name], layout.arms, np.full(len(frame), arm))})
        return np.asarray(share @ design.encoding.encode_fixed(moved)[0])
    factors = [f for f in design.encoding.levels if f != name]
    cells = list(product(*(design.encoding.levels[f] for f in factors)))
    occurring = _cell_shares(frame, factors, cells, share)
    S = len(share)
    grid: dict[str, Any] = {}
    for i, factor in enumerate(factors):
        labels = [cell[i] for cell in cells] * S
        grid[factor] = pd.Categorical(labels, categories=frame[factor].cat.categories) if hasattr(frame[factor], "cat") else labels
    for covariate in design.encoding.covariates:
        if covariate != name:
            grid[covariate] = np.repeat(share @ frame[covariate].to_numpy(float), len(cells))
    grid[name] = with_arm(
        pd.Series(np.resize(frame[name].to_numpy(), S * len(cells)), dtype=frame[name].dtype), layout.arms, np.full(S * len(cells), arm)
    )
    rows = design.encoding.encode_fixed(pd.DataFrame(grid))[0].reshape(S, len(cells), -1)
    if how == "equal":
        return np.asarray(rows.mean(axis=1))
    return np.asarray(np.einsum("sc,scp->sp", occurring, rows))


def _cell_shares(frame: pd.DataFrame, factors: Sequence[str], cells: list[Any], share: Array) -> Array:
    """How often each combination of the factors occurs, (S, cells)."""
    if not factors:
        return np.ones((len(share), 1))
    own = [tuple(map(str, row)) for row in frame[list(factors)].itertuples(index=False)]
    place = {tuple(map(str, cell)): i for i, cell in enumerate(cells)}
    member = np.zeros((len(frame), len(cells)))
    member[np.arange(len(frame)), [place[key] for key in own]] = 1.0
    return np.asarray(share @ member)


def contrasts(layout: Layout, control: Codes) -> list[tuple[str, int, Array]]:
    """What is reported at each visit: ("difference", arm, weights of the arms' means), then ("mean", arm, ...).

    control : (arms,) the arm that each is compared with
    """
    eye = np.eye(len(layout.arms))
    out = [("difference", a, eye[a] - eye[control[a]]) for a in range(len(layout.arms)) if control[a] != a]
    return out + [("mean", a, eye[a]) for a in range(len(layout.arms))]


# -- MMRM ----------------------------------------------------------------------------------------------------------------------------------

TOLERANCE = 1e-12
"""Predicted decrease of the criterion at which the fit to a completed data set is done."""


def analyse_repeated(
    layout: Layout, values: Array, counts: Array | None, formula: str, residual: str, control: Codes
) -> tuple[list[tuple[Any, str, Any]], FunctionTests]:
    """Labels, and estimates, standard errors and degrees of freedom (K, q), of completed outcomes (K, N, m).

    counts : (K, N) how often each subject counts, or None
    Errors: `SpecificationError` for models that are none of visits, `DataError` for missing covariates, `ConvergenceError`.
    """
    frame, spec = layout.complete_frame(values[0]), parse_formula(formula)
    require_response(layout, spec)
    design = build_design(ModelSpec(spec, residual=parse_residual(residual)), frame)
    if design.n_dropped:
        raise DataError(f"covariates of the analysis are missing: {', '.join(design.dropped)}", formula, "fill them in, or leave them out")
    if layout.columns.treatment not in design.encoding.fixed_block.columns or design.aliased:
        what = "the analysis does not read the arm, or its columns are aliased"
        raise SpecificationError(what, formula, f"write {_formula_of(layout)} * {quote_name(layout.columns.visit)} + ...")
    problem = build_problem(design)
    if not poolable(problem):
        what = "an MMRM of completed data has a structure over visits and no random effects, variance functions or weights"
        raise SpecificationError(what, f"residual={residual!r}", "use such a structure, or give a function")
    found = estimate(problem, "REML")
    L, labels = _functions(layout, design, frame, counts, control)
    order, groups = grouped_rows(problem), subject_groups(problem)
    subject, visit = layout.order
    # the codes of the design's subjects are not the layout's where labels sort otherwise
    known = {label_key(label): i for i, label in enumerate(layout.subjects)}
    place = np.array([known[label_key(label)] for label in design.residual.subject.levels]) if design.residual is not None else np.arange(0)
    mean, scale = design.near_X @ problem.standardization.near_alpha0, problem.standardization.y_scale
    tests = []
    for part in parts(len(values), sum(group.cells for group in groups)):
        Y = (values[part][:, subject, visit] - mean) / scale
        replicates = responses(groups, Y[:, order], None if counts is None else counts[part][:, place])
        fits = descend(problem, replicates, found.x, True, TOLERANCE)
        if not fits.settled.all():
            what = f"the analysis of {int((~fits.settled).sum())} data sets did not converge"
            raise ConvergenceError(what, formula, "use a structure with fewer parameters")
        own = L if len(L) == 1 else L[part]
        tests.append(function_tests(problem, points_of_sums(problem, replicates, True), fits.x, replicates.rows, own, "satterthwaite"))
    whole = FunctionTests(*(np.concatenate(own) for own in zip(*((t.estimate, t.std_error, t.df) for t in tests), strict=True)))
    return labels, whole


def _functions(layout: Layout, design: Any, frame: Any, counts: Array | None, control: Codes) -> tuple[Array, list[tuple[Any, str, Any]]]:
    """Rows (1 or K, q, p) of differences and means at each visit: every subject in every arm."""
    N, m = layout.size
    share = np.full((1, N), 1.0 / N) if counts is None else counts / counts.sum(axis=1, keepdims=True)
    name, means = layout.columns.treatment, []
    for arm in range(len(layout.arms)):
        moved = frame.assign(**{name: with_arm(frame[name], layout.arms, np.full(len(frame), arm))})
        rows = design.encoding.encode_fixed(moved)[0][layout.rows]
        means.append(np.einsum("kn,nmp->kmp", share, rows))
    wanted = contrasts(layout, control)
    C = np.stack([row for _, _, row in wanted])
    L = np.einsum("qa,akmp->kmqp", C, np.stack(means)).reshape(len(share), m * len(wanted), -1)
    labels = [(layout.visits[j], kind, layout.arms[arm]) for j in range(m) for kind, arm, _ in wanted]
    return L, labels
