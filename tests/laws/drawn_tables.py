"""Random models with their descriptions for the dense tables, and what of a fit differs from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import studentized_range

import bayeslmm as blm
from bayeslmm.errors import InferenceError
from tests.laws.dense_tables import Array, DenseFit, Description, RandomTerm, Term

FIXED: tuple[tuple[Term, ...], ...] = (
    ((), ("x",)),
    ((), ("a",), ("x",)),
    ((), ("a",), ("b",)),
    ((), ("a",), ("b",), ("a", "b")),
    ((), ("a",), ("x",), ("a", "x")),
    ((), ("a",), ("b",), ("x",), ("a", "b"), ("a", "x")),
    ((), ("a",), ("b",), ("x",), ("a", "b"), ("a", "x"), ("b", "x"), ("a", "b", "x")),
    ((), ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")),
    ((), ("a",), ("b",), ("z",), ("a", "b")),
    ((), ("x",), ("z",), ("x", "z")),
    ((), ("b",), ("x",), ("z",), ("b", "z")),
)

RANDOM: tuple[tuple[RandomTerm, ...], ...] = (
    (RandomTerm(("1",), ("g",)),),
    (RandomTerm(("1",), ("g",)),),
    (RandomTerm(("1", "x"), ("g",)),),
    (RandomTerm(("1", "z"), ("g",), correlated=False),),
    (RandomTerm(("1",), ("g",)), RandomTerm(("1",), ("h",))),
    (RandomTerm(("1", "z"), ("g",)), RandomTerm(("1",), ("h",))),
    (RandomTerm(("1",), ("g",)), RandomTerm(("1",), ("g", "h"))),
    (RandomTerm(("z",), ("g",)),),
)

ERRORS = (None, None, None, None, "ident", "ar1", "cs", "us")
"""Errors of the first seeds."""

STRUCTURES = ("cs", "toep", "csh", "ar1h", "toeph", "adh", "ar1", "us")
"""Errors of those from WIDER on."""

WIDER = 200
"""From this seed on visits have every structure, weights odd units, and rows of few subjects are left out."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A description, the arguments of LMM, and what recodes its data."""

    seed: int
    about: Description
    formula: str
    options: dict[str, Any]
    recoded: pd.DataFrame
    contrasts: dict[str, str] | None
    scale: float
    shift: float
    unit: float
    new: pd.DataFrame

    def fit(self) -> blm.Fit:
        return blm.LMM(self.formula, self.about.data, check="warn", **self.options).fit(self.method)

    def fit_recoded(self) -> blm.Fit:
        return blm.LMM(self.formula, self.recoded, check="warn", contrasts=self.contrasts, **self.options).fit(self.method)

    @property
    def method(self) -> str:
        return "REML" if self.about.restricted else "ML"

    def moved(self, data: pd.DataFrame) -> pd.DataFrame:
        """Rows in the units of the recoded data."""
        return data.assign(x=data["x"] * self.scale + self.shift, w=data["w"] * self.unit)


