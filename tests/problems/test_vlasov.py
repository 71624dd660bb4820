"""Characteristics of the Vlasov equation against another integrator, invariants, and the harmonic limit."""

import numpy as np

from nivp_dist.problems.vlasov import Vlasov, trace_back


def energy(z):
    return np.sum(z[:, 3:] ** 2, axis=1) / 2 - np.exp(-np.sum(z[:, :3] ** 2, axis=1))


def points(n, scale=0.35, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(n, 6))


def verlet_back(z, t, steps):
    """Stoermer and Verlet's method with a negative step, second order."""
    x, v, h = z[:, :3].copy(), z[:, 3:].copy(), -t / steps
    for _ in range(steps):
        x = x + h / 2 * v
        v = v - h * 2 * x * np.exp(-np.sum(x**2, axis=1, keepdims=True))
        x = x + h / 2 * v
    return np.concatenate([x, v], axis=1)


def test_characteristics_against_another_integrator():
    """Second order towards the same ends; extrapolated, the two agree."""
    z, t = points(300), 3.0
    exact = trace_back(z, t)
    coarse, middle, fine = (verlet_back(z, t, steps) for steps in (400, 800, 1600))
    errors = [np.abs(ends - exact).max() for ends in (coarse, middle, fine)]
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 4, rtol=0.02)
    # The error is even in the step: two extrapolations leave the sixth order.
    once = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    np.testing.assert_allclose((16 * once[1] - once[0]) / 15, exact, atol=2e-9)


def test_characteristics_keep_energy_and_angular_momentum():
    z = points(500)
    ends = trace_back(z, 3.0)
    np.testing.assert_allclose(energy(ends), energy(z), atol=1e-9)
    np.testing.assert_allclose(np.cross(ends[:, :3], ends[:, 3:]), np.cross(z[:, :3], z[:, 3:]), atol=1e-9)


def test_characteristics_run_backwards():
    """With velocities reversed they lead forward, and back to where they came from."""
    z, mirror = points(100), np.r_[1, 1, 1, -1, -1, -1]
    np.testing.assert_allclose(trace_back(trace_back(z, 2.0) * mirror, 2.0) * mirror, z, atol=1e-9)


def test_the_flow_preserves_volumes():
    z, h = points(20), 1e-4
    shifted = [[trace_back(z + sign * h * axis, 3.0) for sign in (1, -1)] for axis in np.eye(6)]
    jacobian = np.stack([(plus - minus) / (2 * h) for plus, minus in shifted], axis=-1)
    np.testing.assert_allclose(np.linalg.det(jacobian), 1.0, atol=1e-5)


def test_narrow_starts_rotate_in_a_harmonic_well():
    """Near the bottom E = -2 x: the start is turned in phase space with frequency sqrt(2), up to terms of spread^2."""
    t, w, white = 1.3, np.sqrt(2), points(400, scale=1.0, seed=1)
    x, v = white[:, :3], white[:, 3:]
    start_x, start_v = x * np.cos(w * t) - v * np.sin(w * t) / w, v * np.cos(w * t) + w * x * np.sin(w * t)
    departures = []
    for spread in (0.02, 0.01):
        log_u = np.log(Vlasov(spread=spread).reference(spread * white, t))
        log_turned = -np.sum(start_x**2 + start_v**2, axis=1) / 2 - 3 * np.log(2 * np.pi * spread**2)
        departures.append(np.abs(log_u - log_turned).max())
    assert departures[1] < 2e-2
    np.testing.assert_allclose(departures[0] / departures[1], 4, rtol=0.02)


def test_mass_is_one_by_importance_sampling():
    """Within five standard errors, from a wider Gaussian."""
    problem, t, n, scale = Vlasov(), 3.0, 10_000, 0.36
    z = points(n, scale=scale, seed=2)
    weight = problem.reference(z, t) / np.exp(-np.sum(z**2, axis=1) / (2 * scale**2)) * (2 * np.pi * scale**2) ** 3
    standard_error = weight.std() / np.sqrt(n)
    assert standard_error < 0.03 and abs(weight.mean() - problem.statistics(t)["mass"]) < 5 * standard_error
