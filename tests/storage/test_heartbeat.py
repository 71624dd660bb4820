"""The holder of a run directory is known by its heartbeat where locks do not reach."""

import errno
import fcntl
import json
import os
import threading
import time

import pytest

from nivp_dist.errors import DiskFailed, InputError
from nivp_dist.storage import heartbeat
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.lock import hold, in_use, require_ours

HERE = heartbeat.socket.gethostname()


@pytest.fixture(autouse=True)
def a_run(tmp_path):
    (tmp_path / "config.toml").touch()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)


@pytest.fixture
def patient(monkeypatch):
    """A second is enough to hear another thread, on a busy machine too."""
    monkeypatch.setattr(heartbeat, "EVERY", 0.4)


@pytest.fixture
def no_locks(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def write(directory, host="node3", age=5.0):
    beat = heartbeat.Beat(host, 9, "77", time.time() - age)
    write_whole(directory / ".alive", json.dumps(beat._asdict()))


def someone_beats(directory, **who):
    """Another process's heart; the function that stops it."""
    stop = threading.Event()

    def run():
        while not stop.wait(0.02):
            write(directory, **who)

    thread = threading.Thread(target=run)
    write(directory, **who)
    thread.start()
    return lambda: (stop.set(), thread.join())


def test_a_holder_writes_beat_after_beat_and_leaves_nothing(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    beats = set()
    with hold(tmp_path):
        while len(beats) < 3:
            beats.add(heartbeat.read(tmp_path))
    assert {beat[:3] for beat in beats} == {(HERE, os.getpid(), "42")}
    assert str(beats.pop()) == f"process {os.getpid()} on {HERE} (job 42)"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.toml"]


def test_beats_continue_after_a_disk_has_refused_one_and_make_no_directory_again(tmp_path, quick, monkeypatch):
    home = tmp_path / "run"
    home.mkdir()
    (home / "config.toml").touch()
    with hold(home):
        for refused in (OSError(errno.ENOSPC, "full"), None):

            def refuse(*_, refused=refused):
                if refused:
                    raise refused

            monkeypatch.setattr(os, "fsync", refuse)
            before = heartbeat.read(home)
            time.sleep(0.2)
            assert (heartbeat.read(home) == before) is (refused is not None)
        home.rename(tmp_path / "moved")
        time.sleep(0.2)
        assert not home.exists()


def test_a_beat_that_changes_means_that_a_run_is_alive(tmp_path, patient):
    stop = someone_beats(tmp_path)
    try:
        with (
            pytest.raises(
                InputError, match=r"in use by process 9 on node3 \(job 77\): wait for its end .* or stop it$"
            ),
            hold(tmp_path),
        ):
            pass
        assert in_use(tmp_path)
    finally:
        stop()


def test_a_beat_that_does_not_change_is_waited_for_and_then_ignored(tmp_path, quick, caplog):
    write(tmp_path)
    with hold(tmp_path):
        assert heartbeat.read(tmp_path).host == HERE
    assert "process 9 on node3 (job 77) was alive 5 s ago: waiting to see whether it still is" in caplog.text


@pytest.mark.parametrize(
    "host, age", [("node3", 301.0), (HERE, 5.0)], ids=["long ago", "of this host, which has locks"]
)
def test_nothing_is_waited_for_where_the_holder_is_known_to_be_gone(tmp_path, monkeypatch, host, age):
    monkeypatch.setattr(heartbeat.time, "sleep", lambda seconds: pytest.fail("waited"))
    write(tmp_path, host, age)
    with hold(tmp_path):
        pass


def test_a_beat_from_the_future_means_nothing(tmp_path):
    write(tmp_path, age=30.0)
    assert in_use(tmp_path)
    write(tmp_path, age=-200.0)  # as far as the clocks of two hosts may differ
    assert in_use(tmp_path)
    write(tmp_path, age=-86_400.0)
    assert not in_use(tmp_path)
    with hold(tmp_path):
        pass


def test_without_locks_the_heartbeat_protects_a_run_on_this_host_too(tmp_path, patient, no_locks, caplog):
    stop = someone_beats(tmp_path, host=HERE, age=0.0)
    try:
        assert in_use(tmp_path)
        with pytest.raises(InputError, match="in use by process 9"), hold(tmp_path):
            pass
    finally:
        stop()
    with hold(tmp_path):
        assert "no file locks here: start one run at a time" in caplog.text
    assert not in_use(tmp_path)


def test_of_two_runs_that_started_together_without_locks_one_continues(tmp_path, no_locks):
    """Neither has seen the other: the second one has the directory, and the first one notices."""
    with hold(tmp_path):
        require_ours(tmp_path)
        (tmp_path / ".lock").write_text("process 9 on node3")
        with pytest.raises(DiskFailed, match="has been taken over by process 9 on node3: this run ends here"):
            require_ours(tmp_path)
        write(tmp_path)
    assert heartbeat.read(tmp_path).host == "node3"  # left alone


def test_nivp_status_does_not_keep_a_run_from_starting(tmp_path):
    (tmp_path / ".lock").touch()
    with open(tmp_path / ".lock") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.3, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with hold(tmp_path):
            assert in_use(tmp_path)


def test_a_link_in_the_place_of_the_lock_file_is_refused_and_its_target_untouched(tmp_path):
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    (tmp_path / ".lock").symlink_to(thesis)
    line = f"^{tmp_path}/.lock: a symbolic link, not a lock file: remove it$"
    with pytest.raises(InputError, match=line), hold(tmp_path):
        pass
    assert not in_use(tmp_path) and thesis.read_text() == "years of work"


def test_the_message_about_the_lock_of_a_silent_host_says_how_to_free_it(tmp_path):
    (tmp_path / ".lock").write_text("process 9 on node3")
    write(tmp_path, age=7200.0)
    with open(tmp_path / ".lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        line = f"in use by process 9 on node3, last heard from 120 min ago; if it is gone, remove {tmp_path}/.lock$"
        with pytest.raises(InputError, match=line), hold(tmp_path):
            pass


def test_a_disk_on_which_no_lock_can_be_written_is_reported_in_one_line(disk):
    (disk.path / "config.toml").touch()
    disk.fill()
    with pytest.raises(InputError, match=f"^{disk.path}: cannot be written: No space left on device; make room$"):
        with hold(disk.path):
            pass
    disk.make_room()
    with hold(disk.path):
        disk.fill()  # beats that cannot be written end nothing
    disk.make("ro")
    with pytest.raises(InputError, match=f"^{disk.path}: cannot be written: Read-only file system; make it writable$"):
        with hold(disk.path):
            pass
