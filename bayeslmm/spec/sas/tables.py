"""Which ODS tables a program prints, in the order of the listing."""

from __future__ import annotations

from collections.abc import Iterator

from bayeslmm.spec.sas.program import MixedProgram
from bayeslmm.spec.sas.structures import VC


def tables_of(program: MixedProgram) -> tuple[str, ...]:
    """The ODS names of the tables printed, in order; OUTP= and OUTPM= frames come under their own names besides."""
    return tuple(dict.fromkeys((*_head(program), *_fit(program), *_tests(program))))


def _head(program: MixedProgram) -> Iterator[str]:
    proc = program.proc
    yield from [] if proc.noinfo else ["ModelInfo"]
    yield from ["ClassLevels"] if program.classes and proc.noclprint != 0 else []
    yield from ["Dimensions", "NObs"]
    yield from ["ParmSearch"] if program.parms is not None else []
    yield from [] if proc.noitprint or _fixed_parameters(program) else ["IterHistory"]
    yield from [] if _fixed_parameters(program) else ["ConvergenceStatus"]
    yield from program.repeated.displays if program.repeated else ()
    for random in program.random:
        yield from random.displays


def _fixed_parameters(program: MixedProgram) -> bool:
    return program.parms is not None and program.parms.noiter


def _fit(program: MixedProgram) -> Iterator[str]:
    proc, model = program.proc, program.model
    yield "CovParms"
    yield from ["AsyCov"] if proc.asycov else []
    yield from ["AsyCorr"] if proc.asycorr else []
    yield "FitStatistics"
    yield from ["InfoCrit"] if proc.ic else []
    yield from ["LRT"] if _has_null_test(program) else []
    yield from ["SolutionF"] if model.solution else []
    yield from ["CovB"] if model.covb else []
    yield from ["CorrB"] if model.corrb else []
    yield from ["InvCovB"] if model.covbi else []
    yield from ["SolutionR"] if any(r.solution for r in program.random) else []


def _has_null_test(program: MixedProgram) -> bool:
    """SAS tests against independent errors unless all there is are variance components, which the test meets at their bound."""
    repeated = program.repeated
    structured = any(r.type != VC or r.group is not None for r in program.random)
    structured |= repeated is not None and (repeated.type != VC or repeated.group is not None)
    return structured and program.parms is None


def _tests(program: MixedProgram) -> Iterator[str]:
    model = program.model
    if not model.notest and (model.effects or model.intercept):
        yield from (f"Tests{kind}" for kind in sorted(model.htype))
    rows = any(e.e for e in program.estimates) or any(c.e for c in program.contrasts) or any(s.e for s in program.lsmeans)
    yield from ["Coef"] if model.e or rows else []
    yield from ["Estimates"] if program.estimates else []
    yield from ["Contrasts"] if program.contrasts else []
    yield from ["LSMeans"] if program.lsmeans else []
    yield from ["Diffs"] if any(s.diff for s in program.lsmeans) else []
    yield from ["Slices"] if any(s.slice for s in program.lsmeans) else []
