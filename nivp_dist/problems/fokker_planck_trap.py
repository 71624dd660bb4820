"""Interacting particles in a harmonic trap: a Fokker-Planck equation in any dimension, with an exact solution."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from scipy.special import wofz

from nivp_dist.problems import Box, Dimension, Positive, Problem, derivatives


class FokkerPlanckTrap(Problem):
    """Fokker-Planck equation of interacting particles in a harmonic trap.

    Equation:    u_t = D lap u - div(h u),  h = (a - x) + (alpha / d) (sum(x) - d x)
    Domain:      [-1, 1]^d, u = 0 on the walls
    Initial:     u0 = (3/4)^d prod_i (1 - x_i^2), of mass one
    Parameters:  d = dimension, a = drift_target, alpha, D = diffusion
    Source:      Neural IVP (Finzi et al. 2023, arXiv 2304.14994): a = 0.2, alpha = 1/4, D = 0.01
    Reference:   the density of the same process on the whole space, to 1e-10 of its peak in any d (``trap_density``)

    The reference leaves out the absorbing walls. The drift points inwards at all of them, so that they act in a layer
    of width D / |h| = 1e-2 only, and only while the tail of u0 is there: each coordinate loses 3.6e-4 of the mass, most
    of it before t = 0.1. With alpha = 0 the solution with walls is a product too, and the relative L2 distance of the
    two, by Crank-Nicolson in one dimension, is at t = 0.05 / 0.25 / 1 / 2

        d = 1   8e-4    7e-4    4e-4    3e-4
        d = 5   1.9e-3  1.5e-3  1.0e-3  1.4e-3
        d = 20  3.7e-3  3.0e-3  2.7e-3  5.2e-3

    Errors below these numbers cannot be measured with this reference.
    """

    summary: ClassVar[str] = "Fokker-Planck equation of a harmonic trap with coupling, box [-1, 1]^d"
    reference_kind: ClassVar[str] = "exact whole-space density by one-dimensional quadrature; mass and moments"
    density: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    dimension: Dimension = 5
    drift_target: float = 0.2
    alpha: float = 0.25
    diffusion: Positive = 0.01

    @property
    def domain(self):
        return Box(self.dimension)

    def initial(self, x):
        return jnp.prod(0.75 * (1 - x**2))

    def rhs(self, u, x, t):
        drift = self.drift_target - x + self.alpha * (jnp.mean(x) - x)
        drift_divergence = -self.dimension - self.alpha * (self.dimension - 1)
        value, slope, curvature = derivatives(u, x)
        return self.diffusion * curvature - drift @ slope - drift_divergence * value

    def reference(self, x, t):
        return trap_density(x, t, self.drift_target, self.alpha, self.diffusion)

    def statistics(self, t):
        """Mass (), mean (d,) and covariance (d, d) of the whole-space process: u0 has mean 0, variance 1/5."""
        d = self.dimension
        mean_part = np.full((d, d), 1 / d)
        along, across = (
            np.exp(-2 * rate * t) * (0.2 + self.diffusion * _growth(rate, t)) for rate in (1.0, 1 + self.alpha)
        )
        covariance = across * (np.eye(d) - mean_part) + along * mean_part
        return {"mass": np.array(1.0), "mean": np.full(d, self.drift_target * -np.expm1(-t)), "covariance": covariance}


REACH = 8.3  # in standard deviations; beyond it a Gaussian is below 1e-15 of its peak


def trap_density(x, t, target, alpha, diffusion, chunk=20_000):
    """The density at time t and points x (n, d) of the trap's process on R^d, started from u0 extended by zero.

    The drift is A x + a 1 with A = -I on the diagonal direction and -(1 + alpha) I across it. With E = exp(A t) and
    m = a (1 - e^-t) 1 the transition density, as a function of the start y, is N(y; z, S) / det E, where
    z = E^-1 (x - m), S = s2^2 (I - P) + s1^2 P, P = 1 1^T / d. Since S differs from s2^2 I by rank one,

        N(y; z, S) = E_xi prod_i N(y_i; z_i + sigma xi, s2^2),    xi ~ N(0, 1), sigma^2 = (s1^2 - s2^2) / d

    (Hubbard-Stratonovich; sigma is imaginary for alpha > 0, and N is continued analytically). So the density is
    one integral over xi of a product over i of one-dimensional integrals. The trapezoidal rule in xi converges
    geometrically; its spacing and range below put the error at 1e-15 of the peak, and rounding leaves 1e-11.
    """
    x = np.asarray(x, np.float64)
    d = x.shape[1]
    if t == 0:
        return np.prod(0.75 * np.maximum(1 - x**2, 0), axis=1)
    centred = x - target * -np.expm1(-t)
    middle = centred.mean(axis=1, keepdims=True)
    z = np.exp((1 + alpha) * t) * (centred - middle) + np.exp(t) * middle
    s1, s2 = (np.sqrt(diffusion * _growth(rate, t)) for rate in (1.0, 1 + alpha))
    s2 = s1 if d == 1 else s2  # in one dimension there is no direction across the diagonal

    sigma = np.sqrt(complex(s1**2 - s2**2) / d)
    nodes, weights = _shift_quadrature(s1, s2, d)
    jacobian = 0.75 * np.exp((1 + (d - 1) * (1 + alpha)) * t / d)  # u0's constant and 1 / det E, a factor a coordinate
    density = np.zeros(len(x))
    rows = max(1, chunk // d)
    for begin in range(0, len(x), rows):
        part = z[begin : begin + rows]
        for node, weight in zip(nodes, weights):
            factors = jacobian * smoothed_parabola(part, sigma * node, s2)
            density[begin : begin + rows] += weight * np.prod(factors, axis=1).real
    if s2 > s1:
        # Out there the density vanishes by the coupling alone, but the periodic images of the trapezoidal rule do not.
        density[np.abs(z.sum(axis=1)) > d + _coupling_reach(s1, s2, d)] = 0.0
    return np.maximum(density, 0.0)


def _growth(rate, t):
    """int_0^t 2 exp(2 rate s) ds: variance per unit diffusion, in the coordinates of the start."""
    return 2 * t if rate == 0 else np.expm1(2 * rate * t) / rate


def _coupling_reach(s1, s2, d):
    """Beyond this |sum(y - z)| the rank-one factor exp(-(1/s1^2 - 1/s2^2) sum(y - z)^2 / (2 d)) is below 1e-15."""
    return REACH * np.sqrt(d / (1 / s1**2 - 1 / s2**2))


def _shift_quadrature(s1, s2, d):
    """Nodes and weights over xi; ``smoothed_parabola`` carries the growth of imaginary shifts, weights the rest."""
    if s1 == s2:
        return np.zeros(1), np.ones(1)
    spacing = 2 * np.pi / REACH * min(1.0, s2 / s1)
    top = REACH * max(1.0, s2 / s1)
    if s2 > s1:
        # xi is then a frequency, conjugate to sum(y - z): images must be further apart than the support, or than
        # the Gaussians reach, whichever comes first.
        period = 2 * d + 2 * _coupling_reach(s1, s2, d)
        spacing = max(spacing, 2 * np.pi * s2**2 / period / np.sqrt((s2**2 - s1**2) / d))
    half = spacing * np.arange(1, int(np.ceil(top / spacing)) + 1)
    nodes = np.concatenate([[0.0], half]) if s2 > s1 else np.concatenate([-half[::-1], [0.0], half])
    weights = spacing / np.sqrt(2 * np.pi) * np.exp(-(nodes**2) / 2 * min(1.0, (s1 / s2) ** 2))
    if s2 > s1:
        weights[1:] *= 2  # the integrand at -xi is the complex conjugate, and the real part is taken
    return nodes, weights


def smoothed_parabola(z, shift, s, closed_form_below=1.0):
    """e^g int_{-1}^{1} (1 - y^2) N(y; z + shift, s^2) dy, at z of any shape; shift real or imaginary, complex result.

    g = min(shift^2, 0) / (2 s^2) takes out the growth with an imaginary shift. The closed form, by the Faddeeva
    function, loses digits as s^2; wide Gaussians are smooth on [-1, 1] and are integrated by Gauss-Legendre.
    """
    square = (shift**2).real / (2 * s**2)

    def scaled_gaussian(distance):
        # exp(g - (distance - shift)^2 / (2 s^2)), written so that an imaginary shift's square never has to cancel
        return np.exp(-(distance**2) / (2 * s**2) + distance * (shift / s**2) - max(square, 0.0))

    if s >= closed_form_below:
        y, weights = np.polynomial.legendre.leggauss(int(24 + abs(shift) / s**2 + REACH / s))
        return scaled_gaussian(y - z[..., None]) @ (weights * (1 - y**2)) / (np.sqrt(2 * np.pi) * s)
    centre = z + shift
    sides, tails, edges = 0.0, 0.0, 0.0
    for sign in (1, -1):
        q = (1 - sign * centre) / (np.sqrt(2) * s)
        edge = scaled_gaussian(sign - z)
        # erf(q) = side (1 - e^(-q^2) w(i side q)) with side the sign of Re q, where w is bounded by 1.
        side = np.where(q.real >= 0, 1.0, -1.0)
        # Sides and tails are summed separately: outside [-1, 1] the sides cancel exactly and the tails remain.
        sides = sides + side / 2
        tails = tails + side / 2 * edge * wofz(1j * side * q)
        edges = edges + (1 + sign * centre) * edge
    mass = sides * np.exp(min(square, 0.0)) - tails
    return (1 - centre**2 - s**2) * mass + s / np.sqrt(2 * np.pi) * edges
