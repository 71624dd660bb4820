"""Frames: coefficients of the same quadratic or linear form in other coordinates."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.network import frames
from nivp_dist.network.frames import Frame

RANDOM = np.random.default_rng(0)
FRAME = Frame(
    jnp.asarray(RANDOM.standard_normal(4)), jnp.asarray(np.tril(RANDOM.standard_normal((4, 4))) + 2 * np.eye(4))
)
X = RANDOM.standard_normal((30, 4))


def form(weight, x):
    """The form in numpy, without the package's monomials: c + b.x + sum_ij q_ij x_i x_j, i <= j."""
    values, d = np.zeros((len(x), weight.shape[1])) + weight[-1], x.shape[1]
    values += x @ weight[:d]
    pairs = itertools.combinations_with_replacement(range(d), 2)
    for row, (i, j) in zip(weight[d:-1], pairs, strict=True):
        values += (x[:, i] * x[:, j])[:, None] * row
    return values


def test_monomials_against_numpy():
    weight = RANDOM.standard_normal((15, 2))
    np.testing.assert_allclose(frames.monomials(X) @ weight[:-1] + weight[-1], form(weight, X), rtol=1e-12)


@pytest.mark.parametrize("back", [False, True])
def test_the_same_form_in_other_coordinates(back):
    frame = FRAME.inverse() if back else FRAME
    weight = RANDOM.standard_normal((15, 2))
    z = (X - np.asarray(frame.mean)) @ np.asarray(frame.matrix).T
    np.testing.assert_allclose(
        form(np.asarray(frames.translated(jnp.asarray(weight), frame)), X), form(weight, z), rtol=1e-9
    )


@pytest.mark.parametrize("back", [False, True])
def test_the_same_linear_form_in_other_coordinates(back):
    frame = FRAME.inverse() if back else FRAME
    weight = RANDOM.standard_normal((5, 3))
    z = (X - np.asarray(frame.mean)) @ np.asarray(frame.matrix).T
    there = np.asarray(frames.translated(jnp.asarray(weight), frame))
    np.testing.assert_allclose(X @ there[:-1] + there[-1], z @ weight[:-1] + weight[-1], rtol=1e-9)


def test_the_inverse_frame_restores_the_coefficients():
    weight = jnp.asarray(RANDOM.standard_normal((15, 1)))
    there = frames.translated(weight, FRAME)
    np.testing.assert_allclose(frames.translated(there, FRAME.inverse()), weight, atol=1e-10)
