"""What libraries say goes into the log of each process, with its number; the screen shows our own warnings once."""

import gc
import logging
import re
import threading
import warnings
from types import SimpleNamespace

import pytest

from nivp_dist.cluster import logs
from nivp_dist.cluster.logs import Log
from nivp_dist.cluster.session import Session
from nivp_dist.cluster.topology import Topology
from nivp_dist.errors import DiskFailed


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path, 3)
    log.text = lambda: (tmp_path / "logs/process-0003.log").read_text()
    return log


class Unraisable:
    def __del__(self):
        raise ArithmeticError("on its way out")


def complain():
    logging.getLogger("some.library").warning("flooding %d", 7)
    logging.getLogger("nivp_dist.storage").warning("a disk stumbled")
    warnings.warn("of the old kind")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    Unraisable()
    gc.collect()


@pytest.mark.parametrize("first", [True, False])
def test_into_the_log_and_only_our_own_on_the_first_screen(log, capsys, first):
    stray = logging.StreamHandler()  # a library's own, on the screen
    logging.getLogger().addHandler(stray)
    try:
        with logs.screen(first), log.warnings():
            complain()
        assert stray in logging.getLogger().handlers
    finally:
        logging.getLogger().removeHandler(stray)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ("nivp: warning: a disk stumbled\n" if first else "")
    text = log.text()
    for part in ("WARNING some.library: flooding 7", "WARNING nivp_dist.storage: a disk stumbled", "of the old kind"):
        assert re.search(rf"^\d+-\d+-\d+ \d+:\d+:\d+ process 3: .*{part}$", text, re.M), text
    assert "ZeroDivisionError" in text and "ArithmeticError: on its way out" in text
    logging.getLogger("some.library").warning("no more")
    assert "no more" not in log.text()


def test_a_log_is_appended_to_and_one_that_cannot_be_opened_is_one_line(tmp_path, log):
    log.say("first")
    Log(tmp_path, 3).say("second")
    assert [line.split("process 3: ")[1] for line in log.text().splitlines()] == ["first", "second"]
    (tmp_path / "logs/process-0004.log").mkdir()
    with pytest.raises(DiskFailed, match="process-0004.log cannot be written: Is a directory; see to its file system"):
        Log(tmp_path, 4)


def test_a_full_disk_ends_no_run_for_the_sake_of_its_log(disk, capsys):
    log = Log(disk.path, 0)
    disk.fill()
    with logs.screen(True), log.warnings():
        for _ in range(100):
            log.say("x" * 4096)
            logging.getLogger("some.library").warning("y" * 4096)
    assert capsys.readouterr().err == ""


def test_the_verdict_is_the_last_line_of_a_log(tmp_path):
    """Process 0 lives on for a second, to tell the others, and may fall over what has happened to them."""
    group, watchdog = SimpleNamespace(fail=lambda *_: None), SimpleNamespace(write_to=lambda log: None)
    session = Session(Topology(1, 0, "alone"), group, watchdog)
    session.open_log(tmp_path)
    group.on_end("the group ends: process 1 was killed")
    session.fail("connection reset by peer", 1, echo=True)
    lines = (tmp_path / "logs/process-0000.log").read_text().splitlines()
    assert lines[-1].endswith("process 0: the group ends: process 1 was killed")
