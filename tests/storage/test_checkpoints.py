"""Checkpoints give back the same bits, fall back to the newest undamaged one, and never start from nothing silently."""

import asyncio
import errno
import gc
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from disks import FailingCall

from nivp_dist import backend  # noqa: F401
from nivp_dist.cluster.channel import SingleProcess
from nivp_dist.errors import DiskFailed, RunFailed
from nivp_dist.storage import checkpoint_files, files
from nivp_dist.storage.checkpoints import Checkpoints


def state(seed):
    random = np.random.default_rng(seed)
    return {
        "theta": jnp.asarray(random.standard_normal(20_000)),
        "single": random.standard_normal(3).astype(np.float32),
        "key": random.integers(0, 2**32, 2, dtype=np.uint32),
        "step": np.int64(1000 + seed),
        "large": np.int64(2**53 + 1),
        "t": np.float64(0.1 + seed),
        "matrices": random.standard_normal((2, 3, 3)),
        "flag": np.True_,
        "nothing": np.zeros((0, 4)),
        "odd": np.array([np.nan, -0.0, np.inf]),
    }


def same_bits(a, b):
    pairs = [(np.asarray(a[name]), np.asarray(b[name])) for name in a]
    return a.keys() == b.keys() and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs
    )


@pytest.fixture(autouse=True)
def a_run_directory(tmp_path):
    (tmp_path / "config.toml").touch()


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path, 3, SingleProcess())
    for step in (10, 20, 30):
        assert checkpoints.save(step, state(step))
    return checkpoints


def spoil(folder, change):
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert files
    for path in files:
        path.write_bytes(change(bytearray(path.read_bytes())))


