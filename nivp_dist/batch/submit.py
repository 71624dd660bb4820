"""`nivp submit`: a run is checked, its directory made, and its jobs put in the queue of a scheduler."""

import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import click

from nivp_dist.batch import jobs, ledger, resources, schedulers, script, site, sweeps
from nivp_dist.batch.resources import Resources
from nivp_dist.batch.scheduler import Scheduler
from nivp_dist.batch.site import SiteSettings
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.settings.command_line import parse, split
from nivp_dist.settings.files import COMMAND_LINE, name_of, resume_config
from nivp_dist.settings.keys import known_keys, nearest
from nivp_dist.storage import problem_copy, run_directory

AT_LEAST_ONE = click.IntRange(1)


class Request(NamedTuple):
    """What is asked of which scheduler, what the site wants of every job, and whether the script is only printed."""

    scheduler: Scheduler
    resources: Resources
    site: SiteSettings
    dry_run: bool


class Part(NamedTuple):
    """What one script carries out: the run in a directory, or tasks of the sweep in it."""

    directory: Path
    tasks: list[int] | None


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: nivp submit heat_2d --nodes 2 --gpus-per-node 4 --time 4:00:00",
)
@click.option(
    "--scheduler",
    type=click.Choice(list(schedulers.SCHEDULERS)),
    help="Default: the one whose command is found, if it is the only one, else slurm.",
)
@click.option("--output", metavar="DIR", help="The run directory, new or empty. Default: runs/NAME-NUMBER.")
@click.option("--resume", metavar="DIR", help="Instead of CONFIG: continue a run, or the unfinished runs of a sweep.")
@click.option("--nodes", type=AT_LEAST_ONE, help="Default: 1.")
@click.option("--gpus-per-node", type=AT_LEAST_ONE, help="Default: none.")
@click.option("--ntasks-per-node", type=AT_LEAST_ONE, help="Processes of a node. Default: one a GPU, else one.")
@click.option("--cpus-per-task", type=AT_LEAST_ONE, help="Cores of a process.")
@click.option("--time", metavar="LIMIT", help="Time limit of one job, such as 24:00:00; the run continues in the next.")
@click.option("--partition", help="As for sbatch; the queue of other schedulers.")
@click.option("--account", help="As for sbatch; the project or bank of other schedulers.")
@click.option("--qos", help="As for sbatch; Slurm only.")
@click.option("--constraint", help="As for sbatch, or in the terms of the scheduler.")
@click.option(
    "--notice",
    type=click.IntRange(1, 65535),
    help="Seconds before the time limit at which the run saves and stops. Default: 120; with --resume three times "
    "the longest of the last steps with its save, if that is more.",
)
@click.option("--requeues", type=click.IntRange(0), help="How often the job is queued again at most. Default: 20.")
@click.option(
    "--chain",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Where jobs may not be queued again: queue N jobs, each of which waits for the end of the one before and "
    "continues the run.",
)
@click.option("--sweep", multiple=True, metavar="KEY=V1,V2", help="A run for each value, or combination of several.")
@click.option("--array-limit", type=AT_LEAST_ONE, help="Runs of a sweep at the same time; Slurm only. Default: all.")
@click.option("--dry-run", is_flag=True, help="Print the script; write and submit nothing.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[CONFIG] [--section.key value]...")
def submit(scheduler, output, resume, sweep, dry_run, arguments, **options):
    """Queue a run with Slurm, PBS, LSF or Flux, as a job that is queued again until the run has finished.

    The site file, ~/.config/nivp/site.toml, holds what your cluster wants of every job: account, partition, modules,
    container and more. Options take precedence over it.
    """
    settings = site.read()
    chosen = schedulers.choose(scheduler or settings.scheduler)
    request = Request(chosen, resources.resources(options, settings), settings, dry_run)
    positional, overrides = parse(arguments)
    _refuse_mistyped(overrides)
    if request.resources.array_limit and not (sweep or (resume is not None and sweeps.is_sweep(Path(resume)))):
        raise InputError(f"{COMMAND_LINE}: --array-limit is for sweeps: add --sweep KEY=V1,V2, or leave it away")
    if not dry_run:
        chosen.require_here()
    if resume is None:
        source, _ = split(arguments, "CONFIG")
        notes: list[str] = []
        runs = sweeps.combinations(source, overrides, sweep, notes.append)
        for note in dict.fromkeys(notes):
            click.echo(f"nivp: {note}", err=True)
        _submit_new(runs, name_of(source), output, bool(sweep), request)
        return
    if output or sweep or positional:
        raise InputError(f"{COMMAND_LINE}: --resume DIR goes without CONFIG, --output and --sweep: DIR says it all")
    _submit_resumed(Path(resume).resolve(), overrides, request)


