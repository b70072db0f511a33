"""`compare_models`: different models of one response, ranked by an information criterion, by held-out prediction or by evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._types import Ranking
from bayeslmm._validation import require_one_of
from bayeslmm.bayes.comparison import (
    distinct_titles,
    title_of,
)
from bayeslmm.bayes.held_out import held_out, level_sets
from bayeslmm.bayes.loo import leave_one_out, with_jacobian
from bayeslmm.bayes.posterior.posterior import Posterior
from bayeslmm.bayes.sampling.sample import sample
from bayeslmm.errors import BayesLMMWarning, SpecificationError, show_value, warn_user
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.results.estimates import Estimates, FittedModel
from bayeslmm.results.foreign_names import answers_keywords
from bayeslmm.results.response_scale import outcome_jacobians

if TYPE_CHECKING:
    from bayeslmm._types import LeaveOut, SamplingMethod


@answers_keywords
def compare_models(
    models: Mapping[str, FittedModel | Estimates | Posterior] | Iterable[FittedModel | Estimates | Posterior],
    by: Ranking = "aic",
    *,
    group: str | None = None,
    seed: int | None = None,
    draws: int | None = None,
    chains: int | None = None,
    method: SamplingMethod | None = None,
) -> pd.DataFrame:
    """Models ranked, the best first.

    Of responses that are functions of one column, such as y and log(y), everything is of that column: log |dg/dy| of every row is added.
    REML fits of different fixed effects are refitted by ML, and it says so: their criteria are not about the same data. Weights are those
    of AIC or BIC, posterior probabilities of equally likely models for "evidence", and pseudo-BMA weights for "loo" and "logo".

    Parameters
    ----------
    models : Mapping of str to LMM, Fit or Posterior, or sequence of these
        Name -> `LMM`, `Fit` or `Posterior`, or a list of them, named by their formulas; all of one outcome over the same rows.
    by : {"aic", "bic", "loo", "logo", "evidence"}, default "aic"
        "aic", "bic" (`model, npar, loglik, aic, bic, difference, weight`); "loo", leaving out observations, or "logo", leaving out levels
        of a grouping factor (`model, elpd, se, difference, se_difference, p, weight`); "evidence" (`model, log_evidence, difference,
        weight`).
    group : str, optional
        Grouping factor of "logo", where there are several.
    seed : int, optional
        Of `LMM.sample`, where posteriors are compared; 0 unless given.
    draws : int, optional
        Of `LMM.sample`; 1000 unless given.
    chains : int, optional
        Of `LMM.sample`; 4 unless given.
    method : {"auto", "collapsed", "hierarchical", "importance", "nuts"}, optional
        Of `LMM.sample`; "auto" unless given.

    Returns
    -------
    DataFrame
        One row for each model.

    Raises
    ------
    SpecificationError
        For models of different responses.
    PriorError
        Where the evidence would need proper priors.

    Examples
    --------
    >>> blm.compare_models({"slope": model, "intercept": intercept}, by="aic")["model"].tolist()
    ['slope', 'intercept']
    """
    if hasattr(by, "design"):
        raise SpecificationError("models are given one by one", "by", 'give them as one list, or by name: {"small": fit, "large": other}')
    require_one_of(by, get_args(Ranking), "by")
    if isinstance(models, Sequence | Iterator | ValuesView) and not isinstance(models, str):
        models = list(models)
        models = dict(zip(distinct_titles([title_of(model) for model in models]), models, strict=True))
    if not isinstance(models, Mapping) or not models:
        what = "no models were given" if isinstance(models, Mapping) else f"models is {show_value(models)}"
        raise SpecificationError(what, "compare_models", 'give a mapping: {"a": m1, "b": m2}')
    jacobians = _on_one_outcome(models)
    if group is not None and by != "logo":
        raise SpecificationError(
            f"group is {show_value(group)}, and {by!r} leaves out no groups", "group", 'leave it out, or use by="logo"'
        )
    sampling = {"seed": seed, "draws": draws, "chains": chains, "method": method}
    options = [name for name, value in sampling.items() if value is not None]
    if options and by in ("aic", "bic"):
        raise SpecificationError(f"{by!r} draws nothing: {', '.join(options)}", ", ".join(options), "leave it out")
    if by in ("aic", "bic"):
        return _by_criterion(models, by, jacobians)
    drawn: dict[str, Any] = {"draws": 1000, "chains": 4, "seed": 0, "method": "auto"} | {name: sampling[name] for name in options}
    posteriors = {name: source if isinstance(source, Posterior) else _posterior(source, **drawn) for name, source in models.items()}
    if by == "evidence":
        return _by_evidence(posteriors, jacobians)
    return _by_prediction(posteriors, by, group, 0 if seed is None else seed, jacobians)


def _on_one_outcome(models: Mapping[str, Any]) -> dict[str, Array]:
    """log |dg/dy| of every model's response g(y), (n,), 0 where all have the same response.

    Raises SpecificationError for models whose responses are no functions of one outcome over the same rows.
    """
    for name, source in models.items():
        if getattr(source, "design", None) is None:
            raise SpecificationError(f"{name} is a {type(source).__name__}", name, "give an LMM, a Fit or a Posterior")
    found = outcome_jacobians({name: source.design for name, source in models.items()})
    if found is None:
        texts = ", ".join(dict.fromkeys(str(source.design.spec.formula.response) for source in models.values()))
        raise SpecificationError(
            f"the models are of different responses or rows: {texts}",
            ", ".join(models),
            "fit them to the same rows (drop missing values first), their responses functions of one column, such as y and log(y)",
        )
    return found


def _posterior(source: Any, draws: int, chains: int, seed: int, method: SamplingMethod) -> Posterior:
    model = source.model if isinstance(source, Estimates) else source
    return sample(model, draws, chains, seed, method)


# -- what an estimate costs ----------------------------------------------------------------------------------------------------------------


def _fit_by_ml(model: Any) -> Any:
    return require_finished(model.fit("ML"))


def _by_criterion(models: Mapping[str, Any], by: str, jacobians: Mapping[str, Array]) -> pd.DataFrame:
    fits = {
        name: source if isinstance(source, Estimates) else _fit_by_ml(source.model if isinstance(source, Posterior) else source)
        for name, source in models.items()
    }
    own = list(fits.values())
    same = all(fit.design.X.shape == own[0].design.X.shape and np.array_equal(fit.design.X, own[0].design.X) for fit in own)
    # a restricted likelihood is one of differences of the response: no Jacobian takes it to another scale
    same = same and not any(values.any() for values in jacobians.values())
    mixed = len({fit.method for fit in own}) > 1
    if any(fit.method != "ML" for fit in own) and (mixed or not same):
        warn_user(
            BayesLMMWarning(
                "fits by other methods than ML are refitted by ML", "compare_models", 'give fits of one method: model.fit("ML")'
            )
        )
        fits = {name: fit if fit.method == "ML" else _fit_by_ml(fit.model) for name, fit in fits.items()}
    more = {name: float(values.sum()) for name, values in jacobians.items()}
    table = pd.DataFrame(
        [
            {"model": n, "npar": f.df_model, "loglik": f.loglik + more[n], "aic": f.aic - 2.0 * more[n], "bic": f.bic - 2.0 * more[n]}
            for n, f in fits.items()
        ]
    ).sort_values(by, kind="stable", ignore_index=True)
    table["difference"] = table[by] - table[by].iloc[0]
    table["weight"] = _weights(-0.5 * table["difference"])
    return table


def _weights(log: Any) -> Any:
    share = np.exp(log - np.max(log))
    return share / share.sum()


# -- what a posterior predicts -------------------------------------------------------------------------------------------------------------


def _by_evidence(posteriors: Mapping[str, Posterior], jacobians: Mapping[str, Array]) -> pd.DataFrame:
    rows = [{"model": name, "log_evidence": post.log_evidence + float(jacobians[name].sum())} for name, post in posteriors.items()]
    table = pd.DataFrame(rows)
    table = table.sort_values("log_evidence", ascending=False, kind="stable", ignore_index=True)
    table["difference"] = table["log_evidence"] - table["log_evidence"].iloc[0]
    table["weight"] = _weights(table["difference"])
    return table


def _partition(post: Posterior, group: str | None) -> Array:
    """For every row the number of its hold-out, numbered by their first rows, whatever the factor is called."""
    sets, _, _ = level_sets(post, group)
    labels = np.empty(post.design.nobs, np.int64)
    for k, rows in enumerate(sets):
        labels[rows] = k
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse])


def _require_one_partition(posteriors: Mapping[str, Posterior], group: str | None) -> None:
    """Raise SpecificationError, with what each leaves out, for models whose hold-outs are not the same sets of rows."""
    partitions = [_partition(post, group) for post in posteriors.values()]
    if all(np.array_equal(partitions[0], other) for other in partitions[1:]):
        return
    units = []
    for name, post in posteriors.items():
        sets, _, factor = level_sets(post, group)
        units.append(f"{name}: {len(sets)} levels of {factor}")
    remedy = 'name a factor of all of them, as group="Subject", or leave out rows: by="loo"'
    raise SpecificationError("the models leave out different things", "; ".join(units), remedy)


def _by_prediction(
    posteriors: Mapping[str, Posterior], by: str, group: str | None, seed: int, jacobians: Mapping[str, Array]
) -> pd.DataFrame:
    if by == "logo":
        _require_one_partition(posteriors, group)
    found = {}
    for name, post in posteriors.items():
        kind: LeaveOut = "group" if by == "logo" else "observation"
        factor = group if by == "logo" else None
        sets = held_out(post, kind, factor)[0]
        found[name] = with_jacobian(leave_one_out(post, kind, factor, seed=seed), np.array([jacobians[name][rows].sum() for rows in sets]))
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
