"""Linear mixed models: REML, ML, small-sample inference and the full posterior of one and the same model.

    import bayeslmm as blm

    model = blm.LMM("Reaction ~ Days + (Days | Subject)", data)
    fit = model.fit()
    post = model.sample()
    blm.compare(fit, post)

Importing the package imports nothing else: each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bayeslmm import errors
    from bayeslmm.bayes.comparison import Comparison as Comparison
    from bayeslmm.bayes.comparison import compare as compare
    from bayeslmm.bayes.model_table import tables as tables
    from bayeslmm.bayes.posterior.posterior import Posterior as Posterior
    from bayeslmm.bayes.ranking import compare_models as compare_models
    from bayeslmm.datasets import load_dataset as load_dataset
    from bayeslmm.errors import Check as Check
    from bayeslmm.inference.lrt import lrt as lrt
    from bayeslmm.model.constructors import assume as assume
    from bayeslmm.model.constructors import fit_by as fit_by
    from bayeslmm.model.constructors import mmrm as mmrm
    from bayeslmm.model.constructors import read_model as read_model
    from bayeslmm.model.fit import Fit as Fit
    from bayeslmm.model.lmm import LMM as LMM
    from bayeslmm.model.load import load as load
    from bayeslmm.model.many_fits import ManyFits as ManyFits
    from bayeslmm.model.partitioned import from_partitions as from_partitions
    from bayeslmm.model.partitioned import from_table as from_table
    from bayeslmm.model.sklearn import LMMRegressor as LMMRegressor
    from bayeslmm.model.summary import Summary as Summary
    from bayeslmm.sas_results.proc_mixed import MixedResult as MixedResult
    from bayeslmm.sas_results.proc_mixed import proc_mixed as proc_mixed
    from bayeslmm.specification.priors import Priors as Priors
    from bayeslmm.trials.imputation import impute as impute
    from bayeslmm.trials.imputations import Imputations as Imputations
    from bayeslmm.trials.imputations import imputations as imputations

__version__ = "0.1.0"

_MODULES = {
    "Check": "bayeslmm.errors",
    "Comparison": "bayeslmm.bayes.comparison",
    "Fit": "bayeslmm.model.fit",
    "Imputations": "bayeslmm.trials.imputations",
    "LMM": "bayeslmm.model.lmm",
    "LMMRegressor": "bayeslmm.model.sklearn",
    "ManyFits": "bayeslmm.model.many_fits",
    "MixedResult": "bayeslmm.sas_results.proc_mixed",
    "Posterior": "bayeslmm.bayes.posterior.posterior",
    "Priors": "bayeslmm.specification.priors",
    "Summary": "bayeslmm.model.summary",
    "assume": "bayeslmm.model.constructors",
    "compare": "bayeslmm.bayes.comparison",
    "compare_models": "bayeslmm.bayes.ranking",
    "errors": "bayeslmm.errors",
    "fit_by": "bayeslmm.model.constructors",
    "from_partitions": "bayeslmm.model.partitioned",
    "from_table": "bayeslmm.model.partitioned",
    "imputations": "bayeslmm.trials.imputations",
    "impute": "bayeslmm.trials.imputation",
    "load": "bayeslmm.model.load",
    "load_dataset": "bayeslmm.datasets",
    "lrt": "bayeslmm.inference.lrt",
    "mmrm": "bayeslmm.model.constructors",
    "proc_mixed": "bayeslmm.sas_results.proc_mixed",
    "read_model": "bayeslmm.model.constructors",
    "tables": "bayeslmm.bayes.model_table",
}
"""Public name -> module of the package that defines it."""

__all__ = [
    "LMM",
    "Check",
    "Comparison",
    "Fit",
    "Imputations",
    "LMMRegressor",
    "ManyFits",
    "MixedResult",
    "Posterior",
    "Priors",
    "Summary",
    "assume",
    "compare",
    "compare_models",
    "errors",
    "fit_by",
    "from_partitions",
    "from_table",
    "imputations",
    "impute",
    "load",
    "load_dataset",
    "lrt",
    "mmrm",
    "proc_mixed",
    "read_model",
    "tables",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        module = import_module(_MODULES[name])
        value: object = module if name == "errors" else module.__dict__[name]
        globals()[name] = value
        return value
    from bayeslmm.errors import ForeignNameError
    from bayeslmm.results.foreign_names import hint

    remedy, what = hint(name), f"module 'bayeslmm' has no attribute {name!r}"
    raise ForeignNameError(f"{what}: {remedy}", name, remedy) if remedy else AttributeError(what)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
