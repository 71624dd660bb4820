"""Which process is the cause of an end, from invented reports."""

import pytest

from nivp_dist.cluster.diagnosis import Failure, first_failure, silent_processes, stuck_processes

LOST = Failure("connection reset", 1, True, 1, "node1")
BAD = Failure("no such file", 2, False, 2, "node2")


@pytest.mark.parametrize(
    "failures, expected",
    [
        ([LOST], ("process 1 on node1: connection reset", 1)),
        ([LOST, BAD], ("process 2 on node2: no such file", 2)),
        ([BAD, BAD._replace(process=0, host="node0")], ("no such file", 2)),  # all have it in common
    ],
)
def test_the_cause_is_the_first_failure_that_is_no_consequence(failures, expected):
    assert first_failure(failures) == expected


def test_the_process_that_is_behind_the_others_is_stuck():
    positions = {0: ((7, "save"), "node0"), 1: ((6, "step"), "node1"), 2: ((7, "save"), "node2")}
    expected = "process 1 on node1 stuck in 'step' while the others wait in 'save' for more than 60 s: "
    assert stuck_processes(positions, 60.0).startswith(expected)
    assert stuck_processes({0: positions[0], 2: positions[2]}, 60.0).startswith("all processes are stuck in 'save' ")


def test_processes_that_do_not_answer_are_named():
    expected = "process 1 on node1, process 2 on node2 did not answer after more than 60 s in 'save': it is suspended"
    assert silent_processes({1: "node1", 2: "node2"}, "save", 60.0).startswith(expected)
