"""Collocation points: integrals by their weights against quadrature, fitted densities, selection, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from nivp_dist.backend.mesh import make_mesh, replicate
from nivp_dist.errors import InputError
from nivp_dist.points.low_discrepancy import shifted_sequence
from nivp_dist.points.mixture import Density, log_mixture
from nivp_dist.points.points import Points, effective_sample_size, pad
from nivp_dist.points.sampling import Sampler
from nivp_dist.points.selection import select_by_residual, select_by_solution
from nivp_dist.problems import Axes, Box, Periodic, Real, WholeSpace
from nivp_dist.settings.model import SamplingSettings

BOX = Box(2, (-1.0, 0.0), (1.0, 3.0))
SPACE = WholeSpace(2, (0.5, -0.5), (1.0, 0.5))
STRIP = Axes(Real(0.5, 1.0), Periodic(0.0, 3.0))
# Two Gaussians, one of them half outside of BOX.
MIXTURE = Density(
    jnp.array([0.3, 0.7]),
    jnp.array([[0.95, 2.9], [-0.3, 1.0]]),
    jnp.array([[[0.2, 0.05], [0.05, 0.1]], [[0.1, -0.06], [-0.06, 0.3]]]),
)
N = 40_000


def sampler(domain=BOX, log_density=False, devices=1, **settings):
    settings = {"components": 2, "points": N} | settings
    return Sampler(SamplingSettings(**settings), domain, log_density, make_mesh(devices))


def quadrature(domain, g, n=400):
    """The integral of g over the domain (along real axes: over where a standard deviation of 1 has its mass)."""
    low, high = np.maximum(domain.lower, -9.0), np.minimum(domain.upper, 9.0)
    nodes, weights = np.polynomial.legendre.leggauss(n)
    axes = [(a + b) / 2 + (b - a) / 2 * nodes for a, b in zip(low, high)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    area = np.prod([(b - a) / 2 for a, b in zip(low, high)])
    return area * np.sum(np.outer(weights, weights).reshape(-1) * g(x))


def bump(x):
    return np.exp(-2 * (x[:, 0] - 0.2) ** 2 - (x[:, 1] - 1.0) ** 2)


INTEGRANDS = {
    "bump": bump,
    "first moment": lambda x: x[:, 0] * bump(x),
    "oscillating": lambda x: np.cos(2 * x[:, 0] - x[:, 1]) * bump(x),
}


@pytest.mark.parametrize(
    "domain, settings",
    [
        (BOX, {"method": "uniform"}),
        (BOX, {}),
        (BOX, {"uniform_fraction": 0.5, "inflation": 1.0}),
        (SPACE, {}),
        (STRIP, {}),
        (STRIP, {"uniform_fraction": 0.5, "inflation": 1.0}),
    ],
    ids=["uniform", "density", "half and half", "space", "strip", "half of a strip"],
)
def test_sums_with_the_measure_are_integrals(domain, settings):
    points = sampler(domain, **settings).draw(jax.random.key(0), MIXTURE)
    x, measure = np.asarray(points.x), np.asarray(points.measure)
    assert np.all((x >= domain.lower) & (x <= domain.upper))
    if domain is BOX:
        np.testing.assert_allclose(measure.sum(), BOX.volume, rtol=0.03)
    for name, g in INTEGRANDS.items():
        values = measure * g(x)
        spread = np.sqrt(N) * values.std()  # of the sum, if the points were independent
        assert abs(values.sum() - quadrature(domain, g)) < 4 * spread, name
        assert spread < 0.05 * quadrature(domain, lambda x: np.abs(g(x))), name
    weights = np.asarray(points.weights)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(weights, measure / measure.sum(), rtol=1e-12)


@pytest.mark.parametrize("domain", [BOX, STRIP], ids=["box", "strip"])
def test_the_mean_over_many_draws_is_right(domain):
    """Unbiased to a tenth of the error of one draw: a wrong constant of a truncated Gaussian would show."""
    draw = sampler(domain, points=2000).draw
    sums = []
    for seed in range(60):
        points = draw(jax.random.key(seed), MIXTURE)
        sums.append(float(np.sum(np.asarray(points.measure) * bump(np.asarray(points.x)))))
    error = np.mean(sums) - quadrature(domain, bump)
    assert abs(error) < 4 * np.std(sums) / np.sqrt(len(sums))
    assert np.std(sums) < 0.05 * quadrature(domain, bump)


@pytest.mark.parametrize("domain, settings, gain", [(BOX, {"method": "uniform"}, 20), (SPACE, {}, 2)])
def test_points_are_more_even_than_independent_ones(domain, settings, gain):
    """Sums against quadrature, off by a part of what independent points of the same spread are."""
    draw = sampler(domain, points=2000, **settings).draw
    sums, spreads = [], []
    for seed in range(60):
        points = draw(jax.random.key(seed), MIXTURE)
        values = np.asarray(points.measure) * bump(np.asarray(points.x))
        sums.append(values.sum())
        spreads.append(np.sqrt(2000) * values.std())
    assert np.sqrt(np.mean((np.array(sums) - quadrature(domain, bump)) ** 2)) < np.mean(spreads) / gain


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_shifted_sequences(d):
    """Uniform over shifts, and over points; d = 1: every gap is one of three (Steinhaus), about 1 / n long."""
    shifts = np.random.default_rng(0).random((200, d))
    draws = np.array([np.asarray(shifted_sequence(jnp.asarray(shift), 1000)) for shift in shifts])
    assert draws.min() > 0 and draws.max() < 1
    np.testing.assert_allclose(draws.mean((0, 1)), 0.5, atol=5e-3)
    np.testing.assert_allclose(draws[:, 500].mean(0), 0.5, atol=4 * np.sqrt(1 / 12 / 200))
    np.testing.assert_allclose(np.cov(draws[0].T), np.eye(d) / 12 if d > 1 else 1 / 12, atol=4e-3)
    if d == 1:
        gaps = np.diff(np.sort(draws[0, :, 0]))
        assert len(np.unique(np.round(gaps, 9))) <= 3 and gaps.max() < 2 / 1000


def test_weights_of_a_log_density_are_equal():
    points = sampler(SPACE, log_density=True, points=500).draw(jax.random.key(0), MIXTURE)
    np.testing.assert_allclose(points.weights, 1 / 500)
    assert np.ptp(np.asarray(points.measure)) > 0


def test_uniform_points_have_equal_weights():
    points = sampler(method="uniform", points=1000).draw(jax.random.key(0), MIXTURE)
    np.testing.assert_allclose(points.measure, BOX.volume / 1000)
    np.testing.assert_allclose(effective_sample_size(points.weights), 1000)
    with pytest.raises(InputError, match="on the whole space, or along a Real axis: use"):
        sampler(SPACE, method="uniform")


def test_nested_boxes():
    """Half of the points in boxes of all sizes: P(within half the size) = (1/4 + (1/2 + int_1/2^1 (1/2s)^2 ds)) / 2."""
    nested = sampler(method="uniform", nested_fraction=0.5)
    points = nested.draw(jax.random.key(0), MIXTURE)
    x, measure = np.asarray(points.x), np.asarray(points.measure)
    assert np.all((x >= BOX.lower) & (x <= BOX.upper))
    np.testing.assert_allclose(points.weights, 1 / N)
    size = np.max(np.abs(x - BOX.centre) / BOX.scale, axis=1)
    assert abs(np.mean(size < 0.5) - 0.5) < 4 * 0.5 / np.sqrt(N)
    for name, g in INTEGRANDS.items():
        values = measure * g(x)
        assert abs(values.sum() - quadrature(BOX, g)) < 4 * np.sqrt(N) * values.std(), name
    with pytest.raises(ValueError, match="set both, or neither"):
        SamplingSettings(method="density", nested_fraction=0.5)


def test_effective_sample_size():
    assert effective_sample_size(jnp.array([1.0, 1.0, 0.0, 0.0])) == 2
    np.testing.assert_allclose(effective_sample_size(jnp.array([3.0, 1.0])), 16 / 10)


def test_same_key_same_draw():
    s = sampler(points=100)
    a, b, c = (s.draw(jax.random.key(k), MIXTURE) for k in (5, 5, 6))
    for one, two, other in zip(a, b, c, strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.all(np.asarray(a.x) != np.asarray(c.x))


def test_log_mixture_against_scipy():
    x = np.random.default_rng(0).standard_normal((20, 2))
    weights, means, covariances = map(np.asarray, MIXTURE)
    exact = sum(w * multivariate_normal(m, c).pdf(x) for w, m, c in zip(weights, means, covariances))
    np.testing.assert_allclose(np.exp(log_mixture(MIXTURE, x)), exact, rtol=1e-10)


def test_padding_repeats_a_point_with_weight_zero():
    points = Points(jnp.arange(10.0).reshape(5, 2), jnp.full(5, 0.2), jnp.full(5, 3.0))
    padded = pad(points, 4)
    assert padded.x.shape == (8, 2) and not padded.weights[5:].any() and not padded.measure[5:].any()
    np.testing.assert_array_equal(padded.x[5:], np.tile(points.x[0], (3, 1)))
    np.testing.assert_array_equal(padded.weights[:5], points.weights)
    assert pad(points, 5) is points


# Densities that follow the solution -----------------------------------------------------------------------------


def gaussian(mean, covariance):
    return lambda x: np.exp(multivariate_normal(mean, covariance).logpdf(x))[:, None]


def test_fit_recovers_a_gaussian():
    s = sampler(SPACE, components=1)
    mean, covariance = np.array([0.8, -0.2]), np.array([[0.3, 0.1], [0.1, 0.2]])
    points = s.draw(jax.random.key(0), s.broadest())
    values = gaussian(mean, covariance)(np.asarray(points.x))
    fitted = s.fit(s.broadest(), points, -values, sweeps=2)  # a sign does not matter
    np.testing.assert_allclose(fitted.weights, [1.0])
    np.testing.assert_allclose(fitted.means[0], mean, atol=0.015)
    np.testing.assert_allclose(fitted.covariances[0], covariance, atol=0.015)


@pytest.mark.parametrize("squares", [False, True])
def test_fit_to_squares_finds_a_pulse_beside_small_errors_everywhere(squares):
    """A thousandth of the peak everywhere has four times the integral of a pulse 0.05 wide, and a hundredth of its
    square's: 2 (0.99 0.05^2 / 2 + 0.01 / 3) = 0.1^2."""
    domain = Box(3)
    s = Sampler(SamplingSettings(points=N), domain, False, make_mesh(1), squares=squares)
    pulse = gaussian(np.zeros(3), 0.05**2 * np.eye(3))
    begin = Density(jnp.ones(1), jnp.zeros((1, 3)), 0.05**2 * jnp.eye(3)[None])
    points = s.draw(jax.random.key(2), begin)
    x = np.asarray(points.x)
    values = pulse(x) + 1e-3 * pulse(np.zeros((2, 3)))[0] * np.sign(np.sin(40 * x[:, :1]))
    spread = np.sqrt(np.trace(s.fit(begin, points, values, sweeps=2).covariances[0]) / 3)
    assert abs(spread - 0.1) < 0.01 if squares else spread > 0.4


