"""Every public verb of an object, found by introspection, and the models, one for each kernel and structure, that it must work on."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.errors import BayesLMMError


def rows(first: int, second: int, nested: bool, keep: float, seed: int = 3) -> pd.DataFrame:
    """y on x, a factor arm, first x second levels crossed or nested, a share of the cells kept; visits within each first level."""
    rng = np.random.default_rng(seed)
    s, i = np.divmod(np.arange(first * second), second)
    chosen = np.flatnonzero(rng.random(len(s)) < keep)
    s, i = s[chosen], i[chosen]
    inner = s * second + i if nested else i
    x = rng.normal(size=len(s))
    y = 1.0 + 0.5 * x + rng.normal(size=first)[s] * (1.0 + 0.3 * x) + rng.normal(size=inner.max() + 1)[inner] + rng.normal(size=len(s))
    frame = {"y": y, "x": x, "arm": np.array(["a", "b"])[s % 2], "s": [f"s{v}" for v in s], "i": [f"i{v}" for v in inner]}
    return pd.DataFrame({**frame, "visit": i, "w": rng.uniform(0.5, 2.0, len(s)), "o": rng.normal(size=len(s))})


def pooled(first: int, second: int) -> pd.DataFrame:
    """Subjects that share the rows of X: x is a number of the visit."""
    frame = rows(first, second, False, 1.0)
    return frame.assign(x=np.sin(frame["visit"].to_numpy(float) ** 2))


def relationship(levels: int) -> pd.DataFrame:
    names = [f"s{k}" for k in range(levels)]
    return pd.DataFrame(0.4 ** np.abs(np.subtract.outer(np.arange(levels), np.arange(levels))), index=names, columns=names)


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    """Every row twice, with other errors: replicates within the cells of a crossing."""
    again = frame.assign(y=frame["y"] + np.random.default_rng(8).normal(size=len(frame)))
    return pd.concat([frame, again], ignore_index=True)


@dataclass(frozen=True, slots=True)
class Names:
    """What the columns are called, and what stands before every label of a grouping factor."""

    y: str = "y"
    x: str = "x"
    arm: str = "arm"
    s: str = "s"
    i: str = "i"
    visit: str = "visit"
    w: str = "w"
    o: str = "o"
    label: str = ""

    def columns(self) -> dict[str, str]:
        return {field: getattr(self, field) for field in self.__slots__ if field != "label"}

    def formula(self, text: str) -> str:
        """A formula with these names, quoted."""
        columns = self.columns()
        return text if self == PLAIN else re.sub(r"\b(y|x|arm|s|i|visit)\b", lambda word: f"`{columns[word[1]]}`", text)

    def frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        labelled = frame.assign(**{factor: [f"{self.label}{value}" for value in frame[factor]] for factor in ("s", "i")})
        return labelled.rename(columns=self.columns())

    def option(self, key: str, value: Any) -> Any:
        if key in ("weights", "offset"):
            return self.columns()[value]
        if key == "relationship":
            return {self.s: value["s"].rename(index=lambda label: self.label + label, columns=lambda label: self.label + label)}
        return self.formula(value)


PLAIN = Names()
NAMES: dict[str, Names] = {
    "plain": PLAIN,
    "of trees": Names("obs", "coef", "alpha", "chain", "draw", "beta", "X", "sigma", "3:a/"),
    "with marks": Names("a response", "x 1", "arm/side", "a:b", "i|j", "visit no.", "w w", "o+o", " [b] "),
    "of parameters": Names("sigma", "beta", "chain", "coef", "g_term", "draw", "alpha", "obs", "sd__"),
}


def build(names: Names, formula: str, frame: pd.DataFrame, **options: Any) -> blm.LMM:
    return blm.LMM(names.formula(formula), names.frame(frame), **{key: names.option(key, value) for key, value in options.items()})


FIXED = "y ~ x * arm"
MODELS: dict[str, Callable[..., blm.LMM]] = {
    "no random effects": lambda names=PLAIN: build(names, FIXED, rows(12, 4, False, 1.0)),
    "one factor": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s)", rows(24, 4, False, 0.8)),
    "one factor, balanced": lambda names=PLAIN: build(names, "y ~ arm * x + (1 | s)", pooled(16, 4)),
    "slopes": lambda names=PLAIN: build(names, f"{FIXED} + (x | s)", rows(16, 7, False, 0.9)),
    "independent slopes": lambda names=PLAIN: build(names, f"{FIXED} + (x || s)", rows(16, 7, False, 0.9)),
    "crossed, small": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s) + (1 | i)", rows(12, 6, False, 1.0)),
    "crossed, large": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s) + (1 | i)", rows(100, 8, False, 0.5)),
    "crossed slopes": lambda names=PLAIN: build(names, f"{FIXED} + (x | s) + (1 | i)", rows(70, 6, False, 0.9)),
    "nested, small": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s / i)", twice(rows(10, 4, True, 1.0))),
    "nested, large": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s / i)", twice(rows(40, 4, True, 0.9))),
    "weights and offset": lambda names=PLAIN: build(
        names, f"{FIXED} + (1 | s) + (1 | i)", rows(70, 3, False, 1.0), weights="w", offset="o"
    ),
    "relationship": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s)", rows(14, 5, False, 0.9), relationship={"s": relationship(14)}),
    "structure of D": lambda names=PLAIN: build(names, f"{FIXED} + cs(0 + i | s)", twice(rows(20, 3, False, 1.0))),
    "pooled subjects": lambda names=PLAIN: build(names, FIXED, pooled(30, 3), residual="us(visit | s)"),
    "structured errors": lambda names=PLAIN: build(names, FIXED, rows(16, 4, False, 0.9), residual="ar1h(visit | s)"),
    "D and R": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s)", rows(16, 6, False, 1.0), residual="ar1(visit | s)"),
    "variance function": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s)", rows(16, 5, False, 1.0), variance="exp(x)"),
    "strata of the variance": lambda names=PLAIN: build(names, f"{FIXED} + (1 | s)", rows(16, 5, False, 1.0), variance="ident(arm)"),
}


def partitioned() -> Any:
    frame = rows(24, 4, False, 0.8)
    return blm.from_partitions(f"{FIXED} + (1 | s)", [frame.iloc[:40], frame.iloc[40:]])


def members(source: Any) -> Iterator[tuple[str, bool]]:
    """Public members and whether they are called."""
    for name in sorted(set(dir(type(source)))):
        if not name.startswith("_"):
            yield name, callable(getattr(type(source), name))


_NEW = pd.DataFrame({"x": [0.3, -1.0], "arm": ["a", "b"], "s": ["s1", "s2"], "i": ["i1", "i9"], "visit": [0, 1], "w": 1.0, "o": 0.0})


def new_rows(names: Names) -> pd.DataFrame:
    return names.frame(_NEW)


def left_out(post: Any) -> str:
    """What a posterior's folds are of."""
    return "group" if post.design.terms or post.design.residual is not None else "observation"


