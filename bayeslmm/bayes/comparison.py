"""`compare`: estimates beside posteriors of one model; `compare_models`: different models of one response, ranked.

gap : distance from the posterior mean of the reference (the first posterior given) in its posterior sds
pull : how far the priors of the covariance parameters draw a posterior mean, in its sds: the derivative of the mean in the power of that
    prior, cov(parameter, log prior) / sd; to first order, taking the prior away would undo this shift
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm._validation import require_level, require_one_of
from bayeslmm.bayes.held_out import held_out, level_sets
from bayeslmm.bayes.loo import leave_one_out, with_jacobian
from bayeslmm.bayes.posterior.datatree import joint_log_prior
from bayeslmm.bayes.posterior.posterior import Posterior
from bayeslmm.bayes.posterior.tables import draw_sds, equal_tailed_limits, parameter_draws
from bayeslmm.bayes.sampling.sample import sample
from bayeslmm.errors import BayesLMMWarning, SpecificationError, printable_text, warn_user
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.inference.tidy import tidy_table
from bayeslmm.likelihood.structured.residual_covariance import sigma_name
from bayeslmm.results.estimates import Estimates, FittedModel
from bayeslmm.results.foreign_names import answers_keywords, known_arguments
from bayeslmm.results.response_scale import outcome_jacobians

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from bayeslmm._types import ConfMethod, Effects, LeaveOut, Ranking, SamplingMethod
    from bayeslmm.data.design import Design, RandomTerm
    from bayeslmm.reports.page import HtmlPage

    Source = Estimates | Posterior | xarray.DataTree

COMPARISON_COLUMNS = ["source", "effect", "group", "term", "estimate", "std_error", "conf_low", "conf_high", "gap", "pull"]
COMPARISON_KEYS = ["effect", "group", "term"]
ERROR_SD = "sd__Observation"


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One row per parameter and source.

    Attributes
    ----------
    frame : DataFrame
        `source, effect, group, term, estimate, std_error, conf_low, conf_high, gap, pull`; limits of a fit's standard deviations and
        correlations are those asked for by `conf_method`, NaN by default.
    """

    frame: pd.DataFrame
    conf_level: float

    def plot(self, ax: Axes | None = None) -> Axes:
        """A forest: every parameter on its own scale of posterior sds around the reference, one mark per source.

        Parameters
        ----------
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = blm.compare(fit, post).plot()
        """
        from bayeslmm.plots.intervals import comparison_axes

        return comparison_axes(self.frame, ax)

    def report(self, path: str | Path | None = None, title: str | None = None) -> HtmlPage:
        """The comparison as one HTML file that needs nothing else; written to `path` where one is given.

        Parameters
        ----------
        path : str or Path, optional
            File to write.
        title : str, optional
            Title of the page; by default one made from the model.

        Returns
        -------
        HtmlPage
            The page, a str that is shown by its sections and its size.

        Examples
        --------
        >>> "gap" in blm.compare(fit, post).report()
        True
        """
        from bayeslmm.reports.comparison import comparison_report

        return comparison_report(self, path, title=title)

    def __repr__(self) -> str:
        return printable_text(self.frame.to_string(index=False))

    def _repr_html_(self) -> str:
        return str(self.frame.to_html(index=False, escape=True))


known_arguments(Comparison)