def test_fit_separates_two_gaussians():
    s = sampler(SPACE)
    means, covariances = np.array([[-1.2, 0.0], [1.5, -0.5]]), np.array([np.eye(2) * 0.1, np.diag([0.2, 0.05])])

    def values(x):
        log = [multivariate_normal(m, c).logpdf for m, c in zip(means, covariances)]
        return (0.4 * np.exp(log[0](x)) + 0.6 * np.exp(log[1](x)))[:, None]

    begin = Density(jnp.full(2, 0.5), jnp.array([[-0.5, 0.0], [0.5, 0.0]]), jnp.tile(jnp.eye(2), (2, 1, 1)))
    points = s.draw(jax.random.key(1), begin)
    fitted = s.fit(begin, points, values(np.asarray(points.x)), sweeps=30)
    np.testing.assert_allclose(fitted.weights, [0.4, 0.6], atol=0.02)
    np.testing.assert_allclose(fitted.means, means, atol=0.03)
    np.testing.assert_allclose(fitted.covariances, covariances, atol=0.03)


@pytest.mark.parametrize("values", [0.0, np.nan, np.inf])
def test_zero_and_infinite_values_leave_the_density_unchanged(values):
    s = sampler(points=1000)
    points = s.draw(jax.random.key(0), MIXTURE)
    fitted = s.fit(MIXTURE, points, jnp.full((1000, 1), values), sweeps=1)
    for new, old in zip(fitted, MIXTURE, strict=True):
        np.testing.assert_array_equal(new, old)


