"""What Kenward and Roger need of V = V(psi), whatever kernel holds it: a value, and one function that a kernel answers.

psi are the components of the covariance: variances and covariances of every random term and of the errors wherever V is linear in them,
and sigma^2 last. All is on conditioned columns of X and in units of sigma (V0 = V / sigma^2, psi_k = 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.errors import InferenceError
from bayeslmm.likelihood.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class CovariancePieces:
    """Products of V_a = dV/dpsi_a, a = 1..k, sandwiched between V^-1.

    P : (k, p, p) X' V^-1 V_a V^-1 X
    Q : (k, k, p, p) X' V^-1 V_a V^-1 V_b V^-1 X
    traces : (k, k) tr(V^-1 V_a V^-1 V_b)
    jacobian : (k, size + 1) dpsi/dtau, tau = (x, log sigma)
    second : (k, k, p, p) X' V^-1 V_ab V^-1 X, or None where V is linear in psi
    """

    P: Array
    Q: Array
    traces: Array
    jacobian: Array
    second: Array | None = None

    def expected_information(self, C: Array) -> Array:
        """tr(P V_a P V_b), (k, k), with C = (X' V^-1 X)^-1: twice the expected REML information of psi."""
        CP = C @ self.P
        return np.asarray(self.traces - 2.0 * np.einsum("xy,abyx->ab", C, self.Q) + np.einsum("axy,byx->ab", CP, CP))


@singledispatch
def covariance_pieces(state: object, problem: Problem, x: Array) -> CovariancePieces:  # noqa: ARG001
    """The pieces at an evaluation of a kernel; each kernel registers its own.

    x : (size,) where it was evaluated
    """
    raise InferenceError(
        "Kenward-Roger is not available for this kind of model",
        type(state).__name__,
        "use df='satterthwaite', which needs no more than the criterion",
    )
