"""Every public callable, found by introspection, each of its parameters given odd values: what comes of it, and where it came from."""

from __future__ import annotations

import contextlib
import datetime
import inspect
import io
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError

Base = dict[str, Any]


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(8), 6)
    y = rng.normal(size=48) + rng.normal(size=8)[g]
    return pd.DataFrame(
        {"y": y, "x": rng.normal(size=48), "f": np.tile(list("abc"), 16), "g": [f"s{i}" for i in g], "v": np.tile(np.arange(6), 8)}
    )


def visits() -> pd.DataFrame:
    """Two arms, three visits, two outcomes missing."""
    rng = np.random.default_rng(5)
    n = 24
    data = pd.DataFrame(
        {
            "id": np.repeat([f"p{i}" for i in range(n)], 3),
            "visit": pd.Categorical(np.tile(list("abc"), n), ordered=True),
            "arm": np.repeat(np.where(np.arange(n) % 2 == 0, "ctl", "trt"), 3),
            "y": (rng.normal(size=(n, 1)) + rng.normal(size=(n, 3))).ravel(),
        }
    )
    data.loc[[2, 8], "y"] = np.nan
    return data


PROGRAM = "proc mixed data=d; class g; model y = x / solution; random intercept / subject=g; run;"


def numbers(completed: pd.DataFrame) -> dict[str, float]:
    return {"mean": float(completed["y"].mean())}


