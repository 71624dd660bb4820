"""Long runs: readers of the files of a run need no more memory for more lines, and thinned curves keep their spikes."""

import io
import json
import tracemalloc

import numpy as np
import pytest
from example_run import SUMMARY

from nivp_dist.report import course
from nivp_dist.report.course import read_course
from nivp_dist.report.progress import Reporter
from nivp_dist.report.status import read_status
from nivp_dist.report.tables import error_rows
from nivp_dist.run.history import missing_steps
from nivp_dist.run.stored import METRIC_NAMES, Run
from nivp_dist.storage.metrics import Lines, Mark, iterate, read_lines


@pytest.fixture(autouse=True)
def few_in_memory(monkeypatch):
    monkeypatch.setattr(course, "MOST", 2000)
    monkeypatch.setattr(course, "INTERVALS", 50)


def step(number, **changes):
    line = {"step": number, "t": 1e-3 * number, "h": 1e-3, "residual": 1e-6, "residual_fresh": 2e-6, "rejected": 0}
    return line | {"cg_iterations": 100, "theta_norm": 1.23456789012345, "wall_seconds": 0.1 * number} | changes


def write(directory, steps, **changes):
    """A run with so many steps and half as many events; changes: number of a step -> changed metrics."""
    (directory / "config.toml").write_text('[problem]\nname = "heat"\n')
    (directory / "summary.json").write_text(json.dumps(SUMMARY))
    changed = changes.get("at", {})
    lines = (json.dumps(step(number, **changed.get(number, {}))) for number in range(1, steps + 1))
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    event = {"step": 1, "t": 1e-3, "transitions": 1, "message": "of a length as warnings have it " * 5}
    kinds = ("warning", "output", "resume")
    lines = (json.dumps(event | {"kind": kinds[number % 3]}) for number in range(steps // 2))
    (directory / "events.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def finish(directory):
    without_reference = SUMMARY | {"errors": [{"t": 0.1 * k, "relative_l2": None} for k in range(20)]}
    Reporter(io.StringIO()).finish(without_reference, directory)


def cut_back(directory):
    lines = Lines(directory / "metrics.jsonl")
    assert lines.cut_back(lines.mark(), last=10**6)


def cut_back_damaged(directory):
    """As a resume does where the lines are not those of the checkpoint."""
    lines = Lines(directory / "metrics.jsonl")
    assert not lines.cut_back(Mark(1, "another digest"), last=10**6)
    assert missing_steps(iterate(lines.path), 1000) == ""


@pytest.mark.parametrize("action", [read_status, read_course, finish, cut_back, cut_back_damaged])
def test_four_times_as_many_lines_need_no_more_memory(tmp_path, action):
    peaks = []
    for steps in (4000, 4000, 16_000):  # the first fills caches
        write(tmp_path, steps)
        tracemalloc.start()
        action(tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 50_000  # 12,000 more lines have 2 MB, and 10 MB as objects


def test_all_numbers_of_a_run_take_eight_bytes_each(tmp_path):
    tracemalloc.start()
    metrics = Run(write(tmp_path, 16_000)).metrics()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(metrics["t"]) == 16_000 and len(metrics) >= len(METRIC_NAMES)
    assert peak < 4 * 8 * 16_000 * len(metrics)  # the columns, longer arrays while they grow, and their copy


def test_of_a_short_run_every_step_is_shown(tmp_path):
    directory = write(tmp_path, 1999, at={7: {"rejected": 2}, 9: {"rejected": 1, "residual": float("nan")}})
    shown, all_steps = read_course(directory), Run(directory).metrics()
    assert shown.keys() == all_steps.keys() | set(course.SUMS)
    for name, values in all_steps.items():
        np.testing.assert_array_equal(shown[name], values)
    np.testing.assert_array_equal(shown["rejected_so_far"][[0, 6, 7, 8, -1]], [0, 2, 2, 3, 3])


def test_spikes_of_a_single_step_stay_in_a_long_run(tmp_path):
    rare = {number: {"residual_fresh": None} for number in range(1, 10_000) if number % 7}
    spikes = {1234: {"h": 1e-9}, 5678: {"residual": 0.5}, 9001: {"cg_iterations": 9999}, 9002: {"rejected": 4}}
    shown = read_course(write(tmp_path, 10_000, at=rare | spikes))
    assert len(shown["t"]) <= 2000 and np.all(np.diff(shown["t"]) > 0)
    at = {int(number): k for k, number in enumerate(shown["step"])}
    assert shown["h"][at[1234]] == 1e-9 and shown["residual"][at[5678]] == 0.5
    assert shown["cg_iterations"][at[9001]] == 9999
    assert shown["rejected_so_far"][-1] == 4 and {1, 10_000} <= at.keys()
    # Between any two fiftieths of the time there is a value of every metric, also of one that is measured rarely.
    assert np.diff(shown["t"][np.isfinite(shown["residual_fresh"])]).max() < 2 * 10 / 50


def test_steps_of_very_different_length_are_all_thinned(tmp_path):
    """Half of the steps lie in a thousandth of the time, as at the start of a stiff problem."""
    changes = {number: {"t": 1e-6 * number} for number in range(1, 5001)}
    shown = read_course(write(tmp_path, 10_000, at=changes))
    assert len(shown["t"]) <= 2000 and np.all(np.diff(shown["t"]) > 0)


def test_a_text_among_the_numbers_of_a_metric_leaves_that_metric_out(tmp_path):
    directory = write(tmp_path, 3, at={2: {"odd": "text"}, 3: {"odd": 1.0, "late": 5.0}})
    metrics = Run(directory).metrics()
    assert "odd" not in metrics
    np.testing.assert_array_equal(metrics["late"], [np.nan, np.nan, 5.0])


def test_residuals_at_outputs_are_those_of_the_nearest_steps(tmp_path):
    steps = ((0.1, 1.0), (0.2, None), (0.3, 3.0), (0.5, 5.0))
    lines = [{"t": t, "residual_fresh": value} for t, value in steps]
    summary = {"errors": [{"t": t, "relative_l2": None} for t in (0.0, 0.1, 0.19, 0.25, 0.39, 0.41, 0.5, 0.9)]}
    residuals = [float(row[1]) for row in error_rows(summary, iter(lines))[2]]
    assert residuals == [1, 1, 1, 3, 3, 5, 5, 5]
    assert [row[1] for row in error_rows(summary, [])[2]] == ["-"] * 8


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"st')
    lines = iterate(path)
    assert next(lines) == {"step": 1}
    with open(path, "a") as file:
        file.write('ep": 2}\n{"step": 3}\n')
    assert [line["step"] for line in lines] in ([], [2, 3])
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3]
