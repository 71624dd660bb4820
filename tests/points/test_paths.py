"""Points at the ends of simulated paths: samples of the solution, integrals, devices, mistakes."""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.integration.step_points import Present, StepPoints
from nivp_dist.points.mixture import Density
from nivp_dist.points.paths import Paths
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.double_well import DoubleWell
from nivp_dist.problems.heat import Heat
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.problems.vlasov import Vlasov, trace_back
from nivp_dist.settings.model import SamplingSettings

WELLS = DoubleWell(dimension=2)


def gaussian(problem):
    """One Gaussian with the centre and the scale of the problem's domain."""
    covariance = np.diag(np.asarray(problem.domain.scale) ** 2)
    return Density(jnp.ones(1), jnp.asarray(problem.domain.centre)[None], jnp.asarray(covariance)[None])


def sampler(problem, devices=1, **settings):
    return Sampler(SamplingSettings(method="paths", **settings), problem.domain, True, make_mesh(devices))


def ends(problem, t, key=0, n=4400, **settings):
    """The samples of u, and the ends in its tails."""
    paths = Paths(problem, sampler(problem, **settings))
    x, is_sample, _ = map(np.asarray, paths.draw(jax.random.key(key), gaussian(problem), t, n))
    return x[is_sample], x[~is_sample]


class Blown(LinearFokkerPlanck):
    """Particles without noise in a wind cos(t) along every axis."""

    noise: ClassVar[Any] = None

    def drift(self, x, t):
        return jnp.full_like(x, jnp.cos(t))


def test_paths_of_a_late_start_begin_then():
    problem = Blown(dimension=2)
    draws = [
        Paths(problem, sampler(problem), t_start).draw(jax.random.key(3), gaussian(problem), t, 50).x
        for t_start, t in ((0.5, 0.5), (0.5, 1.3))
    ]
    np.testing.assert_allclose(draws[1] - draws[0], np.sin(1.3) - np.sin(0.5), rtol=1e-9)


@lru_cache
def points(problem, devices, n):
    """The points of a step at t = 0 with the exact log u0 in place of the network's."""
    log_initial = jax.jit(lambda _, x: jnp.log(jax.vmap(problem.initial)(x))[:, None])
    galerkin: Any = SimpleNamespace(mesh=make_mesh(devices), problem=problem, field=log_initial)
    drawing = sampler(problem, devices)
    step_points = StepPoints(drawing.settings, drawing, galerkin)
    present = Present(jnp.zeros(1), 0.0, jnp.zeros(1), gaussian(problem), gaussian(problem))
    return step_points.draw(present, jax.random.key(5), n)


@pytest.mark.parametrize(
    "problem, t", [(LinearFokkerPlanck(dimension=3), 0.7), (WELLS, 0.5)], ids=["linear, forced", "wells"]
)
def test_the_ends_have_the_moments_of_the_solution(problem, t):
    (x, _), exact = ends(problem, t), problem.statistics(t)
    deviations = np.sqrt(np.diag(exact["covariance"]))
    # The standard errors are 1.6 % of a standard deviation, and at most 2.2 % of a variance.
    np.testing.assert_allclose((x.mean(axis=0) - exact["mean"]) / deviations, 0, atol=0.07)
    relative = (np.cov(x.T) - exact["covariance"]) / np.outer(deviations, deviations)
    np.testing.assert_allclose(relative, 0, atol=0.1)


def test_without_noise_the_paths_are_characteristics():
    samples, tails = ends(Vlasov(), 1.3, inflation=2.0)
    spread = lambda x: trace_back(x, 1.3, rtol=1e-8).std(axis=0)  # noqa: E731
    np.testing.assert_allclose(spread(samples), 0.3, rtol=0.06)
    # They start from 0.9 N(0, 2 v) + 0.1 N(0, 8 v), v = 0.3^2, where the standard error is 5 %.
    np.testing.assert_allclose(spread(tails), 0.3 * np.sqrt(2.6), rtol=0.2)


def test_the_share_in_the_tails_diffuses_more():
    problem = LinearFokkerPlanck(dimension=2, rotation=0.0, separation=0.0, anisotropy=0.0)
    samples, tails = ends(problem, 4.0, uniform_fraction=0.5, inflation=3.0)
    assert 0.45 < len(tails) / 4400 < 0.55
    # In equilibrium the variance is proportional to the noise; exp(-4) of the start is left.
    np.testing.assert_allclose(tails.var(axis=0) / samples.var(axis=0), 3.0, rtol=0.2)


def test_another_draw_has_other_paths():
    (one, _), (other, _) = (ends(WELLS, 0.5, key=key) for key in (1, 2))
    assert not np.isin(one, other).any()


def test_weights_and_integrals():
    drawn = points(WELLS, devices=1, n=8000)
    x, weights, measure = (np.asarray(part) for part in drawn)
    assert np.all(weights == 1 / 8000) and 0.85 < np.mean(measure > 0) < 0.95
    y = (x - WELLS.domain.centre) / WELLS.start_spread
    density = lambda width: np.exp(-np.sum(y**2, axis=1) / (2 * width**2)) / (2 * np.pi * (0.6 * width) ** 2)  # noqa: E731
    np.testing.assert_allclose(np.sum(measure * density(1.0)), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.sum(measure * density(0.7)), 1.0, rtol=0.1)


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (2, 4) if k <= jax.device_count()])
def test_the_same_points_on_every_number_of_devices(devices):
    one, many = (points(WELLS, k, n=101) for k in (1, devices))
    assert len(many.x) % devices == 0 and len(many.x.addressable_shards) == devices
    drawn = np.asarray(many.weights) > 0
    assert drawn.sum() == 101 and not np.asarray(many.measure)[~drawn].any()
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(np.asarray(b)[drawn], a, rtol=1e-10, atol=1e-12)


def test_steps_that_are_too_long_are_an_error():
    with pytest.raises(RunFailed, match=r"not finite at t = 50: raise sampling.path_steps \(now 2\)"):
        ends(WELLS, 50.0, path_steps=2)


def test_a_problem_without_particles_is_refused():
    drawing = Sampler(SamplingSettings(method="paths"), Heat().domain, False, make_mesh(1))
    with pytest.raises(InputError, match=r"needs a density on the WholeSpace whose problem defines drift\(x, t\)"):
        Paths(Heat(), drawing)