def drawn(seed: int) -> Drawn:
    """The model of a seed, always the same."""
    r = np.random.default_rng(900_000 + seed)
    terms = FIXED[r.integers(len(FIXED))]
    wider = seed >= WIDER
    kind = STRUCTURES[r.integers(len(STRUCTURES))] if wider and r.random() < 0.6 else ERRORS[r.integers(len(ERRORS))]
    levels = {"a": list("pqrs")[: r.integers(2, 5)], "b": ["u", "v", "w"][: r.integers(2, 4)], "c": ["k", "l"], "t": ["1", "2", "3", "4"]}
    subjects = int(r.integers(14, 30) if wider else r.integers(6, 14))
    g, t = (v.ravel() for v in np.indices((subjects, 4)))
    copies = 1 if kind not in (None, "ident") else int(r.integers(1, 3))
    g, t = np.tile(g, copies), np.tile(t, copies)
    keep = r.random(len(g)) < r.choice([1.0, 0.85])
    g, t = g[keep], t[keep]
    n = len(g)
    data = pd.DataFrame({"g": [f"g{i:02d}" for i in g], "h": [f"h{i}" for i in r.integers(0, 5, n)], "t": [levels["t"][i] for i in t]})
    for name in "abc":
        whole = r.random() < 0.3  # a factor of the groups
        codes = r.integers(0, len(levels[name]), subjects)[g] if whole else r.integers(0, len(levels[name]), n)
        data[name] = [levels[name][i] for i in codes]
    data["x"] = np.round(r.normal(2.0, 1.0, n) * 1024) / 1024
    data["z"] = r.normal(size=n)
    data["w"], data["o"] = r.uniform(0.4, 2.5, n), r.normal(size=n)
    if r.random() < 0.3:  # an empty cell
        data = data[~((data["a"] == levels["a"][-1]) & (data["b"] == levels["b"][-1]))].reset_index(drop=True)
    levels = {name: sorted(set(data[name])) for name in levels}
    if len(data) < 40:
        terms, kind = FIXED[r.integers(6)], None
    random = (
        RANDOM[r.integers(len(RANDOM))]
        if kind in (None, "ident")
        else (() if r.random() < 0.7 or kind not in ("ar1", "adh") else RANDOM[0])
    )
    effects = r.normal(size=(subjects, 3))[[int(v[1:]) for v in data["g"]]] * r.choice([0.5, 1.5, 4.0])
    y = effects[:, 0] + effects[:, 1] * (data["x"] - 2.0) + effects[:, 2] * data["z"] * 0.7
    y = y + r.normal(size=5)[[int(v[1:]) for v in data["h"]]] + data["x"] + (data["a"] == "q") * (1 + (data["b"] == "v"))
    data["y"] = y + r.normal(size=len(data)) * np.where(data["b"] == "v", 1.5, 1.0)
    weights, offset = ("w" if r.random() < 0.25 else None), ("o" if r.random() < 0.2 else None)
    residual = {None: None, "ident": ("ident", "b")}.get(kind, (str(kind), "t", "g"))
    factors = {name: levels[name] for name in "abct"}
    about = Description(data, factors, terms, random, residual, weights, offset, bool(r.random() < 0.7))
    scale = float(2.0 ** r.choice([-20, 0, 20]))
    hierarchical = not any("x" in term.columns and not ("1" in term.columns and term.correlated) for term in random)
    shift = float(r.choice([0.0, 2.0**30])) * scale if hierarchical else 0.0
    order = r.permutation(len(data))
    unit = float(2.0 ** r.choice([-30, 0, 30])) if wider and weights else 1.0
    recoded = data.assign(w=data["w"] * unit, x=data["x"] * scale + shift).iloc[order].reset_index(drop=True)
    for name in ("a", "b", "c"):
        recoded[name] = pd.Categorical(recoded[name], list(r.permutation(levels[name])))
    coded = {name: str(r.choice(["treatment", "sum", "helmert"])) for name in "abc" if any(name in term for term in terms)}
    options: dict[str, Any] = {"weights": weights, "offset": offset}
    if kind == "ident":
        options["variance"] = "ident(b)"
    elif kind is not None:
        options["residual"] = f"{kind}(t | g)"
        recoded["t"] = pd.Categorical(recoded["t"], levels["t"], ordered=True)
        data["t"] = pd.Categorical(data["t"], levels["t"], ordered=True)
    new = data.sample(8, random_state=seed).reset_index(drop=True).assign(x=lambda d: d["x"] + 0.5)
    formula = "y ~ " + " + ".join([":".join(term) or "1" for term in terms] + [_bar(term) for term in random])
    return Drawn(seed, about, formula, options, recoded, coded or None, scale, shift, unit, new)


def _bar(term: RandomTerm) -> str:
    columns = " + ".join(term.columns) if term.columns[0] == "1" else "0 + " + " + ".join(term.columns)
    return f"({columns} {'|' if term.correlated else '||'} {':'.join(term.groups)})"


