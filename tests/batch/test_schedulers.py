"""PBS, LSF and Flux: their scripts, compared with files that a person has read and run by bash with stand-ins; their
commands, with stand-ins; which scheduler is meant. None of it has been tried with a real one."""

import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nivp_dist import cli
from nivp_dist.batch import jobs, resources, script
from nivp_dist.batch.schedulers import SCHEDULERS, choose, of_script
from nivp_dist.batch.site import SiteSettings
from nivp_dist.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
FULL = {
    "account": "physics",
    "partition": "gpu",
    "time": "2-12:30:00",
    "notice": 300,
    "requeues": 50,
    "cpus_per_task": 8,
    "modules": ["cuda/12.8", "apptainer"],
    "environment": {"NOTE": "it's ours"},
    "setup": ["ulimit -n 65536"],
    "container": "apptainer exec --nv $HOME/nivp.sif",
}
OWN = {
    "pbs": {"constraint": "gpu_type=a100", "launch": ["--cpu-bind=none"], "submit": ["-l filesystems=home"]},
    "lsf": {"constraint": "a100 && mem > 9", "launcher": "jsrun", "launch": ["--smpiargs=-gpu"], "submit": ["-x"]},
    "flux": {"constraint": "a|b", "launch": ["-ocpu-affinity=off"], "submit": ["--urgency=20"]},
}
SIZE = {"nodes": 4, "gpus_per_node": 8, "ntasks_per_node": 4}


def render(name, site=SiteSettings(), keys=None, tasks=None, directory="/scratch/runs/heat-001", **options):
    asked = resources.resources(options, site)
    return script.render(Path(directory), asked, site, keys, tasks, SCHEDULERS[name])


CASES = {"chain.sbatch": lambda: render("slurm", tasks=[0, 1], chain=3)}
for name, own in OWN.items():
    CASES[f"plain.{name}"] = lambda name=name: render(name, time="30")
    site = SiteSettings(**FULL | own)
    CASES[f"everything.{name}"] = lambda name=name, site=site: render(name, site, {"integrator.t_end": "2"}, **SIZE)


