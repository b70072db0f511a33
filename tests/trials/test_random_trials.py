"""Random trials of two to four arms and one to five visits against the strategies written out from their definitions, entry by entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm import Fit
from bayeslmm._arrays import Array
from bayeslmm.estimate.batch_descent import BatchFits
from bayeslmm.inference.intervals import resampling
from bayeslmm.inference.intervals.resampling import VisitParameters, visit_parameters
from tests.trials.test_imputation import law

STRATEGIES = ("MAR", "JR", "CR", "CIR", "LMCF")
STRUCTURES = ("us", "toep", "ar1", "csh", "ar1h", "cs", "toeph")


class Trial(NamedTuple):
    data: pd.DataFrame
    events: pd.DataFrame
    reference: dict[str, str]
    formula: str
    residual: str
    criterion: Any

    @property
    def model(self) -> blm.LMM:
        return blm.LMM(self.formula, self.data, residual=self.residual, check="warn")

    def impute(self, **options: Any) -> blm.Imputations:
        known: dict[str, Any] = {"treatment": "arm", "reference": self.reference, "events": self.events, "criterion": self.criterion}
        return blm.impute(self.model, **(known | options))

    def without(self, subject: str) -> Trial:
        rest = self.data[self.data["id"] != subject].reset_index(drop=True)
        return self._replace(data=rest, events=self.events[self.events["id"] != subject])

    def fit(self) -> Any:
        """The fit without outcomes after events that are not missing at random."""
        own, place = self.data.copy(), self.data["visit"].cat.codes
        for row in self.events.itertuples():
            if row.strategy != "MAR":
                first = list(own["visit"].cat.categories).index(row.visit)
                own.loc[(own["id"] == row.id) & (place >= first), "y"] = np.nan
        return blm.LMM(self.formula, own, residual=self.residual, check="warn").fit(self.criterion)


def random_trial(seed: int) -> Trial:
    """Gaps, drop-out, outcomes after events, events at the first visit, nothing observed, references of references."""
    rng = np.random.default_rng(seed)
    k, m = int(rng.integers(2, 5)), int(rng.integers(1, 6))
    N = int(rng.integers(16, 22)) * k
    arms, visits = ["P", "A", "B", "C"][:k], [f"v{j + 1}" for j in range(m)]
    data = pd.DataFrame(
        {
            "id": np.repeat([f"s{i}" for i in range(N)], m),
            "visit": pd.Categorical(np.tile(visits, N), visits, ordered=True),
            "arm": pd.Categorical(np.repeat(np.array(arms)[np.arange(N) % k], m), arms),
            "x": np.repeat(rng.normal(size=N), m),
            "z": rng.normal(size=N * m),
        }
    )
    A = rng.normal(size=(m, m))
    y = rng.normal(size=(N, m)) @ np.linalg.cholesky(A @ A.T + np.eye(m)).T + np.arange(m) * (1 + 0.3 * (np.arange(N) % k)[:, None])
    rows = []
    for i, u in enumerate(rng.random(N)):
        if u < 0.4:
            first = int(rng.integers(0, m))
            strategy = str(rng.choice(STRATEGIES[: 5 if first else 4]))
            rows.append((f"s{i}", visits[first], strategy))
            gone = slice(first, m) if rng.random() < 0.7 else slice(*sorted(rng.integers(first, m + 1, 2)))
            y[i, gone] = np.nan
        elif u < 0.55:
            y[i, rng.integers(0, m)] = np.nan
        elif u < 0.6:
            y[i] = np.nan
    data["y"] = y.ravel()
    reference = {arm: str(rng.choice(arms)) if rng.random() < 0.2 else "P" for arm in arms[1:]} | {"P": "P"}
    structure = str(rng.choice(STRUCTURES)) if m > 1 else "cs"
    bar = "visit | arm / id" if m < 4 and rng.random() < 0.5 else "visit | id"
    formula = ("y ~ visit * arm + x" if m > 1 else "y ~ arm + x") + (" + z" if rng.random() < 0.4 else "")
    events = pd.DataFrame(rows, columns=["id", "visit", "strategy"])
    return Trial(data, events, reference, formula, f"{structure}({bar})", str(rng.choice(["REML", "ML"])))


def conditional_laws(trial: Trial, fit: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Of each subject: positions of its rows, means and covariance of what is missing given what is observed."""
    data, visits = trial.data, list(trial.data["visit"].cat.categories)
    mean = fit.predict(data, level="population")["estimate"].to_numpy()
    moved = data.assign(arm=pd.Categorical([trial.reference[arm] for arm in data["arm"]], data["arm"].cat.categories))
    other = fit.predict(moved, level="population")["estimate"].to_numpy()
    events = {row.id: (visits.index(row.visit), row.strategy) for row in trial.events.itertuples()}
    out = {}
    for subject, rows in data.groupby("id", sort=False):
        at, arm = rows.index.to_numpy(), rows["arm"].iloc[0]
        R = (fit.R if isinstance(fit.R, pd.DataFrame) else fit.R[arm]).to_numpy()
        Q = (fit.R if isinstance(fit.R, pd.DataFrame) else fit.R[trial.reference[arm]]).to_numpy()
        first, name = events.get(subject, (len(visits), "MAR"))
        mu, S = law(name, mean[at], R, other[at], Q, first)
        y = rows["y"].to_numpy()
        o, u = np.isfinite(y), ~np.isfinite(y)
        B = S[np.ix_(u, o)] @ np.linalg.inv(S[np.ix_(o, o)])
        out[str(subject)] = (at[u], mu[u] + B @ (y[o] - mu[o]), S[np.ix_(u, u)] - B @ S[np.ix_(o, u)])
    return out


