"""Jobs in a real Slurm of five nodes (tests/slurmbox.py): time limits, preemption, lost nodes, arrays, GPUs."""

import json
import re
import subprocess
import sys
import threading
import time

import pytest
import slurmbox
from disks import require
from process_groups import NIVP, SHORT, local
from whole_runs import assert_close, assert_same

pytestmark = pytest.mark.timeout(900)  # jobs wait for the scheduler, some of them several times

# An output after every step, at each of which TEST_FAULT lets the run sleep: time to disturb it.
LONG = ("--devices", "0", f"--output.times={[round(0.01 * i, 2) for i in range(1, 30)]}")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
LIMITS = 2  # how often the run under a time limit reaches it


SITE = """\
modules = ["cuda/12.8", "apptainer"]
environment = {{ SITE_NOTE = "it's ours" }}
setup = ['echo "site: $SITE_NOTE"']
container = "env INSIDE=container"
python = "{python}"
sbatch = ["{option}"]
"""


@pytest.fixture(scope="module")
def box(processes):
    if (reason := slurmbox.missing()) is not None:
        require(f"no Slurm: {reason}")
    with slurmbox.Slurmbox() as box:
        # The variables of a user's shell. JAX's compilation cache makes the second start short.
        shell = processes.environment()
        box.environment |= {name: shell[name] for name in shell if name.startswith(("JAX", "XLA", "PYTHONPATH"))}
        box.environment["XDG_CONFIG_HOME"] = str(processes.folder / "home")  # for the secret of a bare srun
        box.environment["BASH_FUNC_module%%"] = '() { echo "module $*"; }'  # instead of the one of Lmod
        # The first two nodes are reserved for the run under a time limit, which takes longest.
        for name, option in {"first": "--nodelist=box[1-2]", "others": "--exclude=box[1-2]"}.items():
            (processes.folder / f"{name}.toml").write_text(SITE.format(option=option, python=sys.executable))
        yield box


