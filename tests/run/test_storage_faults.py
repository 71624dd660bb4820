"""Disks that refuse in the middle of a run: it says so in one line, keeps what it has, and goes on to the same bits."""

import errno
import os
import shutil
import time

import numpy as np
import pytest
from disks import FailingCall
from whole_runs import Runs, transitions_after

from nivp_dist import cli
from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.errors import RunFailed
from nivp_dist.problems import registry
from nivp_dist.run import controller
from nivp_dist.run.record import Record
from nivp_dist.settings.files import read_config, resume_config
from nivp_dist.storage import files, run_directory
from nivp_dist.storage.lock import hold
from nivp_dist.storage.metrics import read_lines

EVERY = 4  # checkpoint.every_steps of these runs: transitions between two saves, and so the most that can be lost


@pytest.fixture
def small(disk, compiled):
    """Runs on a small disk of their own."""
    runs = Runs(disk.path, compiled)
    runs.disk = disk
    return runs


def broken(runs, at, moment, action, match):
    """A run whose disk is broken at a moment. It ends with one line."""
    with pytest.raises(RunFailed, match=match) as caught:
        runs.run(reporter=at(*moment, action))
    assert "\n" not in str(caught.value)
    return runs.Ran(runs.folder / f"run{runs.count}")


def saved(ran):
    """Of the checkpoints: transitions done."""
    return sorted(int(entry.name) for entry in (ran.directory / "checkpoints").iterdir() if entry.name.isdigit())


def goes_on(runs, ran, undisturbed, same, moment):
    """Resumed, it loses at most one interval of what it had done, and ends with the same bits."""
    last = ("step", len(ran.metrics)) if ran.metrics else moment
    assert transitions_after(undisturbed, last) - saved(ran)[-1] <= EVERY
    same(runs.resume(ran), undisturbed)
    assert not list(ran.directory.rglob("*.part*"))


# A full disk --------------------------------------------------------------------------------------------


HALF = 1 << 19  # bytes: room for a summary, not for a checkpoint
FULL = r"(cannot be written: No space left on device|MB needed and .* MB free on the disk); make room, then resume$"


@pytest.mark.parametrize(
    "moment, leave", [(("fit", 2), 0), (("step", 1), HALF), (("step", 6), 0), (("step", 6), HALF), (("step", 14), HALF)]
)
def test_a_full_disk(small, undisturbed, same, at, moment, leave):
    ran = broken(small, at, moment, lambda: small.disk.fill(leave), FULL)
    status = ran.summary["status"]
    assert status == ("failed" if leave else "running")  # half a megabyte is enough to say so
    if leave:
        assert ran.summary["message"] == ran.events[-1][1] and ran.events[-1][0] == "fail"
    with pytest.raises(RunFailed, match=FULL):  # and as long as it is full
        small.resume(ran)
    small.disk.make_room()
    goes_on(small, ran, undisturbed, same, moment)


def test_a_disk_that_is_full_from_the_start(small, undisturbed, same):
    small.disk.fill(leave=1 << 19)
    with pytest.raises(RunFailed, match=FULL):
        small.run()
    ran = small.Ran(small.folder / "run1")
    small.disk.make_room()
    same(small.resume(ran), undisturbed)


# A read-only disk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [("fit", 3), ("step", 7)])
def test_a_disk_that_becomes_read_only(small, undisturbed, same, at, moment, capsys):
    line = "cannot be written: Read-only file system; make it writable, then resume$"
    ran = broken(small, at, moment, lambda: small.disk.make("ro"), line)
    assert ran.summary["status"] == "running"  # nobody could say otherwise
    assert cli.main(["resume", str(ran.directory)]) == 2
    assert (
        capsys.readouterr().err
        == f"nivp: {ran.directory}: cannot be written: Read-only file system; make it writable\n"
    )
    small.disk.make("rw")
    goes_on(small, ran, undisturbed, same, moment)


# A run directory that is gone -----------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [("fit", 3), ("step", 2), ("step", 9)])
def test_a_run_directory_that_is_renamed(runs, undisturbed, same, at, moment):
    home, away = runs.folder / f"run{runs.count + 1}", runs.folder / f"away{runs.count + 1}"
    line = f"^{home} has vanished: nothing can be saved; resume where it has gone$"
    broken(runs, at, moment, lambda: home.rename(away), line)
    assert not home.exists()
    goes_on(runs, runs.Ran(away), undisturbed, same, moment)


def test_a_run_directory_that_is_removed_is_not_made_again(runs, at):
    home = runs.folder / f"run{runs.count + 1}"
    broken(runs, at, ("step", 3), lambda: shutil.rmtree(home), "has vanished")
    assert not home.exists()


