"""Checkpoints: the same bits back, the newest readable one, never a silent start from nothing."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist import _jax  # noqa: F401
from nivp_dist.errors import RunFailed
from nivp_dist.storage.checkpoints import Checkpoints


def state(seed):
    random = np.random.default_rng(seed)
    return {
        "theta": jnp.asarray(random.standard_normal(20_000)),
        "single": random.standard_normal(3).astype(np.float32),
        "key": random.integers(0, 2**32, 2, dtype=np.uint32),
        "step": np.int64(2**53 + 1 + seed),
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


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (10, 20, 30):
        assert checkpoints.save(step, state(step))
    yield checkpoints
    checkpoints.close()


def spoil(folder, change):
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert files
    for path in files:
        path.write_bytes(change(bytearray(path.read_bytes())))


def flip(content):
    content[len(content) // 2] ^= 1
    return content


def test_restores_the_same_bits_and_types(saved):
    tree, step, messages = saved.restore_latest(state(0))
    assert step == 30 and messages == []
    assert all(isinstance(value, np.ndarray) for value in tree.values())
    assert same_bits(tree, state(30))
    assert not same_bits(tree, state(20))


def test_none_if_nothing_was_saved(tmp_path):
    assert Checkpoints(tmp_path, 3).restore_latest(state(0)) is None


def test_keeps_the_last_few(saved):
    saved.save(40, state(40))
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["20", "30", "40"]


def test_saving_the_same_state_again_writes_nothing_another_one_replaces(saved):
    assert not saved.save(30, state(30))
    assert saved.save(30, state(31))
    tree, step, _ = saved.restore_latest(state(0))
    assert step == 30 and same_bits(tree, state(31))
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["10", "20", "30"]


def test_a_replacement_that_was_killed_leaves_the_old_one(saved, tmp_path):
    waiting = tmp_path / ".displaced_checkpoints"
    waiting.mkdir()
    (saved.folder / "30").rename(waiting / "30")
    tree, step, _ = Checkpoints(tmp_path, 3).restore_latest(state(0))
    assert step == 30 and same_bits(tree, state(30))
    assert not waiting.exists()


@pytest.mark.parametrize(
    "damage",
    [flip, lambda content: content[: len(content) // 2], lambda content: b""],
    ids=["one bit", "torn", "empty"],
)
def test_a_damaged_newest_one_falls_back_and_says_so(saved, tmp_path, damage):
    spoil(saved.folder / "30", damage)
    again = Checkpoints(tmp_path, 3)
    tree, step, messages = again.restore_latest(state(0))
    assert step == 20 and same_bits(tree, state(20))
    assert len(messages) == 1
    assert messages[0].startswith("checkpoint of step 30 is unreadable (")
    assert messages[0].endswith("), moved to unreadable_checkpoints/; continuing from step 20")
    assert (tmp_path / "unreadable_checkpoints/30-0").is_dir()
    again.save(30, state(33))  # the run reaches that step again
    assert same_bits(again.restore_latest(state(0))[0], state(33))


def test_missing_parts_fall_back_too(saved, tmp_path):
    for path in (saved.folder / "30/digests").rglob("*"):
        path.unlink() if path.is_file() else None
    (saved.folder / "20/state/_METADATA").unlink()
    _, step, messages = Checkpoints(tmp_path, 3).restore_latest(state(0))
    assert step == 10 and len(messages) == 2


def test_all_damaged_is_an_error_and_touches_nothing(saved, tmp_path):
    for step in (10, 20, 30):
        spoil(saved.folder / str(step), flip)
    again = Checkpoints(tmp_path, 3)
    with pytest.raises(RunFailed, match="^none of the 3 checkpoints in .* can be read .step 30: array 'theta' is dam"):
        again.restore_latest(state(0))
    assert sorted(entry.name for entry in saved.folder.iterdir()) == ["10", "20", "30"]


@pytest.mark.parametrize("change", [{"extra": np.zeros(1)}, {"theta": np.zeros(3, np.float32)}])
def test_another_kind_of_state_is_refused(saved, change):
    with pytest.raises(RunFailed, match="^checkpoint of step 30 holds another kind of state: "):
        saved.restore_latest(state(0) | change)


def test_a_disk_that_refuses_is_one_line(saved, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved._manager, "save", full)
    with pytest.raises(RunFailed, match="^the checkpoint of step 40 cannot be written to .*No space left on device$"):
        saved.save(40, state(40))
    assert saved.restore_latest(state(0))[1] == 30


SAVE_FOR_EVER = """
import sys, numpy as np
from nivp_dist import _jax
from nivp_dist.storage.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1], 3)
for step in range(1, 10**6):
    checkpoints.save(step, {"theta": np.full(500_000, float(step)), "step": np.int64(step)})
    print(step, flush=True)
"""


@pytest.mark.parametrize("delay", [0.003, 0.011, 0.023])
def test_killed_during_a_save_the_one_before_is_good(tmp_path, delay):
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
    template = {"theta": np.zeros(1), "step": np.int64(0)}
    tree, step, messages = Checkpoints(tmp_path, 3).restore_latest(template)
    assert messages == []
    assert step in (complete, complete + 1)
    assert tree["step"] == step and np.array_equal(tree["theta"], np.full(500_000, float(step)))


TWO_PROCESSES = """
import sys, jax, numpy as np
from nivp_dist import _jax
directory, index, coordinator = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(coordinator, 2, index, initialization_timeout=60)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from nivp_dist.errors import RunFailed
from nivp_dist.storage.checkpoints import Checkpoints
everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("points",)), PartitionSpec())
vector = lambda x: jax.make_array_from_callback((5,), everywhere, lambda i: np.full(5, x)[i])
tree = lambda x: {"theta": vector(x), "key": np.array([7], np.uint32)}
checkpoints = Checkpoints(directory, 2)
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
    (checkpoints.folder / "3" / "digests" / "metadata").write_text("x")
from jax.experimental import multihost_utils
multihost_utils.sync_global_devices("damaged")
found, step, messages = Checkpoints(directory, 2).restore_latest(tree(0.0))
assert step == 2 and len(messages) == 1, (step, messages)
assert isinstance(found["theta"], np.ndarray) and np.array_equal(found["theta"], np.full(5, 2 / 7))
jax.distributed.shutdown()
"""


def test_two_processes_save_agree_and_restore(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]
    pair = [
        subprocess.Popen([*command, str(index), coordinator], stderr=subprocess.PIPE, text=True) for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[1] for process in pair]
    finally:
        for process in pair:
            process.kill()
            process.wait()
    assert [process.returncode for process in pair] == [0, 0], "\n".join(outputs)
