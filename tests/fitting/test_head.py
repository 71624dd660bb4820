"""Head tuning against least squares by numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.fitting.head import HeadTuning

SEPARATE = {"width": 5, "depth": 2, "frequencies": 1, "activation": "tanh", "trunk": "separate"}


def heads(network):
    """The entries of theta that belong to a head."""
    index = np.zeros(network.size, bool)
    for layer in network.layers:
        if layer.path[-1] == "head":
            index[layer.start : layer.stop] = True
    return index


def tuned(setting, ridge, target):
    """(correction, dense head Jacobian, weights, misfit) for target (n, m) -> values of the field."""
    points = setting.draw(jax.random.key(2))
    field = np.asarray(setting.network.field(setting.theta, points.x))
    misfit = target(np.asarray(points.x)) - field
    correction = HeadTuning(setting.galerkin, ridge)(setting.theta, points, jnp.asarray(misfit))
    j, w = setting.dense(setting.theta, points)
    return np.asarray(correction), j[:, heads(setting.network)], w, misfit.reshape(-1)


def wavy(x):
    return np.stack([np.sin(3 * x[:, 0]), x[:, 1] * np.cos(x[:, 0])], 1) * np.prod(1 - x**2, 1, keepdims=True)


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (1, 2, 4) if k <= jax.device_count()])
def test_against_least_squares(setting, devices):
    case, ridge = setting(devices=devices, points=101, network=SEPARATE), 1e-4
    correction, j, w, misfit = tuned(case, ridge, wavy)
    index = heads(case.network)
    assert 0 < index.sum() < case.network.size
    assert not correction[~index].any()
    root = np.sqrt(w)
    pull = np.sqrt(ridge * np.sum(w[:, None] * j**2)) * np.eye(index.sum())
    rows = np.concatenate([root[:, None] * j, pull])
    exact = np.linalg.lstsq(rows, np.concatenate([root * misfit, np.zeros(len(pull))]), rcond=None)[0]
    np.testing.assert_allclose(correction[index], exact, rtol=1e-8, atol=1e-10 * np.abs(exact).max())


def test_a_weak_ridge_gives_the_best_head(box):
    correction, j, w, misfit = tuned(box, 1e-13, wavy)
    best = np.linalg.lstsq(np.sqrt(w)[:, None] * j, np.sqrt(w) * misfit, rcond=None)[0]
    left = lambda delta: np.sum(w * (j @ delta - misfit) ** 2)  # noqa: E731
    # The field is linear in the head: the tuned network's error is that of the least-squares solution.
    points = box.draw(jax.random.key(2))
    field = np.asarray(box.network.field(box.theta + correction, points.x))
    np.testing.assert_allclose(np.sum(w * (field - wavy(np.asarray(points.x))).reshape(-1) ** 2), left(best), rtol=1e-3)
    assert left(best) < 0.5 * left(0 * best)


def test_a_target_of_zero_keeps_the_tangent_space(setting):
    """Tuned towards zero the head would vanish, and with it every derivative by the layers below."""
    case = setting(network={"width": 30, "depth": 1, "frequencies": 1}, points=400)
    index = heads(case.network)
    correction, j, w, misfit = tuned(case, 1e-6, lambda x: np.zeros((len(x), 2)))
    before, after = np.asarray(case.theta), np.asarray(case.theta) + correction
    # The values are gone, ...
    remaining = np.sum(w * (misfit - j @ correction[index]) ** 2)
    assert remaining < 1e-4 * np.sum(w * misfit**2)
    # ... the part of the head that they do not determine is not, ...
    assert np.linalg.norm(after[index]) > 0.1 * np.linalg.norm(before[index])
    # ... so that J has the columns of the hidden layer still. Pulled towards zero it has none.
    points = case.draw(jax.random.key(2))
    hidden = lambda theta: np.linalg.norm(case.dense(jnp.asarray(theta), points)[0][:, ~index])  # noqa: E731
    ridge = 1e-6 * np.sum(w[:, None] * j**2)
    m = j.T @ (w[:, None] * j)
    towards_zero = before.copy()
    towards_zero[index] = np.linalg.solve(m + ridge * np.eye(len(m)), j.T @ (w * 0))
    assert hidden(after) > 0.05 * hidden(before) and hidden(towards_zero) == 0