@cache
def objects() -> dict[str, Any]:
    """One of each class whose verbs a user calls, under the name of the class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data, trial = frame(), visits()
        model = blm.LMM("y ~ x + f + (1 | g)", data, priors=blm.Priors(alpha="normal"))
        fit, post = model.fit(), model.sample(draws=200, chains=2, seed=1)
        means = fit.emmeans("f")
        imputed = blm.impute(blm.LMM("y ~ arm * visit", trial, residual="us(visit | id)"), treatment="arm", reference={"trt": "ctl"})
        halves = blm.from_partitions("y ~ x + f + (1 | g)", [data.iloc[:24], data.iloc[24:]], priors=blm.Priors(alpha="normal"))
        planned = blm.assume("y ~ x + f + (1 | g)", data.drop(columns="y"), alpha=[0.0, 1.0, 0.0, 0.0], sd=0.5, sigma=1.0)
        return {
            "LMM": model,
            "Fit": fit,
            "FitPlots": fit.plot,
            "Summary": fit.summary(),
            "EMMeans": means,
            "Contrast": fit.contrast({"x": 1.0}),
            "Profile": fit.profile(terms="x"),
            "Bootstrap": fit.bootstrap(4, seed=1),
            "PowerCurve": fit.power("x", nsim=4, seed=1),
            "InferenceCheck": fit.check_inference(n=4, seed=1),
            "Posterior": post,
            "PosteriorPlots": post.plot,
            "PosteriorMeans": post.emmeans("f"),
            "PosteriorContrast": post.contrast({"x": 1.0}),
            "Comparison": blm.compare(fit, post),
            "ManyFits": model.fit_many(np.column_stack([data["y"], data["y"] ** 2])),
            "Imputations": imputed,
            "Analyses": imputed.analyse("y ~ arm"),
            "Tipping": imputed.tipping({"trt": [0.0, 1.0]}, "y ~ arm"),
            "Priors": blm.Priors(alpha="normal"),
            "MixedResult": blm.proc_mixed(PROGRAM, data),
            "LMMRegressor": blm.LMMRegressor("y ~ x + (1 | g)").fit(data),
            "PartitionedLMM": halves,
            "PartitionedFit": halves.fit(),
            "AssumedFit": planned,
            "Calibration": model.calibrate(n=2, draws=9, seed=1),
        }


def settings() -> dict[str, Base]:
    """Arguments that a callable needs, and those that keep it short; those of one verb hold for the classes that share it."""
    data, trial = frame(), visits()
    new = data.head(3)
    shared: dict[str, Base] = {
        "bootstrap": {"n": 3, "seed": 1},
        "calibrate": {"n": 2, "draws": 9, "seed": 1},
        "check_inference": {"n": 4, "seed": 1},
        "confint": {},
        "contrast": {"L": {"x": 1.0}},
        "contrast_rows": {"newdata": new},
        "criterion": {"theta": [1.0]},
        "differences": {"specs": "f"},
        "effects": {"term": "f"},
        "emmeans": {"specs": "f"},
        "within": {"by": "f"},
        "emtrends": {"var": "x"},
        "gradient": {"theta": [1.0]},
        "hypothesis": {"statements": "x > 0"},
        "influence": {"group": "g", "refit": False},
        "lines": {"x": "x"},
        "loo": {"by": "group"},
        "marginal_cov": {"level": "s1"},
        "power": {"test": "x", "nsim": 4, "seed": 1},
        "prior_predictive": {"draws": 5, "seed": 1},
        "profile": {"terms": "x"},
        "ratio": {"numerator": "g"},
        "refit": {"y": data["y"].to_numpy() + 0.1},
        "report": {"path": "report.html"},
        "rope": {"low": -0.1, "high": 0.1},
        "sample": {"draws": 10, "chains": 1, "seed": 1},
        "save": {"path": "saved.blm"},
        "simulate": {"seed": 1},
        "update": {"formula": ". ~ . - f"},
        "write": {"path": "model.toml"},
    }
    return {
        **shared,
        "LMM": {"formula": "y ~ x + (1 | g)", "data": data},
        "LMM.simulate": {"params": {"alpha": [1.0, 0.5, 0.0, 0.0], "theta": [1.0], "sigma": 1.0}, "seed": 1},
        "expanded": {"values": np.ones(4)},
        "reshape_draws": {"values": np.ones(400)},
        "fit_many": {"Y": np.column_stack([data["y"], data["y"] ** 2])},
        "required": {"power": 0.1},
        "PartitionedLMM.simulate": {"params": {"alpha": [1.0, 0.5, 0.0, 0.0], "theta": [1.0], "sigma": 1.0}, "seed": 1},
        "with_response": {"y": data["y"].to_numpy() + 0.1},
        "LMMRegressor.fit": {"X": data},
        "LMMRegressor.predict": {"X": new},
        "Imputations.analyse": {"analysis": "y ~ arm"},
        "Imputations.delta": {"delta": {"trt": 1.0}},
        "Imputations.tipping": {"grid": {"trt": [0.0, 1.0]}, "analysis": "y ~ arm"},
        "EMMeans.contrast": {},
        "PosteriorMeans.contrast": {},
        "FitPlots.profile": {"terms": "x"},
        "FitPlots.subgroups": {"treatment": "f"},
        "PosteriorPlots.subgroups": {"treatment": "f"},
        "FitPlots.influence": {"group": "g", "refit": False},
        "ManyFits.fit": {"name": 0},
        "MixedResult.get": {"key": "SolutionF"},
        "Posterior.update": {"formula": ". ~ . - f", "draws": 10, "chains": 1, "seed": 1},
        "Priors": {},
        "Priors.alpha_of": {"coefficient": "x"},
        "Priors.corr_of": {"group": "g"},
        "Priors.residual_of": {"name": "rho"},
        "Priors.sd_of": {"group": "g", "term": "Intercept"},
        "LMMRegressor": {},
        "assume": {
            "formula": "y ~ x + (1 | g)",
            "skeleton": data.drop(columns="y"),
            "alpha": [0.0, 1.0],
            "sd": 0.5,
            "sigma": 1.0,
        },
        "compare_models": {"models": {"a": objects()["LMM"], "b": objects()["Fit"]}},
        "fit_by": {"formula": "y ~ x + (1 | g)", "data": data, "by": "f"},
        "from_partitions": {"formula": "y ~ x + (1 | g)", "partitions": [data.iloc[:24], data.iloc[24:]]},
        "from_table": {"formula": "y ~ x + (1 | g)", "table": import_module("duckdb").from_df(data)},
        "imputations": {
            "frames": [trial.fillna(0.0), trial.fillna(1.0)],
            "outcome": "y",
            "visit": "visit",
            "subject": "id",
            "treatment": "arm",
        },
        "impute": {"model": blm.LMM("y ~ arm * visit", trial, residual="us(visit | id)"), "treatment": "arm"},
        "load": {"path": "fit.blm"},
        "load_dataset": {"name": "sleepstudy"},
        "mmrm": {"formula": "y ~ arm * visit + us(visit | id)", "data": trial},
        "proc_mixed": {"program": PROGRAM, "data": data},
        "read_model": {"path": "model.toml", "data": data},
    }


NOT_CALLED: dict[str, str] = {
    "from_spec": "takes a ModelSpec, which this package makes",
    "of": "takes the checked arguments of another door",
    "reading": "takes the checked arguments of another door",
    "simulated": "takes arrays that `simulate` has checked",
    "with_design": "takes a Design, which this package makes",
    "updated": "takes changes that `update` of a fit has made",
    "require_known": "takes the names of a model, which asks it",
    "get_params": "of scikit-learn",
    "score": "of scikit-learn",
}
"""Verbs whose arguments no user gives, or that are not ours, and why."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A public callable under its name, and arguments that it works with."""

    name: str
    call: Callable[..., Any]
    base: Base

    @property
    def parameters(self) -> list[str]:
        """The parameters that can be named; one that collects positions is left to `positions`."""
        return [p.name for p in inspect.signature(self.call).parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def verbs() -> Iterator[Verb]:
    """Every public callable of the package and of the objects that it gives."""
    base = settings()
    for name in blm.__all__:
        found = getattr(blm, name)
        if callable(found) and (not inspect.isclass(found) or name in base):
            yield Verb(name, found, base.get(name, {}))
    for owner, thing in objects().items():
        for name in sorted(set(dir(type(thing)))):
            ours = not name.startswith("_") and not name.startswith(("set_", "get_metadata"))
            full = f"{owner}.{name}"
            if ours and name not in NOT_CALLED and callable(getattr(type(thing), name)):
                verb = getattr(thing, name)
                known = set(inspect.signature(verb).parameters)
                chosen = base.get(full, {k: v for k, v in base.get(name, {}).items() if k in known})
                yield Verb(full, verb, chosen)


def odd_values(usual: Any) -> dict[str, Any]:
    """Values that hardly any parameter means; those in a list or a tuple hold the usual one."""
    word = usual if isinstance(usual, str) else "x"
    return {
        "None": None,
        "True": True,
        "nonsense": "nonsense",
        "empty text": "",
        "-1": -1,
        "0": 0,
        "inf": float("inf"),
        "nan": float("nan"),
        "[]": [],
        "{}": {},
        "()": (),
        "set": {word},
        "array": np.array([1.0, 2.0]),
        "matrix": np.ones((2, 2)),
        "text array": np.array([word, "nonsense"]),
        "NA": pd.NA,
        "Series": pd.Series([1.0, 2.0], index=["p", "q"]),
        "DataFrame": pd.DataFrame({"p": [1.0, 2.0]}),
        "list": [word],
        "object": object(),
        "function": lambda *given: given,
        "bytes": word.encode(),
        "complex": 1 + 2j,
        "huge": 10**40,
        "date": datetime.datetime(2020, 1, 2),
        "tuple": (word, 1),
        "NumPy number": np.float32(0.5),
        "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
        "infinite array": np.array([np.inf, np.nan]),
        "control": "\x1b[31m\x00",
        "unhashable key": {"x": [1]},
        "billion": 10**9,
        "surrogate": "\udcff",
        "single array": np.array(word),
        "complex array": np.array([1.0 + 2.0j, 2.0]),
        "times": np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"),
    }


class TooLong(BaseException):
    """A call that did not end within its seconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: "refused", "given", "slow" or "bare", with the exception and its place in the package."""

    kind: str
    said: str = ""
    place: str = ""


def outcome(call: Callable[[], Any], seconds: float = 10.0) -> Outcome:
    """What comes of a call, nothing printed, no figure left, no longer than some seconds."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            given = call()
            return Outcome("given", type(given).__name__)
    except BayesLMMError as error:
        return Outcome("refused", f"{type(error).__name__}: {error.what}")
    except TooLong as error:
        return Outcome("slow", "", place(error))
    except Exception as error:
        return Outcome("bare", f"{type(error).__name__}: {str(error)[:120]}", place(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        plt.close("all")


def place(error: BaseException) -> str:
    """The innermost line of the package that an exception went through."""
    found, trace = "", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if "/bayeslmm/" in path and "/tests/" not in path:
            found = f"{path.rsplit('/bayeslmm/', 1)[-1]}:{trace.tb_lineno} {trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return found


def prepare(folder: Path) -> None:
    """The files that doors from files open, and packages whose import takes longer than a call may."""
    import_module("arviz")
    import_module("pymc")
    objects()["Fit"].save(folder / "fit.blm")
    objects()["LMM"].write(folder / "model.toml")


def asked(verb: Verb, parameter: str, value: Any) -> Callable[[], Any]:
    """The call with one argument odd and the others as they should be."""
    given: Mapping[str, Any] = {**verb.base, parameter: value}
    return lambda: verb.call(**given)
