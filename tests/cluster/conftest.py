"""Whole runs in several processes, shared by the tests of this folder."""

import pytest
from process_groups import NIVP, SHORT, Processes, local
from whole_runs import assert_same, wait_until


@pytest.fixture(scope="session")
def processes(tmp_path_factory, compiled):
    return Processes(tmp_path_factory.mktemp("processes"), compiled)


@pytest.fixture(scope="session")
def undisturbed(processes):
    """A run in two processes that is never stopped: the others are compared with it."""
    ran = processes.Ran(processes.new())
    processes.finish(local(2), "run", "modes.toml", "--output", ran.directory, "--devices", "0")
    return ran


@pytest.fixture(scope="session")
def short(processes):
    """A function that makes a shorter run by any launcher: (words, devices of a process, further keywords) -> run."""

    def short(words, devices=1, **keywords):
        ran = processes.Ran(processes.new())
        processes.finish(words, "run", "modes.toml", "--output", ran.directory, *SHORT, devices=devices, **keywords)
        assert ran.summary["status"] == "finished"
        return ran

    return short


@pytest.fixture(scope="session")
def alone(short):
    """The shorter run in one process on one device: several processes must agree with it."""
    return short(list(NIVP))


@pytest.fixture(scope="session")
def until():
    return wait_until


@pytest.fixture(scope="session")
def same():
    return assert_same
