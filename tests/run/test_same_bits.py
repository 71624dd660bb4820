"""The same bits twice; through stops, crashes and kill -9; and that this could fail."""

import contextlib
import os
import random
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.cluster.control import Control
from nivp_dist.cluster.signals import StopRequest
from nivp_dist.errors import RunStopped
from nivp_dist.problems import registry
from nivp_dist.run import controller
from nivp_dist.run.record import Record
from nivp_dist.run.reporter import SilentReporter
from nivp_dist.run.state import FINISHED, REFIT
from nivp_dist.settings.files import resume_config


def test_the_run_is_right(undisturbed):
    """What the bits are compared with is a solution: the reference is exact."""
    assert undisturbed.summary["status"] == "finished"
    assert [error["t"] for error in undisturbed.summary["errors"]] == [0.0, 0.1, 0.3]
    assert max(error["relative_l2"] for error in undisturbed.summary["errors"]) < 1e-3
    assert [line["step"] for line in undisturbed.metrics] == list(range(1, undisturbed.summary["steps"] + 1))


def test_the_same_bits_twice(runs, undisturbed, same):
    same(runs.run(), undisturbed)


def test_another_seed_is_another_run(runs, undisturbed):
    assert not np.array_equal(runs.run(seed=2).theta(), undisturbed.theta())


@pytest.mark.parametrize("moment", [("fit", 1), ("fit", 7), ("step", 1), ("step", 6), ("step", 15)])
def test_a_crash_changes_nothing(runs, undisturbed, same, crash, moment):
    ran = runs.begin(crash, moment)
    assert ran.summary["status"] == "running"
    same(runs.resume(ran), undisturbed)
    assert [event for event in ran.events if event[0] != "resume"] == undisturbed.events


def test_a_crash_right_after_the_last_checkpoint_changes_nothing(runs, undisturbed, same, crash, monkeypatch):
    write = Record.summary

    def summary(record, state, *words, **more):
        if state.phase == FINISHED:
            raise crash
        return write(record, state, *words, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Record, "summary", summary)
        ran = runs.begin(crash, ("step", -1))
    assert ran.summary["status"] == "running"
    same(runs.resume(ran), undisturbed)
    assert ran.events == undisturbed.events


@pytest.mark.parametrize("moment", [("fit", 3), ("fit", 6)], ids=["in Adam's stage", "after it"])
def test_a_crash_in_a_fit_that_begins_with_adam_changes_nothing(runs, same, crash, moment):
    """The state of the optimiser is in a checkpoint as long as it decides something."""
    settings = {"fit__method": "adam_then_gauss_newton", "fit__steps": 300, "fit__iterations": 6}
    settings |= {
        "integrator__t_end": 0.05,
        "output__times": [],
        "checkpoint__every_steps": 1,
        "fit__on_miss": "continue",
        "fit__target": 1e-9,  # which a solve for the last layer alone does not reach
    }
    ran = runs.begin(crash, moment, **settings)
    same(runs.resume(ran), runs.run(**settings))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("moment", [("fit", 3), ("step", 4)])
def test_a_stop_changes_nothing(runs, undisturbed, same, at, number, moment):
    reporter = at(*moment, lambda: os.kill(os.getpid(), number))
    with pytest.raises(RunStopped, match="nivp resume"):
        runs.run(reporter=reporter)
    ran = runs.Ran(runs.folder / f"run{runs.count}")
    assert ran.summary["status"] == "stopped"
    assert ran.summary["steps"] == (4 if moment[0] == "step" else 0)
    same(runs.resume(ran), undisturbed)


