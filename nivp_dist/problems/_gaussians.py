"""Gaussians that several problems share: the pulse, mixtures, and the moments of linear SDEs.

Functions with an argument ``xp`` work on numpy arrays (``xp=numpy``) and on jax arrays of any float type
(``xp=jax.numpy``); the dtype of x is kept.
"""

import numpy as np
from scipy.integrate import solve_ivp

PULSE_WIDTH = 0.05
PULSE_REACH = 7.0  # in widths; beyond it the pulse is below 3e-11 of its peak


def pulse(x, width, xp):
    """exp(-|x|^2 / (2 s^2)) / (60 pi s^2) at x (..., d): (...), the initial data of the box problems.

    The constant is that of two dimensions in any d (Neural IVP, arXiv 2304.14994). At a wall of [-1, 1]^d and
    s = 0.05 the value is e^-200 of the peak, so that it agrees with zero Dirichlet data to rounding.
    """
    return xp.exp(-xp.sum(x**2, axis=-1) / (2 * width**2)) / (60 * np.pi * width**2)


def mixture_density(x, weights, means, covariances, xp):
    """sum_k w_k N(x; m_k, S_k) at x (..., d): (...), for weights (K,), means (K, d), covariances (K, d, d)."""
    means, covariances = np.asarray(means, np.float64), np.asarray(covariances, np.float64)
    total = 0.0
    for weight, mean, covariance in zip(np.asarray(weights, np.float64), means, covariances):
        factor = np.linalg.cholesky(covariance)
        whitening = np.linalg.inv(factor)
        # Plain Python floats and arrays of x's dtype: a float32 x must not be promoted.
        constant = float(np.log(weight) - np.sum(np.log(np.diag(factor))) - len(mean) / 2 * np.log(2 * np.pi))
        white = (x - xp.asarray(mean, dtype=x.dtype)) @ xp.asarray(whitening.T, dtype=x.dtype)
        total = total + xp.exp(constant - xp.sum(white**2, axis=-1) / 2)
    return total


def mixture_moments(weights, means, covariances):
    """Mass (), mean (d,) and covariance (d, d) of a Gaussian mixture."""
    weights, means, covariances = (np.asarray(array, np.float64) for array in (weights, means, covariances))
    mass = weights.sum()
    mean = weights @ means / mass
    apart = means - mean
    covariance = np.einsum("k,kij->ij", weights, covariances + apart[:, :, None] * apart[:, None, :]) / mass
    return mass, mean, covariance


def linear_transition(drift, forcing, diffusion, t, rtol=1e-12, atol=1e-14):
    """The transition of dx = (A x + b(s)) ds + B dW from time 0 to t: x_t | y ~ N(E y + p, Sigma).

    Args:
        drift: A (d, d).
        forcing: b, a function of time that returns (d,).
        diffusion: B B^T (d, d).
        t: time, at least 0.

    Returns:
        E (d, d), p (d,), Sigma (d, d), from E' = A E, p' = A p + b, Sigma' = A Sigma + Sigma A^T + B B^T by
        Dormand-Prince 8(5,3). Formulas with matrix exponentials would subtract numbers of the size of e^(|A| t).

    Raises RuntimeError: the integration did not reach t.
    """
    d = len(drift)
    start = np.concatenate([np.eye(d).ravel(), np.zeros(d), np.zeros(d * d)])

    def unpack(state):
        return state[: d * d].reshape(d, d), state[d * d : d * d + d], state[d * d + d :].reshape(d, d)

    def slope(time, state):
        flow, shift, covariance = unpack(state)
        spread = drift @ covariance
        return np.concatenate(
            [(drift @ flow).ravel(), drift @ shift + np.asarray(forcing(time)), (spread + spread.T + diffusion).ravel()]
        )

    if t == 0:
        return unpack(start)
    solution = solve_ivp(slope, (0.0, float(t)), start, method="DOP853", rtol=rtol, atol=atol, t_eval=[float(t)])
    if not solution.success:
        raise RuntimeError(f"the moments of the linear SDE could not be integrated to t = {t}: {solution.message}")
    return unpack(solution.y[:, -1])


def move_mixture(mixture, transition):
    """The mixture (weights, means, covariances) after a linear transition (E, p, Sigma)."""
    weights, means, covariances = mixture
    flow, shift, spread = transition
    return weights, means @ flow.T + shift, flow @ covariances @ flow.T + spread
