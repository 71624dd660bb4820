"""Files written whole or not at all, JSON lines, snapshots."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from nivp_dist.errors import DiskFailed
from nivp_dist.storage import files, metrics, snapshots
from nivp_dist.storage.files import append_line, persist, sync_file, write_whole


def test_write_whole_replaces_and_leaves_no_part(tmp_path):
    path = tmp_path / "a"
    write_whole(path, "old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_whole(path, "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_file_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_file_for_the_user_alone(tmp_path):
    write_whole(tmp_path / "a", "secret", mode=0o600)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_append_line_is_one_line(tmp_path):
    append_line(tmp_path / "a", "1")
    append_line(tmp_path / "a", "2")
    assert (tmp_path / "a").read_text() == "1\n2\n"
    with pytest.raises(ValueError):
        append_line(tmp_path / "a", "3\n4")


def test_the_part_of_a_line_left_by_a_failed_append_is_cut_off_by_the_next(tmp_path, disk):
    path = disk.path / "a"
    append_line(path, "1")
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        for _ in range(3):
            append_line(path, "2" * 3000)
    torn = path.read_bytes()
    assert not torn.endswith(b"\n") and len(torn) > 3000  # the system wrote what it could
    disk.make_room()
    append_line(path, "3")
    lines = path.read_text().splitlines()
    assert lines[0] == "1" and lines[-1] == "3" and set("".join(lines[1:-1])) == {"2"}
    assert [len(line) for line in lines[1:-1]] == [3000] * len(lines[1:-1])


def test_after_a_failed_flush_the_file_is_written_again(tmp_path, monkeypatch):
    """After a failed fsync the system may have dropped the data, and a second fsync would succeed."""
    path = tmp_path / "a"
    append_line(path, "1")
    inode, fsync, failures = path.stat().st_ino, os.fsync, [OSError(errno.EIO, "Input/output error")]

    def once(handle):
        if failures:
            raise failures.pop()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", once)
    sync_file(path)
    assert path.read_text() == "1\n" and path.stat().st_ino != inode


@pytest.mark.parametrize(
    "number, advice",
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room, or ask for a larger quota"),
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "make it writable"),
        (errno.ENOENT, "put it back where it was"),
        (errno.EIO, "check its file system"),
    ],
)
def test_a_failed_write_names_the_file_the_reason_and_what_to_do(monkeypatch, number, advice):
    monkeypatch.setattr(files, "RETRY_AFTER", (0.0, 0.0))
    tries = []

    def refuse():
        tries.append(1)
        raise OSError(number, os.strerror(number))

    with pytest.raises(
        DiskFailed, match=f"^run/summary.json cannot be written: {os.strerror(number)}; {advice}, then resume$"
    ):
        persist("run/summary.json", refuse)
    assert len(tries) == (3 if number == errno.EIO else 1)


def test_metrics_round_trip_with_numpy_and_nan(tmp_path):
    lines = metrics.Lines(tmp_path / "m.jsonl")
    lines.append({"step": np.int64(1), "t": np.float64(0.1), "h": float("nan"), "v": np.arange(2.0)})
    assert metrics.read_lines(lines.path) == [{"step": 1, "t": 0.1, "h": None, "v": [0.0, 1.0]}]


def test_torn_last_line_is_left_out_and_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "t"')
    assert metrics.read_lines(path) == [{"step": 1}]
    assert metrics.read_tail(path) == [{"step": 1}]
    metrics.Lines(path).append({"step": 2})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}, {"step": 2}]


def test_a_damaged_line_that_is_not_the_last_is_an_error(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\nxx\n{"step": 3}\n')
    with pytest.raises(ValueError, match="m.jsonl, line 2: not JSON"):
        metrics.read_lines(path)


def test_a_cut_keeps_steps_up_to_the_checkpoint(tmp_path):
    lines = metrics.Lines(tmp_path / "m.jsonl")
    for step in range(3):
        lines.append({"step": step})
    mark = lines.mark()
    for step in (2, 3, 4):  # the first belongs to the checkpoint too, as an event after it does
        lines.append({"step": step})
    assert lines.cut_back(mark, 2)
    assert [record["step"] for record in metrics.read_lines(lines.path)] == [0, 1, 2, 2]
    lines.append({"step": 3})
    assert [record["step"] for record in metrics.read_lines(lines.path)] == [0, 1, 2, 2, 3]
    assert lines.mark() == metrics.Lines(lines.path).mark()
    assert metrics.read_lines(tmp_path / "none.jsonl") == []


def mark_of(path, content):
    """The mark of a file with these contents."""
    path.write_bytes(content)
    return metrics.Lines(path).mark()


@pytest.mark.parametrize("rest", [b"\0" * 100, b"\0\0\n\0\0\n", b'{"step": 3}\n{"st\0\0\n{"step": 4}\n', b'{"step"'])
def test_anything_that_a_power_failure_leaves_after_the_checkpoint_is_cut_off(tmp_path, rest):
    whole = b'{"step": 1}\n{"step": 2}\n'
    lines = metrics.Lines(tmp_path / "m.jsonl")
    mark = mark_of(lines.path, whole)
    lines.path.write_bytes(whole + rest)
    assert lines.cut_back(mark, 2)
    assert lines.path.read_bytes() == whole
    lines.append({"step": 3})
    assert [record["step"] for record in metrics.read_lines(lines.path)] == [1, 2, 3]


WRITTEN = b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


@pytest.mark.parametrize(
    "damaged, kept, copied",
    [
        (b'{"step": 1}\nxx\n{"step": 3}\n{"step": 4}\n', [1, 3], True),
        (b'{"step": 1}\n{"step": 9}\n{"step": 3}\n', [1, 3], False),
        (b'{"step": 1}\n{"step": "2"}\n{"step": 3}\n', [1, 3], False),
        (b'{"step": 1}\n{"step": 2}\n', [1, 2], False),
        (b'{"step": 1}\n{"st', [1], True),
        (b'{"step": 1}\n\xff{"step": 2}\n[3]\n', [1], True),
        (b"", [], False),
        (None, [], False),
    ],
)
def test_damage_before_the_checkpoint_is_found_and_what_can_be_read_stays(tmp_path, damaged, kept, copied):
    lines = metrics.Lines(tmp_path / "m.jsonl")
    mark = mark_of(lines.path, WRITTEN)
    lines.path.unlink() if damaged is None else lines.path.write_bytes(damaged)
    assert not lines.cut_back(mark, 3)
    assert [record["step"] for record in metrics.read_lines(lines.path)] == kept
    copy = tmp_path / "m.jsonl.damaged"
    assert copy.exists() == copied and (not copied or copy.read_bytes() == damaged)
    assert lines.cut_back(lines.mark(), 3)


def test_every_flipped_bit_before_the_checkpoint_is_found(tmp_path):
    lines = metrics.Lines(tmp_path / "m.jsonl")
    mark = mark_of(lines.path, WRITTEN)
    for position in range(8 * len(WRITTEN)):
        content = bytearray(WRITTEN)
        content[position // 8] ^= 1 << position % 8
        lines.path.write_bytes(content)
        assert not lines.cut_back(mark, 3)
        assert {record["step"] for record in metrics.read_lines(lines.path) if "step" in record} <= {0, 1, 2, 3}


@pytest.mark.parametrize("content", [b"", b"PK", b"half"])
def test_a_damaged_snapshot_is_named_and_can_be_replaced(tmp_path, content):
    path = snapshots.save(tmp_path, 0.5, {"theta": np.ones(500)})
    path.write_bytes(path.read_bytes()[:1000] if content == b"half" else content)
    for reading in (lambda: snapshots.list_snapshots(tmp_path), lambda: snapshots.load(path)):
        with pytest.raises(ValueError, match=f"^{path}: "):
            reading()
    assert snapshots.save(tmp_path, 0.5, {"theta": np.ones(500)}) == path
    assert np.array_equal(snapshots.load(path)["theta"], np.ones(500))


def test_snapshots_in_order_of_time_and_exact(tmp_path):
    theta = np.random.default_rng(0).standard_normal(5)
    for t in (10.0, 0.5, 2.0):
        snapshots.save(tmp_path, t, {"theta": theta * t, "step": 3})
    stored = snapshots.list_snapshots(tmp_path)
    assert [snapshot.t for snapshot in stored] == [0.5, 2.0, 10.0]
    assert stored[0].path.name == "t_0.500000.npz"
    arrays = snapshots.load(stored[1].path)
    assert np.array_equal(arrays["theta"], theta * 2.0) and arrays["theta"].dtype == np.float64
    assert arrays["step"] == 3 and arrays["t"] == 2.0
    assert snapshots.newest(tmp_path) == stored[2]
    assert snapshots.list_snapshots(tmp_path / "none") == [] and snapshots.newest(tmp_path / "none") is None


def test_snapshots_are_deterministic_and_close_times_are_kept_apart(tmp_path):
    first = snapshots.save(tmp_path, 0.1, {"b": np.ones(3), "a": 1}).read_bytes()
    assert snapshots.save(tmp_path, 0.1, {"a": 1, "b": np.ones(3)}).read_bytes() == first
    snapshots.save(tmp_path, 0.1 + 1e-9, {"a": 2})
    assert [snapshot.t for snapshot in snapshots.list_snapshots(tmp_path)] == [0.1, 0.1 + 1e-9]


def test_snapshots_hold_numbers_only(tmp_path):
    with pytest.raises(ValueError, match="must be numbers, not name"):
        snapshots.save(tmp_path, 0.0, {"name": "heat"})


def test_storage_without_checkpoints_does_not_import_jax():
    code = "import sys, nivp_dist.storage.run_directory, nivp_dist.storage.snapshots; print('jax' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_snapshot_is_found_without_opening_all_others(tmp_path, monkeypatch):
    times = [0.1 * k for k in range(100)] + [0.1 + 1e-8, 1e-7, 123456.7]
    paths = {t: snapshots.save(tmp_path, t, {"theta": np.zeros(1)}) for t in times}
    paths[0.25] = snapshots.save(tmp_path, 0.25, {}).replace(tmp_path / "snapshots/t_copy.npz")  # no time in its name
    opened = []
    time_of = snapshots._time
    monkeypatch.setattr(snapshots, "_time", lambda path: opened.append(path) or time_of(path))
    for t, path in paths.items():
        assert snapshots.find(tmp_path, t) == (t, path)
    assert snapshots.find(tmp_path, 123456.7 * (1 + 1e-10)) == (123456.7, paths[123456.7])
    assert snapshots.find(tmp_path, 0.1 + 5e-8) is None and snapshots.find(tmp_path, 50.0) is None
    assert len(opened) < 3 * len(paths)  # one or two besides the copy, which is opened every time
    assert snapshots.find(tmp_path / "none", 0.1) is None


def test_only_the_wanted_arrays_of_a_snapshot_are_read(tmp_path):
    path = snapshots.save(tmp_path, 0.5, {"theta": np.ones(5), "relative_l2": 1e-3})
    assert snapshots.load(path, lambda name: name.startswith("rel")) == {"relative_l2": 1e-3}
