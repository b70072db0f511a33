"""Kenward and Roger's covariance of the fixed effects, and their approximate F test.

With C = (X' V^-1 X)^-1 and W the covariance of the components psi,

    C_A = C + 2 C { sum_ab W_ab (Q_ab - P_a C P_b - R_ab / 4) } C,     R_ab = X' V^-1 V_ab V^-1 X.

W is twice the inverse of the expected information (as pbkrtest has it), or of the observed one (as SAS and mmrm have it). Without the R
term ("linear") the result does not depend on how the covariance is parameterised; where V is linear in psi there is no R term.
Kenward and Roger (1997), Biometrics 53, 983-997.

psi are the components of the covariance: variances and covariances of every random term and of the errors wherever V is linear in them,
and sigma^2 last. All is on standardized columns of X and in units of sigma (V0 = V / sigma^2, psi_k = 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.errors import InferenceError
from bayeslmm.inference.fixed_effects.information import ObservedInformation, pseudo_inverse
from bayeslmm.likelihood.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class VDerivatives:
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
def v_derivatives(state: object, problem: Problem, x: Array) -> VDerivatives:  # noqa: ARG001
    """The pieces at an evaluation of a kernel; each kernel registers its own.

    x : (size,) where it was evaluated
    """
    raise InferenceError(
        "Kenward-Roger is not available for this kind of model",
        type(state).__name__,
        "use df='satterthwaite', which needs no more than the criterion",
    )


ZERO_MOMENT = 1e-10
"""Below this a term of the moments is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class KenwardRoger:
    """On standardized columns, in units of sigma.

    C : (p, p) model-based, adjusted : (p, p); P : (k, p, p) X' V^-1 V_a V^-1 X; W : (k, k) covariance of the components
    """

    C: Array
    adjusted: Array
    P: Array
    W: Array

    def rows(self, L: Array) -> Array:
        """Degrees of freedom of each row of L (r, p)."""
        LC = L @ self.C
        variance = np.einsum("rx,rx->r", LC, L)
        g = np.einsum("rx,axy,ry->ra", LC, self.P, LC)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2.0 * variance**2 / np.einsum("ra,ab,rb->r", g, self.W, g))

    def joint(self, L: Array) -> tuple[float, float]:
        """Scale of F and denominator degrees of freedom for L (q, p) of full row rank."""
        q = len(L)
        if q == 1:
            return 1.0, float(self.rows(L)[0])
        LC = L @ self.C
        root = np.linalg.cholesky(LC @ L.T)
        half = np.linalg.solve(root, LC)
        moved = half @ self.P @ half.T
        traces = np.einsum("aii->a", moved)
        A1 = float(traces @ self.W @ traces)
        A2 = float(np.einsum("ab,aij,bji->", self.W, moved, moved))
        return scale_and_df(A1, A2, q)


def scale_and_df(A1: float, A2: float, q: int) -> tuple[float, float]:
    """lambda and m such that lambda F is about F(q, m): the two moments of Kenward and Roger, exact in the balanced cases they name."""
    if A2 <= 0.0:
        return 1.0, np.inf
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    c = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / c, (q - g) / c, (q + 2.0 - g) / c
    E = 1.0 / (1.0 - A2 / q)
    v0, v1, v2 = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
    # terms that vanish together in exact cases
    v0 = 0.0 if abs(v0) < ZERO_MOMENT else v0
    ratio = 1.0 if abs(v1) < ZERO_MOMENT and abs(1.0 - A2 / q) < ZERO_MOMENT else (1.0 - A2 / q) / v1
    rho = (1.0 / q) * ratio**2 * v0 / v2
    m = 4.0 + (q + 2.0) / (q * rho - 1.0)
    return (1.0 if abs(m - 2.0) < 0.01 else float(m / (E * (m - 2.0)))), float(m)


def kenward_roger(pieces: VDerivatives, moved: ObservedInformation, information: str, linear: bool) -> KenwardRoger:
    """Adjust the covariance of the fixed effects.

    information : "expected" or "observed"; linear : leave the second-order term out
    """
    C = moved.C
    if information == "observed":
        W = pieces.jacobian @ moved.covariance @ pieces.jacobian.T
    else:
        W = 2.0 * pseudo_inverse(pieces.expected_information(C))
    inner = np.einsum("ab,abxy->xy", W, pieces.Q) - np.einsum("ab,axy,yz,bzw->xw", W, pieces.P, C, pieces.P, optimize=True)
    if pieces.second is not None and not linear:
        inner -= 0.25 * np.einsum("ab,abxy->xy", W, pieces.second)
    adjusted = C + 2.0 * C @ inner @ C
    return KenwardRoger(C, 0.5 * (adjusted + adjusted.T), pieces.P, W)