@answers_keywords
def compare(*sources: Source | Mapping[str, Source], conf_level: float = 0.95, conf_method: ConfMethod = "wald") -> Comparison:
    """Estimates and posteriors of the same model in one table.

    Parameters
    ----------
    *sources : Source or Mapping of str to Source
        Fits (REML, ML, MAP), posteriors, and draws of `to_pymc` or Bambi as ArviZ trees, in any mix; a mapping gives them names, `{"REML":
        fit, "PyMC": tree}`.
    conf_level : float, default 0.95
        Level of the limits, between 0 and 1.
    conf_method : {"wald", "profile", "bootstrap"}, default "wald"
        "wald", "profile" or "bootstrap", for the limits of fits.

    Returns
    -------
    Comparison
        The table, with the figure and the report of it.

    Raises
    ------
    SpecificationError
        For sources of different models.

    Examples
    --------
    >>> blm.compare(fit, post).frame["source"].unique().tolist()
    ['REML', 'posterior']
    """
    require_level(conf_level)
    pairs: list[tuple[str, Any]] = []
    for source in sources:
        if isinstance(source, Mapping) and not _is_tree(source):
            pairs += [(str(name), own) for name, own in source.items()]
        else:
            pairs.append((_label(source), source))
    if not pairs:
        raise SpecificationError("nothing to compare", "compare", "give fits and posteriors of one model")
    _require_same_model([source for _, source in pairs])
    own = dict(zip(_distinct([label for label, _ in pairs]), [source for _, source in pairs], strict=True))
    posteriors = [source for source in own.values() if isinstance(source, Posterior)]
    parts = []
    scale = next((sigma_name(source.problem) for source in own.values() if isinstance(source, Estimates | Posterior)), "")
    for label, source in own.items():
        rows = _rows(source, conf_level, conf_method)
        if scale:
            rows["term"] = rows["term"].where((rows["group"] != "Residual") | (rows["term"] != ERROR_SD), scale)
        parts.append(rows.assign(source=label))
    frame = pd.concat(parts, ignore_index=True)
    reference = posteriors[0] if posteriors else None
    frame["gap"] = np.nan if reference is None else _gap(frame, _draw_rows(reference, conf_level))
    order = {key: i for i, key in enumerate(dict.fromkeys(_keys(frame)))}
    frame["order"] = [order[key] for key in _keys(frame)]
    frame = frame.sort_values("order", kind="stable", ignore_index=True)
    return Comparison(frame.reindex(columns=COMPARISON_COLUMNS), conf_level)


def _label(source: Any) -> str:
    if isinstance(source, Estimates):
        return source.method
    return "posterior" if isinstance(source, Posterior) else "draws"


def _title(model: Any) -> str:
    design = getattr(model, "design", None)
    return type(model).__name__ if design is None else str(design.spec.title)


def _distinct(labels: list[str]) -> list[str]:
    return [label if labels.count(label) == 1 else f"{label} {labels[: i + 1].count(label)}" for i, label in enumerate(labels)]


def _require_same_model(sources: list[Any]) -> None:
    models = [source for source in sources if isinstance(source, Estimates | Posterior)]
    for other in models[1:]:
        first = models[0]
        what = _difference(first.design, other.design)
        if what:
            raise SpecificationError(
                f"the sources are of different models or data: they differ in {what}",
                f"{first.design.spec.formula.text} and {other.design.spec.formula.text}",
                "use blm.compare_models for different models",
            )


def _difference(one: Design, other: Design) -> str:
    """What two designs differ in, priors left aside; empty where they are the same model of the same data, however it was written."""
    formula = "" if one.spec.formula.text == other.spec.formula.text else "the formula"
    if not (one.in_memory and other.in_memory):
        return formula or ("" if one.nobs == other.nobs else "the rows")
    if sorted(one.coef_names) != sorted(other.coef_names) or not _alike(_fixed_columns(one), _fixed_columns(other)):
        return formula or "the response or the fixed effects"
    weights = [None if d.weights is None else d.weights * d.weight_scale for d in (one, other)]
    if not _alike(weights[:1], weights[1:]) or one.spec.sigma != other.spec.sigma:
        return "weights or a held sigma"
    terms = [sorted(d.terms, key=_term_key) for d in (one, other)]
    arrays: list[list[Array | Codes | None]] = [[a for t in own for a in (t.Z, t.group.codes, t.relationship)] for own in terms]
    if [_term_key(t) for t in terms[0]] != [_term_key(t) for t in terms[1]] or not _alike(*arrays):
        return formula or "the random effects"
    errors = [d.spec.residual for d in (one, other)], [d.spec.variance for d in (one, other)]
    if any(a != b for a, b in errors):
        return "the structure of the errors"
    places: list[Sequence[Array | Codes | None]] = [
        () if d.residual is None else (d.residual.subject.codes, d.residual.visit, d.residual.coords) for d in (one, other)
    ]
    covariates: list[Sequence[Array | Codes | None]] = [
        [array for v in d.variance for array in (v.covariate, v.strata)] for d in (one, other)
    ]
    return "" if _alike(*places) and _alike(*covariates) else "the structure of the errors"


