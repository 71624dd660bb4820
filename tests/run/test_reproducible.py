"""cluster.reproducible: the bits of a run do not depend on its devices, its processes, or where it was resumed."""

import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.errors import InputError
from nivp_dist.run import environment

SETTINGS = {
    "cluster__reproducible": True,
    "integrator__t_end": 0.03,
    "output__times": [],
    "checkpoint__every_steps": 1,
    "solver__method": "pcg",
    "solver__mu": 1e-7,
    "solver__rank": 16,
    "fit__iterations": 4,
    "fit__on_miss": "continue",
}


@pytest.mark.devices
def test_a_run_that_moves_from_four_devices_to_two_processes_has_the_bits_of_one_device(runs, crash):
    alone = runs.run(devices=1, **SETTINGS)
    moved = runs.begin(crash, ("step", 2), devices=4, **SETTINGS)
    code, _, err = runs.call("resume", moved.directory, "--devices", "0", launcher=2)
    assert code == 0, err
    assert (moved.summary["devices"], moved.summary["processes"]) == (2, 2) and len(moved.metrics) > 2
    mine, theirs = moved.snapshots(), alone.snapshots()
    assert mine.keys() == theirs.keys() == {0.0, 0.03}
    for t in mine:
        assert not [name for name in mine[t] if mine[t][name].tobytes() != theirs[t][name].tobytes()]
    assert moved.metrics == alone.metrics and moved.summary["errors"] == alone.summary["errors"]


@pytest.mark.devices
def test_devices_are_no_part_of_the_environment():
    one, two = (environment.describe(make_mesh(devices, ordered=True)) for devices in (1, 2))
    assert one == two and one != environment.describe(make_mesh(1))


@pytest.mark.parametrize(
    "setting, text",
    [
        ({"solver__method": "dual_pcg"}, "solver.method = 'dual_pcg'"),
        ({"solver__shard_vectors": True}, "shard_vectors"),
        ({"integrator__method": "bdf"}, "implicit steps with solver.method = 'pcg'"),
    ],
)
def test_what_has_no_fixed_order_is_refused(runs, setting, text):
    with pytest.raises(
        InputError, match=f"cluster.reproducible = true does not support .*{text}.*: leave one of them out"
    ):
        runs.config(**SETTINGS | setting)