def flip(content):
    content[len(content) // 2] ^= 1
    return content


def test_a_restored_state_has_the_same_bits_and_types(saved):
    tree, step, messages, _ = saved.restore_latest(state(0))
    assert step == 30 and messages == []
    assert all(isinstance(value, np.ndarray) for value in tree.values())
    assert same_bits(tree, state(30))
    assert not same_bits(tree, state(20))


def test_nothing_is_restored_where_nothing_was_saved(tmp_path):
    assert Checkpoints(tmp_path, 3, SingleProcess()).restore_latest(state(0)) is None


def test_a_note_is_restored_with_its_state_and_makes_no_other_state(tmp_path):
    checkpoints = Checkpoints(tmp_path, 3, SingleProcess())
    assert checkpoints.save(10, state(10), "first")
    assert not checkpoints.save(10, state(10), "second")
    found = Checkpoints(tmp_path, 3, SingleProcess()).restore_latest(state(0))
    assert found.note == "first" and same_bits(found.tree, state(10))
    (tree,) = checkpoints.trees()
    assert same_bits(tree, state(10))


def test_only_the_last_checkpoints_are_kept(saved):
    saved.save(40, state(40))
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["20", "30", "40"]


def test_the_same_state_is_not_written_again_and_another_state_of_the_same_number_replaces_it(saved):
    assert not saved.save(30, state(30))
    assert saved.save(30, state(31))
    tree, step, _, _ = saved.restore_latest(state(0))
    assert step == 30 and same_bits(tree, state(31))
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["10", "20", "30"]


def test_a_save_killed_while_it_replaces_a_checkpoint_leaves_the_old_one(saved, tmp_path):
    (saved.folder / "30").rename(saved.folder / "30.replaced")
    (saved.folder / "30.partial/state").mkdir(parents=True)
    tree, step, _, _ = Checkpoints(tmp_path, 3, SingleProcess()).restore_latest(state(0))
    assert step == 30 and same_bits(tree, state(30))
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["10", "20", "30"]


@pytest.mark.parametrize(
    "damage",
    [flip, lambda content: content[: len(content) // 2], lambda content: b""],
    ids=["one bit", "torn", "empty"],
)
def test_a_damaged_newest_checkpoint_is_set_aside_for_the_one_before_with_a_message(saved, tmp_path, damage):
    spoil(saved.folder / "30", damage)
    again = Checkpoints(tmp_path, 3, SingleProcess())
    tree, step, messages, _ = again.restore_latest(state(0))
    assert step == 20 and same_bits(tree, state(20))
    assert len(messages) == 1
    assert messages[0].startswith("the checkpoint of step 1030, t = 30.1 is unreadable (")
    assert messages[0].endswith("), moved to unreadable_checkpoints/; continuing from step 1020, t = 20.1")
    assert (tmp_path / "unreadable_checkpoints/30-0").is_dir()
    again.save(30, state(33))  # the run reaches that step again
    assert same_bits(again.restore_latest(state(0))[0], state(33))


def test_a_checkpoint_with_a_missing_file_is_set_aside_too(saved, tmp_path):
    (saved.folder / "30/manifest.json").unlink()
    (saved.folder / "20/state/_METADATA").unlink()
    _, number, messages, _ = Checkpoints(tmp_path, 3, SingleProcess()).restore_latest(state(0))
    assert number == 10 and len(messages) == 2
    line = "the checkpoint of transition 30 is unreadable (No such file or directory: manifest.json)"
    assert messages[0].startswith(line)
    assert messages[1].startswith("the checkpoint of step 1020, t = 20.1 is unreadable (")


def test_an_error_and_no_change_if_all_checkpoints_are_damaged(saved, tmp_path):
    for step in (10, 20, 30):
        spoil(saved.folder / str(step), flip)
    again = Checkpoints(tmp_path, 3, SingleProcess())
    with pytest.raises(RunFailed, match="^none of the 3 checkpoints in .* .checkpoint of step 1030, t = 30.1: array"):
        again.restore_latest(state(0))
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["10", "20", "30"]


OTHER_KINDS = [{"extra": np.zeros(1)}, {"theta": np.zeros(20_000, np.float32)}, {"matrices": np.zeros((2, 3, 4))}]


@pytest.mark.parametrize("change", OTHER_KINDS)
def test_a_state_with_other_arrays_types_or_shapes_is_refused(saved, change):
    with pytest.raises(RunFailed, match="^the checkpoint of step 1030, t = 30.1 holds another kind of state: "):
        saved.restore_latest(state(0) | change)


def test_an_array_that_is_empty_in_the_template_may_have_any_shape(saved):
    found = saved.restore_latest(state(0) | {"matrices": np.zeros(0)}).tree
    np.testing.assert_array_equal(found["matrices"], state(30)["matrices"])


def test_the_errors_of_further_arrays_of_a_failed_save_are_not_printed(caplog):
    """Orbax raises the first one. asyncio reports errors that nobody has asked for when it drops their futures."""
    with checkpoint_files._without_late_errors():
        loop = asyncio.new_event_loop()
    loop.create_future().set_exception(ValueError("the second array"))
    gc.collect()
    assert not caplog.records
    loop.call_exception_handler({"message": "another error of a callback"})
    assert [record.message for record in caplog.records] == ["another error of a callback"]
    loop.close()


def test_a_copy_that_the_user_keeps_there_is_left_alone(saved, tmp_path):
    (saved.folder / "30").rename(saved.folder / "30.good")
    Checkpoints(tmp_path, 2, SingleProcess()).save(40, state(40))
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["20", "30.good", "40"]


# Disks that fail -----------------------------------------------------------------------------------


@pytest.fixture
def on_disk(disk):
    (disk.path / "config.toml").touch()
    checkpoints = Checkpoints(disk.path, 3, SingleProcess())
    checkpoints.save(10, state(10))
    return checkpoints


def assert_refused(checkpoints, line):
    """A save is refused with this line, and leaves the earlier checkpoint and nothing else."""
    with pytest.raises(DiskFailed, match=f"^{checkpoints.folder} cannot be written: {line}, then resume$"):
        checkpoints.save(20, state(20))
    assert [entry.name for entry in checkpoints.folder.iterdir()] == ["10"]
    tree, step, messages, _ = Checkpoints(checkpoints.directory, 3, SingleProcess()).restore_latest(state(0))
    assert step == 10 and messages == [] and same_bits(tree, state(10))


def test_a_save_that_the_disk_has_no_room_for_is_not_begun(on_disk, disk):
    disk.fill(leave=1 << 20)
    assert_refused(on_disk, r"1\.4 MB needed and 1\.0 MB free on the disk; make room")
    disk.make_room()
    on_disk.save(20, state(20))
    assert same_bits(on_disk.restore_latest(state(0))[0], state(20))


@pytest.mark.parametrize("leave", [0, 40_000, 130_000])
def test_a_disk_that_fills_during_a_save(on_disk, disk, monkeypatch, leave):
    """Another program may fill it, or a quota that cannot be asked for; the native code of Orbax meets it too."""
    monkeypatch.setattr(on_disk, "_require_space", lambda needed: None)
    disk.fill(leave)
    assert_refused(on_disk, "No space left on device; make room")
    disk.make_room()
    on_disk.save(20, state(20))
    assert same_bits(on_disk.restore_latest(state(0))[0], state(20))


def test_a_read_only_disk(on_disk, disk):
    disk.make("ro")
    with pytest.raises(DiskFailed, match="Read-only file system; make it writable, then resume$"):
        on_disk.save(20, state(20))
    disk.make("rw")
    on_disk.save(20, state(20))
    assert same_bits(on_disk.restore_latest(state(0))[0], state(20))


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_run_directory_that_has_vanished_is_not_made_again(tmp_path, how):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").touch()
    checkpoints = Checkpoints(run, 3, SingleProcess())
    checkpoints.save(10, state(10))
    run.rename(tmp_path / "moved") if how == "moved" else shutil.rmtree(run)
    with pytest.raises(DiskFailed, match=f"^{run} has vanished: nothing can be saved; resume where it has gone$"):
        checkpoints.save(20, state(20))
    assert not run.exists()
    if how == "moved":
        assert same_bits(Checkpoints(tmp_path / "moved", 3, SingleProcess()).restore_latest(state(0))[0], state(10))


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_run_directory_that_vanishes_during_a_save_is_not_made_again(tmp_path, monkeypatch, how):
    """Orbax makes the missing parents of what it writes."""
    run, moved = tmp_path / "run", tmp_path / "moved"
    run.mkdir()
    (run / "config.toml").touch()
    checkpoints, write = Checkpoints(run, 3, SingleProcess()), checkpoint_files.write
    checkpoints.save(10, state(10))

    def vanish(folder, *rest):
        run.rename(moved)
        if how == "removed":
            shutil.rmtree(moved)
        elif how == "replaced":
            shutil.copytree(moved, run)
        write(folder, *rest)

    monkeypatch.setattr(checkpoint_files, "write", vanish)
    with pytest.raises(DiskFailed) as caught:
        checkpoints.save(20, state(20))
    line = f"{run}/checkpoints cannot be written: No such file or directory; put it back where it was, then resume"
    assert str(caught.value) == line
    monkeypatch.setattr(checkpoint_files, "write", write)
    if how == "replaced":
        assert sorted(entry.name for entry in (run / "checkpoints").iterdir()) == ["10"]
        with pytest.raises(
            DiskFailed, match=f"^{run}/checkpoints has been replaced: nothing can be saved; resume where"
        ):
            checkpoints.save(20, state(20))
    else:
        assert not run.exists()
    if how != "removed":
        assert same_bits(Checkpoints(moved, 3, SingleProcess()).restore_latest(state(0))[0], state(10))


# A thread of TensorStore that ends after the first failure of a save prints its traceback on standard error.
FULL = """
import sys
from pathlib import Path

import numpy as np
from disks import SmallDisk

from nivp_dist.cluster.channel import SingleProcess
from nivp_dist.errors import DiskFailed
from nivp_dist.storage.checkpoints import Checkpoints

disk = SmallDisk(Path(sys.argv[1]))
try:
    (disk.path / "config.toml").touch()
    checkpoints = Checkpoints(disk.path, 3, SingleProcess())
    checkpoints._require_space = lambda needed: None  # the disk fills after it was asked
    checkpoints.save(1, {"a": np.random.default_rng(1).normal(size=100_000)})
    disk.fill(leave=300_000)
    for seed in range(10):
        try:
            checkpoints.save(2, {"a": np.random.default_rng(seed).normal(size=100_000)})
        except DiskFailed as error:
            print(error)
    disk.make_room()
    checkpoints.save(2, {"a": np.ones(100_000)})
    print(checkpoints.restore_latest({"a": np.ones(100_000)}).number)
finally:
    disk.close()
"""


def test_a_disk_that_fills_during_a_save_is_one_line_each_time(tmp_path, disk):
    """Not a traceback of a library, and nothing is half written. disk: skips the test where none can be mounted."""
    path = tmp_path / "small"
    words = [sys.executable, "-c", FULL, str(path)]
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    line = f"{path}/checkpoints cannot be written: No space left on device; make room, then resume"
    assert done.stderr == "" and done.stdout.splitlines() == [line] * 10 + ["2"]


def test_errors_of_a_file_system_that_pass_do_not_cost_a_save(saved, monkeypatch, caplog):
    """Every system call of Python in a save fails once, one after the other; each time the state is saved whole."""
    monkeypatch.setattr(files, "RETRY_AFTER", (0.01,))
    injected, steps = 0, itertools.count(100)
    for name in ("mkdir", "open", "fsync", "rename", "replace"):
        for skipped in range(50):
            step, number = next(steps), (errno.EIO, errno.ESTALE)[skipped % 2]
            stumble = FailingCall(getattr(os, name), number, skipped, saved.folder)
            with monkeypatch.context() as patch:
                patch.setattr(os, name, stumble)
                assert saved.save(step, state(step))
            if not stumble.failed:
                break
            injected += 1
            tree, found, messages, _ = Checkpoints(saved.directory, 3, SingleProcess()).restore_latest(state(0))
            assert found == step and messages == [] and same_bits(tree, state(step))
            assert len(list(saved.folder.iterdir())) == 3
    assert injected >= caplog.text.count("trying again") > 10


def test_an_error_of_a_file_system_that_stays_ends_the_save(saved, monkeypatch):
    monkeypatch.setattr(files, "RETRY_AFTER", (0.01, 0.01))
    stumble = FailingCall(os.fsync, errno.ESTALE, 0, saved.folder, times=1000)
    monkeypatch.setattr(os, "fsync", stumble)
    with pytest.raises(DiskFailed, match="cannot be written: Stale file handle; check its file system, then resume$"):
        saved.save(40, state(40))
    assert stumble.failed == 3
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["10", "20", "30"]


def test_a_checkpoint_that_cannot_be_read_at_once_is_read_a_moment_later(saved, monkeypatch, caplog):
    """One input/output error of a network file system must not cost a checkpoint."""
    monkeypatch.setattr(files, "RETRY_AFTER", (0.01,))
    read, failures = type(saved.folder).read_bytes, [OSError(errno.EIO, "Input/output error")]

    def once(path):
        if failures:
            raise failures.pop()
        return read(path)

    monkeypatch.setattr(type(saved.folder), "read_bytes", once)
    tree, step, messages, _ = saved.restore_latest(state(0))
    assert step == 30 and messages == [] and same_bits(tree, state(30)) and "trying again" in caplog.text


WITHOUT_LOCKS = """
import sys, numpy as np
from disks import forbid_locks
forbid_locks()
import fcntl
from nivp_dist import backend
from nivp_dist.cluster.channel import SingleProcess
from nivp_dist.storage.checkpoints import Checkpoints
try:
    fcntl.flock(open(sys.argv[1] + "/config.toml"), fcntl.LOCK_EX)
except OSError as error:
    print(error.strerror)
checkpoints, tree = Checkpoints(sys.argv[1], 3, SingleProcess()), {"theta": np.arange(5.0)}
checkpoints.save(1, tree)
print(tuple(checkpoints.restore_latest(tree)))
"""


def test_a_file_system_without_locks(tmp_path):
    """Some parallel file systems are mounted without locks: TensorStore would refuse to write there."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root.parent}"}
    command = [sys.executable, "-c", WITHOUT_LOCKS, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Function not implemented\n({'theta': array([0., 1., 2., 3., 4.])}, 1, [], '')\n"


SAVE_FOR_EVER = """
import sys, numpy as np
from nivp_dist import backend
from nivp_dist.cluster.channel import SingleProcess
from nivp_dist.storage.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1], 3, SingleProcess())
for step in range(1, 10**6):
    checkpoints.save(step, {"theta": np.full(500_000, float(step)), "step": np.int64(step)})
    print(step, flush=True)
"""


@pytest.mark.parametrize("delay", [0.003, 0.011, 0.023])
def test_a_save_that_is_killed_leaves_the_checkpoint_before_readable(tmp_path, delay):
    saver = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        for line in saver.stdout:
            if int(line) == 3:
                break
        time.sleep(delay)
    finally:
        os.kill(saver.pid, signal.SIGKILL)
        rest = saver.stdout.read().split()
        saver.wait()
        saver.stdout.close()
    complete = int(rest[-1]) if rest else 3
    template = {"theta": np.zeros(500_000), "step": np.int64(0)}
    tree, step, messages, _ = Checkpoints(tmp_path, 3, SingleProcess()).restore_latest(template)
    assert messages == []
    assert step in (complete, complete + 1)
    assert tree["step"] == step and np.array_equal(tree["theta"], np.full(500_000, float(step)))


TWO_PROCESSES = """
import sys, jax, numpy as np
from nivp_dist import backend
directory, index, coordinator = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(coordinator, 2, index, initialization_timeout=60)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from nivp_dist.errors import RunFailed
from nivp_dist.cluster import channel
from nivp_dist.storage.checkpoints import Checkpoints
everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("points",)), PartitionSpec())
vector = lambda x: jax.make_array_from_callback((5,), everywhere, lambda i: np.full(5, x)[i])
tree = lambda x: {"theta": vector(x), "key": np.array([7], np.uint32)}
checkpoints = Checkpoints(directory, 2, channel.current())
assert checkpoints.restore_latest(tree(0.0)) is None
for step in (1, 2, 3):
    assert checkpoints.save(step, tree(step / 7))
assert checkpoints.save(3, tree(5 / 7))
try:
    checkpoints.save(4, {"theta": np.full(5, float(index))})
except RunFailed as error:
    assert "process 1 against process 0" in str(error), error
else:
    raise AssertionError("different states were saved")
if index == 0:
    (checkpoints.folder / "3" / "manifest.json").write_text("x")
from jax.experimental import multihost_utils
multihost_utils.sync_global_devices("damaged")
found, step, messages, _ = Checkpoints(directory, 2, channel.current()).restore_latest(tree(0.0))
assert step == 2 and len(messages) == 1, (step, messages)
assert isinstance(found["theta"], np.ndarray) and np.array_equal(found["theta"], np.full(5, 2 / 7))
jax.distributed.shutdown()
"""


def test_two_processes_save_agree_and_restore(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]
    environment = os.environ | {"NIVP_SECRET": "a secret of this test"}
    pair = [
        subprocess.Popen([*command, str(index), coordinator], env=environment, stderr=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[1] for process in pair]
    finally:
        for process in pair:
            process.kill()
            process.wait()
    assert [process.returncode for process in pair] == [0, 0], "\n".join(outputs)