@pytest.mark.parametrize("name", CASES)
def test_the_script_is_the_one_that_was_read(name, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/opt/nivp/bin/python")
    text, golden = CASES[name](), GOLDEN / name
    (tmp_path / name).write_text(text)
    difference = difflib.unified_diff(golden.read_text().splitlines(), text.splitlines(), lineterm="")
    assert text == golden.read_text(), "\n".join(difference) + f"\nto accept it: cp {tmp_path / name} {golden}"
    assert subprocess.run(["bash", "-n", golden], capture_output=True, text=True).stderr == ""
    assert not re.search(r"(?<!USR2)@[A-Z]+@|#@", text)


def launch(name, **options):
    """The command that starts the processes, in one line, and the script."""
    site = SiteSettings(**{key: options.pop(key) for key in list(options) if key in SiteSettings.model_fields})
    text = render(name, site, time="30", **options)
    return " ".join(
        re.search(r"^(\w[^\n]*?) \\\n(?:    -[^\n]* \\\n)*    \"\$\{python", text, re.MULTILINE)[1].split()
    ), text


def test_every_launcher_starts_the_container():
    """srun, mpiexec, mpirun, jsrun, flux run: the same words of bash follow, whose first are those of the container."""
    for name, launcher in [(name, word) for name, one in SCHEDULERS.items() for word in one.launchers]:
        line, text = launch(name, launcher=launcher, container="apptainer exec my.sif", nodes=2)
        assert line.startswith(f"{launcher} ") and "\npython=(apptainer exec my.sif python)\n" in text


def test_what_the_launchers_are_asked_for():
    assert launch("pbs", launcher="mpirun", nodes=2, ntasks_per_node=3, environment={"A": "b"})[0] == (
        "mpirun -n 6 --map-by ppr:3:node --bind-to none -x NIVP_SECRET -x NIVP_NOTICE_AT -x A"
    )
    line, text = launch("lsf", launcher="mpiexec", nodes=2, ntasks_per_node=3)
    assert line == "mpiexec -n 6 --ppn 3" and "NIVP_NOTICE_AT=$(($(date +%s) + 1680))\n" in text and "-wa" not in text
    assert launch("flux", nodes=2, gpus_per_node=4)[0] == (
        "flux run -o exit-timeout=none --nodes=2 --exclusive --tasks-per-node=4 --gpus-per-node=4"
    )
    with pytest.raises(InputError, match="launcher = 'mpirun' is not for Flux, which has flux run"):
        launch("flux", launcher="mpirun")


@pytest.mark.parametrize(
    "name, options, line",
    [
        ("pbs", {}, "time: PBS tells a run nothing of its limit: give --time, or set it in the site file"),
        ("pbs", {"time": "30", "constraint": "a100"}, "constraint: for PBS it is a resource of the nodes, such as "),
        ("lsf", {"qos": "long"}, "qos: LSF has none: use --partition for its queue, or `submit` in the site file"),
        ("lsf", {"partition": "a b"}, '--partition: "a b": a directive of LSF takes letters, digits and ./+@=_- only'),
        ("flux", {"directory": "/a/it's"}, 'the run directory: "/a/it\'s": a directive of Flux takes letters, digits '),
        ("flux", {"array_limit": 2}, "--array-limit: a sweep is a job for each run with Flux: leave it away"),
        (
            "slurm",
            {"chain": 2, "requeues": 3},
            "command line: jobs of a --chain are not queued again: leave --requeues ",
        ),
    ],
)
def test_what_a_scheduler_cannot_express(name, options, line):
    with pytest.raises(InputError) as caught:
        render(name, **options)
    assert str(caught.value).startswith(line)


def test_requeues_on_the_command_line_win_over_the_chain_of_the_site():
    assert resources.resources({}, SiteSettings(chain=4)).chain == 4
    assert resources.resources({"requeues": 3}, SiteSettings(chain=4)).chain is None


# The scripts, run by bash

SAYS = '#!/bin/bash\nprintf "%s\\n" "$(basename "$0") $*" >> called\n'
LAUNCHER = SAYS + 'exit "$CODE"\n'
SUBMITS = SAYS + '[ "$1" = getattr ] && echo fJOB || echo "$NEXT"\n'
PYTHON = """#!/bin/bash
case "$*" in *batch.watch*) exec sleep_ 60 ;; esac
printf '%s\\n' "python $*" >> called
case "$*" in *batch.chain*) exit "$CHAINED" ;; *--cap*) echo a-host; exit "$RULE" ;; esac
"""


@pytest.fixture
def bash(tmp_path):
    """Run a rendered script with stand-ins in PATH: its exit code, and a line for each call of a stand-in."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    texts = {"mpiexec": LAUNCHER, "mpirun": LAUNCHER, "qsub": SUBMITS, "py": PYTHON, "sleep": "#!/bin/bash\n"}
    texts["flux"] = SUBMITS.replace("printf", '[ "$1" != run ] || exec mpiexec "$@"\nprintf', 1)
    for name, text in texts.items():
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    (stand_ins / "sleep_").symlink_to("/bin/sleep")
    directory = tmp_path / "heat"
    (directory / "logs").mkdir(parents=True)

    def bash(name, code, rule=0, chained=0, next_="8.server", **options):
        text = render(name, SiteSettings(python=str(stand_ins / "py")), directory=directory, time="30", **options)
        own = {"CODE": code, "RULE": rule, "CHAINED": chained, "NEXT": next_, "PBS_JOBID": "7", "LSB_JOBID": "7"}
        environment = os.environ | {key: str(value) for key, value in own.items()}
        environment["PATH"] = f"{stand_ins}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-c", text], cwd=tmp_path, env=environment, timeout=20)
        called = (tmp_path / "called").read_text().replace(str(tmp_path), "").splitlines()
        (tmp_path / "called").unlink()
        return done.returncode, [re.sub(r" --before \S+  -", "", line) for line in called]

    return bash


RULE = "python -m nivp_dist.batch.requeue /heat --cap 20 --job"


def test_a_pbs_job_submits_its_script_again(bash):
    run = "mpiexec -n 1 --ppn 1 /bin/py -m nivp_dist.cli resume /heat --patience 300"
    again = [f"{RULE} job-001.pbs", "qsub /heat/job-001.pbs"]
    recorded = "python -m nivp_dist.batch.requeue /heat --queued 8.server --script /heat/job-001.pbs"
    assert bash("pbs", 75) == (75, [run, *again, recorded])
    assert bash("pbs", 69)[1][1] == f"{RULE} job-001.pbs --lost"
    assert bash("pbs", 75, rule=1) == (75, [run, again[0]])
    assert bash("pbs", 0) == (0, [run])
    withdrawn = "python -m nivp_dist.batch.requeue /heat --job job-001.pbs --withdraw --by PBS"
    assert bash("pbs", 75, next_="") == (75, [run, again[0], *[again[1]] * 4, withdrawn])


def test_an_lsf_job_ends_with_the_exit_code_by_which_lsf_queues_it_again(bash):
    run = "mpirun -n 1 --map-by ppr:1:node --bind-to none -x NIVP_SECRET /bin/py -m nivp_dist.cli resume /heat"
    assert bash("lsf", 75) == (99, [f"{run} --patience 300", f"{RULE} 7"])
    assert bash("lsf", 75, rule=1)[0] == 75 and bash("lsf", 1)[0] == 1


def test_a_flux_job_submits_its_script_to_the_flux_around_it(bash):
    code, (_, run, *again) = bash("flux", 75, next_="f8")
    assert code == 75 and run.startswith("mpiexec run -o exit-timeout=none ")
    assert again[:2] == [f"{RULE} job-001.flux", "flux --parent batch /heat/job-001.flux"]


@pytest.mark.parametrize("chained, code, calls", [(0, 75, 2), (3, 0, 1), (1, 1, 1)])
@pytest.mark.parametrize("name", ["pbs", "lsf"])
def test_a_job_of_a_chain_asks_whether_it_has_something_to_do(bash, name, chained, code, calls):
    found, called = bash(name, 75, chained=chained, chain=2)
    assert (found, len(called)) == (code, calls)
    assert called[0] == f"python -m nivp_dist.batch.chain /heat --chain job-001.{name} --job 7"


# Submission, with stand-ins for the commands

COMMANDS = {
    "sbatch": 'echo "4$n;cluster"',
    "squeue": 'echo "$STATE"',
    "qsub": 'echo "4$n.server"',
    "qstat": 'printf "Job Id: %s\\n    job_state = %s\\n" "$2" "$STATE"',
    "bsub": 'cat >> "$STAND_IN/script"; echo "Job <4$n> is submitted to queue <normal>."',
    "bjobs": 'echo "$STATE"',
    "flux": '[ "$1" = jobs ] && echo "$STATE" || echo "ƒ4$n"',
}
RECORD = """#!/bin/bash
n=$(cat "$STAND_IN/number" 2>/dev/null || echo 1)
case "${0##*/} $1" in sbatch*|qsub*|bsub*|"flux batch")
    echo "${0##*/} $*" >> "$STAND_IN/submitted"; env > "$STAND_IN/environment"
    [ "$n" != "$REFUSED" ] || { echo "${MESSAGE:-no such queue}" >&2; exit 1; }
    echo $((n + 1)) > "$STAND_IN/number" ;;
