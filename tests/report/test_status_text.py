"""The status of a run as text, and `nivp status` without jax."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from example_run import SUMMARY, event, write

import nivp_dist
from nivp_dist.report.status import read_status
from nivp_dist.report.status_text import status_lines
from nivp_dist.storage.metrics import Lines

FACTS = {
    "status": "running",
    "summary": SUMMARY | {"parameters": 929},
    "last_step": {
        "step": 34,
        "t": 0.125,
        "h": 0.00371,
        "residual": 1e-4,
        "residual_fresh": 2e-4,
        "cg_iterations": 45,
        "h_rho": 3.41,
        "h_rho_limit": 3.762,
        "theta_step": 0.0123,
        "theta_norm": 19.3,
        "wall_seconds": 3900.0,
    },
    "last_spectrum": {
        "step": 30,
        "effective_dimension": 523.04,
        "effective_dimension_error": 14.0,
        "condition": 5.4e9,
        "condition_preconditioned": 203.1,
        "cg_iterations_bound": 112,
        "rhs_below_mu": 1.2e-15,
        "small_share_head": 0.02,
        "small_share_hidden_00": 0.51,
        "small_share_hidden_01": 0.3,
        "small_share_hidden_02": 0.17,
        "small_share_error": 0.03,
        "spectrum_seconds": 0.534,
    },
    "t": 0.125,
    "rate_per_hour": 0.04,
    "seconds_left": 11250.0,
    "ends_at": 1748957100.0,
    "checkpoint": {"transitions": 47, "step": 30, "t": 0.1, "age_seconds": 133.0},
    "resumes": 2,
    "refits": 1,
    "job": "77",
    "requeues": 1,
    "heartbeat": {"holder": "process 123 on node3 (job 77)", "age_seconds": 8.0},
    "events": [{"step": 20, "t": 0.1, "kind": "refit", "message": "CG grew"}],
    "warnings": [{"step": 11, "t": 0.05, "kind": "warning", "message": "CG hit its limit"}],
}

TEXT = """\
status                    running
where                     process 123 on node3 (job 77), last sign of life 8 s ago
problem                   heat
phase                     evolve
t                         0.125 of 0.25
speed                     t advances by 0.04 in an hour
left                      3 h 07 min, until 2025-06-03 13:25
checkpoint                number 47 (step 30, t = 0.1), 2 min 13 s ago
resumed                   2 times, from a checkpoint
refits                    1 (a fresh network fitted to the solution reached)
job                       77, queued again 1 time
step size h               3.71e-03
h rho, last step          3.41, stable up to 3.762
motion of theta in it     0.0123, of a norm of 19.3
residual                  1.00e-04
residual, fresh points    2.00e-04
CG iterations, last step  45
effective dimension       523 +- 14 of 929
condition                 5.40e+09, preconditioned 2.03e+02
bound of CG iterations    112 at the start of a step
share of F below mu       1.20e-15
layers below mu           hidden_00 51 %, hidden_01 30 %, hidden_02 17 %
spectrum measured         at step 30, in 0.534 s
accepted steps            34
parameters                929
wall time                 1 h 05 min
error at t = 0            1.25e-04
refit                     step 20: CG grew
warning                   step 11: CG hit its limit"""


def test_the_text_of_a_run_in_progress(utc):
    assert "\n".join(status_lines(FACTS)) == TEXT


def test_numbers_of_callbacks_are_shown_by_their_names():
    facts = FACTS | {"last_step": FACTS["last_step"] | {"callback_peak": 0.25, "callback_lost": None}}
    lines = [line for line in status_lines(facts) if "by a callback" in line]
    assert [line.split() for line in lines] == [["peak,", "by", "a", "callback", "0.25"]]


def test_a_failed_run_shows_its_message_and_a_finished_run_no_phase(directory):
    write(directory, status="failed", message="step too small")
    assert status_lines(read_status(directory))[0].endswith("  failed: step too small")
    write(directory, status="finished")
    assert not any(line.startswith(("phase", "left")) for line in status_lines(read_status(directory)))


# Without jax ------------------------------------------------------------------------------------


def without_jax(code: str) -> subprocess.CompletedProcess:
    """Run code in a Python where jax and what needs it cannot be imported, nor matplotlib."""
    banned = "import sys\nfor name in ('jax', 'jaxlib', 'flax', 'orbax', 'matplotlib'): sys.modules[name] = None\n"
    environment = os.environ | {"PYTHONPATH": str(Path(nivp_dist.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", banned + code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("options", [["--watch"], ["--watch", "0.5"], ["--json"], []])
def test_nivp_status_needs_no_jax(directory, options):
    done = without_jax(f"from nivp_dist.cli import main\nsys.exit(main(['status', *{options!r}, {str(directory)!r}]))")
    assert done.returncode == 0, done.stderr
    assert "interrupted" in done.stdout and "0.165" in done.stdout


def test_without_jax_the_numerical_modules_cannot_be_imported():
    assert "ModuleNotFoundError" in without_jax("import nivp_dist.api").stderr


def test_metrics_and_events_are_standard_json(directory):
    event(directory, "warning", "CG hit its limit")
    Lines(directory / "metrics.jsonl").append({"step": 31, "residual": float("nan")})
    code = (
        "import json, sys\n"
        "refuse = lambda name: sys.exit(name)\n"
        f"for name in ('metrics', 'events'):\n"
        f"    for line in open({str(directory)!r} + f'/{{name}}.jsonl'):\n"
        "        print(json.loads(line, parse_constant=refuse)['step'])\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [str(n) for n in range(1, 32)] + ["30"], done.stderr


def test_of_many_outputs_the_last_few_are_shown():
    errors = [{"t": float(t), "relative_l2": 1e-3, "estimate": None} for t in range(1001)]
    lines = status_lines(FACTS | {"summary": SUMMARY | {"errors": errors}})
    shown = [line.split("  ")[0] for line in lines if line.startswith("error at t = ")]
    assert shown == [f"error at t = {t}" for t in range(991, 1001)]
    (outputs,) = (line.split(maxsplit=1)[1] for line in lines if line.startswith("outputs "))
    assert outputs == "1001; the last 10 are shown here, all of them by --json"
