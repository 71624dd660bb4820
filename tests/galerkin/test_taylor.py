"""Curves along which a field moves straight, against exact series, known weights and the order of their error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.jet import jet

from nivp_dist.galerkin import taylor


@pytest.mark.parametrize(
    ("k", "nodes", "weights"),
    [
        (1, [-1, 1], [-1 / 2, 1 / 2]),
        (2, [-1, 0, 1], [1 / 2, -1, 1 / 2]),
        (3, [-2, -1, 1, 2], [-1 / 12, 1 / 6, -1 / 6, 1 / 12]),
        (4, [-2, -1, 0, 1, 2], [1 / 24, -4 / 24, 6 / 24, -4 / 24, 1 / 24]),
    ],
)
def test_central_differences_are_the_known_ones(k, nodes, weights):
    found = taylor.central_differences(k)
    np.testing.assert_array_equal(found[0], nodes)
    np.testing.assert_allclose(found[1], weights, atol=1e-15)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_coefficients_against_exact_series(k):
    """Derivatives of a nonlinear function along a curve by Taylor-mode differentiation."""
    rng = np.random.default_rng(0)
    matrix, theta = rng.standard_normal((7, 4)), jnp.asarray(rng.standard_normal(4))
    terms = [jnp.asarray(0.3**i * rng.standard_normal(4)) for i in range(1, k)]
    function = lambda theta: jnp.tanh(matrix @ theta) * jnp.sin(theta[0])  # noqa: E731
    factorials = np.cumprod(np.arange(1, k + 1))
    _, series = jet(function, (theta,), ([f * term for f, term in zip(factorials, [*terms, 0 * theta], strict=True)],))
    exact = series[-1] / factorials[-1]
    found = taylor.coefficient(function, theta, terms)
    assert np.linalg.norm(found - exact) < 2e-2 * np.linalg.norm(exact)


def test_the_field_moves_straight_to_the_order_of_the_curve():
    """With more parameters than values the least squares are solved exactly, and what is left of
    field(theta + displacement(s)) - field(theta) - s misfit falls as s^(order + 1)."""
    rng = np.random.default_rng(1)
    inner, outer = rng.standard_normal((12, 9)), rng.standard_normal((5, 12))
    field = lambda theta: (jnp.asarray(outer) @ jnp.tanh(jnp.asarray(inner) @ theta))[:, None]  # noqa: E731
    theta, misfit = jnp.asarray(0.3 * rng.standard_normal(9)), jnp.asarray(0.3 * rng.standard_normal((5, 1)))
    inverse = np.linalg.pinv(jax.jacfwd(lambda theta: field(theta)[:, 0])(theta))
    lengths = np.array([0.4, 0.2])
    for order in (1, 2, 3, 4):
        terms = taylor.curve(lambda f: inverse @ f[:, 0], field, theta, misfit, order)
        assert terms.shape == (order, 9)
        left = [
            np.linalg.norm(field(theta + s ** np.arange(1, order + 1) @ terms) - field(theta) - s * misfit)
            for s in lengths
        ]
        assert np.log2(left[0] / left[1]) == pytest.approx(order + 1, abs=0.3), (order, left)
