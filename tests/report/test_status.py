"""The status of a run, read from its directory."""

import json
import os
import time

import pytest
from example_run import beat, event, write

from nivp_dist.errors import InputError
from nivp_dist.report import status
from nivp_dist.report.status import read_status
from nivp_dist.report.status_text import status_lines
from nivp_dist.storage import heartbeat
from nivp_dist.storage.lock import hold
from nivp_dist.storage.metrics import Lines


def test_the_status_of_a_run_that_has_written_nothing_yet(tmp_path):
    (tmp_path / "config.toml").touch()
    assert status_lines(read_status(tmp_path)) == ["status  not started"]
    Lines(tmp_path / "jobs.jsonl").append({"job": "12", "time": 0.0})
    assert status_lines(read_status(tmp_path)) == ["status  queued", "job     12"]
    with hold(tmp_path):
        assert read_status(tmp_path)["status"] == "starting"


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
    with hold(directory):
        pass  # the file of the lock stays, the lock is released
    beat(directory, host or heartbeat.socket.gethostname(), age)
    assert read_status(directory)["status"] == expected


def test_a_held_lock_means_running_or_starting(directory):
    with hold(directory):
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
