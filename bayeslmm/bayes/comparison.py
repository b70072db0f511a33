"""`compare`: estimates beside posteriors of one model.

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
from bayeslmm._validation import require_level
from bayeslmm.bayes.posterior.datatree import joint_log_prior
from bayeslmm.bayes.posterior.posterior import Posterior
from bayeslmm.bayes.posterior.tables import draw_sds, equal_tailed_limits, parameter_draws
from bayeslmm.errors import SpecificationError, printable_text
from bayeslmm.inference.tidy import tidy_table
from bayeslmm.likelihood.structured.residual_covariance import sigma_name
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.foreign_names import answers_keywords, known_arguments

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from bayeslmm._types import ConfMethod, Effects
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
        return printable_text(self.frame.to_html(index=False))


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
    own = dict(zip(distinct_titles([label for label, _ in pairs]), [source for _, source in pairs], strict=True))
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


def title_of(model: Any) -> str:
    design = getattr(model, "design", None)
    return type(model).__name__ if design is None else str(design.spec.title)


def distinct_titles(labels: list[str]) -> list[str]:
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
    derived = {f"sd_residual{name.removeprefix('corr_residual')}" for name in names if name.startswith("corr_residual")}
    if any(name.startswith(("sd_residual", "sd|")) for name in names):
        derived.add("sigma")  # the first sd of R, under its own name among the others
    for name in names:
        if own and name in derived:
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
