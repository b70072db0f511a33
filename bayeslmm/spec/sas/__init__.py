"""PROC MIXED programs: SAS text to frozen values, and those into a model specification and requests; and back to SAS text."""

from bayeslmm.spec.sas.parse import parse_program
from bayeslmm.spec.sas.program import MixedProgram
from bayeslmm.spec.sas.translate import translate
from bayeslmm.spec.sas.translation import Translation
from bayeslmm.spec.sas.write import to_sas

__all__ = ["MixedProgram", "Translation", "parse_program", "to_sas", "translate"]