def variances(about: Description, fit: blm.Fit) -> Array:
    """p of the dense tables from what the fit prints."""
    table, found = fit.varcorr, []
    for term in about.random:
        own = table[table["group"] == ":".join(term.groups)]
        names = ["Intercept" if name == "1" else name for name in term.columns]
        for i, one in enumerate(names):
            for j in range(i + 1):
                pair = {one, names[j]}
                if i == j:
                    found.append(own[(own["term1"] == one) & own["term2"].isna()]["variance"].item())
                elif term.correlated:
                    found.append(next(row.variance for row in own.itertuples() if {row.term1, row.term2} == pair))
    printed = fit.tidy("ran_pars").set_index("term")["estimate"]
    if about.residual is None:
        return np.array([*found, fit.sigma**2])
    kind = about.residual[0]
    if kind == "ident":
        names = about.factors[about.residual[1]]
        return np.array([*found, *(fit.sigma**2 * printed.get(f"ratio[{name}]", 1.0) ** 2 for name in names)])
    if kind == "us":
        names = about.factors["t"]
        own = [(i, j) for i in range(len(names)) for j in range(i + 1)]
        return np.array([*found, *(printed[f"var[{names[i]}]" if i == j else f"cov[{names[i]},{names[j]}]"] for i, j in own)])
    lags = [name for name in printed.index if name.startswith("rho")]
    sizes = [printed[f"sd[{name}]"] for name in about.factors["t"]] if kind.endswith("h") else [fit.sigma**2]
    return np.array([*found, *sizes, *printed[lags]])


def interior(dense: DenseFit) -> bool:
    """Whether every D and V are far from singular and the criterion is curved enough to speak of degrees of freedom."""
    for D in dense.matrices(dense.p):
        sd = np.sqrt(np.maximum(np.diag(D), 0))
        if (sd <= 1e-3 * np.sqrt(dense.V.diagonal().mean())).any() or np.linalg.eigvalsh(D / np.outer(sd, sd))[0] < 0.02:
            return False
    return True


def differences(case: Drawn) -> Iterator[tuple[str, Any, Any]]:
    """(what, the package's numbers, the definition's) of every table, for the plain and the recoded fit."""
    about = case.about
    plain, recoded = case.fit(), case.fit_recoded()
    if not all(fit.converged and "bounded" not in fit.checks for fit in (plain, recoded)):
        return  # where the likelihood has no maximum the two stand at any two points
    dense = DenseFit(about, variances(about, plain))
    known = {name for fit in (plain, recoded) for name in fit.checks}
    inner = interior(dense) and not plain.singular and not recoded.singular and not known & {"identifiability", "repeated_parameters"}
    order = np.random.default_rng(case.seed)
    sets = order.normal(size=(3, len(case.new))) * dense.estimable(about.X(case.new))
    for label, fit, new in (("plain", plain, case.new), ("recoded", recoded, case.moved(case.new))):
        L = sets @ about.X(case.new)
        rows = fit.design.encoding.encode_fixed(new)[0]
        table = fit.contrast(sets @ rows, df="asymptotic").frame
        for row in rows[~dense.estimable(about.X(case.new))]:
            yield f"{label} contrast refused", _is_refused(fit, row), True
        yield f"{label} contrast", table["estimate"], L @ dense.alpha
        yield f"{label} contrast se", table["std_error"], np.sqrt(np.einsum("ij,jk,ik->i", L, dense.C, L))
        if inner:
            yield f"{label} contrast df", fit.contrast(sets @ rows).frame["df"], [dense.satterthwaite(row) for row in L]
            if about.restricted:
                table = fit.contrast(sets @ rows, df="kenward-roger-linear").frame
                adjusted = dense.kenward_roger[0]
                yield f"{label} KR se", table["std_error"], np.sqrt(np.einsum("ij,jk,ik->i", L, adjusted, L))
                yield f"{label} KR df", table["df"], [dense.kenward_roger_test(row[None])[1] for row in L]
        yield from _anova(label, case, fit, dense, inner)
        yield from _means(label, case, fit, dense, inner)
        yield from _predictions(label, case, fit, dense, new)
        yield from _random_effects(label, case, fit, dense)
    B = np.linalg.pinv(plain.design.X) @ dense.X
    table = plain.tidy().iloc[list(plain.design.kept)]
    yield "tidy", table["estimate"], B @ dense.alpha
    yield "tidy se", table["std_error"], np.sqrt(np.einsum("ij,jk,ik->i", B, dense.C, B))
    if inner:
        yield "tidy df", table["df"], [dense.satterthwaite(row) for row in B]


