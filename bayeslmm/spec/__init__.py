"""What a user can say about a model, as frozen values, and the dialects that translate into them."""

from bayeslmm.spec.build import make_spec
from bayeslmm.spec.families import Prior
from bayeslmm.spec.file import DataSource, SpecFile
from bayeslmm.spec.mmrm import mmrm_spec, read_mmrm
from bayeslmm.spec.model import ModelSpec
from bayeslmm.spec.priors import Priors
from bayeslmm.spec.reference import Reference
from bayeslmm.spec.toml import parse_spec, read_references, read_spec
from bayeslmm.spec.write import spec_text, write_spec

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