def _fixed_columns(design: Design) -> list[Array | None]:
    """y, the offset, and the columns of X by their names."""
    order = sorted(range(len(design.kept)), key=lambda j: design.coef_names[design.kept[j]])
    return [design.y, design.offset, design.X[:, order]]


def _term_key(term: RandomTerm) -> tuple[str, ...]:
    """What tells a random term from others: its factor, its columns, its structure."""
    return (term.group.name, *term.columns, term.spec.structure, str(term.spec.order))


def _alike(one: Sequence[Array | Codes | None], other: Sequence[Array | Codes | None]) -> bool:
    return len(one) == len(other) and all(
        (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b)) for a, b in zip(one, other, strict=True)
    )


# -- rows of a source ----------------------------------------------------------------------------------------------------------------------


def _is_tree(source: Any) -> bool:
    """Whether a source is draws in groups; a mapping of sources may have one called "posterior"."""
    return hasattr(source, "posterior") or (isinstance(source, Mapping) and hasattr(source.get("posterior"), "data_vars"))


def _rows(source: Any, conf_level: float, conf_method: ConfMethod) -> pd.DataFrame:
    if isinstance(source, Estimates):
        return _fit_rows(source, conf_level, conf_method)
    if isinstance(source, Posterior):
        return _draw_rows(source, conf_level)
    if _is_tree(source):
        return _tree_rows(source, conf_level)
    raise SpecificationError(
        f"a {type(source).__name__} cannot be compared", "compare", "give fits, posteriors, or ArviZ trees with a posterior group"
    )


def _fit_rows(fit: Estimates, conf_level: float, conf_method: ConfMethod) -> pd.DataFrame:
    whole: tuple[Effects, Effects] = ("fixed", "ran_pars")
    parts = [
        tidy_table(
            fit,
            effects,
            conf_int=True,
            conf_level=conf_level,
            df="asymptotic",
            vcov=None,
            information="expected",
            conf_method=conf_method,
        )
        for effects in whole
    ]
    columns = {
        name: np.concatenate([part[name].to_numpy(object) for part in parts]) for name in [*COMPARISON_KEYS, *COMPARISON_COLUMNS[4:8]]
    }
    frame = pd.DataFrame(columns).astype(dict.fromkeys(COMPARISON_COLUMNS[4:8], float))
    return frame.assign(pull=np.nan)


def _draw_rows(post: Posterior, conf_level: float) -> pd.DataFrame:
    rows: list[tuple[str, str | None, str]] = [("fixed", None, name) for name in post.coef_names]
    values = list(post.draws.alpha.T)
    for group, name, draws in parameter_draws(post):
        rows.append(("ran_pars", group, name))
        values.append(draws)
    frame = _comparison_frame(rows, np.stack(values, axis=1), conf_level)
    return frame.assign(pull=prior_pull(post, np.stack(values, axis=1)))


def prior_pull(post: Posterior, values: Array) -> Array:
    """cov(value, log prior) / sd of each column of draws (S, k); the prior is that of all parameters on the user's scale."""
    log_prior = joint_log_prior(post)
    if not np.isfinite(log_prior).all():
        return np.full(values.shape[1], np.nan)
    away = values - values.mean(0)
    sd = draw_sds(values, ddof=0)
    return np.asarray((away * (log_prior - log_prior.mean())[:, None]).mean(0) / np.where(sd > 0, sd, np.inf))


