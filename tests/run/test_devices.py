"""One run on one device and on four: the same solution, to the rounding of its sums."""

import numpy as np
import pytest
from whole_runs import assert_close

WELL_CONDITIONED = 1e-9  # of theta, at mu = 1e-6
SHORT = ("--integrator.t_end", "0.1")


def close(first, second):
    assert_close(first, second, t=0.1)


@pytest.fixture(scope="module")
def alone(runs):
    return runs.run(integrator__t_end=0.1)


@pytest.mark.devices
def test_all_devices_of_this_process(runs, alone):
    close(runs.run(devices=0, integrator__t_end=0.1), alone)


@pytest.mark.devices
@pytest.mark.parametrize(
    "method, sharded", [("primal", False), ("dual", False), ("pcg", False), ("pcg", True), ("dual_pcg", False)]
)
def test_all_devices_with_every_solver(runs, method, sharded):
    settings = {"solver__method": method, "solver__mu": 1e-6, "integrator__t_end": 0.02, "output__times": []}
    one = runs.run(devices=1, **settings)
    all_ = runs.run(devices=0, solver__shard_vectors=sharded, **settings)
    a, b = one.theta(0.02), all_.theta(0.02)
    # CG stops at 1e-8 of the right-hand side, after as many iterations as rounding has it.
    assert np.linalg.norm(a - b) < (1e-5 if "pcg" in method else WELL_CONDITIONED) * np.linalg.norm(b)


def test_from_four_devices_to_one(runs, alone, until):
    ran = runs.Ran(runs.new())
    arguments = ("run", "modes.toml", "--output", ran.directory, "--checkpoint.every_steps", "1", *SHORT)
    process = runs.process(*arguments, "--devices", "4", devices=4)
    until(lambda: len(ran.metrics) >= 2, process)
    process.kill()
    process.communicate()
    close(runs.resume(ran, devices=1), alone)
    assert ran.summary["devices"] == 1
    assert [line["step"] for line in ran.metrics] == list(range(1, len(alone.metrics) + 1))


def test_bad_input_of_two_processes(runs):
    directory = runs.new()
    code, _, err = runs.call("run", "modes.toml", "--output", directory, "--devices", "1", launcher=2)
    assert code == 2 and "devices = 1 of 2: with several processes all must be used; set 0" in err
    assert "Traceback" not in err and not directory.exists()
