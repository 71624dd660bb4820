"""The status of a run: read from its directory, as text, and followed to its end."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nivp_dist
from nivp_dist.errors import InputError
from nivp_dist.report import status
from nivp_dist.report.follow import follow
from nivp_dist.report.status import read_status
from nivp_dist.report.status_text import status_lines
from nivp_dist.storage import heartbeat, run_directory
from nivp_dist.storage.metrics import Lines

SUMMARY = {
    "status": "running",
    "message": "",
    "phase": "evolve",
    "problem": "heat",
    "t": 0.1,
    "t_end": 0.25,
    "errors": [{"t": 0.0, "relative_l2": 1.25e-4}],
    "steps": 30,
    "transitions": 47,
    "refits": 1,
    "cg_iterations": 4000,
    "wall_seconds": 3720.0,
}
FACTS = {
    "status": "running",
    "summary": SUMMARY,
    "last_step": {
        "step": 34,
        "t": 0.125,
        "h": 0.00371,
        "residual": 1e-4,
        "residual_fresh": 2e-4,
        "cg_iterations": 45,
        "wall_seconds": 3900.0,
    },
    "t": 0.125,
    "rate_per_hour": 0.04,
    "seconds_left": 11250.0,
    "ends_at": 1748957100.0,
    "checkpoint": {"transitions": 47, "step": 30, "t": 0.1, "age_seconds": 133.0},
    "resumes": 2,
    "refits": 1,
    "job": "77",
    "requeues": 1,
    "heartbeat": {"holder": "process 123 on node3 (job 77)", "age_seconds": 8.0},
    "events": [{"step": 20, "t": 0.1, "kind": "refit", "message": "CG grew"}],
    "warnings": [{"step": 11, "t": 0.05, "kind": "warning", "message": "CG hit its limit"}],
}

TEXT = """\
status                    running
where                     process 123 on node3 (job 77), last sign of life 8 s ago
problem                   heat
phase                     evolve
t                         0.125 of 0.25
rate                      0.04 per hour
left                      3 h 07 min, until 2025-06-03 13:25
checkpoint                number 47 (step 30, t = 0.1), 2 min 13 s ago
restarts                  2 resumes, 1 refit
Slurm job                 77, queued again 1 time
step size h               3.71e-03
residual                  1.00e-04
residual, fresh points    2.00e-04
CG iterations, last step  45
accepted steps            34
wall time                 1 h 05 min
error at t = 0            1.25e-04
refit                     step 20: CG grew
warning                   step 11: CG hit its limit"""


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def directory(tmp_path):
    """A run after 30 steps of a minute each: 15 steps of 0.001 in t, then 15 of 0.01."""
    (tmp_path / "config.toml").write_text('[problem]\nname = "heat"\n')
    (tmp_path / "checkpoints/47").mkdir(parents=True)
    run_directory.write_summary(tmp_path, SUMMARY)
    steps, t = Lines(tmp_path / "metrics.jsonl"), 0.0
    for number in range(1, 31):
        t += 0.001 if number <= 15 else 0.01
        steps.append({"step": number, "t": t, "h": 0.01, "wall_seconds": 60.0 * number})
    return tmp_path


def write(directory, **changes):
    run_directory.write_summary(directory, SUMMARY | changes)


def event(directory, kind, message, step=30):
    Lines(directory / "events.jsonl").append(
        {"step": step, "t": 0.1, "transitions": 47, "kind": kind, "message": message}
    )


def beat(directory, host="node3", age=5.0, job=None):
    content = {"host": host, "pid": 9, "job": job, "time": time.time() - age}
    (directory / ".alive").write_text(json.dumps(content))


def test_the_text_of_a_run_in_progress(utc):
    assert "\n".join(status_lines(FACTS)) == TEXT


def test_the_status_of_a_run_that_has_written_nothing_yet(tmp_path):
    (tmp_path / "config.toml").touch()
    assert status_lines(read_status(tmp_path)) == ["status  not started"]
    Lines(tmp_path / "jobs.jsonl").append({"job": "12", "time": 0.0})
    assert status_lines(read_status(tmp_path)) == ["status     queued", "Slurm job  12"]
    with run_directory.lock(tmp_path):
        assert read_status(tmp_path)["status"] == "starting"


def test_a_failed_run_shows_its_message_and_a_finished_run_no_phase(directory):
    write(directory, status="failed", message="step too small")
    assert status_lines(read_status(directory))[0].endswith("  failed: step too small")
    write(directory, status="finished")
    assert not any(line.startswith(("phase", "left")) for line in status_lines(read_status(directory)))


def test_rate_and_end_are_computed_from_the_recent_steps(directory):
    """The rate is taken over ten minutes, the last 11 of the 30 steps: 0.01 a minute."""
    beat(directory)
    facts = read_status(directory)
    assert facts["rate_per_hour"] == pytest.approx(0.6)
    assert facts["seconds_left"] == pytest.approx((0.25 - 0.165) / 0.6 * 3600, abs=2)
    assert facts["ends_at"] == pytest.approx(time.time() + facts["seconds_left"], abs=2)


def test_no_end_is_shown_while_the_steps_still_grow(directory):
    beat(directory)
    (directory / "metrics.jsonl").write_bytes(
        b"\n".join((directory / "metrics.jsonl").read_bytes().split(b"\n")[:19]) + b"\n"
    )
    facts = read_status(directory)
    assert facts["rate_per_hour"] == pytest.approx(60 * 0.046 / 10)
    assert facts["seconds_left"] is None and facts["ends_at"] is None


def test_the_time_left_is_never_negative(directory):
    beat(directory)
    write(directory, t_end=0.1650001)
    os.utime(directory / "metrics.jsonl", (0, 0))
    assert read_status(directory)["seconds_left"] == 0


@pytest.mark.parametrize(
    "host, age, expected",
    [
        ("node3", 5.0, "running"),
        ("node3", 59.0, "running"),
        ("node3", -100.0, "running"),  # the clock of that host is ahead of ours
        ("node3", 61.0, "interrupted"),
        (None, 5.0, "interrupted"),  # on this host the lock decides, and nobody holds it
    ],
)
def test_the_heartbeat_tells_running_from_interrupted_where_the_lock_cannot(
    directory, monkeypatch, host, age, expected
):
    with run_directory.lock(directory):
        pass  # the file of the lock stays, the lock is released
    beat(directory, host or heartbeat.socket.gethostname(), age)
    assert read_status(directory)["status"] == expected


def test_a_held_lock_means_running_or_starting(directory):
    with run_directory.lock(directory):
        assert read_status(directory)["status"] == "running"
        os.utime(directory / "summary.json", (0, 0))
        os.utime(directory / ".lock", (1, 1))
        write(directory, status="stopped")
        assert read_status(directory)["status"] == "stopped"  # the process has not exited yet
        (directory / "summary.json").touch()
        os.utime(directory / ".lock", (time.time() + 9, time.time() + 9))
        assert read_status(directory)["status"] == "starting"  # another process has taken the lock
    assert read_status(directory)["status"] == "stopped"


def test_the_newest_checkpoint_and_its_age(directory):
    (directory / "checkpoints/51.partial").mkdir()
    os.utime(directory / "checkpoints/47", (time.time() - 90, time.time() - 90))
    found = read_status(directory)["checkpoint"]
    assert (found["transitions"], found["step"], found["t"]) == (47, 30, 0.1) and 89 < found["age_seconds"] < 95
    (directory / "checkpoints/52").mkdir()  # the summary of this checkpoint is not written yet
    assert read_status(directory)["checkpoint"] | {"age_seconds": 0} == {
        "transitions": 52,
        "step": None,
        "t": None,
        "age_seconds": 0,
    }


def test_resumes_requeues_warnings_and_jobs_are_counted(directory):
    for kind in (
        "fit",
        "resume",
        "warning",
        "resume",
        "output",
        "output",
        "warning",
        "stop",
        "output",
        "output",
        "output",
    ):
        event(directory, kind, f"a {kind}")
    for job in ("12", "13"):
        Lines(directory / "jobs.jsonl").append({"job": job})
    Lines(directory / "requeues.jsonl").append({"transitions": 3})
    facts = read_status(directory)
    assert (facts["resumes"], facts["refits"], facts["job"], facts["requeues"]) == (2, 1, "13", 1)
    assert [line["kind"] for line in facts["events"]] == ["output"] * 3
    assert [line["kind"] for line in facts["warnings"]] == ["warning"] * 2
    beat(directory, job="14")
    assert read_status(directory)["job"] == "14"


def test_torn_and_damaged_lines_of_the_metrics_are_left_out(directory):
    with open(directory / "metrics.jsonl", "ab") as file:
        file.write(b'\0\0\0\n{"step": 31, "t": 0.175, "wall_seconds": 1860.0}\n{"step": 32, "t"')
    assert read_status(directory)["last_step"]["step"] == 31


def test_only_the_end_of_a_long_file_is_read(directory, monkeypatch):
    steps = Lines(directory / "metrics.jsonl")
    padding = "x" * 400
    with open(steps.path, "ab") as file:
        for number in range(31, 10_000):
            file.write(json.dumps({"step": number, "t": 0.17, "pad": padding}).encode() + b"\n")
    taken = []
    monkeypatch.setattr(status, "_rate", lambda steps: taken.append(len(steps)) or (None, False))
    assert read_status(directory)["last_step"]["step"] == 9_999
    assert 100 < taken[0] < 1_000


def test_a_directory_without_a_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match="not the directory of a run"):
        read_status(tmp_path / "none")


# Following -------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def script(directory, *actions):
    """A replacement for `sleep` that changes the run by one action at every call instead of waiting."""
    rest = list(actions)

    def sleep(seconds):
        assert seconds == 7.0
        rest.pop(0)()

    return sleep


def test_following_in_a_log_writes_a_line_for_every_change_until_the_run_ends(directory, utc):
    beat(directory)
    stream, steps = io.StringIO(), Lines(directory / "metrics.jsonl")
    sleep = script(
        directory,
        lambda: None,
        lambda: steps.append({"step": 31, "t": 0.175, "wall_seconds": 1860.0}),
        lambda: event(directory, "warning", "CG hit its limit", 31),
        lambda: write(directory, status="finished", steps=31),
    )
    follow(directory, stream, 7.0, sleep=sleep)
    assert all(character == "\n" or 32 <= ord(character) < 127 for character in stream.getvalue())
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    lines = [
        line.split("  until")[0] + line[line.index("  checkpoint") :] if "  until" in line else line for line in lines
    ]
    assert lines == [
        "running  evolve  t 0.165 of 0.25  step 30  0.6 per hour  checkpoint 47",
        "running  evolve  t 0.175 of 0.25  step 31  0.6 per hour  checkpoint 47",
        "warning: step 31: CG hit its limit",
        "running  evolve  t 0.175 of 0.25  step 31  0.6 per hour  checkpoint 47",
        "finished  t 0.175 of 0.25  step 31  0.6 per hour  checkpoint 47",
    ]


def test_following_as_json_writes_a_line_for_every_change(directory):
    beat(directory)
    stream = io.StringIO()
    sleep = script(directory, lambda: None, lambda: write(directory, status="failed"))
    follow(directory, stream, 7.0, as_json=True, sleep=sleep)
    assert [json.loads(line)["status"] for line in stream.getvalue().splitlines()] == ["running", "failed"]


def test_following_on_a_terminal_redraws_and_shows_the_cursor_again(directory, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    beat(directory)
    stream = Terminal()
    follow(directory, stream, 7.0, sleep=script(directory, lambda: write(directory, status="stopped")))
    shown = stream.getvalue()
    assert "\x1b[?25l" in shown and shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    end = shown[shown.rindex("\x1b[?25h") :]
    assert "stopped" in end and "number 47" in end


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_ctrl_c_ends_following_without_an_error(directory, stream):
    def interrupted(seconds):
        raise KeyboardInterrupt

    beat(directory)
    follow(directory, stream(), sleep=interrupted)


def test_following_a_directory_that_is_moved_away_is_an_error(directory):
    beat(directory)
    with pytest.raises(InputError, match="not the directory of a run"):
        follow(directory, io.StringIO(), sleep=lambda seconds: directory.rename(f"{directory}.old"))


# Without jax -----------------------------------------------------------------------------------------


def without_jax(code: str) -> subprocess.CompletedProcess:
    """Run code in a Python where jax and what needs it cannot be imported, nor matplotlib."""
    banned = "import sys\nfor name in ('jax', 'jaxlib', 'flax', 'orbax', 'matplotlib'): sys.modules[name] = None\n"
    environment = os.environ | {"PYTHONPATH": str(Path(nivp_dist.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", banned + code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("options", [["--watch"], ["--watch", "0.5"], ["--json"], []])
def test_nivp_status_needs_no_jax(directory, options):
    done = without_jax(f"from nivp_dist.cli import main\nsys.exit(main(['status', *{options!r}, {str(directory)!r}]))")
    assert done.returncode == 0, done.stderr
    assert "interrupted" in done.stdout and "0.165" in done.stdout


def test_without_jax_the_numerical_modules_cannot_be_imported():
    assert "ModuleNotFoundError" in without_jax("import nivp_dist.api").stderr


def test_metrics_and_events_are_standard_json(directory):
    event(directory, "warning", "CG hit its limit")
    Lines(directory / "metrics.jsonl").append({"step": 31, "residual": float("nan")})
    code = (
        "import json, sys\n"
        "refuse = lambda name: sys.exit(name)\n"
        f"for name in ('metrics', 'events'):\n"
        f"    for line in open({str(directory)!r} + f'/{{name}}.jsonl'):\n"
        "        print(json.loads(line, parse_constant=refuse)['step'])\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [str(n) for n in range(1, 32)] + ["30"], done.stderr
