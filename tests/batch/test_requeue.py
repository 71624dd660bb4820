"""The rule that queues a job again, on made-up run directories and without Slurm; it starts without jax."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nivp_dist.batch import lost_hosts
from nivp_dist.batch.requeue import REQUEUES, main, record, refusal, standing
from nivp_dist.errors import InputError
from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import read_lines

CODES = {"finished": 0, "event": 0, "stopped": 75, "failed": 1, "running": 69}
RUNNING = "JobId=7 JobState=RUNNING Reason=None PreemptTime=None"


@pytest.fixture
def run(tmp_path):
    """Make the directory that of a run which was stopped after some transitions."""
    (tmp_path / "config.toml").write_text("")

    def run(transitions=4, t=0.5, **summary):
        run_directory.write_summary(tmp_path, {"status": "stopped", "signal": "SIGUSR2", "t": t} | summary)
        (tmp_path / f"checkpoints/{transitions}").mkdir(parents=True, exist_ok=True)
        return tmp_path

    return run


def test_a_run_stopped_by_its_time_limit_is_queued_again(run):
    assert refusal(run(), 1, "7", RUNNING) is None
    assert refusal(run(signal="SIGUSR1"), 1) is None


@pytest.mark.parametrize("status", ["running", "failed", "finished"])
def test_only_a_run_that_was_stopped_is_queued_again(run, status):
    line = f"the run has not stopped with a checkpoint, its status is '{status}'"
    assert refusal(run(status=status), 9, "7", RUNNING) == line


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_a_callback_has_stopped_is_not_queued_again(run, lost):
    assert refusal(run(status="event", signal=None), 9, "7", RUNNING, lost=lost) == "a callback has stopped the run"


@pytest.mark.parametrize(
    "status, wanted",
    [("running", None), ("stopped", None), ("failed", "the run has failed"), ("finished", "the run has finished")],
)
def test_a_run_that_has_lost_a_process_is_queued_again(run, status, wanted):
    """Its summary is that of an earlier moment. A run that loses a process at the same place twice is not."""
    directory = run(status=status, signal=None)
    assert refusal(directory, 3, "7", RUNNING, lost=True) == wanted
    assert refusal(directory, 3, "7", RUNNING.replace("RUNNING", "COMPLETING"), lost=True) is not None
    if wanted is None:
        record(directory, "7")
        assert "has not advanced" in refusal(directory, 3, "7", RUNNING, lost=True)


@pytest.mark.parametrize("status, code", CODES.items())
def test_the_outcome_of_a_run_that_could_not_give_it(run, capfd, status, code):
    assert main([str(run(status=status)), "--outcome"], standalone_mode=False) == 0
    assert capfd.readouterr().out == f"{code}\n"


def test_the_outcome_of_a_run_with_a_damaged_summary_is_a_lost_process(run, capfd):
    directory = run()
    (directory / "summary.json").write_text('{"status": "finis')
    assert main([str(directory), "--outcome"], standalone_mode=False) == 0
    assert capfd.readouterr().out == "69\n"


@pytest.mark.parametrize("status", ["finished", "failed", "stopped"])
def test_a_summary_from_before_the_job_says_nothing_of_it(run, capfd, status):
    """A run that has finished is resumed with a later t_end, and process 0 is killed before its first summary."""
    directory = run(status=status, signal="SIGTERM")
    before = hashlib.sha256((directory / "summary.json").read_bytes()).hexdigest() + "  -"
    assert main([str(directory), "--outcome", "--before", before], standalone_mode=False) == 0
    assert capfd.readouterr().out == "69\n"
    assert refusal(directory, 3, "7", RUNNING, lost=True, before=before) is None
    run(status=status, signal="SIGTERM", t=0.75)  # the job has written a summary
    assert main([str(directory), "--outcome", "--before", before], standalone_mode=False) == 0
    assert capfd.readouterr().out == f"{CODES[status]}\n"
    wanted = None if status == "stopped" else f"the run has {status}"
    assert refusal(directory, 3, "7", RUNNING, lost=True, before=before) == wanted


@pytest.mark.parametrize("lost", [True, False])
def test_a_run_with_a_damaged_summary_is_queued_again(run, lost):
    """A resume needs nothing of the summary. Why the run has stopped is not known then; the state of the job is."""
    directory = run()
    (directory / "summary.json").write_text('{"status": "stop')
    assert refusal(directory, 1, "7", RUNNING, lost) is None
    assert refusal(directory, 1, "7", RUNNING.replace("RUNNING", "CANCELLED"), lost).startswith("the job is CANCELLED")
    assert record(directory, "7")["transitions"] == 4
    assert refusal(directory, 1, "7", RUNNING, lost).startswith("1 times are allowed and used up")


@pytest.mark.parametrize(
    "log, cause, hosts",
    [
        (0, "process 3 on box4.cluster.org was killed", "box4"),
        (0, "process 3 on box4: its host has not answered for 30 s", "box4"),
        (0, "process 3 on box-4, process 5 on b5 did not answer after more than 9 s in 'step': it is", "box-4,b5"),
        (1, "process 0 on box4 was killed", "box4"),
        (0, "process 3 on box4: ArithmeticError: the reference is broken", ""),
        (2, "process 0 on box4 was killed", ""),
    ],
)
def test_a_job_is_to_run_without_the_hosts_that_have_lost_a_process(run, capfd, log, cause, hosts):
    directory = run(status="running")
    (directory / "logs").mkdir()
    text = f"... process {log}: a line before\n... process {log}: the group ends: {cause}\n"
    (directory / f"logs/process-000{log}.log").write_text(text)
    words = [str(directory), "--cap", "9", "--job", "7", "--lost", "--facts"]
    assert main([*words, f"{RUNNING} ExcNodeList=(null)"], standalone_mode=False) == 0
    assert capfd.readouterr().out == (f"{hosts}\n" if hosts else "")
    assert read_lines(directory / REQUEUES)[0].get("lost", []) == [host for host in hosts.split(",") if host]
    run(transitions=5, status="running")
    assert main([*words, f"{RUNNING} ExcNodeList={hosts or 'x'}"], standalone_mode=False) == 0
    assert capfd.readouterr().out == ""  # Slurm knows them


def test_the_hosts_that_a_user_excludes_stay_excluded_and_ours_are_few():
    assert lost_hosts.to_exclude(["b"], [], "box[1-2],a") == ("box[1-2],a,b", "")
    assert lost_hosts.to_exclude(["b"], ["c", "d", "c"], "c") == ("c,d,b", "")
    line = "e: not excluded, because processes were lost on 5 hosts by now"
    assert lost_hosts.to_exclude(["e"], ["a", "b", "c", "d"], "a,b,c,d") == ("", line)
    assert lost_hosts.to_exclude([], [], "(null)") == ("", "")


def test_a_requeue_that_slurm_refuses_is_withdrawn(run, capfd):
    directory = run()
    record(directory, "7")
    record(directory, "8")
    assert main([str(directory), "--job", "7", "--withdraw"], standalone_mode=False) == 0
    assert [line["job"] for line in standing(read_lines(directory / REQUEUES))] == ["8"]
    assert refusal(directory, 1, "7", RUNNING) is None and refusal(directory, 1, "8", RUNNING) is not None
    assert capfd.readouterr().err == "nivp: not queued again: Slurm refused four times\n"


def test_a_run_without_a_checkpoint_is_not_queued_again(run):
    directory = run()
    (directory / "checkpoints/4").rename(directory / "checkpoints/4.orbax-checkpoint-tmp")
    assert refusal(directory, 9) == "the run has no checkpoint"
    (directory / "summary.json").unlink()
    assert refusal(directory, 9).endswith("its status is 'not started'")


@pytest.mark.parametrize(
    "signal, facts, wanted",
    [
        ("SIGTERM", "", "the run was stopped by SIGTERM, and not for a time limit or a preemption"),
        ("SIGTERM", RUNNING, "the run was stopped by SIGTERM, and not for a time limit or a preemption"),
        ("SIGINT", RUNNING, "the run was stopped by SIGINT, and not for a time limit or a preemption"),
        # A preemption with grace: the run ends by itself, and Slurm takes it for a failure.
        ("SIGTERM", RUNNING.replace("PreemptTime=None", "PreemptTime=2026-11-23T15:06:05"), None),
        # Cancelled just after the notice; `scontrol requeue` would bring it back to life.
        ("SIGUSR2", RUNNING.replace("RUNNING", "COMPLETING"), "the job is COMPLETING: cancelled, or Slurm itself "),
        # The checkpoint took longer than the notice, and less than the KillWait.
        ("SIGTERM", RUNNING.replace("RUNNING Reason=None", "COMPLETING Reason=TimeLimit"), None),
    ],
)
def test_the_state_of_the_job_decides(run, signal, facts, wanted):
    found = refusal(run(signal=signal), 9, "7", facts)
    assert found is None if wanted is None else found.startswith(wanted)


def test_a_job_is_queued_again_only_so_often(run):
    for number in range(3):
        assert refusal(run(transitions=number), 3, "7") is None
        assert record(run(transitions=number), "7")["number"] == number + 1
    line = f"3 times are allowed and used up; `nivp submit --resume {run()}` counts anew, --requeues allows more"
    assert refusal(run(transitions=9), 3, "7") == line
    assert refusal(run(transitions=9), 4, "7") is None
    assert refusal(run(transitions=9), 3, "8") is None  # another job of the same run
    assert refusal(run(), 0, "8").startswith("0 times are allowed")


def test_only_a_run_that_makes_progress_is_queued_again(run):
    record(run(transitions=4, t=0.5), "7")
    assert refusal(run(transitions=4, t=0.5), 9, "7").startswith(
        "the run has not advanced since the last time, t = 0.5: "
    )
    assert refusal(run(transitions=5, t=0.5), 9, "7") is None  # a round of a fit
    assert refusal(run(transitions=4, t=0.5), 9, "8") is None  # submitted anew, perhaps with a longer limit


def test_a_decision_is_recorded(run, capsys):
    directory = run(transitions=10, t=0.25)
    words = ["--cap", "2", "--job", "7_1", "--facts", RUNNING]
    assert main([str(directory), *words], standalone_mode=False) == 0
    assert capsys.readouterr().err == "nivp: queued again at t = 0.25, time 1 of 2\n"
    line = json.loads((directory / REQUEUES).read_text())
    line.pop("time")
    assert line == {"job": "7_1", "number": 1, "transitions": 10, "t": 0.25, "signal": "SIGUSR2"}
    assert main([str(directory), *words], standalone_mode=False) == 1
    assert capsys.readouterr().err.startswith("nivp: not queued again: the run has not advanced since ")
    assert len((directory / REQUEUES).read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda run: (run / "config.toml").unlink(), "not the directory of a run (it holds no config.toml)"),
        (lambda run: (run / REQUEUES).write_text("{\n{}\n"), "requeues.jsonl, line 1: not JSON"),
        (lambda run: (run / REQUEUES).mkdir(), "Is a directory"),
    ],
)
def test_a_run_that_cannot_be_read_or_written_is_not_queued_again(run, damage, message):
    directory = run()
    damage(directory)
    words = [sys.executable, "-m", "nivp_dist.batch.requeue", directory, "--cap", "9"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("nivp: not queued again: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_directory_without_a_run_is_refused():
    with pytest.raises(InputError, match="not the directory of a run"):
        refusal(Path("none"), 9)


def test_the_rule_and_submit_start_without_jax():
    code = "import sys, nivp_dist.batch.requeue, nivp_dist.batch.submit; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
