"""Other languages for the same models: mmrm's formula, SAS PROC MIXED programs in and out."""

from bayeslmm.sas_results.proc_mixed import MixedResult, proc_mixed

__all__ = ["MixedResult", "proc_mixed"]