Arguments = dict[str, Callable[[Any, Names], Any]]
"""How a verb that cannot be called bare, or would take long, is called."""

FIT: Arguments = {
    "bootstrap": lambda fit, names: fit.bootstrap(5, seed=1),
    "check_inference": lambda fit, names: fit.check_inference(n=4, seed=1),
    "contrast": lambda fit, names: fit.contrast({"a": {fit.fixef.index[-1]: 1.0}}),
    "contrast_rows": lambda fit, names: fit.contrast_rows(new_rows(names)),
    "emmeans": lambda fit, names: fit.emmeans(names.arm),
    "emtrends": lambda fit, names: fit.emtrends(names.x, names.arm),
    "expanded": lambda fit, names: fit.expanded(np.asarray(fit.fixef_kept)),
    "marginal_cov": lambda fit, names: fit.marginal_cov(f"{names.label}s1"),
    "power": lambda fit, names: fit.power(fit.fixef.index[-1], nsim=4, seed=1),
    "profile": lambda fit, names: fit.profile(),
    "ratio": lambda fit, names: fit.ratio("Residual"),
    "refit": lambda fit, names: fit.refit(np.asarray(fit.model.y) + 0.1),
    "simulate": lambda fit, names: fit.simulate(seed=1),
    "to_table": lambda fit, names: fit.to_table(),
    "with_params": lambda fit, names: fit.with_params(sigma=1.0),
}
POSTERIOR: Arguments = {
    "contrast": lambda post, names: post.contrast({"a": {post.coef_names[-1]: 1.0}}),
    "emmeans": lambda post, names: post.emmeans(names.arm),
    "emtrends": lambda post, names: post.emtrends(names.x, names.arm),
    "hypothesis": lambda post, names: post.hypothesis(f"`{post.coef_names[-1]}` > 0"),
    "kfold": lambda post, names: post.kfold(k=2, by=left_out(post), group=None if left_out(post) == "observation" else names.s),
    "posterior_predictive": lambda post, names: post.posterior_predictive(seed=1),
    "prior_predictive": lambda post, names: post.prior_predictive(seed=1),
    "rope": lambda post, names: post.rope(-0.1, 0.1),
    "reshape_draws": lambda post, names: post.reshape_draws(post.draws.alpha),
    "update": lambda post, names: post.update(draws=50, chains=2, seed=1),
}
COMPARISON: Arguments = {}

REFUSED = {"to_marginaleffects", "log_evidence"}
"""What needs a package that need not be there, or proper priors."""

NO_RANDOM_EFFECTS = {"ranova", "marginal_cov", "icc", "coef"}
"""What may have nothing to say where there are no random effects."""

LONG = {"profile", "report", "bootstrap", "check_inference", "power", "kfold"}
"""Verbs that take a second each."""

