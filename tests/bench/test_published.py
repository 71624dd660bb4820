"""The published procedure agrees with dense algebra, with SciPy's integrator, and with ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.bench import cases
from nivp_dist.bench.published import Failed, Published, Settings
from nivp_dist.bench.published_fit import PublishedFit
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.problems.wave import Wave
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

POINTS, COLUMNS = 40, 5
SMALL = {"width": 4, "depth": 1, "frequencies": 1, "form": "direct"}
SETTINGS = Settings(points=POINTS, rank=12, mu=1e-3, tolerance=1e-12, max_iterations=200, rtol=1e-4)


class Setup:
    """A network in float64 or float32, parameters, points, and the dense J (n m, p) and f (n m,) there."""

    def __init__(self, problem, dtype="float64"):
        self.problem = problem
        self.network = build_network(NetworkSettings(**SMALL, dtype=dtype), problem)
        self.published = Published(self.network, problem, SETTINGS)
        self.theta = self.network.initialise(jax.random.key(2))
        self.x = self.published.sample(jax.random.key(3))
        self.wide = build_network(NetworkSettings(**SMALL), problem)
        self.dense = jax.jit(self._dense)

    def _dense(self, theta):
        wide, x = self.wide, jnp.asarray(self.x, jnp.float64)
        j = jax.jacobian(lambda theta: wide.field(theta, x))(theta)
        f = jax.vmap(lambda point: self.problem.rhs(wide.function(theta), point, 0.0))(x)
        f = wide.as_field_rate(jnp.reshape(f, (len(x), -1)), None)
        return j.reshape(-1, wide.size), f.reshape(-1)


@pytest.fixture(scope="module", params=["float64", "float32"])
def wave(request):
    return Setup(Wave(dimension=1, width=0.2), request.param)


@pytest.fixture(scope="module")
def trap():
    return Setup(FokkerPlanckTrap(dimension=2))


def close(got, want, tolerance):
    assert np.linalg.norm(np.asarray(got, np.float64) - want) <= tolerance * np.linalg.norm(want)


def test_products_equal_those_of_a_dense_jacobian(wave, monkeypatch):
    monkeypatch.setattr(
        "nivp_dist.bench.published.MAX_ENTRIES", 9 * COLUMNS * 16
    )  # several batches, the last one partial
    dtype = wave.network.dtype
    tolerance = 1e-13 if dtype == jnp.float64 else 2e-6
    j, f = map(np.asarray, wave.dense(wave.theta))
    v = np.random.default_rng(0).standard_normal((wave.network.size, COLUMNS))
    theta, columns = wave.theta.astype(dtype), jnp.asarray(v, dtype)

    @jax.jit
    def all_products(theta, x, columns):
        published = wave.published
        products = published.product(theta, x, columns[:, 0]), published.products(theta, x, columns)
        return *products, published.force(theta, 0.0, x)

    one, several, force = all_products(theta, wave.x, columns)
    close(one, j.T @ (j @ v[:, 0]) / POINTS, tolerance)
    close(several, j.T @ (j @ v) / POINTS, tolerance)
    close(force, j.T @ f / POINTS, tolerance)


def test_velocity_equals_a_dense_regularised_solve(trap):
    result = trap.published.velocity(trap.theta, 0.0, trap.x, jax.random.key(4))
    j, f = map(np.asarray, trap.dense(trap.theta))
    matrix = j.T @ j / POINTS
    # mu is relative to the largest eigenvalue, which a sketch of fixed rank finds
    assert float(result.mu) == pytest.approx(SETTINGS.mu * np.linalg.eigvalsh(matrix)[-1], rel=1e-3)
    exact = np.linalg.solve(matrix + float(result.mu) * np.eye(len(matrix)), j.T @ f / POINTS)
    close(result.v, exact, 1e-8)
    assert float(result.residual) <= SETTINGS.tolerance


def test_ours_and_the_published_velocity_agree(trap):
    result = trap.published.velocity(trap.theta, 0.0, trap.x, jax.random.key(4))
    sampling, mesh = SamplingSettings(points=POINTS), make_mesh(1)
    galerkin = Galerkin(Discretisation(trap.network, trap.problem, sampling, mesh), SolverSettings(method="primal"))
    points = cases.uniform_points(mesh, jax.random.key(0), trap.problem.domain, POINTS)._replace(x=trap.x)
    shared = galerkin.prepare(trap.theta, points, jax.random.key(5), 4)._replace(mu=result.mu)
    ours = galerkin.velocity(trap.theta, 0.0, points, shared, jnp.zeros(trap.network.size))
    close(result.v, np.asarray(ours.v), 1e-8)


def test_our_products_and_the_published_ones_agree(trap):
    @jax.jit
    def both(theta, x, v):
        operator = Operator.build(trap.network, theta, x, jnp.full(POINTS, 1.0 / POINTS))
        return operator.normal(v), trap.published.product(theta, x, v)

    ours, published = both(trap.theta, trap.x, jnp.ones(trap.network.size))
    close(published, np.asarray(ours), 1e-12)


def test_the_evolution_agrees_with_scipys_integrator(trap, monkeypatch):
    """On fixed points the ODE of the parameters has one solution, which SciPy finds too."""
    monkeypatch.setattr(trap.published, "sample", lambda key: trap.x)

    @jax.jit
    def rate(theta):
        j, f = trap.dense(theta)
        matrix = j.T @ j / POINTS
        matrix += SETTINGS.mu * jnp.linalg.eigvalsh(matrix)[-1] * jnp.eye(len(matrix))
        return jnp.linalg.solve(matrix, j.T @ f / POINTS)

    exact = scipy.integrate.solve_ivp(
        lambda t, theta: rate(theta), (0, 0.1), np.asarray(trap.theta), rtol=1e-8, atol=1e-10
    ).y[:, -1]
    theta, steps, evaluations = trap.published.evolve(trap.theta, 0.1, jax.random.key(0))
    assert steps > 2
    assert evaluations >= 4 * steps  # every step evaluates all its stages
    close(theta - trap.theta, exact - np.asarray(trap.theta), 1e-2)


def test_the_evolution_fails_on_nan_and_out_of_time(trap):
    with pytest.raises(Failed, match="not a number"):
        trap.published.evolve(trap.theta * jnp.nan, 0.1, jax.random.key(0))
    with pytest.raises(Failed, match="not done in 0 s"):
        trap.published.evolve(trap.theta, 0.1, jax.random.key(0), seconds=0.0)


def test_the_first_step_of_adam_is_the_learning_rate_along_the_sign_of_the_gradient(trap):
    settings = SETTINGS._replace(batch=30, learning_rate=1e-2)
    key = jax.random.key(7)

    def target(x):
        return jnp.sum(x**2, axis=1, keepdims=True)

    fit = PublishedFit(trap.network, trap.problem, settings, target)
    x = fit.sample(key, settings.batch)
    loss = lambda theta: jnp.mean((trap.network.field(theta, x) - target(x)) ** 2)  # noqa: E731
    gradient = np.asarray(jax.grad(loss)(trap.theta))
    moved, _ = fit.step(fit.begin(trap.theta), key)
    large = np.abs(gradient) > 1e-4
    assert large.sum() > 5
    step = np.asarray(moved - trap.theta)[large]
    np.testing.assert_allclose(step, -1e-2 * np.sign(gradient[large]), rtol=1e-3)


def test_head_tuning_is_a_ridge_regression_on_the_features(trap):
    settings = SETTINGS._replace(batch=25, head_points=50, head_ridge=1e-4)
    key = jax.random.key(8)

    def target(x):
        return jnp.cos(jnp.sum(x, axis=1, keepdims=True))

    fit = PublishedFit(trap.network, trap.problem, settings, target)
    x = np.concatenate([fit.sample(jax.random.fold_in(key, part), 25) for part in (0, 1)])
    head = next(layer for layer in trap.network.layers if layer.path[-1] == "head")
    # The field is linear in the parameters of the head: its features are its values at the unit vectors.
    features = []
    for entry in range(head.start, head.stop):
        unit = np.asarray(trap.theta).copy()
        unit[head.start : head.stop] = 0.0
        unit[entry] = 1.0
        features.append(trap.network.field(unit, x)[:, 0])
    phi, y = np.stack(features, axis=1), np.asarray(target(x))[:, 0]
    penalty = 1e-4 * 50 / phi.shape[1]
    stacked = np.vstack([phi, np.sqrt(penalty) * np.eye(phi.shape[1])])
    exact = np.linalg.lstsq(stacked, np.concatenate([y, np.zeros(phi.shape[1])]), rcond=None)[0]
    tuned = np.asarray(fit.tune_head(trap.theta, key))
    np.testing.assert_allclose(tuned[head.start : head.stop], exact, rtol=1e-9)
    rest = np.delete(np.arange(len(tuned)), np.arange(head.start, head.stop))
    np.testing.assert_array_equal(tuned[rest], np.asarray(trap.theta)[rest])
