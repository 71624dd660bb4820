"""Numbers that describe the conditioning of (M + mu I) v = F, with bounds of their errors.

They are made of a decomposition of M, or of the coefficients of conjugate gradients, which are Gauss quadratures
(``galerkin.spectrum``). A number that is not known to a useful accuracy is left out.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

EPS = float(np.finfo(np.float64).eps)
CONVERGED = 1e-26  # of z . r: what conjugate gradients do after that is rounding
USEFUL = 0.5  # an error of more than this share of a number makes it useless
BELOW = 0.999  # keeps the prescribed node of a Gauss-Radau rule off the least eigenvalue


class Solver(NamedTuple):
    """The solver of a system.

    Attributes:
        size: p. mu: absolute. layers: their names.
        least: no eigenvalue of the preconditioned system is smaller.
        by_samples: whether it is by conjugate gradients for the samples.
        most_iterations: of conjugate gradients, from the condition numbers of the preconditioned system and of the
            system; None with direct solves.
    """

    size: int
    mu: float
    layers: list[str]
    least: float
    by_samples: bool
    most_iterations: Callable[[float, float], int] | None


class Bracket(NamedTuple):
    """A number between two bounds."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def error(self) -> float:
        return (self.high - self.low) / 2

    def named(self, name: str, statistical: float = 0.0) -> dict[str, float]:
        """The middle and the error by their names; nothing if the error is too large."""
        error = self.error + statistical
        if not (math.isfinite(error) and error <= USEFUL * abs(self.middle)):
            return {}
        return {name: self.middle, f"{name}_error": error}


class Rule(NamedTuple):
    """A Gauss quadrature of the spectral measure of a vector b in a matrix A: int f = |b|^2 sum weights f(nodes).

    Attributes:
        nodes: (k,), ascending. weights: (k,), of sum one. square: |b|^2, in the norm of the inverse preconditioner.
        residuals: (k,): an eigenvalue of A lies no further from each node. diagonal (k,), off_diagonal (k,): of the
            Jacobi matrix, the last entry of the second being the one beyond it.
    """

    nodes: np.ndarray
    weights: np.ndarray
    square: float
    residuals: np.ndarray
    diagonal: np.ndarray
    off_diagonal: np.ndarray

    def inverse(self, lowest: float) -> Bracket:
        """b . A^-1 b, A having no eigenvalue below `lowest`: by the rules of Gauss and of Gauss and Radau."""
        low = self.square * float(np.sum(self.weights / self.nodes))
        node, last = BELOW * lowest, self.off_diagonal[-1]
        k = len(self.diagonal)
        matrix = np.pad(_jacobi(self.diagonal, self.off_diagonal), (0, 1))
        matrix[k, k - 1] = matrix[k - 1, k] = last
        unit = np.eye(k)[-1]
        matrix[k, k] = node + last**2 * np.linalg.solve(matrix[:k, :k] - node * np.eye(k), unit)[-1]
        if not np.isfinite(matrix).all():
            return Bracket(low, math.inf)
        nodes, vectors = np.linalg.eigh(matrix)
        return Bracket(low, max(low, self.square * float(np.sum(vectors[0] ** 2 / nodes))))

    def below(self, x: float) -> Bracket:
        """The part of |b|^2 in eigenvectors whose eigenvalues are below x (Chebyshev, Markov and Stieltjes)."""
        sums = np.concatenate([[0.0], np.cumsum(self.weights)])
        sums[-1], k = 1.0, int(np.searchsorted(self.nodes, x))
        return Bracket(float(sums[max(k - 1, 0)]), float(sums[min(k + 1, len(self.nodes))]))