esac
"""


@pytest.fixture
def submit(monkeypatch, tmp_path, capsys):
    """(exit code, stdout, stderr) of nivp submit for a scheduler, whose commands alone are there."""
    folder = tmp_path / "stand_in"
    folder.mkdir()
    monkeypatch.setenv("STAND_IN", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    for name in ("NIVP_SITE", "SGE_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("heat.toml").write_text('[problem]\nname = "heat"\n')
    tools = tmp_path / "tools"  # what else is on this machine, but for a scheduler that is installed
    tools.mkdir()
    for tool in Path("/usr/bin").iterdir():
        if tool.name not in ("sbatch", "squeue", "qsub", "qstat", "bsub", "bjobs", "flux"):
            (tools / tool.name).symlink_to(tool)

    def submit(name, *words):
        there = {"slurm": ("sbatch", "squeue"), "pbs": ("qsub", "qstat"), "lsf": ("bsub", "bjobs"), "flux": ("flux",)}
        for command in there[name]:
            (folder / command).write_text(RECORD + COMMANDS[command] + "\n")
            (folder / command).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{tools}")
        code = cli.main(["submit", "--time", "30", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    submit.folder = folder
    return submit


IDS = {"slurm": "41", "pbs": "41.server", "lsf": "41", "flux": "ƒ41"}
SECOND = {
    "slurm": "sbatch --parsable --dependency=afterany:41 {}",
    "pbs": "qsub -W depend=afterany:41.server {}",
    "lsf": "bsub -w ended(41)",
    "flux": "flux batch --dependency=afterany:ƒ41 {}",
}


@pytest.mark.parametrize("name", IDS)
def test_a_chain_is_queued(submit, monkeypatch, name):
    """The only command that is there says which scheduler is meant. Each job waits for the end of the one before."""
    code, out, err = submit(name, "heat.toml", "--output", "r", "--chain", "2")
    second = IDS[name].replace("41", "42")
    assert (code, out, err) == (0, f"{IDS[name]}\n{second}\n", f"nivp: run directory: {Path('r').resolve()}\n")
    path = Path("r").resolve() / f"job-001.{SCHEDULERS[name].suffix}"
    assert (submit.folder / "submitted").read_text().splitlines()[1] == SECOND[name].format(path)
    assert "NIVP_NOTICE_SECONDS=120\n" in (submit.folder / "environment").read_text()
    lines = [json.loads(line) for line in Path("r/jobs.jsonl").read_text().splitlines()]
    assert [(line["job"], line["script"]) for line in lines] == [(IDS[name], str(path)), (second, str(path))]
    if name == "lsf":
        assert (submit.folder / "script").read_text() == path.read_text() * 2
    monkeypatch.setenv("STATE", {"slurm": "PENDING", "pbs": "H", "lsf": "PEND", "flux": "PENDING"}[name])
    cancel = f"`{SCHEDULERS[name].cancel} {IDS[name]} {second}` first"
    assert submit(name, "--resume", "r") == (
        2, "", f"nivp: {Path('r').resolve()}: its jobs {IDS[name]} {second} are in the queue: {cancel}\n"
    )  # fmt: skip
    monkeypatch.setenv("STATE", {"slurm": "", "pbs": "F", "lsf": "DONE", "flux": "FAILED"}[name])
    assert submit(name, "--resume", "r")[0] == 0


@pytest.mark.parametrize("name", IDS)
def test_a_job_that_is_refused(submit, monkeypatch, name):
    monkeypatch.setenv("REFUSED", "1")
    assert submit(name, "heat.toml", "--output", "r") == (
        2, "", f"nivp: {SCHEDULERS[name].command} refuses: no such queue\n"
    )  # fmt: skip
    assert not Path("r").exists()
    monkeypatch.setenv("REFUSED", "2")
    code, out, err = submit(name, "heat.toml", "--output", "r", "--chain", "3")
    assert (code, out) == (1, f"{IDS[name]}\n") and Path("r/config.toml").exists()
    assert err.endswith(" refuses: no such queue: 1 of the 3 jobs of the chain are queued, and stay\n")


def test_a_job_of_a_chain_that_is_queued_although_sbatch_times_out(submit, monkeypatch):
    """The jobs of the chain have one script: the first is not taken for the second."""
    for name, value in {"REFUSED": "2", "MESSAGE": "Socket timed out"}.items():
        monkeypatch.setenv(name, value)
    path = Path("r").resolve() / "job-001.sbatch"
    monkeypatch.setenv("STATE", f"41|{path}\n42|{path}")
    code, out, err = submit("slurm", "heat.toml", "--output", "r", "--chain", "2")
    assert (code, out) == (0, "41\n42\n") and "Socket timed out: the job is queued all the same" in err


def test_a_submission_that_names_no_job(submit, monkeypatch):
    """The job may be queued all the same. A later resume asks no more of a scheduler that cannot look for a script."""
    monkeypatch.setitem(COMMANDS, "bsub", "cat > /dev/null; echo Welcome")
    code, out, err = submit("lsf", "heat.toml", "--output", "r")
    directory = Path("r").resolve()
    said = "nivp: bsub names no job: Welcome: the job may be queued, and bjobs was not asked"
    assert (code, out) == (1, "") and err.startswith(f"{said}: {directory} is kept; if `bjobs` does not show a job r ")
    monkeypatch.undo()
    assert jobs.require_idle(directory) is None


def test_a_sweep_is_a_job_for_each_run_where_there_is_no_array(submit, monkeypatch):
    sweep = ("heat.toml", "--output", "s", "--sweep", "seed=1,2")
    code, out, err = submit("pbs", *sweep, "--dry-run")
    assert code == 0 and out.count("#!/bin/bash") == 1 and err == "nivp: and 1 more, one for each run\n"
    assert submit("pbs", *sweep)[:2] == (0, "41.server\n42.server\n")
    assert "run=" + str(Path("s/0001").resolve()) in Path("s/0001/job-001.pbs").read_text()
    assert json.loads(Path("s/0001/jobs.jsonl").read_text())["job"] == "42.server"
    monkeypatch.setenv("REFUSED", "4")
    code, out, err = submit("pbs", *sweep[:2], "t", *sweep[3:])
    assert (code, out) == (1, "43.server\n")
    left = f"1 of the 2 runs are queued; for the others: nivp submit --resume {Path('t/0001').resolve()}"
    assert err == f"nivp: qsub refuses: no such queue: {left}, and so on\n"


def test_which_scheduler_is_meant(submit, monkeypatch):
    assert submit("pbs", "heat.toml", "--dry-run")[1].count("#PBS ") > 3
    monkeypatch.setenv("SGE_ROOT", "/opt/sge")  # its qsub reads no line of #PBS
    assert choose(None).name == "slurm" and not SCHEDULERS["pbs"].is_here()
    monkeypatch.delenv("SGE_ROOT")
    assert "#SBATCH" in submit("lsf", "heat.toml", "--dry-run")[1]  # two are there
    assert "#BSUB" in submit("lsf", "heat.toml", "--dry-run", "--scheduler", "lsf")[1]
    (submit.folder / "nivp").mkdir()
    (submit.folder / "nivp/site.toml").write_text('scheduler = "flux"\n')
    assert "#flux:" in submit("lsf", "heat.toml", "--dry-run")[1]
    assert submit("lsf", "heat.toml")[2] == (
        "nivp: flux is not here: submit from a login node of a Flux cluster, or use launch/local, mpirun\n"
    )
    assert [of_script(Path(f"job-001.{one.suffix}")) for one in SCHEDULERS.values()] == list(SCHEDULERS.values())
