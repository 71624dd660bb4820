"""The initial fit: the time to an error by Gauss-Newton (ours) and by Adam with the published settings.

Both start from the same parameters of the same network (in float32 for Adam, as published). Errors are relative L2
errors on one set of points that belongs to neither fit, computed while the clock is stopped. For Adam the error is
taken with and without the regression of the head; its time counts where only the regression reaches the error. If Adam
does not reach an error in the given time, the ratio is a lower bound.

The trap is left out: its initial condition is a multiple of the factor that vanishes on the walls, so that the
regression of the head finds it at once (7e-5 after 20 steps of Adam; Gauss-Newton takes 30 rounds).
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.bench import cases
from nivp_dist.bench.published import Settings
from nivp_dist.bench.published_fit import PublishedFit
from nivp_dist.network.network import build_network

PROBLEMS = ("advection", "vlasov")
TARGETS = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
ERROR_INTERVAL = 1.3  # the error of Adam is measured whenever its time has grown by this factor
BLOCK = 20  # steps of Adam between two readings of the clock


class Size(NamedTuple):
    """points: of a Gauss-Newton round. rounds: at most. seconds: for Adam. published: settings of Adam."""

    network: dict
    points: int
    rounds: int
    seconds: float
    published: Settings


FULL = Size(cases.NETWORK, 6000, 30, 300.0, Settings())
QUICK = Size(cases.SMALL, 400, 10, 2.0, Settings(batch=500, head_points=2000))


def measure(name: str, size: Size) -> dict:
    """A line of the table: for every error, seconds of both and their ratio."""
    settings = {"points": size.points, "iterations": size.rounds, "on_miss": "continue"}
    run = cases.simulation(name, size.network, fit=settings | {"line_search": True})
    start = run.begin()
    target = jax.jit(jax.vmap(lambda x: jnp.reshape(run.problem.initial(x), (run.network.outputs,))))
    evaluated = run.sampler.draw(jax.random.key(9), start.density, 20_000)
    wanted, scale = target(evaluated.x), jnp.sum(evaluated.measure[:, None] * target(evaluated.x) ** 2)

    def error_of(network):
        misfit = jax.jit(
            lambda theta: jnp.sum(evaluated.measure[:, None] * (network.field(theta, evaluated.x) - wanted) ** 2)
        )
        return lambda theta: float(jnp.sqrt(misfit(theta) / scale))

    ours = gauss_newton(run, start, error_of(run.network))
    single = build_network(run.config.network.model_copy(update={"dtype": "float32"}), run.problem)
    published = PublishedFit(single, run.problem, size.published, target)
    adam, steps = _adam(published, start.fit.theta, error_of(single), size.seconds)
    return {
        "problem": name,
        "p": run.network.size,
        "ours": ours,
        "adam": adam,
        "adam_steps": steps,
        "adam_seconds_a_step": adam[-1][0] / max(steps, 1),
        "targets": compare(ours, adam),
    }


def compare(ours: list, adam: list) -> list[dict]:
    """For every target that ours reaches: the seconds of both, their ratio, and whether it is only a lower bound.

    ours, adam: lists of (seconds, error).
    """
    lines = []
    for target in TARGETS:
        mine, theirs = (next((t for t, error in curve if error <= target), None) for curve in (ours, adam))
        if mine is not None:
            spent = theirs if theirs is not None else adam[-1][0]
            lines.append(
                {"error": target, "ours": mine, "adam": theirs, "ratio": spent / mine, "lower_bound": theirs is None}
            )
    return lines


def gauss_newton(run, start, error) -> list[tuple[float, float]]:
    """(seconds, error) after every round of the second of two runs; the first one compiles the programs."""
    for _ in range(2):
        state, seconds, curve = start, 0.0, []
        while not run.fits.is_done(state):
            began = time.perf_counter()
            state = run.fits.advance(state)
            jax.block_until_ready(state.fit.theta)
            seconds += time.perf_counter() - began
            curve.append((seconds, error(state.fit.theta)))
    return curve


def _adam(published: PublishedFit, theta, error, allowed: float) -> tuple[list[tuple[float, float]], int]:
    """([(seconds, error)], steps), with and without the regression of the head where that is better."""
    key = jax.random.key(11)

    def steps(state, first, count):
        for step in range(first, first + count):
            state = published.step(state, jax.random.fold_in(key, step))
        return jax.block_until_ready(state)

    steps(published.begin(theta), 0, 2)  # compiles the program
    tuning_seconds = _seconds_of_tuning(published, theta, key)
    state, seconds, done, next_error, curve = published.begin(theta), 0.0, 0, 0.0, []
    while seconds < allowed and done < published.settings.epochs:
        began = time.perf_counter()
        state = steps(state, done, BLOCK)
        seconds, done = seconds + time.perf_counter() - began, done + BLOCK
        if seconds >= next_error or seconds >= allowed:
            next_error = ERROR_INTERVAL * seconds
            plain, tuned = error(state[0]), error(published.tune_head(state[0], key))
            curve.append((seconds, plain))
            if np.isfinite(tuned) and tuned < plain:
                curve.append((seconds + tuning_seconds, tuned))
    return curve, done


def _seconds_of_tuning(published: PublishedFit, theta, key) -> float:
    """The seconds of the second of two regressions of the head; the first one compiles the program."""
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        jax.block_until_ready(published.tune_head(theta, key))
        seconds = time.perf_counter() - began
    return seconds
