"""Rank of X, covariance parameters that the data do not identify, and columns beyond floating-point range.

A level with as many independent rows as its terms have columns tells every parameter of any structure. Where no level has, as in
`(1 | g) + (0 + f | g)`, whose second term contains the first, or where terms of a nested factor stand beside, as in
`(0 + f | g) + (1 | g:f)`, the derivatives of `sum Z Sigma Z'` in the parameters are compared over the levels: dependent ones say that
parameters can be moved together without anything to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.registry import is_unstructured
from bayeslmm.data.design import RandomTerm, ResidualDesign, VarianceDesign
from bayeslmm.data.frame import values_text
from bayeslmm.errors import Check, DataError, IdentifiabilityError

FEW_SUBJECTS_CHECK = "few_complete_subjects"
_PATTERNS = 500  # sets of visits looked at; a study has tens
_FITTED = (
    1e-12  # eigenvalue of products, relative to the largest, above which a direction is there: they square what rounding leaves of one
)


def lag_without_pairs(residual: ResidualDesign, remedy: str) -> list[IdentifiabilityError]:
    """A lag of a Toeplitz structure at which no subject has two visits."""
    if residual.name not in ("toep", "toeph") or residual.visit is None:
        return []
    places = residual.visit if not residual.positions else np.array(residual.positions)[residual.visit]
    span = int(places.max()) + 1
    seen = np.zeros(span, dtype=bool)
    order = np.lexsort((places, residual.subject.codes))
    subject, place = residual.subject.codes[order], places[order]
    for ahead in range(1, min(span, len(place))):
        together = subject[ahead:] == subject[:-ahead]
        if not together.any():
            break
        seen[(place[ahead:] - place[:-ahead])[together]] = True
    bands = min(residual.order if isinstance(residual.order, int) else span, span)
    absent = [lag for lag in range(1, bands) if not seen[lag]]
    if not absent:
        return []
    what = f"no subject has two visits {absent[0]} steps apart: their correlation has no data"
    where = f"{residual.spec.text}; lags without a pair: {values_text(absent)}"
    return [IdentifiabilityError(what, where, remedy)]


def outcomes_apart(residual: ResidualDesign, remedy: str) -> list[IdentifiabilityError]:
    """Two outcomes of a product such as us@ar1 that no subject has both of."""
    if not residual.name.startswith("us@") or residual.visit is None:
        return []
    outer, inner = residual.shape
    has = np.zeros((residual.subject.size, outer))
    has[residual.subject.codes, residual.visit // inner] = 1.0
    absent = np.argwhere(np.tril(has.T @ has == 0, -1))
    if not len(absent):
        return []
    a, b = (str(residual.axes[0][int(i)]) for i in absent[0][::-1])
    what = f"no subject has both {a!r} and {b!r} of {residual.spec.visit[0]!r}: their covariance has no data"
    return [IdentifiabilityError(what, residual.spec.text, remedy)]


def few_complete(residual: ResidualDesign | None, X: Array) -> list[Check]:
    """A note where the subjects that have some visits together are too few to keep an unstructured covariance of those from being singular.

    Subjects who have m visits give points in m dimensions. Where their number, less the r dimensions that the fixed effects can fit, is
    below m, a plane goes through all of them: the covariance may be singular across it, and the likelihood grows without a bound. Other
    subjects, who lack one of the visits, do not see the plane.
    """
    if residual is None or residual.visit is None or not is_unstructured(residual.name, residual.order):
        return []
    groups = np.zeros(len(X), dtype=np.int64) if residual.group is None else residual.group.codes
    basis = cache(partial(_basis, X))
    found = []
    for at in range(1 if residual.group is None else residual.group.size):
        rows = np.flatnonzero(groups == at)
        subjects, codes = np.unique(residual.subject.codes[rows], return_inverse=True)
        visit = residual.visit[rows]
        has = np.zeros((len(subjects), len(residual.visit_levels)), dtype=bool)
        has[codes, visit] = True
        found += few_together(residual, at, has, np.ones(len(has)), X.shape[1], partial(_combined_products, basis, rows, codes, visit, has))
    return found


def few_together(
    residual: ResidualDesign, at: int, has: NDArray[np.bool_], counts: Array, p: int, products: Callable[[NDArray[np.bool_], Array], Array]
) -> list[Check]:
    """The note of `few_complete` about one group of parameters, if any.

    has : (C, visits) sets of visits that subjects have; counts : (C,) subjects; p : fixed effects
    products : (p, p) from a set of visits and a combination a of them: sum of (a'X)'(a'X) over the subjects who have all of the set,
    in columns of X that are orthogonal over all rows
    """
    patterns, of = np.unique(has, axis=0, return_inverse=True)
    counts = np.bincount(of.ravel(), counts, len(patterns))
    tried = patterns[np.argsort(-patterns.sum(axis=1), kind="stable")][:_PATTERNS]
    for visits in tried[tried.sum(axis=1) >= 2]:
        size, count = int(visits.sum()), int(counts[patterns[:, visits].all(axis=1)].sum())
        if count > size - 1 + p:
            continue
        # a combination that is nothing special
        a = np.where(visits, np.random.default_rng(0).standard_normal(len(visits)), 0.0)
        fitted = int(np.linalg.matrix_rank(products(visits, a), rtol=_FITTED, hermitian=True)) if p else 0
        if fitted < count <= size - 1 + fitted:
            labels = values_text([residual.visit_levels[i] for i in np.flatnonzero(visits)])
            within = "" if residual.group is None else f" in {residual.group.name} {residual.group.levels[at]!r}"
            value = f"{count} subjects{within} have the {size} visits {labels} together"
            remedy = (
                "with so few the likelihood has no maximum, since it grows as the covariance of these visits becomes singular, and an "
                'estimate is a local optimum: use a structure with fewer parameters, or priors and fit("MAP") or sample()'
            )
            return [Check(FEW_SUBJECTS_CHECK, "noted", value, remedy=remedy)]
    return []


def _combined_products(
    basis: Callable[[], Array], rows: Codes, codes: Codes, visit: Codes, has: NDArray[np.bool_], visits: NDArray[np.bool_], a: Array
) -> Array:
    """`products` of `few_together` from rows in memory."""
    place = np.cumsum(has[:, visits].all(axis=1)) - 1
    place[~has[:, visits].all(axis=1)] = -1
    own = (place[codes] >= 0) & visits[visit]
    Q = basis()
    combined = np.zeros((int(place.max(initial=-1)) + 1, Q.shape[1]))
    np.add.at(combined, place[codes[own]], a[visit[own], None] * Q[rows[own]])
    return np.asarray(combined.T @ combined)


GIVE_PRIORS = 'give priors and use fit("MAP") or sample(); or check="warn" to go on'
_INSIDE = 1e-9  # what is left of a column outside the fixed effects, relative to its length, is rounding
_SURELY_OUTSIDE = 1e-3  # share that no rounding of columns that count as independent leaves outside
_MORE_ROWS = 100  # rows beyond as many as columns on which they are first compared
_LARGEST = 1e151
_NARROW = 16


def lost_in_fixed(terms: Sequence[RandomTerm], X: Array) -> tuple[IdentifiabilityError, ...]:
    """Columns of random terms all of whose effects the fixed effects can mimic: their variance does not change the restricted likelihood.

    What lies in the span of X on all rows does so on some of them: a few more rows than columns tell nearly always that it does not.
    """

    @cache
    def sampled() -> tuple[NDArray[np.int64], Array]:
        rows = np.random.default_rng(1).choice(len(X), min(len(X), X.shape[1] + _MORE_ROWS), replace=False)
        return rows, _basis(X[rows])

    @cache
    def basis() -> Array:
        return _basis(X)

    def is_inside(number: int, column: int, effect: Array) -> bool:
        term = terms[number]
        values = term.Z[:, column] * effect[term.group.codes]
        rows, some = sampled()
        return _outside(values[rows], some) <= _SURELY_OUTSIDE and _outside(values, basis()) <= _INSIDE

    return find_lost(terms, X.shape[1], is_inside)


def find_lost(terms: Sequence[RandomTerm], width: int, is_inside: Callable[[int, int, Array], bool]) -> tuple[IdentifiabilityError, ...]:
    """The same by a test of columns. is_inside : of a term, a column and an effect of each level: whether it lies in the span of X

    An effect of every level drawn at random lies in the span of X with probability 0 unless all do.
    """
    found, rng = [], np.random.default_rng(0)
    for number, term in enumerate(terms):
        A = term.relationship
        if width == 0 or (A is None and term.group.size > width):
            continue
        effect = rng.standard_normal(term.group.size)
        effect = effect if A is None else A @ effect
        for j, name in enumerate(term.columns):
            inside = is_inside(number, j, effect)
            if not inside and term.covariance.homogeneous:
                break  # a variance that another column shares is told by that one
            if inside and (j == len(term.columns) - 1 or not term.covariance.homogeneous):
                what = f"the fixed effects contain every effect of {name!r} in ({term.spec.text}): its variance cannot be estimated"
                where = f"{term.group.size} levels of {term.group.name!r}, {width} fixed effects"
                found.append(IdentifiabilityError(what, where, f"drop the random term, or the fixed one; or {GIVE_PRIORS}"))
                break
    return tuple(found)


def _basis(X: Array) -> Array:
    size = np.linalg.norm(X, axis=0)
    return np.linalg.qr(X / np.where(size > 0.0, size, 1.0))[0]


def _outside(column: Array, basis: Array) -> float:
    """What of a column is outside a span, relative to its length; 0 of a column of zeros."""
    length = float(np.linalg.norm(column))
    return float(np.linalg.norm(column - basis @ (basis.T @ column))) / length if length > 0.0 else 0.0


def single_row_strata(variance: Sequence[VarianceDesign]) -> tuple[IdentifiabilityError, ...]:
    """Strata of `ident()` with one row: a standard deviation of 0 there leaves the likelihood without a bound."""
    found = []
    for factor in variance:
        if factor.kind != "ident" or factor.strata is None:
            continue
        alone = np.flatnonzero(np.bincount(factor.strata, minlength=len(factor.labels)) == 1)
        if len(alone):
            shown = values_text([factor.labels[i] for i in alone])
            what = f"levels of {factor.spec.covariate!r} have one row, which has no sd of its own: {shown}"
            found.append(IdentifiabilityError(what, f"ident({factor.spec.covariate})", f"join levels; or {GIVE_PRIORS}"))
    return tuple(found)


def check_not_extreme(columns: Array, names: Sequence[str]) -> None:
    """Refuse columns whose squares would overflow or vanish."""
    if not columns.size:
        return
    if columns.shape[1] <= _NARROW:  # extremes down the columns of a long matrix of short rows take twenty times as long
        extremes = [(column.max(), column.min()) for column in columns.T]
    else:
        extremes = list(zip(columns.max(axis=0), columns.min(axis=0), strict=True))
    for name, (high, low) in zip(names, extremes, strict=True):
        size = max(high, -low)
        if size > _LARGEST or 0.0 < size < 1.0 / _LARGEST:
            what = f"the values of {name!r} are of size {size:.3g}, whose square is no number"
            raise DataError(what, f"column {name!r}", "change its unit")


_DEPENDENT = 1e-9  # smallest singular value, relative, of derivatives that differ
_CONDITIONED = 1e4  # condition of the cross-products of a term's columns up to which they are as good as orthogonal
_PARAMETERS, _LEVELS = 120, 2000  # beyond either the comparison would cost more than it tells


def undetermined_terms(terms: Sequence[RandomTerm], *, free_errors: bool) -> list[Check]:
    """A note for every grouping factor whose terms do not determine their covariances; priors do.

    free_errors : the errors are independent with one variance, which then is one of the parameters
    """
    groups: dict[str, list[RandomTerm]] = {}
    for term in terms:
        if term.relationship is None and term.group.size > 1:
            groups.setdefault(term.group.name, []).append(term)
    found = []
    for name, members in groups.items():
        by_factor = any(_has_factor(term) for term in members)
        if len(members) == 1 and not by_factor:
            continue
        missing = _lacking_directions(members, free_errors=free_errors)
        if not missing and by_factor:  # (1 | g:f) is part of (0 + f | g)
            inner = [term for other, own in groups.items() if other != name for term in own if _is_nested(term, members[0])]
            members = [*members, *inner]
            missing = _lacking_directions(members, free_errors=free_errors) if inner else 0
        if missing:
            text, size = " + ".join(_term_text(term) for term in members), sum(term.covariance.size for term in members)
            value = f"{text}: {missing} of {size} parameters cannot be told from the others"
            remedy = "the fit is one of many with the same likelihood: leave out the term or the columns that another term contains"
            if by_factor and any(term.spec.text.startswith("0 + ") for term in members):  # what `(f || g)` is read as
                remedy += "; uncorrelated coefficients of a factor are diag(f | g)"
            found.append(Check("repeated_parameters", "noted", value, remedy=remedy))
    return found


def _is_nested(inner: RandomTerm, outer: RandomTerm) -> bool:
    """Whether every level of the one lies within a level of the other."""
    if inner.group.size <= outer.group.size:
        return False
    holder = np.zeros(inner.group.size, np.int64)
    holder[inner.group.codes] = outer.group.codes
    return bool((holder[inner.group.codes] == outer.group.codes).all())


def _term_text(term: RandomTerm) -> str:
    return f"{'' if term.spec.structure == 'us' else term.spec.structure}({term.spec.text})"


def _has_factor(term: RandomTerm) -> bool:
    return len(term.columns) > 1 and any("[" in name for name in term.columns)


def _lacking_directions(terms: Sequence[RandomTerm], *, free_errors: bool) -> int:
    """By how many the independent directions fall short of the parameters; 0 where the comparison would cost more than it tells.

    terms : those of one grouping factor, and perhaps of others nested in it behind them
    """
    if sum(term.covariance.size for term in terms) > _PARAMETERS:
        return 0
    codes, Z = terms[0].group.codes, np.concatenate([_standardize_Z(term) for term in terms], axis=1)
    counts = np.bincount(codes)
    within = [term.group.codes if term.group.name != terms[0].group.name else None for term in terms]
    if not any(own is not None for own in within):
        widest = Z[codes == int(np.argmax(counts))]
        if len(widest) >= Z.shape[1] + free_errors and np.linalg.matrix_rank(widest) == Z.shape[1]:
            return 0
    moves = _parameter_moves(terms, Z.shape[1])
    size = len(moves) + free_errors
    R = np.zeros((0, size))
    for rows in _levels(codes, counts, [own for own in within if own is not None]):
        own = Z[rows]
        V = np.einsum("ia,kab,jb->kij", own, moves, own)
        begin = 0
        for term, inner in zip(terms, within, strict=True):
            stop = begin + term.covariance.size
            if inner is not None:
                V[begin:stop] *= inner[rows][:, None] == inner[rows]
            begin = stop
        V = np.concatenate([V, np.eye(len(own))[None]]) if free_errors else V
        R = np.linalg.qr(np.vstack([R, V.reshape(size, -1).T]), mode="r")
        if len(R) == size and _rank(R) == size:
            return 0
    return size - _rank(R)


def _standardize_Z(term: RandomTerm) -> Array:
    """Z of a term with columns of size 1; orthogonal where they are nearly collinear and its structure is closed under such a change."""
    Z = np.asarray(term.Z / np.maximum(np.sqrt(np.mean(term.Z**2, axis=0)), 1e-300))
    q = Z.shape[1]
    if q == 1 or term.covariance.invariance != "any" or np.linalg.cond(Z.T @ Z) < _CONDITIONED:
        return Z
    near = term.near_Z
    flat = [j for j in range(q) if np.ptp(near[:, j]) == 0.0]
    order = [*flat[:1], *(j for j in range(q) if j not in flat[:1])]
    moved = near[:, order]
    if len(column_rank(moved, intercept=bool(flat)).kept) < q:
        return Z
    if flat:
        moved[:, 1:] -= moved[:, 1:].mean(axis=0)
    return np.asarray(np.linalg.qr(moved / np.sqrt(np.mean(moved**2, axis=0)))[0] * np.sqrt(len(Z)))


def _levels(codes: Codes, counts: Codes, inner: Sequence[Codes]) -> Iterator[Codes]:
    """The rows of the levels, those with many rows first; of each as many rows as settle the matter, by whole levels of inner factors."""
    order = np.lexsort((*inner, codes))
    starts = np.concatenate([[0], np.cumsum(counts)])
    for level in np.argsort(-counts, kind="stable")[:_LEVELS]:
        rows = order[starts[level] : starts[level + 1]]
        if len(rows) <= 40:
            yield rows
        elif not inner:
            yield rows[np.linspace(0, len(rows) - 1, 40).astype(np.int64)]
        else:
            spaced = rows[np.linspace(0, len(rows) - 1, 20).astype(np.int64)]
            yield np.unique(np.concatenate([spaced, rows[np.isin(inner[0][rows], np.unique(inner[0][rows])[:10])][:40]]))


def _parameter_moves(terms: Sequence[RandomTerm], width: int) -> Array:
    """dSigma of every parameter at a point that is nothing special, (size, width, width), block after block."""
    rng, found, begin = np.random.default_rng(0), [], 0
    for term in terms:
        covariance = term.covariance
        x = covariance.start() + 0.1 * rng.standard_normal(covariance.size)
        move = np.zeros((covariance.size, width, width))
        move[:, begin : begin + covariance.q, begin : begin + covariance.q] = covariance.matrix_derivative(x)
        found.append(move)
        begin += covariance.q
    return np.concatenate(found)


def _rank(R: Array) -> int:
    size = np.linalg.norm(R, axis=0)
    values = np.linalg.svd(R / np.where(size > 0, size, 1.0), compute_uv=False)
    return int((values > _DEPENDENT * values[0]).sum()) if len(values) and values[0] > 0 else 0


# A column whose part outside the earlier ones is below this fraction of its length is a combination of them: above what ten printed digits
# leave (1e-10), and below what is left of a factor's product with a covariate that starts 1e9 of its standard deviations away (8e-10).
RANK_TOLERANCE = 2e-10
CONDITION_LIMIT = 1e5
_SAFE = 1e-6  # squared fraction above which the cross-products, which square the condition, still decide
_CONSTANT = 1e-14  # a column that moves less than this about its mean is constant to rounding


@dataclass(frozen=True, slots=True)
class Rank:
    """kept : positions of independent columns, in order; condition : of those, scaled, and centred where they hold a constant."""

    kept: tuple[int, ...]
    condition: float


def column_rank(X: Array, *, intercept: bool) -> Rank:
    """The columns that do not depend on earlier ones.

    intercept : whether the first column is constant
    """
    rows, size = X.shape
    if size <= rows and size - intercept <= 1:
        independent, condition = size == intercept or _varies(X[:, -1], centred=intercept), 1.0
    else:
        root = _plain_root(X, intercept=intercept)
        independent, condition = root is not None, 1.0 if root is None else float(np.linalg.cond(root))
    return Rank(tuple(range(size)), condition) if independent else _orthogonalize(X)


def _varies(column: Array, *, centred: bool) -> bool:
    """Whether cross-products say that a column is not 0, or not constant; what they leave in doubt they do not say."""
    raw, total = float(column @ column), float(column.sum()) if centred else 0.0
    return raw - total * total / len(column) > _SAFE * raw


def _plain_root(X: Array, *, intercept: bool) -> Array | None:
    """A Cholesky factor of the correlations, where it says full rank: one pass over the rows, enough for all but doubtful designs."""
    rows, size = X.shape
    if rows < size:
        return None
    gram = X.T @ X
    raw = np.diag(gram).copy()
    if intercept:
        gram = gram[1:, 1:] - np.outer(gram[0, 1:], gram[0, 1:]) / rows
        raw = raw[1:]
    scale = np.diag(gram)
    if not (scale > _SAFE * raw).all():
        return None
    sizes = np.sqrt(scale)
    try:
        root = np.linalg.cholesky(gram / (sizes[:, None] * sizes))
    except np.linalg.LinAlgError:
        return None
    return root if (np.diag(root) ** 2 > _SAFE).all() else None


def _orthogonalize(X: Array) -> Rank:
    """Gram-Schmidt, twice, column by column; columns are centred as soon as the constant is in the span of those before."""
    rows, size = X.shape
    Q = np.empty((rows, min(rows, size)))
    R = np.zeros((size, size))
    constant = np.full(rows, 1.0 / np.sqrt(rows))  # what of the constant is outside the span so far
    centred = False
    kept: list[int] = []
    for j in range(size):
        column = X[:, j] - X[:, j].mean() if centred else X[:, j].copy()
        length, raw = float(np.linalg.norm(column)), float(np.linalg.norm(X[:, j]))
        if length <= _CONSTANT * raw or len(kept) == rows:
            continue
        column /= length
        basis = Q[:, : len(kept)]
        for _ in range(2):
            part = basis.T @ column
            column -= basis @ part
            R[: len(kept), len(kept)] += part
        outside = float(np.linalg.norm(column))
        if outside <= RANK_TOLERANCE:
            R[:, len(kept)] = 0.0
            continue
        Q[:, len(kept)] = column / outside
        R[len(kept), len(kept)] = outside
        constant -= Q[:, len(kept)] * (Q[:, len(kept)] @ constant)
        kept.append(j)
        centred = centred or bool(np.linalg.norm(constant) < 1e-8)
    independent = R[: len(kept), : len(kept)]
    return Rank(tuple(kept), float(np.linalg.cond(independent)) if kept else 1.0)
