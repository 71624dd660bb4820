"""The initial fit: time to an error, Gauss-Newton (ours) against Adam with the published settings.

The same network (in float32 for Adam, as published) starts from the same parameters. Errors are relative L2 errors on
one set of points that neither fits; they are taken with the clock stopped, for Adam with and without head tuning, whose
time counts when it is what reaches the error. Where Adam is not there in the time given, the ratio is a lower bound.

Not the trap: its u0 is a multiple of the factor that vanishes on the walls, which linear regression of the head, the
last part of the published fit, has at once (7e-5 after 20 steps of Adam; Gauss-Newton is there after 30 rounds).
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.bench import cases
from nivp_dist.bench.published import Published, Settings
from nivp_dist.network.network import build_network

PROBLEMS = ("advection", "vlasov")
TARGETS = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
LOOK = 1.3  # Adam's error is looked at whenever its time has grown by this factor
BLOCK = 20  # steps of Adam between two looks at the clock


class Size(NamedTuple):
    """points: of a Gauss-Newton round, of which there are at most `rounds`. seconds: for Adam."""

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
    goal, scale = target(evaluated.x), jnp.sum(evaluated.measure[:, None] * target(evaluated.x) ** 2)

    def error_of(network):
        misfit = jax.jit(
            lambda theta: jnp.sum(evaluated.measure[:, None] * (network.field(theta, evaluated.x) - goal) ** 2)
        )
        return lambda theta: float(jnp.sqrt(misfit(theta) / scale))

    ours = gauss_newton(run, start, error_of(run.network))
    single = build_network(run.config.network.model_copy(update={"dtype": "float32"}), run.problem)
    published = Published(single, run.problem, size.published)
    adam, steps = _adam(published, start.fit.theta, target, error_of(single), size.seconds)
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
    """For every error that ours reaches: seconds of both, their ratio, and whether it is only a lower bound."""
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
    """(seconds, error) after every round, of the second of two runs: all is compiled in the first one."""
    for _ in range(2):
        state, seconds, curve = start, 0.0, []
        while not run.fits.is_done(state):
            began = time.perf_counter()
            state = run.fits.advance(state)
            jax.block_until_ready(state.fit.theta)
            seconds += time.perf_counter() - began
            curve.append((seconds, error(state.fit.theta)))
    return curve


def _adam(published: Published, theta, target, error, allowed: float):
    """([(seconds, error)], steps): the better of the errors with and without head tuning at each look."""
    key = jax.random.key(11)

    def steps(state, first, count):
        for step in range(first, first + count):
            state = published.fit_step(state, target, jax.random.fold_in(key, step))
        return jax.block_until_ready(state)

    steps(published.begin_fit(theta), 0, 2)
    tuning = []
    for _ in range(2):  # the first compiles
        began = time.perf_counter()
        jax.block_until_ready(published.tune_head(theta, target, key))
        tuning.append(time.perf_counter() - began)
    state, seconds, done, look, curve = published.begin_fit(theta), 0.0, 0, 0.0, []
    while seconds < allowed and done < published.settings.epochs:
        began = time.perf_counter()
        state = steps(state, done, BLOCK)
        seconds, done = seconds + time.perf_counter() - began, done + BLOCK
        if seconds >= look or seconds >= allowed:
            look = LOOK * seconds
            plain, tuned = error(state[0]), error(published.tune_head(state[0], target, key))
            curve.append((seconds, plain))
            if np.isfinite(tuned) and tuned < plain:
                curve.append((seconds + tuning[-1], tuned))
    return curve, done
