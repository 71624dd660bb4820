"""The Galerkin solvers of a run: those of its steps and those of its fits differ in points, network and method."""

from jax.sharding import Mesh

from nivp_dist.errors import InputError
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.methods import ITERATIVE, MATRIX_ENTRIES, direct_method
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import Network
from nivp_dist.problems.base import Problem
from nivp_dist.settings.automatic import number_of_points
from nivp_dist.settings.model import Config
from nivp_dist.settings.rules import without_implicit_steps


class Solvers:
    """Makes the solvers of one configuration on one mesh."""

    def __init__(self, config: Config, problem: Problem, mesh: Mesh):
        self.config, self.problem, self.mesh = config, problem, mesh

    def of_steps(self, network: Network) -> Galerkin:
        """The solver of the velocities, as solver.method says; with implicit steps that of the "primal" matrix.

        A step changes the field by a few hundredths, so that J v with a relative error of integrator.rtol changes the
        solution by far less than that.
        """
        config, energy = self.config, self.problem.energy
        if config.solver.norm == "energy" and (not callable(energy) or network.log_density):
            raise InputError(
                "solver.norm = 'energy' needs a problem that defines energy(u, x) and a network that represents u: "
                "leave solver.norm out"
            )
        if config.integrator.implicit:
            if (reason := _without_matrix(network, self.problem)) is not None:
                raise InputError(f"integrator.method = {config.integrator.method!r} {reason}")
            solver = config.solver.model_copy(update={"method": "primal"})
            return Galerkin(Discretisation(network, self.problem, config.sampling, self.mesh), solver)
        discretisation = Discretisation(network, self.problem, config.sampling, self.mesh, config.solver.norm)
        return Galerkin(discretisation, config.solver, rate_rtol=config.integrator.rtol)

    def implicit_steps_possible(self, network: Network) -> bool:
        """Whether implicit steps can be taken beside explicit ones."""
        return without_implicit_steps(self.config) is None and _without_matrix(network, self.problem) is None

    def direct_of_steps(self, network: Network, chosen: Galerkin) -> Galerkin | None:
        """The direct solver to which a run by CG may go over: None without solver.method = 'auto', or where `chosen`
        is direct already, or where the matrix would be too large."""
        config, method = self.config, direct_method(network, number_of_points(self.config.sampling))
        if config.solver.method != "auto" or chosen.method not in ITERATIVE or method is None:
            return None
        solver = config.solver.model_copy(update={"method": method})
        return Galerkin(Discretisation(network, self.problem, config.sampling, self.mesh), solver)

    def of_fits(self, network: Network, points: int) -> Galerkin:
        """The solver of the corrections of a fit on that number of points."""
        return self._of_fits(network, points, self.config.solver)

    def iterative_of_fits(self, network: Network, points: int) -> Galerkin | None:
        """The same by CG for the samples, for the rounds in which that is far cheaper; None if a method is set."""
        if self.config.solver.method != "auto":
            return None
        solver = self.config.solver.model_copy(update={"method": "dual_pcg", "rank": "adaptive"})
        return self._of_fits(network, points, solver)

    def _of_fits(self, network: Network, points: int, solver) -> Galerkin:
        sampling = self.config.sampling.model_copy(update={"points": points})
        return Galerkin(Discretisation(network, self.problem, sampling, self.mesh), solver, fitting=True)


def _without_matrix(network: Network, problem: Problem) -> str | None:
    """Why implicit steps cannot be taken with this network or problem, or None."""
    if callable(problem.integrals):
        return "does not differentiate integrals of the solution, and the problem has some: take an explicit method"
    if network.form != "direct":
        return f"needs network.form = 'direct', and it is {network.form!r}"
    if network.size**2 > MATRIX_ENTRIES:
        return (
            f"needs a matrix of {network.size} x {network.size} parameters, too large for a device: "
            "lower network.width, or take an explicit method"
        )
    return None
