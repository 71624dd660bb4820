"""Differential operators against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.problems import derivatives, divergence, gradient, laplacian, to_complex, to_pair

X = np.random.default_rng(0).uniform(-1, 1, (7, 3))


def scalar(x):
    return jnp.sin(x[0]) * jnp.exp(2 * x[1]) + x[2] ** 3 * x[0]


def pair(x):
    return jnp.stack([scalar(x), x[0] ** 2 * x[1]])


def exact(x):
    """Gradient and Laplacian of ``scalar``."""
    s, c, e = np.sin(x[0]), np.cos(x[0]), np.exp(2 * x[1])
    return np.array([c * e + x[2] ** 3, 2 * s * e, 3 * x[2] ** 2 * x[0]]), 3 * s * e + 6 * x[2] * x[0]


@pytest.mark.parametrize("x", X[:3], ids=str)
def test_gradient_and_laplacian(x):
    slope, curvature = exact(x)
    np.testing.assert_allclose(gradient(scalar, x), slope, rtol=1e-12)
    np.testing.assert_allclose(laplacian(scalar, jnp.asarray(x)), curvature, rtol=1e-12)


def test_several_components():
    x = X[3]
    slope, curvature = exact(x)
    assert gradient(pair, x).shape == (2, 3) and laplacian(pair, jnp.asarray(x)).shape == (2,)
    np.testing.assert_allclose(gradient(pair, x), [slope, [2 * x[0] * x[1], x[0] ** 2, 0]], rtol=1e-12)
    np.testing.assert_allclose(laplacian(pair, jnp.asarray(x)), [curvature, 2 * x[1]], rtol=1e-12)


def test_divergence_is_the_trace_and_of_a_gradient_the_laplacian():
    x = jnp.asarray(X[4])
    field = lambda x: jnp.stack([x[0] * x[1], jnp.sin(x[1] * x[2]), x[2] ** 2 * x[0]])  # noqa: E731
    np.testing.assert_allclose(divergence(field, x), x[1] + x[2] * np.cos(x[1] * x[2]) + 2 * x[2] * x[0], rtol=1e-12)
    np.testing.assert_allclose(divergence(lambda y: gradient(scalar, y), x), exact(X[4])[1], rtol=1e-12)


def test_float32_is_kept_and_everything_compiles():
    x = jnp.asarray(X[5], jnp.float32)
    values = jax.jit(lambda x: (gradient(scalar, x), laplacian(scalar, x), divergence(lambda y: y * scalar(y), x)))(x)
    assert all(value.dtype == jnp.float32 for value in values)
    np.testing.assert_allclose(values[0], exact(X[5])[0], rtol=1e-5)
    np.testing.assert_allclose(values[1], exact(X[5])[1], rtol=1e-5)


def test_one_dimension():
    x = jnp.array([0.3])
    np.testing.assert_allclose(laplacian(lambda x: jnp.sin(2 * x[0]), x), -4 * np.sin(0.6), rtol=1e-13)


def test_pairs_are_complex_numbers():
    """psi = exp(i k . x), of which the derivatives are known."""
    k, x = np.array([1.0, -2.0, 0.5]), X[0]
    psi = np.exp(1j * k @ x)
    value, slopes, curvature = map(to_complex, derivatives(lambda x: to_pair(jnp.exp(1j * jnp.dot(k, x))), x))
    np.testing.assert_allclose(value, psi, rtol=1e-14)
    np.testing.assert_allclose(slopes, 1j * k * psi, rtol=1e-13)
    np.testing.assert_allclose(curvature, -(k @ k) * psi, rtol=1e-13)
    np.testing.assert_allclose(to_pair(psi), [psi.real, psi.imag])
