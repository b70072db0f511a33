"""The analysis of variance of METHOD=TYPE1 to TYPE3, and which covariance a program without likelihood bounds has.

All effects, fixed ones first, are columns of one linear model. The sum of squares of a hypothesis L b is
(L b)'(L (X'X)^- L')^-1 (L b); its expectation has tr(L_k' (L (X'X)^- L')^-1 L_k) times the variance of random effect k, L_k being the
columns of L under it, and df times the residual variance (SAS/STAT, "Expected Mean Squares"). Mean squares of random effects and of the
residual equal to their expectations give the variances, which may be below 0. The error of an F test is the combination of mean squares
with its expectation under the hypothesis; its degrees of freedom are Satterthwaite's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special
from scipy.linalg import solve_triangular

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import SpecificationError
from bayeslmm.model.fit import Fit
from bayeslmm.sas.glm_coding import GLMLayout, class_variables, covariate_names, glm_columns, row_space
from bayeslmm.sas.hypotheses import hypothesis
from bayeslmm.sas.language.covariance_types import VC
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas.translation import RandomEffect, Translation
from bayeslmm.sas_results.rows import ProgramRows, random_cells
from bayeslmm.sas_results.variance_components import ComponentsPoint, linear_model

TYPES = {"type1": 1, "type2": 2, "type3": 3}

NOTHING = 1e-8
"""Share of a coefficient that is rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class AnalysisOfVariance:
    """Sources in the order of the table, the residual last.

    random : (s,) position among the variances of the source's own, -1 for fixed effects; squares, df : (s,)
    expected : (s, k + 1) coefficients of the variances, the residual's last; fixed : (s) names of the fixed effects in the expectation
    units : (k + 1,) what the squared covariates of each variance are measured in, which `expected` leaves out
    """

    sources: tuple[str, ...]
    components: tuple[str, ...]
    random: Array
    squares: Array
    df: Array
    expected: Array
    fixed: tuple[tuple[str, ...], ...]
    units: Array

    @property
    def mean_squares(self) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.squares / self.df)

    def variances(self) -> Array:
        """(k + 1,) that make the mean squares of the random part equal to their expectations."""
        mine = self.random >= 0
        if (self.df[mine] == 0).any() or np.linalg.matrix_rank(self.expected[mine]) < int(mine.sum()):
            lost = ", ".join(s for s, r, d in zip(self.sources, self.random, self.df, strict=True) if r >= 0 and d == 0) or "some"
            raise SpecificationError(
                f"the mean squares do not tell the variances of {lost} apart", "METHOD=TYPE", "METHOD=REML, or leave a random effect out"
            )
        return np.asarray(np.linalg.solve(self.expected[mine], self.mean_squares[mine]) / self.units)

    def error(self, row: int) -> Array | None:
        """(s,) coefficients of the mean squares that are the error of a source; None where there is no such combination."""
        mine = np.flatnonzero((self.random >= 0) & (self.df > 0))
        wanted = self.expected[row].copy()
        own = int(self.random[row])
        if own == len(wanted) - 1:
            return None
        if own >= 0:
            wanted[own] = 0.0
        weights, *_ = np.linalg.lstsq(self.expected[mine].T, wanted, rcond=None)
        if np.abs(self.expected[mine].T @ weights - wanted).max() > NOTHING * np.abs(wanted).max():
            return None
        found = np.zeros(len(self.sources))
        found[mine] = np.where(np.abs(weights) > NOTHING, weights, 0.0)
        return found


