"""Cases of `nivp bench held`: their configurations, the table of what became of them, and what is run again."""

import json
from pathlib import Path

import numpy as np
import pytest

from nivp_dist import cli
from nivp_dist.bench import accuracy, held
from nivp_dist.bench.rows import ROWS, Row
from nivp_dist.settings.files import read_config
from nivp_dist.settings.model import Config
from nivp_dist.storage import run_directory, snapshots

BY_NAME = {row.name: row for row in ROWS}


def test_a_case_has_the_physics_and_the_accuracy_and_nothing_else(tmp_path):
    row = BY_NAME["wave_2d_modulated_2"]
    case = held.case(row, 1e-3, tmp_path, minutes=5)
    config, shipped = read_config(case.configuration, case.overrides), read_config(row.configuration, row.overrides)
    assert config.problem == shipped.problem and config.problem.parameters["wavenumber"] == 2.0
    assert (config.integrator.t_end, config.output.times) == (shipped.integrator.t_end, shipped.output.times)
    # The rest is what a user has who writes these lines alone.
    alone = Config.model_validate({"problem": {"name": shipped.problem.name}, "accuracy": 1e-3})
    for section in ("network", "sampling", "solver", "fit", "restart"):
        assert getattr(config, section) == getattr(alone, section)
    assert config.integrator.rtol == alone.integrator.rtol != shipped.integrator.rtol
    assert (case.name, case.goal, case.must, case.limit) == ("wave_2d_modulated_2-0.001", 1e-3, 2e-3, 5)


def test_rows_with_the_same_physics_are_one_case():
    left_out = {row.name for row in ROWS} - {row.name for row in held.distinct(ROWS)}
    assert left_out == {"log_9d_density"}  # wave_2d and wave_2d_long have other times


def entry(problem, asked, error=None, failed=None, status="finished", **more):
    row = Row(f"{problem}-{asked:g}", problem, "heat_2d", 2 * asked, asked, 5)
    made = accuracy.describe(row, "somewhere") | {"t": 1.0, "wall_seconds": 75.0, "status": status}
    return made | {"error": error, "failed": failed} | more


SHEET = {
    "rows": [
        entry("heat", 1e-2, 4e-3),
        entry("heat", 1e-3, 1.5e-3, seeds=[1.5e-3, 1e-4, 3e-3], worst=3e-3),
        entry("wave", 1e-2, failed="step size below its bound", status="failed"),
        entry("wave", 1e-3, failed="not finished within 5 minutes", status="stopped"),
    ]
}


def test_the_table_has_ratios_and_counts_what_did_not_finish():
    assert held.lines(SHEET) == [
        "problem  t  error / 0.01        time  error / 0.001        time",
        "   heat  1           0.4  1 min 15 s        1.5 (3)  1 min 15 s",
        "   wave  1        failed  1 min 15 s   not finished  1 min 15 s",
        "wave-0.01: step size below its bound",
        "wave-0.001: not finished within 5 minutes",
        "accuracy 0.01: 1 of 2 within it, 1 within twice; 1 did not finish",
        "accuracy 0.001: 0 of 2 within it, 1 within twice; 1 did not finish",
    ]
    lines = held.markdown(SHEET)
    assert lines[2] == "| heat | 1 | 0.4 | 1 min 15 s | 1.5 (3) | 1 min 15 s |"
    assert lines[-1] == held.lines(SHEET)[-1]


class Made:
    """In the place of `nivp run` and `nivp resume`: runs with given errors, which stop half way the first time."""

    def __init__(self, errors):
        self.errors, self.calls = errors, []

    def __call__(self, words, log, limit):
        self.calls.append(words[0])
        if words[0] == "run":
            run_directory.create(read_config(words[1]), words[3], "run")
        directory = Path(words[3] if words[0] == "run" else words[1])
        done = words[0] == "resume"
        outputs = [{"t": t, "relative_l2": error} for t, error in self.errors.items()][: None if done else 1]
        snapshots.save(directory, outputs[-1]["t"], {"estimate_initial": np.float64(0.5)})
        status = "finished" if done else "stopped"
        run_directory.write_summary(directory, {"status": status, "wall_seconds": 30.0, "errors": outputs})
        return None if done else "stopped on request"


def test_a_case_that_was_stopped_goes_on_and_a_finished_one_is_only_read(tmp_path, monkeypatch, capsys):
    runs = Made({0.0: 3e-3, 0.25: 1e-4, 0.5: 2e-4, 1.0: 4e-4})
    monkeypatch.setattr(accuracy, "evolve", runs)
    call = lambda minutes: held.run(("heat_neumann_2d",), tmp_path, print, (1e-3,), minutes)  # noqa: E731
    assert held.tally(call(1.0))[0] == "accuracy 0.001: 0 of 1 within it, 0 within twice; 1 did not finish"
    assert call(0.4)["rows"][0]["failed"] == "not finished within 0.4 minutes" and runs.calls == ["run"]
    (found,) = call(1.0)["rows"]
    assert (found["error"], held.ratio(found), found["met"]) == (3e-3, pytest.approx(3), "no")  # the fit was the worst
    assert call(1.0)["rows"] == [found] and runs.calls == ["run", "resume"]
    # Cases of other accuracies stay in the file.
    held.run(("heat_neumann_2d",), tmp_path, print, (1e-2,), 1.0)
    kept = [row["name"] for row in json.loads((tmp_path / "accuracy.json").read_text())["rows"]]
    assert kept == ["heat_neumann_2d-0.01", "heat_neumann_2d-0.001"]
    assert cli.main(["bench", "held", "heat2d", "--output", str(tmp_path)]) == 2
    assert "there is no row 'heat2d'; did you mean heat_2d" in capsys.readouterr().err
