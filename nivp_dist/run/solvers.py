"""The Galerkin solvers of a run: those of its steps and those of its fits differ in points, network and method."""

from jax.sharding import Mesh

from nivp_dist.backend.mesh import is_ordered
from nivp_dist.errors import InputError
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.hardware import hardware_of
from nivp_dist.galerkin.implicit_methods import implicit_method
from nivp_dist.galerkin.methods import ITERATIVE, direct_method
from nivp_dist.galerkin.taylor import usable_order
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import Network
from nivp_dist.problems.base import Problem
from nivp_dist.settings.automatic import norm_of, number_of_points
from nivp_dist.settings.model import Config
from nivp_dist.settings.rules import without_implicit_steps


class Solvers:
    """Makes the solvers of one configuration on one mesh."""

    def __init__(self, config: Config, problem: Problem, mesh: Mesh):
        self.config, self.problem, self.mesh = config, problem, mesh
        self.hardware = hardware_of(mesh, config.solver.precision)

    def of_steps(self, network: Network) -> Galerkin:
        """The solver of the velocities, or of the corrections of implicit steps, as solver.method says.

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
            points = number_of_points(config.sampling)
            method = implicit_method(config.solver, network, points, is_ordered(self.mesh), self.hardware)
            if (reason := _unsupported(network, self.problem)) is not None:
                raise InputError(f"integrator.method = {config.integrator.method!r} {reason}")
            if method == "primal" and network.size**2 > self.hardware.entries:
                raise InputError(
                    f"solver.method = 'primal' needs a matrix of {network.size} x {network.size} parameters, too large "
                    "for a device: set solver.method = 'pcg', or lower network.width"
                )
            solver = config.solver.model_copy(update={"method": method})
            return Galerkin(Discretisation(network, self.problem, config.sampling, self.mesh), solver)
        discretisation = Discretisation(network, self.problem, config.sampling, self.mesh, norm_of(config.solver))
        return Galerkin(discretisation, config.solver, rate_rtol=config.integrator.rtol)

    def implicit_steps_possible(self, network: Network) -> bool:
        """Whether implicit steps, whose corrections the matrix gives, can be taken beside explicit ones."""
        by_matrix = self.config.solver.method != "pcg" and network.size**2 <= self.hardware.entries
        settings_allow = without_implicit_steps(self.config) is None
        return by_matrix and settings_allow and _unsupported(network, self.problem) is None

    def direct_of_steps(self, network: Network, chosen: Galerkin) -> Galerkin | None:
        """The direct solver to which a run by CG may go over: None without solver.method = 'auto', or where `chosen`
        is direct already, or where the matrix would be too large."""
        config, method = self.config, direct_method(network, number_of_points(self.config.sampling), self.hardware)
        if config.integrator.implicit:
            method = "primal" if network.size**2 <= self.hardware.entries else None
        if config.solver.method != "auto" or chosen.method not in ITERATIVE or method is None:
            return None
        solver = config.solver.model_copy(update={"method": method})
        return Galerkin(Discretisation(network, self.problem, config.sampling, self.mesh), solver)

    def of_fits(self, network: Network, points: int) -> Galerkin:
        """The solver of the corrections of a fit on that number of points."""
        return self._of_fits(network, points, self.config.solver)

    def iterative_of_fits(self, network: Network, points: int) -> Galerkin | None:
        """The same by CG for the samples, for the rounds in which that is far cheaper; None if a method is set, and on
        an ordered mesh, which it does not support."""
        if self.config.solver.method != "auto" or is_ordered(self.mesh):
            return None
        solver = self.config.solver.model_copy(update={"method": "dual_pcg", "rank": "adaptive"})
        return self._of_fits(network, points, solver)

    def _of_fits(self, network: Network, points: int, solver) -> Galerkin:
        sampling = self.config.sampling.model_copy(update={"points": points})
        return Galerkin(
            Discretisation(network, self.problem, sampling, self.mesh),
            solver,
            usable_order(self.config.fit.order, network.dtype),
        )


def _unsupported(network: Network, problem: Problem) -> str | None:
    """Why implicit steps cannot be taken with this network or problem, or None."""
    if callable(problem.integrals):
        return "does not differentiate integrals of the solution, and the problem has some: take an explicit method"
    if network.form != "direct":
        return f"needs network.form = 'direct', and it is {network.form!r}"
    return None
