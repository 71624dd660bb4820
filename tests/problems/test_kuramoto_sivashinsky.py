"""The reference of the Kuramoto-Sivashinsky equation: another method, half its step, and its own equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from nivp_dist.problems import kuramoto_sivashinsky
from nivp_dist.problems._spectral import PeriodicSolution
from nivp_dist.problems.kuramoto_sivashinsky import KuramotoSivashinsky, start

SHORT, LONG = 8 * np.pi, 32 * np.pi
RANDOM = np.random.default_rng(0)


def relative(values, exact):
    return np.linalg.norm(values - exact) / np.linalg.norm(exact)


def test_against_sixth_order_differences_and_an_implicit_method():
    errors = []
    for n in (96, 192):
        x = SHORT * np.arange(n) / n
        second = differences(n, SHORT / n)
        first = np.zeros((n, n))
        for shift, weight in ((1, 45), (2, -9), (3, 1)):
            first += weight * (np.roll(np.eye(n), shift, axis=1) - np.roll(np.eye(n), -shift, axis=1))
        first /= 60 * SHORT / n
        linear = -second - second @ second
        rhs = lambda _, u: linear @ u - u * (first @ u)  # noqa: E731
        jacobian = lambda _, u: linear - np.diag(first @ u) - u[:, None] * first  # noqa: E731
        begin = start(x[:, None], SHORT, np)
        u = solve_ivp(rhs, (0, 4), begin, method="Radau", jac=jacobian, rtol=1e-8, atol=1e-10, t_eval=[4.0]).y[:, 0]
        errors.append(relative(u, KuramotoSivashinsky(length=SHORT).reference(x[:, None], 4.0)))
    assert errors[1] < 1e-5 and errors[0] / errors[1] > 20


def differences(n, h):
    """The second derivative at n points of a period, of sixth order: (n, n)."""
    row = np.zeros(n)
    row[[0, 1, 2, 3, -1, -2, -3]] = np.array([-490, 270, -27, 2, 270, -27, 2]) / (180 * h**2)
    return np.stack([np.roll(row, i) for i in range(n)])


@pytest.mark.parametrize("length, t", [(SHORT, 4.0), (LONG, 20.0)])
def test_half_the_step_changes_nothing(length, t):
    shipped = kuramoto_sivashinsky.solution(length)
    finer = PeriodicSolution(
        lambda x: start(x, length, np),
        shipped.lower,
        shipped.lower + shipped.length,
        -1.0,
        flux=shipped.flux,
        step=shipped.step / 2,
        hyperdiffusion=1.0,
    )
    x = RANDOM.uniform(0, length, (200, 1))
    assert relative(shipped(x, t), finer(x, t)) < 1e-9


def test_the_reference_satisfies_the_equation_and_starts_at_the_initial_condition():
    """rhs is applied to the Fourier series of the reference; the time derivative is by differences."""
    problem, t, h = KuramotoSivashinsky(length=SHORT), 3.0, 1e-2
    x = RANDOM.uniform(0, SHORT, (50, 1))
    spectrum, _ = kuramoto_sivashinsky.solution(SHORT).at(t)
    k = 2 * np.pi / SHORT * np.arange(len(spectrum))
    twice = np.where(k > 0, 2.0, 1.0)
    u = lambda y: jnp.sum(twice * jnp.real(spectrum * jnp.exp(1j * k * y[0])))  # noqa: E731
    values = [problem.reference(x, t + step * h) for step in (-2, -1, 1, 2)]
    slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    computed = jax.jit(jax.vmap(lambda y: problem.rhs(u, y, t)))(x)
    np.testing.assert_allclose(computed, slope, atol=1e-5 * np.abs(slope).max())
    np.testing.assert_allclose(problem.reference(x, 0.0), jax.vmap(problem.initial)(x), atol=1e-12)
