"""`nivp submit`: a run checked, its directory made, and its job in Slurm's queue."""

import shutil
from pathlib import Path

import click

from nivp_dist.batch import jobs, script, site
from nivp_dist.batch.script import Resources
from nivp_dist.batch.site import SiteSettings
from nivp_dist.errors import InputError
from nivp_dist.settings.command_line import parse, split
from nivp_dist.settings.files import COMMAND_LINE, resume_config
from nivp_dist.settings.keys import known_keys, nearest
from nivp_dist.storage import run_directory

AT_LEAST_ONE = click.IntRange(1)


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: nivp submit heat_2d --nodes 2 --gpus-per-node 4 --time 4:00:00",
)
@click.option("--output", metavar="DIR", help="The run directory, new or empty. Default: runs/NAME-NUMBER.")
@click.option("--resume", metavar="DIR", help="Instead of CONFIG: go on with a run, or with what is left of a sweep.")
@click.option("--nodes", type=AT_LEAST_ONE, help="Default: 1.")
@click.option("--gpus-per-node", type=AT_LEAST_ONE)
@click.option("--ntasks-per-node", type=AT_LEAST_ONE, help="Processes of a node. Default: one a GPU, else one.")
@click.option("--cpus-per-task", type=AT_LEAST_ONE)
@click.option("--time", metavar="LIMIT", help="Of one job, such as 24:00:00; a run goes on in the next.")
@click.option("--partition")
@click.option("--account")
@click.option("--qos")
@click.option("--constraint")
@click.option("--notice", type=click.IntRange(1, 65535), help="Seconds before the limit: a run saves and stops.")
@click.option("--requeues", type=click.IntRange(0), help="At most so many times is a job queued again.")
@click.option("--sweep", multiple=True, metavar="KEY=V1,V2", help="A run for each value, or combination of several.")
@click.option("--array-limit", type=AT_LEAST_ONE, help="Runs of a sweep at the same time.")
@click.option("--dry-run", is_flag=True, help="Print the script; write and submit nothing.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[CONFIG] [--section.key value]...")
def submit(output, resume, sweep, dry_run, arguments, **options):
    """Queue a run with Slurm, as a job that goes on until the run has finished.

    The site file, ~/.config/nivp/site.toml, holds what your cluster wants of every job: account, partition, modules,
    container, ... Options win over it.
    """
    settings = site.read()
    asked = script.resources(options, settings)
    positional, overrides = parse(arguments)
    _refuse_mistyped(overrides)
    if asked.array_limit and not (sweep or (resume is not None and jobs.is_sweep(Path(resume)))):
        raise InputError(f"{COMMAND_LINE}: --array-limit is for sweeps: add --sweep KEY=V1,V2, or leave it away")
    if not dry_run:
        jobs.require_sbatch()
    if resume is not None:
        if output or sweep or positional:
            raise InputError(f"{COMMAND_LINE}: --resume DIR goes without CONFIG, --output and --sweep: DIR says it all")
        _go_on(Path(resume).resolve(), overrides, asked, settings, dry_run)
    else:
        source, _ = split(arguments, "CONFIG")
        runs = jobs.combinations(source, overrides, sweep)
        _begin(runs, Path(source).stem, output, bool(sweep), asked, settings, dry_run)


def _begin(runs, name: str, output: str | None, sweep: bool, asked: Resources, settings: SiteSettings, dry_run: bool):
    configs = [config for _, config in runs]
    jobs.check(configs, asked)
    place, tasks = output or configs[0].output.directory, list(range(len(runs))) if sweep else None
    if dry_run:
        directory = run_directory.planned(place, f"{name}-sweep" if sweep else name)
        click.echo(script.render(directory, asked, settings, tasks=tasks), nl=False)
        return
    directory = jobs.make_sweep(runs, place, name) if sweep else run_directory.create(configs[0], place, name)
    try:
        job, path = jobs.queue(directory, script.render(directory, asked, settings, tasks=tasks), tasks)
    except InputError:
        shutil.rmtree(directory)  # made a moment ago, for this job
        raise
    _tell(job, path, tasks)


def _go_on(directory: Path, overrides: dict, asked: Resources, settings: SiteSettings, dry_run: bool):
    tasks = jobs.tasks(directory, finished=bool(overrides)) if jobs.is_sweep(directory) else None
    runs = jobs.members(directory, tasks)
    configs = [resume_config(run, overrides) for run in runs]
    if not overrides and all(jobs.has_finished(run) for run in runs):
        raise InputError(f"{directory}: nothing is left to do; --integrator.t_end goes further")
    jobs.check(configs, asked)
    text = script.render(directory, asked, settings, overrides, tasks)
    if dry_run:
        click.echo(text, nl=False)
        return
    for run in runs:
        jobs.require_idle(run)
    _tell(*jobs.queue(directory, text, tasks), tasks)


def _tell(job: str, path: Path, tasks: list[int] | None) -> None:
    """The id alone on standard output, for scripts."""
    click.echo(job)
    jobs.write_down(job, path, tasks)
    click.echo(f"nivp: {'sweep' if tasks else 'run'} directory: {path.parent}", err=True)


def _refuse_mistyped(overrides: dict) -> None:
    """--node is more likely an option of this command than a key of the configuration."""
    options = [name for option in submit.params for name in option.opts if name.startswith("--")]
    for key in overrides:
        close = nearest(f"--{key}", options + [f"--{known}" for known in known_keys()])
        if key not in known_keys() and close in options:
            raise InputError(f"{COMMAND_LINE}: unknown option --{key}; the nearest is {close}")
