"""The score sheet: its rows as data, its bounds, its tables, and small rows that are run."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from whole_runs import CONFIG, PROBLEM

from nivp_dist import Box, Problem, cli
from nivp_dist.bench import accuracy, score_sheet, scores
from nivp_dist.bench.rows import ROWS, Row
from nivp_dist.errors import InputError
from nivp_dist.settings.files import read_config
from nivp_dist.storage import run_directory

# The rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_configuration_of_every_row_can_be_read(row):
    config = read_config(row.configuration, row.overrides)
    assert config.integrator.t_end == (row.t or config.integrator.t_end)
    assert config.output.evaluation_points >= 20_000
    # The printed command is that configuration.
    _, run, name, *words = shlex.split(accuracy.command(row))
    assert run == "run" and read_config(name, dict(zip((w[2:] for w in words[::2]), words[1::2]))) == config


def test_rows_have_unique_names_and_a_goal_below_the_must():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.minutes > 0
        assert row.must is None or row.goal < row.must
    assert [row.name for row in ROWS if row.goal is None] == ["wave_2d_long"]


def test_rows_with_the_same_settings_share_a_run():
    by_name = {row.name: row for row in ROWS}
    shared = {name: accuracy.run_name(row) for name, row in by_name.items() if accuracy.run_name(row) != name}
    assert shared == {"log_9d_density": "log_9d_uniform"}


def test_rows_are_selected_by_patterns_in_the_order_of_the_sheet():
    names = [row.name for row in accuracy.select(("trap_*", "heat_2d"))]
    assert names == ["heat_2d", "trap_5d", "trap_5d_long", "trap_8d", "trap_20d"]
    assert accuracy.select(()) == list(ROWS)
    with pytest.raises(InputError, match="no row 'heat2d'; did you mean heat_2d"):
        accuracy.select(("trap_5d", "heat2d"))


# Verdicts and tables ------------------------------------------------------------------------------


ROW = Row("tiny", "a tiny problem", "tiny", must=1e-2, goal=1e-3, minutes=2)


@pytest.mark.parametrize(
    "error, seconds, met",
    [(1e-3, 1, "goal"), (2e-3, 1, "must"), (1e-2, 1, "must"), (2e-2, 1, "no"), (None, 1, "no")]
    + [(1e-3, 121, "goal, late"), (2e-2, 121, "no, late")],
)
def test_a_verdict_names_the_best_bound_met_and_a_late_run(error, seconds, met):
    assert score_sheet.verdict(ROW, {"error": error, "wall_seconds": seconds}) == met


def test_a_row_without_bounds_has_no_verdict():
    row = Row("long", "a long run", "tiny", must=None, goal=None, minutes=2)
    assert score_sheet.verdict(row, {"error": 1e-3, "wall_seconds": 1}) == "-"
    assert score_sheet.verdict(row, {"error": 1e-3, "wall_seconds": 121}) == "-, late"
    unbounded = accuracy.describe(row, "somewhere") | {"error": 1e-3, "met": "-"}
    assert score_sheet.tally({"rows": [entry("a", error=5e-4), unbounded]}) == "1 of 1 must, 1 of 1 goals"


def entry(name, must=1e-2, **more):
    row = Row(name, f"problem {name}", "heat_2d", must, 1e-3, 2, t=0.5)
    entry = accuracy.describe(row, "somewhere") | {"failed": None, "wall_seconds": 75.0, "velocity_evaluations": 84}
    entry |= more
    return entry | {"met": score_sheet.verdict(row, entry)}


SHEET = {"rows": [entry("a", error=5e-4, estimate=2e-3, bound=9e-3), entry("b", None, error=4e-3, estimate=None)]}
SHEET["rows"].append(entry("c", failed="step size below its bound", velocity_evaluations=None, wall_seconds=None))


def test_the_table_for_the_screen():
    assert score_sheet.lines(SHEET) == [
        "  problem    t     error        time  evaluations  must   goal     met  estimate     bound",
        "problem a  0.5  5.00e-04  1 min 15 s           84  0.01  0.001    goal  2.00e-03  9.00e-03",
        "problem b  0.5  4.00e-03  1 min 15 s           84     -  0.001      no         -         -",
        "problem c  0.5         -           -            -  0.01  0.001  failed         -         -",
        "c failed: step size below its bound",
        "1 of 2 must, 1 of 3 goals",
    ]


@pytest.mark.parametrize(
    "errors, median, worst, met",
    [
        ((5e-4, 2e-2, 7e-4), 7e-4, 2e-2, "no"),
        ((5e-4, 9e-3, 7e-4), 7e-4, 9e-3, "goal"),
        ((2e-3, 9e-3, 7e-4), 2e-3, 9e-3, "must"),
        ((2e-3, 9e-3), 9e-3, 9e-3, "must"),
        ((5e-4, None, 7e-4), 7e-4, None, "no"),
    ],
)
def test_a_row_with_several_seeds_is_judged_by_its_median_and_its_worst(errors, median, worst, met):
    found = [entry("a", error=error, failed=None if error else "lost") for error in errors]
    row = accuracy.with_seeds(ROW, found)
    assert (row["error"], row["worst"], row["met"], row["seeds"]) == (median, worst, met, list(errors))
    assert row["failed"] == (None if None not in errors else "lost")
    head, line = score_sheet.lines({"rows": [row]})[:2]
    assert head.split()[:4] == ["problem", "t", "error", "worst"] and accuracy.command(ROW) == row["command"]
    assert line.split()[4] == (f"{worst:.2e}" if worst else "-")


def test_the_table_in_markdown():
    lines = score_sheet.markdown(SHEET)
    assert lines[0] == "| problem | t | error | bound | time | evaluations | must | goal | met |"
    named = "problem a (`heat_2d --integrator.t_end 0.5`)"
    assert lines[2] == f"| {named} | 0.5 | 5.00e-04 | 9.00e-03 | 1 min 15 s | 84 | 0.01 | 0.001 | goal |"
    assert lines[4].endswith("| failed: step size below its bound |")
    assert len({line.count("|") for line in lines}) == 1


def test_the_command_line_lists_the_rows_with_their_commands(capsys):
    assert cli.main(["bench", "accuracy", "wave_2d", "heat_2d", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "heat_2d: nivp run heat_2d --integrator.t_end 1",
        "wave_2d: nivp run wave_2d --integrator.t_end 4",
    ]
    assert cli.main(["bench", "accuracy", "wave2d"]) == 2
    assert "did you mean wave_2d" in capsys.readouterr().err


# Runs -----------------------------------------------------------------------------------------------


class Quadratic(Problem):
    """r = -x^2 / 2 under N(0, 1): E r^2 = E x^4 / 4 = 3/4, E x^2 = 1."""

    @property
    def domain(self):
        return Box(1, -5.0, 5.0)

    def samples(self, n, t, seed=0):
        return np.random.default_rng(seed).standard_normal((n, 1))

    def reference(self, x, t):
        return -(x[:, 0] ** 2) / 2


def test_the_sampled_error_is_the_error_under_the_density():
    """u = r + eps x has the relative error eps sqrt(E x^2 / E r^2) = eps sqrt(4/3) under the density."""
    problem = Quadratic()
    off = lambda t: lambda x: -(x**2) / 2 + 1e-3 * x  # noqa: E731
    run = SimpleNamespace(problem=problem, solution=off, reference=lambda t: lambda x: problem.reference(x, t)[:, None])
    assert scores.sampled_error(run, 1.0) == pytest.approx(1e-3 * np.sqrt(4 / 3), rel=0.02)
    with pytest.raises(InputError, match="SimpleNamespace has no samples"):
        scores.sampled_error(SimpleNamespace(problem=SimpleNamespace()), 1.0)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A row that takes a second, one whose run fails, and one whose configuration does not exist."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modes.py").write_text(PROBLEM)
    (tmp_path / "modes.toml").write_text(CONFIG.replace("evaluation_points = 2000", "evaluation_points = 20000"))
    good = Row("good", "two modes", "modes.toml", 1e-2, 1e-9, 2, t=0.2)
    bad = Row("bad", "no steps", "modes.toml", 1e-2, 1e-3, 2, settings={"integrator.max_steps": "1"})
    return good, bad, Row("gone", "not there", "modez.toml", 1e-2, 1e-3, 2)


def test_rows_are_run_once_and_after_a_failure_the_others_are_still_run(tiny, tmp_path):
    written = []
    sheet = accuracy.run((), "sheet", written.append, tiny[::-1])
    by_name = {row["name"]: row for row in sheet["rows"]}
    good = by_name["good"]
    assert good["failed"] is None and good["met"] == "must" and 1e-9 < good["error"] < 1e-2
    assert good["t"] == 0.2 and good["velocity_evaluations"] > 0 and good["error"] < 2 * good["estimate"]
    assert sum(good["estimate_parts"].values()) == pytest.approx(good["bound"])
    assert by_name["bad"]["failed"].startswith("integrator.max_steps = 1 reached") and by_name["bad"]["met"] == "no"
    assert "modez.toml: no such configuration file" in by_name["gone"]["failed"]
    assert {"processor", "cores"} <= set(sheet["machine"]) and "jax" in sheet["versions"]
    assert json.loads((tmp_path / "sheet/accuracy.json").read_text()) == sheet
    # The second time the finished run is only read, and the other rows stay in the file.
    before = (tmp_path / "sheet/good/summary.json").stat().st_mtime_ns
    again = accuracy.run(("good",), "sheet", written.append, tiny)
    assert again["rows"] == [good] and (tmp_path / "sheet/good/summary.json").stat().st_mtime_ns == before
    assert {row["name"] for row in json.loads((tmp_path / "sheet/accuracy.json").read_text())["rows"]} == set(by_name)
    # A second seed is a run of its own, and the first is read again.
    (both,) = accuracy.run(("good",), "sheet", written.append, tiny, seeds=2)["rows"]
    assert both["seeds"][0] == good["error"] != both["seeds"][1]
    assert both["error"] == both["worst"] == max(both["seeds"])
    assert "seed = 2" in (tmp_path / "sheet/good-seed-1/config.toml").read_text()
    # A row with other settings does not take the old run for its own.
    other = Row("good", "two modes", "modes.toml", 1e-2, 1e-9, 2, t=0.3)
    assert "holds a run of other settings" in accuracy.run((), "sheet", written.append, (other,))["rows"][0]["failed"]


def test_a_run_that_is_out_of_time_is_stopped_with_a_checkpoint_and_resumed_the_next_time(tiny, tmp_path, monkeypatch):
    good = tiny[0]
    monkeypatch.setattr(accuracy, "TIME_FACTOR", 1e-9)
    entry = accuracy.run((), "sheet", print, (good,))["rows"][0]
    assert entry["failed"] and entry["error"] is None and entry["met"] == "no"
    monkeypatch.setattr(accuracy, "TIME_FACTOR", 3.0)
    entry = accuracy.run((), "sheet", print, (good,))["rows"][0]
    assert entry["failed"] is None and entry["met"] == "must"
    assert run_directory.read_summary(tmp_path / "sheet/good")["status"] == "finished"
