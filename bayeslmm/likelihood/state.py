"""The state of other libraries during a verb: BLAS threads and NumPy's error handling are put back after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

from bayeslmm.likelihood.criterion import blas_libraries

Verb = TypeVar("Verb", bound=Callable[..., Any])


def restoring(verb: Verb) -> Verb:  # noqa: UP047 - editors complete what a decorator of this form gives, not of the newer one
    """A verb after which threads and error handling are as before, where Ctrl-C may have hit a context that sets or unsets them.

    Each such context puts back what it found. An interrupt on its way in or out can keep it from doing so; none is left here then.
    """

    @wraps(verb)
    def kept(*args: Any, **kwargs: Any) -> Any:
        threads = [(set_threads, get_threads()) for get_threads, set_threads in blas_libraries()]
        errors, call = np.geterr(), np.geterrcall()
        broken = True
        try:
            found = verb(*args, **kwargs)
            broken = bool(getattr(found, "interrupted", False))
            return found
        except Exception:
            broken = False
            raise
        finally:
            if broken:
                for set_threads, before in threads:
                    set_threads(before or 1)
                np.seterr(**errors)
                np.seterrcall(call)

    return cast(Verb, kept)
