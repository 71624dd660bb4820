"""`nivp sweep`: a family of runs on this machine, and `nivp study`: measurements that answer a question."""

import signal
from pathlib import Path
from typing import NamedTuple

import click

from nivp_dist.errors import FAILED, FINISHED, InputError, RunStopped
from nivp_dist.settings.command_line import split
from nivp_dist.settings.files import COMMAND_LINE


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: nivp sweep heat_2d --over solver.mu=1e-9,1e-11 --over seed=0,1,2",
)
@click.option("--over", multiple=True, metavar="KEY=V1,V2", help="A run for each value, or combination of several.")
@click.option("--output", metavar="DIR", help="The directory, new or empty. Default: runs/NAME-sweep-NUMBER.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG|DIR [--section.key value]...")
def sweep(over, output, arguments):
    """Carry out runs that differ in some settings, one after another, and compare them.

    With the directory of a sweep in place of CONFIG, a sweep that was interrupted goes on. Writes sweep.json and
    sweep.png there. `nivp submit --sweep` does the same on a cluster; its directory can be given here too.

    Exit status: 0 if all runs have finished, 1 if one of them failed.
    """
    from nivp_dist.report.tables import aligned
    from nivp_dist.studies import family, picture, table

    source, overrides = split(arguments, "CONFIG")
    if Path(source).is_dir():
        if over or output or overrides:
            raise InputError(f"{COMMAND_LINE}: a sweep goes on with the settings it has: leave out all but {source}")
        directory = Path(source).resolve()
        family.results(directory)
    elif not over:
        raise InputError(f"{COMMAND_LINE}: nothing to sweep over: add --over key=value,value")
    else:
        notes: list[str] = []
        directory = family.begin(source, overrides, over, output, notes.append)
        for note in dict.fromkeys(notes):
            click.echo(f"nivp: {note}", err=True)
        click.echo(f"nivp: sweep directory: {directory}", err=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the run in progress is stopped with a checkpoint
    try:
        family.carry_out(directory, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        raise RunStopped(f"stopped; continue with `nivp sweep {directory}`") from None
    results = family.results(directory)
    table.write_json(directory, results)
    for line in aligned(table.rows(results)):
        click.echo(line)
    if path := picture.draw(directory, results):
        click.echo(f"nivp: {path}", err=True)
    return FINISHED if all(result.numbers.get("status") in ("finished", "event") for result in results) else FAILED


@click.command(epilog="Example: nivp study scaling --quick")
@click.argument("name", required=False)
@click.option("--quick", is_flag=True, help="Small sizes: a minute or two. They show that it works, and no more.")
@click.option("--output", metavar="DIR", help="New, or that of the same study, which goes on. Default: studies/NAME.")
@click.option("--at-once", type=click.IntRange(1), metavar="N", help="Measurements at the same time.")
@click.option("--markdown", is_flag=True, help="Print the tables in Markdown.")
def study(name, quick, output, at_once, markdown):
    """Answer a question about the method by measurements: tables, an answer, NAME.json and NAME.png.

    Without NAME it lists the studies. One that was interrupted goes on when the same command is given again. Its
    pages in the manual: nivp guide studies.

    Exit status: 1 if a measurement failed.
    """
    from nivp_dist.studies import registry

    if name is None:
        for known, question in registry.questions().items():
            click.echo(f"{known}: {question}")
        return FINISHED
    return _carry_out(registry.find(name), Options(quick, output, at_once, markdown))


@click.command(epilog="Example: nivp bench size advection vlasov")
@click.argument("problems", nargs=-1)
@click.option("--quick", is_flag=True, help="Small sizes: a minute or two. They show that it works, and no more.")
@click.option(
    "--output", metavar="DIR", help="New, or that of the same problems, which goes on. Default: studies/size."
)
@click.option("--markdown", is_flag=True, help="Print the tables in Markdown.")
def size(problems, quick, output, markdown):
    """Errors of networks of many sizes for PROBLEMS: advection wave2d wave3d vlasov wells (default: all).

    It is `nivp study size`, for some of its problems. Exit status: 1 if a measurement failed.
    """
    from nivp_dist.studies.size import study_of

    return _carry_out(study_of(problems), Options(quick, output, None, markdown))


class Options(NamedTuple):
    """The options of a study."""

    quick: bool
    output: str | None
    at_once: int | None
    markdown: bool


def _carry_out(found, options: Options) -> int:
    """Measure what is missing of a study, and show it. The exit code."""
    from nivp_dist.studies import measurements, shown

    default = f"studies/{found.name}{'-quick' if options.quick else ''}"
    path = Path(options.output or default).expanduser().resolve()
    directory = measurements.opened(path, found, options.quick)
    click.echo(f"nivp: study directory: {path}", err=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # runs in progress are stopped with checkpoints
    try:
        records = measurements.take(directory, options.at_once, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        raise RunStopped(f"stopped; the same command goes on with {path}") from None
    shown.write_json(directory)
    for line in shown.lines(directory, options.markdown):
        click.echo(line)
    if picture := shown.draw(directory):
        click.echo(f"nivp: {picture}", err=True)
    return FINISHED if measurements.measured(records).keys() == records.keys() else FAILED
