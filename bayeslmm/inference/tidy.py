"""Tidy tables of a fit, and confidence intervals of all parameters: Wald, profile, bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from bayeslmm._types import ConfMethod, Effects
from bayeslmm._validation import find_word, require_flag, require_level, require_names, require_one_of, spell
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.error_boundary import vanished_parameters
from bayeslmm.inference.fixed_effects.tests import Inference, coefficient_columns
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.intervals.parameters import (
    InnovationSd,
    covariance_parameters,
    from_scale,
    innovation_sds,
    parameter_value,
    scale_speed,
    to_scale,
)
from bayeslmm.inference.intervals.profile import profile_limits, standard_error
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import mode_frames, sd_frames
from bayeslmm.results.predict import two_sided_quantile, with_limits
from bayeslmm.results.random_effects import varcorr_rows

if TYPE_CHECKING:
    from bayeslmm._types import BootstrapInterval, BootstrapKind, DfMethod, Information, LikelihoodKind, Names, VcovMethod
    from bayeslmm.results.estimates import Estimates


def wald_limits(fit: Estimates, level: float = 0.95) -> pd.DataFrame:
    """`term, conf_low, conf_high` with normal quantiles, each parameter on its own scale.

    Logarithms of standard deviations and ranges, Fisher's z of correlations, the logit of a nugget, and for rho of `car1` and `sp_pow`
    log(-log(rho)), on which the unit of time counts for nothing.

    The covariance of the covariance parameters is that of the observed information of the fit's own criterion, sigma included. A parameter
    at the end of its range has no Wald interval: NaN, and a note in `attrs["notes"]`.
    """
    quantile = -float(ndtri(0.5 * (1.0 - require_level(level, "level"))))
    terms, low, high, notes = [], [], [], []
    tau = np.append(fit.estimate.x, 0.5 * np.log(fit.point.sigma2))
    found = Inference(fit).curvature.covariance
    for parameter in covariance_parameters(fit.problem):
        value = parameter_value(parameter, fit.problem, tau)
        error = standard_error(parameter, fit.problem, tau, found)
        middle = to_scale(parameter.scale, value)
        usable = np.isfinite(error) and error > 0
        ends = [from_scale(parameter.scale, middle + sign * quantile * error) if usable else np.nan for sign in (-1.0, 1.0)]
        if not usable:
            notes.append(f"{parameter.term}: the estimate {value:g} is at the end of the range; use method='profile' or 'bootstrap'")
        terms.append(parameter.term)
        low.append(ends[0])
        high.append(ends[1])
    estimate, half = fit.fixef.to_numpy(), quantile * np.sqrt(np.diagonal(fit.vcov.to_numpy()))
    frame = pd.DataFrame(
        {
            "term": [*terms, *fit.design.coef_names],
            "conf_low": [*low, *(estimate - half)],
            "conf_high": [*high, *(estimate + half)],
        }
    )
    frame.attrs["notes"] = tuple(notes)
    return frame


CONF_SYNONYMS: dict[str, ConfMethod] = {"boot": "bootstrap"}
"""What lme4 calls a way to limits -> what it is here."""


def confint(
    fit: Estimates,
    method: ConfMethod = "wald",
    level: float = 0.95,
    *,
    terms: Names | None = None,
    criterion: LikelihoodKind | None = None,
    n: int | None = None,
    seed: int | None = None,
    kind: BootstrapKind | None = None,
    interval: BootstrapInterval | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Confidence limits: `term, conf_low, conf_high`; covariance parameters are called `sd__Days|Subject`, `cor__Intercept.Days|Subject`.

    method : "wald" (normal quantiles; covariance parameters on the log or Fisher z scale), "profile" (the criterion rises by the
        chi-square quantile; `criterion=` "ML", as lme4, or "REML"), or "bootstrap" (`n=`, `seed=`, `kind=`, `interval=` "percentile",
        "basic" or "bca")
    level : of confidence; terms : some parameters only; an option of another method is refused

    A limit that is the end of a parameter's range (an sd of 0, a correlation of 1 in size) is that end; one that does not exist is NaN;
    both are said in `attrs["notes"]`.

    >>> fit.confint("profile", terms=["Days"])[["conf_low", "conf_high"]].round(2).to_numpy().tolist()
    [[7.36, 13.58]]
    """
    method, level = find_word(method, get_args(ConfMethod), "method", CONF_SYNONYMS), require_level(level, "level")
    own = {"n": n, "seed": seed, "kind": kind, "interval": interval, "workers": workers, "progress": progress}
    applies: dict[str, tuple[str, ...]] = {"wald": (), "profile": ("criterion",), "bootstrap": tuple(own)}
    for name, value in (own | {"criterion": criterion}).items():
        if value is not None and name not in applies[method]:
            remedy = f"method={method!r} takes " + (", ".join(map(repr, applies[method])) or "no further option")
            raise SpecificationError(f"confint has no option {name!r} for method={method!r}", name, remedy)
    if method == "profile":
        return profile_limits(fit, level, "ML" if criterion is None else criterion, terms)
    if method == "wald":
        frame = wald_limits(fit, level)
    else:
        replicates = bootstrap(
            fit,
            1000 if n is None else n,
            seed,
            kind="parametric" if kind is None else kind,
            workers=1 if workers is None else workers,
            progress=progress,
        )
        frame = replicates.confint(level, "percentile" if interval is None else interval)
        if replicates.interrupted:
            frame.attrs["notes"] = (f"interrupted: from {len(replicates.frame):,} replicates",)
    return frame if terms is None else _pick_terms(frame, terms)