@pytest.fixture(scope="module")
def submit(box, processes):
    """Call nivp submit and return the id of the job.

    slow: so many starts of the job are slow. seconds: that a slow start sleeps at each output.
    """

    def submit(*words, site="others", slow=1, seconds=2, fault=None):
        done = subprocess.run(
            [*NIVP, "submit", *map(str, words)],
            env=box.environment | {"NIVP_SITE": f"{site}.toml", "TEST_FAULT": fault or f"slow:{slow}:{seconds}"},
            cwd=processes.folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return submit


@pytest.fixture
def start(box, submit, processes):
    """Start a long run in two processes and wait until it has taken some steps: (job, run)."""

    def start(*options, **keywords):
        ran = processes.Ran(processes.new())
        job = submit("modes.toml", "--output", ran.directory, "--nodes", 2, *options, *LONG, **keywords)
        until(lambda: len(ran.metrics) >= 2, ran)
        return job, ran

    return start


@pytest.fixture(scope="module")
def limited(box, submit, processes):
    """A run under a time limit: (job, run, the thread that watches it). Its directory has an unusual name.

    The limit of ten minutes is shortened when the run has made progress, so that machines of any speed reach it.
    """
    ran = processes.Ran(processes.folder / "it's 50% of #1")
    words = ("modes.toml", "--output", ran.directory, "--nodes", 2, "--time", 10, "--notice", 20)
    job = submit(*words, *LONG, site="first", slow=LIMITS, seconds=4)

    def shorten():
        for number in range(LIMITS):
            goes_on(ran, number)
            box.call("scontrol", "update", f"JobId={job}", "EndTime=now+50")  # Slurm looks every half a minute
            until(lambda number=number: box.job(job)["Restarts"] == str(number + 1), ran)
            box.call("scontrol", "update", f"JobId={job}", "TimeLimit=10")

    thread = threading.Thread(target=shorten, daemon=True)
    thread.start()
    return job, ran, thread


@pytest.fixture(scope="module")
def quiet(processes):
    """The same run in two processes, undisturbed."""
    ran = processes.Ran(processes.new())
    processes.finish(local(2), "run", "modes.toml", "--output", ran.directory, *LONG)
    return ran


def until(condition, ran, seconds=400):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log(ran)
        time.sleep(0.05)


def log(ran):
    return "\n".join(path.read_text() for path in sorted((ran.directory / "logs").glob("slurm-*.out")))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def resumed_at(ran):
    """The step from which the last resume continued."""
    return [int(message.rsplit(" ", 1)[1]) for kind, message in ran.events if kind == "resume"][-1]


def goes_on(ran, starts):
    """Wait until the run has been resumed so many times and has taken two steps since; return the number of steps."""
    until(lambda: log(ran).count(" resumed at t = ") >= starts, ran)
    wanted = len(ran.metrics) + 2
    until(lambda: len(ran.metrics) >= wanted, ran)
    return wanted


def preempt(box):
    """A job of higher priority takes all nodes but the first two for a second."""
    words = ["--partition=urgent", "--exclude=box[1-2]", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    nodes = len(box.call("sinfo", "-h", "-N", "-p", "urgent", "-n", "box[3-5]", "-t", "idle,alloc,mix").splitlines())
    box.wait(box.call("sbatch", "--parsable", f"--nodes={nodes}", *words), "COMPLETED")


def finished(box, job, ran, quiet, restarts):
    """Check that the job has finished after so many restarts, with the bits of the undisturbed run."""
    facts = box.wait(job, *ENDED, seconds=400)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", str(restarts)), log(ran)
    assert log(ran).count(" resumed at t = ") == restarts
    assert_same(ran, quiet)


def test_the_run_under_a_time_limit_is_submitted(limited):
    """It runs while the other tests do; the last test waits for it."""
    assert limited[0].isdigit()


def test_when_a_stopped_or_failed_job_is_not_queued_again(box, start, submit, processes, quiet):
    """A job is queued again after a notice of its limit, as often as --requeues allows. A job that is cancelled is not.
    One of which a task is killed (as for want of memory) is, until it has made no progress since the last time: then it
    is a failed job to the accounting.

    The run can be resumed each time, and ends with the same bits.
    """
    job, ran = start("--requeues", 1, slow=2)
    box.call("scancel", "--signal=USR2", job)  # what Slurm sends to the tasks before the limit
    taken = goes_on(ran, 1)
    box.call("scancel", "--signal=USR2", job)
    facts = box.wait(job, *ENDED)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "75:0", "1"), log(ran)
    assert "not queued again: 1 times are allowed and used up" in log(ran)
    assert ran.summary["status"] == "stopped" and ran.summary["steps"] >= taken

    job = submit("--resume", ran.directory, "--nodes", 2)
    taken = goes_on(ran, 2)
    box.call("scancel", job)
    facts = box.wait(job, *ENDED)
    assert (facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0")
    until(lambda: "not queued again: the job is COMPLETING" in log(ran), ran)
    assert ran.summary["status"] == "stopped" and ran.summary["steps"] >= taken
    assert [line["number"] for line in lines(ran.directory / "requeues.jsonl")] == [1]

    job = submit("--resume", ran.directory, "--nodes", 2, fault="die:1")
    facts = box.wait(job, *ENDED, seconds=400)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "69:0", "1"), log(ran)
    (output,) = (path.read_text() for path in (ran.directory / "logs").glob(f"slurm-{job}*.out"))
    assert re.search(r"^nivp: process 1 on box\d was killed$", output, re.MULTILINE)
    assert re.search(r"^nivp: queued again at t = \S+, time 1 of 20$", output, re.MULTILINE)
    assert "nivp: not queued again: the run has not advanced since the last time" in output
    (lost,) = lines(ran.directory / "requeues.jsonl")[-1]["lost"]
    assert f"nivp: a process was lost: the job is queued without the hosts {facts['ExcNodeList']}\n" in output
    assert facts["ExcNodeList"].split(",")[-1] == lost and lost not in box.hosts(job)
    last_line = (ran.directory / "logs/process-0000.log").read_text().splitlines()[-1]
    assert re.search(r"the group ends: process 1 on box\d was killed$", last_line)
    scripts = [line["script"] for line in lines(ran.directory / "jobs.jsonl")]
    assert scripts == [f"{ran.directory}/job-00{number}.sbatch" for number in (1, 2, 3)]
    starts = log(ran).count("module load cuda/12.8\nmodule load apptainer\nsite: it's ours\n")  # with the site's file
    assert starts == 5
    assert_same(processes.resume(ran, local(2)), quiet)


def test_a_requeue_by_hand_a_lost_node_and_a_preemption_with_grace_time(box, start, quiet):
    """The loss of a node leaves no time for a checkpoint. A preempted job that ends within its grace time is a
    failed job to Slurm, which would not queue it again by itself."""
    job, ran = start("--partition", "grace", "--checkpoint.every_steps", 3, slow=3)
    box.call("scontrol", "requeue", job)
    goes_on(ran, 1)
    lost = box.hosts(job)[1]
    box.lose(lost)
    done = len(ran.metrics)
    try:
        goes_on(ran, 2)
        assert "was killed" in log(ran) and lost not in box.hosts(job)
        assert done - resumed_at(ran) <= 3  # lost: one interval
        before = len(lines(ran.directory / "requeues.jsonl"))
        assert before in (0, 1)  # the job script or Slurm itself, whichever notices the loss first
        preempt(box)
        finished(box, job, ran, quiet, restarts=3)
        assert len(lines(ran.directory / "requeues.jsonl")) == before + 1
    finally:
        box.start_node(lost)


def test_a_preemption_without_grace_time_and_the_loss_of_the_first_node(box, start, quiet):
    """Process 0, srun and the batch script, which queues jobs again, run on the first node. Slurm queues the job again
    both times."""
    job, ran = start("--checkpoint.every_steps", 3, slow=2)
    preempt(box)
    goes_on(ran, 1)
    lost = box.hosts(job)[0]
    box.lose(lost)
    done = len(ran.metrics)
    try:
        finished(box, job, ran, quiet, restarts=2)
        assert lost not in box.hosts(job) and done - resumed_at(ran) <= 3
        assert not (ran.directory / "requeues.jsonl").exists()
    finally:
        box.start_node(lost)


def test_an_srun_that_outlives_its_run_is_ended(box, start, quiet):
    """Without its task manager, srun does not learn that the tasks have ended, and would wait for the time limit."""
    box.environment["NIVP_SRUN_GRACE_SECONDS"] = "30"
    job, ran = start(slow=1, seconds=1)
    del box.environment["NIVP_SRUN_GRACE_SECONDS"]
    managers = subprocess.run(["pgrep", "-f", rf"slurmstepd: \[{job}\.0\]"], capture_output=True, text=True).stdout
    assert len(managers.split()) == 2  # one a node
    subprocess.run(["kill", "-KILL", *managers.split()], check=True)
    facts = box.wait(job, *ENDED, seconds=400)
    assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0"), log(ran)
    assert "nivp: srun is ended: it has outlived its run by 30 s" in log(ran)
    assert ran.summary["status"] == "finished"
    assert_same(ran, quiet)


def test_the_runs_of_a_sweep_are_independent(box, submit, processes):
    """One is stopped without being queued again, the other is queued again. Each ends with the bits that it has without
    Slurm.
    """
    parent = processes.new()
    job = submit("modes.toml", "--output", parent, "--sweep", "seed=1,2", "--array-limit", 2, *LONG)
    runs = [processes.Ran(parent / f"000{task}") for task in (0, 1)]
    for ran in runs:
        until(lambda: len(ran.metrics) >= 2, ran)
    box.call("scancel", "--signal=TERM", f"{job}_0")
    box.call("scancel", "--signal=USR2", f"{job}_1")
    facts = box.wait(f"{job}_0", *ENDED)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "75:0", "0"), log(runs[0])
    facts = box.wait(f"{job}_1", *ENDED)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", "1"), log(runs[1])
    assert [ran.summary["status"] for ran in runs] == ["stopped", "finished"]
    assert [line["job"] for line in lines(runs[1].directory / "requeues.jsonl")] == [f"{job}_1"]

    job = submit("--resume", parent, slow=0)
    assert box.wait(f"{job}_0", *ENDED)["JobState"] == "COMPLETED", log(runs[0])
    assert [ran.summary["status"] for ran in runs] == ["finished", "finished"]
    assert not box.job(f"{job}_1")
    assert runs[0].theta().tolist() != runs[1].theta().tolist()
    for seed, ran in enumerate(runs, 1):
        own = processes.Ran(processes.new())
        processes.finish(NIVP, "run", "modes.toml", "--output", own.directory, "--seed", seed, *LONG)
        assert_same(ran, own)


