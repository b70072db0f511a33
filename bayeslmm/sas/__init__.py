"""PROC MIXED programs: SAS text to frozen values, and those into a model specification and requests; and back to SAS text."""

from bayeslmm.sas.language.program import MixedProgram
from bayeslmm.sas.language.statements import parse_program
from bayeslmm.sas.to_sas import program_of_spec as to_sas
from bayeslmm.sas.translate import translate
from bayeslmm.sas.translation import Translation

__all__ = ["MixedProgram", "Translation", "parse_program", "to_sas", "translate"]
