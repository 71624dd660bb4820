"""Runs that cannot go on, or were asked for what cannot be: one line, the state kept, and a way on."""

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist import Box, Problem, cli, open_run, solve
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.problems import laplacian
from nivp_dist.storage.checkpoints import UNREADABLE


class Poles(Problem):
    """u_t = lap u in most of the box, and not a number in the rest, which the points of the first check miss."""

    @property
    def domain(self):
        return Box(1)

    def initial(self, x):
        return jnp.cos(jnp.pi * x[0] / 2)

    def rhs(self, u, x, t):
        return jnp.sqrt(0.997 - x[0]) * laplacian(u, x)


SMALL = {
    "network": {"width": 6, "depth": 1, "frequencies": 1},
    "sampling": {"points": 2000, "method": "uniform"},
    "integrator": {"t_end": 0.2, "initial_step": 0.05},
    "fit": {"points": 200, "iterations": 12, "target": 1e-2},
    "output": {"times": [], "evaluation_points": 1000, "plots": False},
}


def failed(runs, match, **overrides):
    with pytest.raises(RunFailed, match=match):
        runs.run(**overrides)
    ran = runs.Ran(runs.folder / f"run{runs.count}")
    assert ran.summary["status"] == "failed"
    assert ran.events[-1][0] == "fail" and ran.events[-1][1] == ran.summary["message"]
    assert "\n" not in ran.summary["message"]
    assert any((ran.directory / "checkpoints").iterdir())
    return ran


