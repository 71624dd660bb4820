"""`nivp bench faults`: its verdicts, and some faults of each kind."""

import json
import random

import pytest
import slurmbox
from disks import require

from nivp_dist import cli
from nivp_dist.bench.faults import damage, kinds, table
from nivp_dist.bench.faults.outcome import CHANGED, LOST, SAID, SAME, Outcome, Results, compare
from nivp_dist.errors import InputError

SEED = 1
SEED_OF_PROCESSES = 1031  # one whose runs are in one process where the kind allows it: they need half the time

# Verdicts -----------------------------------------------------------------------------------------


def results(**changes):
    made = {
        "snapshots": {t: {"theta": ("<f8", (2,), bytes([7] * 16))} for t in (0.0, 0.1)},
        "metrics": {step: [{"step": step, "h": 0.1 * step}] for step in range(1, 6)},
        "events": [(0, 0.0, "fit", "fitted"), (5, 0.1, "finish", "finished")],
        "errors": {t: {"t": t, "relative_l2": 1e-3} for t in (0.0, 0.1)},
        "summary": {"status": "finished", "steps": 5},
    }
    return Results(**made | changes)


def without(mapping, *keys):
    return {key: value for key, value in mapping.items() if key not in keys}


METRICS_GONE = "metrics.jsonl is not what the run had written, the lines of steps 2 to 3, 5 are gone"


@pytest.mark.parametrize(
    "changes, message, verdict",
    [
        ({}, "", SAME),
        ({}, "the checkpoint of step 4 is unreadable", SAME),
        ({"metrics": without(results().metrics, 2, 3, 5)}, METRICS_GONE, SAID),
        ({"metrics": without(results().metrics, 2, 3, 5)}, "", LOST),
        ({"metrics": without(results().metrics, 2, 3, 4, 5)}, METRICS_GONE, LOST),  # the line names too few
        ({"metrics": results().metrics | {2: [{"step": 2, "h": 9.0}]}}, "", CHANGED),
        ({"metrics": results().metrics | {2: [{"step": 2, "h": 0.2}] * 2}}, "", CHANGED),
        ({"snapshots": without(results().snapshots, 0.1), "errors": without(results().errors, 0.1)}, "", LOST),
        (
            {"snapshots": without(results().snapshots, 0.1), "errors": without(results().errors, 0.1)},
            "the snapshots of t = 0.1 are gone or damaged",
            SAID,
        ),
        ({"snapshots": results().snapshots | {0.1: {"theta": ("<f8", (2,), bytes(16))}}}, "", CHANGED),
        ({"snapshots": results().snapshots | {0.2: {}}}, "", CHANGED),
        ({"errors": results().errors | {0.0: {"t": 0.0, "relative_l2": 2e-3}}}, METRICS_GONE, CHANGED),
        ({"summary": {"status": "finished", "steps": 6}}, "", CHANGED),
        ({"events": results().events[1:]}, "", LOST),
        (
            {"snapshots": without(results().snapshots, 0.1), "errors": without(results().errors, 0.1)},
            "resumed at t = 0.05, step 3; other settings: output.times [0.1] -> []",
            SAID,
        ),
        (
            {"errors": results().errors | {0.0: {"t": 0.0, "relative_l2": 2e-3}}},
            "resumed at t = 0.05, step 3; other settings: output.evaluation_points 500 -> 50",
            SAME,
        ),
        ({"events": results().events[1:]}, "events.jsonl is not what the run had written", SAID),
    ],
)
def test_verdicts(changes, message, verdict):
    assert compare(results(), results(**changes), [message])[0] == verdict


def test_a_bad_outcome_is_repeated_below_the_table():
    metrics = kinds.BY_NAME["metrics"]
    done = [
        (table.Fault(metrics, 0), Outcome(SAME, "a")),
        (table.Fault(metrics, 1), Outcome(LOST, "b", "steps 1 to 2")),
    ]
    assert table.summary(done) == [
        "",
        "   kind  faults  same  said  bad",
        "metrics       2     1     0    1",
        "    all       2     1     0    1",
        "metrics:1: LOST: b: steps 1 to 2",
    ]


