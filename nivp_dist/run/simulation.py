"""One run, assembled from its fits, its steps and its outputs: what the main loop calls."""

from collections.abc import Callable

import jax.numpy as jnp

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import make_mesh, memory_limit
from nivp_dist.errors import InputError
from nivp_dist.fitting.restart import reason_to_refit
from nivp_dist.integration.bdf import Multistep
from nivp_dist.integration.switching import Switching
from nivp_dist.monitoring.adaptation import MuAdaptation, PointRefinement
from nivp_dist.monitoring.advice import unseen_mass
from nivp_dist.monitoring.estimate import Estimate
from nivp_dist.monitoring.evaluation import Score, Scorer, lost_mass
from nivp_dist.monitoring.signatures import StepHistory
from nivp_dist.network import own_checks
from nivp_dist.network.forms import for_problem
from nivp_dist.network.network import network_of
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.base import Problem
from nivp_dist.run import whole_vectors
from nivp_dist.run.auto_steps import AutoStepper
from nivp_dist.run.fits import Fits
from nivp_dist.run.implicit_steps import ImplicitStepper
from nivp_dist.run.observation import observe
from nivp_dist.run.settled import settled
from nivp_dist.run.solvers import Solvers
from nivp_dist.run.start import judge
from nivp_dist.run.state import EVOLVE, FINISHED, FIT, State, replicated
from nivp_dist.run.stepping import Accepted, Stepping
from nivp_dist.run.steps import Stepper
from nivp_dist.settings.automatic import first_step, number_of_points, resolved
from nivp_dist.settings.model import Config
from nivp_dist.settings.output_times import is_at, output_times