def _is_refused(fit: blm.Fit, row: Array) -> bool:
    """Whether a function of the coefficients is called not estimable."""
    try:
        fit.contrast(row, df="asymptotic")
    except InferenceError:
        return True
    return False


def _anova(label: str, case: Drawn, fit: blm.Fit, dense: DenseFit, inner: bool) -> Iterator[tuple[str, Any, Any]]:
    about = case.about
    moved = {"x"} if label == "recoded" and case.shift else set()
    for kind in (1, 2, 3):
        table = fit.anova(type=kind).set_index("term")
        for term in about.terms[1:]:
            # at x = 0 of the user's unit means something else where x was shifted
            if moved and any(moved & (set(o) - set(term)) and (set(term) < set(o)) for o in about.terms):
                continue
            L = dense.hypothesis(term, kind)
            name = f"{label} anova {kind} {':'.join(term)}"
            if len(L) == 0:
                yield name, np.isnan(table["statistic"].get(":".join(term), np.nan)), True
                continue
            F, rank = dense.wald(L)
            row = table.loc[":".join(term)]
            yield name, [row["statistic"], row["num_df"]], [F, rank]
            if inner and rank == 1:
                yield name + " df", row["den_df"], dense.satterthwaite(L[0])
        if inner and about.restricted and kind == 3:
            table = fit.anova(df="kenward-roger-linear").set_index("term")
            for term in about.terms[1:]:
                L = dense.hypothesis(term, 3)
                if len(L) and not (moved and any(moved & (set(o) - set(term)) and (set(term) < set(o)) for o in about.terms)):
                    row = table.loc[":".join(term)]
                    yield f"{label} KR anova {':'.join(term)}", [row["statistic"], row["den_df"]], dense.kenward_roger_test(L)


def _means(label: str, case: Drawn, fit: blm.Fit, dense: DenseFit, inner: bool) -> Iterator[tuple[str, Any, Any]]:
    about = case.about
    names = [name for name in about.factors if any(name in term for term in about.terms)]
    asked = [(name,) for name in names] + ([tuple(names[:2])] if len(names) > 1 else [])
    for factors in asked:
        for weights in ("equal", "proportional"):
            means = fit.emmeans(list(factors), weights=weights)
            table = means.frame.assign(**{n: means.frame[n].astype(str) for n in factors}).set_index(list(factors))
            levels, L = dense.means(factors, weights)
            keys = [cell[0] if len(factors) == 1 else cell for cell in levels]
            ours = table.loc[keys]
            known = dense.estimable(L)
            expected = np.where(known, L @ dense.alpha + (about.data[about.offset].mean() if about.offset else 0.0), np.nan)
            se = np.where(known, np.sqrt(np.einsum("ij,jk,ik->i", L, dense.C, L)), np.nan)
            yield f"{label} emmeans {factors} {weights}", ours["estimate"], expected
            yield f"{label} emmeans se {factors} {weights}", ours["std_error"], se
            if inner:
                df = [dense.satterthwaite(row) if k else np.nan for row, k in zip(L, known, strict=True)]
                yield f"{label} emmeans df {factors} {weights}", ours["df"], df
            if len(factors) == 1:
                yield from _adjusted(f"{label} pairs {factors} {weights}", means, len(keys))
                pairs = means.pairs(adjust="none").set_index("contrast")
                for i, one in enumerate(keys):
                    for j in range(i):
                        turned = f"{one} - {keys[j]}" not in pairs.index
                        row, sign = pairs.loc[f"{keys[j]} - {one}" if turned else f"{one} - {keys[j]}"], -1 if turned else 1
                        D = L[i] - L[j]
                        k = dense.estimable(D[None])[0]
                        want = [D @ dense.alpha, np.sqrt(D @ dense.C @ D)] if k else [np.nan, np.nan]
                        yield f"{label} pairs {factors} {weights}", [sign * row["estimate"], row["std_error"]], want
                        if inner and k:
                            yield f"{label} pairs df {factors} {weights}", row["df"], dense.satterthwaite(D)