def _comparison_frame(rows: list[tuple[str, str | None, str]], values: Array, conf_level: float) -> pd.DataFrame:
    low, high = equal_tailed_limits(values, conf_level)
    columns = {"estimate": values.mean(0), "std_error": draw_sds(values), "conf_low": low, "conf_high": high}
    return pd.DataFrame(rows, columns=COMPARISON_KEYS).assign(**columns)


Row = tuple[tuple[str, str | None, str], Array]


def _tree_rows(tree: Any, conf_level: float) -> pd.DataFrame:
    """Draws of our graphs, of Bambi, or of anything that calls its parameters so."""
    posterior = tree["posterior"]
    names = [str(name) for name in posterior.data_vars]
    own = "alpha" in names
    found = _unstructured_rows(posterior) if own else []
    behind = {f"sd_residual{name.removeprefix('corr_residual')}" for name in names if name.startswith("corr_residual")}
    if any(name.startswith(("sd_residual", "sd|")) for name in names):
        behind.add("sigma")  # the first sd of R, under its own name among the others
    for name in names:
        if own and name in behind:
            continue
        variable = posterior[name]
        flat = np.asarray(variable.values, float).reshape(-1, *variable.shape[2:])
        for row, draws in _own_variable(name, variable, flat) if own else _bambi_variable(name, variable, flat):
            found.append((row, draws))
    rows, values = [row for row, _ in found], [draws for _, draws in found]
    if not rows:
        raise SpecificationError(
            "the tree has no parameters that are known here", ", ".join(names[:8]), "give draws of to_pymc or to_bambi"
        )
    order = sorted(range(len(rows)), key=lambda i: rows[i][0] != "fixed")
    return _comparison_frame([rows[i] for i in order], np.stack([values[i] for i in order], axis=1), conf_level).assign(pull=np.nan)


def _own_variable(name: str, variable: Any, flat: Array) -> list[Row]:
    labels = [[str(label) for label in variable.coords[dim].values] if dim in variable.coords else [] for dim in variable.dims[2:]]
    if name == "alpha":
        return [(("fixed", None, label), flat[:, j]) for j, label in enumerate(labels[0])]
    if name == "sigma":
        return [(("ran_pars", "Residual", ERROR_SD), flat)]
    stem, _, group = name.partition("_")
    if stem == "sd" and len(labels) == 1 and variable.dims[2] == f"{group}_term":
        return [(("ran_pars", group, f"sd__{label}"), flat[:, j]) for j, label in enumerate(labels[0])]
    if stem == "corr" and len(labels) == 2 and variable.dims[2] == f"{group}_term":
        pairs = [(a, b) for a in range(len(labels[0])) for b in range(a + 1, len(labels[0]))]
        return [(("ran_pars", group, f"cor__{labels[0][a]}.{labels[0][b]}"), flat[:, a, b]) for a, b in pairs]
    if name.partition("|")[0] == "sd_residual":
        suffix = name.removeprefix("sd_residual")
        return [(("ran_pars", "Residual", f"sd[{label}]{suffix}"), flat[:, j]) for j, label in enumerate(labels[0])]
    # the shape of a D, `rho | Subject`, has no row in the table of a fit
    return [] if flat.ndim > 1 or " | " in name else [(("ran_pars", "Residual", name), flat)]