def test_a_fit_that_misses_its_target(runs, capfd):
    directory = runs.new()
    arguments = ["run", str(runs.folder / "modes.toml"), "--output", str(directory), "--fit.target", "1e-9"]
    assert cli.main([*arguments, "--fit.iterations", "3"]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "the initial fit reached a relative error of" in err and "fit.target is 1e-09" in err
    for mend in ("network.width", "fit.iterations", "fit.points", "fit.on_miss"):
        assert mend in err
    ran = runs.Ran(directory)
    assert ran.summary["status"] == "failed" and ran.summary["phase"] == "initial fit"
    assert any((directory / "checkpoints").iterdir())


def test_a_missed_target_that_is_accepted(runs):
    fit = {"fit__target": 1e-9, "fit__iterations": 4, "fit__on_miss": "continue"}
    ran = runs.run(**fit, integrator__t_end=0.1, output__times=[])
    assert ran.summary["status"] == "finished"
    assert ("warning", "the initial fit missed fit.target = 1e-09") in ran.events


def test_a_step_below_the_smallest_and_a_smaller_one_allowed(runs, undisturbed):
    small = {"integrator__min_step": 0.02, "integrator__initial_step": 0.02, "integrator__rtol": 1e-7}
    ran = failed(runs, "step size below integrator.min_step = 0.02 at t = .*; try a larger solver.mu", **small)
    with pytest.raises(RunFailed, match="min_step"):
        runs.resume(ran)
    runs.resume(ran, integrator__min_step=1e-9, integrator__t_end=0.1)
    assert ran.summary["status"] == "finished" and ran.summary["t"] == 0.1
    assert ran.summary["errors"][-1]["relative_l2"] < 1e-3


def test_more_steps_than_allowed(runs, undisturbed, same):
    ran = failed(runs, "integrator.max_steps = 5 reached at t = .*: raise it and resume", integrator__max_steps=5)
    assert ran.summary["steps"] == 5
    same(runs.resume(ran, integrator__max_steps=1000), undisturbed)


RHS = r"modes\.py:\d+: Modes\.rhs\(u, x, t\) is not finite at t = 0\.05\d*, x = \[.*\], where u = "


def test_a_right_hand_side_that_becomes_nan(runs, crash):
    """Steps are cut until none is left before that time; the message names the user's line, time and point."""
    config = runs.config(**{"problem.parameters.nan_after": 0.05}, integrator__min_step=1e-4)
    with pytest.raises(RunFailed, match="min_step = 0.0001 at t = 0.0.*: .*" + RHS) as failure:
        runs.run(config)
    assert "solver.mu" not in str(failure.value)
    ran = runs.Ran(runs.folder / f"run{runs.count}")
    assert ran.summary["status"] == "failed" and 0.045 < ran.summary["t"] <= 0.05
    assert ran.summary["rejected"] >= 3
    assert all(np.isfinite(line["theta_norm"]) for line in ran.metrics)
    # The last good state is there to be looked at.
    with pytest.raises(RunFailed, match=RHS):
        runs.resume(ran)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("method", ["primal", "pcg"])
def test_a_right_hand_side_that_is_nan_where_a_step_begins(tmp_path, method, devices):
    """No shorter step is tried; x is the point at which the rhs is infinite, whichever device holds it."""
    poles = Poles()
    settings = SMALL | {"solver": {"method": method}, "devices": devices}
    with pytest.raises(RunFailed) as failure:
        solve(settings, problem=poles, directory=tmp_path / "run", quiet=True)
    found = re.fullmatch(
        rf"{re.escape(__file__)}:\d+: Poles\.rhs\(u, x, t\) is not finite at t = 0, x = \[(.*)\], where u = (.*)",
        str(failure.value),
    )
    assert found is not None, failure.value
    x, u = float(found[1]), float(found[2])
    assert x > 0.99 and u == pytest.approx(np.cos(np.pi * x / 2), abs=2e-2)
    summary = open_run(tmp_path / "run", problem=poles).summary
    assert summary["status"] == "failed" and summary["rejected"] == 0


@pytest.mark.parametrize("flag", ["jax_debug_nans", "jax_debug_infs"])
def test_debugging_flags_of_jax(runs, undisturbed, same, flag):
    """A run is the same under them; where the rhs fails, the message is as good as without."""
    with getattr(jax, flag.removeprefix("jax_"))(True):
        same(runs.run(), undisturbed)
        with pytest.raises(RunFailed, match=RHS):
            runs.run(**{"problem.parameters.nan_after": 0.05}, integrator__min_step=1e-4)


# What may change on resume -----------------------------------------------------------------------


@pytest.fixture
def finished(runs, undisturbed):
    """A copy of the finished run."""
    copy = runs.Ran(runs.new())
    shutil.copytree(undisturbed.directory, copy.directory)
    return copy


def test_an_earlier_end_is_refused(finished, capfd):
    before = (finished.directory / "config.toml").read_bytes()
    assert cli.main(["resume", str(finished.directory), "--integrator.t_end", "0.2"]) == 2
    line = f"nivp: {finished.directory}: integrator.t_end = 0.2 lies before what it has reached, t = 0.3"
    assert capfd.readouterr().err.startswith(line)
    assert (finished.directory / "config.toml").read_bytes() == before
    assert finished.summary["status"] == "finished"


def test_a_finished_run_resumed_is_finished(runs, finished, undisturbed, same):
    same(runs.resume(finished), undisturbed)


def test_a_later_end(runs, finished, undisturbed):
    """A longer run does not cut its step at the old end, so the bits differ; the past and the solution do not."""
    runs.resume(finished, integrator__t_end=0.4)
    fresh = runs.run(integrator__t_end=0.4)
    steps = undisturbed.summary["steps"]
    assert finished.summary["status"] == "finished" and finished.summary["t"] == 0.4
    assert finished.metrics[:steps] == undisturbed.metrics
    assert [line["step"] for line in finished.metrics] == list(range(1, finished.summary["steps"] + 1))
    assert [error["t"] for error in finished.summary["errors"]] == [0.0, 0.1, 0.3, 0.4]
    # Both follow the same solution, to the accuracy of either.
    errors = finished.summary["errors"][-1]["relative_l2"], fresh.summary["errors"][-1]["relative_l2"]
    assert max(errors) < 1e-3
    # The step size goes on where it was, near that of the run without the old end, and is not that of the step it cut.
    uncut = next(line["h"] for line in fresh.metrics if line["t"] > 0.3)
    assert finished.metrics[steps]["h"] > max(0.5 * uncut, undisturbed.metrics[-1]["h"])


def test_output_times_added(runs, crash):
    """Those still to come are met exactly; those that have passed are not invented."""
    ran = runs.begin(crash, ("step", 14), checkpoint__every_steps=1)
    t = ran.metrics[-1]["t"]
    assert 0.1 < t < 0.25
    runs.resume(ran, output__times=[0.05, 0.1, 0.25])
    assert [error["t"] for error in ran.summary["errors"]] == [0.0, 0.1, 0.25, 0.3]
    assert sorted(ran.snapshots()) == [0.0, 0.1, 0.25, 0.3]
    assert 0.25 in [line["t"] for line in ran.metrics]


def test_an_output_time_that_has_just_passed_is_not_invented(runs, crash):
    """One past time added before the first output after the start: the count of outputs alone cannot tell."""
    ran = runs.begin(crash, ("step", 8), checkpoint__every_steps=1)
    assert 0.05 < ran.metrics[-1]["t"] < 0.1
    runs.resume(ran, output__times=[0.05, 0.1])
    assert sorted(ran.snapshots()) == [0.0, 0.1, 0.3]


# Checkpoints ---------------------------------------------------------------------------------------


def newest(ran) -> Path:
    return max((ran.directory / "checkpoints").iterdir(), key=lambda entry: int(entry.name))


def test_a_damaged_checkpoint(runs, undisturbed, same, crash):
    """The newest one is set aside, the run goes on from the one before, and ends with the same bits."""
    ran = runs.begin(crash, ("step", 9), checkpoint__every_steps=2)
    damaged = newest(ran)
    for file in damaged.rglob("*"):
        if file.is_file() and file.stat().st_size > 100 and "state" in str(file):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(content)
    same(runs.resume(ran, checkpoint__every_steps=4), undisturbed)
    said = [message for kind, message in ran.events if kind == "warning"]
    assert len(said) == 1 and "the checkpoint of step " in said[0] and " is unreadable (" in said[0]
    assert (ran.directory / UNREADABLE / f"{damaged.name}-0").is_dir()


def test_no_checkpoint_that_can_be_read(runs, finished, capfd):
    for entry in (finished.directory / "checkpoints").iterdir():
        shutil.rmtree(entry / "state")
    assert cli.main(["resume", str(finished.directory)]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "can be read" in err and "restore the folder from a copy" in err


def test_another_configuration_under_the_checkpoints(finished, runs):
    text = (finished.directory / "config.toml").read_text()
    (finished.directory / "config.toml").write_text(text.replace("rtol = 2e-06", "rtol = 3e-06"))
    line = "config.toml: another configuration .*: integrator.rtol .the run had 2e-06.; put it back, and resume$"
    with pytest.raises(RunFailed, match=line):
        runs.resume(finished)


# Bad input that only the assembled run can see ------------------------------------------------------


@pytest.mark.parametrize(
    "overrides, line",
    [
        (
            ["--problem.name", "linear_fokker_planck", "--sampling.method", "uniform"],
            "sampling.method = 'uniform' is impossible on the whole space, or along a Real axis: use 'density'",
        ),
        (
            ["--problem.name", "advection", "--network.form", "log_density"],
            "network.form = 'log_density' needs a problem with one output on the WholeSpace, or with a Real axis and "
            "u = 0 at no wall",
        ),
        pytest.param(
            ["--problem.name", "advection", "--sampling.points", "1"],
            "sampling.points = 1 is less than one for each device",
            marks=pytest.mark.skipif(jax.device_count() == 1, reason="one point is enough for one device"),
        ),
    ],
)
def test_bad_input(tmp_path, capsys, overrides, line):
    source, directory = tmp_path / "bare.toml", tmp_path / "run"
    source.write_text('[problem]\nname = "heat"\n')
    code = cli.main(["run", str(source), "--output", str(directory), *overrides])
    assert (code, *capsys.readouterr()) == (2, "", f"nivp: {line}\n")
    assert not directory.exists()


def test_refused_from_python_leaves_nothing(tmp_path):
    from nivp_dist import solve

    with pytest.raises(InputError, match="impossible on the whole space"):
        solve(
            {"problem": {"name": "linear_fokker_planck"}, "sampling": {"method": "uniform"}},
            directory=tmp_path / "run",
            quiet=True,
        )
    assert not (tmp_path / "run").exists()
