"""Prior families: what their parameters are called and which values they may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bayeslmm.errors import PriorError

# Parameters that must be > 0 are marked "+", those that must be >= 0 with "0", the rest may be any finite number.
# A trailing "?" is a scale that may be left out: it is then taken from the data.
FAMILIES: dict[str, tuple[str, ...]] = {
    "half_t": ("df+", "scale+?"),
    "half_normal": ("scale+?",),
    "half_cauchy": ("scale+?",),
    "exponential": ("rate+?",),
    "gamma": ("shape+", "rate0"),
    "inverse_gamma": ("shape+", "scale+"),
    "uniform": ("lower", "upper"),
    "flat": (),
    "normal": ("mean", "sd+"),
    "lkj": ("eta+",),
}
SCALES = ("half_t", "half_normal", "half_cauchy", "exponential", "gamma", "inverse_gamma", "uniform", "flat")
COEFFICIENTS = ("normal", "flat")
CORRELATIONS = ("lkj", "flat")
SHAPES = (*SCALES, "normal")


@dataclass(frozen=True, slots=True)
class Prior:
    """A family and its parameters: `Prior("half_t", (3.0, 10.0))`.

    half_t(df, scale), half_normal(scale), half_cauchy(scale), exponential(rate), gamma(shape, rate), inverse_gamma(shape, scale),
    uniform(lower, upper), normal(mean, sd), lkj(eta), flat(). A scale (or rate) left out is taken from the data.
    """

    family: str
    parameters: tuple[float, ...] = ()

    @property
    def autoscaled(self) -> bool:
        """Whether the last parameter was left to the data."""
        return len(self.parameters) < len(FAMILIES[self.family])

    def scaled(self, scale: float) -> Prior:
        """The same prior with the scale filled in where it was left to the data (the rate of an exponential is 1/scale).

        >>> Prior("half_t", (3.0,)).scaled(2.5)
        Prior(family='half_t', parameters=(3.0, 2.5))
        """
        if not self.autoscaled:
            return self
        return Prior(self.family, (*self.parameters, 1.0 / scale if self.family == "exponential" else scale))

    def told(self) -> list[str | float]:
        """The form that a user types: ["half_t", 3.0, 10.0]."""
        return [self.family, *self.parameters]


def read_prior(given: Any, allowed: Sequence[str], name: str) -> Prior:
    """A prior from `(family, *parameters)`, a family's name or a `Prior`; `name` is what the error calls the parameter."""
    if isinstance(given, Prior):
        given = given.told()
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, Sequence) or not given or not isinstance(given[0], str):
        raise PriorError(
            f"the prior of {name} is not (family, *parameters)", f"{name}: {given!r:.80}", 'write it as ("half_t", 3, 10) or as "flat"'
        )
    family = given[0]
    if family not in allowed:
        raise PriorError(f"the prior family {family!r} cannot be used for {name}", name, "use one of " + ", ".join(allowed))
    numbers = _numbers(given[1:], family, name)
    if family == "half_t" and len(numbers) == 3 and numbers[1] == 0.0:
        numbers = (numbers[0], numbers[2])  # the way it is written in books: half-t(3, 0, scale)
    _demand_valid(family, numbers, name)
    return Prior(family, numbers)


def _numbers(given: Sequence[Any], family: str, name: str) -> tuple[float, ...]:
    for value in given:
        if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
            raise PriorError(f"the prior of {name} has a parameter that is not a finite number", f"{family}: {value!r:.80}", _usage(family))
    return tuple(float(value) for value in given)


def _demand_valid(family: str, numbers: tuple[float, ...], name: str) -> None:
    declared = FAMILIES[family]
    required = sum(not parameter.endswith("?") for parameter in declared)
    if not required <= len(numbers) <= len(declared):
        raise PriorError(f"the prior of {name} has {len(numbers)} parameters", f"{name}: {family}{numbers}", _usage(family))
    for parameter, value in zip(declared, numbers, strict=False):
        if ("+" in parameter and value <= 0) or ("0" in parameter and value < 0):
            word = parameter.strip("+0?")
            raise PriorError(f"the {word} of the prior of {name} is {value:g}", f"{name}: {family}{numbers}", f"give a {word} above 0")
    if family == "uniform" and numbers[0] >= numbers[1]:
        raise PriorError(
            f"the uniform prior of {name} is empty", f"{name}: lower {numbers[0]:g}, upper {numbers[1]:g}", "give lower below upper"
        )


def _usage(family: str) -> str:
    names = [parameter.strip("+0?") for parameter in FAMILIES[family]]
    return f"write {family}({', '.join(names)})"
