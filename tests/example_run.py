"""What a run directory holds after 30 steps, and changes to it, for the tests of `nivp status`."""

import json
import time

from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import Lines

SUMMARY = {
    "status": "running",
    "message": "",
    "phase": "evolve",
    "problem": "heat",
    "t": 0.1,
    "t_end": 0.25,
    "errors": [{"t": 0.0, "relative_l2": 1.25e-4}],
    "steps": 30,
    "transitions": 47,
    "refits": 1,
    "cg_iterations": 4000,
    "wall_seconds": 3720.0,
}


def write(directory, **changes):
    run_directory.write_summary(directory, SUMMARY | changes)


def event(directory, kind, message, step=30):
    Lines(directory / "events.jsonl").append(
        {"step": step, "t": 0.1, "transitions": 47, "kind": kind, "message": message}
    )


def beat(directory, host="node3", age=5.0, job=None):
    content = {"host": host, "pid": 9, "job": job, "time": time.time() - age}
    (directory / ".alive").write_text(json.dumps(content))