def test_too_few_effective_points_leave_the_density_unchanged():
    s = sampler(points=1000)
    points = s.draw(jax.random.key(0), MIXTURE)
    values = np.zeros((1000, 1))
    values[:3] = 1.0
    np.testing.assert_array_equal(s.fit(MIXTURE, points, values, sweeps=1).means, MIXTURE.means)


@pytest.mark.parametrize("dimension, width", [(2, 0.05), (5, 0.15)])
def test_the_pilot_finds_a_narrow_pulse(dimension, width):
    s = sampler(Box(dimension), components=1)
    centre = np.linspace(-0.4, 0.5, dimension)
    pulse = lambda x: jnp.exp(-jnp.sum((x - centre) ** 2, 1, keepdims=True) / 2 / width**2)  # noqa: E731
    density = s.start(jax.random.key(3), pulse)
    np.testing.assert_allclose(density.means[0], centre, atol=0.05 * width)
    np.testing.assert_allclose(density.covariances[0], width**2 * np.eye(dimension), atol=0.05 * width**2)


def test_the_pilot_separates_two_pulses():
    s = sampler(Box(2))
    centres = np.array([[-0.5, 0.0], [0.5, 0.2]])

    def values(x):
        return sum(jnp.exp(-jnp.sum((x - centre) ** 2, 1, keepdims=True) / 2 / 0.1**2) for centre in centres)

    density = s.start(jax.random.key(0), values)
    order = np.argsort(density.means[:, 0])
    np.testing.assert_allclose(density.means[order], centres, atol=0.01)
    np.testing.assert_allclose(density.covariances, np.tile(0.01 * np.eye(2), (2, 1, 1)), atol=2e-3)


