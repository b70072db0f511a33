"""`compare_models`: different models of one response, ranked by what they predict or by what they cost."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.bayes.loo import leave_one_out
from bayeslmm.bayes.posterior import Posterior
from bayeslmm.bayes.sampling import sample
from bayeslmm.errors import BayesLMMWarning, SpecificationError
from bayeslmm.results.fit import Fit

CRITERIA = ("aic", "bic", "loo", "logo", "evidence")


def compare_models(models: Mapping[str, Any], by: str = "aic", *, group: str | None = None, seed: int = 0, **options: Any) -> pd.DataFrame:
    """Models ranked, the best first.

    models : name -> `LMM`, `Fit` or `Posterior`, all of the same response over the same rows
    by : "aic", "bic" (`model, npar, loglik, aic, bic, difference, weight`); "loo", leaving out observations, or "logo", leaving out levels
        of a grouping factor (`model, elpd, se, difference, se_difference, p, weight`); "evidence" (`model, log_evidence, difference,
        weight`)
    group : the grouping factor of "logo", where there are several; options : of `LMM.sample`

    REML fits of different fixed effects are refitted by ML, and it says so: their criteria are not about the same data. Weights are those
    of AIC or BIC, posterior probabilities of equally likely models for "evidence", and pseudo-BMA weights for "loo" and "logo".
    Raises SpecificationError for models of different responses, PriorError where the evidence would need proper priors.

    >>> blm.compare_models({"slope": model, "intercept": intercept}, by="aic")["model"].tolist()
    ['slope', 'intercept']
    """
    if by not in CRITERIA:
        raise SpecificationError(f"by is {by!r}", "compare_models", "use one of " + ", ".join(CRITERIA))
    if not isinstance(models, Mapping) or not models:
        raise SpecificationError("no models were given", "compare_models", 'give a mapping: {"a": m1, "b": m2}')
    _demand_same_response(models)
    if by in ("aic", "bic"):
        return _by_criterion(models, by)
    posteriors = {name: source if isinstance(source, Posterior) else _posterior(source, seed, options) for name, source in models.items()}
    if by == "evidence":
        return _by_evidence(posteriors)
    return _by_prediction(posteriors, by, group, seed)


def _demand_same_response(models: Mapping[str, Any]) -> None:
    first: Any = None
    for name, source in models.items():
        design = getattr(source, "design", None)
        if design is None:
            raise SpecificationError(f"{name} is a {type(source).__name__}", name, "give an LMM, a Fit or a Posterior")
        first = design if first is None else first
        if len(design.y) != len(first.y) or not np.array_equal(design.y, first.y) or not np.array_equal(design.rows, first.rows):
            raise SpecificationError(
                "the models are of different responses or rows", name, "fit them to the same rows: drop missing values first"
            )


def _posterior(source: Any, seed: int, options: dict[str, Any]) -> Posterior:
    model = source.model if isinstance(source, Fit) else source
    return sample(model, seed=seed, **options)


# -- what an estimate costs ----------------------------------------------------------------------------------------------------------------


def _by_criterion(models: Mapping[str, Any], by: str) -> pd.DataFrame:
    fits = {
        name: source if isinstance(source, Fit) else (source.model if isinstance(source, Posterior) else source).fit("ML")
        for name, source in models.items()
    }
    own = list(fits.values())
    same = all(fit.design.X.shape == own[0].design.X.shape and np.array_equal(fit.design.X, own[0].design.X) for fit in own)
    mixed = len({fit.method for fit in own}) > 1
    if any(fit.method != "ML" for fit in own) and (mixed or not same):
        warnings.warn(
            BayesLMMWarning(
                "fits by other methods than ML are refitted by ML", "compare_models", 'give fits of one method: model.fit("ML")'
            ),
            stacklevel=3,
        )
        fits = {name: fit if fit.method == "ML" else fit.model.fit("ML") for name, fit in fits.items()}
    table = pd.DataFrame(
        [{"model": n, "npar": f.df_model, "loglik": f.loglik, "aic": f.aic, "bic": f.bic} for n, f in fits.items()]
    ).sort_values(by, kind="stable", ignore_index=True)
    table["difference"] = table[by] - table[by].iloc[0]
    table["weight"] = _weights(-0.5 * table["difference"])
    return table


def _weights(log: Any) -> Any:
    share = np.exp(log - np.max(log))
    return share / share.sum()


# -- what a posterior predicts -------------------------------------------------------------------------------------------------------------


def _by_evidence(posteriors: Mapping[str, Posterior]) -> pd.DataFrame:
    table = pd.DataFrame([{"model": name, "log_evidence": post.log_evidence} for name, post in posteriors.items()])
    table = table.sort_values("log_evidence", ascending=False, kind="stable", ignore_index=True)
    table["difference"] = table["log_evidence"] - table["log_evidence"].iloc[0]
    table["weight"] = _weights(table["difference"])
    return table


def _by_prediction(posteriors: Mapping[str, Posterior], by: str, group: str | None, seed: int) -> pd.DataFrame:
    found = {
        name: leave_one_out(post, "group" if by == "logo" else "observation", group if by == "logo" else None, seed=seed)
        for name, post in posteriors.items()
    }
    sizes = {elpd.n_data_points for elpd in found.values()}
    if len(sizes) > 1:
        raise SpecificationError(
            "the models leave out different things", ", ".join(map(str, sizes)), 'name the same factor: group="Subject"'
        )
    order = sorted(found, key=lambda name: -found[name].elpd)
    best = np.asarray(found[order[0]].elpd_i)
    rows = []
    for name in order:
        own = found[name]
        gap = np.asarray(own.elpd_i) - best
        se = float(np.sqrt(len(gap) * gap.var()))
        rows.append({"model": name, "elpd": own.elpd, "se": own.se, "difference": float(gap.sum()), "se_difference": se, "p": own.p})
    table = pd.DataFrame(rows)
    table["weight"] = _weights(table["elpd"])
    return table
