"""Networks of users: which layers are affine, what they are told, and one clear line for every mistake."""

from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.errors import InputError
from nivp_dist.fitting.stages import Stages
from nivp_dist.network import own_checks, own_network
from nivp_dist.network.affine_layers import AffineLayers
from nivp_dist.network.examples import FourierResNet, Particles, Separable
from nivp_dist.network.features import boundary_features
from nivp_dist.network.frames import Basis, Frame
from nivp_dist.network.network import build_network, restrict
from nivp_dist.network.own_network import SHIPPED
from nivp_dist.problems import Axes, Neumann, Periodic, Problem, Wall, WholeSpace
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.fits import FitSettings
from nivp_dist.settings.model import NetworkSettings

MIXED = Axes(Periodic(0, 2), Neumann(1, 3), Wall(-1, 2))
RANDOM = np.random.default_rng(0)


def network_of(cls, domain=MIXED, **settings):
    """The network of a class, which stands among the ready-made ones meanwhile; or of one of their names."""
    fields = {name: settings.pop(name) for name in ("density", "even") if name in settings}
    problem = type("Some", (Problem,), fields | {"outputs": settings.pop("outputs", 1)})
    problem.domain = property(lambda self: domain)
    settings = {
        "class_": cls if isinstance(cls, str) else cls.__name__,
        "output_scales": [1.0] * problem.outputs,
    } | settings
    with mock.patch.dict(SHIPPED, {} if isinstance(cls, str) else {cls.__name__: cls}):
        return build_network(NetworkSettings(**settings), problem())


def jacobians(network, basis=None):
    """(J by factors, J by jax.jacrev), both (n, m, p), at random theta and points."""
    theta = np.asarray(network.initialise(jax.random.key(1)))
    theta = jnp.asarray(theta + 0.1 * RANDOM.standard_normal(theta.shape))
    x = network.domain.sample(RANDOM, 5)

    def both(theta):
        field, factors = network.factors(network.from_basis(theta, basis), x, basis)
        rows = [jnp.einsum("nr,nmc->nmrc", a, d).reshape(5, network.outputs, -1) for a, d in factors]
        in_basis = lambda theta: network.field(network.from_basis(theta, basis), x)  # noqa: E731
        return jnp.concatenate(rows, axis=-1), jax.jacrev(in_basis)(theta), field, in_basis(theta)

    by_factors, exact, field, value = jax.jit(both)(network.to_basis(theta, basis))
    np.testing.assert_allclose(field, value, rtol=1e-12)
    return by_factors, exact


