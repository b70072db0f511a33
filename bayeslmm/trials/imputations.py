"""`Imputations`: completed data sets of a trial, and what is done with them: look, add a delta, analyse, find the tipping point."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Generator, generator, seed_sequence
from bayeslmm.errors import DataError, SpecificationError, show_value
from bayeslmm.results.fitted import as_pandas
from bayeslmm.results.foreign_names import IMPUTATION_ATTRIBUTES, answers_keywords, known_arguments
from bayeslmm.trials.analyses import Analyses, ImputationModel, analyse
from bayeslmm.trials.ancova import MeanWeights
from bayeslmm.trials.layout import Layout, Strategy, TrialColumns, read_layout, resampled_frame, strategy_name
from bayeslmm.trials.pooling import Replication
from bayeslmm.trials.tipping import Tipping, delta_frame, tip_deltas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm._types import Frame, Side
    from bayeslmm.inference.intervals.resampling import VisitParameters
    from bayeslmm.reports.page import HtmlPage


@dataclass(frozen=True, eq=False)
class Imputations:
    """Completed data sets of one trial, made by `blm.impute` or given to `blm.imputations`.

    Examples take `imp = blm.impute(trial_model, treatment="arm", reference={"drug": "placebo"}, events=trial_events, strategy="JR")`.

    Attributes
    ----------
    values : ndarray
        (K, N, m) completed outcomes, subjects by visits; with resampling the whole sample comes first.
    trial : ImputationModel or None
        The imputation model; None for frames imputed elsewhere.
    failed : tuple of str
        Refits that are left out.
    """

    layout: Layout
    values: Array
    replication: Replication
    trial: ImputationModel | None = None
    parameters: VisitParameters | None = None
    failed: tuple[str, ...] = ()
    method: str = "conditional-mean"
    seed: Any = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Number of completed data sets.

        >>> imp.size == 1 + len(imp.subjects)
        True
        """
        return len(self.values)

    @property
    def subjects(self) -> pd.DataFrame:
        """Who was imputed and why: `subject, arm, event, strategy, observed, imputed, observed_after_event`.

        >>> imp.subjects.columns.tolist()[:4]
        ['subject', 'arm', 'event', 'strategy']
        """
        layout = self.layout
        N, m = layout.size
        first = np.full(N, m) if self.trial is None else self.trial.events.first
        strategy = ["" for _ in range(N)] if self.trial is None else [strategy_name(s) for s in self.trial.events.strategy]
        after = (np.arange(m) >= first[:, None]) & ~layout.imputed
        return pd.DataFrame(
            {
                "subject": list(layout.subjects),
                "arm": [layout.arms[a] for a in layout.arm],
                "event": [layout.visits[t] if t < m else None for t in first],
                "strategy": strategy,
                "observed": (~layout.imputed).sum(axis=1),
                "imputed": layout.imputed.sum(axis=1),
                "observed_after_event": after.sum(axis=1),
            }
        )

    def data(self, k: int | None = None) -> pd.DataFrame:
        """A completed data set, or all of them one under the other with a column `imputation`.

        Ids, order and types are those of the data; `imputed` says which outcomes were missing. With resampling 0 is the whole sample and
        the others are the samples: without a subject, or with subjects drawn several times, whose further copies get a number.

        Parameters
        ----------
        k : int, optional
            Number of the completed data set, from 1; None gives all of them, one under the other.

        Returns
        -------
        DataFrame
            The completed data.

        Examples
        --------
        >>> bool(imp.data(0)["imputed"].sum() == imp.subjects["imputed"].sum())
        True
        """
        if k is None:
            found = [self.data(i) for i in range(self.size)]
            return pd.concat([frame.assign(imputation=i) for i, frame in enumerate(found)], ignore_index=True)
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k < self.size:
            raise SpecificationError(
                f"there is no completed data set {show_value(k)}", "k", f"give a number from 0 to {self.size - 1}, or None"
            )
        frame = self.layout.complete_frame(self.values[k])
        weights = self.replication.weights
        return frame if weights is None else resampled_frame(self.layout, frame, weights[k])

    def under(self, strategy: Strategy | None = None, *, events: Any = None) -> Imputations:
        """The same trial under other strategies, without fitting anything again.

        Parameters
        ----------
        strategy : str or callable, optional
            Of all events, or of those without one of their own in `events`.
        events : object, optional
            Other strategies of the same events.

        Returns
        -------
        Imputations
            The same draws under another strategy.

        Raises
        ------
        SpecificationError
            Where the imputation model would be fitted to other outcomes: those after an event are in it under MAR alone.

        Examples
        --------
        >>> imp.under("CR").subjects["strategy"].unique().tolist() == ["MAR", "CR"]
        True
        """
        if self.trial is None or self.parameters is None:
            raise SpecificationError("frames imputed elsewhere have no imputation model", "under", "impute with blm.impute")
        trial = self.trial.with_events(strategy, events)
        return replace(self, values=trial.complete(self.parameters, self._noise()), trial=trial)

    def at_random(self) -> Imputations | None:
        """The same parameters with everything missing at random: what the strategies change is the difference to it.

        Unlike `under("MAR")` the imputation model stays the one that is fitted without outcomes after events.

        Returns
        -------
        Imputations or None
            None for frames imputed elsewhere, and where no outcome tells a mean of an arm at a visit.

        Examples
        --------
        >>> imp.at_random().size == imp.size
        True
        """
        if self.trial is None or self.parameters is None or not self.trial.has_law_at_random:
            return None
        return replace(self, values=self.trial.complete(self.parameters, self._noise(), at_random=True))

    def _noise(self) -> Generator | None:
        return None if self.method == "conditional-mean" else generator(seed_sequence(self.seed).spawn(2)[1])

    def delta(
        self,
        delta: Mapping[Any, float] | Sequence[float],
        lag: Sequence[float] | None = None,
        *,
        missing_only: bool = True,
        after_event: bool = False,
    ) -> pd.DataFrame:
        """Amounts to be added to outcomes after imputation, row for row: subject, visit, `delta`.

        Parameters
        ----------
        delta : Mapping of object to float or sequence of float
            Arm -> amount, added to imputed outcomes of the arm; or one number per visit, which accumulates from the event on.
        lag : sequence of float, optional
            Weights of the amounts by visit since the event: the k-th visit after the event gets the sum of the first k of lag times the
            amounts of these visits.
        missing_only : bool, default True
            False adds to observed outcomes after the event too.
        after_event : bool, default False
            True leaves imputed outcomes before the event, and of subjects without one, as they are.

        Returns
        -------
        DataFrame
            The completed data with the amounts added.

        Examples
        --------
        >>> float(imp.delta({"drug": 2.0})["delta"].max())
        2.0
        """
        return delta_frame(self, delta, lag, missing_only=missing_only, after_event=after_event)

    def analyse(
        self,
        analysis: str | Callable[[pd.DataFrame], Any] | None = None,
        *,
        by: str | EllipsisType | None = ...,
        covariates: Sequence[str] = (),
        delta: Any = None,
        weights: MeanWeights | str = "counterfactual",
        control: Any = None,
        residual: str | None = None,
    ) -> Analyses:
        """Analyse every completed data set.

        Parameters
        ----------
        analysis : str or callable, optional
            A formula for the ANCOVA of each visit, `"change ~ arm + base"` (None: the arm and `covariates`); with `residual` the formula
            of an MMRM; or a function of a completed frame that returns `{name: (estimate, std_error[, df])}`.
        by : str or EllipsisType or None, default ...
            The column by whose levels a function is called, by default the visit; None: once for the whole frame.
        covariates : sequence of str, default ()
            Added to a formula that is not given.
        delta : object, optional
            What `delta` makes, or any frame with subject, visit and `delta`.
        weights : MeanWeights or str, default "counterfactual"
            Of the means: "counterfactual" (every subject in every arm), "equal" or "proportional" over the levels of factors.
        control : object, optional
            The arm that others are compared with; by default the references of the imputation, or the first arm.
        residual : str, optional
            Structure of an MMRM over all visits.

        Returns
        -------
        Analyses
            One estimate for each data set and coefficient, and their pooling.

        Examples
        --------
        >>> imp.analyse("change ~ arm + base").frame.columns.tolist()
        ['imputation', 'visit', 'parameter', 'arm', 'estimate', 'std_error', 'df']
        """
        return analyse(self, analysis, by=by, covariates=covariates, delta=delta, weights=weights, control=control, residual=residual)

    def tipping(
        self,
        grid: Any,
        analysis: str | None = None,
        *,
        covariates: Sequence[str] = (),
        visit: Any = None,
        arms: Sequence[Any] | None = None,
        after_event: bool = False,
        weights: MeanWeights | str = "counterfactual",
        control: Any = None,
        conf_level: float = 0.95,
        alternative: Side = "two-sided",
        null: float = 0.0,
    ) -> Tipping:
        """The pooled difference when amounts of a grid are added to imputed outcomes: where does the conclusion tip?

        Nothing is imputed again: estimates are linear in the amounts, and so are residuals.

        Parameters
        ----------
        grid : object
            Numbers, added to all arms but the controls; or arm -> numbers, one or two arms, crossed.
        analysis : str, optional
            As in `analyse`.
        covariates : sequence of str, default ()
            As in `analyse`.
        visit : object, optional
            One visit or several; by default the last.
        arms : sequence of object, optional
            With a grid of numbers, the arms that get them.
        after_event : bool, default False
            True adds to imputed outcomes on and after the event only.
        weights : MeanWeights or str, default "counterfactual"
            As in `analyse`.
        control : object, optional
            As in `analyse`.
        conf_level : float, default 0.95
            As in `pool`.
        alternative : {"two-sided", "less", "greater"}, default "two-sided"
            As in `pool`.
        null : float, default 0.0
            As in `pool`: the amount at which non-inferiority is lost.

        Returns
        -------
        Tipping
            The estimate at every amount, and where the conclusion turns; with a figure.

        Examples
        --------
        >>> imp.tipping([0, 1, 2], "change ~ arm + base").frame["delta_drug"].tolist()
        [0.0, 1.0, 2.0]
        """
        return tip_deltas(
            self,
            grid,
            analysis,
            covariates=covariates,
            visit=visit,
            arms=arms,
            after_event=after_event,
            weights=weights,
            control=control,
            conf_level=conf_level,
            alternative=alternative,
            null=null,
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Mean profiles by arm and pattern: observed means of those who stayed and who left, and the imputed means.

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
        >>> axes = imp.plot()
        """
        from bayeslmm.trials.report import profiles_figure

        return profiles_figure(self.layout, self.values, self.replication.weights, ax)

    def report(
        self,
        path: Any = None,
        *,
        title: str | None = None,
        analysis: str | None = None,
        covariates: Sequence[str] = (),
        conf_level: float = 0.95,
        alternative: Side = "two-sided",
        null: float = 0.0,
    ) -> HtmlPage:
        """One HTML page: who was imputed, why, under what, and what it does to the estimate.

        Parameters
        ----------
        path : object, optional
            Where to write it; without one the text is only returned.
        title : str, optional
            Title of the page; by default one made from the model.
        analysis : str, optional
            As in `analyse`.
        covariates : sequence of str, default ()
            As in `analyse`.
        conf_level : float, default 0.95
            As in `pool`.
        alternative : {"two-sided", "less", "greater"}, default "two-sided"
            As in `pool`.
        null : float, default 0.0
            As in `pool`.

        Returns
        -------
        HtmlPage
            The page, a str that is shown by its sections and its size.

        Examples
        --------
        >>> "Who was imputed" in imp.report(analysis="change ~ arm + base")
        True
        """
        from bayeslmm.trials.report import EffectOptions, imputation_report

        asked = EffectOptions(analysis, covariates, conf_level, alternative, null)
        return imputation_report(self, path, title, asked)

    def __repr__(self) -> str:
        cells = int(self.layout.imputed.sum())
        N = self.layout.size[0]
        what = f"{self.method}, {self.replication.rule}" if self.trial is not None else "given"
        return f"Imputations({what}: {self.size} data sets, {N} subjects, {cells} outcomes imputed)"


known_arguments(Imputations, attributes=IMPUTATION_ATTRIBUTES)


@answers_keywords
def imputations(
    frames: Sequence[Frame],
    *,
    outcome: str,
    visit: str,
    subject: str,
    treatment: str,
    reference: Mapping[Hashable, Hashable] | None = None,
) -> Imputations:
    """Completed data sets made elsewhere, to be analysed and pooled by Rubin's rules.

    Parameters
    ----------
    frames : sequence of DataFrame or Mapping
        Two or more frames with the same subjects and visits, one row each. A column `imputed` marks imputed outcomes; without one, those
        that differ between frames.
    outcome : str
        Column of the outcome.
    visit : str
        Column of the visits.
    subject : str
        Column of the subjects.
    treatment : str
        Column of the arms.
    reference : Mapping of Hashable to Hashable, optional
        Arm -> the arm that it is compared with.

    Returns
    -------
    Imputations
        The data sets, ready to be analysed.

    Raises
    ------
    DataError
        For frames that do not belong together, or that are not complete.

    Examples
    --------
    >>> given = blm.imputations([imp.data(0), imp.data(0)], outcome="change", visit="week", subject="id", treatment="arm")
    >>> given.size
    2
    """
    if isinstance(frames, pd.DataFrame) or not isinstance(frames, Sequence) or len(frames) < 2:
        raise DataError(
            "imputations are a list of two or more frames", "frames", 'split one long frame: [f for _, f in d.groupby("imputation")]'
        )
    columns = TrialColumns(outcome, subject, visit, treatment)
    first = read_layout(frames[0], columns, reference)
    found, flags = [first.y], [_flags(frames[0], first)]
    for k, frame in enumerate(frames[1:], start=1):
        other = read_layout(frame, columns, reference)
        same = (other.subjects, other.visits, other.arms) == (first.subjects, first.visits, first.arms)
        if not same or not np.array_equal(other.arm, first.arm):
            raise DataError(f"frame {k} has other subjects, visits or arms than frame 0", "frames", "give completed data of one trial")
        found.append(other.y)
        flags.append(_flags(frame, other))
    values = np.stack(found)
    if np.isnan(values).any():
        k = int(np.argwhere(np.isnan(values))[0][0])
        raise DataError(f"outcomes are missing in frame {k}", outcome, "give completed data")
    known = [flag for flag in flags if flag is not None]
    imputed = np.logical_or.reduce(known) if known else (values != values[0]).any(axis=0)
    layout = Layout(
        first.frame,
        columns,
        first.subjects,
        first.visits,
        first.arms,
        first.rows,
        np.where(imputed, np.nan, first.y),
        imputed,
        first.arm,
        first.reference,
    )
    return Imputations(layout, values, Replication("rubin"), method="given")


def _flags(frame: Any, layout: Layout) -> Any:
    whole = as_pandas(frame)
    return whole["imputed"].to_numpy(bool)[layout.rows] if "imputed" in whole.columns else None
