"""Which process is the cause of an end, from invented reports; and which peers are silent for too long."""

import pytest

from nivp_dist.cluster import liveness
from nivp_dist.cluster.connection import Peer
from nivp_dist.cluster.diagnosis import Failure, first_failure, stuck_processes
from nivp_dist.cluster.liveness import Liveness

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


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


def test_a_silent_peer_is_found_unless_this_process_was_suspended(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(liveness, "time", clock)
    alive = Liveness(30.0)
    peers = {1: Peer(None, "node1", 0.0), 2: Peer(None, "node2", 0.0)}
    for clock.now in range(1, 31):
        peers[1].last_message = clock.now
        assert alive.silent(peers) == []
    clock.now = 31.0
    assert alive.silent(peers) == [2]
    peers[2].last_message = 31.0
    clock.now = 500.0  # nothing ran for minutes
    assert alive.silent(peers) == []


def test_signs_of_life_are_due_at_regular_intervals(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(liveness, "time", clock)
    alive, beats = Liveness(30.0), 0
    for tick in range(1, 301):
        clock.now = tick / 10
        beats += alive.beat_is_due()
    assert 13 <= beats <= 15
