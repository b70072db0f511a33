"""Other languages for the same models: mmrm's formula, SAS PROC MIXED programs in and out."""

from bayeslmm.dialects.mmrm import mmrm
from bayeslmm.dialects.proc_mixed import proc_mixed
from bayeslmm.dialects.result import MixedResult
from bayeslmm.dialects.write import to_sas

__all__ = ["MixedResult", "mmrm", "proc_mixed", "to_sas"]