def numbers(measured: Any, solver: Solver) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl, without those that are not known (guide: files and formats).

    measured: ``galerkin.spectrum.Measured``.
    """
    try:
        return _numbers(measured, solver)
    except np.linalg.LinAlgError:  # a decomposition has not converged: nothing is known, and the run goes on
        return {}


def _numbers(measured: Any, solver: Solver) -> dict[str, float]:
    found: dict[str, float] = {}
    if measured.eigen is not None:
        found |= _of_decomposition(measured.eigen, solver)
    if measured.rhs is not None and (rule := _rule(measured.rhs)) is not None:
        found |= _of_rhs(rule, solver)
    if measured.probes is not None:
        found |= _of_probes(measured.probes, solver, found)
    return found


def _of_decomposition(eigen, solver: Solver) -> dict[str, float]:
    values, mu = np.asarray(eigen.values), solver.mu
    largest = float(values[-1])
    if not np.isfinite(values).all():
        return {}
    rounding = len(values) * EPS * largest  # of an eigenvalue, as numpy.linalg.matrix_rank assumes it
    least = max(float(values[0]), 0.0)
    found = {"lambda_max": largest}
    if values[0] > rounding:
        found["lambda_min"] = least
    if rounding <= 0.1 * (least + mu):
        found["condition"] = (largest + mu) / (least + mu)
    if rounding > 0.1 * mu:
        return found
    values = np.maximum(values, 0.0)
    filtered = mu / (values + mu)
    found["effective_dimension"] = float(len(values) - np.sum(filtered))
    found["numerical_rank"] = int(np.sum(values > mu))
    if np.isfinite(eigen.rhs).all():
        found["rhs_below_mu"] = float(np.sum(eigen.rhs[values <= mu]))
    shares = np.asarray(eigen.layers) @ filtered / np.sum(filtered)
    return found | _by_layer(shares, solver)


def _of_rhs(rule: Rule, solver: Solver) -> dict[str, float]:
    """The largest eigenvalue, and the share of F below mu, whose bounds are useful even if the lower one is zero."""
    share = rule.below(2 * solver.mu)  # of M + mu I
    found = {"rhs_below_mu": share.middle, "rhs_below_mu_error": share.error}
    if rule.residuals[-1] <= 1e-3 * rule.nodes[-1]:
        found["lambda_max"] = float(rule.nodes[-1]) - solver.mu
    return found


def _of_probes(probes, solver: Solver, known: dict[str, float]) -> dict[str, float]:
    """What the probes say beyond what is known: the preconditioned system; without a decomposition the others too."""
    mu, found = solver.mu, dict[str, float]()
    rules = [_rule(type(probes.coefficients)(*each)) for each in zip(*map(np.asarray, probes.coefficients))]
    rules = [rule for rule in rules if rule is not None]
    largest = known.get("lambda_max")
    if not rules or largest is None:
        return {}
    if "effective_dimension" not in known:
        least = max(float(np.min(probes.quotient)), mu)
        found |= Bracket((largest + mu) / least, (largest + mu) / mu).named("condition")
        found |= _dimension_and_layers(probes, [rule.inverse(solver.least) for rule in rules], solver)
    if solver.most_iterations is not None:
        top = max(rules, key=lambda rule: rule.nodes[-1])
        low = top.nodes[-1] / min(rule.nodes[0] for rule in rules)
        condition = Bracket(float(low), float(max(low, (top.nodes[-1] + top.residuals[-1]) / solver.least)))
        if named := condition.named("condition_preconditioned"):
            bound = solver.most_iterations(condition.high, (largest + mu) / mu)
            found |= named | {"cg_iterations_bound": bound}
    return found


def _dimension_and_layers(probes, inverses: list[Bracket], solver: Solver) -> dict[str, float]:
    """The effective dimension p - tr mu (M + mu)^-1, and the layers' parts of that trace, as means over the probes.

    The variance of z . B z is at most 2 |B|_F^2 without the diagonal (Hutchinson 1990), and so at most twice the trace
    of mu (M + mu)^-1, and twice that of M (M + mu)^-1.
    """
    p, count = solver.size, len(inverses)
    bracket = Bracket(*(float(np.mean([each[end] for each in inverses])) for end in (0, 1)))
    if not solver.by_samples:
        bracket = Bracket(p - solver.mu * bracket.high, p - solver.mu * bracket.low)
    rest = p - bracket.middle
    found = bracket.named("effective_dimension", math.sqrt(2 * max(min(bracket.middle, rest), 0.0) / count))
    error = math.sqrt(2 / (count * rest)) if rest > 0 else math.inf
    if found and error <= USEFUL:
        filtered = np.maximum(np.mean(probes.filtered, axis=0), 0.0)
        found |= _by_layer(filtered / np.sum(filtered), solver) | {"small_share_error": error}
    return found


def _by_layer(shares: np.ndarray, solver: Solver) -> dict[str, float]:
    return {f"small_share_{name}": float(share) for name, share in zip(solver.layers, shares)}


def _rule(coefficients) -> Rule | None:
    """The quadrature of the coefficients before conjugate gradients had converged; None where b is zero or not finite.

    The Jacobi matrix is that of Golub and Van Loan, sec. 11.3.5.
    """
    alpha, beta, z_r = (np.asarray(each, np.float64) for each in coefficients)
    if not (np.isfinite([alpha, beta, z_r]).all() and z_r[0] > 0 and alpha[0] > 0):
        return None
    over = (z_r <= CONVERGED * z_r[0]) | (alpha <= 0)
    count = int(np.argmax(over)) if over.any() else len(alpha)
    alpha, beta = alpha[:count], beta[:count]
    diagonal = 1 / alpha
    diagonal[1:] += beta[:-1] / alpha[:-1]
    off_diagonal = np.sqrt(np.maximum(beta, 0.0)) / alpha
    if over.any():
        off_diagonal[-1] = 0.0
    nodes, vectors = np.linalg.eigh(_jacobi(diagonal, off_diagonal))
    residuals = np.abs(off_diagonal[-1] * vectors[-1])
    return Rule(nodes, vectors[0] ** 2, float(z_r[0]), residuals, diagonal, off_diagonal)


def _jacobi(diagonal: np.ndarray, off_diagonal: np.ndarray) -> np.ndarray:
    return np.diag(diagonal) + np.diag(off_diagonal[:-1], 1) + np.diag(off_diagonal[:-1], -1)
