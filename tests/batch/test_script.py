"""Job scripts: compared with files that a person has read, and run by bash with stand-ins for Slurm's commands."""

import difflib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nivp_dist.batch import resources, script
from nivp_dist.batch.site import SiteSettings
from nivp_dist.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
FULL = SiteSettings(
    account="physics",
    partition="gpu",
    qos="long",
    time="24:00:00",
    notice=300,
    requeues=50,
    cpus_per_task=8,
    modules=["cuda/12.8", "apptainer"],
    environment={"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9", "NOTE": "it's ours"},
    setup=["ulimit -n 65536"],
    container="apptainer exec --nv $HOME/nivp.sif",
    srun=["--mpi=pmi2"],
    sbatch=["--exclusive", "--mail-type=END"],
)

# Stand-ins for srun, scontrol and the rule of requeueing, which record their arguments, and for sleep, which does not.
SRUN = """#!/bin/bash
printf '%s\\n' "$*" >> called
trap 'sleep_ 0.3; exit 75' TERM
echo started > started
[ -z "$WAIT" ] || while :; do sleep_ 0.05; done
exit "$CODE"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = -o ]; then echo "JobId=$4 JobState=RUNNING"; exit; fi
echo "scontrol $*" >> called
[ "$(grep -c '^scontrol requeue' called)" -gt "$BUSY" ]
"""
SBATCH = """#!/bin/bash
printf 'sbatch %s\\n' "$*" >> called
exit "$IMPOSSIBLE"
"""
PYTHON = """#!/bin/bash
case "$*" in *batch.watch*) exec sleep_ 60 ;; esac
printf '%s\\n' "python $*" >> called
case "$*" in *--outcome*) echo "$OUTCOME"; exit ;; *--lost*) printf '%s' "$HOSTS" ;; esac
exit "$RULE"
"""


def render(directory="/scratch/runs/heat-001", site=SiteSettings(), keys=None, tasks=None, **options):
    return script.render(Path(directory), resources.resources(options, site), site, keys, tasks)


