"""The schedulers that `nivp submit` knows, and which of them is meant."""

from pathlib import Path

from nivp_dist.batch.flux import Flux
from nivp_dist.batch.lsf import Lsf
from nivp_dist.batch.pbs import Pbs
from nivp_dist.batch.scheduler import Scheduler
from nivp_dist.batch.slurm import Slurm

SLURM = Slurm()
SCHEDULERS: dict[str, Scheduler] = {scheduler.name: scheduler for scheduler in (SLURM, Pbs(), Lsf(), Flux())}


def choose(name: str | None) -> Scheduler:
    """The scheduler of that name; None: the one whose command is here if there is exactly one, else Slurm."""
    if name is not None:
        return SCHEDULERS[name]
    here = [scheduler for scheduler in SCHEDULERS.values() if scheduler.is_here()]
    return here[0] if len(here) == 1 else SLURM


def of_script(script: Path) -> Scheduler:
    """The scheduler of a job script, by the ending of its name."""
    return next((one for one in SCHEDULERS.values() if script.suffix == f".{one.suffix}"), SLURM)
