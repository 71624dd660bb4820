"""Networks on products of axes: every axis keeps its boundary condition to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.errors import InputError
from nivp_dist.network import boundary
from nivp_dist.network.embedding import cosines, frequencies_of
from nivp_dist.network.network import build_network
from nivp_dist.problems import Axes, Box, Neumann, Open, Periodic, PeriodicBox, Problem, Real, Robin, Wall, WholeSpace
from nivp_dist.settings.model import NetworkSettings

ALL = Axes(Wall(0, 3), Neumann(-1, 2), Periodic(1, 5), Open(0, 2), Real(1, 0.5))
KINETIC = Axes(Periodic(0, 4), Real(0.5, 2), Neumann(-1, 0))
RANDOM = np.random.default_rng(0)


def network_of(domain, **settings):
    fields = {name: settings.pop(name) for name in ("density", "even", "outputs", "parities") if name in settings}
    problem = type("Some", (Problem,), fields | {"domain": property(lambda self: domain)})()
    network = build_network(NetworkSettings(width=5, depth=2, **settings), problem)
    theta = np.asarray(jax.jit(network.initialise)(jax.random.key(1)))
    return network, theta + 0.1 * RANDOM.standard_normal(theta.shape)  # biases are not zero


def values_and_slopes(network, theta):
    """The function x (n, d) -> u (n,) and its gradient (n, d)."""
    compiled = jax.jit(jax.vmap(jax.value_and_grad(network.function(jnp.asarray(theta)))))
    return lambda x: map(np.asarray, compiled(x))


@pytest.mark.parametrize(
    "domain, settings",
    [
        (ALL, {}),
        (ALL, {"frequencies": [1, 2, 3, 0, 1], "alpha": [0.5, 1.0, 0.0]}),
        (ALL, {"form": "exponential"}),
        (ALL, {"even": (0, 1, 2, 3)}),
        (KINETIC, {"density": True}),
        (Axes(Neumann(0, 1), Periodic(0, 1)), {"form": "exponential"}),
    ],
    ids=["plain", "frequencies of their own", "exponential", "even", "log density", "no quadratic form"],
)
def test_every_axis_has_its_boundary_condition(domain, settings):
    network, theta = network_of(domain, **settings)
    inside, u = domain.sample(RANDOM, 40), values_and_slopes(network, theta)
    values, slopes = u(inside)
    size, steepest = np.abs(values).max(), np.abs(slopes).max()
    assert size > 1e-3
    for i, axis in enumerate(domain.axes):
        ends = [inside.copy(), inside.copy()]
        ends[0][:, i], ends[1][:, i] = (axis.lower, axis.upper) if axis.kind != "real" else (-1.0, 2.0)
        (low, low_slope), (high, high_slope) = (u(x) for x in ends)
        normal = np.abs([low_slope[:, i], high_slope[:, i]]).max()
        if axis.kind == "wall":
            assert np.abs([low, high]).max() < 1e-14 * size < normal
        elif axis.kind == "neumann":
            assert normal < 1e-12 * steepest
            assert (np.abs(low - high).max() > 1e-6 * size) == (i not in settings.get("even", ()))
        elif axis.kind == "periodic":
            np.testing.assert_allclose(low, high, rtol=0, atol=1e-13 * size)
            np.testing.assert_allclose(low_slope, high_slope, rtol=0, atol=1e-12 * steepest)
        else:
            assert normal > 1e-4 * steepest and np.abs([low, high]).max() > 1e-4 * size


ROBIN = Axes(
    Robin(0, 2, 0.0, 3.0), Robin(-1, 0, np.inf, 1.5), Robin(0, 1, -0.7, np.inf), Robin(0, 3, -0.5, 40.0), Real(1, 0.5)
)


@pytest.mark.parametrize("form", ["direct", "exponential", "log_density"])
def test_robin_walls_have_their_condition(form):
    domain = ROBIN if form != "log_density" else Axes(*[axis for axis in ROBIN.axes if np.inf not in axis.conditions])
    network, theta = network_of(domain, form=form, density=form == "log_density")
    inside, u = domain.sample(RANDOM, 40), values_and_slopes(network, theta)
    values, slopes = u(inside)
    size, steepest = np.abs(values).max(), np.abs(slopes).max()
    assert size > 1e-3
    for i in domain.axes_of("robin"):
        axis = domain.axes[i]
        for sign, bound, b in zip((-1, 1), (axis.lower, axis.upper), axis.conditions):
            wall = inside.copy()
            wall[:, i] = bound
            value, slope = u(wall)
            if b == np.inf:
                assert np.abs(value).max() < 1e-14 * size and np.abs(slope[:, i]).max() > 1e-3 * steepest
            else:
                assert np.abs(sign * slope[:, i] + b * value).max() < 1e-12 * max(steepest, b * size)
                assert np.abs(value).max() > 1e-4 * size


def test_large_robin_coefficients_tend_to_zero_data():
    xi = np.linspace(-1, 1, 9)[:, None]
    of = lambda *ends: boundary.factors(Axes(Robin(-1, 1, *ends)), jnp.asarray(xi))[0]  # noqa: E731
    for ends in ((np.inf, 0.0), (0.0, np.inf), (np.inf, np.inf), (np.inf, 2.0)):
        large = tuple(1e9 if b == np.inf else b for b in ends)
        np.testing.assert_allclose(of(*large), of(*ends), atol=2e-9)
    for b in (-200.0, 0.5, 200.0):
        assert of(b, 0.0).min() > 1e-3 and of(b, 0.0).max() <= 1.0


PARITIES = {0: (1, -1), 1: (-1, 1), 2: (-1, -1), 3: (1, -1)}


def test_outputs_have_their_parities_and_keep_their_boundary_conditions():
    domain = Axes(Wall(0, 3), Neumann(-1, 2), Periodic(1, 5), Robin(0, 2, 1.5, 1.5), Open(0, 2))
    network, theta = network_of(domain, outputs=2, parities=PARITIES, output_scales=[1.0, 1.0])
    x, u = domain.sample(RANDOM, 20), jax.jit(network.values)
    size = np.abs(u(theta, x)).max(axis=0)
    assert size.min() > 1e-4
    for i in range(5):
        mirrored = x.copy()
        mirrored[:, i] = 2 * domain.centre[i] - x[:, i]
        difference = np.abs(u(theta, mirrored) - np.array(PARITIES.get(i, (1, 1))) * u(theta, x)).max()
        assert difference < 1e-13 if i < 4 else difference > 1e-6
    slopes = jax.jit(jax.vmap(jax.jacfwd(network.function(jnp.asarray(theta)))))
    walls = {i: np.where(np.arange(5) == i, domain.upper, x) for i in (0, 1, 3)}
    assert np.abs(u(theta, walls[0])).max() < 1e-13
    assert np.abs(slopes(walls[1])[:, :, 1]).max() < 1e-13
    assert np.abs(slopes(walls[3])[:, :, 3] + 1.5 * u(theta, walls[3])).max() < 1e-12


def test_even_axes_have_even_features():
    network, theta = network_of(ALL, even=(0, 1, 2, 3))
    x, u = ALL.sample(RANDOM, 20), jax.jit(network.values)
    for i in range(5):
        mirrored = x.copy()
        mirrored[:, i] = 2 * ALL.centre[i] - x[:, i]
        difference = np.abs(u(theta, mirrored) - u(theta, x)).max()
        assert difference < 1e-13 if i < 4 else difference > 1e-6


def test_cosines_against_their_formula():
    s = RANDOM.uniform(0, 1, (4, 2))
    got = cosines(jnp.asarray(2 * s - 1), 3, 1.0, even=(1,))
    expected = [
        np.cos(factor * 2**k * np.pi * s[:, axis]) / (2**k * np.pi / 2)
        for axis, factor in ((0, 1), (1, 2))
        for k in range(3)
    ]
    np.testing.assert_allclose(got, np.transpose(expected), rtol=1e-12, atol=1e-14)


def test_a_product_of_one_kind_is_the_box_of_that_kind():
    """The same domain, hence the same network and the same bits."""
    pairs = [
        (Axes(Wall(-1, 1), Wall(0, 3)), Box(2, (-1, 0), (1, 3))),
        (Axes(Periodic(0, 1)), PeriodicBox(1, 0.0, 1.0)),
        (Axes(*[Real(1, 2)] * 3), WholeSpace(3, 1.0, 2.0)),
    ]
    for product, box in pairs:
        (one, theta), (other, _) = network_of(product), network_of(box)
        x = box.sample(RANDOM, 5)
        assert product == box and hash(product) == hash(box)
        np.testing.assert_array_equal(one.field(theta, x), other.field(theta, x))


def test_frequencies_of_every_axis():
    count = lambda **settings: frequencies_of(NetworkSettings(**settings), KINETIC)  # noqa: E731
    assert count() == (4, 0, 4)
    assert count(frequencies=3) == (3, 3, 3) == count(alpha=[0.0, 1.0, 2.0])
    assert count(frequencies=[3, 0, 2]) == (3, 0, 2)


@pytest.mark.parametrize(
    "domain, settings, line",
    [
        (KINETIC, {"frequencies": [3, 1]}, "network.frequencies has 2 entries for 3 axes: give one each"),
        (KINETIC, {"frequencies": [3, 1, 0]}, r"along axis 2, which is Neumann\(-1.0, 0.0\): set at least 1"),
        (Axes(Wall(), Real()), {"form": "log_density"}, "with a Real axis and u = 0 at no wall$"),
        (Axes(Wall(), Open()), {"form": "exponential", "additive": 2}, "needs network.form = 'exponential' on a box"),
    ],
)
def test_settings_that_do_not_suit_the_axes_are_refused(domain, settings, line):
    with pytest.raises(InputError, match=line):
        network_of(domain, **settings)


def test_the_form_auto_is_log_density_where_the_logarithm_exists():
    form = lambda domain: network_of(domain, density=True)[0].form  # noqa: E731
    assert form(KINETIC) == "log_density"
    assert form(Axes(Wall(), Real())) == form(Axes(Periodic(), Neumann())) == "direct"


def test_a_log_density_initialised_near_a_gaussian_is_uniform_along_the_other_axes():
    network, _ = network_of(KINETIC, density=True)
    root = np.array([[1.0, 0.0, 0.0], [0.3, 0.7, 0.0], [0.1, -0.2, 0.2]])
    mean, covariance = np.array([[2.0, 1.5, -0.5]]), (root @ root.T)[None]
    theta = np.array(network.initialise_near(jax.random.key(2), np.ones(1), mean, covariance))
    for layer in network.layers:
        if layer.path[-1] == "head":  # what the random MLP adds
            theta[layer.start : layer.stop] = 0.0
    x = KINETIC.sample(RANDOM, 20)
    variance = covariance[0, 1, 1]
    normal = np.exp(-((x[:, 1] - 1.5) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    found = jax.jit(network.values)(theta, x)[:, 0]
    np.testing.assert_allclose(found, normal / KINETIC.bounded_volume, rtol=1e-9)
