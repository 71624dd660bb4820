"""The kinds of faults: a name, what happens, and the function that does it and judges what becomes of the run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

from nivp_dist.bench.faults import damage, disk_faults, file_faults, process_faults, slurm_faults
from nivp_dist.bench.faults.children import Children
from nivp_dist.bench.faults.file_faults import Damage, Worker
from nivp_dist.bench.faults.outcome import Outcome


class Stage(NamedTuple):
    """What the faults share: the process that resumes stopped runs, and the undisturbed runs of the launchers."""

    worker: Worker
    children: Children


class Kind(NamedTuple):
    """inject: the stage, a new directory for the run, and the random generator of the fault -> its outcome.

    what: in words. missing: why there can be no such fault on this machine; None if there can.
    """

    name: str
    what: str
    inject: Callable[[Stage, Path, Random], Outcome]
    missing: Callable[[], str | None] = lambda: None


def _files(name: str, what: str, damaged: Damage, may_refuse: bool = False) -> Kind:
    def inject(stage: Stage, directory: Path, random: Random) -> Outcome:
        return file_faults.inject(stage.worker, damaged, may_refuse, directory, random)

    return Kind(name, what, inject)


def _processes(name: str, what: str, fault: Callable, missing: Callable[[], str | None] = lambda: None) -> Kind:
    def inject(stage: Stage, directory: Path, random: Random) -> Outcome:
        return fault(stage.children, directory, random)

    return Kind(name, what, inject, missing)


def _slurm(name: str, what: str, fault: Callable) -> Kind:
    return _processes(name, what, partial(slurm_faults.inject, fault), slurm_faults.no_slurm)


newest = damage.newest_checkpoint
KINDS = (
    _files("checkpoint-bit", "a bit of the newest checkpoint flipped", newest(damage.flip)),
    _files("checkpoint-cut", "a file of the newest checkpoint cut", newest(damage.truncate)),
    _files("checkpoint-file", "a file of the newest checkpoint removed", newest(damage.remove)),
    _files("checkpoint-zeros", "a block of the newest checkpoint zeroed", newest(damage.zero)),
    _files("two-checkpoints", "the two newest checkpoints damaged", damage.two_checkpoints),
    _files("all-checkpoints", "all checkpoints lost", damage.all_checkpoints, may_refuse=True),
    _files("metrics", "metrics.jsonl damaged, or numbers in it changed", damage.metrics),
    _files("events", "events.jsonl damaged", damage.events),
    _files("snapshot", "a snapshot damaged, removed or exchanged", damage.snapshot),
    _files("summary", "summary.json damaged", damage.summary),
    _files("configuration", "config.toml damaged, or a setting in it changed", damage.configuration, may_refuse=True),
    _files("problem", "the file of the problem damaged or changed", damage.problem, may_refuse=True),
    _processes("kill", "kill -9 of a process, or of all", process_faults.killed),
    _processes("signal", "TERM, INT, HUP, USR1 or USR2 to a process", process_faults.signalled),
    _processes("launcher", "kill -9 of launch/local or mpirun", process_faults.launcher_killed),
    _processes("stop", "a process suspended for ever", process_faults.stopped),
    _processes("pause", "processes suspended for seconds", process_faults.paused),
    _processes("moved", "the run directory moved away", process_faults.moved),
    _processes("second", "a second resume at the same time", process_faults.second),
    _processes("garbage", "strangers on the ports of the run", process_faults.garbage),
    _processes("full-disk", "no room on the disk", disk_faults.full, disk_faults.no_small_disk),
    _processes("failing-call", "a system call that fails once", disk_faults.failing, disk_faults.no_strace),
    _slurm("slurm-rank", "a process of a Slurm job killed", slurm_faults.rank_killed),
    _slurm("slurm-stepd", "slurmstepd killed", slurm_faults.manager_killed),
    _slurm("slurm-srun", "srun killed", slurm_faults.runner_killed),
    _slurm("slurm-requeue", "scontrol requeue", slurm_faults.requeued),
    _slurm("slurm-cancel", "scancel, and a resume", slurm_faults.cancelled),
)
BY_NAME = {kind.name: kind for kind in KINDS}
