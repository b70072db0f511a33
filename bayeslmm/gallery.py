"""The gallery: spec files with published figures, and the comparison of each figure with ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, SpecificationError
from bayeslmm.figures import Figure, Reader, Source
from bayeslmm.spec.reference import Reference
from bayeslmm.spec.toml import read_references


@dataclass(frozen=True, slots=True)
class Compared:
    """The figures of one source in one spec file beside ours; or why there are none."""

    model: str
    source: str
    method: str
    figures: tuple[Figure, ...]
    seconds: float
    error: BayesLMMError | None = None

    @property
    def agrees(self) -> bool:
        """Whether all figures agree."""
        return self.error is None and all(figure.agrees for figure in self.figures)


def spec_files(path: Path) -> list[Path]:
    """The spec files of a folder by name, or the one file named."""
    if path.is_file():
        return [path]
    found = sorted(path.glob("*.toml"))
    if not found:
        raise SpecificationError("there is no spec file here", str(path), "name a TOML file or a folder that has some")
    return found


def compare_with_published(path: Path) -> Iterator[Compared]:
    """Fit a spec file once for each method its figures belong to, and set every figure beside ours."""
    references = read_references(path)
    if not references:
        raise SpecificationError("the file has no published figures", str(path), "add a [[reference]] table")
    model = blm.read_model(path)
    fits: dict[str, Any] = {}
    for reference in references:
        start = time.perf_counter()
        try:
            if reference.method not in fits:
                fits[reference.method] = model.fit(reference.method)
            figures = tuple(figures_of(reference, fits[reference.method], model))
            error = None
        except BayesLMMError as failure:
            figures, error = (), failure
        yield Compared(path.stem, reference.source, reference.method, figures, time.perf_counter() - start, error)


def figures_of(reference: Reference, fit: Any, model: Any) -> Iterator[Figure]:
    """Each figure of a source beside ours."""
    reader = Reader(fit, model, options_of(reference))
    for path, published in reference.figures:
        yield Figure(path, published, reader.value(path), reference.units)


def options_of(reference: Reference) -> Source:
    """What the figures of a source belong to."""
    return Source(
        df=reference.df,
        vcov=reference.vcov,
        information=reference.information,
        conf_level=reference.conf_level,
        conf_method=reference.conf_method,
        emmeans=reference.emmeans,
        by=reference.by,
        at=dict(reference.at),
        anova_type=reference.anova_type,
    )
