"""One process of a scaling measurement:  python -m nivp_dist.bench.worker '{"n": 40000, ...}'

``scaling`` starts it, alone or by launch/local. The process is bound to its cores before jax is imported, and times a
velocity with a fixed number of CG iterations on all devices, or whole steps of a run. Process 0 prints the result as
one line of JSON.
"""

import json
import os
import sys
import time


def main(argument: str) -> None:
    wanted = json.loads(argument)
    index, cores = int(os.environ.get("NIVP_PROCESS_ID", "0")), wanted["cores"]
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[index])

    from nivp_dist.cluster import session
    from nivp_dist.settings.model import ClusterSettings

    here = session.connect(ClusterSettings(compilation_cache="off"))
    seconds, iterations = _velocities(wanted) if wanted["what"] == "velocity" else _steps(wanted)
    if here.topology.index == 0:
        print(json.dumps({"seconds": seconds, "iterations": iterations}), flush=True)
    here.leave(0)


def _velocities(wanted: dict) -> tuple[list[float], int]:
    """Seconds of each velocity, and its iterations."""
    import jax
    import jax.numpy as jnp

    from nivp_dist.backend.mesh import make_mesh, replicate
    from nivp_dist.galerkin.discretisation import Discretisation
    from nivp_dist.galerkin.velocity import Galerkin
    from nivp_dist.network.network import build_network
    from nivp_dist.points.sampling import Sampler
    from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
    from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

    problem, mesh = FokkerPlanckTrap(dimension=wanted["d"]), make_mesh()
    network = build_network(NetworkSettings(width=wanted["width"], depth=wanted["depth"]), problem)
    sampling = SamplingSettings(points=wanted["n"])
    # The tolerance cannot be met, so that every layout does the same number of iterations.
    solver = SolverSettings(method="pcg", rtol=1e-30, max_iterations=wanted["iterations"])
    galerkin = Galerkin(Discretisation(network, problem, sampling, mesh), solver)
    sampler = Sampler(sampling, problem.domain, network.log_density, mesh)
    theta = replicate(network.initialise(jax.random.key(0)), mesh)
    guess = replicate(jnp.zeros(network.size), mesh)
    points = sampler.draw(jax.random.key(1), replicate(sampler.broadest(), mesh))
    shared = galerkin.prepare(theta, points, jax.random.key(2), wanted["rank"])
    seconds, iterations = [], 0
    for _ in range(wanted["rounds"] + 1):
        started = time.perf_counter()
        result = galerkin.velocity(theta, 0.0, points, shared, guess)
        iterations = result.quality.iterations  # waits for the program
        jax.block_until_ready(result.v)
        seconds.append(time.perf_counter() - started)
    return seconds[1:], iterations


def _steps(wanted: dict) -> tuple[list[float], int]:
    """Seconds of each accepted step of a run as the main loop takes it, and the iterations of the last one.

    Two rounds of a fit are enough for a linear system that is solved in tens of iterations. The steps are so short that
    none is rejected.
    """
    import jax

    from nivp_dist.problems import registry
    from nivp_dist.run.simulation import Simulation
    from nivp_dist.settings.files import read_config

    settings = {
        "problem.parameters.dimension": wanted["d"],
        "network.width": wanted["width"],
        "network.depth": wanted["depth"],
        "sampling.points": wanted["n"],
        "solver.method": "pcg",
        "solver.mu": 1e-6,
        "solver.rank": wanted["rank"],
        "fit.iterations": 2,
        "fit.on_miss": "continue",
        "integrator.initial_step": 1e-5,
        "integrator.max_step": 1e-5,
        "output.spectrum_every": 0,
    }
    config = read_config("fokker_planck_trap_5d", {key: str(value) for key, value in settings.items()})
    run = Simulation(config, registry.load(config.problem))
    state = run.begin()
    while not run.fits.is_done(state):
        state = run.fits.advance(state)
    state = run.after_output(run.fits.finish_initial(state)[0])
    seconds, iterations = [], 0
    for _ in range(wanted["rounds"] + 2):
        started = time.perf_counter()
        accepted = run.step(state, lambda: None)
        state, iterations = accepted.state, int(accepted.metrics["cg_iterations"])
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - started)
    return seconds[2:], iterations  # the first two compile


if __name__ == "__main__":
    main(sys.argv[1])