def _adjusted(label: str, means: blm.EMMeans, levels: int) -> Iterator[tuple[str, Any, Any]]:
    """Adjusted p values by their definitions from the plain table, where all pairs are estimable."""
    plain = means.pairs(adjust="none")
    if plain["p_value"].isna().any():
        return
    yield label + " bonferroni", means.pairs(adjust="bonferroni")["p_value"], np.minimum(1.0, len(plain) * plain["p_value"])
    yield label + " sidak", means.pairs(adjust="sidak")["p_value"], -np.expm1(len(plain) * np.log1p(-plain["p_value"]))
    tukey = studentized_range.sf(np.sqrt(2.0) * plain["statistic"].abs().iloc[0], levels, plain["df"].iloc[0])
    yield label + " tukey", means.pairs(adjust="tukey")["p_value"].iloc[0], tukey


def _predictions(label: str, case: Drawn, fit: blm.Fit, dense: DenseFit, new: pd.DataFrame) -> Iterator[tuple[str, Any, Any]]:
    about = case.about
    offset = case.new[about.offset].to_numpy() if about.offset else 0.0
    unknown = np.where(dense.estimable(about.X(case.new)), 0.0, np.nan)
    for level in ("conditional", "population"):
        for fresh in (False, True) if level == "conditional" else (False,):
            rows, asked = case.new, new
            if fresh:
                rows, asked = rows.assign(g="new", h="other"), asked.assign(g="new", h="other")
            # the mean of a level that the fit does not know is the population's
            estimate, se, random = dense.predictions(rows, level == "conditional" and not fresh)
            estimate, se = estimate + unknown, se + unknown
            options: dict[str, Any] = {"new_levels": "population"} if fresh else {}
            name = f"{label} predict {level}{' new' if fresh else ''}"
            ours = fit.predict(asked, level=level, interval="confidence", **options)
            yield name, ours["estimate"], estimate + offset
            yield name + " se", ours["std_error"], se
            if about.residual is None:
                noise = dense.p[-1] / (case.new[about.weights].to_numpy() if about.weights else 1.0)
                whole = np.sqrt(se**2 + noise + (random if level == "population" or fresh else 0.0))
                yield name + " spread", fit.predict(asked, level=level, interval="prediction", **options)["std_error"], whole


def _random_effects(label: str, case: Drawn, fit: blm.Fit, dense: DenseFit) -> Iterator[tuple[str, Any, Any]]:
    if label == "recoded" and (case.scale != 1.0 or case.shift):
        return
    frames = fit.ranef(se=True)
    for k, term in enumerate(case.about.random):
        levels, modes, given = dense.random_effects(k)
        values, sds = frames[":".join(term.groups)]
        values, sds = (table.set_axis([_spelled(level) for level in table.index], axis=0).loc[levels] for table in (values, sds))
        names = ["Intercept" if name == "1" else name for name in term.columns]
        yield f"{label} ranef {term}", values[names], modes
        yield f"{label} ranef se {term}", sds[names], given


def _spelled(level: object) -> str:
    return ":".join(map(str, level)) if isinstance(level, tuple) else str(level)


def disagreements(case: Drawn) -> list[str]:
    """What of every table is not the definition: estimates and errors to 1e-4, degrees of freedom, by derivatives, to 3e-3."""
    found = []
    for what, ours, theirs in differences(case):
        own, expected = np.asarray(ours, float), np.asarray(theirs, float)
        relative = 3e-3 if " df" in what or "KR" in what else 1e-4
        size = np.nanmax(np.abs(expected), initial=1e-3)
        if not np.allclose(own, expected, rtol=relative, atol=0.01 * relative * size, equal_nan=True):
            found.append(f"{what}: {own.ravel()[:6]} for {expected.ravel()[:6]}")
    return found
