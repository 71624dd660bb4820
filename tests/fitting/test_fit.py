"""Fits whose minimum is known, the stages of a fit, and a fit that was interrupted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend import random_keys
from nivp_dist.fitting import fit
from nivp_dist.fitting.fit import DAMPING_FACTORS, LONG_PATIENCE, FitState
from nivp_dist.fitting.stages import DONE, GAUSS_NEWTON, HEAD, LAST_HEAD, OPTIMISER, TRIAL
from nivp_dist.galerkin.methods import FIRST_RANK, dual_pcg_suits_fit, fit_rank
from nivp_dist.network.network import build_network
from nivp_dist.problems import Problem, WholeSpace
from nivp_dist.settings.model import NetworkSettings

KEY = jax.random.key(11)


class Log(Problem):
    density = True

    @property
    def domain(self):
        return WholeSpace(1)


def run(fitter, theta, density, rounds=100, context=None):
    """States of a fit, the first included, until it is done."""
    states = [fitter.start(theta)]
    while int(states[-1].stage) != DONE and len(states) <= rounds:
        states.append(fitter.advance(states[-1], KEY, density, context))
    return states


def test_a_target_of_the_same_architecture_is_reached(setting):
    """The minimum is zero. It is checked on the points of the fit and on others."""
    case = setting(network={"width": 2, "depth": 1, "frequencies": 1, "activation": "tanh"})
    star = case.theta + 0.3 * jax.random.normal(jax.random.key(5), case.theta.shape)
    # Straight corrections: the differences along curved ones have rounding errors that end a fit near 1e-9.
    fitter = case.fitter(lambda context, x: case.network.field(context, x), iterations=30, stop_at=1e-9, order=1)
    states = run(fitter, case.theta, case.density, context=star)
    assert int(states[-1].stage) == DONE and float(states[-1].error) < 1e-9
    x = np.random.default_rng(0).uniform(-1, 1, (100, 2))
    exact, got = (np.asarray(case.network.field(theta, x)) for theta in (star, states[-1].theta))
    assert np.linalg.norm(got - exact) < 1e-8 * np.linalg.norm(exact)
    errors = [float(state.error) for state in states[1:]]
    assert errors[0] > 1e-2 and errors[-1] < 1e-3 * errors[-2]  # the last round converges quadratically
    measured = fitter.measure(states[-1], jax.random.key(99), case.density, star)
    assert float(measured.error) < 1e-8 and float(measured.error) != float(states[-1].error)


def test_a_linear_problem_takes_one_step(setting):
    """With a head of zero the field is linear along a Gauss-Newton step: it is the ridge solution, by numpy."""
    case = setting(Log(), network={"width": 3, "depth": 1}, sampling={"method": "density"}, points=80)
    theta = np.array(case.theta)
    for layer in case.network.layers:
        if layer.path[-1] == "head":
            theta[layer.start : layer.stop] = 0
    target = lambda _, x: -(x**2) / 2 + jnp.sin(2 * x)  # noqa: E731
    fitter = case.fitter(target)
    before = fitter.start(jnp.asarray(theta))
    after = fitter.advance(before, KEY, case.density)
    key = random_keys.fit_round_key(KEY, 0)
    points, fresh = case.draw(random_keys.fit_points_key(key)), case.draw(random_keys.fit_check_key(key))
    j, w = case.dense(jnp.asarray(theta), points)
    misfit = np.asarray(target(None, points.x) - case.network.field(theta, points.x)).reshape(-1)
    m = j.T @ (w[:, None] * j)
    solutions, errors = [], []
    for factor in DAMPING_FACTORS:
        mu = float(before.damping) * factor * np.trace(m)
        solutions.append(theta + np.linalg.solve(m + mu * np.eye(len(m)), j.T @ (w * misfit)))
        values = np.asarray(case.network.field(solutions[-1], fresh.x) - target(None, fresh.x))
        errors.append(np.sqrt(np.mean(values**2)))
    best = int(np.argmin(errors))
    np.testing.assert_allclose(after.theta, solutions[best], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(after.error, errors[best], rtol=1e-7)
    np.testing.assert_allclose(after.damping, before.damping * DAMPING_FACTORS[best])


def test_a_round_that_gains_nothing_keeps_theta_and_damps_more(box):
    fitter = box.fitter(lambda context, x: box.network.field(context, x))
    state = fitter.start(box.theta)
    after = fitter.advance(state, KEY, box.density, box.theta)  # the target is met exactly already
    np.testing.assert_array_equal(after.theta, box.theta)
    assert float(after.error) == 0 and int(after.stage) == DONE
    np.testing.assert_allclose(after.damping, 10 * state.damping)


STEPS, ITERATIONS = [OPTIMISER] * 2, [GAUSS_NEWTON] * 3


@pytest.mark.parametrize(
    "method, head_tuning, stages",
    [
        ("adam_then_gauss_newton", "auto", [TRIAL, *STEPS, HEAD, *ITERATIONS, DONE]),
        ("adam_then_gauss_newton", True, [TRIAL, *STEPS, HEAD, *ITERATIONS, LAST_HEAD, DONE]),
        ("adam_then_gauss_newton", False, [*STEPS, *ITERATIONS, DONE]),
        ("adam", "auto", [TRIAL, *STEPS, HEAD, DONE]),
        ("adam", False, [*STEPS, DONE]),
        ("gauss_newton", "auto", [*ITERATIONS, DONE]),
        ("gauss_newton", True, [TRIAL, *ITERATIONS, LAST_HEAD, DONE]),
    ],
)
def test_stages(box, method, head_tuning, stages):
    target = lambda _, x: jnp.sin(3 * x) * jnp.prod(1 - x**2, -1, keepdims=True)  # noqa: E731
    options = {"method": method, "head_tuning": head_tuning, "steps": 200, "iterations": 3}
    fitter = box.fitter(target, **options, stop_at=1e-12)
    states = run(fitter, box.theta, box.density)
    assert [int(state.stage) for state in states] == stages
    trial = stages[0] == TRIAL  # which is no round
    assert [int(state.round) for state in states] == [0] * trial + list(range(len(states) - trial))
    assert int(states[-1].round) == fitter.last_round
    # Every round measures the error of its theta, and every stage reduces it.
    measured = [float(fitter.measure(state, jax.random.key(1), box.density).error) for state in states]
    np.testing.assert_allclose([float(state.error) for state in states[1:]], measured[1:], rtol=0.3)
    changes = [k for k in range(len(states) - 1) if stages[k] != stages[k + 1] and stages[k] not in (TRIAL, LAST_HEAD)]
    ends = [measured[0], *(measured[k + 1] for k in changes)]
    assert all(after < before for before, after in zip(ends, ends[1:])), ends
    # The state of the optimiser is kept from the start to the end of its stage.
    held = [state.optimiser.size for state in states]
    assert held == [(2 * box.theta.size + 2) * (OPTIMISER in stages[k:]) for k in range(len(states))]


def features(case):
    """A target that differs from the initial field in the last layer alone, and its theta."""
    theta = np.array(case.theta)
    for layer in case.network.layers:
        if layer.path[-1] == "head":
            theta[layer.start : layer.stop] += np.linspace(-1, 1, layer.stop - layer.start)
    return lambda context, x: case.network.field(jnp.asarray(theta), x)


@pytest.mark.parametrize("method, rounds", [("adam", 0), ("gauss_newton", 3), ("adam_then_gauss_newton", 3)])
def test_where_the_last_layer_alone_reaches_the_target_it_is_solved_for_at_once(box, method, rounds):
    """Without a step of the optimiser; Gauss-Newton goes on from there."""
    options = {"target": 1e-2, "iterations": 3, "stop_at": 1e-12, "head_ridge": 1e-9}
    fitter = box.fitter(features(box), method=method, head_tuning=True, **options)
    states = run(fitter, box.theta, box.density)
    assert float(states[0].error) == np.inf and float(states[1].error) < 5e-3
    assert OPTIMISER not in [int(state.stage) for state in states[1:]]
    assert [int(state.stage) for state in states].count(GAUSS_NEWTON) == rounds
    assert int(states[-1].round) == fitter.last_round and states[1].optimiser.size == 0
    heads = np.concatenate(
        [np.r_[layer.start : layer.stop] for layer in box.network.layers if layer.path[-1] == "head"]
    )
    changed = np.flatnonzero(np.asarray(states[1].theta) != np.asarray(box.theta))
    assert set(changed) == set(heads)


def test_a_trial_that_is_not_enough_changes_no_bit_of_the_fit(box):
    """Nor does one that is enough for fit.target and not for another goal."""
    options = {"method": "adam", "steps": 200}
    plain = run(box.fitter(features(box), head_tuning=False, **options), box.theta, box.density)
    tried = run(box.fitter(features(box), target=1e-2, goal=1e-9, **options), box.theta, box.density)
    assert [int(state.stage) for state in tried][:3] == [TRIAL, OPTIMISER, OPTIMISER]
    np.testing.assert_array_equal(tried[3].theta, plain[2].theta)


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (1, 2, 4) if k <= jax.device_count()])
def test_rounds_for_the_samples_are_those_of_a_direct_solve(setting, devices, monkeypatch):
    """Every other round by CG for the samples: the fit is the same all the way."""
    case = setting(devices=devices)
    target = lambda _, x: jnp.sin(3 * x) * jnp.prod(1 - x**2, -1, keepdims=True)  # noqa: E731
    direct = run(case.fitter(target, iterations=6), case.theta, case.density)
    used = []

    def by_samples(network, points, damping, order, hardware):
        used.append(len(used) % 2 == 0)
        return used[-1]

    monkeypatch.setattr(fit, "dual_pcg_suits_fit", by_samples)
    monkeypatch.setattr(fit, "fit_rank", lambda network, damping: 16)
    mixed = run(case.fitter(target, iterations=6, iterative=case.iterative), case.theta, case.density)
    assert len(used) == 6 and len(direct) == len(mixed)
    for one, other in zip(direct, mixed, strict=True):
        np.testing.assert_allclose(other.damping, one.damping, rtol=1e-12)
        np.testing.assert_allclose(other.error, one.error, rtol=1e-4)


def test_where_rounds_for_the_samples_are_cheaper():
    """A large network and a large damping; not a small network, nor a small damping."""
    small, large = (build_network(NetworkSettings(width=width, depth=3), Log()) for width in (20, 120))
    assert dual_pcg_suits_fit(large, 8000, 1e-3, 1) and not dual_pcg_suits_fit(large, 8000, 1e-13, 1)
    assert not dual_pcg_suits_fit(large, 8000, 1e-6, 5) and dual_pcg_suits_fit(large, 8000, 1e-6, 1)
    assert not dual_pcg_suits_fit(small, 8000, 1e-3, 1)
    assert FIRST_RANK <= fit_rank(large, 1e-3) < fit_rank(large, 1e-9) and fit_rank(small, 1e-3) <= small.size


def test_a_continued_fit_gives_the_same_bits(box):
    """Stopped after every round and rebuilt from numpy arrays by a new Fitter: Adam, head and Gauss-Newton."""
    target = lambda _, x: jnp.sin(3 * x) * jnp.prod(1 - x**2, -1, keepdims=True)  # noqa: E731
    options = {"method": "adam_then_gauss_newton", "steps": 200, "iterations": 2, "head_tuning": True}
    whole = run(box.fitter(target, **options), box.theta, box.density)
    copied, other = whole[0], box.fitter(target, **options)
    for state in whole[1:]:
        copied = FitState(*(jnp.asarray(np.array(leaf)) for leaf in copied))
        copied = other.advance(copied, KEY, box.density)
        for ours, theirs in zip(copied, state, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    # The key matters: with another one the fit takes another course.
    changed = other.advance(whole[1], jax.random.key(12), box.density)
    assert np.any(np.asarray(changed.theta) != np.asarray(whole[2].theta))


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (1, 2, 4) if k <= jax.device_count()])
def test_rounds_are_the_same_on_every_number_of_devices(setting, box, devices):
    case = box if devices == 1 else setting(devices=devices)
    target = lambda _, x: jnp.sin(3 * x) * jnp.prod(1 - x**2, -1, keepdims=True)  # noqa: E731
    options = {"method": "adam_then_gauss_newton", "steps": 100, "iterations": 1, "order": 1}
    options["points"] = 101  # an odd number
    fits = [run(each.fitter(target, **options), each.theta, each.density) for each in (box, case)]
    assert len(fits[0]) == len(fits[1]) == 5
    # A checkpoint is written by one process, which must have all of every array.
    assert all(leaf.sharding.is_fully_replicated for state in fits[1] for leaf in state)
    for a, b in zip(*fits):
        np.testing.assert_allclose(b.theta, a.theta, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(b.error, a.error, rtol=1e-8)


def test_stuck_is_a_stall_far_from_the_target_with_rounds_left(box):
    fitter = box.fitter(lambda _, x: x, target=1e-3, iterations=50)
    stalled = fitter.start(box.theta)._replace(stage=DONE, round=20, error=0.5)
    assert fitter.stuck(stalled)
    assert not fitter.stuck(stalled._replace(error=5e-3))
    assert not fitter.stuck(stalled._replace(round=50))
    assert not fitter.stuck(stalled._replace(stage=GAUSS_NEWTON))


@pytest.mark.parametrize(
    "error, rounds", [(lambda k: 8e-3, LONG_PATIENCE + 1), (lambda k: 8e-3 * 0.99**k, 60), (lambda k: 0.02, 60)]
)
def test_gains_on_the_choosing_points_alone_end_a_fit(box, error, rounds):
    """The best of several corrections gains two percent on the points that chose it, and on the next draw the error is
    what it was: such a fit ends, one that falls goes on, and one that is above its target still."""
    fitter = box.fitter(lambda context, x: x, target=1e-2, iterations=60)
    state = fitter.start(box.theta)._replace(damping=jnp.asarray(1e-4))
    candidates, dampings = jnp.tile(box.theta, (4, 1)), 1e-4 * np.array(DAMPING_FACTORS)
    done = 0
    while int(state.stage) != DONE:
        before = error(done)
        state = fitter._choose(state, candidates, np.array([before, 1.1 * before, 0.98 * before, before]), dampings)
        done += 1
    assert done == int(state.round) == rounds


@pytest.mark.parametrize(
    "start, on_miss, aim, rounds",
    [
        # 0.02 x 0.97^30 = 8.0e-3 is the first error below TARGET_MARGIN = 0.8 times the target
        (0.02, "error", None, 31),
        (0.02, "error", 4e-3, 53),  # 0.02 x 0.97^53 = 3.98e-3
        (0.02, "continue", 4e-3, 20),
        (2.0, "error", None, 4 * 20),
    ],
)
def test_a_fit_that_gains_is_extended_until_it_reaches_its_target(box, start, on_miss, aim, rounds):
    fitter = box.fitter(lambda context, x: x, target=1e-2, iterations=20, on_miss=on_miss, aim=aim)
    state = fitter.start(box.theta)._replace(damping=jnp.asarray(1e-4))
    candidates, dampings = jnp.tile(box.theta, (4, 1)), 1e-4 * np.array(DAMPING_FACTORS)
    while int(state.stage) != DONE:
        error = start * 0.97 ** (int(state.round) + 1)
        state = fitter._choose(state, candidates, np.array([error / 0.97, error, error / 0.97, error / 0.97]), dampings)
    assert int(state.round) == rounds


def test_corrections_of_higher_order_need_fewer_rounds(setting):
    """Straight corrections gain less and less as the misfit falls, and curved ones do not."""
    case = setting(network={"width": 5, "depth": 2, "frequencies": 1, "activation": "tanh"}, points=400)
    pulse = lambda x: jnp.exp(-4 * jnp.sum((x - 0.2) ** 2, -1, keepdims=True))  # noqa: E731
    target = lambda _, x: pulse(x) * jnp.prod(1 - x**2, -1, keepdims=True)  # noqa: E731
    errors = {}
    for order in (1, 2, 5):
        fitter = case.fitter(target, line_search=True, order=order)
        errors[order] = float(run(fitter, case.theta, case.density, rounds=15)[-1].error)
    assert errors[2] < 0.3 * errors[1] and errors[5] < 0.3 * errors[2], errors


def test_in_single_precision_corrections_are_straight(setting):
    case = setting(network={"width": 3, "depth": 1, "frequencies": 1, "activation": "tanh", "dtype": "float32"})
    target = lambda _, x: jnp.sin(3 * x) * jnp.prod(1 - x**2, -1, keepdims=True)  # noqa: E731
    one, other = (run(case.fitter(target, iterations=3, order=order), case.theta, case.density) for order in (1, 5))
    assert float(one[-1].error) < 0.5
    np.testing.assert_array_equal(one[-1].theta, other[-1].theta)


def test_shorter_corrections_are_tried_with_a_line_search(setting):
    """Of the same round on the same draws the best of more candidates, on the fresh points, can only be better."""
    case = setting(network={"width": 3, "depth": 1, "frequencies": 1, "activation": "tanh"})
    star = case.theta + 1.5 * jax.random.normal(jax.random.key(5), case.theta.shape)
    errors = {}
    for search in (False, True):
        fitter = case.fitter(lambda context, x: case.network.field(context, x), line_search=search, order=1)
        start = fitter.start(case.theta)._replace(damping=jnp.asarray(1e-12))  # a full step of it goes far astray
        errors[search] = float(fitter.advance(start, KEY, case.density, star).error)
    assert errors[True] < 0.9 * errors[False], errors