VARIATIONS: dict[str, list[tuple[str, Callable[[Any, Names], Any]]]] = {
    "Fit": [
        ("tidy all", lambda fit, names: fit.tidy("all", conf_int=True)),
        *(
            (f"tidy {df}", lambda fit, names, df=df: fit.tidy(df=df))
            for df in ("kenward-roger", "between-within", "containment", "residual")
        ),
        *((f"tidy {vcov}", lambda fit, names, vcov=vcov: fit.tidy(vcov=vcov)) for vcov in ("CR0", "CR1", "CR2", "CR3")),
        ("tidy observed", lambda fit, names: fit.tidy(df="kenward-roger", information="observed")),
        *((f"anova {kind}", lambda fit, names, kind=kind: fit.anova(kind)) for kind in (1, 2, 3)),
        ("ranef se", lambda fit, names: fit.ranef(se=True)),
        *((f"residuals {kind}", lambda fit, names, kind=kind: fit.residuals(kind)) for kind in ("pearson", "normalized", "marginal")),
        ("fitted population", lambda fit, names: fit.fitted("population")),
        *((f"predict {i}", lambda fit, names, i=i: fit.predict(interval=i)) for i in ("confidence", "prediction")),
        (
            "predict new",
            lambda fit, names: fit.predict(new_rows(names), interval="prediction", new_levels="population", **offset_of(fit, names)),
        ),
        ("influence s", lambda fit, names: fit.influence(names.s)),
        ("pairs", lambda fit, names: fit.emmeans(names.arm).pairs()),
        ("simulate", lambda fit, names: fit.simulate(3, seed=1)),
        ("cases", lambda fit, names: fit.bootstrap(4, seed=1, kind="case")),
    ],
    "Posterior": [
        ("tidy all", lambda post, names: post.tidy("all", conf_int=True)),
        ("ranef se", lambda post, names: post.ranef(se=True)),
        *((f"predict {i}", lambda post, names, i=i: post.predict(interval=i, seed=1)) for i in ("confidence", "prediction")),
        (
            "predict new",
            lambda post, names: post.predict(new_rows(names), interval="prediction", new_levels="sample", seed=1, **offset_of(post, names)),
        ),
        *((f"draws of {i}", lambda post, names, i=i: post.predict(interval=i, draws=True, seed=1)) for i in (None, "prediction")),
        *(
            (f"predictive {kind}", lambda post, names, kind=kind: post.plot.predictive(kind, by=names.arm, draws=20))
            for kind in ("stat", "intervals")
        ),
        ("loo by s", lambda post, names: post.loo(by="group", group=names.s)),
        ("pairs", lambda post, names: post.emmeans(names.arm).pairs()),
        *((f"plot {kind}", lambda post, names, kind=kind: getattr(post.plot, kind)()) for kind in ("forest", "predictive", "ranef")),
    ],
    "Comparison": [],
}
"""Other ways to ask, for the long form; a refusal must say why."""


def offset_of(source: Any, names: Names) -> dict[str, Any]:
    return {} if source.design.offset is None else {"offset": names.o}


def ask(source: Any, name: str, called: bool, how: Arguments, where: Path, names: Names = PLAIN) -> Any:
    """What a verb gives; the BayesLMMError where it refuses. A verb that needs arguments and has none in the table is a failure."""
    return answer(lambda: _asked(source, name, called, how, where, names))


def answer(question: Callable[[], Any]) -> Any:
    """What is given, or the refusal; any other exception goes on. What NumPy would raise for a user is none of a verb's business."""
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("ignore")
        try:
            return question()
        except BayesLMMError as refusal:
            return refusal
        finally:
            plt.close("all")


def _asked(source: Any, name: str, called: bool, how: Arguments, where: Path, names: Names) -> Any:
    value = getattr(source, name)
    if not called:
        return value
    if name in how:
        return how[name](source, names)
    needed = [p.name for p in inspect.signature(value).parameters.values() if p.default is p.empty and p.kind not in (2, 4)]
    if needed == ["path"]:
        return value(where / f"{name}.out")
    assert not needed, f"{type(source).__name__}.{name} needs {', '.join(needed)}: say in the table how it is called"
    return value()


def numbers(value: Any) -> Array:
    """All finite numbers of an answer, in order of size: what it says, whatever it calls it."""
    found = np.concatenate([np.zeros(0), *(np.ravel(part) for part in _parts(value))])
    return np.asarray(np.sort(found[np.isfinite(found)]))


def _parts(value: Any) -> Iterator[Array]:
    if isinstance(value, xr.DataTree):
        for node in value.subtree:
            yield from (part for variable in node.dataset.data_vars.values() for part in _parts(variable.to_numpy()))
    elif isinstance(value, pd.DataFrame):
        yield from (part for column in value for part in _parts(value[column].to_numpy()))
    elif isinstance(value, dict):
        yield from (part for own in value.values() for part in _parts(own))
    elif isinstance(value, list | tuple):
        yield from (part for own in value for part in _parts(own))
    elif isinstance(value, pd.Series | np.ndarray | float):
        array = np.asarray(value)
        if array.dtype.kind == "f":
            yield array
    elif isinstance(frame := getattr(value, "frame", None), pd.DataFrame):
        yield from _parts(frame)
