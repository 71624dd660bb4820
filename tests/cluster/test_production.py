"""A configuration for clusters in two processes: its network with all 103,462 parameters, on a few points."""

import shutil
import sys

import pytest
from process_groups import local

MOST_MEMORY = 8 * 2**30  # bytes that each process may take
# With few points the linear systems are small; a coarse tolerance and a large mu keep the iterations few.
CUT = {
    "sampling.points": 1000,
    "sampling.oversampling": 2,
    "sampling.path_steps": 4,
    "sampling.adapt_points": "false",
    "solver.method": "dual_pcg",
    "solver.mu": 1e-3,
    "solver.rank": 64,
    "solver.rtol": 1e-3,
    "solver.max_iterations": 100,
    "fit.points": 500,
    "fit.iterations": 1,
    "fit.on_miss": "continue",
    "integrator.method": "heun",
    "integrator.rtol": 1.0,
    "integrator.max_step": 1e-4,
    "integrator.t_end": 2e-4,
    "output.times": "[]",
    "output.evaluation_points": 2000,
    "output.spectrum_every": 0,
    "output.plots": "false",
    "checkpoint.every_steps": 1,
    "checkpoint.keep": 20,
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


@pytest.mark.timeout(900)  # 30 s of two idle cores, and 270 s were seen on two that twenty processes shared
def test_first_steps_a_save_and_a_resume_with_a_hundred_thousand_parameters(processes, measured, same):
    """Within 8 GiB for each process. A resume from the checkpoint after the first step gives the same bits."""
    whole = processes.Ran(processes.new())
    options = [word for key, value in CUT.items() for word in (f"--{key}", str(value))]
    measured("run", "fokker_planck_production_20d", *options, "--output", whole.directory)
    assert whole.summary["parameters"] == len(whole.theta(2e-4)) == 103_462
    assert [line["step"] for line in whole.metrics] == [1, 2]
    left = processes.Ran(shutil.copytree(whole.directory, processes.new()))
    saved = sorted((left.directory / "checkpoints").iterdir(), key=lambda entry: int(entry.name))
    for later in saved[-2:]:  # after the second step, and at the end
        shutil.rmtree(later)
    measured("resume", left.directory)
    (resumed,) = (message for kind, message in left.events if kind == "resume")
    assert resumed.startswith("resumed at t = 0.0001, step 1;")  # and the output at the end is computed again
    same(left, whole)
    for peaks in (processes.folder / "peak-0", processes.folder / "peak-1"):
        assert max(map(int, peaks.read_text().split())) * 1024 < MOST_MEMORY