class Simulation:
    """A problem and its settings on a mesh, as functions from State to State.

    Args:
        note: called with a line for the reader where p is large for the memory of a device.

    Attributes:
        fits: the initial fit and refits (``run.fits``). stepper: accepted steps (``run.steps``).
        scorer: errors and integrals at output times. output_times: in order, t_start and t_end among them.

    Raises InputError if the settings do not suit the problem or the devices.
    """

    def __init__(self, config: Config, problem: Problem, note: Callable[[str], None] = lambda line: None):
        config = for_problem(settled(config, problem), problem)
        self.network = network = network_of(config, problem)
        own_checks.check(network)
        self.config = config = resolved(config, network.size, network.log_density)
        self.problem, self.mesh = problem, make_mesh(config.devices, config.cluster.reproducible)
        self.output_times = output_times(config)
        squares = network.form == "direct"
        self.sampler = Sampler(config.sampling, problem.domain, network.log_density, self.mesh, squares=squares)
        if (points := number_of_points(config.sampling)) < self.mesh.size:
            raise InputError(f"sampling.points = {points} is less than one for each device")
        if config.integrator.atol is not None and network.log_density:
            raise InputError("integrator.atol is of no use where the network represents log u: leave it out")
        solvers = Solvers(config, problem, self.mesh)
        self.galerkin = solvers.of_steps(network)
        self.fits = Fits(solvers, network, self.sampler, self.galerkin.initial_rank)
        self.stepper = self._stepper(solvers)
        whole = whole_vectors.count(config, network.size, self.stepper.earlier)
        whole_vectors.require_room(whole, memory_limit(self.mesh), note)
        self.scorer = Scorer(problem, network, self.sampler, config.output.evaluation_points, config.seed)

    def _stepper(self, solvers: Solvers) -> Stepping:
        config, galerkin = self.config, self.galerkin
        direct = solvers.direct_of_steps(self.network, galerkin)
        common = (config, galerkin, self.sampler, self.output_times)
        if config.integrator.implicit:
            return ImplicitStepper(*common, config.integrator.method, direct)
        explicit = Stepper(*common, direct)
        if config.integrator.method == "auto" and solvers.implicit_steps_possible(self.network):
            return AutoStepper(*common, explicit)
        return explicit

    # Beginning ------------------------------------------------------------------------------------

    def finish_initial(self, state: State) -> tuple[State, float, list[str]]:
        """``Fits.finish_initial``, with warnings about the start (``run.start``). Raises RunFailed as both do."""
        state, error = self.fits.finish_initial(state)
        return state, error, judge(self.config, self.scorer, state, error)

    def begin(self, seed: int | None = None) -> State:
        """The state before the first round of the initial fit. seed: that of the settings, or another one."""
        key = random_keys.run_key(self.config.seed if seed is None else seed)
        density, fit = self.fits.begin_initial(key)
        floor = self.fits.size_floor(key, density)
        state = self.blank()._replace(
            key=random_keys.to_data(key), density=density, initial_density=density, fit=fit, size_floor=floor
        )
        return replicated(state, self.mesh)

    def resumed(self, state: State) -> State:
        """A restored state under output times that may have changed: those after t are still to come."""
        phase, passed = state.phase, self.outputs_before(state.t)
        # The output at t itself may be still to come: the state was saved between the step and its output.
        at = any(is_at(self.config, state.t, output) for output in self.output_times)
        here = at and (phase == FINISHED or state.outputs_written == passed + 1)
        written = passed + here
        if phase == FINISHED and written < len(self.output_times):
            phase = EVOLVE
        return state._replace(outputs_written=written, phase=phase)

    def blank(self) -> State:
        """A state of the right shapes with nothing in it yet: a checkpoint is read into it."""
        zeros, integrator = jnp.zeros(self.network.size), self.config.integrator
        state = State(
            phase=FIT,
            key=random_keys.to_data(random_keys.run_key(self.config.seed)),
            theta=zeros,
            velocity=zeros,
            earlier=jnp.zeros((self.stepper.earlier, self.network.size)),
            multistep=Multistep.begin(),
            switching=Switching.begin(),
            density=self.sampler.broadest(),
            initial_density=self.sampler.broadest(),
            fit=self.fits.initial.start(jnp.zeros(self.fits.fitted.size)),
            t=integrator.t_start,
            h=min(first_step(integrator), integrator.max_step),
            previous_error=1.0,
            step=0,
            rank=self.galerkin.initial_rank,
            reuse_sketch=True,
            rejected=0,
            evaluations=0,
            cg_iterations=0,
            refits=0,
            refit_attempts=0,
            outputs_written=0,
            health=None,
            baseline=None,
            estimate=Estimate(),
            history=StepHistory.begin(),
            mu_adaptation=MuAdaptation(),
            point_refinement=PointRefinement(),
            size_floor=0.0,
            fit_step=0,
            fit_t=integrator.t_start,
            transitions=0,
        )
        return replicated(state, self.mesh)

    # Transitions ----------------------------------------------------------------------------------

    def step(self, state: State, poll: Callable[[], None]) -> Accepted:
        """One accepted step, with what follows from it for the run. `poll` is called between its stages."""
        return observe(self.config, state, self.stepper.step(state, poll))

    def reason_to_refit(self, state: State) -> str | None:
        """Why to refit before the next step (``fitting.restart``), or None."""
        steps, baseline = state.step - state.fit_step, state.baseline
        if baseline and self.stepper.direct is not None:
            # More CG iterations are no reason here: direct solves take over where CG becomes the dearer method, and a
            # network may be as good as ever while its spectrum fills up.
            baseline = baseline._replace(cg_iterations=0.0)
        return reason_to_refit(self.config.restart, state.health, baseline, steps, state.t, state.fit_t)

    def output_due(self, state: State) -> bool:
        """Whether the next output time has been reached."""
        if state.outputs_written == len(self.output_times):
            return False
        output = self.output_times[state.outputs_written]
        return state.t >= output or is_at(self.config, state.t, output)

    def outputs_before(self, t: float) -> int:
        """The number of output times before t."""
        return sum(output < t and not is_at(self.config, t, output) for output in self.output_times)

    def score(self, state: State) -> Score:
        """Errors and moments at the output time that is due."""
        return self.scorer.score(state.theta, state.density, state.t, state.outputs_written)

    def lost_mass(self, state: State, score: Score) -> str | None:
        """A message if the mass of a density is not that at its start (``monitoring.evaluation``), else None."""
        if not self.problem.density:
            return None
        # The start itself may not be normalised. Points can miss a part of its mass, and not see more than there is.
        # All processes measure it together, so that this may not depend on the score, which each computes by itself.
        mass, error = self.fits.mass_at_start(state.initial_density)
        start = mass if unseen_mass(mass, error) is not None and mass > 1.0 else 1.0
        return lost_mass(self.problem, score, state.estimate.error, start)

    def after_output(self, state: State) -> State:
        """The state after an output: waiting for the next one, or finished."""
        written = state.outputs_written + 1
        phase = FINISHED if written == len(self.output_times) else state.phase
        return state.after(outputs_written=written, phase=phase)
