"""Whole runs in several processes."""

import pytest
from process_groups import Processes, local
from whole_runs import assert_same, wait_until


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    return Processes(tmp_path_factory.mktemp("processes"), tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def undisturbed(processes):
    """Two processes, never stopped: what all others are held against."""
    ran = processes.Ran(processes.new())
    processes.finish(local(2), "run", "modes.toml", "--output", ran.directory, "--devices", "0")
    return ran


@pytest.fixture(scope="session")
def until():
    return wait_until


@pytest.fixture(scope="session")
def same():
    return assert_same