def _pick_terms(frame: pd.DataFrame, terms: Names) -> pd.DataFrame:
    asked = require_names(terms, "terms")
    known = frame["term"].tolist()
    for term in asked:
        if term not in known:
            raise SpecificationError(f"there is no parameter {term!r}", "terms", "use one of " + ", ".join(map(repr, known)))
    out = frame.iloc[[known.index(term) for term in asked]].reset_index(drop=True)
    out.attrs = dict(frame.attrs)
    return out


COLUMNS = ("effect", "group", "level", "term", "estimate", "std_error", "df", "statistic", "p_value")


def normal_columns(names: Sequence[str], estimate: Any, std_error: Any) -> dict[str, Any]:
    """z tests of the coefficients, in the columns of t tests."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = estimate / std_error
    columns = {"term": list(names), "estimate": estimate, "std_error": std_error, "df": np.where(np.isnan(z), np.nan, np.inf)}
    return columns | {"statistic": z, "p_value": 2.0 * ndtr(-np.abs(z))}


def fixed_columns(fit: Estimates, df: DfMethod, vcov: VcovMethod | None, information: Information) -> dict[str, Any]:
    """t tests of the coefficients: a list `term` and arrays `estimate, std_error, df, statistic, p_value`."""
    if spell(df) == "asymptotic" and (vcov is None or spell(vcov) == "asymptotic"):
        return normal_columns(fit.design.coef_names, fit.fixef.to_numpy(), np.sqrt(np.diagonal(fit.vcov.to_numpy())))
    return coefficient_columns(fit, df, vcov, information)


def tidy_table(
    fit: Estimates,
    effects: Effects,
    *,
    conf_int: bool,
    conf_level: float,
    df: DfMethod,
    vcov: VcovMethod | None,
    information: Information,
    conf_method: ConfMethod,
    innovation: bool = False,
) -> pd.DataFrame:
    """The tables asked for, one under the other."""
    require_one_of(effects, get_args(Effects), "effects")
    require_flag(conf_int, "conf_int")
    require_parameters(innovation, effects)
    conf_method, conf_level = find_word(conf_method, get_args(ConfMethod), "conf_method", CONF_SYNONYMS), require_level(conf_level)
    parts = []
    if effects in ("fixed", "all"):
        parts.append(_fixed_rows(fixed_columns(fit, df, vcov, information), conf_level if conf_int else None))
    if effects in ("ran_pars", "all"):
        parts.append(parameter_table(fit, innovation))
    if conf_int and conf_method != "wald":
        parts = [_with_limits(part, confint(fit, conf_method, conf_level)) for part in parts]
    if effects in ("ran_vals", "all"):
        parts.append(_values(fit, conf_level if conf_int else None))
    columns = [*COLUMNS, *(("conf_low", "conf_high") if conf_int else ())]
    if len(parts) == 1:
        return parts[0] if list(parts[0].columns) == columns else parts[0].reindex(columns=columns)
    out = {name: np.concatenate([part.reindex(columns=columns)[name].to_numpy(object) for part in parts]) for name in columns}
    return pd.DataFrame(out).astype(dict.fromkeys(columns[4:], float))


def require_parameters(innovation: bool, effects: str) -> None:
    """SpecificationError where innovations are asked for in a table without covariance parameters."""
    if require_flag(innovation, "innovation") and effects not in ("ran_pars", "all"):
        raise SpecificationError(
            f"innovation=True adds to the covariance parameters, and effects={effects!r} has none", "innovation", 'effects="ran_pars"'
        )


def _fixed_rows(columns: dict[str, Any], conf_level: float | None) -> pd.DataFrame:
    out = pd.DataFrame({"effect": "fixed", "group": None, "level": None} | columns, index=range(len(columns["term"])))
    return out if conf_level is None else with_limits(out, conf_level)


ROUNDED_CORRELATION = 1e-8
"""1 - r^2 below which a correlation is 1 but for rounding, and Fisher's z of it no number to have an error."""


