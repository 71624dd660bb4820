"""The periodic solver against exact solutions, other methods, and itself refined; and the problems that rest on it."""

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from scipy.special import ive, jv

from nivp_dist.problems import _spectral, allen_cahn, burgers, periodic
from nivp_dist.problems._spectral import PeriodicSolution, _phi, evaluate
from nivp_dist.problems.allen_cahn import AllenCahn
from nivp_dist.problems.burgers import Burgers, cole_hopf
from nivp_dist.problems.periodic import PeriodicAllenCahn, PeriodicHeat

RANDOM = np.random.default_rng(0)
TWO_PI = 2 * np.pi
square = lambda u: u**2 / 2  # noqa: E731


def relative(values, exact):
    return np.linalg.norm(values - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("z", [-1e-9, -0.3, -0.999, -1.001, -7.0, -800.0])
def test_phi_functions_against_the_exponential_of_a_matrix(z):
    """exp of [[z, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]] has phi_1, phi_2, phi_3 in its first row."""
    matrix = np.diag(np.ones(3), 1)
    matrix[0, 0] = z
    np.testing.assert_allclose([float(value) for value in _phi(np.array(z))], expm(matrix)[0, 1:], rtol=1e-13)


@pytest.mark.parametrize("shape", [(12,), (8, 12), (6, 4, 8)])
def test_evaluate_interpolates_between_grid_points(shape):
    """A trigonometric polynomial below the highest modes is found again, everywhere."""
    d = len(shape)
    k = np.array([RANDOM.integers(-n // 2 + 1, n // 2, 5) for n in shape])
    amplitude, phase = RANDOM.normal(size=(2, 5))
    plain = lambda x: np.cos(x @ k + phase) @ amplitude  # noqa: E731
    grid = np.stack(np.meshgrid(*(TWO_PI * np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
    wavenumbers = [np.fft.fftfreq(n, 1 / n) for n in shape[:-1]] + [np.arange(shape[-1] // 2 + 1)]
    x = RANDOM.uniform(-3, 9, (40, d))
    values = evaluate(x, np.fft.rfftn(plain(grid), norm="forward"), wavenumbers, chunk=100)
    np.testing.assert_allclose(values, plain(x), atol=1e-13)


def sine_burgers(x, t, nu, amplitude):
    """Burgers' equation from amplitude sin x, by Cole and Hopf: phi = sum of I_n(amplitude / (2 nu)) cos(n x)."""
    n = np.arange(1, 200)
    weights = 2 * ive(n, amplitude / (2 * nu)) * np.exp(-nu * n**2 * t)
    phase = n * x[..., None]
    return 2 * nu * (np.sin(phase) @ (n * weights)) / (ive(0, amplitude / (2 * nu)) + np.cos(phase) @ weights)


def test_fourth_order_against_the_exact_solution_of_burgers_equation():
    x, errors = RANDOM.uniform(0, TWO_PI, (500, 1)), []
    for step in (1 / 20, 1 / 40, 1 / 1280):
        solution = PeriodicSolution(lambda x: np.sin(x[..., 0]), [0.0], [TWO_PI], 0.1, flux=square, step=step)
        errors.append(relative(solution(x, 1.5), sine_burgers(x[:, 0], 1.5, 0.1, 1.0)))
    assert 12 < errors[0] / errors[1] < 20  # 2^4 = 16
    assert errors[2] < 1e-10


def test_two_dimensions_against_the_exact_solution_along_the_diagonal():
    """A function of s = x1 + x2 satisfies U_t = 2 (D U_ss - U U_s)."""
    solution = PeriodicSolution(
        lambda x: np.sin(x.sum(axis=-1)), [0.0, 0.0], [TWO_PI] * 2, 0.1, flux=square, step=1 / 400
    )
    x = RANDOM.uniform(0, TWO_PI, (300, 2))
    assert relative(solution(x, 0.5), sine_burgers(x.sum(axis=1), 1.0, 0.1, 1.0)) < 1e-9


def test_reaction_against_the_logistic_solution():
    """Without variation in space: u' = u - u^3."""
    solution = PeriodicSolution(lambda x: np.full(x.shape[:-1], 0.2), [0.0], [1.0], 1.0, lambda u: u - u**3, step=0.01)
    exact = 0.2 * np.exp(1.3) / np.sqrt(1 + 0.2**2 * np.expm1(2.6))
    np.testing.assert_allclose(solution(np.array([[0.1], [0.7]]), 1.3), exact, rtol=1e-9)


def test_modes_are_doubled_until_the_outer_ones_are_small(monkeypatch):
    """A steepening wave needs more of them, and already its first step: the answer is that of a grid that was fine all
    along. Modes of sinh(sin x) are odd: every other one tells nothing."""

    def values(t):
        solution = PeriodicSolution(
            lambda x: periodic.start(x, np), [0.0, 0.0], [np.pi, TWO_PI], 0.02, flux=square, step=1 / 50
        )
        return solution(points, t), [solution.at(time)[1] for time in (0.0, t)]

    points = RANDOM.uniform(0, TWO_PI, (400, 2))
    adapted, shapes = values(1.0)
    assert shapes[0] == (32, 32) and max(shapes[1]) > 32
    monkeypatch.setattr(_spectral, "FEWEST_MODES", 256)
    fine, shapes = values(1.0)
    assert shapes == [(256, 256), (256, 256)]
    assert relative(adapted, fine) < 1e-12


def test_results_do_not_depend_on_earlier_calls():
    make = lambda: PeriodicSolution(  # noqa: E731
        lambda x: np.sin(x[..., 0]), [0.0], [TWO_PI], 0.02, flux=square, step=1 / 30
    )
    x, once, often = RANDOM.uniform(0, TWO_PI, (20, 1)), make(), make()
    for t in (0.01, 0.5, 1 / 30, 0.777, 0.4):
        often(x, t)
    for t in (0.0, 0.333, 1.0):
        np.testing.assert_array_equal(often(x, t), once(x, t))


def test_periodic_heat_against_bessel_series():
    """cosh(3 sin x) and sinh(sin x) by the Jacobi-Anger expansion, mode by mode."""
    x, t, n = RANDOM.uniform(0, TWO_PI, (200, 2)), 0.9, np.arange(-40, 41)
    bessel = lambda z: (jv(n, -1j * z)).real + 1j * jv(n, -1j * z).imag  # noqa: E731
    decay = np.exp(-0.1 * n**2 * t)
    part = lambda x, z: np.exp(1j * np.outer(x, n)) @ (decay * bessel(z))  # noqa: E731  exp(z sin x), smoothed
    along = (part(x[:, 0], 3) + part(x[:, 0], -3)).real / 2
    across = (part(x[:, 1], 1) - part(x[:, 1], -1)).real / 2
    np.testing.assert_allclose(PeriodicHeat().reference(x, t), 0.04 * along * across, atol=1e-14)


def test_allen_cahn_against_finite_differences():
    """Fourth-order differences and Dormand-Prince 8(5,3) converge to the reference at their order."""
    t, errors = 1.0, []
    for n in (300, 600):
        x = TWO_PI * np.arange(n) / n
        h = TWO_PI / n

        def rhs(_, u):
            second = -30 * u + 16 * (np.roll(u, 1) + np.roll(u, -1)) - np.roll(u, 2) - np.roll(u, -2)
            return 5e-3 * second / (12 * h**2) + u - u**3

        start = allen_cahn.start(x[:, None], np)
        u = solve_ivp(rhs, (0, t), start, method="DOP853", rtol=1e-10, atol=1e-12, t_eval=[t]).y[:, 0]
        errors.append(relative(u, AllenCahn().reference(x[:, None], t)))
    assert errors[1] < 2e-5 and 13 < errors[0] / errors[1] < 19


@pytest.mark.parametrize("make", [allen_cahn.solution, periodic.allen_cahn_solution, periodic.burgers_solution])
def test_step_of_the_shipped_solutions(make):
    """Halving it changes the values by less than what the docstrings promise. (Burgers by t = 4: 8e-11, D = 0.01.)"""
    shipped = make(0.05)
    d = len(shipped.lower)
    start = periodic.start if d == 2 else allen_cahn.start
    finer = PeriodicSolution(
        lambda x: start(x, np),
        shipped.lower,
        shipped.lower + shipped.length,
        0.05,
        shipped.reaction,
        shipped.flux,
        shipped.step / 2,
    )
    x = RANDOM.uniform(0, TWO_PI, (300, d))
    assert relative(shipped(x, 1.0), finer(x, 1.0)) < 1e-10


def test_twice_the_modes_and_half_the_step_leave_a_sharp_interface_where_it_is():
    """allen_cahn_sharp_1d: interfaces of width sqrt(2 D) = 0.045, when they have formed."""
    shipped = allen_cahn.solution(1e-3)
    box = shipped.lower, shipped.lower + shipped.length
    settings = {"step": shipped.step / 2, "tolerance": 1e-14, "most": 2 * shipped.most}
    finer = PeriodicSolution(lambda x: allen_cahn.start(x, np), *box, 1e-3, shipped.reaction, **settings)
    x = RANDOM.uniform(0, TWO_PI, (300, 1))
    assert relative(shipped(x, 3.0), finer(x, 3.0)) < 1e-10
    assert finer.at(3.0)[1] == (2048,) and shipped.at(3.0)[1] == (1024,)


def test_half_a_period_is_enough():
    """PeriodicAllenCahn solves on [0, pi) x [0, 2 pi): the same as on the whole box."""
    whole = PeriodicSolution(
        lambda x: periodic.start(x, np), [0.0, 0.0], [TWO_PI] * 2, 0.1, reaction=lambda u: u - u**3, step=1 / 100
    )
    x = RANDOM.uniform(0, TWO_PI, (300, 2))
    assert relative(PeriodicAllenCahn(diffusion=0.1).reference(x, 0.5), whole(x, 0.5)) < 1e-12


def test_cole_hopf_against_the_spectral_solver():
    """With the kink of the data and twenty times its viscosity; the kink limits the Fourier series."""
    nu = 0.02
    solution = PeriodicSolution(
        lambda x: burgers.pulse(x[..., 0], np), [-1.0], [1.0], nu, flux=square, step=1 / 1000, most=2048
    )
    x = RANDOM.uniform(-1, 1, (300, 1))
    for t in (0.05, 1.0):
        assert relative(solution(x, t), Burgers(viscosity=nu).reference(x, t)) < 1e-8


@pytest.mark.parametrize("t", [1e-4, 0.3, 4.0])
def test_cole_hopf_with_shorter_panels(t, monkeypatch):
    x = np.concatenate([RANDOM.uniform(-1, 1, 150), [-1.0, 1.0]])
    values = cole_hopf(x, t, 1e-3)
    monkeypatch.setattr(burgers, "PANEL", 1.7)
    np.testing.assert_allclose(values, cole_hopf(x, t, 1e-3), atol=1e-13)
    np.testing.assert_allclose(values[-2], values[-1], atol=1e-13)  # periodic


def test_cole_hopf_keeps_the_mass_and_the_integral_is_that_of_the_pulse():
    mass = quad(lambda x: burgers.pulse(x, np), -1, 1, epsabs=1e-14)[0]
    np.testing.assert_allclose(burgers._integral(1.0), mass, atol=1e-14)
    np.testing.assert_allclose(burgers._integral(0.2), quad(burgers.pulse, -1, 0.2, (np,), epsabs=1e-14)[0], atol=1e-14)
    # The shock is 1e-2 wide: the mean over an equidistant grid of a smooth periodic function.
    grid = np.linspace(-1, 1, 2000, endpoint=False)
    np.testing.assert_allclose(2 * cole_hopf(grid, 1.0, 1e-2).mean(), mass, rtol=1e-9)
