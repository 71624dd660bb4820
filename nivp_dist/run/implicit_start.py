"""The start of implicit steps: the initial fit, made better in the norm that their equations are solved in.

An implicit step solves q - gamma f(q) = target by least squares. A fit of q = u0 in L2 leaves errors of high
wavenumber, which f, with its derivatives, makes large: the first step then solves its equation for what the fit has
missed. Measured with kdv_1d (a fit to 1.9e-6, and ten times that in the norm of q - gamma f): the first step needs 24
corrections and leaves an error of 1.1e-4, which stays; it needs 14, with an error of 3e-6, after this.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import pointwise
from nivp_dist.galerkin.implicit import Equation, ImplicitSteps
from nivp_dist.integration.step_points import StepPoints
from nivp_dist.points.points import Points
from nivp_dist.problems.wall_data import rate_without_lifting, without_lifting
from nivp_dist.run.state import State
from nivp_dist.run.stepping import present
from nivp_dist.settings.model import IntegratorSettings

ROUNDS = 20
GOAL = 0.01  # of integrator.rtol: the error at which no more rounds are taken
# Dampings relative to the trace, as those of fits: of the first round; the factors after a round that gains and after
# one that does not.
FIRST_DAMPING, DAMPING_FALLS, DAMPING_GROWS = 1e-9, 0.3, 10.0
LENGTHS = (1.0, 0.5, 0.25)  # of a correction that are tried


class ImplicitStart:
    """Corrects the theta of an initial fit, before the first step.

    Args:
        programs: of the steps; no other ones are compiled. points: of the steps. number: of the points.
    """

    def __init__(self, settings: IntegratorSettings, programs: ImplicitSteps, points: StepPoints, number: int):
        self.settings, self.programs, self.points, self.number = settings, programs, points, number
        it = programs.discretisation
        self._target = pointwise(it.mesh, self._left_side, it.chunk)

    def corrected(self, state: State, poll: Callable[[], None]) -> State:
        """The state with a theta whose error on fresh points, in the norm of q - gamma f, is smaller.

        gamma is the first step size. poll: as of ``Stepping.step``.
        """
        theta, damping, draws, rounds = state.theta, FIRST_DAMPING, iter(range(2 * ROUNDS + 2)), 0
        size = float(self.programs.size(theta, state.t, self._draw(state, next(draws)))) or 1.0
        while rounds < ROUNDS:
            poll()
            rounds += 1
            equation, fresh = (self._equation(state, theta, state.h, self._draw(state, next(draws))) for _ in "ab")
            delta = self.programs.correction(theta, equation, damping).delta
            candidates = [theta, *(theta + length * delta for length in LENGTHS)]
            errors = np.array([self._error(each, fresh) for each in candidates]) / size
            best = int(np.argmin(np.where(np.isfinite(errors), errors, np.inf)))
            theta, damping = candidates[best], damping * (DAMPING_FALLS if best else DAMPING_GROWS)
            if errors[best] < GOAL * self.settings.rtol:
                break
        # The error in L2 may have become larger than that of the fit.
        error = self._error(theta, self._equation(state, theta, 0.0, self._draw(state, next(draws)))) / size
        estimate = state.estimate._replace(initial=max(error, state.estimate.initial))
        return state._replace(theta=theta, estimate=estimate, evaluations=state.evaluations + rounds)

    def _equation(self, state: State, theta, gamma: float, points: Points) -> Equation:
        return Equation(gamma, state.t, self._target((gamma, state.t), points.x), points, theta)

    def _error(self, theta, equation: Equation) -> float:
        return float(self.programs.misfit(theta, equation, equation.target).size)

    def _draw(self, state: State, draw: int) -> Points:
        key = random_keys.start_points_key(state.run_key, draw)
        return self.points.draw(present(state), key, self.number)

    def _left_side(self, context, x):
        """q - gamma f of the initial condition at x (n, d): (n, m)."""
        gamma, t = context
        problem, network = self.programs.discretisation.problem, self.programs.discretisation.network

        shape = () if network.outputs == 1 else (network.outputs,)
        initial = lambda point: jnp.reshape(problem.initial(point), shape)  # noqa: E731
        flat = lambda values: jnp.reshape(values, (network.outputs,))  # noqa: E731

        def at(point):
            point = point.astype(network.dtype)
            f = rate_without_lifting(problem, flat(problem.rhs(initial, point, t)), point, t)
            field = network.as_field(flat(without_lifting(problem, initial, t)(point)))
            return (field - gamma * network.as_field_rate(f, flat(initial(point)))).astype(jnp.float64)

        return jax.vmap(at)(x)
