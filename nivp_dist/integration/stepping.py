"""One accepted step of a run: points, stages, error, retry. The numerics of the main loop."""

from functools import partial
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import AXIS
from nivp_dist.errors import RunFailed
from nivp_dist.galerkin.methods import ITERATIVE, after_doubling, direct_work, step_work
from nivp_dist.galerkin.velocity import Galerkin, Regularisation, effective_dimension
from nivp_dist.integration.stages import StageFailed, Stages
from nivp_dist.integration.tableaus import TABLEAUS, StepControl, attempt
from nivp_dist.points import selection
from nivp_dist.points.points import effective_sample_size, pad
from nivp_dist.points.sampling import Sampler
from nivp_dist.run.state import State
from nivp_dist.settings.model import Config

TELEMETRY_RANK = 32  # of the sketch that only watches the spectrum, with direct solves
WORTH_DOUBLING = 1 / 6  # CG iterations a velocity, over the rank, above which a larger sketch is cheaper
TRIED_AGAIN = 10  # steps after which a sketch is used for all stages again, where it did not serve


class Accepted(NamedTuple):
    """The state after an accepted step, its metrics (JSON-ready), and warnings in words."""

    state: State
    metrics: dict
    warnings: list[str]


class Stepper:
    """Takes accepted steps for one configuration.

    direct: the same by a direct solve, to which a run goes over where CG has become the dearer one; or None.
    """

    def __init__(
        self,
        config: Config,
        galerkin: Galerkin,
        sampler: Sampler,
        output_times,
        direct: Galerkin | None = None,
    ):
        self.settings, self.solver, self.sampling = config.integrator, config.solver, config.sampling
        self.galerkin, self.direct, self.sampler = galerkin, direct, sampler
        self.output_times, self.telemetry_rank = output_times, min(TELEMETRY_RANK, galerkin.network.size)
        self.tableau = TABLEAUS[self.settings.method]
        self.control = StepControl(self.tableau.order, self.settings.min_step, self.settings.max_step)
        self._values = jax.jit(galerkin.network.values)
        self._combine, self._telemetry = jax.jit(_combine), jax.jit(_telemetry)
        sharding = NamedSharding(galerkin.mesh, P(AXIS))
        self._select = jax.jit(self._by_residual, static_argnames="n", out_shardings=sharding)
        self._follow = jax.jit(self._by_solution, static_argnames="n", out_shardings=sharding)

    def method(self, state: State) -> str:
        """What solves for the velocities of the next step (``galerkin.methods``)."""
        galerkin = self.direct if self.direct is not None and state.rank == 0 else self.galerkin
        return galerkin.linear_solver.method_for(self.sampling.points * state.point_refinement.factor)

    def step(self, state: State, poll: Callable[[], None]) -> Accepted:
        """One accepted step. `poll` is called between stages and may raise to interrupt.

        Raises RunFailed when the step size falls below integrator.min_step.
        """
        draw = state.step // self.sampling.redraw_every
        new_points = state.step % self.sampling.redraw_every == 0
        points = self._points(state, draw)
        run = self._stages(state, points, self._regularise(state, points), poll)
        # The last stage before serves as the first of this one on the same points, if theta is still its own.
        kept = self.tableau.fsal and not new_points and state.step != state.fit_step
        first = state.velocity if kept else None
        if kept:
            run.first_rate = run.galerkin.rate(state.theta, first, points)

        target = self.output_times[min(state.outputs_written, len(self.output_times) - 1)]
        h, rejected, reasons = state.h, 0, []
        while True:
            # Land on an output time exactly; do not leave a sliver of a step before it.
            left = target - state.t
            cut = left <= h * (1 + 1e-9)
            h_try = left if cut else (left / 2 if left < 2 * h else h)
            error, step = self._attempt(run, state, h_try, first)
            first = run.first if run.first is not None else first
            if error <= 1.0:
                break
            rejected += 1
            if first is None and self.direct is not None and run.galerkin is not self.direct:
                # CG has failed at the first stage already, whatever the step's length.
                run = self._stages(state, points, self._directly(state, points), poll)
                continue
            reasons.append(run.failure or f"error {error:.1e} of the tolerance")
            h = self.control.rejected(h_try, error)
            if h < self.settings.min_step:
                raise RunFailed(
                    f"step size below integrator.min_step = {self.settings.min_step:g} at t = {state.t:.6g} "
                    f"({reasons[-1]}); try a larger solver.mu or sampling.points, or integrator.min_step"
                )

        proposed = self.control.accepted(h_try, error, state.previous_error, rejected > 0)
        if h_try < h:  # cut short by an output time: that says nothing against the step size before it
            proposed = max(proposed, h)
        t = target if cut and h_try == left else state.t + h_try
        density = state.density
        if (state.step + 1) % self.sampling.redraw_every == 0 and self.sampling.method != "uniform":
            density = self.sampler.fit(density, points, self._values(step.theta, points.x), sweeps=3)
        fresh = self._drawn(state, random_keys.step_check_key(state.run_key, state.step), self._fresh_points())
        residual_check = run.galerkin.check_residual(state.theta, state.t, first, fresh)
        new = state._replace(
            theta=step.theta,
            velocity=step.last if step.last is not None else first,
            density=density,
            t=float(t),
            h=float(proposed),
            previous_error=float(error),
            step=state.step + 1,
            rank=run.rank,
            reuse_sketch=run.reuse,
            rejected=state.rejected + rejected,
            evaluations=state.evaluations + run.evaluations,
            cg_iterations=state.cg_iterations + run.iterations,
            estimate=state.estimate.after_step(h_try, float(residual_check.residual_rate), error * self.settings.rtol),
        )
        told = self._telemetry(step.theta, first, state.velocity, run.at_start, points.weights)
        metrics = self._metrics(new, run, h_try, error, rejected, residual_check, told)
        return Accepted(new, metrics, sorted(set(run.warnings)))

    # ----------------------------------------------------------------------------------------------

    def _stages(self, state, points, solver: tuple[Galerkin, Regularisation, int], poll) -> Stages:
        (galerkin, regularisation, rank), key = solver, random_keys.step_sketch_key(state.run_key, state.step)
        return Stages(galerkin, points, regularisation, rank, galerkin.largest_rank, key, state.velocity, state.t, poll)

    def _attempt(self, run, state, h, first):
        """(error relative to the tolerance, step); an infinite error if a stage failed."""
        again = run.rank != state.rank or state.step % TRIED_AGAIN == 0
        run.begin(state.reuse_sketch or again, first is not None)
        try:
            step = attempt(self.tableau, run, self._combine, state.theta, state.t, h, first)
        except StageFailed as failure:
            run.failure = str(failure)
            return np.inf, None
        increments = (self._combine(None, h, b, run.rates) for b in (self.tableau.b, self.tableau.b_error))
        size, scale = run.galerkin.step_norms(state.theta, step.theta, step.error, *increments, run.points)
        error = float(size) / (self.settings.rtol * max(float(scale), 1e-300))
        if not np.isfinite(error):
            run.failure, error = "the error of the step is not finite", np.inf
        return error, step

    def _points(self, state: State, draw: int):
        """The step's points: a function of the key, the number of the draw, and the density."""
        key, n = random_keys.step_points_key(state.run_key, draw), self.sampling.points * state.point_refinement.factor
        if self.sampling.method != "residual" or state.step == 0:
            return self._drawn(state, key, n)
        candidates = self.sampler.draw(key, state.density, n * self.sampling.oversampling)
        squares = self.galerkin.residual_squares(state.theta, state.t, state.velocity, candidates)
        return self._select(random_keys.residual_selection_key(state.run_key, draw), candidates, squares, n=n)

    def _drawn(self, state: State, key, n: int):
        """n points by the density, or with sampling.method = 'solution' by the network itself."""
        if self.sampling.method != "solution":
            return self.sampler.draw(key, state.density, n)
        candidates = self.sampler.draw(key, state.density, n * self.sampling.oversampling)
        field = self.galerkin.field(state.theta, candidates.x)
        return self._follow(random_keys.solution_selection_key(key), candidates, field, n=n)

    def _by_residual(self, key, candidates, squares, *, n):
        chosen = selection.select_by_residual(key, candidates, squares, n)
        return pad(chosen, self.galerkin.mesh.size)

    def _by_solution(self, key, candidates, field, *, n):
        network, settings = self.galerkin.network, self.sampling
        logs = field[:, 0] if network.log_density else jnp.log(jnp.linalg.norm(field, axis=-1))
        power, log = 1 / settings.inflation, network.log_density
        chosen = selection.select_by_solution(key, candidates, logs, n, power, settings.uniform_fraction, log)
        return pad(chosen, self.galerkin.mesh.size)

    def _regularise(self, state: State, points) -> tuple[Galerkin, Regularisation, int]:
        """What solves in this step, mu and the approximation that CG is preconditioned with, and its rank.

        Adaptive rank: doubled where the last step's CG iterations cost more than the larger one would. With pcg at
        most up to lambda_l <= 10 mu: a sketch is matrix products at full rate, an iteration runs at that of memory.

        A spectrum fills up as a run goes on (Vlasov: its effective dimension comes to p / 3), and with it rank and
        iterations: where direct solves have become cheaper they take over, until the next refit. Their rank is 0.
        """
        galerkin, rank = self.galerkin, state.rank or self.galerkin.first_rank
        if self.direct is not None and state.rank == 0:
            return self._directly(state, points)
        if state.health is None or state.step == state.fit_step or galerkin.method not in ITERATIVE:
            return galerkin, self._damped(galerkin, state, points, rank), rank
        iterations, limit = state.health.cg_iterations, galerkin.largest_rank
        n, velocities = len(points.x), len(self.tableau.b) if state.reuse_sketch else 1
        work = partial(step_work, galerkin.method, galerkin.network, n, velocities=velocities)
        cost, larger = work(rank, iterations), min(2 * rank, limit)
        if galerkin.method == "dual_pcg" and rank < larger:
            doubled = work(larger, after_doubling(iterations))
            rank, cost = (larger, doubled) if doubled < cost else (rank, cost)
        if self.direct is not None:
            directly = velocities * direct_work(galerkin.network, n)[self.direct.linear_solver.method_for(n)]
            if directly < cost:
                return self._directly(state, points)
        regularisation = self._damped(galerkin, state, points, rank)
        if galerkin.method == "pcg" and rank < larger and iterations > max(20, WORTH_DOUBLING * rank):
            if float(regularisation.sketch.eigenvalues[-1]) > 10 * float(regularisation.mu):
                rank, regularisation = larger, self._damped(galerkin, state, points, larger)
        return galerkin, regularisation, rank

    def _directly(self, state: State, points) -> tuple[Galerkin, Regularisation, int]:
        return self.direct, self._damped(self.direct, state, points, 0), 0

    def _damped(self, galerkin: Galerkin, state: State, points, rank: int) -> Regularisation:
        """mu and a sketch of that rank, mu with the factor that the run has come to. Rank 0: of direct solves."""
        key, rank = random_keys.step_sketch_key(state.run_key, state.step), rank or self.telemetry_rank
        regularisation = galerkin.prepare(state.theta, points, key, rank)
        return regularisation._replace(mu=state.mu_adaptation.factor * regularisation.mu)

    def _fresh_points(self) -> int:
        n = self.sampling.points
        return min(n, max(1000, n // 4))

    def _metrics(self, new, run, h, error, rejected, residual_check, told) -> dict:
        return (
            {
                "step": new.step,
                "t": new.t,
                "h": h,
                "error": error * self.settings.rtol,
                "rejected": rejected,
                "residual": run.first_residual,
                "residual_fresh": float(residual_check.residual),
                "cg_iterations": run.iterations,
                "cg_wasted": run.wasted,
                "cg_residual": run.worst,
                "evaluations": run.evaluations,
                "rank": new.rank or self.telemetry_rank,
                "points": self.sampling.points * new.point_refinement.factor,
                "coverage": float(residual_check.coverage),
            }
            | {name: float(value) for name, value in told.items()}
            | new.estimate.entries()
        )


def _combine(theta, h, coefficients, stages):
    total = sum(c * k for c, k in zip(coefficients, stages)) * h
    return total if theta is None else theta + total


def _telemetry(theta, velocity, before, regularisation, weights) -> dict:
    """Single numbers that describe a step; turn: cosine of the angle to the velocity before, NaN if there was none."""
    eigenvalues, mu = regularisation.sketch.eigenvalues, regularisation.mu
    return {
        "theta_norm": jnp.linalg.norm(theta),
        "mu": mu,
        "trace": regularisation.trace,
        "lambda_max": eigenvalues[0],
        "lambda_min": eigenvalues[-1],
        "condition": (eigenvalues[0] + mu) / mu,
        "effective_dimension": effective_dimension(regularisation),
        "effective_sample_size": effective_sample_size(weights),
        "turn": jnp.vdot(velocity, before) / (jnp.linalg.norm(velocity) * jnp.linalg.norm(before)),
    }
