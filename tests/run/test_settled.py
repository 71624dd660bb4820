"""What a run finds out about its start is part of its record, and stays as it is when the run goes on."""

import jax.numpy as jnp
import numpy as np
import pytest

import nivp_dist
from nivp_dist.errors import InputError
from nivp_dist.network.forms import for_problem
from nivp_dist.problems import Box, Problem, Real, WholeSpace, divergence, laplacian, registry
from nivp_dist.problems._gaussians import mixture_density
from nivp_dist.problems.domains import Axes, Periodic
from nivp_dist.run import settled as run_settled
from nivp_dist.run.settled import settled
from nivp_dist.settings.files import continuation, read_config
from nivp_dist.settings.model import Config

ACCURATE = {"accuracy": 1e-2, "devices": 1}
SMALL = {
    **ACCURATE,
    "network": {"width": 4, "depth": 1},
    "sampling": {"points": 200},
    "fit": {"points": 400, "iterations": 8},
    "integrator": {"t_end": 0.01},
    "output": {"evaluation_points": 500, "plots": False},
}


class TwoParts(Problem):
    """Diffusion of two distant Gaussians of unequal width."""

    density = True
    linear = True
    domain = property(lambda self: WholeSpace(1, 0.0, 3.0))

    def initial(self, x):
        return self.mixture(x, jnp, 0.0)

    def rhs(self, u, x, t):
        return laplacian(u, x)

    def reference(self, x, t):
        return self.mixture(x, np, t)

    def mixture(self, x, xp, t):
        variances = np.array([0.2, 0.5])[:, None, None] + 2 * t
        return mixture_density(x, np.array([0.4, 0.6]), np.array([[-4.0], [4.0]]), variances, xp)


class Wells(TwoParts):
    """A Gaussian in a double well."""

    def initial(self, x):
        return jnp.exp(-(x[0] ** 2) / 0.2) / np.sqrt(0.2 * np.pi)

    def rhs(self, u, x, t):
        return laplacian(u, x) + divergence(lambda x: (x**3 - x) * u(x), x)


class Heat(TwoParts):
    """The same as a field in a box, which is no density."""

    density = False
    domain = property(lambda self: Box(1))


class Around(TwoParts):
    """A density on a cylinder."""

    domain = property(lambda self: Axes(Periodic(0.0, 1.0), Real(0.0, 3.0)))

    def initial(self, x):
        return super().initial(x[1:])


def of(problem, **sections):
    return Config(problem={"name": "heat"}, **(ACCURATE | sections))


@pytest.mark.parametrize(
    "problem, sections, components, gaussians",
    [
        (TwoParts(), {}, 2, "auto"),
        (TwoParts(), {"sampling": {"components": 1}}, 1, "auto"),
        (TwoParts(), {"network": {"gaussians": 3}}, 3, 3),  # who sets one of them has set both
        (TwoParts(), {"network": {"gaussians": 1}}, 1, 1),
        (TwoParts(), {"network": {"form": "direct"}}, 1, "auto"),
        (Heat(), {}, 1, "auto"),
        (Around(), {}, 1, "auto"),
    ],
)
def test_components_are_found_where_the_density_is_represented_by_its_logarithm(
    problem, sections, components, gaussians
):
    found = settled(of(problem, **sections), problem)
    assert (found.sampling.components, found.network.gaussians) == (components, gaussians)
    assert for_problem(found, problem).network.gaussians == (components if gaussians == "auto" else gaussians)


@pytest.mark.parametrize(
    "problem, sections, share, factor",
    [
        (TwoParts(), {}, 0.1, 1.5),  # Gaussians, of which diffusion makes others
        (Wells(), {}, 0.02, 1.0),  # a Gaussian whose rate grows as the fourth power
        (TwoParts(), {"sampling": {"inflation": 2.0}}, 0.1, 2.0),
        (TwoParts(), {"sampling": {"components": 1}}, 0.02, 1.0),  # which is no Gaussian then
        (TwoParts(), {"sampling": {"method": "density"}}, "auto", "auto"),
    ],
)
def test_points_are_spread_by_the_tails_of_the_start(problem, sections, share, factor):
    sampling = settled(of(problem, **sections), problem).sampling
    assert (sampling.uniform_fraction, sampling.inflation) == (share, factor)


def test_a_density_that_is_not_found_has_one_part(monkeypatch):
    monkeypatch.setattr(run_settled, "population_of", lambda *arguments: None)
    found = settled(of(TwoParts()), TwoParts())
    assert (found.sampling.components, found.sampling.inflation, found.sampling.uniform_fraction) == (1, 1.0, 0.02)
    assert settled(found, TwoParts()) == found  # what was found is not sought again


def test_a_run_records_what_it_found_and_goes_on_with_it(tmp_path):
    run = nivp_dist.solve(SMALL, problem=TwoParts(), directory=tmp_path / "run", quiet=True)
    recorded = read_config(run.directory / "config.toml")
    assert recorded.sampling.components == 2
    # A mixture is its own log-sum-exp of quadratic forms: nothing but the network's part of it has to be fitted.
    assert run.summary["errors"][0]["relative_l2"] < 1e-4
    asked = recorded.model_copy(update={"sampling": recorded.sampling.model_copy(update={"components": "auto"})})
    assert continuation(run.directory, asked) == (recorded, False)
    one = recorded.model_copy(update={"sampling": recorded.sampling.model_copy(update={"components": 1})})
    with pytest.raises(InputError, match="sampling.components = 2, and now it is 1"):
        continuation(run.directory, one)


@pytest.mark.parametrize(
    "name, sections, norm, method",
    [
        ("wave", {}, "energy", "primal"),
        ("wave", {"solver": {"method": "pcg"}}, "field", "pcg"),
        ("wave", {"solver": {"norm": "field"}}, "field", "auto"),
        ("wave", {"integrator": {"method": "sdirk"}}, "field", "auto"),
        ("heat", {}, "field", "auto"),
    ],
)
def test_the_norm_of_the_energy_is_taken_where_there_is_one(name, sections, norm, method):
    config = Config(problem={"name": name}, **(ACCURATE | sections))
    solver = for_problem(config, registry.load(config.problem)).solver
    assert (solver.norm, solver.method) == (norm, method)
