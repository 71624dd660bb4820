"""cluster.reproducible: the bits of a run do not depend on its devices, its processes, or where it was resumed."""

import pytest

SETTINGS = {
    "cluster__reproducible": True,
    "integrator__t_end": 0.05,
    "output__times": [],
    "checkpoint__every_steps": 1,
    "solver__method": "pcg",
    "solver__mu": 1e-7,
    "fit__iterations": 6,
}


@pytest.fixture(scope="module")
def alone(runs):
    return runs.run(**SETTINGS)


def same_bits(ran, other):
    mine, theirs = ran.snapshots(), other.snapshots()
    assert mine.keys() == theirs.keys() == {0.0, 0.05}
    for t in mine:
        different = [name for name in mine[t] if mine[t][name].tobytes() != theirs[t][name].tobytes()]
        assert not different, (t, different)
    assert ran.metrics == other.metrics
    assert ran.summary["errors"] == other.summary["errors"]


@pytest.mark.devices
def test_a_run_that_moves_from_four_devices_to_two_has_the_bits_of_one(runs, alone, crash):
    ran = runs.begin(crash, ("step", 2), devices=4, **SETTINGS)
    same_bits(runs.resume(ran, devices=2), alone)
    assert ran.summary["devices"] == 2 and len(ran.metrics) > 3