def _submit_new(runs: list[sweeps.Member], name: str, output: str | None, is_sweep: bool, request: Request) -> None:
    configs = [config for _, config in runs]
    sources = jobs.check(configs, request.resources)
    place, tasks = output or configs[0].output.directory, list(range(len(runs))) if is_sweep else None
    planned = run_directory.planned(place, f"{name}-sweep" if is_sweep else name)
    if _shown(planned, tasks, request, {}):
        return
    if is_sweep:
        directory = sweeps.make_sweep(runs, place, name, sources)
    else:
        directory = run_directory.create(configs[0], place, name, sources[0])
    try:
        _queue(directory, tasks, request, {})
    except InputError:
        shutil.rmtree(directory)  # it was made a moment ago, for this job
        raise


def _submit_resumed(directory: Path, overrides: dict[str, str], request: Request) -> None:
    tasks = sweeps.tasks(directory, with_finished=bool(overrides)) if sweeps.is_sweep(directory) else None
    runs = sweeps.members(directory, tasks)
    notes: list[str] = []
    configs = [resume_config(run, overrides, notes.append) for run in runs]
    if "integrator.t_end" in overrides:
        for run, config in zip(runs, configs):
            run_directory.require_not_beyond(run, config.integrator.t_end)
    for note in dict.fromkeys(notes):
        click.echo(f"nivp: {note}", err=True)
    if not overrides and all(run_directory.has_finished(run) for run in runs):
        raise InputError(f"{directory}: nothing is left to do; --integrator.t_end goes further")
    for run in runs:
        problem_copy.require_unchanged(run)
    request = request._replace(resources=_with_notice(request.resources, runs))
    jobs.check(configs, request.resources)
    if _shown(directory, tasks, request, overrides):
        return
    for run in runs:
        jobs.require_idle(run)
    _queue(directory, tasks, request, overrides)


def _with_notice(asked: Resources, runs: list[Path]) -> Resources:
    """The resources with a notice that suits what the runs have measured, unless one was asked for.

    Raises InputError if the time limit leaves no room for it.
    """
    if asked.notice is None:
        asked = asked._replace(notice=max(map(jobs.notice, runs)))
        resources.require_notice_within_limit(asked)
    return asked


def _parts(directory: Path, tasks: list[int] | None, scheduler: Scheduler) -> list[Part]:
    """What is submitted: the run, the sweep as a job array, or each of its runs where there is no array."""
    if tasks is None or scheduler.arrays:
        return [Part(directory, tasks)]
    return [Part(run, None) for run in sweeps.members(directory, tasks)]


def _render(part: Part, request: Request, path: Path, keys: dict[str, str]) -> str:
    scheduler, asked, settings, _ = request
    return script.render(part.directory, asked, settings, keys, part.tasks, scheduler, path)


def _shown(directory: Path, tasks: list[int] | None, request: Request, keys: dict[str, str]) -> bool:
    """Render the scripts, which finds what the scheduler cannot express. Print the first one if no more is wanted."""
    parts = _parts(directory, tasks, request.scheduler)
    texts = [_render(part, request, jobs.script_path(part.directory, request.scheduler), keys) for part in parts]
    if request.dry_run:
        click.echo(texts[0], nl=False)
        if len(texts) > 1:
            click.echo(f"nivp: and {len(texts) - 1} more, one for each run", err=True)
    return request.dry_run


def _queue(directory: Path, tasks: list[int] | None, request: Request, keys: dict[str, str]) -> None:
    """Queue what there is to do, record the jobs, and print their ids alone on standard output, for scripts.

    Raises InputError if the first job is refused; RunFailed later: what is queued stays.
    """
    parts = _parts(directory, tasks, request.scheduler)
    for number, part in enumerate(parts):
        # Rendered once more, because another run may have taken the directory that was planned.
        path = jobs.script_path(part.directory, request.scheduler)
        text = _render(part, request, path, keys)
        try:
            for job in jobs.queue(request.scheduler, path, text, request.resources, part.tasks):
                click.echo(job)
                ledger.record(job, path, part.tasks)
        except InputError as error:
            if number == 0:
                raise
            left = f"{number} of the {len(parts)} runs are queued; for the others: nivp submit --resume"
            raise RunFailed(f"{error}: {left} {shlex.quote(str(part.directory))}, and so on") from None
    click.echo(f"nivp: {'run' if tasks is None else 'sweep'} directory: {directory}", err=True)


def _refuse_mistyped(overrides: dict[str, str]) -> None:
    """Refuse --node, which is more likely a mistyped option of this command than a key of the configuration."""
    options = [name for option in submit.params for name in option.opts if name.startswith("--")]
    for key in overrides:
        close = nearest(f"--{key}", options + [f"--{known}" for known in known_keys()])
        if key not in known_keys() and close in options:
            raise InputError(f"{COMMAND_LINE}: unknown option --{key}; the nearest is {close}")