def test_two_steps_of_a_job_do_not_disturb_each_other(box, processes, tmp_path):
    """They have no NIVP_SECRET, and use the file of the user."""
    step = f"srun --exact -N2 -n2 -c1 {' '.join(NIVP)} doctor"
    script = tmp_path / "two.sh"
    script.write_text(f"#!/bin/bash\n{step} > first & {step} > second & wait\n")
    words = ["--exclude=box[1-2]", "-N2", "--ntasks-per-node=2", "-D", tmp_path, "-o", "log", script]
    box.wait(box.call("sbatch", "--parsable", *words), "COMPLETED")
    for name in ("first", "second"):
        text = (tmp_path / name).read_text()
        assert "2 processes, started by srun" in text and re.search(r"0 +box\d.*\n +1 +box\d", text), text
        assert "all-reduce of 1,000,000" in text
    assert (processes.folder / "home/nivp/secret").stat().st_mode & 0o777 == 0o600


def test_a_run_outside_the_tasks_of_its_job_is_refused(box, processes, tmp_path):
    script = tmp_path / "forgot.sh"
    script.write_text(f"#!/bin/bash\n{' '.join(NIVP)} run modes.toml --output {tmp_path}/none\n")
    words = ["--exclude=box[1-2]", "-N2", "-n2", "-D", processes.folder, "-o", tmp_path / "log", script]
    facts = box.wait(box.call("sbatch", "--parsable", *words), *ENDED)
    assert facts["ExitCode"] == "2:0" and not (tmp_path / "none").exists()
    assert "has 2 tasks and this is one process outside of them: start all with `srun" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "options, tasks, control",
    [
        ((), 2, "the coordination service of JAX"),
        (("--mpi=pmi2", "--ntasks-per-node=2"), 4, "MPI"),
    ],
    ids=["a task a node", "two tasks a node, with MPI"],
)
def test_srun_over_two_nodes_gives_the_result_of_one_process(box, processes, alone, options, tasks, control):
    ran = processes.Ran(processes.new())
    words = ["srun", "--exclude=box[1-2]", "-N2", f"-n{tasks}", *options, "-D", processes.folder, *NIVP]
    box.call(*words, "run", "modes.toml", "--output", ran.directory, *SHORT)
    assert ran.summary["status"] == "finished" and ran.summary["processes"] == tasks
    logs = [path.read_text() for path in sorted((ran.directory / "logs").glob("process-*.log"))]
    assert len(logs) == tasks and all(f"decisions over {control}" in text for text in logs)
    assert len({re.search(r" on (box\d),", text)[1] for text in logs}) == 2
    assert_close(ran, alone, t=0.1)


