"""A configuration for clusters in two processes: its network with all 103,462 parameters, on a few points."""

import sys

import numpy as np
import pytest
from process_groups import local

MOST_MEMORY = 8 * 2**30  # bytes that each process may take
# With few points the linear systems are small; a coarse tolerance and a large mu keep the iterations few. Steps of one
# size make the two runs take the same ones.
CUT = {
    "sampling.points": 4000,
    "sampling.oversampling": 2,
    "sampling.path_steps": 4,
    "sampling.adapt_points": "false",
    "solver.method": "dual_pcg",
    "solver.mu": 1e-4,
    "solver.rank": 64,
    "solver.rtol": 1e-3,
    "solver.max_iterations": 20,
    "fit.points": 1000,
    "fit.iterations": 1,
    "fit.on_miss": "continue",
    "integrator.method": "heun",
    "integrator.rtol": 1.0,
    "integrator.max_step": 1e-4,
    "output.evaluation_points": 2000,
    "output.spectrum_every": 0,
    "output.plots": "false",
}
# The command line, with the most memory that the process has taken so far as lines of a file.
MEASURED = """
import os
import re
import sys
import threading
import time

from nivp_dist.cli import main


def watch():
    while True:
        with open("/proc/self/status") as status:
            peak = re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]
        with open(f"peak-{os.environ['NIVP_PROCESS_ID']}", "a") as file:
            file.write(peak + "\\n")
        time.sleep(0.1)


threading.Thread(target=watch, daemon=True).start()
sys.exit(main())
"""


@pytest.fixture
def measured(processes):
    """A function that runs `nivp WORDS` in two processes, of which MEASURED measures the memory."""
    (processes.folder / "measured.py").write_text(MEASURED)

    def measured(*words):
        processes.finish([*local(2), "--", sys.executable, "measured.py"], *words, seconds=600)

    return measured


def test_first_steps_a_save_and_a_resume_with_a_hundred_thousand_parameters(processes, measured):
    """Within 8 GiB for each process, and with the bits of a run that was not stopped."""
    whole, stopped = (processes.Ran(processes.new()) for _ in range(2))
    options = [word for key, value in CUT.items() for word in (f"--{key}", str(value))]
    start = ("run", "fokker_planck_production_20d", *options, "--output")
    measured(*start, whole.directory, "--output.times", "[2e-4]", "--integrator.t_end", "4e-4")
    measured(*start, stopped.directory, "--output.times", "[]", "--integrator.t_end", "2e-4")
    assert len(stopped.metrics) == 2
    measured("resume", stopped.directory, "--integrator.t_end", "4e-4")
    assert whole.summary["parameters"] == len(whole.theta(4e-4)) == 103_462
    assert stopped.metrics == whole.metrics and len(whole.metrics) == 4
    assert np.array_equal(stopped.theta(4e-4), whole.theta(4e-4))
    for peaks in (processes.folder / "peak-0", processes.folder / "peak-1"):
        assert max(map(int, peaks.read_text().split())) * 1024 < MOST_MEMORY
