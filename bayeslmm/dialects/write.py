"""`to_sas`: the PROC MIXED program of a model."""

from __future__ import annotations

from typing import Literal

from bayeslmm.data.columns import kind_of
from bayeslmm.data.source import FACTORS
from bayeslmm.errors import SpecificationError
from bayeslmm.formula import columns_of
from bayeslmm.model import LMM
from bayeslmm.spec.sas import to_sas as program_of
from bayeslmm.spec.sas.terms import WHOLE

REMEDY = "SAS reads columns of its data set: make a column, and name it"


def to_sas(model: LMM, *, data: str = "", method: Literal["REML", "ML"] = "REML", df: str | None = None) -> str:
    """The PROC MIXED program that fits the same model.

    data : name of the data set; df : method of the degrees of freedom, as `Fit` names it; None leaves SAS's default
    Raises SpecificationError for what SAS cannot say.

    >>> print(model.to_sas(data="sleepstudy"), end="")
    proc mixed data=sleepstudy method=reml;
      class Subject;
      model Reaction = Days / solution;
      random intercept Days / type=un subject=Subject;
    run;
    """
    if model.said.weights is not None and not isinstance(model.said.weights, str):
        raise SpecificationError("weights given as an array are not in the data", "weights", REMEDY)
    if model.given_offset:
        raise SpecificationError("PROC MIXED cannot say an offset", "offset", "subtract it from the response")
    return program_of(model.spec, _factors(model), data=data, method=method, df=df)


def _factors(model: LMM) -> tuple[str, ...]:
    """The columns that are factors, in the order of the formula."""
    levels = model.design.encoding.levels
    named = [name for name in columns_of(model.spec.formula) if name in levels]
    frame = model.design.frame
    texts = [str(name) for name in frame.columns if name not in named and name != WHOLE and kind_of(frame[name]) in FACTORS]
    return (*named, *texts)
