"""The equation against the metric that it comes from, and its finite differences against exact waves and themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.problems._schwarzschild import COURANT, SPACING, _on_grid, solution
from nivp_dist.problems.wave import Wave
from nivp_dist.problems.wave_maps import HOLE, WaveMaps

BOTH = pytest.mark.parametrize("coordinates", ["schwarzschild", "kerr_schild"])


def on_grid(coordinates, mass, width, t, coarseness):
    """The solver on one grid, 1, 2, 4, ... times as coarse as the finer one of the reference, in time too."""
    spacing, steps = coarseness * SPACING * width, round(t / (COURANT * SPACING * width)) // coarseness
    return _on_grid(coordinates, mass, HOLE, width, t, spacing, steps)


def metric(coordinates, mass, point):
    """g_mu,nu at (t, x, y, z), as it stands in the books."""
    y = point[1:] - jnp.array([HOLE, 0, 0])
    r = jnp.linalg.norm(y)
    flat, null, radial = jnp.diag(jnp.array([-1.0, 1, 1, 1])), jnp.r_[1.0, y / r], jnp.r_[0.0, y / r]
    if coordinates == "kerr_schild":
        return flat + 2 * mass / r * jnp.outer(null, null)
    a = 1 - 2 * mass / r
    return flat.at[0, 0].set(-a) + (1 / a - 1) * jnp.outer(radial, radial)


def box(coordinates, mass, function, point):
    """|g|^(-1/2) d_mu(|g|^(1/2) g^mu,nu d_nu f)."""

    def flux(p):
        g = metric(coordinates, mass, p)
        return jnp.sqrt(-jnp.linalg.det(g)) * jnp.linalg.inv(g) @ jax.grad(function)(p)

    g = metric(coordinates, mass, point)
    return jnp.trace(jax.jacfwd(flux)(point)) / jnp.sqrt(-jnp.linalg.det(g)), jnp.linalg.inv(g)[0, 0]


@BOTH
def test_equation_is_that_of_the_metric(coordinates):
    """For any f of t and x, box f = g^00 (f_tt - what the equation says that u_tt is)."""
    mass = 0.45
    problem = WaveMaps(coordinates=coordinates, mass=mass)

    def f(p):
        return jnp.sin(p[0] + 2 * p[1] - p[2]) + p[0] * jnp.cos(p[1] * p[3] - p[0]) + p[1] ** 2 * p[2] * p[3]

    velocity = lambda p: jax.grad(f)(p)[0]  # noqa: E731
    u = lambda x: jnp.stack([f(jnp.r_[0.3, x]), velocity(jnp.r_[0.3, x])])  # noqa: E731

    @jax.jit
    def compare(x):
        point = jnp.r_[0.3, x]
        value, inverse = box(coordinates, mass, f, point)
        rate = problem.rhs(u, x, 0.3)
        return rate[0] - velocity(point), value - inverse * (jax.grad(velocity)(point)[0] - rate[1]), value

    for x in np.random.default_rng(0).uniform(-0.95, 0.95, (20, 3)):
        first, second, size = compare(x)
        assert abs(first) < 1e-12 and abs(second) < 1e-10 * (1 + abs(size))


def test_equation_degenerates_where_the_horizon_touches_the_box():
    """(-1, 0, 0): time stands still in one form, and goes on in the other."""
    x = jnp.array([-1.0, 0.0, 0.0])
    u = lambda y: jnp.stack([jnp.sum(y**2) + y[0], y[0]])  # noqa: E731
    published, regular = (
        jax.jit(lambda x, problem=WaveMaps(coordinates=name): problem.rhs(u, x, 0.0)[1])(x)
        for name in ("schwarzschild", "kerr_schild")
    )
    assert published == 0
    # r = H = n_1 = 1: (lap u - u_xx - u_x + 2 w_x + w) / 2 = (6 - 2 - (2 x + 1) + 2 + x) / 2
    np.testing.assert_allclose(regular, 3.0)


@BOTH
def test_without_a_hole_it_is_the_wave_equation(coordinates):
    """The spherical wave of flat space, u and u_t, and how the errors of the two grids and of both together fall."""
    width, t = 0.1, 0.3
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (2000, 3))
    exact = Wave(dimension=3, speed_squared=1.0, width=width).reference(x, t)
    error = lambda values: np.linalg.norm(values - exact, axis=0) / np.linalg.norm(exact, axis=0)  # noqa: E731
    coarse, fine = (error(on_grid(coordinates, 0.0, width, t, h)(x)) for h in (2, 1))
    assert np.all((coarse / fine > 14) & (coarse / fine < 18))  # 2^4 = 16
    assert np.all(error(WaveMaps(coordinates=coordinates, mass=0.0, width=width).reference(x, t)) < 5e-6)


@BOTH
def test_observed_order_around_a_hole(coordinates):
    width, t = 0.1, 0.3
    x = np.random.default_rng(2).uniform(-0.5, 0.5, (2000, 3))
    best = solution(coordinates, 0.5, HOLE, width, t)(x)
    errors = []
    for h in (4, 2):
        values = on_grid(coordinates, 0.5, width, t, h)(x)
        errors.append(np.linalg.norm(values - best, axis=0) / np.linalg.norm(best, axis=0))
    ratio = errors[0] / errors[1]
    assert np.all(errors[1] < 3e-3) and np.all((ratio > 13) & (ratio < 18))  # 2^4 = 16


@BOTH
def test_the_hole_bends_slows_and_keeps_the_symmetry(coordinates):
    """Towards the hole and away from it the waves differ, around the axis they do not."""
    problem = WaveMaps(coordinates=coordinates, width=0.1)
    towards, away = problem.reference(np.array([[-0.25, 0, 0], [0.25, 0, 0]]), 0.25)
    assert abs(towards[0] - away[0]) > 0.05 * abs(away[0])
    angles = np.linspace(0, 2 * np.pi, 7)
    around = np.stack([np.full(7, 0.1), 0.2 * np.cos(angles), 0.2 * np.sin(angles)], axis=1)
    values = problem.reference(around, 0.25)
    np.testing.assert_allclose(values, np.broadcast_to(values[:1], values.shape), rtol=1e-9)


@BOTH
def test_the_reference_holds_until_the_walls(coordinates):
    problem = WaveMaps(coordinates=coordinates, width=0.1)
    t = problem.reference_until
    np.testing.assert_allclose(t, 0.3)
    wall = np.stack([np.full(21, 0.99), np.linspace(-1, 1, 21), np.zeros(21)], axis=1)
    inside = np.abs(problem.reference(np.random.default_rng(3).uniform(-0.5, 0.5, (500, 3)), t)).max(axis=0)
    for axis in range(3):
        for side in (-1, 1):
            assert np.all(np.abs(problem.reference(side * np.roll(wall, axis, axis=1), t)) < 1e-7 * inside)
