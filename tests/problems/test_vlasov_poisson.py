"""Vlasov-Poisson: rates of the dispersion relation, convergence of the reference, and the problem's own field."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import newton
from scipy.special import wofz

from nivp_dist.problems import vlasov_poisson
from nivp_dist.problems.nonlocal_terms import further_arguments
from nivp_dist.problems.vlasov_poisson import SPEED, Splitting, VlasovPoisson


def dispersion(start: str, k: float):
    """The function of omega that vanishes for waves exp(i (k x - omega t)): 1 - int f'(v) / (v - omega / k) dv / k^2,
    continued to the lower half plane by the Faddeeva function."""

    def function(omega):
        a = omega / k
        s = a / np.sqrt(2)
        z = 1j * np.sqrt(np.pi) * wofz(s) / np.sqrt(2)  # int g / (v - a) dv for the Maxwellian g
        if start == "landau":  # f' = -v g
            return 1 + (1 + a * z) / k**2
        # f' = (2 v - v^3) g: the polynomial is divided by v - a, and g has the variance one
        return 1 - (1 - a**2 + (2 * a - a**3) * z) / k**2

    return function


@pytest.mark.parametrize("start, guess", [("landau", 1.4 - 0.15j), ("two_stream", 0.28j)])
def test_small_fields_grow_at_the_rate_of_the_dispersion_relation(start, guess, monkeypatch):
    monkeypatch.setattr(vlasov_poisson, "STEP", 0.1)
    k = 0.5
    omega = newton(dispersion(start, k), guess, tol=1e-13)
    solution = Splitting(VlasovPoisson(wavenumber=k, amplitude=1e-6, start=start))
    times = np.arange(40, 121) / 10 if start == "landau" else np.array([26.0, 30.0])
    fields = np.array([abs(np.fft.rfft(solution.field(solution.at(t)))[1]) for t in times])
    if start == "landau":
        peaks = np.flatnonzero((fields[1:-1] > fields[:-2]) & (fields[1:-1] > fields[2:])) + 1
        assert omega.imag == pytest.approx(-0.1533, abs=1e-4)
        assert np.pi / np.diff(times[peaks]).mean() == pytest.approx(omega.real, rel=0.02)
        rate = np.log(fields[peaks[-1]] / fields[peaks[0]]) / (times[peaks[-1]] - times[peaks[0]])
        assert rate == pytest.approx(omega.imag, rel=0.02)
    else:
        assert np.log(fields[1] / fields[0]) / 4 == pytest.approx(omega.imag, rel=2e-3)


@pytest.mark.parametrize("start", ["landau", "two_stream"])
def test_the_reference_is_of_fourth_order(start, monkeypatch):
    problem, solutions = VlasovPoisson(amplitude=0.1, start=start), []
    for step in (0.2, 0.1, 0.02):
        monkeypatch.setattr(vlasov_poisson, "STEP", step)
        solutions.append(Splitting(problem).at(2.0))
    coarse, fine = (np.abs(each - solutions[-1]).max() for each in solutions[:2])
    assert fine < 1e-5 and 12 < coarse / fine < 20


@pytest.mark.parametrize("start", ["landau", "two_stream"])
def test_the_right_hand_side_is_the_rate_of_the_reference_at_the_start(start):
    """The field by the problem's nodes, and signs of both terms."""
    problem = VlasovPoisson(amplitude=0.3, start=start)
    x = np.random.default_rng(0).uniform([0, -4], [4 * np.pi, 4], (40, 2))
    h, further = 1e-3, further_arguments(problem, problem.initial, 0.0)
    forward = [problem.reference(x, k * h) for k in (0, 1, 2, 3, 4)]
    rate = np.array([-25 / 12, 4, -3, 4 / 3, -1 / 4]) @ forward / h
    found = np.array([problem.rhs(problem.initial, jnp.asarray(point), 0.0, *further) for point in x])
    np.testing.assert_allclose(found, rate, atol=1e-6 * np.abs(rate).max())


def test_mass_and_energy_of_the_reference():
    """Kinetic energy and that of the field add up to a constant."""
    solution = Splitting(VlasovPoisson(amplitude=0.5, start="two_stream"))
    cell = solution.length / 64 * (solution.v[1] - solution.v[0])

    def conserved(t):
        u = solution.at(t)
        field = np.sum(solution.field(u) ** 2) * solution.length / 64
        return np.array([u.sum() * cell, (np.sum(u * solution.v**2) * cell + field) / 2])

    np.testing.assert_allclose(conserved(5.0), conserved(0.0), rtol=1e-7)
    assert np.abs(solution.at(5.0)[:, solution.v < -0.98 * SPEED]).max() < 1e-6