def test_a_directory_that_another_run_has_taken_over(runs, undisturbed, same, at):
    """Started on another host, where no lock is seen: the first one stops, and touches nothing of the second's."""
    home = run_directory.create(runs.config(), runs.new(), "run")
    reporter = at("step", 6, lambda: (home / ".lock").write_text("process 9 on node3"))
    with pytest.raises(RunFailed, match="has been taken over by process 9 on node3"), hold(home):
        controller.evolve(read_config(home / "config.toml"), home, reporter=reporter)
    ran = runs.Ran(home)
    assert len(ran.metrics) == 6 and ran.summary["status"] == "running"
    same(runs.resume(ran), undisturbed)


# One file that cannot be written ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl", "summary.json", "snapshots", "checkpoints"])
def test_one_file_that_cannot_be_written(runs, undisturbed, same, at, name):
    """Something else is in its place: the line names it, and the summary says failed unless it is that file."""
    home, kept = runs.folder / f"run{runs.count + 1}", runs.folder / f"kept{runs.count + 1}"

    def spoil():
        path = home / name
        path.rename(kept)
        path.write_text("in the way") if kept.is_dir() else path.mkdir()

    line = f"^{home}/{name} cannot be written: (Is a directory|Not a directory|File exists)"
    ran = broken(runs, at, ("step", 5), spoil, line)
    if name != "summary.json":
        assert ran.summary["status"] == "failed" and ran.summary["message"].startswith(
            f"{home}/{name} cannot be written"
        )
    path = home / name
    path.unlink() if path.is_file() else path.rmdir()
    kept.rename(path)
    goes_on(runs, ran, undisturbed, same, ("step", 5))


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json"])
def test_one_file_that_cannot_be_read_at_the_start(runs, monkeypatch, name):
    path = runs.folder / f"run{runs.count + 1}" / name
    failing = FailingCall(open, errno.EACCES, 0, path)
    monkeypatch.setattr(
        "io.open" if name == "summary.json" else "nivp_dist.storage.metrics.open", failing, raising=False
    )
    with pytest.raises(
        RunFailed, match=f"^{path} cannot be read: Permission denied; check its file system, then resume$"
    ):
        runs.run()


# A file system that stumbles, and one that is slow --------------------------------------------------------------


def test_every_kind_of_file_stumbled_over_once(runs, undisturbed, same, monkeypatch, caplog):
    """EIO and ESTALE at the third line, summary and checkpoint, and the second snapshot: asked again, and done."""
    monkeypatch.setattr(files, "RETRY_AFTER", (0.01,))
    home = runs.folder / f"run{runs.count + 1}"
    metrics = FailingCall(open, errno.EIO, 2, home / "metrics.jsonl")
    events = FailingCall(metrics, errno.ESTALE, 2, home / "events.jsonl")
    summary = FailingCall(os.replace, errno.EIO, 2, home / "summary.json")
    snapshot = FailingCall(os.fsync, errno.ESTALE, 2, home / "snapshots")
    checkpoint = FailingCall(os.rename, errno.ESTALE, 2, home / "checkpoints")
    monkeypatch.setattr(files, "open", events, raising=False)
    monkeypatch.setattr(os, "replace", summary)
    monkeypatch.setattr(os, "fsync", snapshot)
    monkeypatch.setattr(os, "rename", checkpoint)
    same(runs.run(), undisturbed)
    assert [one.failed for one in (metrics, events, summary, snapshot, checkpoint)] == [1] * 5
    assert caplog.text.count("trying again") == 5


def test_a_slow_disk(runs, undisturbed, same, monkeypatch):
    """Every flush takes a while, and the clock makes a save due after every transition: the same bits."""
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (time.sleep(0.005), fsync(handle)))
    ran = runs.run(checkpoint__every_minutes=1e-6, checkpoint__keep=100)
    assert saved(ran) == list(range(undisturbed.summary["transitions"] + 1))
    same(ran, undisturbed)


# What is found at the start ---------------------------------------------------------------------------------


def newest(ran):
    return ran.directory / "checkpoints" / str(saved(ran)[-1])


def test_the_newest_checkpoint_torn_by_a_power_failure(runs, undisturbed, same, crash):
    """Names without contents, and a tail of metrics that is not what was written: one checkpoint back."""
    ran = runs.begin(crash, ("step", 9), checkpoint__every_steps=2)
    for file in newest(ran).rglob("*"):
        if file.is_file():
            os.truncate(file, 0)
    for name in ("metrics.jsonl", "events.jsonl"):
        with open(ran.directory / name, "ab") as file:
            file.write(b"\0" * 300 + b"\n\0\0")
    same(runs.resume(ran, checkpoint__every_steps=4), undisturbed)
    said = [message for kind, message in ran.events if kind == "warning"]
    assert len(said) == 1 and said[0].partition("continuing from step ")[2].startswith("6, t = 0.04")


