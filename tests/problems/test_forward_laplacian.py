"""The forward Laplacian of every kind of operation against full Hessians, batched, sharded and differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.network.network import build_network
from nivp_dist.problems import (
    Axes,
    Box,
    Neumann,
    Periodic,
    PeriodicBox,
    Problem,
    Wall,
    WholeSpace,
    derivatives,
    generator,
    laplacian,
)
from nivp_dist.problems.forward_laplacian import propagate
from nivp_dist.settings.model import NetworkSettings

RANDOM = np.random.default_rng(0)
A, B = RANDOM.standard_normal((5, 7)), RANDOM.standard_normal((5, 5))
X = RANDOM.standard_normal((3, 5))


def with_a_derivative_of_its_own(x):
    """Its second derivative at 0 is 1; differentiating its formula there would give NaN."""

    @jax.custom_jvp
    def f(x):
        return jnp.sqrt(x**4) / 2

    f.defjvps(lambda t, value, x: x * t)
    return f(x)


@jax.custom_vjp
def reverse_only(x):
    return jnp.sin(x)


reverse_only.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))

FUNCTIONS = {
    "matrix products": lambda x: x @ B @ x + jnp.sum(jnp.tanh(A.T @ x)),
    "einsum of two factors": lambda x: jnp.einsum("i,ij,j->", jnp.cos(x), B, jnp.sin(x)),
    "product": lambda x: jnp.prod(1 - x**2),
    "product of few": lambda x: x[0] * x[1] * x[2] * x[3] * jnp.sin(x[0]) + x[4],
    "quotient, powers": lambda x: x[0] / (1 + x[1] ** 2) + 1 / x[2] + jnp.abs(x[3]) ** 2.5,
    "norm": lambda x: jnp.linalg.norm(x - 1),
    "log-sum-exp": lambda x: jax.scipy.special.logsumexp(x @ A),
    "activations": lambda x: jax.nn.softplus(x @ A) + jax.nn.gelu(x @ A) + jax.nn.silu(x @ A) * jax.nn.relu(x @ A),
    "pairs": lambda x: (x[np.triu_indices(5)[0]] * x[np.triu_indices(5)[1]]) @ np.arange(15.0) + jnp.sum(x**2),
    "entries moved": lambda x: jnp.roll(x, 1) * x[::-1] * jnp.concatenate([x[3:], jnp.ones(1), x.reshape(5, 1)[:2, 0]]),
    "entries turned, stacked, cut": lambda x: (
        (jnp.stack([x[::2], x[2:]]).T.reshape(6) + jax.lax.reshape(jnp.outer(x, x)[:2, :3], (6,), (1, 0)))[::-1]
        * jax.lax.dynamic_slice(x, (4,), (3,))[jnp.array([0, 0, 1, 1, 2, 2])]
    ),
    "entries set": lambda x: x.at[1].set(x[0] * x[3]) * x[jnp.array([0, -1, 2, 2, 1])],
    "an index that depends on x": lambda x: x[jnp.argmax(x)] ** 2 + jnp.max(x) * jnp.minimum(x[0], x[1]),
    "sorted": lambda x: jnp.sort(x) ** 3,
    "scans": lambda x: jnp.cumsum(x**3) + jnp.cumprod(x),
    "loop and branch": lambda x: jax.lax.fori_loop(
        0, 3, lambda i, a: a * x, jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)
    ),
    "chosen": lambda x: jnp.where(x > 0, x**2, jnp.sin(x)) + jax.lax.stop_gradient(x) * x,
    "checkpointed": jax.checkpoint(lambda x: jnp.sin(x @ A) * 2),
    "batched": lambda x: jax.vmap(lambda a: jnp.exp(-jnp.sum((x - a) ** 2) / 9))(A.T),
    "inverse": lambda x: jnp.linalg.inv(4 * jnp.eye(5) + jnp.outer(x, x)),
    "gradient inside": lambda x: jax.grad(lambda y: jnp.sum(jnp.sin(y @ A)))(x),
    "Laplacian inside": lambda x: laplacian(lambda y: jnp.sum(jnp.sin(y @ B) ** 2), x),
    "complex": lambda x: jnp.abs(jnp.exp(1j * x) * (x + 2j)) ** 2,
    "constant": lambda x: jnp.arange(3.0),
    "linear": lambda x: jnp.stack([3 * x[1], x[0] - x[2]]),
}


def relative(a, b):
    return np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), 1e-300)


def test_every_kind_of_operation_against_its_hessian():
    def both(x):
        found = {name: derivatives(u, x) for name, u in FUNCTIONS.items()}
        # Forward mode twice compiles in half the time of reverse mode, and is as independent.
        return found, {name: (u(x), jax.jacfwd(u)(x), jax.jacfwd(jax.jacfwd(u))(x)) for name, u in FUNCTIONS.items()}

    found, exact = jax.jit(jax.vmap(both))(X)
    for name, (value, slope, hessian) in exact.items():
        expected = (value, slope, np.trace(hessian, axis1=-2, axis2=-1))
        scale = max(np.abs(hessian).max(), 1.0)
        for got, want in zip(found[name], expected, strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype, name
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13 * scale, err_msg=name)


def test_custom_derivatives_are_used():
    value, slope, curvature = derivatives(with_a_derivative_of_its_own, jnp.zeros(2))
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(slope, np.zeros((2, 2)))
    np.testing.assert_array_equal(curvature, [1.0, 1.0])
    # Nested forward mode cannot pass a derivative for reverse mode only: its formula is differentiated.
    found = jax.jit(lambda x: laplacian(lambda y: jnp.sum(reverse_only(y @ A)), x))(X[0])
    np.testing.assert_allclose(found, -np.sum(np.sin(X[0] @ A) * np.sum(A**2, axis=0)), rtol=1e-12)


@pytest.mark.parametrize(
    "noise",
    [B, A, np.diag([1.0, 2.0, 0.0, 3.0, 4.0]), np.eye(5)[:, [0, 2]], np.zeros((5, 2)), jnp.asarray(A)],
    ids=["full", "wide", "diagonal", "degenerate", "none", "traced"],
)
def test_generator_against_its_formula(noise):
    u = lambda x: jnp.exp(jnp.sin(x[0] * x[1]) + x @ B @ x / 9 + x[4])  # noqa: E731
    drift = np.arange(5.0)
    value, slope, hessian = jax.jit(lambda x: (u(x), jax.grad(u)(x), jax.hessian(u)(x)))(X[1])
    expected = drift @ slope + np.trace(np.asarray(noise).T @ hessian @ noise) / 2
    found, along = jax.jit(lambda x: (generator(u, x, drift, noise), propagate(u, x, drift, noise)))(X[1])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(along[0], value, rtol=1e-13)
    np.testing.assert_allclose(along[1], np.asarray(noise).T @ slope, rtol=1e-12, atol=1e-13)


NETWORKS = {
    "box": (Box(3), 2, {"frequencies": 3, "alpha": 1.0}),
    "periodic": (PeriodicBox(3, 0, 2), 1, {"frequencies": 2, "activation": "tanh"}),
    "log density": (WholeSpace(3, 0.5, 2.0), 1, {"form": "log_density", "activation": "gelu"}),
    "exponential": (Box(3), 2, {"form": "exponential", "activation": "sin", "trunk": "separate"}),
    "mixed": (Axes(Wall(0, 1), Periodic(0, 2), Neumann(-1, 1)), 1, {"form": "exponential"}),
}


def network_of(name, dtype="float64"):
    domain, outputs, settings = NETWORKS[name]
    problem = type("Some", (Problem,), {"outputs": outputs, "domain": property(lambda self: domain)})()
    settings = {"width": 6, "depth": 2, "output_scales": [1.0] * outputs, "dtype": dtype} | settings
    network = build_network(NetworkSettings(**settings), problem)
    return network, jax.jit(network.initialise)(jax.random.key(1))


@pytest.mark.devices
@pytest.mark.parametrize(
    "name, dtype, tolerance", [(name, "float64", 1e-11) for name in NETWORKS] + [("box", "float32", 2e-3)]
)
def test_networks_on_a_mesh(name, dtype, tolerance):
    """Under shard_map, vmap and jit, theta replicated and the points sharded."""
    network, theta = network_of(name, dtype)
    mesh = make_mesh()
    x = np.random.default_rng(3).uniform(0.1, 0.9, (2 * mesh.size, 3)).astype(dtype)

    def body(theta, x):
        return jax.vmap(lambda point: derivatives(network.function(theta), point))(x)

    found = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=(P(), P("points")), out_specs=P("points")))(theta, x)
    assert all(part.dtype == dtype for part in found)
    exact, _ = network_of(name)

    def dense(point):
        u = exact.function(theta)
        return u(point), jax.jacfwd(u)(point), jnp.trace(jax.jacfwd(jax.jacfwd(u))(point), axis1=-2, axis2=-1)

    for got, want in zip(found, jax.jit(jax.vmap(dense))(x.astype(np.float64)), strict=True):
        assert got.shape == want.shape and relative(got, np.asarray(want)) < tolerance


def test_it_can_be_differentiated_again():
    """Along theta by linearize, and along the point by reverse mode: against nested forward mode."""
    network, theta = network_of("box")
    v, x = RANDOM.standard_normal(network.size), X[0, :3] / 5

    def nested(theta, x):
        u = network.function(theta)
        second = lambda e: jax.jvp(lambda y: jax.jvp(u, (y,), (e,))[1], (x,), (e,))[1]  # noqa: E731
        return jnp.sum(jax.vmap(second)(jnp.eye(3)), axis=0)

    def forward(theta, x):
        return laplacian(network.function(theta), x)

    def derived(f):
        return jax.linearize(lambda theta: f(theta, x), theta)[1](v), jax.jacrev(lambda x: f(theta, x))(x)

    for got, want in zip(*jax.jit(lambda: (derived(forward), derived(nested)))(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())


def largest(jaxpr):
    """The number of entries of the largest array in a jaxpr, inner ones included."""
    inner = [getattr(value, "jaxpr", value) for eqn in jaxpr.eqns for value in eqn.params.values()]
    sizes = [max(var.aval.size for var in eqn.outvars) for eqn in jaxpr.eqns]
    return max(sizes + [largest(part) for part in inner if hasattr(part, "eqns")])


def test_sparse_jacobians_stay_sparse():
    """d = 40: no Jacobian of the embedding's 360 features, nor of the 820 pairs, is ever formed densely."""
    for domain, settings in [(Box(40), {"frequencies": 4}), (WholeSpace(40), {"form": "log_density"})]:
        problem = type("Some", (Problem,), {"domain": property(lambda self: domain)})()
        network = build_network(NetworkSettings(width=7, depth=2, **settings), problem)
        theta = jax.eval_shape(network.initialise, jax.random.key(0))
        point = jax.ShapeDtypeStruct((40,), np.float64)
        traced = jax.make_jaxpr(lambda theta, x: laplacian(network.function(theta), x))(theta, point)
        features = max(layer.rows for layer in network.layers)
        assert features == (361 if "frequencies" in settings else 861)  # and the bias
        # theta itself, the first layer's weights sorted by coordinate, and two derivatives of each pair
        assert largest(traced.jaxpr) <= max(network.size, 40 * 10 * 7, 4 * features) < 40 * features / 2
