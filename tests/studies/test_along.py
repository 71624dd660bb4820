"""The numbers of a network along a run: against dense linear algebra, and with each mechanism switched on and off."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.network.network import build_network
from nivp_dist.problems.heat import Heat
from nivp_dist.settings.model import NetworkSettings, SamplingSettings
from nivp_dist.studies.along import Along, cg_iterations, regularised, spectrum, units

MU, POINTS, WIDTH = 1e-15, 150, 5


@pytest.fixture(scope="module")
def along():
    settings, problem = NetworkSettings(width=WIDTH, depth=2, frequencies=2), Heat(dimension=2)
    network = build_network(settings, problem)
    run = SimpleNamespace(network=network, problem=problem, config=SimpleNamespace(network=settings))
    discretisation = Discretisation(network, problem, SamplingSettings(points=POINTS), make_mesh(1))
    run.galerkin = SimpleNamespace(discretisation=discretisation)
    return Along(run, MU)


@pytest.fixture(scope="module")
def healthy(along):
    return np.array(along.network.initialise(jax.random.key(0)))


@pytest.fixture(scope="module")
def numbers(along):
    return lambda theta: along.of_network(theta, 0.0, points(0), points(1))


def points(seed):
    return np.random.default_rng(seed).uniform(-1, 1, (POINTS, 2)), np.full(POINTS, 1 / POINTS)


def weight(along, theta, name):
    """A view of the matrix of a layer in theta."""
    (layer,) = [layer for layer in along.network.layers if layer.path[-1] == name]
    return theta[layer.start : layer.stop].reshape(layer.rows, layer.columns)


def test_two_equal_units_make_the_matrix_singular_until_they_differ_again(along, healthy, numbers):
    before, theta = numbers(healthy), healthy.copy()
    hidden, head = weight(along, theta, "hidden_01"), weight(along, theta, "head")
    hidden[:, 1], head[1] = hidden[:, 0], head[0]
    equal = numbers(theta)
    assert before["alike"] == 0 and before["null"] == 0 and equal["alike"] == 1
    # The differences of the two units' weights, those to the head and those from the WIDTH units and the bias below.
    assert equal["null"] == 1 + WIDTH + 1
    assert equal["numerical_rank"] < before["numerical_rank"] and equal["condition"] > 1e6 * before["condition"]
    assert equal["dependence"] > 1e10 > 1e6 > before["dependence"]
    assert equal["effective_dimension"] < before["effective_dimension"] - 1
    hidden[:, 1], head[1] = weight(along, healthy.copy(), "hidden_01")[:, 1], weight(along, healthy.copy(), "head")[1]
    assert numbers(theta) == before


def test_a_head_out_of_proportion_hides_the_other_layers_until_it_is_scaled_back(along, healthy, numbers):
    before, theta = numbers(healthy), healthy.copy()
    weight(along, theta, "head")[:] /= 100  # the derivatives by the weights below it are as much smaller
    scaled = numbers(theta)
    assert scaled["imbalance"] > 1000 * before["imbalance"]
    assert scaled["effective_dimension"] < 0.7 * before["effective_dimension"]
    assert scaled["numerical_rank"] < 0.7 * before["numerical_rank"] and scaled["residual"] > before["residual"]
    assert scaled["dependence"] == pytest.approx(before["dependence"]) and scaled["alike"] == before["alike"]
    # Equal shares of the trace for all layers, solver.equal_shares, are the same system for both.
    assert in_equal_shares(along, theta) == pytest.approx(in_equal_shares(along, healthy), rel=1e-6)
    weight(along, theta, "head")[:] = weight(along, healthy.copy(), "head")
    assert numbers(theta) == before


def in_equal_shares(along, theta) -> float:
    """The effective dimension of the system in parameters of which every layer has the same share of the trace."""
    j, f, *_ = along._weighted(theta, 0.0, *points(0))
    parts = [j[:, layer.start : layer.stop] for layer in along.network.layers]
    return spectrum(np.hstack([part / np.linalg.norm(part) for part in parts]), f, MU)["effective_dimension"]


def test_a_unit_that_does_nothing_is_counted(along, healthy, numbers):
    theta = healthy.copy()
    weight(along, theta, "hidden_01")[:, 2] = 0.0
    assert numbers(theta)["idle"] == 1 and numbers(healthy)["idle"] == 0
    assert numbers(theta)["dependence"] > 1e10


def test_the_spectrum_is_that_of_the_matrix():
    random = np.random.default_rng(1)
    j, f = random.normal(size=(40, 12)) * np.logspace(0, -4, 12), random.normal(size=40)
    m = j.T @ j
    mu = MU * np.trace(m)
    found, values = spectrum(j, f, MU), np.linalg.eigvalsh(m)
    inverse = np.linalg.inv(m + mu * np.eye(12))
    assert found["effective_dimension"] == pytest.approx(np.trace(m @ inverse), rel=1e-6)
    assert found["numerical_rank"] == np.sum(values > mu) and found["null"] == 0
    assert found["condition"] == pytest.approx(np.linalg.cond(j) ** 2, rel=1e-6)
    np.testing.assert_allclose(regularised(j, f, MU), inverse @ (j.T @ f), rtol=1e-5)
    assert spectrum(np.pad(j, ((0, 0), (0, 3))), f, MU)["null"] == 3


def test_conjugate_gradients_take_as_many_iterations_as_there_are_eigenvalues():
    assert cg_iterations(np.array([1.0, 1.0, 4.0, 4.0, 9.0]), np.arange(1.0, 6.0), 0.0) == 3
    assert cg_iterations(np.ones(5), np.zeros(5), 0.0) == 0


def test_units_are_told_apart_by_their_values():
    random = np.random.default_rng(2)
    a = np.column_stack([random.normal(size=(50, 3)), np.ones(50)])
    weights = np.full(50, 1 / 50)
    assert units([a], weights)["alike"] == 0
    a[:, 2] = -2 * a[:, 0] + 1  # alike but for sign and size
    assert units([a], weights)["alike"] == 1 and units([a], weights)["dependence"] > 1e10
