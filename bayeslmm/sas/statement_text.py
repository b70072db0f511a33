"""The text of a PROC MIXED program: names, numbers, effects, conditions and statements as SAS writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from bayeslmm.sas.language.covariance_types import VC, CovType
from bayeslmm.sas.language.effects import INTERCEPT_EFFECT, SASEffect
from bayeslmm.sas.language.program import (
    ClassVariable,
    CoefficientRow,
    ContrastStatement,
    DataSetOptions,
    EstimateStatement,
    LSMeansStatement,
    LSMEstimateRow,
    LSMEstimateStatement,
    MixedProgram,
    ModelStatement,
    ParmsStatement,
    ProcStatement,
    RandomStatement,
    RepeatedStatement,
    SliceStatement,
)
from bayeslmm.sas.language.where import (
    BooleanCondition,
    ColumnReference,
    Condition,
    ConstantValue,
    FunctionCall,
    InList,
    IsTrue,
    Negation,
    Operand,
    WhereComparison,
)

_PLAIN_NAME = re.compile(r"[A-Za-z_]\w{0,31}\Z", re.ASCII)


def sas_name(name: str) -> str:
    return name if _PLAIN_NAME.match(name) else sas_quoted(name) + "n"


def sas_quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def sas_number(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def effect_words(effect: SASEffect) -> str:
    if effect == INTERCEPT_EFFECT:
        return "intercept"
    nested = f"({' '.join(map(sas_name, effect.nested))})" if effect.nested else ""
    return "*".join(map(sas_name, effect.crossed)) + nested


def flag_words(**options: bool) -> Iterator[str]:
    yield from (name for name, is_set in options.items() if is_set)


def limit_words(cl: bool, alpha: float) -> Iterator[str]:
    yield from ["cl"] if cl else []
    yield from [f"alpha={sas_number(alpha)}"] if alpha != 0.05 else []


def lsmeans_words(means: LSMeansStatement) -> Iterator[str]:
    if means.diff is not None:
        controls = f"({' '.join(map(sas_quoted, means.controls))})" if means.controls else ""
        yield "diff" if means.diff == "all" else f"diff={means.diff}{controls}"
    yield from [f"adjust={means.adjust}"] if means.adjust != "none" else []
    yield from [f"adjdfe={means.adjdfe}"] if means.adjdfe != "source" else []
    yield from flag_words(bylevel=means.bylevel, om=means.om, e=means.e, cov=means.cov, corr=means.corr)
    yield from (f"at {sas_name(name)}={sas_number(value)}" for name, value in means.at)
    yield from ["at means"] if means.at_means else []
    yield from [f"slice=({' '.join(map(effect_words, means.slice))})"] if means.slice else []
    yield from [f"df={sas_number(means.df)}"] if means.df is not None else []
    yield from limit_words(means.cl, means.alpha)


def slice_words(statement: SliceStatement) -> Iterator[str]:
    """Options of SLICE."""
    yield from [f"sliceby=({' '.join(map(effect_words, statement.by))})"] if statement.by else []
    yield from flag_words(nof=statement.nof, means=statement.means_shown)
    yield from lsmeans_words(statement.means)


def lsmestimate_words(statement: LSMEstimateStatement) -> Iterator[str]:
    """Options of LSMESTIMATE."""
    yield from lsmeans_words(statement.means)
    yield from flag_words(joint=statement.joint, chisq=statement.chisq)
    yield from [statement.tail] if statement.tail else []
    yield from [f"testvalue=({' '.join(map(sas_number, statement.testvalue))})"] if statement.testvalue else []


def lsmestimate_row(row: LSMEstimateRow) -> str:
    """`'label' 1 -1 divisor=2`."""
    label = [sas_quoted(row.label)] if row.label else []
    at = [f"[{sas_number(c.value)}, {' '.join(map(str, c.levels))}]" for c in row.levels]
    divisor = [f"divisor={sas_number(row.divisor)}"] if row.divisor != 1.0 else []
    return " ".join([*label, *map(sas_number, row.values), *at, *divisor])


_SIGNS = {"+", "-", "*", "/", "**", "||"}


def condition_text(condition: Condition) -> str:
    """A WHERE condition as SAS writes it, in parentheses wherever it has parts."""
    match condition:
        case WhereComparison(op, left, right, beginning):
            return f"{_operand(left)} {op}{':' if beginning else ''} {_operand(right)}"
        case InList(left, values, beginning):
            return f"{_operand(left)} in{':' if beginning else ''} ({', '.join(_operand(ConstantValue(v)) for v in values)})"
        case IsTrue(operand):
            return _operand(operand)
        case Negation(part):
            return f"not ({condition_text(part)})"
        case BooleanCondition(op, parts):
            return f" {op} ".join(f"({condition_text(part)})" for part in parts)


def _operand(operand: Operand) -> str:
    match operand:
        case ColumnReference(name):
            return sas_name(name)
        case FunctionCall(name, arguments):
            shown = [_operand(argument) for argument in arguments]
            return f"({f' {name} '.join(shown)})" if name in _SIGNS else f"{name}({', '.join(shown)})"
        case ConstantValue(value):
            return "." if value is None else sas_quoted(value) if isinstance(value, str) else sas_number(value)


_DISPLAY = {
    "GCorr": "gcorr",
    "InvG": "gi",
    "CholG": "gc",
    "InvCholG": "gci",
    "VCorr": "vcorr",
    "InvV": "vi",
    "CholV": "vc",
    "InvCholV": "vci",
    "RCorr": "rcorr",
    "InvR": "ri",
    "CholR": "rc",
    "InvCholR": "rci",
    "G": "g",
    "V": "v",
    "R": "r",
}


_WIDTH = 100


def program_text(program: MixedProgram) -> str:
    """The program as SAS text, one statement a line, ended by `run;`."""
    return "\n".join(_statements(program)) + "\n"


def _statements(program: MixedProgram) -> Iterator[str]:
    yield from (f"title{i} {sas_quoted(text)};" for i, text in enumerate(program.titles, 1))
    yield from (f"footnote{i} {sas_quoted(text)};" for i, text in enumerate(program.footnotes, 1))
    yield f"proc mixed{_options(_proc(program.proc))};"
    by = [("descending " if b.descending else "") + sas_name(b.name) for b in program.by]
    yield from _line("by", by + ["notsorted"] * any(b.unsorted for b in program.by))
    yield from _line("class", [_class(c) for c in program.classes])
    yield from _line("where", [condition_text(program.where)] if program.where else [])
    yield from _line("weight", [sas_name(program.weight)] if program.weight else [])
    yield from _line("id", [sas_name(n) for n in program.id])
    model = program.model
    yield from _line("model", [sas_name(model.response), "=", *map(effect_words, model.effects)], _model(model))
    for random in program.random:
        yield from _line("random", [effect_words(e) for e in random.effects], _random_text(random))
    if program.repeated is not None:
        yield from _line("repeated", [effect_words(e) for e in program.repeated.effects], _repeated_text(program.repeated), always=True)
    yield from _requests(program)
    yield "run;"


def _requests(program: MixedProgram) -> Iterator[str]:
    if program.parms is not None:
        yield from _line("parms", [f"({', '.join(map(sas_number, values))})" for values in program.parms.values], _parms(program.parms))
    for means in program.lsmeans:
        yield from _line("lsmeans", [effect_words(e) for e in means.effects], lsmeans_words(means))
    for combined in program.lsmestimates:
        written = ", ".join(map(lsmestimate_row, combined.rows))
        yield from _line("lsmestimate", [effect_words(combined.means.effects[0]), written], lsmestimate_words(combined))
    for sliced in program.slices:
        yield from _line("slice", [effect_words(sliced.means.effects[0])], slice_words(sliced))
    for estimate in program.estimates:
        yield from _line("estimate", [sas_quoted(estimate.label), _row(estimate.row)], _estimate(estimate))
    for contrast in program.contrasts:
        rows = ", ".join(map(_row, contrast.rows))
        yield from _line("contrast", [sas_quoted(contrast.label), rows], _contrast(contrast))


def _line(head: str, items: Sequence[str], options: Iterable[str] = (), always: bool = False) -> Iterator[str]:
    """One statement, broken where it would be longer than 100 characters."""
    words = [head, *items, *(["/", *found] if (found := list(options)) else [])]
    if len(words) == 1 and not always:
        return
    lines = ["  " + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 1 > _WIDTH:
            lines.append("      " + word)
        else:
            lines[-1] += " " + word
    yield "\n".join(lines) + ";"


def _options(words: Iterable[str]) -> str:
    return "".join(f" {word}" for word in words)


def _class(variable: ClassVariable) -> str:
    words = {"last": [], "first": ["ref=first"], "value": [f"ref={sas_quoted(variable.value)}"]}[variable.reference]
    words += ["descending"] if variable.descending else []
    return sas_name(variable.name) + (f"({' '.join(words)})" if words else "")


def _type(cov: CovType) -> str:
    order = f"({cov.order})" if cov.order is not None else ""
    coordinates = f"({' '.join(map(sas_name, cov.coordinates))})" if cov.coordinates else ""
    return f"type={cov.name.lower()}{order}{coordinates}"


def _data_set_words(options: DataSetOptions) -> Iterator[str]:
    for word, names in (("keep", options.keep), ("drop", options.drop)):
        yield from [f"{word}={' '.join(map(sas_name, names))}"] if names else []
    pairs = " ".join(f"{sas_name(old)}={sas_name(new)}" for old, new in options.rename)
    yield from [f"rename=({pairs})"] if pairs else []
    yield from [f"where=({condition_text(options.where)})"] if options.where else []
    yield from [f"firstobs={options.first}"] if options.first > 1 else []
    yield from [f"obs={options.last}"] if options.last is not None else []


def _proc(proc: ProcStatement) -> Iterator[str]:
    if proc.data:
        words = " ".join(_data_set_words(proc.data_options))
        yield f"data={'.'.join(map(sas_name, proc.data.split('.')))}{f'({words})' if words else ''}"
    yield f"method={proc.method}"
    yield from flag_words(
        empirical=proc.empirical,
        covtest=proc.covtest,
        noinfo=proc.noinfo,
        noitprint=proc.noitprint,
        itdetails=proc.itdetails,
        ic=proc.ic,
        asycov=proc.asycov,
        asycorr=proc.asycorr,
        ratio=proc.ratio,
        noprofile=proc.noprofile,
        nobound=proc.nobound,
        mmeq=proc.mmeq,
        mmeqsol=proc.mmeqsol,
        dfbw=proc.dfbw,
        plots=proc.plots,
    )
    yield from ["cl=wald" if proc.cl == "wald" else "cl"] if proc.cl else []
    yield from [f"alpha={sas_number(proc.alpha)}"] if proc.alpha != 0.05 else []
    if proc.noclprint is not None:
        yield f"noclprint={proc.noclprint}" if proc.noclprint else "noclprint"
    yield from [f"order={proc.order}"] if proc.order != "formatted" else []
    counts = {"maxiter": proc.maxiter, "maxfunc": proc.maxfunc, "scoring": proc.scoring, "namelen": proc.namelen}
    yield from (f"{name}={value}" for name, value in counts.items() if value is not None)
    yield from [f"{proc.criterion[0]}={sas_number(proc.criterion[1])}"] if proc.criterion else []


def _model(model: ModelStatement) -> Iterator[str]:
    yield from flag_words(
        solution=model.solution,
        noint=model.noint,
        intercept=model.intercept,
        notest=model.notest,
        chisq=model.chisq,
        covb=model.covb,
        covbi=model.covbi,
        corrb=model.corrb,
        residual=model.residual,
        vciry=model.vciry,
        lcomponents=model.lcomponents,
    )
    if model.ddfm:
        yield f"ddfm={model.ddfm}{'(firstorder)' if model.firstorder else ''}"
    yield from [f"ddf={', '.join('.' if d is None else sas_number(d) for d in model.ddf)}"] if model.ddf else []
    yield from [f"htype={', '.join(map(str, model.htype))}"] if model.htype != (3,) else []
    yield from ("e" if kind == 0 else f"e{kind}" for kind in model.e)
    yield from limit_words(model.cl, model.alpha)
    yield from [f"alphap={sas_number(model.alphap)}"] if model.alphap != 0.05 else []
    if (asked := model.influence) is not None:
        inner = [*([f"effect={effect_words(asked.effect)}"] if asked.effect else []), *([f"size={asked.size}"] if asked.size != 1 else [])]
        inner += [f"select={' '.join(map(str, asked.select))}"] if asked.select else []
        inner += [f"keep={asked.keep}"] if asked.keep is not None else []
        inner += [f"iter={sas_number(asked.iter)}"] if asked.iter else []
        inner += ["estimates"] if asked.estimates else []
        yield f"influence({' '.join(inner)})" if inner else "influence"
    yield from _output("outp", model.outp, model.outp_keep, model.outp_drop)
    yield from _output("outpm", model.outpm, model.outpm_keep, model.outpm_drop)


def _output(option: str, name: str, keep: Sequence[str], drop: Sequence[str]) -> Iterator[str]:
    if name:
        named = [f"{word}={' '.join(map(sas_name, names))}" for word, names in (("keep", keep), ("drop", drop)) if names]
        yield f"{option}={'.'.join(map(sas_name, name.split('.')))}" + (f"({' '.join(named)})" if named else "")


def _structure_options(cov: CovType, subject: SASEffect | None, group: SASEffect | None) -> Iterator[str]:
    yield from [_type(cov)] if cov != VC else []
    yield from [f"subject={effect_words(subject)}"] if subject is not None else []
    yield from [f"group={effect_words(group)}"] if group is not None else []


def _displays(names: Iterable[str], blocks: tuple[int, ...]) -> Iterator[str]:
    numbers = "" if blocks == (1,) else f"={', '.join(map(str, blocks))}"
    yield from (_DISPLAY[name] + ("" if "G" in name else numbers) for name in names)


def _random_text(random: RandomStatement) -> Iterator[str]:
    yield from _structure_options(random.type, random.subject, random.group)
    yield from flag_words(solution=random.solution)
    yield from _displays(random.displays, random.v_blocks)
    yield from limit_words(random.cl, random.alpha)


def _repeated_text(repeated: RepeatedStatement) -> Iterator[str]:
    yield from _structure_options(repeated.type, repeated.subject, repeated.group)
    yield from flag_words(local=repeated.local)
    yield from [f"local=exp({' '.join(map(effect_words, repeated.dispersion))})"] if repeated.dispersion else []
    yield from _displays(repeated.displays, repeated.blocks)


def _row(row: CoefficientRow) -> str:
    parts = [" ".join(f"{effect_words(c.effect)} {' '.join(map(sas_number, c.values))}" for c in side) for side in (row.fixed, row.random)]
    return f"{parts[0]} | {parts[1]}".strip() if row.random else parts[0]


def _coefficient_options(statement: EstimateStatement | ContrastStatement) -> Iterator[str]:
    yield from flag_words(e=statement.e)
    yield from [f"df={sas_number(statement.df)}"] if statement.df is not None else []
    for name, values in (("subject", statement.subject), ("group", statement.group)):
        yield from [f"{name} {' '.join(map(sas_number, values))}"] if values else []


def _estimate(estimate: EstimateStatement) -> Iterator[str]:
    yield from _coefficient_options(estimate)
    yield from [f"divisor={sas_number(estimate.divisor)}"] if estimate.divisor != 1 else []
    yield from [estimate.tail] if estimate.tail else []
    yield from limit_words(estimate.cl, estimate.alpha)


def _contrast(contrast: ContrastStatement) -> Iterator[str]:
    yield from _coefficient_options(contrast)
    yield from flag_words(chisq=contrast.chisq)


def _parms(parms: ParmsStatement) -> Iterator[str]:
    yield from [f"hold={', '.join(map(str, parms.hold))}"] if parms.hold else []
    yield from flag_words(noiter=parms.noiter, noprofile=parms.noprofile)
