"""Hosts that differ are found before anything is compiled, and named with the mend."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest
from disks import require
from process_groups import NIVP, SHORT, local, mpirun

from nivp_dist.cluster import agreement, host

FACTS = {
    "host": "node0",
    "processor": "Xeon",
    "jax": "0.11.2",
    "Python": "3.12.1",
    "XLA_FLAGS": "none",
    "CPU cores": "16",
    "CPU features": "avx avx2 avx512f fma",
}


def differences(*changes):
    return agreement.differences(
        [FACTS, *({**FACTS, "host": f"node{i}"} | change for i, change in enumerate(changes, 1))]
    )


def test_equal_hosts_have_no_differences():
    assert differences({}, {"processor": "another name"}) == []


@pytest.mark.parametrize(
    "change, line",
    [
        ({"jax": "0.10.2"}, "jax: process 0 on node0 has 0.11.2, process 1 on node1 has 0.10.2: install the same"),
        (
            {"Python": "3.11.7"},
            "Python: process 0 on node0 has 3.12.1, process 1 on node1 has 3.11.7: install the same",
        ),
        ({"flax": "0.12"}, "flax: process 0 on node0 has none, process 1 on node1 has 0.12: install the same"),
        ({"XLA_FLAGS": "--a"}, "XLA_FLAGS: process 0 on node0 has none, process 1 on node1 has --a: set the same"),
        ({"CPU cores": "8"}, "CPU cores: process 0 on node0 has 16, process 1 on node1 has 8: give every process the"),
        (
            {"CPU features": "avx avx2 fma sse4a", "processor": "EPYC"},
            "CPU features: process 0 on node0 has those of Xeon, process 1 on node1 has not avx512f but also sse4a "
            "(EPYC): take hosts of one kind (Slurm: --constraint), or set XLA_FLAGS=--xla_cpu_max_isa=AVX2",
        ),
    ],
)
def test_each_difference_is_named_with_its_hosts_and_the_mend(change, line):
    (found,) = differences(change, {})
    assert found.startswith(line)


def test_of_many_processes_the_first_are_named():
    (line,) = differences(*[{"jax": "0.10.2"}] * 9)
    assert "process 4 on node4 has 0.10.2, and 5 more differ: " in line and "node5" not in line


CPUINFO = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu vme sse4_2 avx avx2 fma avx512f pku md_clear
bugs\t\t: spectre_v1

processor\t: 1
flags\t\t: other
"""


def test_only_features_for_which_xla_may_compile_sums_count(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(host, "PROCESSORS", tmp_path / "cpuinfo")
    assert host.model() == "Some CPU"
    assert host.instruction_sets({}) == ["avx", "avx2", "avx512f", "fma", "fpu", "sse4_2"]
    assert host.instruction_sets({"XLA_FLAGS": "--x --xla_cpu_max_isa=avx2"}) == ["avx2"]
    without = {"XLA_FLAGS": "--xla_cpu_max_isa=AMX"}  # this processor does not have it
    assert host.instruction_sets(without) == host.instruction_sets({})


def test_with_gpus_the_processor_does_not_count(monkeypatch):
    assert {"CPU cores", "CPU features", "jax", "Python", "devices", "XLA_FLAGS"} <= agreement.facts().keys()
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert not [name for name in agreement.facts() if name.startswith("CPU")]


def refusal(processes, words, *arguments):
    """The last line of a start that is refused. Nothing was compiled, and no run directory was made."""
    directory = processes.new()
    _, err = processes.finish(words, *arguments, "--output", directory, *SHORT, code=2, seconds=60)
    assert not directory.exists() and "Traceback" not in err
    return err.splitlines()[-1]


@pytest.mark.parametrize("words", [local(2), mpirun(2, [])], ids=["local", "mpirun"])
def test_processes_with_other_options_of_xla_are_refused(processes, words):
    own = 'XLA_FLAGS="$XLA_FLAGS --xla_cpu_max_isa=$([ ${NIVP_PROCESS_ID:-$PMI_RANK} = 0 ] && echo AVX2 || echo AVX)"'
    words = [*words, *(["--"] if "mpirun" not in words else []), "sh", "-c", f'{own} exec {" ".join(NIVP)} "$@"', "sh"]
    line = refusal(processes, words, "run", "modes.toml")
    name, *hosts = re.findall(r"differ in (\w+)|on (\S+) has --xla_cpu_max_isa=(\w+)", line)
    assert name[0] == "XLA_FLAGS" and [found[1:] for found in hosts] == [
        (socket.gethostname(), isa) for isa in ("AVX2", "AVX")
    ]
    assert ": set the same on every host" in line


def test_processes_with_other_configurations_are_refused_with_the_key(processes):
    words = [
        *local(2),
        "--",
        "sh",
        "-c",
        f'exec {" ".join(NIVP)} "$@" --integrator.rtol 0.00$((1 + NIVP_PROCESS_ID))',
        "sh",
    ]
    assert refusal(processes, words, "run", "modes.toml") == (
        f"nivp: process 1 on {socket.gethostname()} has another configuration (integrator.rtol is 0.002, on process 0 "
        "0.001): start all processes with the same arguments, and with files that all hosts share"
    )


def test_a_host_with_another_processor_is_refused(processes, tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        require("another /proc/cpuinfo for a process needs Linux and root: run the tests as root")
    text = Path("/proc/cpuinfo").read_text()
    (tmp_path / "cpuinfo").write_text(re.sub(r"\bavx\w*", "", re.sub(r"model name.*", "model name : Old CPU", text)))
    script = (
        f'[ "$NIVP_PROCESS_ID" = 0 ] && exec {" ".join(NIVP)} "$@"; '
        f"exec unshare --mount sh -c 'mount --bind {tmp_path}/cpuinfo /proc/cpuinfo && exec {' '.join(NIVP)} \"$@\"' "
        'sh "$@"'
    )
    line = refusal(processes, [*local(2), "--", "sh", "-c", script, "sh"], "run", "modes.toml")
    assert line.startswith("nivp: the hosts differ in CPU features: process 0 on ") and "has not avx" in line
    assert "(Old CPU): take hosts of one kind (Slurm: --constraint), or set XLA_FLAGS=--xla_cpu_max_isa=AVX2" in line
