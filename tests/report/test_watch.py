"""`nivp watch`: the solution and the course of a run beside its status."""

import io

import numpy as np
from example_run import beat
from stored_runs import make_run
from terminal import Terminal

from nivp_dist.api import open_run
from nivp_dist.report.watch import watch
from nivp_dist.storage import run_directory, snapshots

HEAT = {"name": "heat", "parameters": {"dimension": 1}}


def summary(path, **changes):
    errors = [{"t": 0.0, "relative_l2": 1e-3}, {"t": 0.1, "relative_l2": 4e-3}]
    content = {"status": "running", "phase": "evolve", "problem": "heat", "errors": errors}
    run_directory.write_summary(path, content | changes)


def script(*actions):
    """A replacement for `sleep` that changes the run by one action at every call."""
    rest = list(actions)
    return lambda seconds: rest.pop(0)()


def test_in_a_log_every_new_output_is_drawn_until_the_run_ends(tmp_path):
    path = make_run(tmp_path / "run", HEAT, times=(0.0, 0.1), steps=0)
    summary(path)
    beat(path)
    values = open_run(path).solution(0.0)(np.linspace(-1, 1, 401)[:, None])
    later = snapshots.find(path, 0.1).path
    hidden = later.rename(path / "later")
    first = snapshots.find(path, 0.0).path.rename(path / "first")
    stream = io.StringIO()
    sleep = script(
        lambda: first.rename(path / "snapshots/t_0.000000.npz"),
        lambda: None,
        lambda: hidden.rename(later),
        lambda: later.write_bytes(b"damaged"),
        lambda: summary(path, status="finished"),
    )
    watch(path, stream, 5.0, sleep=sleep)
    lines = stream.getvalue().splitlines()
    told = [line[9:] for line in lines if "solution" in line]
    assert told[:3] == ["solution: no output is stored yet", "solution at t = 0", "solution at t = 0.1"]
    assert len(told) == 4 and told[3].startswith(f"solution: cannot be shown: {later}: ")
    head = next(line for line in lines if line.startswith("u: "))  # of the first picture: the range of u
    low, high = (float(text) for text in head.removeprefix("u: ").split(" to "))
    np.testing.assert_allclose([low, high], [values.min(), values.max()], rtol=1e-2)
    (*_, errors) = (line.removeprefix("error at outputs ") for line in lines if line.startswith("error at outputs "))
    assert errors.split(maxsplit=1) == ["▁█", "4.00e-03 (1.00e-03 to 4.00e-03)"]
    assert lines[-1][9:].startswith("finished")


def test_on_a_terminal_solution_and_course_stand_beside_the_status(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    path = make_run(tmp_path / "run", {"name": "wave"}, times=(0.0, 0.5))
    summary(path, status="finished")
    for columns, beside in (("150", True), ("80", False)):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("LINES", "50")
        stream = Terminal()
        watch(path, stream, 5.0)
        shown = stream.getvalue()
        drawn, last = shown[: shown.rindex("\x1b[?25h")].splitlines(), shown[shown.rindex("\x1b[?25h") :].splitlines()
        assert any("solution at t = 0.5" in line and "status" in line for line in drawn) is beside
        assert any(line.startswith("u: ") and "u_t: " in line for line in last)
        assert sum("▀" in line for line in last) == 14
        assert any(line.startswith("CG iterations    ▁") and "108 (66 to 108)" in line for line in last)
