"""When a run measures the spectrum of M, and the numbers that its metrics get from it. No result depends on them."""

import time
from functools import partial

from nivp_dist.backend import random_keys
from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.methods import ITERATIVE, measurement_interval
from nivp_dist.galerkin.spectrum import least_eigenvalue
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.stages import Stages
from nivp_dist.monitoring import conditioning
from nivp_dist.run.state import State
from nivp_dist.settings.automatic import mu_of, number_of_points
from nivp_dist.settings.model import Config
from nivp_dist.settings.output_times import is_at


class SpectrumWatch:
    """The measurements of one configuration, each of M at the start of a step, on the points of that step.

    Args:
        galerkin: the solver that the run begins with. velocities: of a step.
    """

    def __init__(self, config: Config, galerkin: Galerkin, velocities: int):
        self.config, every = config, config.output.spectrum_every
        self.automatic = every == "auto"
        if every == "auto":
            points, rank = number_of_points(config.sampling), galerkin.initial_rank
            method = galerkin.linear_solver.method_for(points)
            every = measurement_interval(method, galerkin.network, points, mu_of(config.solver), rank, velocities)
        self.every = every

    def due(self, state: State, t: float, output: float) -> bool:
        """Whether to measure in the step from `state` to the time t; output: the next output time.

        It depends on nothing but the state, so that all processes measure at the same steps, and a resumed run too.
        """
        written = state.outputs_written if is_at(self.config, t, output) else None
        return is_due(self.every, self.automatic, state.step, written)

    def measure(self, state: State, stages: Stages) -> dict[str, float]:
        """The numbers for the metrics of the step, of those that are known, and the seconds that it took.

        state: before the step. Every process calls it.
        """
        started = time.perf_counter()
        galerkin, regularisation = stages.galerkin, stages.at_start
        key = random_keys.spectrum_probes_key(state.run_key, state.step)
        measured = galerkin.spectrum.measure(state.theta, state.t, stages.points, regularisation, key)
        iterative, stop = galerkin.method in ITERATIVE, galerkin.linear_solver.stopping_rule()
        facts = conditioning.Solver(
            size=galerkin.network.size,
            mu=float(regularisation.mu),
            layers=["_".join(layer.path) for layer in galerkin.network.layers],
            least=least_eigenvalue(galerkin, float(regularisation.mu), float(regularisation.trace)),
            by_samples=galerkin.method == "dual_pcg",
            most_iterations=partial(pcg.most_iterations, stop=stop) if iterative else None,
        )
        numbers = conditioning.numbers(measured, facts)
        if iterative and stages.first is not None:
            numbers["cg_iterations_first"] = stages.first_iterations
        return numbers | {"spectrum_seconds": round(time.perf_counter() - started, 3)}


def is_due(every: int, automatic: bool, step: int, written: int | None) -> bool:
    """Whether to measure in the step after so many steps.

    Args:
        every: steps between two measurements; 0: none. automatic: outputs count only as far as there are no more of
            them than of other measurements.
        written: outputs before this step, that at the start included, if it ends at one; else None.
    """
    if every == 0:
        return False
    at_output = written is not None and (not automatic or (written - 1) * every <= step)
    return step % every == 0 or at_output
