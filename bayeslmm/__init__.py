"""Linear mixed models: REML, ML, small-sample inference and the full posterior of one and the same model.

    import bayeslmm as blm

    model = blm.LMM("Reaction ~ Days + (Days | Subject)", data)
    fit = model.fit()
    post = model.sample()
    blm.compare(fit, post)

Importing the package imports nothing else: each name is handed on when it is first asked for.
"""

from typing import Any

from bayeslmm.model import _doors as _doors

__version__ = "0.1.0"

__all__ = [
    "LMM",
    "Check",
    "Comparison",
    "Fit",
    "Posterior",
    "Priors",
    "Summary",
    "compare",
    "compare_models",
    "errors",
    "from_partitions",
    "load",
    "load_dataset",
    "lrt",
    "mmrm",
    "proc_mixed",
    "read_model",
]


def __getattr__(name: str) -> Any:
    value = _doors.hand_on(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
