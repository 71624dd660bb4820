"""Networks against their formulas: embedding, boundary factor, periodicity, forms, and the layout of theta."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from nivp_dist.errors import InputError
from nivp_dist.network.embedding import embed
from nivp_dist.network.frames import Basis
from nivp_dist.network.network import build_network
from nivp_dist.problems import Box, OpenBox, PeriodicBox, Problem, WholeSpace, laplacian
from nivp_dist.settings.model import NetworkSettings

BOX = Box(2, (-1.0, 0.0), (1.0, 3.0))
RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(BOX.lower, BOX.upper, (9, 2))


def problem(domain, outputs=1, density=False, **more):
    fields = {"outputs": outputs, "density": density, "domain": property(lambda self: domain)} | more
    return type("Some", (Problem,), fields)()


def network_of(domain, outputs=1, density=False, **settings):
    settings = {"width": 5, "depth": 2, "output_scales": [1.0] * outputs} | settings
    network = build_network(NetworkSettings(**settings), problem(domain, outputs, density))
    theta = np.asarray(jax.jit(network.initialise)(jax.random.key(1)))
    return network, theta + 0.1 * RANDOM.standard_normal(theta.shape)  # biases are not zero


def evaluate(network, theta, x):
    return np.asarray(jax.jit(network.values)(theta, jnp.asarray(x)))


@pytest.mark.parametrize("alpha", [0.0, 1.0, [0.5, 1.0, 2.0]], ids=str)
def test_embedding_against_its_formula(alpha):
    xi = RANDOM.uniform(-1, 1, (4, 2))
    a = np.broadcast_to(alpha, 3)
    expected = [[xi[i, 0], xi[i, 1]] for i in range(4)]
    for i in range(4):
        for wave in (np.sin, np.cos):
            for axis in range(2):
                for k in range(3):
                    omega = 2**k * np.pi / 2
                    expected[i].append(wave(omega * xi[i, axis]) / omega ** a[k])
    np.testing.assert_allclose(embed(jnp.asarray(xi), 3, alpha, False), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("domain", [Box(2), WholeSpace(2)], ids=["box", "whole space"])
def test_a_list_of_exponents_sets_the_number_of_frequencies(domain):
    """Where network.frequencies is not set; the network is that of as many."""
    x = RANDOM.uniform(-0.9, 0.9, (5, 2))
    for alpha in ([0.0, 1.0, 2.0], [1.0]):
        one, _ = network_of(domain, alpha=alpha)
        other, theta = network_of(domain, alpha=alpha, frequencies=len(alpha))
        np.testing.assert_array_equal(one.field(theta, x), other.field(theta, x))
    default, same = network_of(Box(2))[0], network_of(Box(2), alpha=[0.0] * 4)[0]
    assert default.size == same.size  # four frequencies


def test_periodic_embedding_leaves_the_coordinate_out():
    xi = RANDOM.uniform(-1, 1, (4, 1))
    expected = np.concatenate([wave(xi * np.pi * [1, 2]) / (np.pi * np.array([1, 2])) for wave in (np.sin, np.cos)], 1)
    np.testing.assert_allclose(embed(jnp.asarray(xi), 2, 1.0, True), expected, rtol=1e-13)


def test_even_features_along_the_axes_that_are_named():
    xi = RANDOM.uniform(-1, 1, (4, 2))
    got = embed(jnp.asarray(xi), 2, 0.0, False, even=(1,))
    x, y = xi.T
    omega = np.pi / 2 * np.array([1, 2])
    expected = [x[:, None], y[:, None] ** 2, np.sin(x[:, None] * omega)]
    expected += [np.cos(x[:, None] * omega), np.cos(y[:, None] * omega)]
    np.testing.assert_allclose(got, np.concatenate(expected, 1), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("symmetry", [True, False])
def test_a_network_of_an_even_problem_is_even(symmetry):
    network = build_network(NetworkSettings(width=5, depth=2, symmetry=symmetry), problem(BOX, even=(1,)))
    theta = jax.jit(network.initialise)(jax.random.key(1))
    for axis, even in ((0, False), (1, symmetry)):
        mirrored = X.copy()
        mirrored[:, axis] = 2 * BOX.centre[axis] - X[:, axis]
        difference = np.abs(evaluate(network, theta, X) - evaluate(network, theta, mirrored))
        assert np.all(difference < 1e-12) if even else np.all(difference[:, 0] > 1e-6)


def by_hand(network, theta, x, frequencies, activation=np.tanh):
    """The network of BOX with one trunk, in numpy."""
    xi = (x - BOX.centre) / BOX.scale
    a = np.asarray(embed(jnp.asarray(xi), frequencies, 1.0, False))
    w = {layer.path: theta[layer.start : layer.stop].reshape(layer.rows, layer.columns) for layer in network.layers}
    affine = lambda a, path: a @ w[path][:-1] + w[path][-1]  # noqa: E731
    a = activation(affine(a, ("trunk", "hidden_00")))
    a = activation(affine(a, ("trunk", "hidden_01")))
    return affine(a, ("trunk", "head")) * np.prod(1 - xi**2, axis=1, keepdims=True)


def test_values_against_numpy():
    network, theta = network_of(BOX, outputs=2, frequencies=2, alpha=1.0, activation="tanh")
    np.testing.assert_allclose(evaluate(network, theta, X), by_hand(network, theta, X, 2), rtol=1e-12, atol=1e-14)
    assert network.size == 11 * 5 + 6 * 5 + 6 * 2 == len(theta)


def test_layers_partition_theta_and_weights_contain_all_of_it():
    network, theta = network_of(BOX, outputs=2, trunk="separate")
    assert [layer.start for layer in network.layers] == [0, *(layer.stop for layer in network.layers[:-1])]
    assert network.layers[-1].stop == network.size
    leaves = jax.tree.leaves(network.weights(jnp.asarray(theta)))
    np.testing.assert_array_equal(np.sort(np.concatenate([leaf.reshape(-1) for leaf in leaves])), np.sort(theta))


def test_separate_trunks_do_not_share_parameters():
    network, theta = network_of(BOX, outputs=2, trunk="separate")
    before = evaluate(network, theta, X)
    for layer in network.layers:
        changed = theta.copy()
        changed[layer.start : layer.stop] += 0.3
        moved = np.any(evaluate(network, changed, X) != before, axis=0)
        np.testing.assert_array_equal(moved, [k in range(*layer.outputs) for k in range(2)])


@pytest.mark.parametrize("form", ["direct", "exponential"])
def test_zero_on_the_walls(form):
    network, theta = network_of(BOX, outputs=2, form=form)
    walls = np.concatenate([X] * 4)
    for number, (axis, value) in enumerate([(0, -1.0), (0, 1.0), (1, 0.0), (1, 3.0)]):
        walls[9 * number : 9 * number + 9, axis] = value
    np.testing.assert_allclose(evaluate(network, theta, walls), 0, atol=1e-14)
    assert np.abs(evaluate(network, theta, X)).min() > 1e-6


def test_an_open_box_is_a_box_without_the_boundary_factor():
    domain = OpenBox(2, BOX.lower, BOX.upper)
    network, theta = network_of(domain, outputs=2, frequencies=2, alpha=1.0, activation="tanh")
    xi = (X - BOX.centre) / BOX.scale
    within_walls = by_hand(network, theta, X, 2)
    np.testing.assert_allclose(
        evaluate(network, theta, X) * np.prod(1 - xi**2, axis=1, keepdims=True), within_walls, rtol=1e-12, atol=1e-14
    )


def test_periodic_values_and_derivatives_match_across_the_box():
    domain = PeriodicBox(2, (0.0, -1.0), (2.0, 4.0))
    network, theta = network_of(domain, frequencies=2)
    x = RANDOM.uniform(domain.lower, domain.upper, (5, 2))
    u = network.function(jnp.asarray(theta))
    everything = jax.jit(jax.vmap(lambda x: (u(x), jax.grad(u)(x), jax.hessian(u)(x))))
    here = everything(x)
    for shift in ([2.0, 0.0], [0.0, 5.0], [-2.0, 10.0]):
        for a, b in zip(here, everything(x + np.array(shift)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    # Half a period gives other values: no shorter period is represented.
    assert np.abs(here[0] - everything(x + np.array([1.0, 0.0]))[0]).max() > 1e-3


def test_a_log_density_is_a_quadratic_form_where_the_head_is_zero():
    domain = WholeSpace(2, (1.0, -1.0), (0.5, 2.0))
    network, theta = network_of(domain, density=True, activation="tanh")
    assert network.log_density
    for layer in network.layers:
        if layer.path[-1] == "head":
            theta[layer.start : layer.stop] = 0
        if layer.path[-1] == "quadratic":
            # Columns x1, x2, x1^2, x1 x2, x2^2 and one, in the domain's own scale.
            theta[layer.start : layer.stop] = [0.3, -0.2, -0.5, 0.1, -0.7, 0.4]
    x = RANDOM.standard_normal((6, 2))
    a, b = ((x - [1.0, -1.0]) / [0.5, 2.0]).T
    log = 0.3 * a - 0.2 * b - 0.5 * a**2 + 0.1 * a * b - 0.7 * b**2 + 0.4
    np.testing.assert_allclose(jax.jit(network.field)(theta, x)[:, 0], log, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(evaluate(network, theta, x)[:, 0], np.exp(log), rtol=1e-12)


def test_polynomials_of_every_coordinate_in_the_logarithm():
    network, theta = network_of(BOX, form="exponential", additive=4, frequencies=2)
    without, _ = network_of(BOX, form="exponential", frequencies=2)
    layer = next(layer for layer in network.layers if layer.path[-1] == "additive")
    assert network.size == without.size + layer.stop - layer.start and layer.rows == 2 * 4 + 1
    coefficients = theta[layer.start : layer.stop]
    rest = np.concatenate([theta[: layer.start], theta[layer.stop :]])
    xi = (X - BOX.centre) / BOX.scale
    log = coefficients[-1]
    for axis in range(2):
        # Rows: T_1 of both coordinates, T_2 of both, ...
        log = log + np.polynomial.chebyshev.chebval(xi[:, axis], [0.0, *coefficients[axis:-1:2]])
    ratio = evaluate(network, theta, X) / evaluate(without, rest, X)
    np.testing.assert_allclose(ratio[:, 0], np.exp(log), rtol=1e-12)


def test_the_form_auto_depends_on_the_problem():
    assert not network_of(WholeSpace(1))[0].log_density
    assert not network_of(Box(1), density=True)[0].log_density
    assert network_of(WholeSpace(1), density=True)[0].log_density
    assert not network_of(WholeSpace(1), density=True, form="exponential")[0].log_density


@pytest.mark.parametrize(
    "domain, outputs, settings",
    [
        (Box(1), 1, {"form": "log_density"}),
        (WholeSpace(1), 2, {"form": "log_density"}),
        (PeriodicBox(1), 1, {"frequencies": 0}),
        (PeriodicBox(1), 1, {"form": "exponential", "additive": 2}),
        (Box(1), 1, {"additive": 2}),
    ],
)
def test_settings_that_do_not_suit_the_domain_are_refused(domain, outputs, settings):
    with pytest.raises(InputError):
        network_of(domain, outputs, **settings)


def test_a_float32_network_computes_in_float32():
    exact, theta = network_of(BOX, frequencies=2)
    network, _ = network_of(BOX, frequencies=2, dtype="float32")
    values = jax.jit(network.values)(theta, X)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, evaluate(exact, theta, X), rtol=1e-4, atol=1e-5)
    second = jax.jit(jax.vmap(lambda x: laplacian(network.function(jnp.asarray(theta)), x)))
    assert second(X.astype(np.float32)).dtype == jnp.float32
    assert jax.jit(network.initialise)(jax.random.key(0)).dtype == jnp.float64


def test_initialisation_depends_on_its_key_alone():
    network, _ = network_of(BOX, width=50)
    draw = jax.jit(network.initialise)
    a, b, c = (np.asarray(draw(jax.random.key(k))) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    for layer in network.layers:
        w = a[layer.start : layer.stop].reshape(layer.rows, layer.columns)
        assert not w[-1].any()
        if w.size > 1000:
            np.testing.assert_allclose(w[:-1].std(), 1 / np.sqrt(layer.rows - 1), rtol=0.1)


@pytest.mark.parametrize("count", [1, 3])
def test_a_log_density_initialised_near_gaussians_is_their_mixture(count):
    domain = WholeSpace(3, centre=(0.5, -1.0, 2.0), scale=(1.0, 0.3, 2.0))
    network, _ = network_of(domain, density=True, gaussians=count)
    roots = RANDOM.standard_normal((count, 3, 3))
    means = np.array([[4.0, 0.0, -3.0], [3.0, 1.0, 1.0], [-2.0, 2.0, 0.0]])[:count]
    masses, covariances = RANDOM.uniform(0.2, 1, count), roots @ np.swapaxes(roots, 1, 2) + 0.01 * np.eye(3)
    theta = np.array(network.initialise_near(jax.random.key(2), masses, means, covariances))
    for layer in network.layers:
        if layer.path[-1] == "head":  # what the random MLP adds
            theta[layer.start : layer.stop] = 0.0
    parts = [scipy.stats.multivariate_normal(*part) for part in zip(means, covariances)]
    x = np.concatenate([part.rvs(20, random_state=k) for k, part in enumerate(parts)])
    expected = sum(mass * part.pdf(x) for mass, part in zip(masses, parts))
    np.testing.assert_allclose(evaluate(network, theta, x)[:, 0], expected, rtol=1e-9)


def test_with_more_outputs_the_first_one_is_the_log_density():
    """As in a fit of log u together with its time derivative."""
    network = build_network(NetworkSettings(width=5, depth=2), problem(WholeSpace(2), density=True), outputs=2)
    mean, covariance = np.array([[1.0, -0.5]]), np.diag([0.5, 2.0])[None]
    theta = np.array(network.initialise_near(jax.random.key(2), np.ones(1), mean, covariance))
    for layer in network.layers:
        if layer.path[-1].startswith("head"):
            theta[layer.start : layer.stop] = 0.0
    x = RANDOM.standard_normal((20, 2))
    field = np.asarray(network.field(theta, x))
    expected = scipy.stats.multivariate_normal(mean[0], covariance[0]).logpdf(x)
    np.testing.assert_allclose(field, np.stack([expected, 0 * expected], -1), rtol=1e-9, atol=1e-12)


def test_several_gaussians_need_a_field_log_u():
    with pytest.raises(InputError, match="network.gaussians = 2 needs a field log u"):
        network_of(Box(2), gaussians=2)


def test_a_basis_scales_every_layer_and_no_index_of_all_parameters_is_computed():
    """The index of a jnp.repeat is a cumulative sum of length p, which XLA evaluates while it compiles."""
    network, theta = network_of(BOX, outputs=2)
    scales = 1.0 + np.arange(len(network.layers))
    basis = Basis((), jnp.asarray(scales))
    expected = theta * np.repeat(scales, [layer.stop - layer.start for layer in network.layers])
    np.testing.assert_array_equal(network.from_basis(theta, basis), expected)
    np.testing.assert_allclose(network.to_basis(expected, basis), theta, rtol=1e-15)
    assert "cumsum" not in str(jax.make_jaxpr(network.from_basis)(theta, basis))
