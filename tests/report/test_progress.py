"""The reporter: its lines in a batch log, its redrawn line on a terminal, and the end of a run."""

import inspect
import io
import json

import pytest

from nivp_dist.report.progress import CONTENTS, Reporter
from nivp_dist.run.reporter import SilentReporter

SUMMARY = {
    "status": "finished",
    "message": "",
    "problem": "heat",
    "t": 0.25,
    "t_end": 0.25,
    "errors": [{"t": 0.0, "relative_l2": 1.25e-4}, {"t": 0.25, "relative_l2": 1.9e-3}],
    "steps": 34,
    "rejected": 1,
    "refits": 0,
    "wall_seconds": 133.4,
    "compile_seconds": 14.2,
}


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


class ClosedPipe(io.StringIO):
    writes = 0

    def write(self, text):
        self.writes += 1
        raise BrokenPipeError("gone")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    stream = io.StringIO()
    reporter = Reporter(stream, clock=clock, every=10.0)
    reporter.lines = lambda: stream.getvalue().splitlines()
    return reporter


@pytest.fixture
def run_directory(tmp_path):
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "snapshots").mkdir()
    lines = [{"step": 1, "t": 0.1, "residual_fresh": 3e-3}, {"step": 2, "t": 0.25, "residual_fresh": 4.5e-3}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def step(t, **more):
    return {"step": 1, "t": t, "h": 0.0125, "residual": 1e-4, "residual_fresh": 3.44e-4, "cg_iterations": 45} | more


def test_the_lines_of_a_batch_log(log, clock):
    log.phase("initial fit")
    clock.now += 2
    for iteration in range(1, 6):
        log.fit(iteration, 0.5 / iteration, 1e-3, 60, stop_at=1e-5)
        clock.now += 10
    log.note("initial condition fitted to a relative error of 9.00e-04")
    log.phase("evolve")
    log.output(0.0, 9e-4)
    for t in (0.1, 0.15, 0.2, 0.25):
        log.step(step(t), 1.0)
        clock.now += 100
    log.step(step(0.3, residual_fresh=None, cg_iterations=None), 1.0)
    log.warn("CG hit its limit")
    clock.now += 3600
    log.output(1.0, None)
    assert log.lines() == [
        "0:00:00 initial fit  compiling",
        "0:00:02 initial fit  iteration 1 of 60  error 5.00e-01  target 1.00e-03  stops below 1.00e-05",
        "0:00:12 initial fit  iteration 2 of 60  error 2.50e-01  target 1.00e-03  stops below 1.00e-05",
        "0:00:22 initial fit  iteration 3 of 60  error 1.67e-01  target 1.00e-03  stops below 1.00e-05",
        "0:00:32 initial fit  iteration 4 of 60  error 1.25e-01  target 1.00e-03  stops below 1.00e-05",
        # 4 iterations in 40 s, 55 are left
        "0:00:42 initial fit  iteration 5 of 60  error 1.00e-01  target 1.00e-03  stops below 1.00e-05  "
        "left at most 0:09:10",
        "0:00:52 initial condition fitted to a relative error of 9.00e-04",
        "0:00:52 evolve  compiling",
        "0:00:52 output at t = 0: relative L2 error 9.00e-04",
        "0:00:52 evolve  t 0.1 of 1  h 1.25e-02  residual 3.44e-04  CG 45",
        "0:02:32 evolve  t 0.15 of 1  h 1.25e-02  residual 3.44e-04  CG 45",
        "0:04:12 evolve  t 0.2 of 1  h 1.25e-02  residual 3.44e-04  CG 45",
        "0:05:52 evolve  t 0.25 of 1  h 1.25e-02  residual 3.44e-04  CG 45",
        # 0.2 in 400 s, 0.7 is left
        "0:07:32 evolve  t 0.3 of 1  h 1.25e-02  residual 1.00e-04  CG -  left 0:23:20",
        "0:07:32 warning: CG hit its limit",
        "1:07:32 output at t = 1: no reference",
    ]


def test_a_phase_that_comes_again_compiles_nothing(log):
    for phase in ("evolve", "refit", "evolve", "refit", "finished"):
        log.phase(phase)
    assert [line.split(" ", 1)[1] for line in log.lines()] == [
        "evolve  compiling",
        "refit  compiling",
        "evolve",
        "refit",
        "finished",
    ]


def test_a_log_gets_at_most_one_line_of_progress_every_ten_seconds(log, clock):
    for i in range(1, 101):  # 100 steps, a second each
        log.step(step(i / 200), 1.0)
        clock.now += 1.0
    assert len(log.lines()) == 10
    assert [line.split()[0] for line in log.lines()[:3]] == ["0:00:00", "0:00:10", "0:00:20"]


def test_the_time_left_follows_the_recent_rate(log, clock):
    t = 0.0
    for rate, seconds in [(0.001, 300), (0.0001, 300)]:  # t per second: ten times slower later on
        for _ in range(seconds):
            clock.now += 1
            t += rate
            log.step(step(t), 1.0)
    hours, minutes, seconds = map(int, log.lines()[-1].rsplit("left ", 1)[1].split(":"))
    shown_t = float(log.lines()[-1].split(" t ")[1].split()[0])
    expected = (1.0 - shown_t) / 0.0001
    assert abs(3600 * hours + 60 * minutes + seconds - expected) < 0.01 * expected


def test_no_time_left_is_shown_while_t_does_not_advance(log, clock):
    for _ in range(10):
        log.step(step(0.1), 1.0)
        clock.now += 20
    assert "left" not in "".join(log.lines())


def test_no_time_left_is_shown_during_the_first_tiny_steps(log, clock):
    """The step size grows from 1e-6 to 0.01: a time extrapolated from the first steps would be years."""
    h, t = 1e-6, 0.0
    while t < 0.9:
        t, h = t + h, min(2 * h, 0.01)
        clock.now += 10
        log.step(step(t), 1.0)
    shown = [line.rsplit("left ", 1)[1] for line in log.lines() if "left " in line]
    assert len(shown) > 50
    hours = [int(text.split(":")[0]) + int(text.split(":")[1]) / 60 for text in shown]
    # At 0.01 a step of 10 s the whole run takes 1000 s. Half of the window may still be smaller steps.
    assert max(hours) < 2 * 1000 / 3600
    assert "left" not in "".join(line for line in log.lines() if float(line.split(" t ")[1].split()[0]) < 1e-2)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"])
def test_a_log_contains_no_control_characters_in_any_environment(monkeypatch, run_directory, clock, variable):
    monkeypatch.setenv(variable, "1")
    stream = io.StringIO()
    reporter = Reporter(stream, clock=clock)
    reporter.phase("evolve")
    reporter.step(step(0.1), 1.0)
    reporter.warn("two\nlines")
    reporter.finish(SUMMARY, run_directory)
    assert "warning: two lines" in stream.getvalue()
    assert all(character == "\n" or 32 <= ord(character) < 127 for character in stream.getvalue())


def test_the_text_at_the_end_of_a_run(log, run_directory):
    log.finish(SUMMARY, run_directory)
    assert log.lines() == [
        "",
        "heat finished, t = 0.25 of 0.25, 34 steps, 1 rejected step, 0 refits, 2 min 13 s (14 s of them compiling)",
        "",
        "relative L2 error against the reference",
        "     t  relative L2",
        "     0     1.25e-04",
        "  0.25     1.90e-03",
        "",
        f"written to {run_directory}",
        "  config.toml    the complete configuration, with versions",
        "  metrics.jsonl  a line for every accepted step",
        "  snapshots      the network at the output times",
        "",
        f"pictures: nivp plot {run_directory}",
        f"go on:    nivp resume {run_directory} --integrator.t_end T",
    ]


def test_the_list_of_files_explains_every_name(log, run_directory):
    for name, meaning in CONTENTS.items():
        assert meaning != name and len(meaning.split()) > 2


def test_without_a_reference_the_end_of_a_run_shows_the_residual(log, run_directory):
    errors = [{"t": t, "relative_l2": None} for t in (0.0, 0.25)]
    log.finish(SUMMARY | {"errors": errors, "status": "stopped", "message": "on request"}, run_directory)
    text = "\n".join(log.lines())
    assert "heat stopped (on request), t = 0.25" in text
    assert "no reference to compare with; relative residual |J v - f| / |f| on fresh points instead" in text
    assert "     0  3.00e-03\n  0.25  4.50e-03" in text  # of the first step, and of the one that ended at t
    assert text.endswith(f"nivp resume {run_directory}")


def test_a_path_with_spaces_is_quoted_in_the_commands(log, tmp_path):
    log.finish(SUMMARY, tmp_path / "my run")
    assert f"pictures: nivp plot '{tmp_path}/my run'" in log.lines()


def test_a_terminal_gets_a_redrawn_line_and_shows_its_cursor_at_the_end(monkeypatch, run_directory, clock):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    reporter = Reporter(stream, clock=clock)
    reporter.phase("evolve")
    reporter.step(step(0.1), 1.0)
    assert "evolve  t 0.1 of 1  h 1.25e-02  residual 3.44e-04  CG 45" in stream.getvalue()
    assert "\x1b[?25l" in stream.getvalue()  # the cursor is hidden
    reporter.note("a remark")
    reporter.finish(SUMMARY, run_directory)
    text = stream.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # and shown again
    assert "a remark" in text and "1.90e-03" in text and f"nivp plot {run_directory}" in text


def test_after_an_error_the_cursor_is_shown_again(monkeypatch, clock):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with pytest.raises(RuntimeError), Reporter(stream, clock=clock) as reporter:
        reporter.step(step(0.1), 1.0)
        raise RuntimeError("the run failed")
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_a_dumb_terminal_is_treated_as_a_log(monkeypatch, clock):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    Reporter(stream, clock=clock).step(step(0.1), 1.0)
    assert stream.getvalue() == "0:00:00 start  t 0.1 of 1  h 1.25e-02  residual 3.44e-04  CG 45\n"


def test_a_broken_pipe_does_not_end_the_run(clock, run_directory):
    stream = ClosedPipe()
    reporter = Reporter(stream, clock=clock)
    reporter.note("one")
    reporter.note("two")
    reporter.finish(SUMMARY, run_directory)
    assert stream.writes == 1  # the first failure is the last attempt


def test_standard_output_is_the_default(capsys):
    Reporter().note("hello")
    assert capsys.readouterr().out == "0:00:00 hello\n"


def test_the_silent_reporter_overrides_every_method_and_writes_nothing(capsys, tmp_path):
    public = [name for name, _ in inspect.getmembers(Reporter, inspect.isfunction) if not name.startswith("_")]
    assert set(public) <= set(vars(SilentReporter))
    with SilentReporter() as silent:
        silent.phase("evolve")
        silent.fit(1, 0.1, 0.1, 10)
        silent.step(step(0.1), 1.0)
        silent.note("a")
        silent.warn("b")
        silent.output(0.0, 0.1)
        silent.finish(SUMMARY, tmp_path)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
