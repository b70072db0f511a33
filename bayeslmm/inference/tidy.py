"""Tidy tables: one row per coefficient, covariance parameter or random effect, with broom's columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtr

from bayeslmm._types import ConfMethod
from bayeslmm._validation import find_word, require_flag, require_level, require_one_of, spell
from bayeslmm.inference.fixed_effects.tests import coefficient_table
from bayeslmm.inference.intervals.confint import confint
from bayeslmm.results.fitted import mode_frames, sd_frames
from bayeslmm.results.predict import two_sided_quantile, with_limits
from bayeslmm.results.random_effects import varcorr_rows

if TYPE_CHECKING:
    from bayeslmm._types import DfMethod, Effects, Information, VcovMethod
    from bayeslmm.results.estimates import Estimates


EFFECTS = ("fixed", "ran_pars", "ran_vals", "all")
COLUMNS = ("effect", "group", "level", "term", "estimate", "std_error", "df", "statistic", "p_value")


def normal_tests(names: Sequence[str], estimate: Any, std_error: Any) -> pd.DataFrame:
    """z tests of the coefficients."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = estimate / std_error
    columns = {"term": list(names), "estimate": estimate, "std_error": std_error, "df": np.where(np.isnan(z), np.nan, np.inf)}
    return pd.DataFrame(columns | {"statistic": z, "p_value": 2.0 * ndtr(-np.abs(z))})


def fixed_tests(fit: Estimates, df: DfMethod, vcov: VcovMethod | None, information: Information) -> pd.DataFrame:
    """t tests of the coefficients: `term, estimate, std_error, df, statistic, p_value`."""
    if spell(df) == "asymptotic" and vcov in (None, "asymptotic"):
        return normal_tests(fit.design.coef_names, fit.fixef.to_numpy(), np.sqrt(np.diagonal(fit.vcov.to_numpy())))
    return coefficient_table(fit, df, vcov, information)


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
) -> pd.DataFrame:
    """The tables asked for, one under the other."""
    require_one_of(effects, EFFECTS, "effects")
    require_flag(conf_int, "conf_int")
    conf_method, conf_level = find_word(conf_method, get_args(ConfMethod), "conf_method"), require_level(conf_level)
    parts = []
    if effects in ("fixed", "all"):
        parts.append(_fixed(fixed_tests(fit, df, vcov, information), conf_level if conf_int else None))
    if effects in ("ran_pars", "all"):
        parts.append(parameter_table(fit))
    if conf_int and conf_method != "wald":
        parts = [_with_limits(part, confint(fit, conf_method, conf_level)) for part in parts]
    if effects in ("ran_vals", "all"):
        parts.append(_values(fit, conf_level if conf_int else None))
    columns = [*COLUMNS, *(("conf_low", "conf_high") if conf_int else ())]
    if len(parts) == 1:
        return parts[0].reindex(columns=columns)
    out = {name: np.concatenate([part.reindex(columns=columns)[name].to_numpy(object) for part in parts]) for name in columns}
    return pd.DataFrame(out).astype(dict.fromkeys(columns[4:], float))


def _fixed(table: pd.DataFrame, conf_level: float | None) -> pd.DataFrame:
    out = table.assign(effect="fixed", group=None, level=None)
    return out if conf_level is None else with_limits(out, conf_level)


def parameter_table(fit: Estimates) -> pd.DataFrame:
    """Standard deviations, correlations and the parameters of the errors: `sd__Intercept`, `cor__Intercept.Days`, `sd__Observation`."""
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
    groups, terms, values = zip(*rows, strict=True)
    return pd.DataFrame({"effect": "ran_pars", "group": groups, "level": None, "term": terms, "estimate": values})


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
