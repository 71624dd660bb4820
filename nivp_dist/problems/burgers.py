"""Burgers' equation: in one dimension, periodic, and a travelling front in many."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf, expit

from nivp_dist.problems import Box, Dimension, OpenBox, PeriodicBox, Positive, Problem, derivatives


class Burgers(Problem):
    """Burgers' equation in one dimension: a pulse that steepens into a shock of width 4 nu / height.

    Equation:    u_t = nu u_xx - u u_x
    Domain:      [-1, 1), periodic
    Initial:     u0 = (1 - x^2) exp(-30 (x + 1/2)^2); its derivative jumps by 1.1e-3 at the ends of the period
    Parameters:  nu = viscosity
    Source:      Randomized Sparse Neural Galerkin schemes (Berman, Peherstorfer 2023, arXiv 2310.04867, sec. 4.1):
                 nu = 1e-3, to t = 4. Its errors are relative L2 over space and time; the best is 6.07e-5.
    Reference:   Cole and Hopf's solution by quadrature, to 1e-12 (``cole_hopf``)
    """

    summary: ClassVar[str] = "Burgers' equation in one dimension, a pulse that becomes a shock, periodic"
    reference_kind: ClassVar[str] = "exact (Cole-Hopf) by quadrature, to 1e-12"

    viscosity: Positive = 1e-3

    @property
    def domain(self):
        return PeriodicBox(1, -1.0, 1.0)

    def initial(self, x):
        return pulse(x[0], jnp)

    def rhs(self, u, x, t):
        value, slope, curvature = derivatives(u, x)
        return self.viscosity * curvature - value * slope[0]

    def reference(self, x, t):
        return pulse(x[:, 0], np) if t == 0 else cole_hopf(x[:, 0], t, self.viscosity)


class BurgersFront(Problem):
    """Burgers' equation on R^d: a front that travels along the diagonal, seen in a box.

    Equation:    u_t = nu lap u - u (u_x1 + ... + u_xd)
    Domain:      [-1, 1]^d, a window without boundary data. Bounded solutions on R^d are unique; in the box alone they
                 are not, see ``OpenBox``. Errors are measured in the whole box.
    Solution:    u = 1 / (1 + exp((s - s0 - d t / 2) / (2 nu))), s = x_1 + ... + x_d. A function of s alone satisfies
                 U_t = d (nu U_ss - U U_s), Burgers' equation in the time d t, whose front from 1 to 0 has speed 1/2.
                 With the default s0 = -1 the middle of the front is at s = 1 at t = 4 / d.
    Parameters:  d = dimension, nu = viscosity, s0 = start
    Reference:   exact
    """

    summary: ClassVar[str] = "Burgers' equation with a front along the diagonal, in a window [-1, 1]^d of R^d"
    reference_kind: ClassVar[str] = "exact (travelling front)"

    dimension: Dimension = 5
    viscosity: Positive = 0.1
    start: float = -1.0

    @property
    def domain(self):
        return OpenBox(self.dimension)

    def initial(self, x):
        return jax.nn.sigmoid((self.start - jnp.sum(x)) / (2 * self.viscosity))

    def rhs(self, u, x, t):
        value, slope, curvature = derivatives(u, x)
        return self.viscosity * curvature - value * jnp.sum(slope)

    def reference(self, x, t):
        return expit((self.start + self.dimension * t / 2 - x.sum(axis=1)) / (2 * self.viscosity))


class BurgersFrontWalls(BurgersFront):
    """The front of ``BurgersFront`` in a box on whose walls u is given: Dirichlet data that depend on time.

    Equation:    u_t = nu lap u - u (u_x1 + ... + u_xd)
    Domain:      [-1, 1]^d, u = g on the walls, the values of the solution there
    Parameters:  d = dimension, nu = viscosity, s0 = start
    Reference:   exact
    """

    summary: ClassVar[str] = "Burgers' equation with a front along the diagonal of [-1, 1]^d, u given on the walls"

    dimension: Dimension = 2

    @property
    def domain(self):
        return Box(self.dimension)

    def wall_data(self, x, t, axis, end):
        return jax.nn.sigmoid((self.start + self.dimension * t / 2 - jnp.sum(x)) / (2 * self.viscosity))


STEEPNESS, CENTRE = 30.0, -0.5
HIGHEST, STEEPEST = 0.8, 5.0  # bounds of u0 and |u0'|
EXPONENT = 38.0  # e^-38 = 3e-17 is below rounding
PANEL, ORDER = 4.0, 20  # Gauss-Legendre: a Gaussian is integrated to 1e-15 over panels of 4 widths


def pulse(x, xp):
    """u0 at x of any shape, on [-1, 1]."""
    return (1 - x**2) * xp.exp(-STEEPNESS * (x - CENTRE) ** 2)


def cole_hopf(x, t, viscosity, chunk=256):
    """u at points x (n,) and time t > 0.

    u is the mean of u0(y) under weights exp(-G / (2 nu)), G = P(y) + (x - y)^2 / (2 t), P' = u0 (Hopf 1950, after an
    integration by parts that removes a division by t), over the real line, u0 continued periodically. Since
    0 <= u0 <= HIGHEST the weights decay like exp(-z^2 / (4 nu t)) a distance z beyond [x - HIGHEST t, x]. Panels end
    at the kinks of u0.
    """
    reach = np.sqrt(4 * viscosity * t * EXPONENT)
    panel = PANEL * np.sqrt(2 * viscosity / (1 / t + STEEPEST))
    nodes, weights = np.polynomial.legendre.leggauss(ORDER)
    order, u = np.argsort(x), np.empty(len(x))
    for begin in range(0, len(x), chunk):
        part = order[begin : begin + chunk]
        low, high = x[part[0]] - HIGHEST * t - reach, x[part[-1]] + reach
        kinks = np.arange(2 * np.ceil((low + 1) / 2) - 1, high, 2.0)
        ends = np.unique(np.concatenate([np.arange(low, high, panel), kinks, [high]]))
        half = np.diff(ends) / 2
        y = ((ends[:-1] + half)[:, None] + half[:, None] * nodes).ravel()
        period = np.floor((y + 1) / 2)
        inside = y - 2 * period
        exponent = -(_integral(inside) + period * _integral(1.0) + (x[part, None] - y) ** 2 / (2 * t)) / (2 * viscosity)
        density = np.exp(exponent - exponent.max(axis=1, keepdims=True)) * (half[:, None] * weights).ravel()
        u[part] = density @ pulse(inside, np) / density.sum(axis=1)
    return u


def _integral(x):
    """int_(-1)^x u0, for x in [-1, 1]: with s = x - c and a = 30, 1 - x^2 = 1 - c^2 - 2 c s - s^2."""

    def antiderivative(x):
        s, a, c = x - CENTRE, STEEPNESS, CENTRE
        bell = np.exp(-a * s**2)
        area = np.sqrt(np.pi / a) / 2 * erf(np.sqrt(a) * s)
        return (1 - c**2 - 1 / (2 * a)) * area + (2 * c + s) * bell / (2 * a)

    return antiderivative(x) - antiderivative(-1.0)