SEES = """
import os
from nivp_dist.cluster import startup_checks, topology
del os.environ["JAX_PLATFORMS"]  # that of these tests
place = topology.detect()
print(place.index, topology.local_devices(place, os.environ, startup_checks.visible_gpus(os.environ)))
"""


@pytest.mark.parametrize(
    "options, expected",
    [
        (["-N2", "--ntasks-per-node=2", "--gpus-per-node=2"], ["0 [0]", "1 [1]", "2 [0]", "3 [1]"]),  # one a GPU
        (["-N2", "--ntasks-per-node=1", "--gpus-per-node=4"], ["0 None", "1 None"]),  # one a node: it uses all
        (["-N1", "--ntasks-per-node=2", "--gpus-per-node=4"], ["0 [0, 1]", "1 [2, 3]"]),
        (["-N1", "-n2", "--gpus-per-task=1"], ["0 None", "1 None"]),  # Slurm shows each task only its own
    ],
)
def test_the_gpus_of_a_task(box, tmp_path, options, expected):
    script = tmp_path / "sees.py"
    script.write_text(SEES)
    words = ["srun", "--exclude=box[1-2]", *options, sys.executable, script]
    assert sorted(box.call(*words).splitlines()) == expected


def test_a_run_that_reaches_its_time_limit_is_queued_again_until_it_finishes(box, limited, quiet):
    """Notice of the limit, checkpoint, exit code 75, the same job again, and the same bits in the end."""
    job, ran, thread = limited
    facts = box.wait(job, *ENDED, seconds=600)
    restarts = int(facts["Restarts"])
    assert restarts >= LIMITS and not thread.is_alive(), log(ran)
    finished(box, job, ran, quiet, restarts)
    requeues = lines(ran.directory / "requeues.jsonl")
    assert [(line["job"], line["number"], line["signal"]) for line in requeues] == [
        (job, number, "SIGUSR2") for number in range(1, restarts + 1)
    ]
    transitions = [line["transitions"] for line in requeues]
    assert transitions == sorted(set(transitions))
    assert log(ran).count("stopped on request (SIGUSR2)") == log(ran).count("nivp: queued again at t = ") == restarts
    assert [line["job"] for line in lines(ran.directory / "jobs.jsonl")] == [job]
