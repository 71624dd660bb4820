"""Steps of the implicit Runge-Kutta pair on linear equations, whose parameters are the solution itself."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.errors import RunFailed
from nivp_dist.integration.attempts import Start
from nivp_dist.integration.bdf import Multistep
from nivp_dist.integration.implicit_attempts import Before
from nivp_dist.integration.sdirk_attempts import SdirkIntegrator
from nivp_dist.integration.stages import StageFailed
from nivp_dist.settings.model import IntegratorSettings

FAST = 1e5
# Two modes on the imaginary axis, of rates i and FAST i, and one on the negative axis.
MATRIX = np.zeros((5, 5))
MATRIX[0, 1], MATRIX[1, 0], MATRIX[2, 3], MATRIX[3, 2], MATRIX[4, 4] = 1, -1, FAST, -FAST, -FAST
SLOW = np.array([1.0, 0, 0, 0, 0])


class Fields:
    """The programs of ``galerkin.implicit`` that are called, for fields that are theta."""

    discretisation = SimpleNamespace(network=SimpleNamespace(lifting=None))
    combination = staticmethod(lambda thetas, coefficients, points: coefficients @ np.asarray(thetas))
    differences = staticmethod(lambda thetas, rows, points: np.linalg.norm(rows @ np.asarray(thetas), axis=1))


class Solve:
    """Solves every equation up to a misfit of this norm in a random direction; none whose gamma is above `most`."""

    def __init__(self, misfit=0.0, most=np.inf):
        self.misfit, self.most, self.random = misfit, most, np.random.default_rng(0)
        self.points, self.failure, self.evaluations, self.cut_short = None, None, 0, False

    def solve(self, guesses, equation, tolerance):
        self.evaluations += 1
        if equation.gamma > self.most:
            raise StageFailed("not solved")
        wrong = self.random.normal(size=len(MATRIX))
        wrong *= self.misfit / np.linalg.norm(wrong)
        theta = np.linalg.solve(np.eye(len(MATRIX)) - equation.gamma * MATRIX, equation.target - wrong)
        return jnp.asarray(theta), self.misfit


def run(solve: Any, rtol, theta=SLOW, misfit=0.0, end=1.0, h=1e-2):
    """(theta at the end, steps): misfit: of every solution from which a step starts, as its check has found it."""
    fields: Any = Fields()
    integrator = SdirkIntegrator(IntegratorSettings(method="sdirk", rtol=rtol), fields)
    start, velocity, taken = Start(jnp.asarray(theta), 0.0, h, 1.0), jnp.zeros(len(theta)), []
    multistep = Multistep.begin().after_fit(misfit)
    while start.t < end:
        taken.append(integrator.take(Before(start, velocity, start.theta[None], multistep), end, solve))
        new = taken[-1].solved.theta
        velocity = (new - start.theta) / taken[-1].h
        start = Start(new, taken[-1].t, taken[-1].next.h, taken[-1].solved.errors[3])
    return np.asarray(start.theta), taken


def test_steps_follow_the_slow_modes_and_not_the_fast_ones():
    errors, counts = [], []
    for rtol in (1e-4, 1e-6):
        theta, taken = run(Solve(), rtol)
        errors.append(np.linalg.norm(theta - [np.cos(1), -np.sin(1), 0, 0, 0]))
        counts.append(len(taken))
        assert all(step.solved.error <= rtol and step.order == 3 for step in taken)
        assert errors[-1] < 10 * rtol
    assert counts[0] < 25  # an explicit pair would take FAST / 2 steps and more
    assert errors[1] < errors[0] / 20 and counts[1] < 6 * counts[0]


@pytest.mark.parametrize("mode", [2, 4], ids=["dispersion", "diffusion"])
def test_a_fast_mode_at_the_start_is_an_error_only_as_large_as_it_is(mode):
    """The pair damps it in the first step. Of diffusion that is right, of dispersion the largest error there can be."""
    start = SLOW.copy()
    start[mode] = 1e-3
    theta, taken = run(Solve(), 2e-3, start)
    assert sum(step.rejected for step in taken) == 0 and 5e-4 < taken[0].solved.error < 2e-3
    assert np.abs(theta[2:]).max() < 1e-8


def test_misfits_that_stay_do_not_shorten_steps():
    """Without them the tolerance would ask for h < 0.025."""
    _, taken = run(Solve(1e-4), 1e-6, misfit=1e-4, end=2.0, h=0.1)
    assert sum(step.rejected for step in taken) == 0 and min(step.h for step in taken[:-2]) > 0.07


def test_a_misfit_that_is_new_is_not_accepted():
    """No earlier field has such a misfit, so that a shorter step may have a smaller one; this one stays."""
    with pytest.raises(RunFailed, match="integrator.min_step"):
        run(Solve(1e-2), 1e-6, misfit=1e-5)


def test_equations_without_a_solution_shorten_the_step():
    _, taken = run(Solve(most=1e-3), 1e-2, end=1e-2, h=1e-2)
    assert taken[0].rejected == 1 and taken[0].h == pytest.approx(2e-3)