def test_half_of_a_state_is_not_gone_on_from(runs, undisturbed, same, crash):
    """Every file of the newest checkpoint in turn removed: never read, always one back."""
    ran = runs.begin(crash, ("step", 9), checkpoint__every_steps=2)
    steps = saved(ran)
    parts = [path.relative_to(newest(ran)) for path in newest(ran).rglob("*") if path.is_file()]
    config = resume_config(ran.directory)
    simulation, fallen_back = controller.Simulation(config, registry.load(config.problem)), 0
    for part in parts:
        copy = runs.Ran(runs.new())
        shutil.copytree(ran.directory, copy.directory)
        (newest(copy) / part).unlink()
        found = Record(config, copy.directory, simulation, CompileClock()).restore()[0].transitions
        assert found in (steps[-1], steps[-2])
        fallen_back += found == steps[-2]
    assert fallen_back >= 3  # some hold nothing that is needed
    same(runs.resume(ran, checkpoint__every_steps=4), undisturbed)


@pytest.mark.parametrize("moment", [("fit", 6), ("step", 6)])
def test_a_run_whose_checkpoints_are_gone_does_not_start_over(runs, undisturbed, same, crash, moment):
    ran = runs.begin(crash, moment)
    folder, kept = ran.directory / "checkpoints", runs.folder / f"kept{runs.count}"
    shutil.copytree(folder, kept)
    shutil.rmtree(folder)
    metrics = ran.metrics
    where = "its initial fit" if moment[0] == "fit" else "step 6, t = 0"
    line = (
        f"checkpoints is empty, and the run had come to {where}.*: restore the folder from a copy, or start a new run$"
    )
    for _ in range(2):
        with pytest.raises(RunFailed, match=line):
            runs.resume(ran)
    assert ran.metrics == metrics
    folder.rmdir()
    kept.rename(folder)
    same(runs.resume(ran), undisturbed)


# Damage to the files beside the checkpoints: never lost without a word --------------------------------------


def warnings(ran):
    return [message for kind, message in ran.events if kind == "warning"]


def without_lines(first, last):
    return lambda path: path.write_bytes(
        b"".join(path.read_bytes().splitlines(True)[: first - 1] + path.read_bytes().splitlines(True)[last:])
    )


OTHERS = ", numbers in the others may have been changed"


def other_step(path):
    path.write_bytes(path.read_bytes().replace(b'"step": 3', b'"step": 5', 1))


def other_digit(path):
    lines = path.read_bytes().splitlines(True)
    lines[2] = lines[2].replace(b'"h": 0.0', b'"h": 0.1', 1).replace(b'"h": 1', b'"h": 2', 1)
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    "damage, gone",
    [
        (without_lines(5, 99), f"the lines of steps 5 to 6 are gone{OTHERS}"),
        (without_lines(3, 3), f"the lines of step 3 are gone{OTHERS}"),
        (lambda path: path.write_bytes(b""), "the lines of steps 1 to 6 are gone"),
        (lambda path: path.unlink(), "the lines of steps 1 to 6 are gone"),
        (lambda path: path.write_bytes(b"x" * 9 + path.read_bytes()[9:]), f"the lines of step 1 are gone{OTHERS}"),
        (other_step, f"the lines of step 3 are gone{OTHERS}"),
        (other_digit, "numbers in it were changed"),
    ],
)
def test_damaged_metrics_are_named_once_and_the_run_goes_on(runs, undisturbed, crash, at, damage, gone):
    ran = runs.begin(crash, ("step", 9))
    damage(ran.directory / "metrics.jsonl")
    heard = []
    reporter = at("note", "damage", lambda: heard.append(1))
    assert_same_but_lines(runs.resume(ran, reporter), undisturbed)
    (message,) = warnings(ran)
    assert message.startswith(f"damage to the files in {ran.directory}: metrics.jsonl is not what the run had written")
    assert message.endswith(gone) and heard == [1]
    runs.resume(ran)
    assert len(warnings(ran)) == 1


def assert_same_but_lines(ran, undisturbed):
    """Snapshots and summary as without the damage; of the metrics, those that are left."""
    mine, theirs = ran.snapshots(), undisturbed.snapshots()
    assert all(np.array_equal(mine[t]["theta"], theirs[t]["theta"]) for t in theirs) and mine.keys() == theirs.keys()
    assert ran.summary["errors"] == undisturbed.summary["errors"]
    assert ran.metrics[-1] == undisturbed.metrics[-1]


