"""Messages of libraries go into the log of each process, and the screen shows the warnings of nivp_dist once."""

import gc
import logging
import re
import subprocess
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

from nivp_dist.cluster import logs
from nivp_dist.cluster.logs import Log
from nivp_dist.cluster.session import Session
from nivp_dist.cluster.topology import Topology
from nivp_dist.errors import DiskFailed
from nivp_dist.settings.model import ClusterSettings


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path, 3)
    log.text = lambda: (tmp_path / "logs/process-0003.log").read_text()
    return log


class Unraisable:
    def __del__(self):
        raise ArithmeticError("in a destructor")


def warn_in_every_way():
    logging.getLogger("some.library").warning("flooding %d", 7)
    logging.getLogger("nivp_dist.storage").warning("a disk failed once")
    warnings.warn("of the warnings module", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    Unraisable()
    gc.collect()


@pytest.mark.parametrize("first", [True, False])
def test_all_warnings_go_into_the_log_and_ours_to_the_screen_of_process_0(log, capsys, first):
    stray = logging.StreamHandler()  # of a library, which writes to the screen
    logging.getLogger().addHandler(stray)
    try:
        with logs.screen(first), log.warnings():
            warn_in_every_way()
        assert stray in logging.getLogger().handlers
    finally:
        logging.getLogger().removeHandler(stray)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ("nivp: warning: a disk failed once\n" if first else "")
    text = log.text()
    for part in (
        "WARNING some.library: flooding 7",
        "WARNING nivp_dist.storage: a disk failed once",
        "of the warnings module",
    ):
        assert re.search(rf"^\d+-\d+-\d+ \d+:\d+:\d+ process 3: .*{part}$", text, re.MULTILINE), text
    assert "ZeroDivisionError" in text and "ArithmeticError: in a destructor" in text
    logging.getLogger("some.library").warning("no more")
    assert "no more" not in log.text()


def test_a_log_is_appended_to_and_one_that_cannot_be_opened_is_an_error(tmp_path, log):
    log.write_line("first")
    Log(tmp_path, 3).write_line("second")
    assert [line.split("process 3: ")[1] for line in log.text().splitlines()] == ["first", "second"]
    (tmp_path / "logs/process-0004.log").mkdir()
    with pytest.raises(DiskFailed, match="process-0004.log cannot be written: Is a directory; check its file system"):
        Log(tmp_path, 4)


def test_a_log_on_a_full_disk_raises_nothing(disk, capsys):
    log = Log(disk.path, 0)
    disk.fill()
    with logs.screen(True), log.warnings():
        for _ in range(100):
            log.write_line("x" * 4096)
            logging.getLogger("some.library").warning("y" * 4096)
    assert capsys.readouterr().err == ""


def test_a_process_that_is_alone_has_a_deadline_only_during_a_run(tmp_path):
    session, settings = Session(Topology(1, 0, "alone")), ClusterSettings(deadline_minutes=0.02)
    session.open_log(tmp_path)
    with session.watched(settings):
        for _ in range(10):
            session.begin("step")
            time.sleep(0.02)
    time.sleep(1.5)  # longer than the deadline, which would end this process
    assert session.watchdog is None


def test_the_cause_is_the_last_line_of_a_log(tmp_path):
    """Process 0 lives for another second to tell the others, and may raise errors because of what happens to them."""
    group, watchdog = (
        SimpleNamespace(fail=lambda *_: None, met=SimpleNamespace(strangers=3)),
        SimpleNamespace(write_to=lambda log: None),
    )
    session = Session(Topology(1, 0, "alone"), group, watchdog)
    session.open_log(tmp_path)
    group.on_end("the group ends: process 1 was killed")
    session.fail("connection reset by peer", 1, consequence=True)
    lines = (tmp_path / "logs/process-0000.log").read_text().splitlines()
    assert any(line.endswith("3 connections without the secret of the run were refused") for line in lines)
    assert lines[-1].endswith("process 0: the group ends: process 1 was killed")


NATIVE = """
import os, sys
from pathlib import Path
from nivp_dist.cluster.ending import write_cause
from nivp_dist.cluster.logs import Log
log = Log(Path(sys.argv[1]), int(sys.argv[2]))
print("before")
log.take_native_output()
os.write(1, b"of a library\\n")
os.write(2, b"an error of a library\\n")
print("afterwards", flush=True)
sys.stderr.write("an error\\n")
write_cause("the cause", log.write_last_line, on_screen=True)
os.write(1, b"too late\\n"), os.write(2, b"too late\\n")
"""


@pytest.mark.parametrize("index", [0, 3])
def test_what_native_code_prints_goes_into_the_log_before_the_cause(tmp_path, index):
    """On process 0, errors of native code stay on the screen."""
    words = [sys.executable, "-c", NATIVE, tmp_path, str(index)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    *lines, last = (tmp_path / f"logs/process-000{index}.log").read_text().splitlines()
    native = ["an error of a library"]
    assert done.stdout == "before\nafterwards\n"
    assert done.stderr.splitlines() == [*(native if index == 0 else []), "an error", "nivp: the cause"]
    assert lines == ["of a library", *(native if index else [])]
    assert last.endswith(f"process {index}: the group ends: the cause")
