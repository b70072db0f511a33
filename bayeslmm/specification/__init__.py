"""Model specifications as frozen values, their priors, and the files that hold them."""

from bayeslmm.specification.model_spec import ModelSpec, make_spec
from bayeslmm.specification.prior_families import Prior
from bayeslmm.specification.priors import Priors
from bayeslmm.specification.spec_file import DataSource, Reference, SpecFile
from bayeslmm.specification.toml import mmrm_spec, parse_spec, read_mmrm, read_references, read_spec, spec_text, write_spec

__all__ = [
    "DataSource",
    "ModelSpec",
    "Prior",
    "Priors",
    "Reference",
    "SpecFile",
    "make_spec",
    "mmrm_spec",
    "parse_spec",
    "read_mmrm",
    "read_references",
    "read_spec",
    "spec_text",
    "write_spec",
]