@pytest.mark.parametrize("damage", [without_lines(2, 2), lambda path: path.write_bytes(b"{")])
def test_damaged_events_are_named(runs, undisturbed, same, crash, damage):
    ran = runs.begin(crash, ("step", 14))
    damage(ran.directory / "events.jsonl")
    same(runs.resume(ran), undisturbed)
    assert len(warnings(ran)) == 1 and "events.jsonl is not what the run had written" in warnings(ran)[0]


def test_a_snapshot_that_is_gone_or_damaged_is_named(runs, undisturbed, crash):
    for content in (None, b"x" * 9):
        ran = runs.begin(crash, ("step", 9))
        path = ran.directory / "snapshots/t_0.000000.npz"
        path.unlink() if content is None else path.write_bytes(content)
        runs.resume(ran)
        (message,) = warnings(ran)
        assert "the snapshots of t = 0 are gone or damaged" in message
        assert [entry["t"] for entry in ran.summary["errors"]] == [0.1, 0.3]
        assert (ran.directory / "unreadable_snapshots" / path.name).exists() == (content is not None)


def test_snapshots_are_made_again_from_the_checkpoints_at_their_times(runs, undisturbed, same):
    ran = runs.run(checkpoint__every_steps=1, checkpoint__keep=100)
    names = sorted(path.name for path in (ran.directory / "snapshots").iterdir())
    before = [(ran.directory / "snapshots" / name).read_bytes() for name in names]
    shutil.rmtree(ran.directory / "snapshots")
    same(runs.resume(ran), undisturbed)
    assert [(ran.directory / "snapshots" / name).read_bytes() for name in names] == before
    assert warnings(ran)[0].endswith("the snapshots of t = 0, 0.1, 0.3 were computed again from checkpoints")


def test_a_snapshot_of_another_run_is_not_taken_for_its_own(runs, undisturbed, same):
    ran, other = runs.run(), runs.run(seed=2)
    name = "snapshots/t_0.300000.npz"
    shutil.copy(other.directory / name, ran.directory / name)
    same(runs.resume(ran), undisturbed)
    assert len(warnings(ran)) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", None])
def test_a_damaged_summary_does_not_refuse_a_resume(runs, undisturbed, same, crash, content):
    ran = runs.begin(crash, ("step", 9))
    path, wall = ran.directory / "summary.json", read_lines(ran.directory / "metrics.jsonl")[-1]["wall_seconds"]
    path.unlink() if content is None else path.write_bytes(content)
    same(runs.resume(ran), undisturbed)
    assert ran.summary["wall_seconds"] > wall
    assert len(warnings(ran)) == (content is not None)


# Branches that were left ------------------------------------------------------------------------------------


def test_a_fallback_removes_the_snapshots_of_the_branch_that_is_left(runs, crash):
    """The checkpoint after t = 0.1 is damaged, and the run goes on under other output times."""
    ran = runs.begin(crash, ("step", 16), checkpoint__every_steps=3)
    times = list(ran.snapshots())
    assert times == [0.0, 0.1]
    for file in [path for number in saved(ran)[1:] for path in (ran.directory / f"checkpoints/{number}").rglob("*")]:
        if file.is_file():
            os.truncate(file, 0)
    runs.resume(ran, output__times=[0.2])
    assert list(ran.snapshots()) == [0.0, 0.2, 0.3]
    resumed = [message for kind, message in ran.events if kind == "resume"]
    assert "; outputs to be computed again: t = 0.1; other settings: " in resumed[0]
    assert resumed[0].endswith("output.times [0.1] -> [0.2]")


def test_an_output_time_that_the_run_has_passed_is_named(runs, undisturbed, crash):
    ran = runs.begin(crash, ("step", 16))
    runs.resume(ran, output__times=[0.05, 0.1, 0.2])
    assert list(ran.snapshots()) == [0.0, 0.1, 0.2, 0.3]
    (message,) = warnings(ran)
    assert message.startswith("no snapshot at the output times t = 0.05: they lie before t = ")


def test_a_finished_run_resumed_adds_nothing(runs, undisturbed, same):
    copy = runs.Ran(runs.new())
    shutil.copytree(undisturbed.directory, copy.directory)
    names = ("events.jsonl", "metrics.jsonl", "config.toml")
    before = [(copy.directory / name).read_bytes() for name in names]
    for _ in range(2):
        same(runs.resume(copy), undisturbed)
    assert [(copy.directory / name).read_bytes() for name in names] == before
