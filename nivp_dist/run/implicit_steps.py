"""One accepted implicit step of a run, from State to State. The numerics are in ``integration.implicit_attempts``."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend.host_numbers import read
from nivp_dist.errors import RunFailed
from nivp_dist.fitting.restart import step_end
from nivp_dist.galerkin.implicit import ImplicitSteps
from nivp_dist.galerkin.implicit_cg import IterativeCorrections
from nivp_dist.galerkin.norms import ResidualCheck
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.bdf_attempts import BdfIntegrator
from nivp_dist.integration.implicit_attempts import Before, ImplicitIntegrator, TakenImplicit
from nivp_dist.integration.implicit_solve import ImplicitSolve
from nivp_dist.integration.implicit_systems import DirectSystems, IterativeSystems
from nivp_dist.integration.sdirk_attempts import SdirkIntegrator
from nivp_dist.integration.solver_choice import Discretisation
from nivp_dist.points.sampling import Sampler
from nivp_dist.run.state import State
from nivp_dist.run.stepping import Accepted, SingleNumbers, Stepping
from nivp_dist.run.steps import last_step
from nivp_dist.settings.automatic import mu_of
from nivp_dist.settings.model import Config

INTEGRATORS: dict[str, type[ImplicitIntegrator]] = {"bdf": BdfIntegrator, "sdirk": SdirkIntegrator}


class ImplicitStepper(Stepping):
    """Takes accepted implicit steps for one configuration.

    Args:
        galerkin: gives discretisation, solver settings and messages; the implicit equations have their own programs.
        method: "bdf" or "sdirk".
        direct: a solver by "primal" that takes over from CG where that costs less, or None.
        by_matrix: whether corrections are solved by the matrix, whatever the method of `galerkin`.
    """

    def __init__(
        self,
        config: Config,
        galerkin: Galerkin,
        sampler: Sampler,
        output_times,
        method: str,
        direct: Galerkin | None = None,
        by_matrix: bool = False,
    ):
        super().__init__(config, galerkin, sampler, output_times)
        self.galerkin, self.damping, self.direct = galerkin, mu_of(config.solver), direct
        self.programs = ImplicitSteps(galerkin.discretisation)
        by_cg = galerkin.method == "pcg" and not by_matrix
        self.iterative = IterativeCorrections(self.programs, galerkin) if by_cg else None
        self.integrator = INTEGRATORS[method](config.integrator, self.programs)
        self.earlier = self.integrator.earlier
        self._stacked = jax.jit(lambda theta, earlier: jnp.concatenate([theta[None], earlier]))
        self._velocity = jax.jit(lambda new, theta, h: (new - theta) / h)

    def step(self, state: State, poll: Callable[[], None]) -> Accepted:
        """One accepted step. `poll` is called between corrections and may raise to interrupt.

        Raises RunFailed when the step size falls below integrator.min_step, and when the problem's rhs is not finite.
        """
        at = self.discretisation(state)
        systems = self._systems(state, at)
        solve = ImplicitSolve(self.programs, at.points, systems, self.damping * at.mu_factor, poll)
        start = self.start(state)
        end = step_end(self.restart, state.fit_t, self.next_output(state))
        before = Before(start, state.velocity, self._stacked(state.theta, state.earlier), state.multistep)
        taken = self.integrator.take(before, end, solve)
        checks = self._checks(state, taken)
        new = self._state_after(state, solve, taken, checks)
        metrics = self._metrics(state, new, solve, taken, checks[-1])
        return Accepted(new, metrics, sorted(set(systems.warnings)), [])

    def method(self, state: State) -> str:
        """The name of the method that solves the linear systems of the next corrections."""
        return "pcg" if self.iterative is not None and state.rank else "primal"

    def _systems(self, state: State, at: Discretisation) -> DirectSystems:
        if self.iterative is None or state.rank == 0:
            return DirectSystems(self.programs)
        return IterativeSystems(self.iterative, at.key, last_step(state), direct=self.direct is not None)

    def _checks(self, state: State, taken: TakenImplicit) -> list[ResidualCheck]:
        """The equations of the step on points to which their solutions were not fitted."""
        fresh, checks = self.points_of_check(state), []
        for theta, thetas, formula, t, *_ in taken.solved.equations:
            found = self.programs.check(theta, thetas, formula.earlier, formula.gamma, t, fresh)
            checks.append(read(ResidualCheck, found))
            if not np.isfinite(checks[-1].residual) and (rhs := self.galerkin.rhs_not_finite(theta, t, fresh)):
                raise RunFailed(rhs)
        return checks

    def _state_after(
        self, state: State, solve: ImplicitSolve, taken: TakenImplicit, checks: list[ResidualCheck]
    ) -> State:
        solved, rates = taken.solved, [check.residual_rate for check in checks]
        rate = sum(equation.weight * each for equation, each in zip(solved.equations, rates))
        misfit = rates[-1] * solved.equations[-1].formula.gamma
        return state._replace(
            theta=solved.theta,
            velocity=self._velocity(solved.theta, state.theta, taken.h),
            earlier=taken.before.thetas[:-1],
            multistep=state.multistep.after_step(taken.h, misfit, taken.order, taken.next.order),
            density=self.density_after(state, solve.points, solved.theta, taken.t),
            t=float(taken.t),
            h=float(taken.next.h),
            previous_error=float(solved.errors[taken.order]),
            step=state.step + 1,
            rank=solve.systems.next_rank(solve.evaluations, len(solve.points.x)),
            reuse_sketch=solve.systems.reuse,
            rejected=state.rejected + taken.rejected,
            evaluations=state.evaluations + taken.evaluations,
            cg_iterations=state.cg_iterations + solve.systems.iterations,
            estimate=state.estimate.after_step(taken.h, rate, solved.error),
        )

    def _metrics(self, state: State, new: State, solve: ImplicitSolve, taken: TakenImplicit, check) -> dict:
        """A line of metrics.jsonl, with the names that explicit steps have too (guide: files and formats)."""
        numbers = self._single_numbers(new.theta, new.velocity, state.velocity, solve.points.weights)
        systems = solve.systems
        metrics = {
            "step": new.step,
            "t": new.t,
            "h": taken.h,
            "error": taken.solved.error,
            "order": taken.order,
            "implicit": 1,
            "rejected": taken.rejected,
            "residual": taken.solved.residual,
            "residual_fresh": check.residual,
            "cg_iterations": systems.iterations,
            "cg_wasted": systems.wasted,
            "cg_residual": systems.worst,
            "evaluations": taken.evaluations,
            "rank": systems.rank or None,
            "mu": np.nan,  # the damping of a correction is relative to the trace of A^T W A, and not of M
            "trace": np.nan,
            "points": self.number_of_points(new),
            "coverage": check.coverage,
        }
        bounds = {"jacobian_share": np.nan, "h_rho": np.nan, "h_rho_angle": np.nan, "h_rho_limit": np.inf}
        bounds["theta_step"] = taken.h * float(jnp.linalg.norm(new.velocity))
        return metrics | read(SingleNumbers, numbers)._asdict() | bounds | new.estimate.entries()
