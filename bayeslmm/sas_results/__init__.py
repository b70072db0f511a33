"""The results of SAS PROC MIXED programs: their tables, printed output, and runs."""

from bayeslmm.sas_results.proc_mixed import MixedResult, proc_mixed

__all__ = ["MixedResult", "proc_mixed"]
