"""A `MixedProgram` as SAS text; parsing the text gives the same program."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from bayeslmm.spec.sas.effects import INTERCEPT, Effect
from bayeslmm.spec.sas.program import (
    ClassVariable,
    Contrast,
    Estimate,
    LSMeans,
    MixedProgram,
    Model,
    Parms,
    Proc,
    Random,
    Repeated,
    Row,
)
from bayeslmm.spec.sas.structures import VC, CovType
from bayeslmm.spec.sas.where import Among, Column, Comparison, Condition, Junction, Literal, Negation

_PLAIN_NAME = re.compile(r"[A-Za-z_]\w{0,31}\Z", re.ASCII)
_DISPLAY = {"GCorr": "gcorr", "InvG": "gi", "CholG": "gc", "InvCholG": "gci", "VCorr": "vcorr", "InvV": "vi", "CholV": "vc"}
_DISPLAY |= {"InvCholV": "vci", "RCorr": "rcorr", "InvR": "ri", "CholR": "rc", "InvCholR": "rci", "G": "g", "V": "v", "R": "r"}
_WIDTH = 100


def program_text(program: MixedProgram) -> str:
    """The program as SAS text, one statement a line, ended by `run;`."""
    return "\n".join(_statements(program)) + "\n"


def _statements(program: MixedProgram) -> Iterator[str]:
    yield from (f"title{i} {_quote(text)};" for i, text in enumerate(program.titles, 1))
    yield from (f"footnote{i} {_quote(text)};" for i, text in enumerate(program.footnotes, 1))
    yield f"proc mixed{_options(_proc(program.proc))};"
    yield from _line("by", [("descending " if b.descending else "") + _name(b.name) for b in program.by])
    yield from _line("class", [_class(c) for c in program.classes])
    yield from _line("where", [condition_text(program.where)] if program.where else [])
    yield from _line("weight", [_name(program.weight)] if program.weight else [])
    yield from _line("id", [_name(n) for n in program.id])
    model = program.model
    yield from _line("model", [_name(model.response), "=", *map(_effect, model.effects)], _model(model))
    for random in program.random:
        yield from _line("random", [_effect(e) for e in random.effects], _random(random))
    if program.repeated is not None:
        yield from _line("repeated", [_effect(e) for e in program.repeated.effects], _repeated(program.repeated), always=True)
    yield from _requests(program)
    yield "run;"


def _requests(program: MixedProgram) -> Iterator[str]:
    if program.parms is not None:
        yield from _line("parms", [f"({', '.join(map(_number, values))})" for values in program.parms.values], _parms(program.parms))
    for means in program.lsmeans:
        yield from _line("lsmeans", [_effect(e) for e in means.effects], _lsmeans(means))
    for estimate in program.estimates:
        yield from _line("estimate", [_quote(estimate.label), _row(estimate.row)], _estimate(estimate))
    for contrast in program.contrasts:
        rows = ", ".join(map(_row, contrast.rows))
        yield from _line("contrast", [_quote(contrast.label), rows], _contrast(contrast))


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


def _name(name: str) -> str:
    return name if _PLAIN_NAME.match(name) else _quote(name) + "n"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _effect(effect: Effect) -> str:
    if effect == INTERCEPT:
        return "intercept"
    nested = f"({' '.join(map(_name, effect.nested))})" if effect.nested else ""
    return "*".join(map(_name, effect.crossed)) + nested


def _class(variable: ClassVariable) -> str:
    reference = {"last": "", "first": "(ref=first)", "value": f"(ref={_quote(variable.value)})"}[variable.reference]
    return _name(variable.name) + reference


def _type(cov: CovType) -> str:
    order = f"({cov.order})" if cov.order is not None else ""
    coordinates = f"({' '.join(map(_name, cov.coordinates))})" if cov.coordinates else ""
    return f"type={cov.name.lower()}{order}{coordinates}"


def _flags(**options: bool) -> Iterator[str]:
    yield from (name for name, said in options.items() if said)


def _limits(cl: bool, alpha: float) -> Iterator[str]:
    yield from ["cl"] if cl else []
    yield from [f"alpha={_number(alpha)}"] if alpha != 0.05 else []


def _proc(proc: Proc) -> Iterator[str]:
    if proc.data:
        where = f"(where=({condition_text(proc.data_where)}))" if proc.data_where else ""
        yield f"data={'.'.join(map(_name, proc.data.split('.')))}{where}"
    yield f"method={proc.method}"
    yield from _flags(
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
        dfbw=proc.dfbw,
    )
    yield from ["cl=wald" if proc.cl == "wald" else "cl"] if proc.cl else []
    yield from [f"alpha={_number(proc.alpha)}"] if proc.alpha != 0.05 else []
    if proc.noclprint is not None:
        yield f"noclprint={proc.noclprint}" if proc.noclprint else "noclprint"
    yield from [f"order={proc.order}"] if proc.order != "formatted" else []
    counts = {"maxiter": proc.maxiter, "maxfunc": proc.maxfunc, "scoring": proc.scoring, "namelen": proc.namelen}
    yield from (f"{name}={value}" for name, value in counts.items() if value is not None)
    yield from [f"{proc.criterion[0]}={_number(proc.criterion[1])}"] if proc.criterion else []


def _model(model: Model) -> Iterator[str]:
    yield from _flags(
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
    )
    if model.ddfm:
        yield f"ddfm={model.ddfm}{'(firstorder)' if model.firstorder else ''}"
    yield from [f"ddf={', '.join('.' if d is None else _number(d) for d in model.ddf)}"] if model.ddf else []
    yield from [f"htype={', '.join(map(str, model.htype))}"] if model.htype != (3,) else []
    yield from ("e" if kind == 0 else f"e{kind}" for kind in model.e)
    yield from _limits(model.cl, model.alpha)
    yield from [f"alphap={_number(model.alphap)}"] if model.alphap != 0.05 else []
    yield from (f"{key}={'.'.join(map(_name, value.split('.')))}" for key, value in (("outp", model.outp), ("outpm", model.outpm)) if value)


def _structured(cov: CovType, subject: Effect | None, group: Effect | None) -> Iterator[str]:
    yield from [_type(cov)] if cov != VC else []
    yield from [f"subject={_effect(subject)}"] if subject is not None else []
    yield from [f"group={_effect(group)}"] if group is not None else []


def _displays(names: Iterable[str], blocks: tuple[int, ...]) -> Iterator[str]:
    numbers = "" if blocks == (1,) else f"={', '.join(map(str, blocks))}"
    yield from (_DISPLAY[name] + ("" if "G" in name else numbers) for name in names)


def _random(random: Random) -> Iterator[str]:
    yield from _structured(random.type, random.subject, random.group)
    yield from _flags(solution=random.solution)
    yield from _displays(random.displays, random.v_blocks)
    yield from _limits(random.cl, random.alpha)


def _repeated(repeated: Repeated) -> Iterator[str]:
    yield from _structured(repeated.type, repeated.subject, repeated.group)
    yield from _flags(local=repeated.local)
    yield from _displays(repeated.displays, repeated.blocks)


def _lsmeans(means: LSMeans) -> Iterator[str]:
    if means.diff is not None:
        controls = f"({' '.join(map(_quote, means.controls))})" if means.controls else ""
        yield "diff" if means.diff == "all" else f"diff={means.diff}{controls}"
    yield from [f"adjust={means.adjust}"] if means.adjust != "none" else []
    yield from _flags(bylevel=means.bylevel, om=means.om, e=means.e, cov=means.cov, corr=means.corr)
    yield from (f"at {_name(name)}={_number(value)}" for name, value in means.at)
    yield from ["at means"] if means.at_means else []
    yield from [f"slice=({' '.join(map(_effect, means.slice))})"] if means.slice else []
    yield from [f"df={_number(means.df)}"] if means.df is not None else []
    yield from _limits(means.cl, means.alpha)


def _row(row: Row) -> str:
    parts = [" ".join(f"{_effect(c.effect)} {' '.join(map(_number, c.values))}" for c in side) for side in (row.fixed, row.random)]
    return f"{parts[0]} | {parts[1]}".strip() if row.random else parts[0]


def _coefficient_options(statement: Estimate | Contrast) -> Iterator[str]:
    yield from _flags(e=statement.e)
    yield from [f"df={_number(statement.df)}"] if statement.df is not None else []
    for name, values in (("subject", statement.subject), ("group", statement.group)):
        yield from [f"{name} {' '.join(map(_number, values))}"] if values else []


def _estimate(estimate: Estimate) -> Iterator[str]:
    yield from _coefficient_options(estimate)
    yield from [f"divisor={_number(estimate.divisor)}"] if estimate.divisor != 1 else []
    yield from [estimate.tail] if estimate.tail else []
    yield from _limits(estimate.cl, estimate.alpha)


def _contrast(contrast: Contrast) -> Iterator[str]:
    yield from _coefficient_options(contrast)
    yield from _flags(chisq=contrast.chisq)


def _parms(parms: Parms) -> Iterator[str]:
    yield from [f"hold={', '.join(map(str, parms.hold))}"] if parms.hold else []
    yield from _flags(noiter=parms.noiter)


def condition_text(condition: Condition) -> str:
    """A WHERE condition as SAS writes it, in parentheses wherever it has parts."""
    match condition:
        case Comparison(op, left, right):
            return f"{_operand(left)} {op} {_operand(right)}"
        case Among(left, values):
            return f"{_operand(left)} in ({', '.join(_operand(Literal(v)) for v in values)})"
        case Negation(part):
            return f"not ({condition_text(part)})"
        case Junction(op, parts):
            return f" {op} ".join(f"({condition_text(part)})" for part in parts)


def _operand(operand: Column | Literal) -> str:
    if isinstance(operand, Column):
        return _name(operand.name)
    if operand.value is None:
        return "."
    return _quote(operand.value) if isinstance(operand.value, str) else _number(operand.value)
