"""A run on a domain with a periodic and a real axis, against its exact solution, and what is made of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist import Problem, solve
from nivp_dist.errors import InputError
from nivp_dist.problems import Axes, Periodic, Real, gradient
from nivp_dist.run.tabulated import Grid, Marginals, tabulate

SETTINGS = {
    "devices": 1,
    "network": {"width": 8, "depth": 1, "frequencies": [1, 0]},
    "sampling": {"points": 600},
    "solver": {"method": "primal"},
    "integrator": {"t_end": 0.4, "initial_step": 0.05, "rtol": 1e-4},
    "fit": {"points": 600, "iterations": 25, "target": 1e-2},
    "output": {"evaluation_points": 2000, "plots": False},
}


class Streaming(Problem):
    """f_t = -v f_x: particles of normal velocities move freely round a circle. Exact: f(x - v t, v, 0)."""

    density = True
    linear = True

    @property
    def domain(self):
        return Axes(Periodic(0, 2 * np.pi), Real(0, 1))

    def initial(self, x):
        return self.start(x[0], x[1], jnp)

    def rhs(self, u, x, t):
        return -x[1] * gradient(u, x)[0]

    def reference(self, x, t):
        return self.start(x[:, 0] - x[:, 1] * t, x[:, 1], np)

    def start(self, x, v, xp):
        return (1 + 0.5 * xp.cos(x)) * xp.exp(-(v**2) / 2) / (2 * np.pi) ** 1.5


@pytest.fixture(scope="module")
def run(tmp_path_factory, keep_compiled):
    return solve(SETTINGS, problem=Streaming(), directory=tmp_path_factory.mktemp("axes") / "run", quiet=True)


def test_free_streaming_against_its_exact_solution(run):
    errors = run.errors()
    assert errors["relative_l2"].max() < 1e-2
    snapshot = run.snapshot(0.4)
    assert abs(float(snapshot["mass"]) - 1) < 5 * float(snapshot["mass_error"]) + 2e-3
    x = np.array([[0.0, 0.7], [2.0, -0.3]])
    solution = run.solution(0.4)
    np.testing.assert_allclose(solution(x), solution(x + [2 * np.pi, 0.0]), rtol=1e-12)


def test_its_table_covers_the_circle_and_the_velocities_that_there_are(run):
    x, v = (tabulate(run, Grid((9, 33))).coordinates[name].values for name in ("x1", "x2"))
    assert (x[0], x[-1]) == (0.0, 2 * np.pi) and v[0] < -3 and v[-1] > 3
    marginals = tabulate(run, Marginals(8))
    edges, density = marginals.coordinates["x1_edges"].values, marginals.variables["marginal_x1"].values[-1]
    exact = np.diff(edges + 0.5 * np.exp(-(0.4**2) / 2) * np.sin(edges)) / (2 * np.pi)
    np.testing.assert_allclose(density * np.diff(edges), exact, atol=0.01)


def test_paths_are_refused(tmp_path):
    class Drifting(Streaming):
        def drift(self, x, t):
            return jnp.stack([x[1], 0.0])

    settings = SETTINGS | {"sampling": {"method": "paths", "points": 600}}
    with pytest.raises(InputError, match=r"^sampling.method = 'paths' needs a density on the WholeSpace"):
        solve(settings, problem=Drifting(), directory=tmp_path / "run", quiet=True)