def test_kill_nine_at_random_moments(runs, undisturbed, same, until):
    """Five kills in one run: during the fit, twice during the evolution, during a save, and right after a resume."""
    directory, chance = runs.new(), random.Random(7)
    # Saved at every transition: that moves no bit, and gives a save to kill at any time.
    arguments = ("run", "modes.toml", "--output", directory, "--checkpoint.every_steps", "1")
    ran = runs.Ran(directory)

    def checkpoints():
        return [int(entry.name) for entry in (directory / "checkpoints").glob("*") if entry.name.isdigit()]

    def saving():
        return any(not entry.name.isdigit() for entry in (directory / "checkpoints").glob("*"))

    moments = [
        lambda: max(checkpoints(), default=0) >= 2,
        saving,
        lambda: len(ran.metrics) >= 2,
        lambda: len(ran.metrics) >= 5 and saving(),
        lambda: any(kind == "resume" for kind, _ in ran.events[-1:]),
    ]
    wait = [chance.uniform(0, 0.2), 0, chance.uniform(0, 0.1), 0, chance.uniform(0, 0.2)]
    for moment, delay in zip(moments, wait):
        process = runs.process(*arguments)
        until(moment, process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        arguments = ("resume", directory)
    code, _, err = runs.call("resume", directory)
    assert (code, err) == (0, "")
    same(ran, undisturbed)


@pytest.mark.parametrize("number, phase", [(signal.SIGTERM, "fit"), (signal.SIGINT, "evolve")])
def test_signals_to_a_process(runs, undisturbed, same, until, number, phase):
    directory = runs.new()
    ran = runs.Ran(directory)
    process = runs.process("run", "modes.toml", "--output", directory)
    until(lambda: (directory / "checkpoints/0").is_dir() if phase == "fit" else len(ran.metrics) >= 1, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75
    assert err.count("\n") == 1 and f"nivp resume {directory}" in err
    summary = ran.summary
    assert summary["status"] == "stopped" and "with a checkpoint" in summary["message"]
    assert summary["phase"] == ("initial fit" if phase == "fit" else "evolve")
    same(runs.resume(ran), undisturbed)


# Negative control: each part of the state that can matter, lost.


@pytest.fixture(scope="module")
def advanced(runs):
    """A run some transitions on: crashed at a moment, restored, its state changed, then the real loop's transitions."""
    assembled = {}

    def crashed(moment, crash):
        if moment not in assembled:
            ran = runs.begin(crash, moment, checkpoint__every_steps=1)
            config = resume_config(ran.directory)
            simulation = controller.Simulation(config, registry.load(config.problem))
            record = Record(config, ran.directory, simulation, CompileClock())
            assembled[moment] = config, record, record.restore()[0]
        return assembled[moment]

    def advanced(moment, crash, change, transitions):
        config, record, state = crashed(moment, crash)
        state = record.simulation.resumed(state._replace(**change(state)))
        control = Control(config.checkpoint, StopRequest())
        loop = controller.MainLoop(record.simulation, record, control, SilentReporter())
        for _ in range(transitions):
            state = loop.advance(state)
        return state

    return advanced


LOST = {
    "key": lambda state: {"key": jax.random.key_data(jax.random.key(99))},
    "theta": lambda state: {"theta": state.theta.at[0].add(1e-12)},
    "velocity": lambda state: {"velocity": jnp.zeros_like(state.velocity)},
    "density": lambda state: {"density": state.density._replace(means=state.density.means + 0.1)},
    "h": lambda state: {"h": state.h * 0.9},
    "previous_error": lambda state: {"previous_error": 1.0},
    "step": lambda state: {"step": state.step + 2},
    "t": lambda state: {"t": state.t + 1e-6},
    "phase": lambda state: {"phase": REFIT, "fit": state.fit._replace(theta=state.theta)},
    # With another health, baseline or step of the last fit the run begins a refit that it does not need.
    "health": lambda state: {"health": state.health._replace(h=1e-9), "fit_step": -100},
    "baseline": lambda state: {"baseline": state.baseline._replace(h=1e9), "fit_step": -100},
    "fit_step": lambda state: {"health": state.health._replace(h=1e-9), "fit_step": -100},
}
AFTER_THREE = ("step", 4)  # crashed in the fourth step: points are kept, and the baseline of health is known


def outcome(state):
    return state.phase, state.t, np.asarray(state.theta).tobytes()


@pytest.mark.parametrize("field", LOST)
def test_every_part_of_the_state_matters(advanced, crash, field):
    whole = advanced(AFTER_THREE, crash, lambda state: {}, 3)
    again = advanced(AFTER_THREE, crash, lambda state: {}, 3)
    assert outcome(again) == outcome(whole)
    assert outcome(advanced(AFTER_THREE, crash, LOST[field], 3)) != outcome(whole)


def test_health_alone_decides_nothing_before_the_cooldown(advanced, crash):
    whole = advanced(AFTER_THREE, crash, lambda state: {}, 3)
    ill = advanced(AFTER_THREE, crash, lambda state: {"health": state.health._replace(h=1e-9)}, 3)
    assert outcome(ill) == outcome(whole)


def test_counters_decide_nothing(advanced, crash):
    counters = ("rejected", "evaluations", "cg_iterations", "refits", "refit_attempts")
    whole = advanced(AFTER_THREE, crash, lambda state: {}, 3)
    other = advanced(AFTER_THREE, crash, lambda state: {name: getattr(state, name) + 5 for name in counters}, 3)
    assert outcome(other) == outcome(whole)
    assert other.evaluations == whole.evaluations + 5


@pytest.mark.parametrize("part, value", [("damping", 1.0), ("round", 9), ("theta", None)])
def test_every_part_of_a_fit_matters(advanced, crash, part, value):
    def lose(state):
        lost = state.theta if value is None else jnp.asarray(value, getattr(state.fit, part).dtype)
        return {"fit": state.fit._replace(**{part: lost})}

    moment = ("fit", 3)
    whole = advanced(moment, crash, lambda state: {}, 2)
    assert not np.array_equal(advanced(moment, crash, lose, 2).fit.theta, whole.fit.theta)


def test_a_run_without_its_key_ends_elsewhere(runs, undisturbed, crash, monkeypatch):
    """The comparison of whole runs can fail: the same crash and resume, with the key replaced."""
    restore = Record.restore

    def forgetful(record):
        state, messages = restore(record)
        return state._replace(key=jax.random.key_data(jax.random.key(99))), messages

    ran = runs.begin(crash, ("step", 6))
    monkeypatch.setattr(Record, "restore", forgetful)
    theta = runs.resume(ran).theta()
    assert not np.array_equal(theta, undisturbed.theta())
