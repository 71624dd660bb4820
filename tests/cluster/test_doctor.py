"""Each problem that nivp doctor finds, from invented facts; and two real processes."""

import copy
import re
from pathlib import Path

import pytest
from process_groups import NIVP, local, mpirun

from nivp_dist.cluster import doctor, findings

FACT = {
    "index": 0,
    "processes": 2,
    "launcher": "srun",
    "control": "MPI",
    "mpi": 2,
    "host": "node1",
    "pid": 7,
    "python": "3.12.1",
    "versions": {"jax": "0.11.2", "numpy": "2.4.0"},
    "common": {"host": "node1", "processor": "A", "jax": "0.11.2", "numpy": "2.4.0", "devices": "1"},
    "platform": "gpu",
    "devices": [("NVIDIA H200", 150 * 2**30, "0")],
    "gpus_given": "2",
    "cpu_on_purpose": False,
    "slow_float64": "",
    "visible": "0,1",
    "cpus": 16,
    "memory": 2**40,
    "open_files": 65536,
    "latency": 0.001,
    "clock": 1000.0,
    "files": {"path": "/work", "free": 1e12, "write": 0.01, "locks": True},
    "shared": True,
}
SECOND = FACT | {"index": 1, "pid": 8, "devices": [("NVIDIA H200", 150 * 2**30, "1")]}


SUMS = [{"numbers": 1_000_000, "devices": 2, "seconds": 0.002, "correct": True}]


def found(change_first=None, change_second=None, change_sum=None):
    """(problems, warnings)"""
    facts = copy.deepcopy([FACT, SECOND])
    facts[0] |= change_first or {}
    facts[1] |= change_second or {}
    arguments = facts, [SUMS[0] | (change_sum or {})], Path("/work")
    return findings.problems(*arguments), findings.warnings(*arguments)


def test_healthy_processes_give_no_line():
    assert found() == ([], [])
    assert found({}, {"host": "node2", "devices": FACT["devices"]}) == ([], [])
    assert findings.problems([FACT], [], Path("/work")) == []


@pytest.mark.parametrize(
    "first, second, line",
    [
        (
            {},
            {"common": {"host": "node2", "jax": "0.10.2", "numpy": "2.4.0", "devices": "1"}},
            "the hosts differ in jax: process 0 on node1 has 0.11.2, process 1 on node2 has 0.10.2: install the same",
        ),
        (
            {},
            {"platform": "cpu", "devices": [("cpu", 0, "")]},
            "process 1 on node1 was given GPUs (2) and jax sees none",
        ),
        ({}, {"devices": FACT["devices"]}, "processes 0, 1 hold the same GPU 0 on node1"),
        ({"open_files": 100}, {}, "process 0 may open 100 files, 260 are needed"),
        ({}, {"files": {"error": "Read-only file system (x)"}}, "process 1 on node1 cannot write /work: Read-only"),
        ({}, {"shared": False}, "process 1 on node1 does not see what process 0 writes to /work"),
        ({"files": FACT["files"] | {"free": 1e8}}, {}, "/work: 0.10 GB free"),
    ],
)
def test_each_problem_is_named_with_a_remedy(first, second, line):
    problems, _ = found(first, second)
    assert any(problem.startswith(line) for problem in problems), problems
    assert all(re.search(r": \S", problem) for problem in problems)


def test_a_wrong_all_reduce_is_a_problem():
    (line,) = found({}, {}, {"correct": False})[0]
    assert line.startswith("an all-reduce of 1,000,000 numbers is wrong: check the drivers and the interconnect; ")


@pytest.mark.parametrize(
    "first, second, line",
    [
        ({"mpi": 1}, {}, "srun offers MPI to 2 processes, and mpi4py counts 1 (it is missing, or built for another"),
        ({"platform": "cpu", "cpu_on_purpose": True, "cpus": 1}, {}, "2 processes share 1 CPUs on node1"),
        ({"slow_float64": "NVIDIA L4: float64 is slow"}, {}, "NVIDIA L4: float64 is slow"),
        ({"files": FACT["files"] | {"write": 4.0}}, {}, "/work: 1 MB takes 4.0 s from node1"),
        ({}, {"latency": 2.5}, "process 1 on node1 needs 2.5 s to reach process 0"),
        ({}, {"clock": 1100.0}, "the clock of node1 is +100 s off"),
    ],
)
def test_what_only_slows_a_run_down_is_a_warning(first, second, line):
    _, warnings = found(first, second)
    assert len(warnings) == 1 and warnings[0].startswith(line) and re.search(r": \S", warnings[0])


def test_a_slow_interconnect_is_a_warning():
    (line,) = found({}, {}, {"seconds": 0.5})[1]
    assert line.startswith("an all-reduce of 1,000,000 numbers takes 0.50 s: ")


@pytest.mark.parametrize(
    "words, control", [(local(2), "the coordination service"), (mpirun(2), "MPI")], ids=["local", "mpi"]
)
def test_two_real_processes_have_no_problem(processes, words, control):
    """A proxy is set that does not exist: gRPC would look for the coordinator through it."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    process = processes.launch(words, "doctor", environment=proxies)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert f"decisions over {control}" in out and out.rstrip().endswith("no problem found")
    rows = [line.split() for line in out.splitlines() if re.match(r"  [01]  ", line)]
    assert [row[0] for row in rows] == ["0", "1"] and rows[0][2] != rows[1][2]
    times = [float(ms) for ms in re.findall(r"float64: ([\d.]+) ms over 2 devices", out)]
    assert len(times) == len(doctor.SIZES) and min(times) > 0


def test_a_directory_that_cannot_be_written_is_a_problem(processes):
    process = processes.launch(local(2), "doctor", "--directory", "/proc")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "problem: process 1 on" in out and "cannot write /proc" in out


def test_processes_that_cannot_meet_are_a_problem(processes):
    environment = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
    process = processes.launch(list(NIVP), "doctor", environment=environment)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1 and err.count("\n") == 1
    assert err.startswith("nivp: problem: mpirun started 2 processes, and mpi4py sees 1: it was built for another MPI")
