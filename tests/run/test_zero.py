"""Fields that are zero at the start, or decay to nearly nothing: errors are relative to a floor there.

References are exact solutions of the equations, a mode of the box in each case.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist import Box, Problem, solve
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.problems import laplacian
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import to_tree
from nivp_dist.settings.model import Config

NETWORK = {"width": 8, "depth": 1, "frequencies": 1}
SETTINGS = {
    "network": NETWORK,
    "sampling": {"points": 300},
    "integrator": {"t_end": 1.0, "initial_step": 0.01, "rtol": 1e-5},
    "fit": {"points": 300},
    "output": {"times": [0.25], "evaluation_points": 2000, "plots": False},
}
MODE = np.pi / 2  # cos(MODE x) vanishes on the walls of [-1, 1]


class Heated(Problem):
    """u_t = k lap u + cos(pi x / 2) sin(w t + phase), from u = 0 or from the mode."""

    k: float = 0.4
    start: float = 0.0
    source: float = 1.0

    @property
    def domain(self):
        return Box(1)

    def initial(self, x):
        return self.start * jnp.cos(MODE * x[0])

    def rhs(self, u, x, t):
        return self.k * laplacian(u, x) + self.source * jnp.cos(MODE * x[0])

    def reference(self, x, t):
        rate = self.k * MODE**2
        decay = np.exp(-rate * t)
        return (self.start * decay + self.source * (1 - decay) / rate) * np.cos(MODE * x[:, 0])


class Delayed(Heated):
    """The source grows with t from zero, so that u and u_t are zero at the start."""

    def rhs(self, u, x, t):
        return self.k * laplacian(u, x) + t * jnp.cos(MODE * x[0])

    def reference(self, x, t):
        rate = self.k * MODE**2
        return ((rate * t - 1 + np.exp(-rate * t)) / rate**2) * np.cos(MODE * x[:, 0])


class Struck(Problem):
    """u_tt = lap u from u = 0 and u_t = the mode: u = sin(pi t / 2) / (pi / 2) cos(pi x / 2)."""

    outputs = 2
    output_names = ("u", "u_t")

    @property
    def domain(self):
        return Box(1)

    def initial(self, x):
        return jnp.stack([0.0 * x[0], jnp.cos(MODE * x[0])])

    def rhs(self, u, x, t):
        return jnp.stack([u(x)[1], laplacian(lambda y: u(y)[0], x)])

    def reference(self, x, t):
        return np.sin(MODE * t) / MODE * np.cos(MODE * x[:, 0])


class Plucked(Struck):
    """u_tt = lap u + the mode, from rest: u = (1 - cos(pi t / 2)) / (pi / 2)^2 cos(pi x / 2)."""

    def initial(self, x):
        return jnp.zeros(2) * x[0]

    def rhs(self, u, x, t):
        return super().rhs(u, x, t) + jnp.stack([0.0, jnp.cos(MODE * x[0])])

    def reference(self, x, t):
        return (1 - np.cos(MODE * t)) / MODE**2 * np.cos(MODE * x[:, 0])


def solved(problem, tmp_path, **sections):
    settings = {name: SETTINGS.get(name, {}) | sections.get(name, {}) for name in SETTINGS | sections}
    return solve(settings, problem=problem, directory=tmp_path / "run", quiet=True)


def largest_error(run, t):
    x = np.linspace(-1, 1, 201)[:, None]
    return np.abs(run.solution(t)(x)[:, 0] - run.reference(t)(x)[:, 0]).max()


@pytest.mark.parametrize(
    "problem", [Heated(), Delayed(), Struck(), Plucked()], ids=lambda problem: type(problem).__name__
)
def test_a_start_from_zero(problem, tmp_path):
    run = solved(problem, tmp_path)
    assert run.summary["status"] == "finished" and run.summary["steps"] < 100
    errors = run.errors()
    assert np.isnan(errors["relative_l2"][0])  # zero has no relative error
    assert errors["relative_l2"][1:].max() < 2e-3
    assert largest_error(run, 0.0) < 1e-4 and largest_error(run, 1.0) < 1e-3
    estimate = errors["estimate"]
    assert np.isfinite(estimate).all() and estimate[0] < 5e-3 and estimate[-1] < 0.2


def test_a_decay_by_many_orders(tmp_path):
    """u falls by 4e-6. Below the floor steps stop shrinking, and the estimate stops growing; without it they go on."""
    problem = Heated(k=2.0, start=3.0, source=0.0)
    integrator = {"t_end": 2.5, "max_steps": 1000}
    common = {"output": {"times": []}, "checkpoint": {"every_steps": 1000}}
    run, control = (
        solved(problem, tmp_path / name, integrator=integrator | {"atol": atol}, **common)
        for name, atol in (("floor", 1e-7), ("none", 1e-30))
    )
    assert largest_error(run, 2.5) < 1e-5
    (t, h), (late, short) = ((each.metrics()["t"], each.metrics()["h"]) for each in (run, control))
    assert len(h) < 430 and h[t > 2.25].mean() > 1.5 * short[late > 2.25].mean()
    assert h[t > 2.25].mean() > 0.8 * h[(t > 1.5) & (t < 1.75)].mean()  # u is below the floor from t = 1.1 on
    estimates = [each.errors()["estimate"][-1] for each in (run, control)]
    assert estimates[0] < 0.1 and estimates[1] > 10 * estimates[0]
    early = t < 0.8
    assert np.array_equal(short[: early.sum()], h[early])  # u is above the floor there, so that it changes nothing


@pytest.mark.parametrize(
    "problem, integrator, expected",
    [
        (Heated(start=3.0), {}, 1e-6 * 3 / np.sqrt(2)),  # the RMS of a mode is 1 / sqrt 2 of its amplitude
        (Heated(), {}, 0.01 / np.sqrt(2)),
        (Delayed(), {"t_end": 2.0}, 2 * 0.01 / np.sqrt(2)),
        (Heated(start=3.0), {"atol": 1e-7}, 1e-2),
    ],
)
def test_the_floor(problem, integrator, expected):
    sections = SETTINGS | {"integrator": SETTINGS["integrator"] | integrator}
    state = Simulation(Config.model_validate({"problem": {"name": "heated"}} | sections), problem).begin()
    assert state.size_floor == pytest.approx(expected, rel=1e-2)
    assert to_tree(state)["size_floor"] == state.size_floor  # a resumed run has the same one


class Silent(Heated):
    """Nothing at all: u0 = 0 and no source."""

    source: float = 0.0


def test_a_problem_without_any_scale_asks_for_one(tmp_path):
    with pytest.raises(InputError, match="u0 and its time derivative are zero.*: set integrator.atol"):
        solved(Silent(), tmp_path)
    run = solved(Silent(), tmp_path, integrator={"atol": 1e-6, "t_end": 0.05}, output={"times": []})
    assert largest_error(run, 0.05) < 1e-3


class Broken(Heated):
    """u0 is infinite in a part of the box that the points of the first check miss."""

    def initial(self, x):
        return jnp.where(x[0] > 0.997, jnp.inf, 1.0) * jnp.cos(MODE * x[0])


@pytest.mark.parametrize("on_miss", ["error", "continue"])
def test_a_fit_whose_error_is_not_finite_fails(tmp_path, on_miss):
    fit = {"on_miss": on_miss, "iterations": 3, "points": 2000}
    with pytest.raises(RunFailed, match=r"^the initial fit has an error of \w+: initial\(x\).* is not finite"):
        solved(Broken(), tmp_path, fit=fit, sampling={"method": "uniform"})