@pytest.mark.parametrize(
    "name, made",
    [
        ("plain", lambda: render()),
        (
            "everything",
            lambda: render(
                "/scratch/50% of it/heat's", FULL, {"integrator.t_end": "2"}, nodes=4, gpus_per_node=8, constraint="a|b"
            ),
        ),
        ("sweep", lambda: render("/scratch/sweep", tasks=[0, 1, 2, 5], array_limit=2, time="4:00:00")),
    ],
)
def test_the_script_is_the_one_that_was_read(name, made, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/opt/nivp/bin/python")
    text, golden = made(), GOLDEN / f"{name}.sbatch"
    (tmp_path / golden.name).write_text(text)
    difference = difflib.unified_diff(golden.read_text().splitlines(), text.splitlines(), lineterm="")
    assert text == golden.read_text(), "\n".join(difference) + f"\nto accept it: cp {tmp_path / golden.name} {golden}"
    assert subprocess.run(["bash", "-n", golden], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x1b", "\t", "\u2028"])
def test_control_characters_reach_no_script(character):
    """A line break in the name of a directory would end its #SBATCH line, and bash would run the rest."""
    with pytest.raises(InputError, match="^the run directory holds a line break or another control character, "):
        render(f"/scratch/a{character}touch x")
    with pytest.raises(InputError, match="^--output.times holds a line break or another control character, "):
        render(keys={"output.times": f"[1]{character}touch x"})
    with pytest.raises(InputError, match="--account must be one line and not empty"):
        render(account=f"a{character}b")


@pytest.mark.parametrize("name", ["$(touch x)", "a`touch x`", "a b;touch x", "#x", "100%", "@RUN@", "it's", "\\", "*"])
def test_any_other_name_of_a_directory_is_quoted(name, bash):
    """The script runs, passes the name on as it is, and touches nothing else."""
    process = bash(0, directory=bash.folder / name)
    assert process.wait(timeout=20) == 0
    assert bash.called() == [STEP.replace("/a run's", f"/{name}")]
    assert not (bash.folder / "x").exists()


def test_options_win_over_the_site_and_the_site_over_defaults():
    asked = resources.resources({"qos": "short", "notice": None, "gpus_per_node": 4}, FULL)
    assert (asked.qos, asked.notice, asked.partition, asked.nodes) == ("short", 300, "gpu", 1)
    assert (asked.ntasks_per_node, asked.cpus_per_task) == (4, 8)
    assert resources.resources({"gpus_per_node": 4, "ntasks_per_node": 1}, FULL).ntasks_per_node == 1
    assert resources.resources({}, SiteSettings()).ntasks_per_node == 1


@pytest.mark.parametrize(
    "options, line",
    [
        ({"time": "1:2:3:4"}, "command line: --time must be a time such as 30 (minutes), 4:00:00 or 2-12:00:00, got "),
        ({"time": "2", "notice": 120}, "a notice of 120 s is not shorter than the time limit, 2: lower --notice or "),
        ({"gpus_per_node": 4, "ntasks_per_node": 3}, "command line: 3 processes of a node cannot share its 4 GPUs "),
        ({"gpus_per_node": 1, "ntasks_per_node": 2}, "command line: 2 processes of a node cannot share its 1 GPUs "),
    ],
)
def test_resources_that_contradict_each_other(options, line):
    with pytest.raises(InputError) as caught:
        resources.resources(options, SiteSettings())
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("time", ["0", "2:01", "3", "0-1", "1:00:00"])
def test_a_notice_shorter_than_the_limit_is_accepted(time):
    """Slurm rounds a limit up to minutes, and takes 0 for no limit."""
    assert resources.resources({"time": time, "notice": 120}, SiteSettings()).time == time


# The script itself, run by bash


@pytest.fixture
def bash(tmp_path):
    """Start a rendered script with stand-ins in PATH. Its working directory holds `called`, a line for each call."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    texts = {"srun": SRUN, "scontrol": SCONTROL, "sbatch": SBATCH, "py thon": PYTHON, "sleep": "#!/bin/bash\n"}
    for name, text in texts.items():
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    (stand_ins / "sleep_").symlink_to("/bin/sleep")
    site = SiteSettings(python=str(stand_ins / "py thon"))

    def bash(code, rule=1, busy=0, wait="", outcome=1, hosts="", impossible=0, tasks=None, **slurm):
        directory = slurm.pop("directory", tmp_path / "a run's")
        text = render(directory, site, {"integrator.t_end": "2"}, tasks, requeues=7)
        own = {"CODE": str(code), "RULE": str(rule), "BUSY": str(busy), "WAIT": wait, "SLURM_JOB_ID": "42"}
        own |= {"OUTCOME": str(outcome), "HOSTS": hosts, "IMPOSSIBLE": str(impossible)}
        own["PATH"] = f"{stand_ins}:{os.environ['PATH']}"
        return subprocess.Popen(["bash", "-c", text], cwd=tmp_path, env=os.environ | own | slurm)

    def called():
        return (tmp_path / "called").read_text().replace(str(tmp_path), "").splitlines()

    bash.called, bash.folder = called, tmp_path
    return bash


STEP = "--kill-on-bad-exit=1 --wait=0 /bin/py thon -m nivp_dist.cli resume /a run's --integrator.t_end 2 --patience 300"
BEFORE = f"--before {hashlib.sha256(b'').hexdigest()}  -"  # of the summary, of which there is none
RULE = f"python -m nivp_dist.batch.requeue /a run's --cap 7 --job 42 {BEFORE} --facts JobId=42 JobState=RUNNING"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_of_the_run_is_that_of_the_job(bash, code):
    assert bash(code).wait(timeout=20) == code
    assert bash.called() == [STEP]


OUTCOME = "python -m nivp_dist.batch.requeue /a run's --outcome " + BEFORE
LOST = RULE.replace("--facts", "--lost --facts")


@pytest.mark.parametrize("outcome, calls", [(0, []), (1, []), (75, [RULE]), (69, [LOST])])
def test_a_killed_srun_leaves_the_outcome_of_the_run(bash, outcome, calls):
    assert bash(137, rule=1, outcome=outcome).wait(timeout=20) == outcome
    assert bash.called() == [STEP, OUTCOME, *calls]


def test_the_script_passes_on_what_the_summary_was_before_the_run(bash):
    (bash.folder / "a run's").mkdir()
    (bash.folder / "a run's/summary.json").write_text("{}")
    assert bash(137, rule=1, outcome=0).wait(timeout=20) == 0
    assert bash.called()[1] == OUTCOME.replace(hashlib.sha256(b"").hexdigest(), hashlib.sha256(b"{}").hexdigest())


def test_a_job_that_has_lost_a_process_is_queued_again(bash):
    assert bash(69, rule=0).wait(timeout=20) == 69
    assert bash.called() == [STEP, LOST, "scontrol requeue 42"]


@pytest.mark.parametrize("impossible", [0, 1])
def test_a_job_is_queued_again_without_the_hosts_that_lost_a_process(bash, capfd, impossible):
    """Unless it could not start without them, of which Slurm would only say that it waits."""
    assert bash(69, rule=0, hosts="box[1-2],box4", impossible=impossible).wait(timeout=20) == 69
    update = [] if impossible else ["scontrol update JobId=42 ExcNodeList=box[1-2],box4"]
    asked = "sbatch --test-only --exclude=box[1-2],box4 bash"  # in a job, the last word is the script
    assert bash.called() == [STEP, LOST, asked, "scontrol requeue 42", *update]
    line = (
        "the hosts are not excluded, because the job could not start without box[1-2],box4"
        if impossible
        else "a process was lost: the job is queued without the hosts box[1-2],box4"
    )
    assert capfd.readouterr().err == f"nivp: {line}\n"


def test_a_job_that_is_not_queued_again(bash):
    assert bash(75, rule=1).wait(timeout=20) == 75
    assert bash.called() == [STEP, RULE]


@pytest.mark.parametrize("busy, calls", [(0, 1), (2, 3), (9, 4)])
def test_a_job_is_queued_again_even_if_the_controller_is_busy(bash, busy, calls):
    assert bash(75, rule=0, busy=busy).wait(timeout=20) == 75
    withdrawn = ["python -m nivp_dist.batch.requeue /a run's --job 42 --withdraw"] if busy > 4 else []
    assert bash.called() == [STEP, RULE] + ["scontrol requeue 42"] * calls + withdrawn


def test_the_shell_outlives_its_tasks_when_both_get_a_signal(bash):
    process = bash(0, rule=1, wait="yes")
    deadline = time.monotonic() + 20
    while not (bash.folder / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGUSR2)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    assert bash.called() == [STEP, RULE]


def test_a_task_of_an_array(bash):
    ids = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "9", "SLURM_CPUS_PER_TASK": "4"}
    assert bash(75, rule=0, tasks=[8, 9], **ids).wait(timeout=20) == 75
    step = STEP.replace("--wait=0", "--wait=0 --cpus-per-task=4").replace("a run's", "a run's/0009")
    rule = RULE.replace("job 42", "job 40_9").replace("JobId=42", "JobId=40_9").replace("a run's", "a run's/0009")
    assert bash.called() == [step, rule, "scontrol requeue 40_9"]