def analysis_of_variance(translation: Translation, rows: ProgramRows, kind: int) -> AnalysisOfVariance:
    """The table of one type of hypotheses; rows are multiplied by the roots of their weights."""
    random = [_whole_effect(effect, translation) for effect in translation.random]
    layout, y, sizes = _layout(translation, rows, random)
    space, n = row_space(layout), len(layout.X)
    X, moves = layout.near[:, space.kept], space.moves(layout)
    b = np.linalg.lstsq(X, y, rcond=None)[0]
    inverse = np.linalg.inv(X.T @ X)
    names, places, squares, df, expected, fixed = [], [], [], [], [], []
    k = len(random)
    for position, (effect, _block) in enumerate(zip(layout.effects, layout.blocks, strict=True)):
        if effect == GLMEffect():
            continue
        L = hypothesis(layout, space, position, kind)
        own = solve_triangular(moves, L[:, space.kept].T, trans="T", unit_diagonal=True).T if len(L) else np.zeros((0, len(b)))
        M = np.linalg.pinv(own @ inverse @ own.T) if len(L) else np.zeros((0, 0))
        share = np.einsum("ij,ia,ja->a", M, L, L)
        values = [share[layout.blocks[layout.effects.index(other)]].sum() / max(len(L), 1) for other in random]
        used = [
            e
            for e, at in zip(layout.effects, layout.blocks, strict=True)
            if e != GLMEffect() and np.abs(L[:, at]).max(initial=0.0) > NOTHING
        ]
        names.append(effect.name)
        places.append(random.index(effect) if effect in random else -1)
        squares.append(float((own @ b) @ M @ (own @ b)))
        df.append(len(L))
        expected.append([*np.where(np.abs(values) > NOTHING, values, 0.0), 1.0])
        fixed.append(tuple(e.name for e in used if e not in random and e != GLMEffect()))
    rest = y - X @ b
    return AnalysisOfVariance(
        (*names, "Residual"),
        (*(effect.name for effect in random), "Residual"),
        np.array([*places, k]),
        np.array([*squares, float(rest @ rest)]),
        np.array([*df, n - space.rank]),
        np.array([*expected, [*[0.0] * k, 1.0]]),
        (*fixed, ()),
        np.array([*(float(np.prod([sizes[name] for name in effect.continuous])) ** 2 for effect in random), 1.0]),
    )


def _whole_effect(random: RandomEffect, translation: Translation) -> GLMEffect:
    """A random effect with its subject as one effect."""
    effect = random.effect
    if not random.subject:
        return effect
    rank = {name: i for i, name in enumerate(translation.program.class_names)}
    crossed = sorted({*effect.crossed, *(set(random.subject) - set(effect.nested))}, key=lambda name: rank.get(name, len(rank)))
    return GLMEffect(effect.continuous, tuple(crossed), effect.nested)


def _layout(translation: Translation, rows: ProgramRows, random: list[GLMEffect]) -> tuple[GLMLayout, Array, dict[str, float]]:
    """The columns with covariates of mean square near 1, the response, and what each covariate was divided by: a power of 2."""
    effects = tuple(dict.fromkeys((*translation.effects, *random)))
    used = rows.used
    classes = {name: rows.at(name) for name in class_variables(effects)}
    covariate_values = {name: rows.frame[name].to_numpy(np.float64)[used] for name in covariate_names(effects)}
    sizes = {name: 2.0 ** round(np.log2(float(np.sqrt(np.mean(values**2))) or 1.0)) for name, values in covariate_values.items()}
    covariates = {name: values / sizes[name] for name, values in covariate_values.items()}
    layout = glm_columns(effects, classes, covariates, int(used.sum()), intercept=translation.intercept)
    y = rows.frame[translation.program.model.response].to_numpy(np.float64)[used]
    if weight := translation.program.weight:
        root = np.sqrt(rows.frame[weight].to_numpy(np.float64)[used])
        return replace(layout, X=layout.X * root[:, None], near=layout.near * root[:, None]), y * root, sizes
    return layout, y, sizes


def variance_table(translation: Translation, rows: ProgramRows, kind: int) -> pd.DataFrame:
    """Source, DF, SS, MS, EMS, ErrorTerm, ErrorDF, FValue, ProbF."""
    found = analysis_of_variance(translation, rows, kind)
    mean = found.mean_squares
    table = []
    for i, source in enumerate(found.sources):
        error = found.error(i)
        row = {"Source": source, "DF": int(found.df[i]), "SS": found.squares[i], "MS": mean[i], "EMS": _expectation(found, i)}
        row |= {"ErrorTerm": "", "ErrorDF": np.nan, "FValue": np.nan, "ProbF": np.nan}
        if error is not None and found.df[i] > 0:
            parts = np.where(error != 0.0, error * mean, 0.0)
            total = float(parts.sum())
            df = total**2 / float((parts[error != 0.0] ** 2 / found.df[error != 0.0]).sum())
            F = mean[i] / total if total > 0 else np.nan
            text = _combination([(value, f"MS({name})") for value, name in zip(error, found.sources, strict=True)])
            row |= {"ErrorTerm": text, "ErrorDF": df, "FValue": F, "ProbF": float(special.fdtrc(found.df[i], df, F))}
        table.append(row)
    return pd.DataFrame(table)


