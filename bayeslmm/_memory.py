"""Memory is asked for only when it is there: the size that a product of what was given comes to is said before it is allocated."""

from __future__ import annotations

import math
import sys

from bayeslmm.errors import SizeError

BYTES = 8
"""Of a number."""

SMALL = 1 << 26
"""Numbers that are asked for without a look at what is free."""

STREAM_NUMBERS = 64
"""What a stream of random numbers of its own takes, in numbers."""

UNKNOWN = 1 << 33
"""Bytes taken to be free where the system does not tell."""

SHARE = 0.8
"""Of the free memory that one request may take."""

PLACES = {
    "reference grid": "levels of all factors multiplied x coefficients (emmeans, emtrends)",
    "contrasts": "pairs of means (pairs, contrast); their correlations have a limit of their own",
    "replicates": "replicates x reported values (bootstrap, power, check_inference)",
    "simulated responses": "simulations x rows (simulate)",
    "prior draws": "draws x (parameters, random effects, rows) (prior_predictive)",
    "draws": "draws x chains x (parameters, random effects) (sample, calibrate)",
    "draws by row": "draws x rows (posterior predictions, log likelihood, leave-one-out)",
    "marginal covariance": "rows of a level x rows of a level (marginal_cov)",
    "imputations": "samples x subjects, samples x visits x visits (impute)",
}
"""Every place whose size grows with a product of what a user gives, and the factors. Columns of X and Z, blocks of crossed factors and
structures over many rows have limits of their own, where they are built: they are refused at any size of the machine."""


def require_memory(place: str, numbers: float, what: str, remedy: str) -> None:
    """Raise SizeError where so many numbers are not free; `place` is one of PLACES, `what` says what they are.

    >>> require_memory("draws", 10.0, "10 draws", "ask for fewer")
    """
    if numbers <= SMALL:
        return
    free = free_bytes()
    if BYTES * numbers > SHARE * free:
        raise SizeError(f"{what} would take {_size(BYTES * numbers)}, and {_size(free)} are free", f"{place}: {PLACES[place]}", remedy)


def free_bytes() -> float:
    """Bytes that this process may still ask for: of the machine, and of its own limit."""
    return min(_of_the_machine(), _of_the_process())


def _of_the_machine() -> float:
    found = _field("/proc/meminfo", "MemAvailable:")
    return UNKNOWN if found is None else 1024.0 * found


def _of_the_process() -> float:
    if sys.platform == "win32":
        return math.inf
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = _field("/proc/self/status", "VmSize:")
    return math.inf if limit == resource.RLIM_INFINITY or used is None else max(0.0, limit - 1024.0 * used)


def _field(path: str, name: str) -> float | None:
    """A number of kilobytes from a file of the system."""
    try:
        with open(path, encoding="utf-8") as file:
            return next((float(line.split()[1]) for line in file if line.startswith(name)), None)
    except OSError:
        return None


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
