"""Sine series against other methods: closed forms on the whole space, and finite differences with walls."""

import itertools

import numpy as np
import pytest

from nivp_dist.problems._series import evaluate, frequencies, modes, pulse_coefficients, pulse_mode_count
from nivp_dist.problems.advection import Advection
from nivp_dist.problems.base import has_reference
from nivp_dist.problems.heat import Heat
from nivp_dist.problems.wave import Wave


@pytest.mark.parametrize(("width", "wavenumber"), [(0.05, 0.0), (0.1, 3.0), (0.1, 8.0)])
def test_coefficients_against_the_transform_of_a_gaussian(width, wavenumber):
    """A pulse that vanishes at the walls: its coefficients are values of its Fourier transform."""
    count = pulse_mode_count(width, wavenumber)
    w, q = frequencies(count), 2 * np.pi * wavenumber
    bell = lambda f: np.exp(-((width * f) ** 2) / 2)  # noqa: E731
    exact = width * np.sqrt(2 * np.pi) * (bell(w - q) + bell(w + q)) / 2
    np.testing.assert_allclose(pulse_coefficients(width, count, wavenumber), exact, atol=1e-14)
    assert exact[-1] < 1e-15


def test_evaluate_against_the_plain_sum():
    rng = np.random.default_rng(0)
    x, coefficients = rng.uniform(-1, 1, (23, 3)), rng.normal(size=(4, 5, 6))
    plain = np.einsum("ni,nj,nk,ijk->n", *(modes(x[:, a], coefficients.shape[a]) for a in range(3)), coefficients)
    np.testing.assert_allclose(evaluate(x, coefficients, chunk=100), plain, rtol=1e-12)
    with pytest.raises(ValueError, match="dimension 3"):
        evaluate(x, coefficients[0])


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_heat_before_the_walls(dimension):
    """On the whole space a Gaussian stays one, of variance s^2 + 2 k t."""
    problem, t = Heat(dimension=dimension), 0.1
    x = np.random.default_rng(1).uniform(-0.3, 0.3, (300, dimension))
    variance = 0.05**2 + 2 * 0.05 * t
    exact = (0.05**2 / variance) ** (dimension / 2) * np.exp(-np.sum(x**2, 1) / (2 * variance)) / (60 * np.pi * 0.05**2)
    np.testing.assert_allclose(problem.reference(x, t), exact, atol=1e-9 * exact.max())


def test_heat_with_walls_by_images():
    """At late times the walls matter: images of alternating sign at the even integers."""
    t, variance = 4.0, 0.05**2 + 2 * 0.05 * 4.0
    x = np.linspace(-1, 1, 41)
    bell = sum((-1) ** k * np.exp(-((x - 2 * k) ** 2) / (2 * variance)) for k in range(-12, 13))
    exact = 0.05 / np.sqrt(variance) * bell / (60 * np.pi * 0.05**2)
    np.testing.assert_allclose(Heat(dimension=1).reference(x[:, None], t), exact, atol=1e-12 * exact.max())


@pytest.mark.parametrize("t", [0.8, 4.7, 9.0])
def test_wave_in_one_dimension_by_images(t):
    """d'Alembert's solution with reflections, u and u_t."""
    problem = Wave(dimension=1)
    speed, s = np.sqrt(problem.speed_squared), problem.width
    x = np.linspace(-1, 1, 201)
    u, velocity = np.zeros_like(x), np.zeros_like(x)
    for k in range(-8, 9):
        for direction in (-1, 1):
            y = x - 2 * k + direction * speed * t
            half = (-1) ** k * np.exp(-(y**2) / (2 * s**2)) / 2
            u += half
            velocity += direction * speed * (-y / s**2) * half
    exact = np.stack([u, velocity], axis=1) / (60 * np.pi * s**2)
    np.testing.assert_allclose(problem.reference(x[:, None], t), exact, atol=1e-12 * np.abs(exact).max())


def test_wave_in_three_dimensions_before_the_walls():
    """r u solves the wave equation in one dimension: u = [(r-ct) g(r-ct) + (r+ct) g(r+ct)] / (2 r)."""
    problem, t = Wave(dimension=3, speed_squared=1.0), 0.5
    x = np.random.default_rng(2).normal(size=(400, 3))
    x *= np.random.default_rng(3).uniform(0.05, 0.7, (400, 1)) / np.linalg.norm(x, axis=1, keepdims=True)
    r, s = np.linalg.norm(x, axis=1), problem.width
    g = lambda y: np.exp(-(y**2) / (2 * s**2)) / (60 * np.pi * s**2)  # noqa: E731
    u = ((r - t) * g(r - t) + (r + t) * g(r + t)) / (2 * r)
    slope = lambda y: (1 - y**2 / s**2) * g(y)  # noqa: E731  of y g(y)
    velocity = (slope(r + t) - slope(r - t)) / (2 * r)
    values = problem.reference(x, t)
    np.testing.assert_allclose(values[:, 0], u, atol=1e-11 * np.abs(u).max())
    np.testing.assert_allclose(values[:, 1], velocity, atol=1e-11 * np.abs(velocity).max())