def assert_jacobian(network, basis=None):
    by_factors, exact = jacobians(network, basis)
    np.testing.assert_allclose(by_factors, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


class Small(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(jnp.tanh(nn.Dense(3)(x)))


class Cell(nn.Module):
    @nn.compact
    def __call__(self, a, _):
        return jnp.tanh(nn.Dense(3)(a)), None


class Nested(nn.Module):
    """Dense layers in all the places where they are no affine layers of the samples, and one where it is one."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        a = jnp.tanh(nn.Dense(3, name="affine")(x))
        a = a + nn.remat(Small)(3, name="rematerialised")(a)
        lifted = {"variable_axes": {"params": None}, "split_rngs": {"params": False}, "in_axes": 2, "out_axes": 2}
        b = nn.vmap(nn.Dense, **lifted)(3, name="mapped")(jnp.stack([a, a**2], axis=2))
        loop = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False}, length=2)
        c, _ = loop(name="loop")(nn.Dense(2, name="of_features")(b).sum(axis=2), None)
        table = nn.Dense(3, name="of_a_table")(jnp.ones((7, 2)))
        return c + jnp.sum(table) + nn.Conv(self.outputs, (3,))(a[..., None])[:, 0]


def test_affine_layers_are_found_by_tracing():
    network = network_of(Nested, outputs=3)
    assert network.parameters.affine == [("trunk", "affine")]
    stored = {layer.path[1:]: layer.rows for layer in network.layers[1:]}
    inside = {("rematerialised", "Dense_0"), ("rematerialised", "Dense_1"), ("loop", "Dense_0")}
    assert set(stored) == {("mapped",), ("of_features",), ("of_a_table",), ("Conv_0",)} | inside
    assert set(stored.values()) == {1} and network.heads == ()
    assert_jacobian(network)


@pytest.mark.parametrize(
    "cls, settings, affine, stored",
    [
        (FourierResNet, {"parameters": {"width": 3, "blocks": 1}, "outputs": 2}, 4, 0),
        (Separable, {"parameters": {"width": 2, "rank": 3}, "form": "exponential", "outputs": 2}, 8, 0),
        (Particles, {"domain": WholeSpace(4), "density": True, "gaussians": 0, "parameters": {"coordinates": 2}}, 3, 2),
    ],
)
def test_ready_made_networks(cls, settings, affine, stored):
    network = network_of(cls.__name__, **settings)
    assert (len(network.parameters.affine), len(network.layers)) == (affine, affine + stored)
    assert_jacobian(network)
    own_checks.check(network)  # periodic, without slope, a function of each point


def test_a_class_is_told_along_which_axes_it_has_to_be_even():
    network = network_of("FourierResNet", even=(0, 1))
    assert network.parities == ((0, (1,)), (1, (1,)))
    own_checks.check(network)


def test_exchanged_particles_make_no_difference():
    network = network_of(
        "Particles", WholeSpace(6), density=True, gaussians=0, parameters={"coordinates": 2, "layers": 2}
    )
    theta, x = network.initialise(jax.random.key(0)), RANDOM.standard_normal((5, 6))
    exchanged = x.reshape(5, 3, 2)[:, [2, 0, 1]].reshape(5, 6)
    np.testing.assert_allclose(network.field(theta, exchanged), network.field(theta, x), rtol=1e-12)
    mirrored = x.reshape(5, 3, 2)[:, :, ::-1].reshape(5, 6)  # other coordinates of the same particles
    assert np.abs(network.field(theta, mirrored) - network.field(theta, x)).max() > 1e-3


def test_a_quadratic_form_beside_it_has_its_frame():
    network = network_of(Small, WholeSpace(2), density=True)
    assert [layer.path for layer in network.layers] == [("quadratic",), ("trunk", "Dense_0"), ("trunk", "Dense_1")]
    frame = Frame(jnp.array([0.5, -1.0]), jnp.array([[2.0, 0.0], [0.3, 1.5]]))
    assert len(network.layers_with_frames) == 1
    assert_jacobian(network, Basis((frame,), jnp.array([0.5, 2.0, 3.0])))


def test_the_built_in_network_written_as_a_users_is_the_same():
    """The same values from the same theta, layer by layer: its layers differ in their names alone."""

    class BuiltIn(nn.Module):
        outputs: int
        domain: Domain

        @nn.compact
        def __call__(self, x):
            a = nn.swish(nn.Dense(4, name="hidden")(boundary_features(x, self.domain, [1, 2, 0])))
            return nn.Dense(self.outputs, name="last")(a)

    own = network_of(BuiltIn)
    problem = type("Some", (Problem,), {"domain": property(lambda self: MIXED)})()
    built_in = build_network(NetworkSettings(width=4, depth=1, frequencies=[1, 2, 0]), problem)
    assert isinstance(built_in.parameters, AffineLayers) and own.size == built_in.size
    last, hidden = ({layer.path[-1]: layer for layer in built_in.layers}[name] for name in ("head", "hidden_00"))
    theta = RANDOM.standard_normal(own.size)
    ours = np.concatenate([theta[hidden.start : hidden.stop], theta[last.start : last.stop]])
    x = MIXED.sample(RANDOM, 6)
    np.testing.assert_allclose(own.field(ours, x), built_in.field(theta, x), rtol=1e-12)
    assert own.heads == (1,)


def test_the_first_outputs_of_a_wider_network():
    wide, narrow = network_of("FourierResNet", outputs=4), network_of("FourierResNet", outputs=2)
    theta, x = wide.initialise(jax.random.key(0)), MIXED.sample(RANDOM, 5)
    np.testing.assert_array_equal(narrow.field(restrict(theta, wide, narrow), x), wide.field(theta, x)[:, :2])
    own_checks.require_first_outputs(wide, narrow)

    class Interleaved(nn.Module):
        outputs: int

        @nn.compact
        def __call__(self, x):
            return jnp.sum(nn.Dense(2 * self.outputs)(jnp.tanh(x)).reshape(len(x), 2, self.outputs), axis=1)

    wide, narrow = (network_of(Interleaved, outputs=outputs) for outputs in (4, 2))
    with pytest.raises(InputError, match="set fit.time_derivative_targets = false"):
        own_checks.require_first_outputs(wide, narrow)


def test_a_last_layer_can_be_solved_for_where_there_is_one():
    tuned, auto = FitSettings(head_tuning=True), FitSettings(method="optimiser")
    assert Stages(auto, has_head=False).order != Stages(auto).order
    with pytest.raises(InputError, match="fit.head_tuning = true needs a network that returns what its last nn.Dense"):
        Stages(tuned, has_head=False)


# Mistakes ---------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    outputs: int

    def sees(self, x):
        return jnp.cos(jnp.pi * x[:, :2])

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(jnp.tanh(nn.Dense(3)(self.sees(x))))


def sines(x):
    return jnp.sin(jnp.pi * x)


def variant(name, **members):
    return type(name, (Plain,), members)


class Tied(Plain):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(2)
        a = jnp.tanh(layer(self.sees(x)))
        return nn.Dense(self.outputs)(a @ layer.variables["params"]["kernel"].T)


@pytest.mark.parametrize(
    "cls, settings, line",
    [
        (variant("Fine"), {}, None),
        (
            variant("Slope", sees=lambda self, x: sines(x[:, :2])),
            {},
            "has another slope at the ends of axis 1, which is Neumann",
        ),
        (variant("Broken", sees=lambda self, x: x[:, :1]), {}, "is not periodic along axis 0, which is Periodic"),
        (variant("Bent", sees=lambda self, x: x[:, :1] ** 2), {}, "is not periodic along axis 0"),
        (variant("Odd", sees=lambda self, x: sines(x[:, :1])), {"even": (0,)}, "is not even along axis 0"),
        (variant("Odd", sees=lambda self, x: sines(x[:, :1])), {"even": (0,), "symmetry": False}, None),
        (variant("Batch", sees=lambda self, x: jnp.cos(jnp.pi * x[:, :1]) - jnp.mean(x)), {}, "mixes points"),
        (
            variant("Infinite", sees=lambda self, x: 1 / (0 * x[:, :1])),
            {},
            "or one of its derivatives is not finite at x = ",
        ),
        (Tied, {}, "uses weights of an nn.Dense elsewhere than in the call of that layer"),
    ],
)
def test_what_a_run_relies_on(cls, settings, line):
    network = network_of(cls, **settings)
    if line is None:
        own_checks.check(network)
        return
    with pytest.raises(InputError) as caught:
        own_checks.check(network)
    assert str(caught.value).startswith(f"network.class = '{cls.__name__}' {line}") and "\n" not in str(caught.value)


class Statistics(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(nn.BatchNorm(use_running_average=False)(x))


class Nothing(nn.Module):
    outputs: int

    def __call__(self, x):
        return jnp.sum(x, axis=1, keepdims=True)


class Flat(Nothing):
    def __call__(self, x):
        return x[:, 0]


class Pair(Nothing):
    def __call__(self, x):
        return x, x


class Fails(Nothing):
    def __call__(self, x):
        return x @ jnp.ones((9, 1))


class Unnumbered(nn.Module):
    pass


@pytest.mark.parametrize(
    "cls, settings, line",
    [
        (Statistics, {}, "has variables of the kind batch_stats"),
        (Nothing, {}, "has no parameters"),
        (
            Flat,
            {},
            r"must return one real array \(n, outputs\), here \(3, 1\), for x of \(3, 3\); it returns float64 \(3,\)",
        ),
        (Pair, {}, "it returns a tuple"),
        (Fails, {}, r"test_own_network.py:\d+: class Fails: TypeError: dot_general"),
        (Unnumbered, {}, "class Unnumbered needs the field `outputs: int`"),
        ("FourierResnet", {}, "no ready-made network 'FourierResnet'; the nearest is FourierResNet"),
        (
            "Separable",
            {"parameters": {"rnk": 3}},
            "network Separable: unknown key network.parameters.rnk; the nearest is rank",
        ),
        (
            "Separable",
            {"parameters": {"rank": 0}},
            "network.parameters.rank must be a whole number of at least 1, got 0",
        ),
        ("Separable", {"parameters": {"outputs": 3}}, "unknown key network.parameters.outputs; it has rank, width"),
        ("Separable", {"gaussians": 0}, "network.gaussians = 0 needs network.form = 'log_density' or 'exponential'"),
    ],
)
def test_mistakes_of_a_class_or_its_parameters(cls, settings, line):
    with pytest.raises(InputError, match=line) as caught:
        network_of(cls, **settings)
    assert "\n" not in str(caught.value)


def test_mistakes_of_a_file(tmp_path):
    file, domain = tmp_path / "mine.py", WholeSpace(2)

    def load(text, name="Mine"):
        file.write_text(text)
        with pytest.raises(InputError) as caught:
            own_network.load(NetworkSettings(file=str(file), class_=name), domain, ())
        return str(caught.value)

    assert load("import nothing_of_that_name") == (
        f"{file}:1: ModuleNotFoundError: No module named 'nothing_of_that_name'; the file of a network imports "
        "installed packages and files in its folder"
    )
    text = "import flax.linen as nn\nclass Mine(nn.Module):\n    outputs: int\n"
    assert load(text, "Min") == f"{file}: network.class: there is no class 'Min' in this file; it has Mine"
    assert load("class Mine:\n    pass\n") == f"{file}: class Mine must derive from flax.linen.Module"


@pytest.mark.parametrize(
    "frequencies, line", [(0, "without an input along axis 0, which is Neumann"), ([1], "has 1 entries for")]
)
def test_boundary_features_without_an_input_are_refused(frequencies, line):
    with pytest.raises(InputError, match=line):
        boundary_features(np.zeros((1, 2)), Axes(Neumann(0, 1), Wall(0, 1)), frequencies)
