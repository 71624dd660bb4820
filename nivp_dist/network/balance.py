"""Scales of the outputs of a system, in which least squares weigh its equations alike.

The residual of a system sums squares of different physical quantities. For a wave written as (u, w)_t = (w, c lap u) an
error of size e and wavenumber k in u_t = w contributes e, but changes the other equation by c k^2 e later on. Least
squares put the misfit where it contributes least, and high wavenumbers grow without bound (measured: a relative error
of 4e-4 becomes 2e-2 within t = 0.02). With scales s_u / s_w = sqrt(c) k both couplings are of one size, and the sum of
squares is the wave's energy.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.network.wavenumbers import root_mean_square_wavenumber
from nivp_dist.problems.nonlocal_terms import further_arguments

PROBES = 64  # points at which the couplings are measured: their root mean square is right to about a tenth
HARMONICS = 2.0  # a network represents wavenumbers up to about this many times the embedding's highest
# The energy spectrum of a Gaussian pulse is 2e-3 of its peak at this many RMS wavenumbers of an axis, and falls fast.
# Waves beyond the balanced wavenumber grow: with half of it wave_3d was lost at t = 0.17, with all of it kept.
REACH = 3.5
SWEEPS = 30  # of Osborne's iteration: for two outputs one is exact, for more it converges linearly


def output_scales(problem, wavenumber: float, t_start: float = 0.0, norm: str = "field") -> np.ndarray:
    """Scales s (m,), the smallest of which is one: in terms of s_k u_k the problem's right-hand side L is balanced.

    It is balanced for perturbations of the highest wavenumber that the network can represent or that the initial
    condition has: HARMONICS times that of the embedding, or REACH times the RMS wavenumber of u0. With
    norm = "energy" perturbations do not grow, whatever their wavenumber; the RMS wavenumber of u0 then takes the place
    of REACH times it, so that fits and error norms give u and u_t the weights that they have in the solution.

    Args:
        wavenumber: the embedding's highest, in the network's coordinates, [-1, 1] along bounded axes.
        t_start: the time of the initial condition. norm: solver.norm.
    """
    reach = REACH if norm == "field" else 1.0
    if problem.outputs == 1:
        return np.ones(1)
    highest = max(HARMONICS * wavenumber, reach * root_mean_square_wavenumber(problem))
    return balance(couplings(problem, highest, t_start))


def couplings(problem, wavenumber: float, t_start: float = 0.0) -> np.ndarray:
    """B (m, m): B_kl is the RMS response of L_k, linearised at u0 and t_start, to a wave of unit RMS in output l."""
    domain, rng = problem.domain, np.random.default_rng(0)
    centre, scale = domain.centre, domain.scale
    xi = domain.normalised().sample(rng, PROBES)
    phases, integrals = rng.uniform(0, 2 * np.pi, PROBES), further_arguments(problem, problem.initial, t_start)

    def response(output, point, phase):
        def perturbed(size):
            def u(x):
                wave = jnp.sqrt(2.0) * jnp.cos(jnp.sum(wavenumber * (x - centre) / scale) + phase)
                return problem.initial(x).at[output].add(size * wave)

            # The integrals are those of u0: a wave of high wavenumber adds next to nothing to them.
            return problem.rhs(u, point, t_start, *integrals)

        return jax.jvp(perturbed, (0.0,), (1.0,))[1]

    at_points = jax.jit(jax.vmap(jax.vmap(response, (None, 0, 0)), (0, None, None)))
    responses = np.asarray(at_points(jnp.arange(problem.outputs), centre + scale * xi, phases), np.float64)
    return np.sqrt(np.mean(responses**2, axis=1)).T


def balance(matrix: np.ndarray) -> np.ndarray:
    """Scales s (m,), the smallest of which is one, for a matrix B (m, m).

    Row and column k of s_k B_kl / s_l have equal norms off the diagonal, for every k, by Osborne's iteration (Parlett
    and Reinsch 1969) without their rounding to powers of two. An output that acts on no other, or that no other acts
    on, keeps its scale.
    """
    coupling = matrix - np.diag(np.diagonal(matrix))
    scales = np.ones(len(matrix))
    for _ in range(SWEEPS):
        for k in range(len(matrix)):
            row = np.linalg.norm(scales[k] * coupling[k] / scales)
            column = np.linalg.norm(scales * coupling[:, k] / scales[k])
            if row > 0 and column > 0:
                scales[k] *= np.sqrt(column / row)
    return scales / scales.min()
