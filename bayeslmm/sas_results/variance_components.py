"""Variance components without a bound: V = sum_k t_k Z_k Z_k' + t_0 W^-1 with t of any sign, as long as V is positive definite.

NOBOUND maximises the (restricted) likelihood over such t, METHOD=TYPE1 to TYPE3 equate mean squares with their expectations,
METHOD=MIVQUE0 solves tr(M G_i M G_j) t_j = y'M G_i M y with M = I - X (X'X)^- X' (Rao 1972; Goodnight 1978). V is one dense matrix.
Products with P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1 give the derivatives: -2 l_i = tr(P G_i) - y'P G_i P y and
-2 l_ij = -tr(P G_i P G_j) + 2 y'P G_i P G_j P y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import linalg

from bayeslmm._arrays import Array
from bayeslmm.errors import ConvergenceError, SizeError
from bayeslmm.inference.fixed_effects.degrees_of_freedom import Degrees, ObservedInformation, pseudo_inverse
from bayeslmm.inference.fixed_effects.kenward_roger import EMPTY_DIRECTION, KenwardRoger, VDerivatives, kenward_roger
from bayeslmm.inference.fixed_effects.tests import FixedEffects, Inference, InferenceOptions
from bayeslmm.model.fit import Fit

MOST_ROWS = 4_000
"""Rows of the largest dense V: 0.13 GB, and a second for each evaluation."""

STEPS = 200
"""Newton steps of a search; a dozen are usual."""

LEFT = 1e-6
"""What a step would gain at a maximum, at most."""

TOWARDS = (0.5, 0.1, 0.01)
"""How near to the end of V searches begin, as shares of the way from a start."""

GAINED = 1e-10
"""A predicted gain of the criterion below this ends a search."""


def _solve(A: Array, b: Array) -> Array:
    """The solution x of A x = b, by least squares where A is singular in the units that its diagonal has."""
    units = np.sqrt(np.abs(np.diagonal(A)))
    units = np.where(units > 0.0, units, 1.0)
    return np.asarray(np.linalg.lstsq(A / np.outer(units, units), b / units, rcond=None)[0] / units)


@dataclass(frozen=True, slots=True, eq=False)
class LinearVarianceModel:
    """y ~ N(X a, sum_k t_k Z_k Z_k' + t_last I), rows already multiplied by the roots of their weights.

    X : (n, p) standardized columns; Z : of each component but the last, (n, q_k); constant : what -2 l has besides, weights and columns
    """

    X: Array
    y: Array
    Z: tuple[Array, ...]
    restricted: bool
    constant: float

    @property
    def df(self) -> int:
        return len(self.y) - (self.X.shape[1] if self.restricted else 0)

    def at(self, t: Array) -> ComponentsPoint | None:
        """The evaluation at t; None where V is not positive definite."""
        V = np.eye(len(self.y)) * t[-1]
        for value, Z in zip(t, self.Z, strict=False):
            V += value * (Z @ Z.T)
        try:
            root = linalg.cholesky(V, lower=True, check_finite=False)
        except linalg.LinAlgError:
            return None
        return ComponentsPoint(self, t, root)

    def quadratic_start(self) -> Array:
        """Rao's MIVQUE(0)."""
        Q, _ = np.linalg.qr(self.X)
        left = [Z - Q @ (Q.T @ Z) for Z in self.Z]
        rest = self.y - Q @ (Q.T @ self.y)
        k = len(left)
        S, q = np.zeros((k + 1, k + 1)), np.zeros(k + 1)
        for i, Z in enumerate(left):
            S[i, k] = S[k, i] = float((Z**2).sum())
            q[i] = float(((Z.T @ rest) ** 2).sum())
            for j in range(i + 1):
                S[i, j] = S[j, i] = float(((self.Z[i].T @ left[j]) ** 2).sum())
        S[k, k], q[k] = len(rest) - self.X.shape[1], float(rest @ rest)
        return _solve(S, q)

    @property
    def units(self) -> Array:
        """(k + 1,) what a variance is measured in: 1 / mean square of the rows of its Z."""
        return np.array([*(len(self.y) / float((Z**2).sum()) for Z in self.Z), 1.0])

    def maximise(self, starts: Sequence[Array]) -> ComponentsPoint:
        """The lowest end of Newton's method from each start; information where the Hessian is not positive definite."""
        near = [below for start in starts for below in self._towards_the_bound(start)]
        found = [end for end in (self._search(start) for start in [*starts, *near]) if end is not None]
        if not found:
            raise ConvergenceError(
                "no covariance without bounds was found that is positive definite", "NOBOUND", "leave NOBOUND out, or drop a random effect"
            )
        return min(found, key=lambda point: point.value)

    def _towards_the_bound(self, start: Array) -> list[Array]:
        """With each variance part of the way down to where V ends: other maxima lie there."""
        point = self.at(start)
        if point is None:
            return []
        found = []
        for k, Z in enumerate(self.Z):
            half = linalg.solve_triangular(point.root, Z, lower=True, check_finite=False)
            lowest = start[k] - 1.0 / float(np.linalg.eigvalsh(half.T @ half).max())
            found += [np.array([*start[:k], lowest + share * (start[k] - lowest), *start[k + 1 :]]) for share in TOWARDS]
        return found

    def _search(self, start: Array) -> ComponentsPoint | None:
        point = self.at(start)
        if point is None:
            return None
        for _ in range(STEPS):
            gradient, H = point.gradient, point.hessian
            units = point.units
            scaled = H * np.outer(units, units)
            if np.linalg.eigvalsh(scaled).min() <= 1e-8 * np.abs(np.diagonal(scaled)).max():
                H = point.information
            step = -_solve(H, gradient)
            gain = -float(gradient @ step)
            if gain < GAINED:
                break
            for _ in range(40):
                trial = self.at(point.t + step)
                if trial is not None and trial.value < point.value:
                    point = trial
                    break
                step = 0.5 * step
            else:
                break
        return point


@dataclass(frozen=True, eq=False)
class ComponentsPoint:
    """An evaluation: root is the Cholesky factor of V."""

    model: LinearVarianceModel
    t: Array
    root: Array

    @cached_property
    def _moved(self) -> tuple[Array, Array]:
        """L^-1 X and L^-1 y."""
        both = linalg.solve_triangular(self.root, np.column_stack([self.model.X, self.model.y]), lower=True, check_finite=False)
        return both[:, :-1], both[:, -1]

    @cached_property
    def C(self) -> Array:
        """(X' V^-1 X)^-1, (p, p)."""
        X, _ = self._moved
        return np.asarray(np.linalg.inv(X.T @ X)) if X.shape[1] else np.zeros((0, 0))

    @cached_property
    def alpha(self) -> Array:
        X, y = self._moved
        return np.asarray(self.C @ (X.T @ y))

    @cached_property
    def value(self) -> float:
        """-2 (restricted) log likelihood."""
        X, y = self._moved
        rest = y - X @ self.alpha
        value = 2.0 * float(np.log(np.diagonal(self.root)).sum()) + float(rest @ rest) + self.model.df * float(np.log(2.0 * np.pi))
        if self.model.restricted and len(self.C):
            value -= float(np.linalg.slogdet(self.C)[1])
        return value + self.model.constant

    @cached_property
    def _whole(self) -> tuple[Array, Array, Array]:
        """V^-1, V^-1 X, and P."""
        inverse = linalg.cho_solve((self.root, True), np.eye(len(self.root)), check_finite=False)
        S = inverse @ self.model.X
        return inverse, S, inverse - S @ self.C @ S.T

    @cached_property
    def _products(self) -> tuple[list[Array], Array]:
        """K Z_k for every component, K = P by REML and V^-1 by ML, the last K itself; and P y."""
        inverse, _, P = self._whole
        K = P if self.model.restricted else inverse
        return [*(K @ Z for Z in self.model.Z), K], P @ self.model.y

    def _traces(self) -> Array:
        """tr(K G_i K G_j)."""
        KZ, Z, k = self._products[0], self.model.Z, len(self.model.Z)
        out = np.zeros((k + 1, k + 1))
        for i in range(k + 1):
            for j in range(i + 1):
                left = KZ[j] if i == k else Z[i].T @ KZ[j]
                out[i, j] = out[j, i] = float((left**2).sum())
        return out

    @cached_property
    def gradient(self) -> Array:
        KZ, Py = self._products
        traces = [float((Z * K).sum()) for Z, K in zip(self.model.Z, KZ, strict=False)] + [float(np.trace(KZ[-1]))]
        squares = [float(((Z.T @ Py) ** 2).sum()) for Z in self.model.Z] + [float(Py @ Py)]
        return np.asarray(np.array(traces) - np.array(squares))

    @cached_property
    def information(self) -> Array:
        """Expected second derivatives of -2 l: tr(K G_i K G_j)."""
        return self._traces()

    @cached_property
    def hessian(self) -> Array:
        """Second derivatives of -2 l."""
        Py, P = self._products[1], self._whole[2]
        U = np.column_stack([*(Z @ (Z.T @ Py) for Z in self.model.Z), Py])
        return np.asarray(2.0 * U.T @ P @ U - self._traces())

    @property
    def stationary(self) -> bool:
        """Whether nothing is left to gain: not where the criterion goes on falling to where V ends."""
        return float(self.gradient @ _solve(self.information, self.gradient)) < LEFT

    @cached_property
    def pieces(self) -> VDerivatives:
        """What Kenward and Roger need."""
        inverse, S, _ = self._whole
        Z, k, p = self.model.Z, len(self.model.Z), S.shape[1]
        ZS = [z.T @ S for z in Z]
        GS = [*(z @ a for z, a in zip(Z, ZS, strict=True)), S]
        P = np.stack([*(a.T @ a for a in ZS), S.T @ S])
        Q = np.zeros((k + 1, k + 1, p, p))
        moved = [inverse @ g for g in GS]
        for i in range(k + 1):
            for j in range(k + 1):
                Q[i, j] = GS[i].T @ moved[j]
        traces = np.zeros((k + 1, k + 1))
        VZ = [*(inverse @ z for z in Z), inverse]
        for i in range(k + 1):
            for j in range(i + 1):
                left = VZ[j] if i == k else Z[i].T @ VZ[j]
                traces[i, j] = traces[j, i] = float((left**2).sum())
        return VDerivatives(P, Q, traces, np.eye(k + 1))

    @property
    def units(self) -> Array:
        """(k + 1,) what a component is measured in by its information: of one error to a thousand, however large the others are."""
        return np.asarray(1.0 / np.sqrt(np.diagonal(self.information)))

    def curvature(self, observed: bool) -> ObservedInformation:
        """In the components: d C / d t_k = C X'V^-1 G_k V^-1 X C."""
        H = self.hessian if observed else self.information
        return ObservedInformation(self.C, self.C @ self.pieces.P @ self.C, H, 2.0 * pseudo_inverse(H, self.units, EMPTY_DIRECTION))


class ComponentsInference(Inference):
    """`Inference` about a fit whose variances are those of `point`."""

    def __init__(self, fit: Fit, point: ComponentsPoint, observed: bool) -> None:
        super().__init__(fit)
        self.point, self.observed = point, observed

    @cached_property
    def curvature(self) -> ObservedInformation:
        return self.point.curvature(self.observed)

    def adjustment(self, information: str, linear: bool) -> KenwardRoger:
        if not self.point.model.restricted:
            return super().adjustment(information, linear)  # which refuses it
        return kenward_roger(self.point.pieces, self.curvature, information, True, self.point.units)

    def covariance(self, choice: InferenceOptions) -> Array:
        if choice.vcov == "asymptotic":
            return self.point.C
        return self.adjustment(choice.information, linear=True).adjusted

    def of(self, covariance: Array, degrees: Degrees, scaled: bool) -> FixedEffects:
        return replace(super().of(covariance, degrees, scaled), alpha=self.point.alpha)


def linear_model(fit: Fit, Z: Sequence[Array]) -> LinearVarianceModel:
    """The model of a fit with the columns Z (n, q_k) of each component; in the units of the response, X on standardized columns."""
    design, c = fit.design, fit.problem.standardization
    if design.nobs > MOST_ROWS:
        what = f"variances without a bound take a dense matrix of {design.nobs:,} rows"
        raise SizeError(what, "METHOD=, NOBOUND", f"up to {MOST_ROWS:,} rows; METHOD=REML without NOBOUND takes any number")
    whole = slice(0, design.nobs)
    root = np.ones(design.nobs) if design.weights is None else np.sqrt(np.asarray(design.weights) * design.weight_scale)
    X = c.Xy(design, whole)[:, :-1] * root[:, None]
    y = (design.y if design.offset is None else design.y - design.offset) * root
    constant = -2.0 * float(np.log(root).sum()) + (c.logdet_X if fit.restricted else 0.0)
    return LinearVarianceModel(X, y, tuple(z * root[:, None] for z in Z), fit.restricted, constant)
