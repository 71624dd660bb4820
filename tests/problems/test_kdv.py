"""The reference of the Korteweg-de Vries equation: exact solitons, half its step, and its own equation."""

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import kdv
from nivp_dist.problems._spectral import PeriodicSolution
from nivp_dist.problems.kdv import LENGTH, KdV

RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(-LENGTH / 2, LENGTH / 2, (200, 1))
SPEEDS = 1.6, 0.7
BOX = [-LENGTH / 2], [LENGTH / 2]


def relative(values, exact):
    return np.linalg.norm(values - exact) / np.linalg.norm(exact)


def with_step(initial, step):
    return PeriodicSolution(initial, *BOX, 0.0, flux=kdv.flux, step=step, dispersion=1.0)


def test_one_soliton_keeps_its_shape():
    """With speed 4 its images are 1e-13 of it at most."""
    solution = with_step(lambda x: kdv.soliton(x[..., 0], 4.0, np), 1 / 1000)
    assert relative(solution(X, 2.0), kdv.soliton(X[:, 0] - 8.0, 4.0, np)) < 1e-7


def two_solitons(x, t, speeds, shifts):
    """u = 2 (log det)'' of Hirota's formula, with the derivatives of the exponentials; x (n,)."""
    k = np.sqrt(speeds)
    terms = [(1.0, 0.0, 0.0)]  # factor, wavenumber, exponent at x = 0
    terms += [(1.0, k[i], -(k[i] ** 3) * t + shifts[i]) for i in (0, 1)]
    both = ((k[0] - k[1]) / (k[0] + k[1])) ** 2
    terms.append((both, k.sum(), -(k**3).sum() * t + sum(shifts)))
    exponentials = [(factor * np.exp(wave * x + exponent), wave) for factor, wave, exponent in terms]
    value, first, second = (sum(e * wave**power for e, wave in exponentials) for power in (0, 1, 2))
    return 2 * (second / value - (first / value) ** 2)


def test_two_solitons_that_pass_each_other():
    """From Hirota's exact solution before they meet to that after it; the images are below 1e-5 of them."""
    speeds, shifts = np.array([4.0, 1.5]), (8.0, 0.0)
    solution = with_step(lambda x: two_solitons(x[..., 0], -0.5, speeds, shifts), 1 / 1000)
    inside = X[np.abs(X[:, 0] - 2) < 8]
    assert relative(solution(inside, 1.5), two_solitons(inside[:, 0], 1.0, speeds, shifts)) < 1e-4


def test_half_the_step_changes_nothing():
    shipped = kdv.solution(*SPEEDS)
    finer = with_step(lambda x: kdv.start(x, *SPEEDS, np), shipped.step / 2)
    assert relative(shipped(X, 2.0), finer(X, 2.0)) < 1e-9


def test_the_reference_satisfies_the_equation_and_starts_at_the_initial_condition():
    """rhs is applied to the Fourier series of the reference; the time derivative is by differences."""
    problem, t, h = KdV(), 1.0, 1e-2
    spectrum, _ = kdv.solution(*SPEEDS).at(t)
    k = 2 * np.pi / LENGTH * np.arange(len(spectrum))
    twice = np.where(k > 0, 2.0, 1.0)
    u = lambda y: jnp.sum(twice * jnp.real(spectrum * jnp.exp(1j * k * (y[0] + LENGTH / 2))))  # noqa: E731
    values = [problem.reference(X, t + step * h) for step in (-2, -1, 1, 2)]
    slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    computed = jax.jit(jax.vmap(lambda y: problem.rhs(u, y, t)))(X)
    np.testing.assert_allclose(computed, slope, atol=1e-5 * np.abs(slope).max())
    np.testing.assert_allclose(problem.reference(X, 0.0), jax.vmap(problem.initial)(X), atol=1e-11)