def _expectation(found: AnalysisOfVariance, row: int) -> str:
    shown = found.expected[row] * found.units
    terms = [(shown[-1], "Var(Residual)")]
    terms += [(value, f"Var({name})") for value, name in reversed(list(zip(shown[:-1], found.components, strict=False)))]
    text = _combination(terms)
    return f"{text} + Q({','.join(found.fixed[row])})" if found.random[row] < 0 and found.fixed[row] else text


def _combination(terms: list[tuple[float, str]]) -> str:
    """`Var(Residual) + 2 Var(a*b)`: as SAS prints it, four decimals and no more."""
    text = ""
    for value, name in terms:
        size = f"{abs(value):.4f}".rstrip("0").rstrip(".") if abs(value) >= 1e-4 else f"{abs(value):.4g}"
        if value == 0.0:
            continue
        sign = (" - " if value < 0 else " + ") if text else ("-" if value < 0 else "")
        text += sign + (name if size == "1" else f"{size} {name}")
    return text


# -- which point a program asks for ------------------------------------------------------------------------------------------------------


def without_bounds(translation: Translation) -> bool:
    """Whether the variances do not come from a likelihood that is maximised at or above 0."""
    proc = translation.program.proc
    return proc.method not in {"reml", "ml"} or proc.nobound


def require_components(translation: Translation) -> None:
    """Refuse what is there for variance components alone."""
    program, proc = translation.program, translation.program.proc
    word = "NOBOUND" if proc.method in {"reml", "ml"} else f"METHOD={proc.method.upper()}"
    wrong = (
        "REPEATED" if program.repeated is not None else "PARMS" if program.parms is not None else "EMPIRICAL" if proc.empirical else ""
    ) or next((f"TYPE={r.type.text}" for r in program.random if r.type != VC), "")
    wrong = wrong or ("GROUP=" if any(r.group is not None for r in program.random) else "")
    if wrong and not (word == "NOBOUND" and wrong != "EMPIRICAL"):
        raise SpecificationError(f"{word} is for variance components, not with {wrong}", proc.spot, "method=reml, or leave it out")


def components_point(translation: Translation, rows: ProgramRows, fit: Fit, bounded: Array) -> ComponentsPoint | None:
    """The covariance that METHOD= or NOBOUND gives; None where it is that of the fit.

    bounded : the covariance parameters of the fit, whose variances stay at or above 0
    """
    method = translation.program.proc.method
    if not without_bounds(translation):
        return None
    if method in {"reml", "ml"} and not fit.singular:
        return None
    program = translation.program
    if program.repeated is not None or any(r.type != VC or r.group is not None for r in program.random) or program.parms is not None:
        what = "a variance ends at 0, and NOBOUND goes below it for variance components alone"
        raise SpecificationError(what, program.proc.spot, "random effects of TYPE=VC without REPEATED; or leave NOBOUND out")
    cells = [random_cells(rows, effect) for effect in translation.random]
    model = linear_model(fit, [_indicators(cell.codes, cell.values) for cell in cells])
    start = model.quadratic_start()
    if method in TYPES:
        t = analysis_of_variance(translation, rows, TYPES[method]).variances()
    elif method == "mivque0":
        t = start if program.proc.nobound else np.maximum(start, 0.0)
    else:
        least = 1e-6 * float((bounded / model.units).max()) * model.units
        return model.maximise([start, np.maximum(bounded, least), np.append(np.zeros(len(cells)), start[-1])])
    point = model.at(t)
    if point is None:
        shown = ", ".join(f"{v:g}" for v in t)
        raise SpecificationError(f"the covariance with the variances {shown} is not positive definite", program.proc.spot, "method=reml")
    return point


def _indicators(codes: Codes, values: Array) -> Array:
    levels, place = np.unique(codes, return_inverse=True)
    Z = np.zeros((len(codes), len(levels)))
    Z[np.arange(len(codes)), place] = values
    return Z
