"""What a PROC MIXED program gives back: its tables by ODS name, the listing, the objects behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from html import escape
from typing import Any

import pandas as pd

from bayeslmm.dialects.listing import ListedRun, listing_text
from bayeslmm.errors import SpecificationError


class MissingTableError(SpecificationError, KeyError):
    """A table that the program did not ask for."""

    __str__ = SpecificationError.__str__


class MixedResult(Mapping[str, pd.DataFrame]):
    """The tables of a PROC MIXED program: ODS name -> frame, in the order of the listing; names in any case.

    OUTP= and OUTPM= are "OutP" and "OutPM", and go by the names that the program gives them too.

    >>> result = blm.proc_mixed("proc mixed; class Subject; model Reaction = Days / s; random int / sub=Subject; run;", sleepstudy)
    >>> result["CovParms"]["Estimate"].round(2).tolist()
    [1378.18, 960.46]
    """

    def __init__(self, runs: tuple[ListedRun, ...]) -> None:
        self.runs = runs
        self._names = {name.lower(): name for run in runs for name in run.tables}
        model = runs[0].translation.program.model
        for given, name in ((model.outp, "OutP"), (model.outpm, "OutPM")):
            if given:
                self._names.setdefault(given.lower(), name)

    def __getitem__(self, name: str) -> pd.DataFrame:
        found = self._names.get(name.lower()) if isinstance(name, str) else None
        if found is None:
            near = get_close_matches(str(name).lower(), self._names, 3, 0.5)
            near_names = [self._names[n] for n in near] or list(self)
            what = f"the program prints no table {name!r}"
            raise MissingTableError(what, "", f"tables: {', '.join(near_names)}; options of the program ask for more")
        frames = []
        for run in self.runs:
            if found in run.tables:
                frame = run.tables[found].copy()
                if found not in ("OutP", "OutPM"):
                    for position, (variable, value) in enumerate(run.by.items()):
                        frame.insert(position, variable, [value] * len(frame))
                frames.append(frame)
        return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for run in self.runs for name in run.tables))

    def __len__(self) -> int:
        return len(list(iter(self)))

    @property
    def model(self) -> Any:
        """The `LMM`; with BY a dict by the values of the by-variables."""
        return self._each({run.key: run.model for run in self.runs})

    @property
    def fit(self) -> Any:
        """The `Fit`; with BY a dict by the values of the by-variables."""
        return self._each({run.key: run.fit for run in self.runs})

    def _each(self, found: dict[Any, Any]) -> Any:
        return found if self.runs[0].by else next(iter(found.values()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done in a slightly different way, and what the log of SAS would say."""
        return tuple(dict.fromkeys(note for run in self.runs for note in run.notes))

    @property
    def listing(self) -> str:
        """The printed tables as one text."""
        return listing_text(self.runs)

    def __repr__(self) -> str:
        return f"MixedResult({', '.join(self)})"

    def __str__(self) -> str:
        return self.listing

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.listing)}</pre>"