@pytest.mark.parametrize("seed", range(10))
def test_conditional_means_are_those_of_the_definitions(seed: int) -> None:
    trial = random_trial(seed)
    done = trial.impute(resampling=None).data(0)
    for at, mean, _ in conditional_laws(trial, trial.fit()).values():
        np.testing.assert_allclose(done["y"].to_numpy()[at], mean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", [1, 4, 8])
def test_draws_have_the_conditional_law(seed: int) -> None:
    """At one set of parameters draws made white by their law are standard normal and independent."""
    trial = random_trial(seed)
    imp = trial.impute(resampling=None)
    assert imp.trial is not None and imp.parameters is not None
    B = 3000
    drawn = imp.trial.complete(imp.parameters.take(np.zeros(B, np.int64)), np.random.default_rng(seed))  # type: ignore[attr-defined]
    subject, visit = imp.layout.order
    values = drawn[:, subject, visit]
    white = []
    for at, mean, S in conditional_laws(trial, trial.fit()).values():
        if len(at):
            white.append(np.linalg.solve(np.linalg.cholesky(S), (values[:, at] - mean).T))
    z = np.concatenate(white)
    assert np.abs(z.mean(axis=1)).max() < 5 / np.sqrt(B)
    assert np.abs(z @ z.T / B - np.eye(len(z))).max() < 7 / np.sqrt(B)


def at_the_optimum(fit: Fit) -> VisitParameters:
    """The parameters where nothing of the criterion is left to gain: a fit ends where 1e-12 is, a scoring step of information before it."""

    def gradient(x: Array) -> Array:
        return np.asarray(fit.problem.criterion.at(x, fit.restricted).gradient)

    x, step = fit.estimate.x.copy(), 1e-5 * np.eye(fit.problem.size)
    hessian = np.array([(gradient(x + h) - gradient(x - h)) / 2e-5 for h in step]).reshape(len(x), len(x))
    for _ in range(4):
        x -= np.linalg.solve(hessian, gradient(x)) if len(x) else 0.0
    point = fit.problem.criterion.at(x, fit.restricted)
    return visit_parameters(fit.problem, x[None], np.array([point.sigma2]), point.state.solution.alpha)


@pytest.mark.parametrize("seed", [0, 3, 7, 1024, 1028, *(pytest.param(s, marks=pytest.mark.slow) for s in range(2000, 2040))])
def test_the_jackknife_is_a_loop_of_fits_at_their_optimum(seed: int) -> None:
    """Without a subject; one without outcomes before its event changes nothing, and the parameters stay those of the fit itself."""
    trial = random_trial(seed)
    imp = trial.impute()
    fit = imp.trial.fit  # type: ignore[union-attr]
    seen = set(map(str, fit.problem.design.residual.subject.levels))
    refitted = [place for place, name in enumerate(imp.layout.subjects) if f"without {name}" not in imp.failed]
    for k in sorted({1, 5, *np.linspace(1, imp.size - 1, 6).astype(int)}):
        place = refitted[k - 1]
        subject = imp.layout.subjects[place]
        got = np.delete(imp.values[k], place, axis=0)
        if str(subject) in seen:
            one = trial.without(subject).impute(resampling=None)
            want = one.trial.complete(at_the_optimum(one.trial.fit))[0]  # type: ignore[union-attr]
        else:
            want = np.delete(imp.values[0], place, axis=0)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-8 * trial.data["y"].std())