def _unstructured_rows(posterior: Any) -> list[Row]:
    """Variances and covariances of an unstructured R, whose draws are sds and correlations."""
    rows: list[Row] = []
    for name in [str(name) for name in posterior.data_vars if str(name).partition("|")[0] == "corr_residual"]:
        suffix, variable = name.removeprefix("corr_residual"), posterior[name]
        corr = np.asarray(variable.values, float).reshape(-1, *variable.shape[2:])
        sd = np.asarray(posterior[f"sd_residual{suffix}"].values, float).reshape(len(corr), -1)
        labels = [str(label) for label in variable.coords[variable.dims[2]].values]
        for b, a in zip(*np.triu_indices(len(labels)), strict=True):
            term = f"var[{labels[a]}]" if a == b else f"cov[{labels[a]},{labels[b]}]"
            rows.append((("ran_pars", "Residual", term + suffix), corr[:, a, b] * sd[:, a] * sd[:, b]))
    return rows


def _bambi_variable(name: str, variable: Any, flat: Array) -> list[Row]:
    if name == "sigma":
        return [(("ran_pars", "Residual", ERROR_SD), flat)]
    if name.endswith("_sigma") and "|" in name:
        term, _, group = name.removesuffix("_sigma").partition("|")
        label = "Intercept" if term == "1" else term
        if flat.ndim == 1:
            return [(("ran_pars", group, f"sd__{label}"), flat)]
        levels = [str(level) for level in variable.coords[variable.dims[2]].values]
        return [(("ran_pars", group, f"sd__{label}[{level}]"), flat[:, j]) for j, level in enumerate(levels)]
    if "|" in name or name == "mu":
        return []
    if flat.ndim == 1:
        return [(("fixed", None, name), flat)]
    if flat.ndim > 2:
        return []
    levels = [str(level) for level in variable.coords[variable.dims[2]].values]
    return [(("fixed", None, f"{name}[T.{level}]"), flat[:, j]) for j, level in enumerate(levels)]


# -- what the rows say together ------------------------------------------------------------------------------------------------------------


def _keys(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    return [(str(e), "" if pd.isna(g) else str(g), str(t)) for e, g, t in zip(frame["effect"], frame["group"], frame["term"], strict=True)]


def _gap(frame: pd.DataFrame, reference: pd.DataFrame) -> Array:
    places = {key: i for i, key in enumerate(_keys(reference))}
    mean, sd = reference["estimate"].to_numpy(float), reference["std_error"].to_numpy(float)
    rows = [places.get(key, -1) for key in _keys(frame)]
    out = np.full(len(frame), np.nan)
    for i, row in enumerate(rows):
        if row >= 0 and sd[row] > 0:
            out[i] = (float(frame["estimate"].iloc[i]) - mean[row]) / sd[row]
    return out


RANKING_CRITERIA = ("aic", "bic", "loo", "logo", "evidence")


@answers_keywords
def compare_models(
    models: Mapping[str, FittedModel | Estimates | Posterior] | Sequence[FittedModel | Estimates | Posterior],
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
    require_one_of(by, RANKING_CRITERIA, "by")
    if isinstance(models, Sequence) and not isinstance(models, str):
        models = dict(zip(_distinct([_title(model) for model in models]), models, strict=True))
    if not isinstance(models, Mapping) or not models:
        raise SpecificationError("no models were given", "compare_models", 'give a mapping: {"a": m1, "b": m2}')
    jacobians = _on_one_outcome(models)
    if group is not None and by != "logo":
        raise SpecificationError(f"group is {group!r:.60}, and {by!r} leaves out no groups", "group", 'leave it out, or use by="logo"')
    sampling = {"seed": seed, "draws": draws, "chains": chains, "method": method}
    options = [name for name, value in sampling.items() if value is not None]
    if options and by in ("aic", "bic"):
        raise SpecificationError(f"{by!r} draws nothing: {', '.join(options)}", ", ".join(options), "leave it out")
    if by in ("aic", "bic"):
        return _by_criterion(models, by, jacobians)
    posteriors = {
        name: source
        if isinstance(source, Posterior)
        else _posterior(source, draws or 1000, chains or 4, 0 if seed is None else seed, method or "auto")
        for name, source in models.items()
    }
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
