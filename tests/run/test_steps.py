"""Accepted steps on a problem whose network is exact: a Gaussian under linear drift and diffusion.

log u is a quadratic polynomial at all times, the quadratic form of the network; so the only error is the integrator's.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend import random_keys
from nivp_dist.backend.host_numbers import pack
from nivp_dist.errors import RunFailed
from nivp_dist.fitting.restart import Health
from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.methods import direct_work, iterations_after_doubling, step_work
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.stability import UNSTABLE_GROWTH, stability_limit
from nivp_dist.integration.tableaus import TABLEAUS
from nivp_dist.monitoring.adaptation import MuAdaptation
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.base import evaluate_reference
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.run import whole_vectors
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import EVOLVE, REFIT, replicated
from nivp_dist.run.steps import Stepper, last_step
from nivp_dist.settings.model import Config

T_END = 0.5


class Ornstein(LinearFokkerPlanck):
    """One Gaussian; the forcing makes the right-hand side depend on t."""

    reference_kind: ClassVar[str] = "exact"
    dimension: int = 2
    separation: float = 0.0
    forcing_amplitude: float = 2.0
    forcing_frequency: float = 1.0


PROBLEM = Ornstein()
X = np.random.default_rng(0).normal(0, 0.5, (50, 2))


def settings(**sections):
    base = {
        "problem": {"name": "ornstein"},
        "network": {"width": 2, "depth": 1, "activation": "tanh"},
        "sampling": {"points": 61},
        "solver": {"method": "primal", "mu": 1e-13},
        "integrator": {"t_end": T_END, "rtol": 1e-5, "method": "dormand_prince"},  # its last stage may serve again
        "output": {"spectrum_every": 0},  # programs that most tests need not compile
    }
    return Config(**{name: base.get(name, {}) | sections.get(name, {}) for name in base | sections})


class Recorder:
    """A Galerkin that records its calls, and may replace velocities: spoil(t, velocity) -> velocity."""

    def __init__(self, galerkin, spoil=lambda t, velocity: velocity):
        self.inner, self.spoil, self.calls = galerkin, spoil, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def velocity(self, theta, t, points, regularisation, guess):
        self.calls.append((float(t), np.asarray(points.x)))
        return self.spoil(float(t), self.inner.velocity(theta, t, points, regularisation, guess))


class Case:
    """The problem with a start that is exact; steppers of any settings share its compiled programs."""

    def __init__(self, devices=1, **sections):
        self.simulation = Simulation(settings(**sections).model_copy(update={"devices": devices}), PROBLEM)
        self.network, self.sampler = self.simulation.network, self.simulation.sampler
        key = jax.random.key(1)
        theta = np.array(jax.jit(self.network.initialise)(key))
        x = np.random.default_rng(1).normal(0, 0.5, (40, 2))
        head = next(layer for layer in self.network.layers if layer.path[-1] == "head")
        theta[head.start : head.stop] = 0
        quadratic = next(layer for layer in self.network.layers if layer.path[-1] == "quadratic")
        inputs = self.network.factors(jnp.asarray(theta), jnp.asarray(x))[1][self.network.layers.index(quadratic)][0]
        log = np.log(evaluate_reference(PROBLEM, x, 0.0))
        theta[quadratic.start : quadratic.stop] = np.linalg.lstsq(np.asarray(inputs), log, rcond=None)[0][:, 0]
        density = self.sampler.start(jax.random.key(2), jax.vmap(lambda x: PROBLEM.initial(x)[None]))
        blank = self.simulation.blank()._replace(phase=EVOLVE, outputs_written=1, density=density)
        self.state = replicated(blank._replace(theta=theta), self.simulation.mesh)
        self.field = jax.jit(self.network.field)

    def stepper(self, galerkin=None, output_times=(0.0, T_END), **sections):
        config = settings(**sections)
        return Stepper(config, galerkin or self.simulation.galerkin, self.sampler, list(output_times))

    def run(self, stepper, state=None, steps=10_000):
        """Steps until t_end (or for a number of steps): all results."""
        state, results = state or self.state, []
        while state.t < T_END and len(results) < steps:
            results.append(stepper.step(state, lambda: None))
            state = results[-1].state
        return results

    def error(self, state):
        """The largest error of log u at X."""
        return np.abs(self.field(state.theta, X) - np.log(evaluate_reference(PROBLEM, X, state.t))).max()


@pytest.fixture(scope="module")
def exact():
    return Case()


def test_the_start_is_exact(exact):
    assert exact.error(exact.state) < 1e-12


@pytest.mark.parametrize(
    "method, divisions",
    [("heun", (4, 8, 16)), ("bogacki_shampine", (4, 8, 16)), ("cash_karp", (2, 4, 8)), ("dormand_prince", (2, 4, 8))],
)
def test_observed_orders_on_a_pde_whose_network_is_exact(exact, method, divisions):
    errors = []
    for n in divisions:
        fixed = {"method": method, "rtol": 1e9, "initial_step": T_END / n, "max_step": T_END / n, "t_end": T_END}
        results = exact.run(exact.stepper(integrator=fixed), exact.state._replace(h=T_END / n))
        assert len(results) == n and results[-1].state.t == T_END
        assert all(result.metrics["residual_fresh"] < 1e-6 for result in results)
        errors.append(exact.error(results[-1].state))
    rate = np.polyfit(np.log(1 / np.array(divisions)), np.log(errors), 1)[0]
    assert abs(rate - TABLEAUS[method].order) < 0.3, errors
    assert errors[-1] < {"heun": 3e-2, "bogacki_shampine": 1e-3, "cash_karp": 1e-6, "dormand_prince": 1e-6}[method]


def test_a_tighter_tolerance_gives_a_smaller_error(exact):
    errors, steps = [], []
    for rtol in (1e-3, 1e-5, 1e-7):
        results = exact.run(exact.stepper(integrator={"rtol": rtol}))
        assert all(result.metrics["error"] <= rtol for result in results)
        errors.append(exact.error(results[-1].state))
        steps.append(len(results))
    assert errors[0] > 5 * errors[1] > 25 * errors[2] and steps[0] < steps[1] < steps[2]
    assert errors[2] < 1e-5


def test_output_times_are_landed_on_exactly(exact):
    times = (0.0, 0.123456789, 0.2, T_END)
    stepper, state, landed = exact.stepper(output_times=times), exact.state, []
    while state.t < T_END:
        result = stepper.step(state, lambda: None)
        assert state.t < result.state.t <= times[state.outputs_written]
        state = result.state
        if state.t == times[state.outputs_written]:
            landed.append(state.t)
            state = state._replace(outputs_written=state.outputs_written + 1)
    assert landed == list(times[1:])


def test_a_step_cut_by_an_output_does_not_slow_the_next(exact):
    state = exact.state._replace(h=0.05)
    result = exact.stepper(output_times=(0.0, 0.01, T_END)).step(state, lambda: None)
    assert result.state.t == 0.01 and result.metrics["h"] == 0.01
    assert result.state.h >= 0.05
    # A little more than one step left: two halves, not a step and a sliver.
    result = exact.stepper(output_times=(0.0, 0.06, T_END)).step(state, lambda: None)
    assert result.metrics["h"] == pytest.approx(0.03)


def test_min_step_ends_the_run_with_advice(exact):
    stepper = exact.stepper(integrator={"rtol": 1e-12, "min_step": 0.01})
    with pytest.raises(RunFailed, match=r"integrator\.min_step = 0\.01 at t = 0: error .* try a larger solver\.mu"):
        stepper.step(exact.state._replace(h=0.1), lambda: None)


def but(velocity, **changes):
    """The velocity with other numbers of its quality."""
    return velocity._replace(numbers=pack(velocity.quality._replace(**changes)))


def nan_after(limit):
    spoilt = lambda velocity: but(velocity, residual=np.nan)._replace(v=jnp.nan * velocity.v)  # noqa: E731
    return lambda t, velocity: velocity if t <= limit else spoilt(velocity)


def test_a_velocity_that_is_not_finite_rejects_the_step(exact):
    recorder = Recorder(exact.simulation.galerkin, nan_after(0.021))
    result = exact.stepper(recorder).step(exact.state._replace(h=0.1), lambda: None)
    assert result.metrics["rejected"] == result.state.rejected == 1
    assert result.state.t == pytest.approx(0.02) and result.state.h <= 0.1 * 0.2  # no growth after a rejection
    assert np.isfinite(result.state.theta).all()
    # The first stage is taken once; the points are those of the first attempt.
    assert [t for t, _ in recorder.calls].count(0.0) == 1
    assert all(np.array_equal(x, recorder.calls[0][1]) for _, x in recorder.calls)
    assert result.metrics["evaluations"] == len(recorder.calls)
    plain = exact.stepper().step(exact.state._replace(h=0.1 * 0.2), lambda: None)
    np.testing.assert_array_equal(result.state.theta, plain.state.theta)


def test_velocities_that_stay_bad_end_the_run(exact):
    recorder = Recorder(exact.simulation.galerkin, nan_after(-1.0))
    with pytest.raises(RunFailed, match="^the velocity at t = 0 is not finite; try a larger solver.mu"):
        exact.stepper(recorder).step(exact.state, lambda: None)
    assert len(recorder.calls) == 1  # no shorter step is tried: its first velocity would be the same


def test_conjugate_gradients_that_failed(exact):
    bad = Recorder(
        exact.simulation.galerkin,
        lambda t, v: but(v, solver_residual=1e-2 if t > 0.021 else 1e-6, code=pcg.ITERATION_LIMIT),
    )
    result = exact.stepper(bad).step(exact.state._replace(h=0.1), lambda: None)
    # Useless beyond t = 0.021: rejected. Poor but usable before: accepted, with a warning in words.
    assert result.metrics["rejected"] == 1 and result.metrics["cg_residual"] == pytest.approx(1e-2)
    assert len(result.warnings) == 1 and "CG iteration limit" in result.warnings[0]


def test_points_are_kept_for_redraw_every_steps_and_the_first_stage_with_them(exact):
    recorder = Recorder(exact.simulation.galerkin)
    results = exact.run(exact.stepper(recorder, sampling={"points": 61, "redraw_every": 2}), steps=4)
    assert not any(result.metrics["rejected"] for result in results)
    assert [result.metrics["evaluations"] for result in results] == [7, 6, 7, 6]
    draws = [x for _, x in recorder.calls]
    same = [np.array_equal(a, b) for a, b in zip(draws, draws[1:])]
    assert same == [True] * 12 + [False] + [True] * 12
    every = exact.run(exact.stepper(), steps=2)
    assert [result.metrics["evaluations"] for result in every] == [7, 7]
    assert results[-1].state.evaluations == 26
    # The kept stage is the right one: the same step with the stage taken afresh.
    state = results[0].state
    again = exact.stepper(sampling={"points": 61, "redraw_every": 2}).step(
        state._replace(fit_step=state.step), lambda: None
    )
    assert again.metrics["evaluations"] == 7
    a, b = (exact.field(result.state.theta, X) for result in (again, results[1]))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


def test_after_a_refit_the_first_stage_is_taken_afresh(exact):
    """A refit leaves no velocity behind (zeros): it must not serve as a first stage on kept points."""
    stepper = exact.stepper(sampling={"points": 61, "redraw_every": 5})
    state = stepper.step(exact.state, lambda: None).state
    refitted = state._replace(velocity=jnp.zeros_like(state.velocity), fit_step=state.step)
    result = stepper.step(refitted, lambda: None)
    assert result.metrics["evaluations"] == 7
    assert exact.error(result.state) < 1e-5


def test_the_same_state_gives_the_same_bits_and_another_key_does_not(exact):
    one, two = (exact.stepper().step(exact.state, lambda: None) for _ in range(2))
    np.testing.assert_array_equal(one.state.theta, two.state.theta)
    np.testing.assert_equal(one.metrics, two.metrics)  # the first turn is NaN
    other = exact.state._replace(key=jax.random.key_data(jax.random.key(77)))
    assert np.any(np.asarray(exact.stepper().step(other, lambda: None).state.theta) != np.asarray(one.state.theta))


def test_the_metrics_say_what_bounds_a_step(exact):
    before, metrics = exact.state, exact.run(exact.stepper(), steps=2)[0].metrics
    after = exact.stepper().step(before, lambda: None).state
    moved = np.linalg.norm(np.asarray(after.theta) - np.asarray(before.theta))
    assert metrics["theta_step"] == pytest.approx(moved, rel=1e-12)
    assert 0 <= metrics["jacobian_share"] < 1
    assert 0 < metrics["h_rho"] < 0.5 and metrics["h_rho_limit"] == pytest.approx(
        stability_limit(TABLEAUS["dormand_prince"], metrics["h_rho_angle"], UNSTABLE_GROWTH)
    )


def test_poll_is_called_before_every_stage_and_can_interrupt(exact):
    calls = []
    exact.stepper().step(exact.state, lambda: calls.append(1))
    assert len(calls) == 7

    class Stop(Exception):
        pass

    def stop():
        calls.append(1)
        if len(calls) == 10:
            raise Stop

    with pytest.raises(Stop):
        exact.stepper().step(exact.state, stop)
    assert len(calls) == 10


# Conjugate gradients: the rank of the sketch --------------------------------------------------------------------


PCG = {"method": "pcg", "mu": 1e-9, "rtol": 1e-9}
DUAL = {"method": "dual_pcg", "mu": 1e-9}


@pytest.fixture(scope="module")
def by_pcg(exact):
    config = settings(solver=PCG)
    return Galerkin(Discretisation(exact.network, PROBLEM, config.sampling, exact.simulation.mesh), config.solver)


def slow(state, rank):
    """A state whose last step needed many CG iterations at this rank."""
    return state._replace(step=1, rank=rank, health=Health(cg_iterations=100.0, residual=1e-3, h=0.01))


def chosen_rank(stepper, state):
    """The rank of the next step of a state."""
    return stepper.choice.system(stepper.discretisation(state), last_step(state)).rank


def test_adaptive_rank_doubles_while_iterations_are_dear(exact, by_pcg):
    stepper, ranks, state = exact.stepper(by_pcg, solver=PCG), [], exact.state._replace(rank=2)
    for _ in range(3):
        ranks.append(chosen_rank(stepper, slow(state, state.rank)))
        state = state._replace(rank=ranks[-1])
    assert ranks == [4, 8, exact.network.size]  # and no further than p
    # Until then: nothing is known of the iterations, or they are cheap.
    assert chosen_rank(stepper, state._replace(step=1, rank=2)) == 2
    cheap = slow(state, 2)._replace(health=Health(5.0, 1e-3, 0.01))
    assert chosen_rank(stepper, cheap) == 2
    # Nor do iterations of the network before a refit say anything of this one.
    assert chosen_rank(stepper, slow(state, 2)._replace(fit_step=1)) == 2


def test_adaptive_rank_stops_at_ten_mu_and_at_its_limit(exact, by_pcg):
    points = exact.stepper(by_pcg).discretisation(exact.state).points
    eigenvalues = np.asarray(by_pcg.prepare(exact.state.theta, points, jax.random.key(0), 4).sketch.eigenvalues)

    def rank_from(four, **solver):
        large = Galerkin(
            Discretisation(exact.network, PROBLEM, exact.sampler.settings, by_pcg.mesh),
            settings(solver=PCG | solver).solver,
        )
        return chosen_rank(exact.stepper(large, solver=PCG | solver), slow(exact.state, four))

    trace = float(by_pcg.prepare(exact.state.theta, points, jax.random.key(0), 4).trace)
    assert rank_from(4, mu=float(eigenvalues[-1]) / trace) == 4  # lambda_4 is about mu: enough
    assert rank_from(4, max_rank=6) == 6
    assert rank_from(4, rank=4) == 4  # not adaptive


def test_a_step_by_conjugate_gradients_is_the_direct_one(exact, by_pcg):
    state = exact.state._replace(rank=12, h=0.05)
    direct, iterated = (
        exact.stepper(galerkin, solver=PCG).step(state, lambda: None)
        for galerkin in (exact.simulation.galerkin, by_pcg)
    )
    a, b = (exact.field(result.state.theta, X) for result in (direct, iterated))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert iterated.metrics["cg_iterations"] > 7 and direct.metrics["cg_iterations"] == 0
    assert iterated.metrics["rank"] == 12 and iterated.state.cg_iterations == iterated.metrics["cg_iterations"]


@pytest.fixture(scope="module")
def by_samples(exact):
    config = settings(solver=DUAL)
    return Galerkin(
        Discretisation(exact.network, PROBLEM, config.sampling, exact.simulation.mesh), config.solver, rate_rtol=1e-5
    )


def test_a_step_by_conjugate_gradients_for_the_samples_is_the_direct_one(exact, by_samples):
    state = exact.state._replace(rank=8, h=0.05)
    direct = exact.stepper().step(state, lambda: None)
    iterated = exact.stepper(by_samples, solver=DUAL).step(state, lambda: None)
    a, b = (exact.field(result.state.theta, X) for result in (direct, iterated))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert iterated.metrics["cg_iterations"] > 7
    # A later stage starts from the one before on the same points, the first one from nothing.
    assert iterated.metrics["cg_residual"] <= 1e-6


def test_a_rank_grows_within_a_step_where_iterations_do_not_end(exact):
    """With few products at most, which a larger rank lets CG end in and the first one does not."""
    rank = 2
    for method in ("pcg", "dual_pcg"):
        solver = DUAL | {"method": method, "max_iterations": 5}
        config = settings(solver=solver)
        galerkin = Galerkin(
            Discretisation(exact.network, PROBLEM, config.sampling, exact.simulation.mesh),
            config.solver,
            rate_rtol=1e-5,
        )
        result = exact.stepper(galerkin, solver=solver).step(exact.state._replace(rank=rank, h=0.01), lambda: None)
        assert result.state.rank == result.metrics["rank"] > rank and result.warnings == [], method
        held = solver | {"rank": rank}
        config = settings(solver=held)
        galerkin = Galerkin(
            Discretisation(exact.network, PROBLEM, config.sampling, exact.simulation.mesh),
            config.solver,
            rate_rtol=1e-5,
        )
        with pytest.raises(RunFailed, match="iteration limit"):
            exact.stepper(galerkin, solver=held, integrator={"min_step": 1e-3}).step(
                exact.state._replace(rank=rank, h=0.01), lambda: None
            )


def test_the_rank_for_the_samples_grows_by_counted_work(exact, by_samples):
    """Iterations that a larger approximation would save pay for it, the more so where all stages share it."""
    network, rank = exact.network, 2

    def pays(iterations, velocities):
        now, then = ((rank, iterations), (2 * rank, iterations_after_doubling(iterations)))
        return step_work("dual_pcg", network, 61, *then, velocities) < step_work(
            "dual_pcg", network, 61, *now, velocities
        )

    assert pays(100.0, 1) and not pays(3.0, 1)
    few = next(k for k in range(3, 300) if pays(k, 7))
    many = next(k for k in range(3, 300) if pays(k, 1))
    assert 3 < few < many
    stepper = exact.stepper(by_samples, solver=DUAL)
    for iterations, kept, expected in ((few, True, 4), (few, False, 2), (many, False, 4)):
        health = Health(cg_iterations=float(iterations), residual=1e-3, h=0.01)
        state = exact.state._replace(step=1, rank=rank, reuse_sketch=kept, health=health)
        assert chosen_rank(stepper, state) == expected


# From conjugate gradients to direct solves ------------------------------------------------------------------------


def with_direct(exact, galerkin, **solver):
    config = settings(solver=solver)
    return Stepper(config, galerkin, exact.sampler, [0.0, T_END], exact.simulation.galerkin)


def test_a_run_goes_over_to_direct_solves_where_iterations_cost_more(exact, by_samples, monkeypatch):
    stepper = with_direct(exact, by_samples, **DUAL)
    network, n, rank = exact.network, 61, by_samples.largest_rank  # which cannot grow
    directly = 7 * direct_work(network, n)["primal"]
    beside = step_work("dual_pcg", network, n, rank, 0, 7)
    an_iteration = step_work("dual_pcg", network, n, rank, 1, 7) - beside
    # An approximation of all of so small a network costs more than its matrix.
    monkeypatch.setattr(
        "nivp_dist.integration.solver_choice.direct_work", lambda *_, **__: {"primal": directly + beside / 7}
    )
    even = 7 * directly / an_iteration  # iterations at which a step costs as much
    for iterations, expected in ((0.9 * even, rank), (1.1 * even, 0)):
        health = Health(cg_iterations=iterations, residual=1e-3, h=0.01)
        state = exact.state._replace(step=1, rank=rank, h=0.05, health=health)
        result = stepper.step(state, lambda: None)
        assert result.state.rank == expected and (result.metrics["cg_iterations"] == 0) == (expected == 0)
        alone = exact.stepper().step(state, lambda: None)
        assert alone.metrics["rank"] is None  # a direct solver makes no approximation, whatever the rank before
        np.testing.assert_allclose(exact.field(result.state.theta, X), exact.field(alone.state.theta, X), atol=1e-6)
        assert stepper.method(result.state) == ("primal" if expected == 0 else "dual_pcg")
        if expected == 0:  # the very step of direct solves, and from now on
            np.testing.assert_array_equal(result.state.theta, alone.state.theta)
            assert stepper.step(result.state, lambda: None).state.rank == 0
            assert result.metrics["rank"] is None


def test_a_first_velocity_that_cg_cannot_find_is_solved_for_directly(exact):
    """At any step size it would fail again: without a direct solve the run is lost."""
    solver = {"method": "pcg", "mu": 1e-13, "max_iterations": 1, "rank": 2}
    config = settings(solver=solver)
    galerkin = Galerkin(Discretisation(exact.network, PROBLEM, config.sampling, exact.simulation.mesh), config.solver)
    state = exact.state._replace(rank=2, h=0.05)
    with pytest.raises(RunFailed, match="^CG at t = 0: iteration limit at a relative residual .*; raise solver"):
        exact.stepper(galerkin, solver=solver).step(state, lambda: None)
    result = with_direct(exact, galerkin, **solver).step(state, lambda: None)
    expected = exact.stepper().step(state, lambda: None)
    assert result.state.rank == 0 and result.metrics["h"] == expected.metrics["h"] == 0.05
    np.testing.assert_array_equal(result.state.theta, expected.state.theta)
    # The iterations and the velocity that were of no use are in the totals, and not in what they take per velocity.
    assert result.metrics["cg_iterations"] == result.metrics["cg_wasted"] == result.state.cg_iterations == 1
    assert result.state.evaluations == expected.state.evaluations + 1


def test_only_auto_goes_over_and_a_refit_begins_with_cg_again(exact, monkeypatch):
    monkeypatch.setattr("nivp_dist.galerkin.methods.direct_work", lambda *_, **__: {"primal": 1e30, "dual": 2e30})
    found = {
        method: Simulation(
            settings(solver={"method": method, "max_iterations": 10_000}), PROBLEM
        )  # more than are assumed
        for method in ("auto", "pcg", "dual_pcg", "primal")
    }
    assert found["auto"].galerkin.method in ("pcg", "dual_pcg")
    assert found["auto"].stepper.direct.method == "primal" and found["auto"].blank().rank > 0
    assert all(found[method].stepper.direct is None for method in ("pcg", "dual_pcg", "primal"))
    assert found["primal"].blank().rank == 0
    run = found["auto"]
    # Iterations that grow are a reason to refit only where nothing can take over from CG.
    grown = slow(exact.state, 2)._replace(step=100, baseline=Health(1.0, 1e-3, 0.01))
    assert run.reason_to_refit(grown) is None and "CG iterations" in found["pcg"].reason_to_refit(grown)
    state = exact.state._replace(
        rank=0, baseline=Health(0.0, 1e-3, 0.01), phase=REFIT, fit=run.fits.refit.start(exact.state.theta)
    )
    monkeypatch.setattr(run.fits, "_measured", lambda state: (state.fit._replace(error=jnp.zeros(())), 0.0))
    assert run.fits.finish_refit(state)[0].rank == run.galerkin.initial_rank > 0


# Metrics, residual sampling, devices ----------------------------------------------------------------------------


def test_metrics_describe_the_step(exact):
    result = exact.stepper().step(exact.state._replace(h=0.05), lambda: None)
    metrics, state = result.metrics, result.state
    assert metrics["step"] == state.step == 1 and metrics["t"] == state.t == metrics["h"] == 0.05
    assert metrics["evaluations"] == state.evaluations == 7
    np.testing.assert_allclose(metrics["theta_norm"], np.linalg.norm(state.theta))
    np.testing.assert_allclose(metrics["mu"], 1e-13 * metrics["trace"])
    assert metrics["rank"] is None and "spectrum_seconds" not in metrics
    np.testing.assert_allclose(metrics["effective_sample_size"], 61)
    assert 0 < metrics["residual"] < 1e-5 and 0 < metrics["residual_fresh"] < 1e-5
    np.testing.assert_allclose(metrics["error"], 1e-5 * state.previous_error)
    assert state.velocity.shape == state.theta.shape


def test_the_vectors_that_a_step_holds_are_those_that_are_counted(exact):
    """Before each velocity, and before the products of all of them, which take a second copy of each."""
    p, before = exact.network.size, live_vectors(exact)
    counted, found = whole_vectors.count(settings(), p), []
    stepper = exact.stepper()
    describe = stepper._describe
    stepper._describe = lambda *arguments: (found.append(live_vectors(exact) - before), describe(*arguments))[1]
    stepper.step(exact.state, lambda: found.append(live_vectors(exact) - before))
    *at_velocities, at_end = (2 + number for number in found)  # with theta and velocity of the state
    assert max(at_velocities) == counted.beside_a_program + 2  # its arguments: theta of the stage and a guess
    assert at_end + len(TABLEAUS["dormand_prince"].b) == counted.step


def live_vectors(case):
    return sum(array.shape == (case.network.size,) for array in jax.live_arrays())


def test_the_factor_on_mu_changes_with_a_message(exact, monkeypatch):
    damped = exact.state._replace(mu_adaptation=MuAdaptation(100.0, 0))
    metrics = exact.stepper().step(damped, lambda: None).metrics
    np.testing.assert_allclose(metrics["mu"], 100 * 1e-13 * metrics["trace"])
    # Metrics with many rejections raise the factor for the next steps.
    simulation, take = exact.simulation, exact.simulation.stepper.step
    spoilt = lambda *arguments: (result := take(*arguments))._replace(metrics=result.metrics | {"rejected": 3})  # noqa: E731
    monkeypatch.setattr(simulation.stepper, "step", spoilt)
    state, messages = exact.state, []
    for _ in range(4):
        result = simulation.step(state, lambda: None)
        state, messages = result.state, messages + result.warnings
    mu_raised = "solver.mu = 1e-12 from here on, 10 times that of the run"
    assert state.mu_adaptation == MuAdaptation(10.0, 3) and messages == [mu_raised]
    np.testing.assert_allclose(result.metrics["mu"], 10 * 1e-13 * result.metrics["trace"])


def test_points_selected_by_the_solution(exact):
    sampling = {"points": 61, "method": "solution", "oversampling": 4}
    config = settings(sampling=sampling)
    recorder = Recorder(exact.simulation.galerkin)
    sampler = Sampler(config.sampling, PROBLEM.domain, True, exact.simulation.mesh)
    stepper = Stepper(config, recorder, sampler, [0.0, T_END])
    results = exact.run(stepper, steps=3)
    assert exact.error(results[-1].state) < 1e-4
    assert {x.shape for _, x in recorder.calls} == {(61, 2)}
    # All are candidates, and not the points of a plain draw: the selection did take place.
    second = recorder.calls[results[0].metrics["evaluations"] + 1][1]
    key, density = random_keys.step_points_key(exact.state.run_key, 1), results[0].state.density
    plain, candidates = (np.asarray(sampler.draw(key, density, n).x) for n in (61, 244))
    assert {*map(tuple, second)} <= {*map(tuple, candidates)} and {*map(tuple, second)} != {*map(tuple, plain)}
    again = exact.run(Stepper(config, exact.simulation.galerkin, sampler, [0.0, T_END]), steps=3)
    np.testing.assert_array_equal(again[-1].state.theta, results[-1].state.theta)


def test_the_field_at_candidates_is_in_chunks_too(exact):
    """Of candidates there are ten times the points."""
    config = settings(sampling={"points": 61, "chunk": 7})
    chunked = Galerkin(Discretisation(exact.network, PROBLEM, config.sampling, exact.simulation.mesh), config.solver)
    theta, x = exact.state.theta, jnp.asarray(X)
    np.testing.assert_allclose(chunked.field(theta, x), exact.field(theta, x), rtol=1e-12)
    loops = [str(jax.make_jaxpr(each.field)(theta, x)).count("scan[") for each in (chunked, exact.simulation.galerkin)]
    assert loops == [1, 0]


@pytest.mark.parametrize("method", ["residual", "solution"])
def test_selected_points_cannot_be_kept(method):
    with pytest.raises(ValueError, match=f"redraw_every must be 1 with sampling.method = '{method}'"):
        settings(sampling={"method": method, "redraw_every": 2})


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (1, 2, 4) if k <= jax.device_count()])
def test_two_steps_on_any_number_of_devices(exact, devices):
    """61 points: not a multiple of 2 or 4. Equal to rounding, which the singular directions of M enlarge."""
    case = exact if devices == 1 else Case(devices=devices)
    assert case.simulation.mesh.size == devices
    one, many = (each.run(each.stepper(), steps=2)[-1].state for each in (exact, case))
    assert case.error(many) < 1e-5
    assert many.t == pytest.approx(one.t, rel=1e-6)
    fields = [np.asarray(exact.field(np.asarray(state.theta), X)) for state in (one, many)]
    np.testing.assert_allclose(*fields, rtol=0, atol=1e-7)