# Selection ----------------------------------------------------------------------------------------


def test_there_are_more_than_twelve_kinds_and_each_is_explained(capsys):
    assert cli.main(["bench", "faults", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(kinds.BY_NAME) > 12 and all(len(line.split()) > 2 for line in lines)


def test_faults_are_of_the_kinds_in_turn():
    assert list(map(str, table.select(5, ("metrics", "events"), print))) == [
        "metrics:0",
        "events:0",
        "metrics:1",
        "events:1",
        "metrics:2",
    ]
    assert list(map(str, table.select(100, ("metrics:7",), print))) == ["metrics:7"]


@pytest.mark.parametrize(
    "names, line",
    [
        (("metric",), "there is no kind 'metric'; did you mean metrics"),
        (("metrics:x",), "a single fault is KIND:NUMBER"),
        (("metrics", "events:3"), "not both"),
    ],
)
def test_unknown_kinds_are_bad_input(names, line):
    with pytest.raises(InputError, match=line):
        table.select(5, names, print)


def test_a_kind_without_means_is_left_out_with_its_reason(monkeypatch):
    absent = kinds.BY_NAME["full-disk"]._replace(missing=lambda: "no disk")
    monkeypatch.setitem(kinds.BY_NAME, "full-disk", absent)
    said = []
    assert [fault.kind.name for fault in table.select(2, ("full-disk", "events"), said.append)] == ["events", "events"]
    assert said == ["left out: full-disk: no disk"]
    with pytest.raises(InputError, match="no disk"):
        table.select(1, ("full-disk:0",), print)


def test_damage_follows_from_its_generator(tmp_path):
    """The same bit each time, so that a fault can be repeated; and the file is another one each time."""
    path, found = tmp_path / "metrics.jsonl", []
    for seed in (1, 1, 2):
        path.write_bytes(bytes(100))
        what = damage.flip(path, random.Random(seed))
        found.append((what, path.read_bytes()))
    assert found[0] == found[1] != found[2]
    assert all(sum(content) and content.count(0) == 99 for _, content in found)


# Faults -------------------------------------------------------------------------------------------


KINDS = list(kinds.BY_NAME)
OF_FILES = KINDS[: KINDS.index("kill")]
OF_PROCESSES = ("launcher", "pause", "moved", "garbage")  # the others have tests in tests/cluster


@pytest.mark.timeout(900)
def test_some_faults_of_every_kind_of_files(tmp_path, capsys):
    """Two of each. What was injected is in the file, a line of JSON for each."""
    output = tmp_path / "faults.jsonl"
    words = ["--number", str(2 * len(OF_FILES)), "--seed", str(SEED), "--output", str(output)]
    assert cli.main(["bench", "faults", *OF_FILES, *words]) == 0, capsys.readouterr().out
    head, *lines = map(json.loads, output.read_text().splitlines())
    assert head["seed"] == SEED and "versions" in head
    assert {line["verdict"] for line in lines} <= {SAME, SAID} and len(lines) == 2 * len(OF_FILES)
    assert [line["kind"] for line in lines[: len(OF_FILES)]] == OF_FILES


@pytest.mark.timeout(1200)
def test_a_fault_of_every_kind_of_processes_that_no_other_test_has(capsys):
    words = ["--number", str(len(OF_PROCESSES)), "--seed", str(SEED_OF_PROCESSES)]
    assert cli.main(["bench", "faults", *OF_PROCESSES, *words]) == 0, capsys.readouterr().out


@pytest.mark.timeout(900)
def test_a_fault_of_a_slurm_job(monkeypatch, capsys):
    """The kind that tests/cluster/test_slurm.py does not have, in a Slurm of its own."""
    reason = slurmbox.missing()
    require(reason and f"no Slurm: {reason}")
    with slurmbox.Slurmbox() as box:
        for name in ("SLURM_CONF", "PATH", "UCX_TLS"):
            monkeypatch.setenv(name, box.environment[name])
        words = ["slurm-srun", "--number", "1", "--seed", str(SEED)]
        assert cli.main(["bench", "faults", *words]) == 0, capsys.readouterr().out
