"""What a user said about a model: the arguments of `LMM`, as a value that can be changed, stored and turned into a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import SpecificationError
from bayeslmm.formula import variance_text
from bayeslmm.spec import ModelSpec, Priors, make_spec

if TYPE_CHECKING:
    from bayeslmm.data import Design


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """The arguments of `LMM` but for the data."""

    formula: str
    residual: str | None = None
    variance: str | None = None
    weights: Any = None
    offset: Any = None
    contrasts: Mapping[str, Any] | None = None
    relationship: Mapping[str, Any] | None = None
    priors: Priors | None = None
    missing: str = "drop"
    check: str = "error"
    functions: Mapping[str, Any] | None = None

    @classmethod
    def of_spec(cls, spec: ModelSpec, **beside: Any) -> Said:
        """The arguments that lead to a spec; `beside` are the arrays, matrices and functions that a spec only names."""
        told = cls(
            spec.formula.text,
            None if spec.residual is None else spec.residual.text,
            variance_text(spec.variance) if spec.variance else None,
            spec.weights,
            spec.offset,
            dict(spec.contrasts),
            None,
            spec.priors,
            spec.missing,
            spec.check,
        )
        return replace(told, **{name: value for name, value in beside.items() if value is not None})

    def spec(self) -> ModelSpec:
        """The arguments, read and checked against each other."""
        return make_spec(
            self.formula,
            residual=self.residual,
            variance=self.variance,
            weights=self.weights if isinstance(self.weights, str) else None,
            offset=self.offset if isinstance(self.offset, str) else None,
            contrasts=self.contrasts,
            relationship=_names(self.relationship, "relationship"),
            priors=self.priors,
            missing=self.missing,
            check=self.check,
            functions=_names(self.functions, "functions"),
        )

    def arrays(self) -> dict[str, Any]:
        """What stands beside the spec, as keywords of `build_design`."""
        return self._by_row() | {"relationship": self.relationship or None, "functions": self.functions or None}

    def _named(self) -> dict[str, Any]:
        """The arguments by name, without arrays over the rows."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return told | {name: None for name, given in self._by_row().items() if given is not None}

    def _by_row(self) -> dict[str, Any]:
        """What may be an array over the rows in place of the name of a column, where it is one."""
        given = {"weights": self.weights, "offset": self.offset}
        return {name: None if isinstance(value, str) else value for name, value in given.items()}

    def changed(self, formula: str, changes: dict[str, Any]) -> Said:
        """With another formula and other arguments. Errors: SpecificationError for an argument that `LMM` does not have."""
        known = sorted({field.name for field in fields(self)} - {"formula"})
        for name in changes:
            if name not in known:
                raise SpecificationError(f"LMM has no argument {name!r}", "update", "use one of " + ", ".join(known))
        return replace(self, formula=formula, **changes)

    def stored(self, design: Design) -> tuple[dict[str, Any], dict[str, Any]]:
        """Plain values for a file, and arrays over the rows used or labelled frames."""
        plain = self._named() | {
            "contrasts": dict(design.spec.contrasts),
            "priors": None if self.priors is None else self.priors.told(),
            "functions": sorted(self.functions or ()),
        }
        del plain["relationship"]
        beside: dict[str, Any] = {
            name: np.asarray(given, float)[design.rows] for name, given in self._by_row().items() if given is not None
        }
        for term in design.terms:
            if term.relationship is not None:
                labels = term.group.levels.tolist()
                beside[f"relationship/{term.group.name}"] = pd.DataFrame(term.relationship, index=labels, columns=labels)
        return plain, beside


def _names(given: Any, argument: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise SpecificationError(f"{argument} is a {type(given).__name__}", argument, "give a mapping by name")
    return tuple(given)
