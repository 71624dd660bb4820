"""The status of a run, followed until the run ends."""

import io
import json

import pytest
from example_run import beat, event, write
from terminal import Terminal

from nivp_dist.errors import InputError
from nivp_dist.report.follow import follow
from nivp_dist.storage.metrics import Lines


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
        "running  evolve  t 0.165 of 0.25  step 30  t advances by 0.6 in an hour  checkpoint 47",
        "running  evolve  t 0.175 of 0.25  step 31  t advances by 0.6 in an hour  checkpoint 47",
        "warning: step 31: CG hit its limit",
        "running  evolve  t 0.175 of 0.25  step 31  t advances by 0.6 in an hour  checkpoint 47",
        "finished  t 0.175 of 0.25  step 31  t advances by 0.6 in an hour  checkpoint 47",
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
