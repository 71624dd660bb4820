import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nivp_dist
from nivp_dist.report import tables

SUMMARY = {
    "status": "running",
    "message": "",
    "phase": "evolve",
    "problem": "heat",
    "t": 0.0,
    "t_end": 0.25,
    "errors": [{"t": 0.0, "relative_l2": 1.25e-4}],
    "steps": 30,
    "cg_iterations": 4000,
    "wall_seconds": 3720.0,
}
LAST = {"step": 34, "t": 0.125, "h": 0.00371, "residual": 1e-4, "residual_fresh": 2e-4, "cg_iterations": 45}
EVENTS = [
    {"step": 0, "t": 0.0, "kind": "fit", "message": "fitted"},
    {"step": 20, "t": 0.1, "kind": "refit", "message": "CG grew"},
]

STATUS = """\
status                    running
problem                   heat
phase                     evolve
t                         0.125
t_end                     0.25
step size h               3.71e-03
residual                  1.00e-04
residual, fresh points    2.00e-04
CG iterations, last step  45
accepted steps            30
wall time                 1 h 02 min
error at t = 0            1.25e-04
fit                       step 0: fitted
refit                     step 20: CG grew"""


def test_status_of_a_run_in_progress_to_the_letter():
    assert "\n".join(tables.status_lines(SUMMARY, LAST, EVENTS)) == STATUS


def test_status_of_a_run_that_has_written_nothing_yet():
    assert tables.status_lines(None, None, []) == ["status  not started"]


def test_status_shows_the_message_of_a_failure_and_no_phase_of_a_finished_run():
    lines = tables.status_lines({"status": "failed", "message": "step too small"}, {}, [])
    assert lines == ["status  failed: step too small"]
    finished = tables.status_lines(SUMMARY | {"status": "finished"}, None, [])
    assert not any(line.startswith("phase") for line in finished)


def test_the_runs_total_of_cg_iterations_is_not_shown_as_that_of_a_step():
    assert not any("CG" in line for line in tables.status_lines(SUMMARY, None, []))


def without_jax(code: str) -> subprocess.CompletedProcess:
    """Run code in a Python where jax and what needs it cannot be imported, nor matplotlib."""
    banned = "import sys\nfor name in ('jax', 'jaxlib', 'flax', 'orbax', 'matplotlib'): sys.modules[name] = None\n"
    environment = os.environ | {"PYTHONPATH": str(Path(nivp_dist.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", banned + code], capture_output=True, text=True, env=environment)


def test_status_lines_need_no_jax():
    call = f"status_lines({SUMMARY!r}, {LAST!r}, {EVENTS!r})"
    done = without_jax(f"from nivp_dist.report.tables import status_lines\nprint('\\n'.join({call}))")
    assert done.stderr == "" and done.stdout == STATUS + "\n"


def test_nivp_status_needs_no_jax(tmp_path):
    (tmp_path / "config.toml").write_text('[problem]\nname = "heat"\n')
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LAST) + "\n")
    done = without_jax(f"from nivp_dist.cli import main\nsys.exit(main(['status', {str(tmp_path)!r}]))")
    assert done.returncode == 0, done.stderr
    assert "heat" in done.stdout and "0.125" in done.stdout


def test_the_guard_of_these_tests_bites():
    assert "ModuleNotFoundError" in without_jax("import nivp_dist.api").stderr


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0 s"), (41.6, "42 s"), (59.7, "1 min 00 s"), (133, "2 min 13 s"), (11100, "3 h 05 min"), (187200, "2 d 4 h")]
    + [(None, "-"), (float("inf"), "-")],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(
    "value, text",
    [(0.0, "0"), (0.3125, "0.3125"), (1 / 3, "0.3333"), (1.2e-7, "1.20e-07"), (-5e5, "-5.00e+05")]
    + [(34, "34"), (None, "-"), (float("nan"), "-"), ("heat", "heat")],
)
def test_numbers(value, text):
    assert tables.number(value) == text


def test_outputs_without_an_error_are_dashes_beside_those_with_one():
    summary = {"errors": [{"t": 0.0, "relative_l2": 1e-3}, {"t": 10.5, "relative_l2": None}]}
    assert tables.error_lines(summary)[1:] == ["     t  relative L2", "     0     1.00e-03", "  10.5            -"]


def test_a_run_that_ended_before_its_first_output():
    assert tables.error_lines({"errors": []})[-1] == "  (no output yet)"