def test_wave_in_three_dimensions_with_walls_by_images():
    """After the walls: spherical waves from sources of alternating sign at the even integers, u and u_t."""
    problem, t = Wave(dimension=3, speed_squared=1.0), 1.5
    x = np.random.default_rng(4).uniform(-1, 1, (300, 3))
    s, u, velocity = problem.width, 0.0, 0.0
    for place in itertools.product((-1, 0, 1), repeat=3):  # those further away are not heard by then
        r = np.linalg.norm(x - 2 * np.array(place), axis=1)
        behind, ahead = (np.exp(-(y**2) / (2 * s**2)) / (60 * np.pi * s**2) for y in (r - t, r + t))
        sign = (-1) ** sum(place)
        u = u + sign * ((r - t) * behind + (r + t) * ahead) / (2 * r)
        velocity = velocity + sign * ((1 - (r + t) ** 2 / s**2) * ahead - (1 - (r - t) ** 2 / s**2) * behind) / (2 * r)
    values = problem.reference(x, t)
    np.testing.assert_allclose(values[:, 0], u, atol=1e-11 * np.abs(u).max())
    np.testing.assert_allclose(values[:, 1], velocity, atol=1e-11 * np.abs(velocity).max())


def leapfrog(problem, t, cells, steps):
    """Modified-equation leapfrog, fourth order in space and time, zero on the walls, d = 2: x (n, 2) and u (n,)."""
    h, k = 2 / cells, t / steps
    axis = np.linspace(-1, 1, cells + 1)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    u = np.exp(-np.sum(grid**2, axis=-1) / (2 * problem.width**2)) / (60 * np.pi * problem.width**2)
    u *= np.cos(2 * np.pi * problem.wavenumber * grid[..., 0])

    def laplacian(v):
        # Odd reflection in the walls keeps the wide stencil fourth order there.
        total = np.zeros_like(v)
        for a in (0, 1):
            p = np.moveaxis(v, a, 0)
            p = np.concatenate([-p[2:0:-1], p, -p[-2:-4:-1]])
            second = (-p[4:] + 16 * p[3:-1] - 30 * p[2:-2] + 16 * p[1:-3] - p[:-4]) / (12 * h**2)
            total += np.moveaxis(second, 0, a)
        return problem.speed_squared * total

    def increment(v):
        first = laplacian(v)
        return k**2 * first + k**4 / 12 * laplacian(first)

    before, now = u, u + increment(u) / 2
    for _ in range(steps - 1):
        before, now = now, 2 * now - before + increment(now)
    return grid, now


@pytest.mark.parametrize(
    ("problem", "t"), [(Wave(width=0.12), 4.0), (Wave(width=0.12, wavenumber=1.0, speed_squared=1.0), 0.8)]
)
def test_wave_with_walls_against_finite_differences(problem, t):
    """Fourth-order differences converge to the series, at their order, with reflections (t = 4) and modulation."""
    errors = []
    for cells in (80, 160):
        grid, u = leapfrog(problem, t, cells, 2 * int(np.ceil(t * np.sqrt(problem.speed_squared) * cells / 2)))
        thinned = (slice(None, None, cells // 40),) * 2
        exact = problem.reference(grid[thinned].reshape(-1, 2), t)[:, 0]
        errors.append(np.linalg.norm(u[thinned].ravel() - exact) / np.linalg.norm(exact))
    assert errors[1] < 1e-3
    assert 13 < errors[0] / errors[1] < 20  # 2^4 = 16


def test_wave_conserves_energy_and_is_even():
    """u_t and u are one solution: 1/2 |u_t|^2 + c/2 |grad u|^2 is constant, by quadrature of the series."""
    problem = Wave(dimension=1, width=0.08)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    h = 1e-4

    def energy(t):
        plus, minus = (problem.reference((nodes + e)[:, None], t)[:, 0] for e in (h, -h))
        velocity = problem.reference(nodes[:, None], t)[:, 1]
        return weights @ (velocity**2 + problem.speed_squared * ((plus - minus) / (2 * h)) ** 2)

    np.testing.assert_allclose([energy(1.3), energy(5.0)], energy(0.0), rtol=1e-5)


def test_wave_vanishes_on_the_walls():
    wall = np.stack([np.ones(50), np.linspace(-1, 1, 50)], axis=1)
    for problem in (Wave(), Heat()):
        inside = np.abs(problem.reference(0.5 * wall, 3.0)).max()
        assert inside > 0
        assert np.abs(problem.reference(wall, 3.0)).max() < 1e-13 * max(inside, 1.0)


def test_advection_moves_the_pulse_against_the_velocity():
    """u_t = v (u_x1 + u_x2): the pulse is at -v t (1, 1)."""
    values = Advection().reference(np.array([[-0.5, -0.5], [0.5, 0.5]]), 0.5)
    np.testing.assert_allclose(values[0], 1 / (60 * np.pi * 0.05**2))
    assert values[1] < 1e-40


@pytest.mark.parametrize("velocity", [1.0, -2.0])
def test_advection_has_a_reference_until_the_wall(velocity):
    """Then the translated pulse is still nothing on the wall; with a longer time it would be something."""
    problem = Advection(velocity=velocity)
    wall = np.array([[-np.sign(velocity), -np.sign(velocity) * 0.65]])
    at = lambda t: float(problem.reference(wall, t)[0] / problem.reference(np.zeros((1, 2)), 0.0)[0])  # noqa: E731
    until = problem.reference_until
    np.testing.assert_allclose(until, 0.65 / abs(velocity))
    assert 1e-12 < at(until) < 1e-10 and at(1.2 * until) > 1e-8
    assert has_reference(problem, until) and not has_reference(problem, 1.01 * until)
    assert has_reference(Advection(velocity=0.0), 1e9)