# Selections among candidates ------------------------------------------------------------------------------------


def squares(x):
    return 1e-3 + np.exp(-20 * np.sum((x - np.array([0.5, 2.0])) ** 2, axis=1))


ONE = make_mesh(1)


def by_residual(key, candidates, x, n, mesh=ONE):
    return select_by_residual(key, candidates, jnp.asarray(squares(x)), n, mesh)


def by_solution(key, candidates, x, n, mesh=ONE):
    logs = jnp.log(jnp.asarray(bump(x)))
    return select_by_solution(key, candidates, logs, n, mesh, power=0.7, share=0.2, log_density=False)


@pytest.mark.parametrize("selection", [by_residual, by_solution])
def test_a_selection_is_unbiased(selection):
    candidates = sampler(points=4000).draw(jax.random.key(0), MIXTURE)
    select = jax.jit(lambda key, candidates, n: selection(key, candidates, x, n), static_argnames="n")
    x, weights, measure = map(np.asarray, candidates)
    for name, g in INTEGRANDS.items():
        exact = np.sum(measure * g(x))  # what the selection must estimate: the sum over the candidates
        estimates, normalised = [], []
        for seed in range(100):
            chosen = select(jax.random.key(seed), candidates, n=200)
            estimates.append(np.sum(np.asarray(chosen.measure) * g(np.asarray(chosen.x))))
            normalised.append(np.sum(np.asarray(chosen.weights) * g(np.asarray(chosen.x))))
        assert abs(np.mean(estimates) - exact) < 4 * np.std(estimates) / 10, name
        bias = 4 * np.std(normalised) / 10 + 0.01 * np.abs(weights * g(x)).sum()  # a ratio's bias is O(1/n)
        assert abs(np.mean(normalised) - np.sum(weights * g(x))) < bias, name


def test_selection_by_residual_prefers_large_residuals():
    candidates = sampler(method="uniform", points=4000).draw(jax.random.key(0), MIXTURE)
    near = lambda x: np.sum((np.asarray(x) - [0.5, 2.0]) ** 2, axis=1) < 0.1  # noqa: E731
    sizes = np.sqrt(squares(np.asarray(candidates.x)))
    chosen = select_by_residual(jax.random.key(1), candidates, jnp.asarray(sizes**2), 500, ONE)
    by_size = np.sum(sizes[near(candidates.x)]) / np.sum(sizes)
    assert by_size > 0.3 and near(candidates.x).mean() < 0.06  # the disc has 5 % of the area
    assert near(chosen.x).mean() == pytest.approx((by_size + near(candidates.x).mean()) / 2, abs=0.02)
    np.testing.assert_allclose(chosen.weights.sum(), 1, rtol=1e-12)
    # No weight is above twice that of the candidates: the half that ignores the residual sees to it.
    assert np.max(chosen.measure) <= 2 * BOX.volume / 500 * (1 + 1e-12)


def test_selection_without_any_residual_is_by_weight():
    candidates = sampler(points=4000).draw(jax.random.key(0), MIXTURE)
    chosen = select_by_residual(jax.random.key(1), candidates, jnp.zeros(4000), 500, ONE)
    np.testing.assert_allclose(chosen.weights, 1 / 500, rtol=1e-9)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_selection_by_solution_has_its_distribution(power):
    """A Gaussian to that power is one of its variance over the power; candidates come from others."""
    candidates = sampler(SPACE, log_density=True, points=400_000, inflation=3.0).draw(jax.random.key(0), MIXTURE)
    logs, n = jnp.log(jnp.asarray(bump(np.asarray(candidates.x)))), 20_000
    chosen = select_by_solution(jax.random.key(1), candidates, logs, n, ONE, power=power, share=0.0, log_density=True)
    variances = np.array([0.25, 0.5]) / power
    x = np.asarray(chosen.x)
    np.testing.assert_allclose(x.mean(axis=0), [0.2, 1.0], atol=5 * np.sqrt(variances.max() / n))
    np.testing.assert_allclose(np.cov(x.T), np.diag(variances), atol=5 * variances.max() * np.sqrt(2 / n))
    np.testing.assert_array_equal(chosen.weights, 1 / n)  # of a field log u: the norm follows the points
    volume = np.sum(np.asarray(chosen.measure) * bump(x))
    np.testing.assert_allclose(volume, np.pi / np.sqrt(2), rtol=0.02)


