"""Translation of a PROC MIXED program: its model, its requests, the ODS tables it prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Literal

from bayeslmm.errors import DataError, SpecificationError
from bayeslmm.formula.parse import parse_formula, parse_residual
from bayeslmm.formula.syntax import VarianceFactor, quote_name
from bayeslmm.sas.language.covariance_types import VC
from bayeslmm.sas.language.effects import INTERCEPT_EFFECT, GLMEffect, SASEffect, glm_effect
from bayeslmm.sas.language.options import is_whole_data
from bayeslmm.sas.language.program import CoefficientRow, Coefficients, LSMeansStatement, MixedProgram
from bayeslmm.sas.language.statements import parse_program
from bayeslmm.sas.language.where import columns_in
from bayeslmm.sas.translation import (
    CovBlock,
    Derived,
    RandomPart,
    Translation,
    check_repeated,
    effect_columns,
    effect_formula,
    repeated_formula,
)
from bayeslmm.specification.model_spec import ModelSpec


def tables_of(program: MixedProgram) -> tuple[str, ...]:
    """The ODS names of the tables printed, in order; OUTP= and OUTPM= frames come under their own names besides."""
    return tuple(dict.fromkeys((*_head(program), *_fit(program), *_tests(program))))


def _head(program: MixedProgram) -> Iterator[str]:
    proc = program.proc
    yield from [] if proc.noinfo else ["ModelInfo"]
    yield from ["ClassLevels"] if program.classes and proc.noclprint != 0 else []
    yield from ["Dimensions", "NObs"]
    yield from ["ParmSearch"] if program.parms is not None else []
    yield from ["Type" + proc.method[-1]] if proc.method.startswith("type") else []
    yield from [] if proc.noitprint or _fixed_parameters(program) else ["IterHistory"]
    yield from [] if _fixed_parameters(program) else ["ConvergenceStatus"]
    yield from program.repeated.displays if program.repeated else ()
    for random in program.random:
        yield from random.displays


def _fixed_parameters(program: MixedProgram) -> bool:
    return program.proc.method not in {"reml", "ml"} or (program.parms is not None and program.parms.noiter)


def _fit(program: MixedProgram) -> Iterator[str]:
    proc, model = program.proc, program.model
    yield "CovParms"
    yield from ["AsyCov"] if proc.asycov else []
    yield from ["AsyCorr"] if proc.asycorr else []
    yield "FitStatistics"
    yield from ["InfoCrit"] if proc.ic else []
    yield from ["LRT"] if _has_null_test(program) else []
    yield from ["MMEq"] if proc.mmeq else []
    yield from ["MMEqSol"] if proc.mmeqsol else []
    yield from ["SolutionF"] if model.solution else []
    yield from ["CovB"] if model.covb else []
    yield from ["CorrB"] if model.corrb else []
    yield from ["InvCovB"] if model.covbi else []
    yield from ["SolutionR"] if any(r.solution for r in program.random) else []


def _has_null_test(program: MixedProgram) -> bool:
    """SAS tests against independent errors unless all there is are variance components, which the test meets at their bound."""
    repeated = program.repeated
    structured = any(r.type != VC or r.group is not None for r in program.random)
    structured |= repeated is not None and (repeated.type != VC or repeated.group is not None or bool(repeated.dispersion))
    return structured and program.parms is None and not any(r.gdata for r in program.random)


def _tests(program: MixedProgram) -> Iterator[str]:
    model = program.model
    if not model.notest and (model.effects or model.intercept):
        yield from (f"Tests{kind}" for kind in sorted(model.htype))
        yield from ["LComponents"] if model.lcomponents else []
    yield from ["Influence"] if model.influence is not None else []
    rows = any(e.e for e in program.estimates) or any(c.e for c in program.contrasts) or any(s.e for _, s in _means_statements(program))
    yield from ["Coef"] if model.e or rows else []
    yield from ["Estimates"] if program.estimates else []
    yield from ["Contrasts"] if program.contrasts else []
    yield from ["LSMeans"] if program.lsmeans else []
    yield from ["Diffs"] if any(s.diff for s in program.lsmeans) else []
    yield from ["Slices"] if any(s.slice for s in program.lsmeans) else []
    yield from ["LSMEstimates"] if program.lsmestimates else []
    yield from ["LSMFtest"] if any(s.joint for s in program.lsmestimates) else []
    yield from ["SliceLSMeans"] if any(s.means_shown for s in program.slices) else []
    yield from ["SliceTests"] if any(not s.nof for s in program.slices) else []
    yield from ["SliceDiffs"] if any(s.means.diff for s in program.slices) else []


def _means_statements(program: MixedProgram) -> Iterator[tuple[str, LSMeansStatement]]:
    """Every statement about least-squares means: its name, and what LSMEANS has too."""
    yield from (("LSMEANS", s) for s in program.lsmeans)
    yield from (("LSMESTIMATE", s.means) for s in program.lsmestimates)
    yield from (("SLICE", s.means) for s in program.slices)


_DF = {
    "contain": "containment",
    "betwithin": "between-within",
    "residual": "residual",
    "satterthwaite": "satterthwaite",
    "kenwardroger": "kenward-roger",
    "kenwardroger2": "kenward-roger",
}


def translate(program: str | MixedProgram, columns: Sequence[str] = (), levels: Mapping[str, Sequence[str]] | None = None) -> Translation:
    """The model and the requests of a PROC MIXED program.

    columns : names of the data's columns, when they are at hand: names are then matched without regard to case and must exist
    levels : formatted levels of class variables, needed for GROUP= in RANDOM alone

    Raises FormulaError and SpecificationError (see `parse_program`), SpecificationError for what cannot be said in our terms and for
    effects that are not in the model, DataError for a column that is not there.

    >>> text = "proc mixed; class id; model y = x / s; random int x / subject=id type=un; run;"
    >>> translate(text).spec.formula.text
    'y ~ 1 + x + (1 + x | id)'
    """
    if isinstance(program, str):
        program = parse_program(program, tuple(columns))
    _check_columns(program, columns)
    effects = tuple(dict.fromkeys(glm_effect(e, program.class_names) for e in program.model.effects))
    _check_model(program, effects)
    whole = next((r for r in program.random if r.gdata), None)
    random = RandomPart(
        program.class_names, levels or {}, gdata=whole.gdata if whole else "", ratios=any(r.ratios for r in program.random if whole)
    )
    for statement in program.random:
        random.add(statement)
    residual, residual_columns = _residual(program)
    variance, variance_columns = _variance(program)
    return Translation(
        program=program,
        spec=ModelSpec(
            formula=parse_formula(_formula_text(program, effects, random.texts)),
            residual=parse_residual(residual) if residual else None,
            variance=variance,
            weights=program.weight or None,
        ),
        derived=tuple(dict.fromkeys((*random.derived, *residual_columns, *variance_columns))),
        effects=effects,
        intercept=not program.model.noint,
        method="ML" if program.proc.method == "ml" else "REML",
        df=_df(program),
        vcov=_vcov(program),
        information="observed" if program.proc.scoring is None else "expected",
        blocks=(*random.blocks, *_residual_blocks(program)),
        residual=_has_residual(program),
        random=tuple(random.effects),
        subject=_subject(program),
        within=_between_within_subject(program),
        contiguous=_contiguous(program),
        tables=tables_of(program),
        notes=_notes(program),
    )


def _formula_text(program: MixedProgram, effects: Iterable[GLMEffect], random: Sequence[str]) -> str:
    fixed = ["0" if program.model.noint else "1", *(effect_formula(e) for e in effects)]
    return f"{quote_name(program.model.response)} ~ {' + '.join([*fixed, *random])}"


def _residual(program: MixedProgram) -> tuple[str, tuple[Derived, ...]]:
    if program.repeated is None:
        return "", ()
    check_repeated(program.repeated, program.class_names)
    return repeated_formula(program.repeated, program.class_names)


def _variance(program: MixedProgram) -> tuple[tuple[VarianceFactor, ...], tuple[Derived, ...]]:
    """REPEATED with TYPE=VC: LOCAL=EXP(), or GROUP=arm, one variance for each level; and the column of a group of several variables."""
    repeated = program.repeated
    if repeated is not None and repeated.dispersion:
        classes = program.class_names
        return tuple(VarianceFactor("ident" if e.text in classes else "exp", e.text, ()) for e in repeated.dispersion), ()
    if repeated is None or repeated.type != VC or repeated.group is None:
        return (), ()
    columns = effect_columns(repeated.group, program.class_names)
    if len(columns) == 1:
        return (VarianceFactor("ident", columns[0], ()),), ()
    return (VarianceFactor("ident", repeated.group.text, ()),), (Derived(repeated.group.text, columns),)


def _residual_blocks(program: MixedProgram) -> tuple[CovBlock, ...]:
    repeated = program.repeated
    if repeated is None or (repeated.type == VC and repeated.group is None and not repeated.dispersion):
        return ()
    subject = "" if repeated.subject is None or is_whole_data(repeated.subject) else repeated.subject.text
    names = tuple(e.text for e in repeated.effects)
    group = repeated.group.text if repeated.group else ""
    dispersion = tuple(e.text for e in repeated.dispersion)
    return (CovBlock("repeated", repeated.type, names, subject, group, local=repeated.local, dispersion=dispersion),)


def _has_residual(program: MixedProgram) -> bool:
    """Whether the CovParms table ends with a row Residual."""
    repeated = program.repeated
    if repeated is None or repeated.local:
        return True
    return repeated.group is None and (repeated.type.spatial or repeated.type.name in {"VC", "CS", "AR(1)", "ARMA(1,1)", "TOEP"})


def _df(program: MixedProgram) -> str:
    model = program.model
    if model.ddfm == "kenwardroger" and model.firstorder:
        return "kenward-roger-linear"
    if model.ddfm:
        return _DF[model.ddfm]
    if program.proc.dfbw:
        return "between-within"
    if program.random:
        return "containment"
    return "between-within" if program.repeated is not None else "residual"


def _vcov(program: MixedProgram) -> str:
    if program.proc.empirical:
        if program.model.ddfm.startswith("kenwardroger"):
            raise SpecificationError("EMPIRICAL cannot be combined with DDFM=KENWARDROGER", program.model.spot, "leave one of them out")
        return "CR0"
    if program.model.ddfm.startswith("kenwardroger"):
        return "kenward-roger-linear" if program.model.firstorder else "kenward-roger"
    return "asymptotic"


def _subjects(program: MixedProgram) -> list[tuple[str, ...]]:
    """The subject of every RANDOM and REPEATED statement, () where it is the whole data."""
    found = [effect_columns(s.subject, program.class_names) for s in program.random]
    if program.repeated is not None:
        found.append(effect_columns(program.repeated.subject, program.class_names))
    return found


def _subject(program: MixedProgram) -> tuple[str, ...]:
    """The subjects by which the data fall apart: the coarsest, if all the others are nested within it."""
    subjects = _subjects(program)
    if not subjects or not all(subjects):
        return ()
    coarsest = min(subjects, key=len)
    return coarsest if all(set(coarsest) <= set(other) for other in subjects) else ()


def _between_within_subject(program: MixedProgram) -> tuple[str, ...]:
    """Between-within degrees of freedom take the subject of REPEATED, and of the first RANDOM where there is none."""
    if program.repeated is not None and not is_whole_data(program.repeated.subject):
        return effect_columns(program.repeated.subject, program.class_names)
    return next((s for s in _subjects(program) if s), ())


def _contiguous(program: MixedProgram) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for subject in _subjects(program) for name in subject if name not in program.class_names))


def _notes(program: MixedProgram) -> tuple[str, ...]:
    proc = program.proc
    notes = list(program.notes)
    if proc.plots:
        notes.append("PLOTS: the figures of a fit are at result.fit.plot")
    if proc.criterion is not None:
        notes.append(f"{proc.criterion[0].upper()}={proc.criterion[1]:g}: the optimiser stops by its own, tighter criterion")
    if proc.nobound or proc.method not in {"reml", "ml"}:
        notes.append("result.fit has this covariance where all variances are above 0, and else that of REML or ML with variances from 0 up")
    if proc.maxiter is not None or proc.maxfunc is not None:
        notes.append("MAXITER=, MAXFUNC=: the optimiser has its own limits")
    if proc.noprofile:
        notes.append("NOPROFILE: whether the residual variance is profiled out does not change the optimum")
    if names := _contiguous(program):
        notes.append(f"{', '.join(names)} in SUBJECT= is not in CLASS: rows of one value are one subject, and must stand together")
    return tuple(notes)


def _check_columns(program: MixedProgram, columns: Sequence[str]) -> None:
    if not columns:
        return
    for statement, name in _names_used(program):
        if name not in columns:
            near = get_close_matches(name, columns, 3, 0.5) or get_close_matches(name.lower(), [c.lower() for c in columns], 3, 0.5)
            raise DataError(
                f"there is no column {name}",
                f"the {statement} statement",
                f"near: {', '.join(near)}" if near else f"the columns are {', '.join(list(columns)[:20])}",
            )


def _names_used(program: MixedProgram) -> Iterable[tuple[str, str]]:
    model = program.model
    yield "MODEL", model.response
    yield from (("MODEL", v) for e in model.effects for v in e.variables)
    yield from (("INFLUENCE", v) for v in (model.influence.effect.variables if model.influence and model.influence.effect else ()))
    yield from (("CLASS", c) for c in program.class_names)
    for random in program.random:
        yield from (("RANDOM", v) for e in random.all_effects for v in e.variables)
    if repeated := program.repeated:
        yield from (("REPEATED", v) for e in repeated.all_effects for v in e.variables)
        yield from (("REPEATED", v) for v in repeated.type.coordinates)
    for condition in (program.where, program.proc.data_options.where):
        yield from (("WHERE", v) for v in (columns_in(condition) if condition else ()))
    yield from (("WEIGHT", v) for v in [program.weight] if v)
    yield from (("BY", b.name) for b in program.by)
    yield from (("ID", v) for v in program.id)


def _check_model(program: MixedProgram, effects: tuple[GLMEffect, ...]) -> None:
    model, classes = program.model, program.class_names
    if model.response in classes:
        raise SpecificationError(f"the response {model.response} is a CLASS variable", model.spot, "take it out of CLASS")
    if any(model.response in e.variables for e in model.effects):
        raise SpecificationError(f"the response {model.response} is an effect of the model too", model.spot, "leave it out on one side")
    if nested := next((e for e in model.effects if any(v not in classes for v in e.nested)), None):
        raise SpecificationError(
            f"{nested.text} is nested within a variable that is not a class", model.spot, "add it to CLASS, or write x*a"
        )
    if len(model.ddf) > len(effects):
        raise SpecificationError(f"DDF= gives {len(model.ddf)} values for {len(effects)} effects", model.spot, "one for each effect")
    _check_lsmeans(program, effects)
    _check_rows(program, effects)


def _check_lsmeans(program: MixedProgram, effects: tuple[GLMEffect, ...]) -> None:
    covariates = {v for e in effects for v in e.continuous}
    for name, statement in _means_statements(program):
        for effect in statement.effects:
            ordered = glm_effect(effect, program.class_names)
            if ordered not in effects:
                what, remedy = "is not an effect of the MODEL statement", "add it to MODEL"
            elif ordered.continuous:
                what, remedy = "has a continuous variable", "add the variable to CLASS, or take its value with AT"
            else:
                continue
            raise SpecificationError(f"{name}: {effect.text} {what}", statement.spot, remedy)
        if stranger := next((x for x, _ in statement.at if x not in covariates), None):
            remedy = f"one of {', '.join(sorted(covariates))}" if covariates else "the model has none"
            raise SpecificationError(f"{name}: AT names {stranger}, which is no covariate of the model", statement.spot, remedy)


def _check_rows(program: MixedProgram, effects: tuple[GLMEffect, ...]) -> None:
    known = {*effects, *([] if program.model.noint else [GLMEffect()])}
    random = {glm_effect(e, program.class_names) for s in program.random for e in s.effects}
    rows: list[tuple[str, str, CoefficientRow]] = [(f"ESTIMATE '{e.label}'", e.spot, e.row) for e in program.estimates]
    rows += [(f"CONTRAST '{c.label}'", c.spot, row) for c in program.contrasts for row in c.rows]
    for where, spot, row in rows:
        _check_part(program, where, spot, row.fixed, known, "MODEL")
        _check_part(program, where, spot, row.random, random, "RANDOM")


def _check_part(
    program: MixedProgram, where: str, spot: str, part: Sequence[Coefficients], known: set[GLMEffect], statement: Literal["MODEL", "RANDOM"]
) -> None:
    for coefficients in part:
        if glm_effect(coefficients.effect, program.class_names) not in known:
            name = _effect_name(coefficients.effect)
            listed = ", ".join(sorted(e.name for e in known)) or "none"
            raise SpecificationError(f"{where}: {name} is not an effect of the {statement} statement", spot, f"its effects are {listed}")


def _effect_name(effect: SASEffect) -> str:
    return "the intercept" if effect == INTERCEPT_EFFECT else effect.text
