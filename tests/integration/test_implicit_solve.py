"""What the corrections of an implicit equation are damped towards, on equations whose misfit is theta itself."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nivp_dist.galerkin.implicit import Correction, Equation
from nivp_dist.integration.attempts import Start
from nivp_dist.integration.bdf import Multistep
from nivp_dist.integration.implicit_attempts import Before, ImplicitIntegrator, Solved
from nivp_dist.integration.implicit_solve import INERTIA, MOST_CORRECTIONS, ImplicitSolve
from nivp_dist.integration.sdirk_attempts import SdirkIntegrator
from nivp_dist.settings.model import IntegratorSettings

DAMPING, ANCHOR = 1e-9, np.array([7.0, 0.0])


class Script:
    """In place of programs and systems: the corrections are these deltas, and the misfit is |theta|."""

    def __init__(self, *deltas):
        self.deltas, self.asked = list(deltas), []

    def misfit(self, theta, equation, predicted):
        return np.full(2, np.linalg.norm(theta))

    def __call__(self, theta, equation, damping, accuracy):
        self.asked.append((damping, tuple(equation.anchor)))
        return Correction(np.array(self.deltas.pop(0)), None)


def solve(script):
    found = ImplicitSolve(script, None, script, DAMPING, lambda: None)
    return *found.solve([np.array([1.0, 1.0])], Equation(0.1, 0.5, None, None, ANCHOR), 1e-3), found


def test_corrections_are_pulled_to_the_anchor_and_larger_dampings_to_the_present_theta():
    """The second correction makes the misfit larger and is made again with a larger damping."""
    script = Script((-0.5, -0.5), (3.0, 0.0), (-0.3, -0.3), (-0.2, -0.2))
    theta, size, found = solve(script)
    near, pulled = (DAMPING, tuple(ANCHOR)), (100 * DAMPING, (0.5, 0.5))
    assert script.asked == [near, near, pulled, near]
    np.testing.assert_allclose(theta, 0.0, atol=1e-15)
    assert size == pytest.approx(0.0, abs=1e-15) and not found.cut_short


def test_corrections_that_gain_to_the_last_are_cut_short():
    *_, size, found = solve(Script(*[(-0.1, -0.1)] * MOST_CORRECTIONS))
    assert found.cut_short and found.evaluations == MOST_CORRECTIONS and size == pytest.approx(0.2 * 2**0.5)


def test_a_guessed_first_step_is_shortened_until_its_corrections_come_to_an_end():
    """Not so one whose length was chosen, or later ones."""
    integrator: Any = SdirkIntegrator(IntegratorSettings(method="sdirk"), None)
    integrator._size, integrator._scale = lambda *_: 1.0, lambda size, *_: size
    for guessed, expected in ((True, 0.04), (False, 1.0)):
        solve: Any = SimpleNamespace(points=None, evaluations=0, cut_short=False)

        def solved(before, choice, solve, tolerance):
            solve.cut_short = choice.h > 0.1
            return Solved((SimpleNamespace(theta=0.0),), 0.0, 0.0, {3: 0.5})

        integrator._solved = solved
        start = Start(0.0, 0.0, 1.0, 1.0, guessed=guessed)
        taken = integrator.take(Before(start, 0.0, None, Multistep.begin()), 10.0, solve)
        assert taken.h == pytest.approx(expected) and taken.rejected == (2 if guessed else 0)


def test_the_anchor_follows_a_part_of_the_velocity():
    """Directions that the equation does not see are so brought to rest, and the others are held back by a tenth."""
    integrator: ImplicitIntegrator = SdirkIntegrator(IntegratorSettings(method="sdirk"), None)
    theta, velocity, seen = np.zeros(2), np.array([1.0, 1.0]), []
    for _ in range(20):  # the equation asks for the velocity (1, .) in every step of length 0.1
        new = np.array([theta[0] + 0.1, integrator.inert(theta, velocity, 0.1)[1]])
        theta, velocity = new, (new - theta) / 0.1
        seen.append(velocity[1])
    np.testing.assert_allclose(seen, INERTIA ** np.arange(1, 21))
    np.testing.assert_allclose(integrator.inert(theta, velocity, 0.5)[0], theta[0] + 0.5 * INERTIA)