def parameter_errors(fit: Estimates, functions: Sequence[InnovationSd] = ()) -> dict[str, float]:
    """Standard errors of the covariance parameters, by name: the delta method from the observed information; NaN at the end of a range.

    functions : of the parameters, whose errors are wanted besides
    """
    problem = fit.problem
    found: dict[str, float] = {}
    tau = np.append(fit.estimate.x, 0.5 * np.log(fit.point.sigma2))
    covariance, gone = Inference(fit).curvature.covariance, vanished_parameters(problem, fit.estimate.x)
    for parameter in (*covariance_parameters(problem), *functions):
        value, error = parameter_value(parameter, problem, tau), standard_error(parameter, problem, tau, covariance)
        speed = scale_speed(parameter.scale, value)
        at_one = parameter.scale == "fisher" and speed < ROUNDED_CORRELATION
        parts = parameter.own.names if isinstance(parameter, InnovationSd) else (parameter.term,)
        parts_known = not np.isnan([found.get(name, 0.0) for name in parts]).any()
        known = error > 0 and not at_one and parts_known and (gone.zero | gone.unknown).isdisjoint(parts)
        found[parameter.term] = speed * error if known else np.nan
    return found


def parameter_table(fit: Estimates, innovation: bool = False) -> pd.DataFrame:
    """Standard deviations, correlations and the parameters of the errors: `sd__Intercept`, `cor__Intercept.Days`, `sd__Observation`.

    innovation : whether the standard deviations of innovations stand below the parameters of the errors
    """
    functions = innovation_sds(fit.problem) if innovation else ()
    rows: list[tuple[str, str, float]] = []
    for entry in varcorr_rows(fit.design.terms, fit.covariances):
        if entry.second is None:
            rows.append((entry.group, f"sd__{entry.first}", entry.sd))
        else:
            rows.append((entry.group, f"cor__{entry.first}.{entry.second}", entry.corr))
    residual = fit.residual_params
    if len(residual):
        rows += [("Residual", str(name), float(value)) for name, value in residual.items()]
    else:
        rows.append(("Residual", "sd__Observation", fit.sigma))
    tau = np.append(fit.estimate.x, 0.5 * np.log(fit.point.sigma2))
    rows += [("Residual", one.term, parameter_value(one, fit.problem, tau)) for one in functions]
    groups, terms, values = zip(*rows, strict=True)
    known = parameter_errors(fit, functions)
    errors = [known.get(f"{term}|{group}", known.get(term, np.nan)) for group, term, _ in rows]
    return pd.DataFrame({"effect": "ran_pars", "group": groups, "level": None, "term": terms, "estimate": values, "std_error": errors})


def _with_limits(table: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """The limits of `confint` beside the rows that they are about; a parameter of a group may be called `sd__Intercept|Subject` there."""
    keys = limits["term"].astype(str)
    if "group" in limits:
        keys = keys.where(limits["group"].isna() | (limits["group"] == "Residual"), keys + "|" + limits["group"].astype(str))
    low, high = dict(zip(keys, limits["conf_low"], strict=True)), dict(zip(keys, limits["conf_high"], strict=True))
    own = [f"{t}|{g}" if f"{t}|{g}" in low else t for t, g in zip(table["term"], table["group"], strict=True)]
    return table.assign(conf_low=[low.get(key, np.nan) for key in own], conf_high=[high.get(key, np.nan) for key in own])


def _values(fit: Estimates, conf_level: float | None) -> pd.DataFrame:
    parts = []
    sds = sd_frames(fit)
    for group, modes in mode_frames(fit).items():
        q = modes.shape[1]
        part = {
            "group": group,
            "level": np.repeat(modes.index.to_numpy(object), q),
            "term": np.tile(np.array(modes.columns, object), len(modes)),
            "estimate": modes.to_numpy().ravel(),
            "std_error": sds[group].to_numpy().ravel(),
        }
        parts.append(pd.DataFrame(part))
    out = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["group", "level", "term", "estimate", "std_error"])
    out = out.assign(effect="ran_vals")
    if conf_level is not None:
        half = two_sided_quantile(conf_level) * out["std_error"].to_numpy(float)
        out = out.assign(conf_low=out["estimate"] - half, conf_high=out["estimate"] + half)
    return out
