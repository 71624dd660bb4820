"""Units for the outputs of a system, in which no equation is sacrificed to another.

The residual of a system sums the squares of unlike things. For a wave written as (u, w)_t = (w, c lap u) an error
of size e and wavenumber k in u_t = w counts as e, and then costs c k^2 e in the other equation: least squares
shift the misfit to where it is cheap, and high wavenumbers grow without bound (measured: a relative error of
4e-4 becomes 2e-2 within t = 0.02). In units with s_u / s_w = sqrt(c) k both couplings are alike, and the sum of
squares is the wave's energy.
"""

import jax
import jax.numpy as jnp
import numpy as np

PROBES = 64  # points at which the couplings are measured
HARMONICS = 2.0  # wavenumbers up to this many times the embedding's highest are in the network's reach
SWEEPS = 30


def output_scales(problem, wavenumber: float) -> np.ndarray:
    """s (m,), the smallest one: L in terms of s_k u_k is balanced for perturbations of that wavenumber.

    Args:
        wavenumber: the embedding's highest, in the coordinates that map the domain to [-1, 1]^d.
    """
    if problem.outputs == 1:
        return np.ones(1)
    return balance(couplings(problem, HARMONICS * wavenumber))


def couplings(problem, wavenumber: float) -> np.ndarray:
    """B (m, m): the RMS response of L_k, linearised at u0, to a wave of unit RMS in output l."""
    domain, rng = problem.domain, np.random.default_rng(0)
    centre, scale, shape = domain.centre, domain.scale, (PROBES, domain.dimension)
    xi = rng.uniform(-1, 1, shape) if domain.bounded else rng.standard_normal(shape)
    phases = rng.uniform(0, 2 * np.pi, PROBES)

    def response(output, point, phase):
        def perturbed(size):
            def u(x):
                wave = jnp.sqrt(2.0) * jnp.cos(jnp.sum(wavenumber * (x - centre) / scale) + phase)
                return problem.initial(x).at[output].add(size * wave)

            return problem.rhs(u, point, 0.0)

        return jax.jvp(perturbed, (0.0,), (1.0,))[1]

    at_points = jax.jit(jax.vmap(jax.vmap(response, (None, 0, 0)), (0, None, None)))
    responses = np.asarray(at_points(jnp.arange(problem.outputs), centre + scale * xi, phases), np.float64)
    return np.sqrt(np.mean(responses**2, axis=1)).T


def balance(matrix: np.ndarray) -> np.ndarray:
    """s (m,), the smallest one, so that rows and columns of s_k B_kl / s_l are alike off the diagonal.

    Osborne's iteration (Parlett and Reinsch 1969), without their rounding to powers of two. An output that
    acts on no other, or that no other acts on, has nothing to be balanced against.
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