def test_a_share_of_the_selection_ignores_the_solution():
    candidates = sampler(SPACE, points=40_000).draw(jax.random.key(0), MIXTURE)
    logs = jnp.log(jnp.asarray(bump(np.asarray(candidates.x))))
    far = lambda points: np.mean(bump(np.asarray(points.x)) < 1e-6)  # noqa: E731

    def follow(share):
        key = jax.random.key(1)
        return select_by_solution(key, candidates, logs, 20_000, ONE, power=1.0, share=share, log_density=True)

    assert far(candidates) > 0.005 and far(follow(0.0)) == 0
    np.testing.assert_allclose(far(follow(0.5)), 0.5 * far(candidates), rtol=0.3)


@pytest.mark.parametrize("selection", [by_residual, by_solution])
def test_padding_is_never_selected(selection):
    candidates = pad(sampler(points=10).draw(jax.random.key(0), MIXTURE), 64)
    chosen = selection(jax.random.key(0), candidates, np.asarray(candidates.x), 500)
    assert np.all(chosen.weights > 0) and np.isfinite(chosen.measure).all()


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (1, 2, 4) if k <= jax.device_count()])
@pytest.mark.parametrize("domain", [BOX, SPACE], ids=["box", "space"])
def test_the_same_points_on_every_number_of_devices(devices, domain):
    one, many = (
        sampler(domain, devices=k, points=101).draw(jax.random.key(7), replicate(MIXTURE, make_mesh(k)))
        for k in (1, devices)
    )
    assert len(many.x) % devices == 0 and len(many.x.addressable_shards) == devices
    np.testing.assert_array_equal(np.asarray(one.x), np.asarray(many.x)[:101])
    for a, b in zip(one[1:], many[1:], strict=True):  # sums over all points: the order of their terms is the mesh's
        np.testing.assert_allclose(np.asarray(b)[:101], a, rtol=1e-14)
    assert not np.asarray(many.weights)[101:].any() and not np.asarray(many.measure)[101:].any()


def sharded_selection(selection, devices, candidates_each=2**10, n=501):
    """The compiled selection of n candidates on so many devices, and its arguments."""
    mesh, total = make_mesh(devices), 4 * candidates_each
    candidates = sampler(devices=devices, points=total).draw(jax.random.key(0), replicate(MIXTURE, mesh))
    x = np.asarray(candidates.x)
    values = jax.device_put(squares(x) if selection is select_by_residual else np.log(bump(x)), candidates.x.sharding)
    more = {} if selection is select_by_residual else {"power": 0.7, "share": 0.2, "log_density": False}

    def select(key, candidates, values):
        return selection(key, candidates, values, n, mesh, **more)

    arguments = jax.random.key(3), candidates, values
    return jax.jit(select).lower(*arguments).compile(), arguments


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (2, 4) if k <= jax.device_count()])
@pytest.mark.parametrize("selection", [select_by_residual, select_by_solution])
def test_the_same_selection_on_every_number_of_devices(selection, devices):
    one, many = (select(*arguments) for select, arguments in (sharded_selection(selection, k) for k in (1, devices)))
    assert len(many.x) == 501 + (-501 % devices) and len(many.x.addressable_shards) == devices
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(np.asarray(b)[:501], a, rtol=1e-12)
    assert not np.asarray(many.weights)[501:].any() and not np.asarray(many.measure)[501:].any()


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (1, 2, 4) if k <= jax.device_count()])
@pytest.mark.parametrize("selection", [select_by_residual, select_by_solution])
def test_the_work_of_a_selection_grows_with_the_candidates_of_a_device(selection, devices):
    """A cumulative sum over the sharded array took 16 times the operations for 4 times the candidates."""
    work = []
    for each in (2**12, 2**14):
        compiled, _ = sharded_selection(selection, devices, candidates_each=each)
        work.append(compiled.cost_analysis()["flops"])
    assert work[1] < 4.5 * work[0]