@pytest.mark.parametrize("seed", [3, 6])
def test_what_does_not_settle_side_by_side_is_fitted_by_its_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ninth refit is said not to have settled: the parameters stay those of the others' way, and none is lost."""
    fit = random_trial(seed).impute(resampling=None).trial.fit  # type: ignore[union-attr]
    N = fit.problem.design.residual.subject.size
    counts = np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), 6).astype(float)

    def refits() -> list[Any]:
        begin = fit.problem, fit.estimate.x, fit.restricted
        return [resampling.refit_without_each(*begin), resampling.fit_reweighted_subjects(*begin, counts)]

    def unsettled(*arguments: Any) -> BatchFits:
        found = descend(*arguments)
        every = np.arange(len(found.settled)) % 9 == 0
        return replace(found, x=np.where(every[:, None], np.nan, found.x), settled=found.settled & ~every)

    want, descend = refits(), resampling.descend
    monkeypatch.setattr(resampling, "descend", unsettled)
    for one, other in zip(want, refits(), strict=True):
        assert one.settled.all() and other.settled.all()
        np.testing.assert_allclose(other.alpha, one.alpha, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(other.R, one.R, rtol=1e-4, atol=1e-5 * np.abs(one.R).max())


@pytest.mark.parametrize("seed", [2, 5])
def test_a_bootstrap_sample_is_a_fit_to_its_subjects(seed: int) -> None:
    """The parameters of a sample are those of a model of its rows, subjects drawn twice being two."""
    trial = random_trial(seed)
    imp = trial.impute(resampling="bootstrap", n=4, seed=seed)
    for k in (1, 2):
        frame = imp.data(k)
        events = trial.events.set_index("id")
        original = frame["id"].astype(str).str.replace(r" \(\d+\)$", "", regex=True)
        pairs = dict(zip(frame["id"], original, strict=True))
        rows = [(label, *events.loc[source]) for label, source in pairs.items() if source in events.index]
        own = frame.assign(y=frame["y"].where(~frame["imputed"])).drop(columns="imputed")
        alone = trial._replace(data=own, events=pd.DataFrame(rows, columns=["id", "visit", "strategy"])).impute(resampling=None)
        np.testing.assert_allclose(alone.data(0)["y"], frame["y"], rtol=0, atol=2e-6 * trial.data["y"].std())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_given_imputations_are_pooled_to_the_last_digit(seed: int, alternative: Any) -> None:
    """Least squares at each visit and Rubin's rules with Barnard and Rubin's degrees of freedom, written out."""
    from scipy import stats

    rng = np.random.default_rng(seed)
    k, m, N, M = int(rng.integers(2, 5)), 2, 30, int(rng.integers(2, 9))
    arms = [f"arm{a}" for a in range(k)]
    base = pd.DataFrame(
        {"id": np.repeat(np.arange(N), m), "visit": np.tile([1, 2], N), "arm": np.repeat(np.array(arms)[np.arange(N) % k], m)}
    )
    base["x"], first = rng.normal(size=N * m), rng.normal(size=N * m)
    lost = rng.random(N * m) < 0.3
    frames = [base.assign(y=np.where(lost, rng.normal(size=N * m), first)) for _ in range(M)]
    given = blm.imputations(frames, outcome="y", visit="visit", subject="id", treatment="arm")
    table = given.analyse("y ~ arm + x").pool(0.9, alternative).set_index(["visit", "parameter", "arm"])
    for visit in (1, 2):
        for a in range(1, k):
            q, u = [], []
            for frame in frames:
                own = frame[frame["visit"] == visit]
                X = np.column_stack([np.ones(N), *(own["arm"] == arm for arm in arms[1:]), own["x"]]).astype(float)
                inverse = np.linalg.inv(X.T @ X)
                beta = inverse @ X.T @ own["y"]
                q.append(beta[a])
                u.append(np.sum((own["y"] - X @ beta) ** 2) / (N - k - 1) * inverse[a, a])
            W, B = np.mean(u), np.var(q, ddof=1)
            T, v = W + (1 + 1 / M) * B, N - k - 1
            share = (1 + 1 / M) * B / T
            old, observed = (M - 1) / share**2, (v + 1) / (v + 3) * v * (1 - share)
            df = old * observed / (old + observed)
            t = np.mean(q) / np.sqrt(T)
            p = {"less": stats.t.cdf(t, df), "greater": stats.t.sf(t, df), "two-sided": 2 * stats.t.sf(abs(t), df)}[alternative]
            row = table.loc[visit, "difference", arms[a]]
            want = {"estimate": np.mean(q), "std_error": np.sqrt(T), "df": df, "statistic": t, "p_value": p}
            for name, value in want.items():
                assert row[name] == pytest.approx(value, rel=1e-12, abs=1e-14), name


@pytest.mark.parametrize("visits", [[0.0, 1.0, 2.0], [0.5, 1.0, 1.5], [10, 20, 30]])
@pytest.mark.parametrize("arms", [[0.0, 1.0], [1, 2], ["p", "a"]])
@pytest.mark.parametrize("categories", [False, True])
def test_labels_that_are_numbers_are_found_wherever_they_stand(visits: list[Any], arms: list[Any], categories: bool) -> None:
    """Whole numbers held as floats, in the data, in events, deltas, references, grids and controls."""
    rng = np.random.default_rng(2)
    N = 24
    data = pd.DataFrame({"id": np.repeat(np.arange(N) + 1.0, 3), "visit": visits * N, "arm": np.repeat([arms[i % 2] for i in range(N)], 3)})
    data["y"] = np.repeat(rng.normal(size=N), 3) + rng.normal(size=3 * N)
    data.loc[[2, 7, 8, 11, 30, 34, 35], "y"] = np.nan
    if categories:
        data = data.assign(visit=pd.Categorical(data["visit"], visits, ordered=True), arm=pd.Categorical(data["arm"], arms))
    events = pd.DataFrame({"id": [1.0, 3.0, 12.0], "visit": [visits[2], visits[1], visits[1]]})
    model = blm.LMM("y ~ C(visit) * C(arm)", data, residual="us(visit | id)")
    imp = blm.impute(model, treatment="arm", reference={arms[1]: arms[0]}, events=events, strategy="JR")
    delta = imp.delta({arms[1]: 2.0})
    moved = imp.analyse("y ~ C(arm)", delta=delta, control=arms[0]).pool()
    row = moved[(moved["visit"] == visits[1]) & (moved["parameter"] == "difference")].iloc[0]
    table = imp.tipping({arms[1]: [2.0]}, "y ~ C(arm)", visit=visits[1], control=arms[0]).frame
    assert table["estimate"].item() == pytest.approx(row["estimate"], rel=1e-12)
    assert row["estimate"] != pytest.approx(imp.analyse("y ~ C(arm)").pool()["estimate"].iloc[3], rel=1e-6)
    assert imp.subjects["event"].notna().sum() == 3
