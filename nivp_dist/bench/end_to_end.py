"""A whole problem from the initial fit to t_end: the time to the same final error, ours and the published procedure.

Both are compiled before the clock starts; of ours the second of two runs is timed. The published procedure has the
settings with which its code did best in our trials. Ours has the shipped configuration with coarser settings, such that
it is still as accurate as the published one. Errors are taken against the problem's reference on the same points.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.bench import cases
from nivp_dist.bench.published import Failed, Published, Settings
from nivp_dist.bench.published_fit import PublishedFit
from nivp_dist.monitoring.evaluation import Scorer
from nivp_dist.network.network import build_network
from nivp_dist.problems import registry
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import State
from nivp_dist.settings.files import read_config, shipped_configs
from nivp_dist.settings.model import Config, NetworkSettings


class Task(NamedTuple):
    """config: the shipped configuration of ours. overrides: its coarser settings. network, published: settings of the
    published procedure."""

    config: str
    overrides: dict[str, str]
    t_end: float
    network: dict
    published: Settings
    seconds: float  # the published evolution is given up after this time


FULL = {
    "advection": Task(
        "advection_2d",
        {"integrator.rtol": "1e-3", "solver.rtol": "1e-4", "fit.stop_at": "5e-3", "sampling.points": "3000"},
        0.5,
        cases.NETWORK,
        Settings(points=2500, rank=200, epochs=20_000),
        1800.0,
    ),
    "fokker_planck_trap": Task(
        "fokker_planck_trap_5d",
        {"integrator.rtol": "1e-2", "fit.stop_at": "1e-2", "sampling.points": "3000"},
        0.67,
        cases.NETWORK,
        Settings(points=5000, epochs=5_000),
        1800.0,
    ),
}
_TINY = {"network.width": "8", "sampling.points": "400", "fit.points": "400", "fit.iterations": "6"}
_TINY |= {"fit.on_miss": "continue", "output.evaluation_points": "1000"}
QUICK = {
    "fokker_planck_trap": Task(
        "fokker_planck_trap_5d",
        _TINY | {"integrator.rtol": "1e-2"},
        0.05,
        cases.SMALL,
        Settings(points=300, rank=40, mu=1e-5, epochs=50, batch=500, head_points=2000, rtol=1e-2),
        30.0,
    )
}


def measure(task: Task) -> dict:
    """A line of the table. Where the published procedure fails, the ratio of times is a lower bound."""
    overrides = task.overrides | {"integrator.t_end": str(task.t_end), "output.times": "[]", "devices": "1"}
    config = read_config(shipped_configs()[task.config], overrides)
    run = Simulation(config, registry.load(config.problem))
    cold, _ = solve(run)
    ours, state = solve(run)
    ours["compile_seconds"] = cold["seconds"] - ours["seconds"]
    published = Published(
        build_network(NetworkSettings(**task.network, dtype="float32"), run.problem), run.problem, task.published
    )
    theirs, theta = _published(published, task)
    ours["error"] = run.scorer.score(state.theta, state.density, task.t_end, 1).relative_l2
    error = None if theta is None else _error(config, run, published.network, theta, state, task.t_end)
    theirs["error"] = error
    return {
        "problem": config.problem.name,
        "t_end": task.t_end,
        "ours": ours,
        "published": theirs,
        "ratio": theirs["seconds"] / ours["seconds"],
        "as_accurate": error is None or ours["error"] <= error,
        "lower_bound": error is None,
    }


def _error(config: Config, run: Simulation, network, theta, state, t: float) -> float:
    """The relative L2 error of the published solution, on the points of our own error."""
    scorer = Scorer(run.problem, network, run.sampler, config.output.evaluation_points, config.seed)
    return scorer.score(theta, state.density, t, 1).relative_l2


def solve(run: Simulation) -> tuple[dict[str, Any], State]:
    """({seconds, fit_seconds, steps, evaluations}, state at t_end) of the main loop without files and messages."""
    started = time.perf_counter()
    state = _fit(run, run.begin())
    state = run.after_output(run.fits.finish_initial(state)[0])
    fitted = time.perf_counter()
    while not run.output_due(state):
        if run.reason_to_refit(state):
            state = run.fits.finish_refit(_fit(run, run.fits.begin_refit(state)))[0]
        state = run.step(state, lambda: None).state
    jax.block_until_ready(state.theta)
    times = {"seconds": time.perf_counter() - started, "fit_seconds": fitted - started}
    return times | {"steps": state.step, "evaluations": state.evaluations}, state


def _fit(run: Simulation, state):
    while not run.fits.is_done(state):
        state = run.fits.advance(state)
    return state


def _published(published: Published, task: Task) -> tuple[dict[str, Any], jax.Array | None]:
    """({seconds, ...}, theta at t_end, or None if it was not reached)."""
    settings, network, problem = published.settings, published.network, published.problem
    target = jax.jit(jax.vmap(lambda x: jnp.reshape(problem.initial(x), (network.outputs,))))
    fit = PublishedFit(network, problem, settings, target)
    key = jax.random.key(0)
    began = time.perf_counter()
    theta = network.initialise(key)
    state = fit.step(fit.begin(theta), key)
    tuned = fit.tune_head(state[0], key).astype(jnp.float64)
    jax.block_until_ready(published.velocity(tuned, 0.0, published.sample(key), key))

    started = time.perf_counter()
    state = fit.begin(theta)
    for step in range(settings.epochs):
        state = fit.step(state, jax.random.fold_in(key, step))
    theta = jax.block_until_ready(fit.tune_head(state[0], key)).astype(jnp.float64)
    fitted = time.perf_counter()
    found: dict[str, Any] = {"compile_seconds": started - began, "fit_seconds": fitted - started}
    try:
        theta, found["steps"], found["evaluations"] = published.evolve(theta, task.t_end, key, task.seconds)
    except Failed as failure:
        theta, found["failure"] = None, str(failure)
    found["seconds"] = time.perf_counter() - started
    return found, theta
